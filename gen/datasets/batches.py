"""Batches: tokens on disk, padded sequences in length buckets.

Every order is computed from (seed, epoch) and a position, so resuming has nothing to restore but numbers.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gen.base.distributed import shard
from gen.inputs.tokenizer import Tokenizer
from gen.models.batch import PADDED_TO, Batch, sequence_batch


class Batches(Protocol):
    """A training set: the same batches for the same epoch, from any position on. Where several processes train,
    each gets its share of the rows of every batch, so that together they do what one would do."""

    @property
    def batches_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


class TokenFile:
    """Token ids on disk, memory-mapped: reading takes memory only for what is read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.array([5, 6, 7, 8], np.uint16).tofile(Path(folder, "train.bin"))
        ...     TokenFile(Path(folder, "train.bin"), "uint16").read(1, 2).tolist()
        [6, 7]
    """

    RELEASE_EVERY = 32 << 20  # bytes

    def __init__(self, path: str | Path, dtype: str) -> None:
        self.path = Path(path)
        empty = self.path.stat().st_size == 0
        self._map = np.empty(0, dtype) if empty else np.memmap(self.path, dtype=dtype, mode="r")
        self._touched = 0

    def __len__(self) -> int:
        return len(self._map)

    def read(self, start: int, length: int) -> np.ndarray:
        """``length`` ids from ``start`` on, an int64 copy. Ends early at the end of the file."""
        piece = self._map[start : start + length].astype(np.int64)
        self._touched += piece.size * self._map.itemsize
        if self._touched > self.RELEASE_EVERY:
            self.release()
        return piece

    def release(self) -> None:
        """Gives pages back that were read."""
        self._touched = 0
        release(self._map)


def release(mapped: np.ndarray) -> None:
    """Gives back the pages of a memory-mapped array: read, they would count as this process's memory for ever."""
    while mapped.base is not None and not hasattr(mapped, "_mmap"):
        mapped = mapped.base
    pages = getattr(mapped, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


ROWS_AT_ONCE = 16
"""Matrix units take this many rows at a time: 65 cost what 80 do."""


def length_buckets(lengths: np.ndarray, batch_tokens: int, seed: tuple[int, ...]) -> list[np.ndarray]:
    """Groups sequences of like length into batches of at most ``batch_tokens`` padded tokens; of more than
    `ROWS_AT_ONCE` rows, a multiple of it.

    Sequences are shuffled before they are sorted by length, and the batches are shuffled after, so equal
    lengths meet other neighbours in every epoch.

    Args:
        lengths: (N,) int, or (N, K) where K sequences belong together; then the longest of them counts, and
            those that are equally long are sorted by the others.
        batch_tokens: rows × longest row of a batch; a longer sequence is a batch of its own.
        seed: of the order, such as (seed, epoch).

    Returns:
        Arrays of indices into ``lengths``.
    """
    rng = np.random.default_rng(seed)
    columns = lengths.reshape(len(lengths), -1)
    longest = -(-columns.max(1, initial=1) // PADDED_TO) * PADDED_TO
    order = rng.permutation(len(lengths))
    order = order[np.lexsort((*columns[order].T, longest[order]))]
    batches, begin = [], 0
    while begin < len(order):
        size = max(1, batch_tokens // int(longest[order[begin]]))
        # Lengths grow, so the last of the batch decides how many fit.
        while size > 1 and int(longest[order[min(begin + size, len(order)) - 1]]) * size > batch_tokens:
            size -= 1
        size -= size % ROWS_AT_ONCE if size > ROWS_AT_ONCE else 0
        batches.append(order[begin : begin + size])
        begin += size
    return [batches[i] for i in rng.permutation(len(batches))]


def mask_targets(batch: Batch, pad_id: int) -> Batch:
    """A batch of which no target counts, for a process that has no row of its own in this step."""
    return replace(batch, target_ids=torch.full_like(batch.target_ids, pad_id))


class Sequences:
    """Sequences of token ids on disk: lines, sentences, captions.

    Args:
        tokens: all of them, one after the other.
        offsets: (N + 1,) int64, where each begins.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.array([5, 6, 7, 8], np.uint16).tofile(Path(folder, "train.bin"))
        ...     Sequences(TokenFile(Path(folder, "train.bin"), "uint16"), np.array([0, 1, 4]))[1].tolist()
        [6, 7, 8]
    """

    def __init__(self, tokens: TokenFile, offsets: np.ndarray) -> None:
        self.tokens = tokens
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        begin, end = int(self.offsets[row]), int(self.offsets[row + 1])
        return self.tokens.read(begin, end - begin)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64."""
        return np.diff(self.offsets)


class Targets(Protocol):
    """Sequences of token ids, on disk or in memory, with their (N,) lengths."""

    @property
    def lengths(self) -> np.ndarray: ...

    def __getitem__(self, row: int) -> np.ndarray: ...


class SequenceBatches:
    """Whole sequences in length buckets, with what each of them is about.

    Args:
        targets: what the decoder learns to write.
        batch_tokens: padded tokens a batch, of the longer side.
        tokenizer: of the targets, for the ids that surround them.
        source: (indices of a batch's rows, number of the epoch) → `Batch.source`; the default is for the encoder
            "none".
        source_lengths: (N,) int, where the sources are sequences too.
        spellings: the targets (and sources) are this many versions of the same, one after the other; epochs take
            turns.
        seed: of the order.
    """

    def __init__(
        self,
        targets: Targets,
        batch_tokens: int,
        tokenizer: Tokenizer,
        *,
        source: Callable[[np.ndarray, int], dict[str, Tensor]] = lambda rows, epoch: {},
        source_lengths: np.ndarray | None = None,
        spellings: int = 1,
        seed: int = 0,
    ) -> None:
        self.targets = targets
        self.batch_tokens = batch_tokens
        self.ids = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
        self.source = source
        self.seed = seed
        columns = [targets.lengths + 1] if source_lengths is None else [source_lengths, targets.lengths + 1]
        lengths = np.stack(columns, 1)  # with EOS
        self.lengths = lengths.reshape(spellings, -1, len(columns))
        self.batches_per_epoch = len(length_buckets(self.lengths[0], batch_tokens, (seed, 0)))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from position ``start`` on."""
        spelling = epoch % len(self.lengths)
        first = spelling * self.lengths.shape[1]
        for whole in length_buckets(self.lengths[spelling], self.batch_tokens, (self.seed, epoch))[start:]:
            share = shard(whole)
            rows = (share if len(share) else whole[:1]) + first
            batch = sequence_batch(self.source(rows, epoch), [self.targets[r] for r in rows], *self.ids, PADDED_TO)
            batch = replace(batch, rows=torch.from_numpy(rows))
            yield batch if len(share) else mask_targets(batch, self.ids[-1])


class Background:
    """Batches that a thread makes ahead of the loop: pictures are decoded while the network learns from others.

    Args:
        batches: what to make.
        ahead: how many may wait.
        pin: put them into memory that a GPU copies from without waiting.
    """

    def __init__(self, batches: Batches, ahead: int = 2, *, pin: bool = False) -> None:
        self.batches = batches
        self.ahead = ahead
        self.pin = pin

    @property
    def batches_per_epoch(self) -> int:
        return self.batches.batches_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from position ``start`` on, in their order."""
        with ThreadPoolExecutor(1) as pool:
            source = self.batches.epoch(epoch, start)
            source = (batch.pin() for batch in source) if self.pin else source
            waiting = deque(pool.submit(next, source, None) for _ in range(self.ahead))
            try:
                while (batch := waiting.popleft().result()) is not None:
                    waiting.append(pool.submit(next, source, None))
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()
