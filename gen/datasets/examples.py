"""Examples in memory as batches: for tasks whose data is small enough to be a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gen.datasets.batches import SequenceBatches
from gen.inputs.tokenizer import Tokenizer


class InMemory:
    """Sequences of token ids, as `gen.datasets.batches.Sequences` has them on disk."""

    def __init__(self, rows: Sequence[np.ndarray]) -> None:
        self.rows = rows
        self.lengths = np.array([len(row) for row in rows], np.int64)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.rows[row]


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
