"""What a model trains on: padded sequences and what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

PADDED_TO = 2
"""Training batches have lengths that are multiples of this. The kernels of a shape are made when it is first met,
which takes longer than using them: so there should be few."""


@dataclass(frozen=True)
class Batch:
    """What the model trains on.

    Attributes:
        source: what `Encoder.forward` takes for these rows: a tensor of B rows, or B where there is nothing.
        input_ids: (B, T) int64, [BOS] + y for a sequence, the stream shifted by one for a stream.
        target_ids: (B, T) int64; PAD is not counted.
        continues: the rows continue those of the batch before, so its last state is this one's first.
        rows: (B,) int64, which items of the training set they are, for objectives that ask.
    """

    source: Any
    input_ids: Tensor
    target_ids: Tensor
    continues: bool = False
    rows: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; copies from pinned memory do not block."""
        moved = [t.to(device, non_blocking=True) for t in (self.input_ids, self.target_ids)]
        source = self.source.to(device, non_blocking=True) if isinstance(self.source, Tensor) else self.source
        return replace(self, source=source, input_ids=moved[0], target_ids=moved[1])

    def pin(self) -> Batch:
        """The same batch in memory that a GPU copies from without waiting."""
        pinned = [t.pin_memory() for t in (self.input_ids, self.target_ids)]
        source = self.source.pin_memory() if isinstance(self.source, Tensor) else self.source
        return replace(self, source=source, input_ids=pinned[0], target_ids=pinned[1])

    def take(self, rows: Tensor) -> Batch:
        """Some of its rows: (b,) int64 → b rows."""
        source = len(rows) if isinstance(self.source, int) else self.source[rows]
        which = None if self.rows is None else self.rows[rows.to(self.rows.device)]
        return replace(
            self, source=source, input_ids=self.input_ids[rows], target_ids=self.target_ids[rows], rows=which
        )


def pad(sequences: Sequence[Sequence[int] | np.ndarray], pad_id: int, multiple: int = 1) -> Tensor:
    """Sequences of ids → (B, longest) int64, padded on the right up to a multiple of ``multiple``."""
    width = -(-max((len(s) for s in sequences), default=0) // multiple) * multiple
    padded = torch.full((len(sequences), width), pad_id, dtype=torch.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = torch.as_tensor(sequence)
    return padded


def sequence_batch(
    source: Any, sequences: Sequence[np.ndarray], bos: int, eos: int, pad_id: int, multiple: int = 1
) -> Batch:
    """Whole sequences y → inputs [BOS] + y and targets y + [EOS]; see `pad`."""
    inputs = pad([np.concatenate([[bos], s]) for s in sequences], pad_id, multiple)
    targets = pad([np.concatenate([s, [eos]]) for s in sequences], pad_id, multiple)
    return Batch(source, inputs, targets)
