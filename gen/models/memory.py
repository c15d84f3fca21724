"""The encoder's output, which the decoder reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """What the decoder attends to: one row per input.

    Attributes:
        values: (B, S, M) float, the vectors for attention; S = 0 without an encoder.
        mask: (B, S) bool, True = real, False = padding.
        summary: (B, M) float, one vector per input; the decoder's first state is computed from it.
        attention_cache: what the attention computes from ``values`` once and reads at every step (keys, and in
            "multihead" values). Encoders leave it None; `Decoder.prepare` fills it in.

    Example:
        >>> import torch
        >>> from gen.models.memory import Memory
        >>> mask = torch.ones(2, 5, dtype=torch.bool)
        >>> memory = Memory(values=torch.rand(2, 5, 8), mask=mask, summary=torch.rand(2, 8))
        >>> memory.select([1]).values.shape
        torch.Size([1, 5, 8])
    """

    values: Tensor
    mask: Tensor
    summary: Tensor
    attention_cache: tuple[Tensor, ...] | None = None

    @classmethod
    def empty(cls, batch: int, device: torch.device | str | None = None) -> Memory:
        """A memory without content (S = 0, M = 0), for generation without an encoder."""
        return cls(
            values=torch.zeros(batch, 0, 0, device=device),
            mask=torch.zeros(batch, 0, dtype=torch.bool, device=device),
            summary=torch.zeros(batch, 0, device=device),
        )

    def select(self, inputs: Tensor | np.ndarray) -> Memory:
        """The memory of the given inputs: (N,) indices → N inputs."""
        index = torch.as_tensor(inputs, device=self.values.device)
        cache = self.attention_cache and tuple(part[index] for part in self.attention_cache)
        return Memory(self.values[index], self.mask[index], self.summary[index], cache)

    def with_attention_cache(self, cache: tuple[Tensor, ...]) -> Memory:
        """The same memory with ``attention_cache`` filled in."""
        return replace(self, attention_cache=cache)
