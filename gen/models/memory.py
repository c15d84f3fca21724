"""What an encoder hands to the decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """What the decoder may look at while it writes: one row per input.

    Attributes:
        values: (B, S, M) float, the vectors attention looks at. S = 0 when there is nothing to see.
        mask: (B, S) bool, True = real, False = padding.
        summary: (B, M) float, one vector per input: the decoder's first state is made from it.
        attention_cache: what the decoder's attention computes from ``values`` once and reads at every step (keys,
            and perhaps values); `Decoder.prepare` fills it in, encoders leave it alone.

    Example:
        >>> memory = Memory(values=torch.rand(2, 5, 8), mask=torch.ones(2, 5, dtype=torch.bool),
        ...                 summary=torch.rand(2, 8))
    """

    values: Tensor
    mask: Tensor
    summary: Tensor
    attention_cache: tuple[Tensor, ...] | None = None

    @classmethod
    def empty(cls, batch: int, device: torch.device | str | None = None) -> Memory:
        """A memory of nothing (S = 0, M = 0): free text generation."""
        return cls(
            values=torch.zeros(batch, 0, 0, device=device),
            mask=torch.zeros(batch, 0, dtype=torch.bool, device=device),
            summary=torch.zeros(batch, 0, device=device),
        )

    def select(self, inputs: Tensor | np.ndarray) -> Memory:
        """The memory of some of the inputs."""
        index = torch.as_tensor(inputs, device=self.values.device)
        cache = self.attention_cache and tuple(part[index] for part in self.attention_cache)
        return Memory(self.values[index], self.mask[index], self.summary[index], cache)

    def with_attention_cache(self, cache: tuple[Tensor, ...]) -> Memory:
        """The same memory with ``attention_cache`` filled in."""
        return replace(self, attention_cache=cache)
