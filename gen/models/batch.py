"""What a model trains on: padded sequences and the inputs that they are about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

PADDED_TO = 2
"""Training batches have lengths that are multiples of this. Kernels are compiled when a shape is first met, which
takes longer than running them, so there should be few shapes."""


@dataclass(frozen=True)
class Batch:
    """B rows of training data.

    Attributes:
        source: what the encoder reads: one tensor with B rows per input name; empty for the encoder "none".
        input_ids: (B, T) int64, [BOS] + y for a sequence, the stream shifted by one for a stream.
        target_ids: (B, T) int64; PAD is not counted.
        continues: the rows continue those of the batch before, so its last state is this one's first.
        rows: (B,) int64, indices of the rows in the training set, for objectives that need them.
    """

    source: dict[str, Tensor]
    input_ids: Tensor
    target_ids: Tensor
    continues: bool = False
    rows: Tensor | None = None

    def __len__(self) -> int:
        """B."""
        return self.input_ids.size(0)

    @property
    def encoder_source(self) -> dict[str, Tensor]:
        """What `Encoder.forward` takes. The encoder "none" only counts rows, so it gets the input ids, and a batch
        has to carry nothing for it."""
        return self.source or {"prompt": self.input_ids}

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; copies from pinned memory do not block."""
        return self._map(lambda t: t.to(device, non_blocking=True))

    def pin(self) -> Batch:
        """The same batch in memory from which a GPU copies without waiting; what is on a device stays there."""
        return self._map(lambda t: t.pin_memory() if t.device.type == "cpu" else t)

    def take(self, rows: Tensor) -> Batch:
        """Some of its rows: (b,) int64 indices → b rows."""
        which = None if self.rows is None else self.rows[rows.to(self.rows.device)]
        return replace(self._map(lambda t: t[rows]), rows=which)

    def _map(self, f: Callable[[Tensor], Tensor]) -> Batch:
        """A function applied to all tensors but ``rows``, which stays on the CPU."""
        source = {name: f(tensor) for name, tensor in self.source.items()}
        return replace(self, source=source, input_ids=f(self.input_ids), target_ids=f(self.target_ids))


def pad(sequences: Sequence[Sequence[int] | np.ndarray], pad_id: int, multiple: int = 1) -> Tensor:
    """Sequences of ids → (B, longest) int64, padded on the right up to a multiple of ``multiple``."""
    width = -(-max((len(s) for s in sequences), default=0) // multiple) * multiple
    padded = torch.full((len(sequences), width), pad_id, dtype=torch.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = torch.as_tensor(sequence)
    return padded


def sequence_batch(
    source: dict[str, Tensor],
    sequences: Sequence[np.ndarray],
    bos: int,
    eos: int,
    pad_id: int,
    multiple: int = 1,
) -> Batch:
    """A batch of B whole sequences y: inputs [BOS] + y and targets y + [EOS], each (B, longest + 1) int64.

    Args:
        source: see `Batch`.
        sequences: B arrays of token ids, (T,) int each.
        bos, eos, pad_id: the tokenizer's.
        multiple: the length is padded up to a multiple of this.

    Example:
        >>> batch = sequence_batch({}, [np.array([5, 6]), np.array([7])], 1, 2, 0)
        >>> batch.input_ids.tolist(), batch.target_ids.tolist()
        ([[1, 5, 6], [1, 7, 0]], [[5, 6, 2], [7, 2, 0]])
    """
    inputs = pad([np.concatenate([[bos], s]) for s in sequences], pad_id, multiple)
    targets = pad([np.concatenate([s, [eos]]) for s in sequences], pad_id, multiple)
    return Batch(source, inputs, targets)
