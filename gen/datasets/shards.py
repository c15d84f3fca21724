"""Shards: texts, pairs and pictures from many files, tars, or a dataset on the Hub, read while a training goes on.

Nothing is stored on disk, and no more than a block is in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from gen.datasets.shard_files import Shard

T = TypeVar("T")

BUFFER = 10_000
"""Items of a block, if nobody says otherwise."""

BLOCK = 4 << 20
"""Most characters of a block, if nobody says otherwise."""

HEAD = 10_000_000
"""Characters at the beginning that a vocabulary is built from, and validation texts are taken from."""

Place = tuple[int, int, int]
"""Where a block begins: the pass over all shards, the position in the pass's order of shards, the row there."""


class Shards(Generic[T]):
    """Items in blocks: the shards of a pass in a random order, the items of a block shuffled.

    All orders are computed from a seed and the place of a block, so a training goes on from three numbers.

    Args:
        shards: at least one.
        items: (shard, number of rows to skip) → an item per row; None leaves one out.
        length: the number of characters of an item.
        buffer: items per block, at most.
        most: length at which a block also ends; None means `BLOCK`.

    Attributes:
        left_out: whether an item is not to be trained on.

    Example:
        >>> def rows(skip):
        ...     return iter(range(skip, 5))
        >>> shards = Shards([Shard("", rows)], lambda shard, skip: shard.rows(skip), lambda item: 1, buffer=3)
        >>> first, place = shards.block((0, 0, 0))
        >>> sorted(first), place, sorted(shards.block(place)[0])
        ([0, 1, 2], (0, 0, 3), [3, 4])
    """

    left_out: Callable[[T], bool] = staticmethod(lambda item: False)

    def __init__(
        self,
        shards: Sequence[Shard],
        items: Callable[[Shard, int], Iterator[T | None]],
        length: Callable[[T], int],
        buffer: int = BUFFER,
        most: int | None = None,
    ) -> None:
        self.shards, self.items, self.length, self.buffer = shards, items, length, buffer
        self.most = BLOCK if most is None else most
        self._open: tuple[Place, Iterator[T | None]] | None = None

    def block(self, place: Place, seed: int = 0) -> tuple[list[T], Place]:
        """The items of the block that begins at a place, and where the next one begins. A pass ends a block."""
        epoch, first, row = place
        order = np.random.default_rng((seed, epoch)).permutation(len(self.shards))
        found: list[T] = []
        length = 0
        source: Iterator[T | None]
        for at in range(first, len(order)):
            if self._open is not None and self._open[0] == (epoch, at, row):
                source = self._open[1]
            else:
                source = self.items(self.shards[order[at]], row)
            self._open = None  # it moves on
            for item in source:
                row += 1
                if item is not None and not self.left_out(item):
                    found.append(item)
                    length += self.length(item)
                if len(found) >= self.buffer or length >= self.most:
                    self._open = (epoch, at, row), source
                    return _shuffled(found, seed, place), (epoch, at, row)
            row = 0
        return _shuffled(found, seed, place), (epoch + 1, 0, 0)

    def head(self, most: int = HEAD) -> list[T]:
        """Items of ``most`` characters or a few more, from the beginnings of up to 32 shards."""
        places = np.unique(np.linspace(0, len(self.shards) - 1, 32).astype(int))
        found: list[T] = []
        for number in places:
            left = most // len(places)
            for item in self.items(self.shards[number], 0):
                if item is not None:
                    found.append(item)
                    left -= self.length(item)
                if left <= 0:
                    break
        return found

    @property
    def is_running(self) -> bool:
        """Whether the items are runs of text."""
        return all(shard.is_running for shard in self.shards)

    def __str__(self) -> str:
        """For a table."""
        return f"streamed from {len(self.shards):,} {'shard' if len(self.shards) == 1 else 'shards'}"

    def digest(self) -> str:
        """A hash of the names and sizes of the shards."""
        names = [(shard.name, shard.size) for shard in self.shards]
        return hashlib.blake2b(json.dumps(names).encode(), digest_size=20).hexdigest()

    @property
    def size(self) -> int:
        """Characters of all texts, or bytes of all pictures, very roughly."""
        known = sum(
            shard.size * (3 if shard.name.endswith((".gz", ".tgz", ".parquet")) else 1) for shard in self.shards
        )
        return known or 1 << 30


def _shuffled(items: list[T], seed: int, place: Place) -> list[T]:
    return [items[i] for i in np.random.default_rng((seed, *place)).permutation(len(items))]
