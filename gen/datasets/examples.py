"""Examples in memory as batches: for tasks whose data is small enough to be a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.datasets.batches import SequenceBatches
from gen.inputs.tokenizer import Tokenizer


class InMemory:
    """Sequences of token ids, as `gen.datasets.batches.Sequences` has them on disk."""

    def __init__(self, rows: Sequence[np.ndarray]) -> None:
        self.rows = rows
        self.lengths = np.array([len(row) for row in rows], np.int64)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.rows[row]


class InMemoryTokens:
    """Token ids as `gen.datasets.batches.TokenFile` has them on disk.

    Example:
        >>> InMemoryTokens(np.array([5, 6, 7, 8])).read(1, 2)
        array([6, 7])
    """

    def __init__(self, token_ids: np.ndarray) -> None:
        self.token_ids = token_ids

    def __len__(self) -> int:
        return len(self.token_ids)

    def read(self, start: int, length: int) -> np.ndarray:
        """``length`` ids from ``start`` on; fewer at the end."""
        return self.token_ids[start : start + length].astype(np.int64)


class NamedSources:
    """The sources of batches by input name. A share of the optional ones is left out, in other rows in every
    epoch: all zeros are "nothing given".

    Args:
        sources: input name → function of (B,) indices of rows and the number of the epoch.
        count: N, the number of rows.
        optional: the names of which some are left out.
        dropout: the share, 0 to 1.
        seed: of the choice.

    Example:
        >>> labels = torch.tensor([[4], [5]])
        >>> NamedSources({"topic": lambda rows, epoch: labels[rows]}, 2)(np.array([1]), 0)
        {'topic': tensor([[5]])}
    """

    def __init__(
        self,
        sources: Mapping[str, Callable[[np.ndarray, int], Tensor]],
        count: int,
        optional: Sequence[str] = (),
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.sources, self.count, self.optional = sources, count, list(optional)
        self.dropout, self.seed = dropout, seed
        self._kept: tuple[int, np.ndarray] = (-1, np.empty((0, 0), bool))

    def __call__(self, rows: np.ndarray, epoch: int) -> dict[str, Tensor]:
        """The source of a batch."""
        found = {name: source(rows, epoch) for name, source in self.sources.items()}
        if self.dropout:
            if self._kept[0] != epoch:
                drawn = np.random.default_rng((self.seed, epoch)).random((len(self.optional), self.count))
                self._kept = epoch, drawn >= self.dropout
            for name, kept in zip(self.optional, self._kept[1], strict=True):
                left = torch.from_numpy(kept[rows]).reshape(-1, *[1] * (found[name].ndim - 1))
                found[name] = found[name] * left
        return found


def example_batches(
    items: Sequence[Any],
    targets: Sequence[str],
    tokenizer: Tokenizer,
    prepare: Callable[[Sequence[Any]], Any],
    *,
    batch_tokens: int = 2000,
    seed: int = 0,
) -> SequenceBatches:
    """A training set of N items and the texts to be written about them.

    Args:
        items: what the encoder reads or looks at.
        targets: a text for each.
        tokenizer: of the targets.
        prepare: `Encoder.prepare`.
        batch_tokens: padded target tokens per batch.
        seed: of the order.
    """
    return SequenceBatches(
        InMemory([tokenizer.encode_array(text) for text in targets]),
        batch_tokens,
        tokenizer,
        source=lambda rows, epoch: prepare([items[r] for r in rows]).source,
        seed=seed,
    )
