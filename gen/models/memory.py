"""The encoder's output, which the decoder reads."""

from __future__ import annotations

from collections.abc import Sequence
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
        tokens: (B, S) int64, for a decoder that copies: what each position holds, in the decoder's vocabulary; PAD
            where it holds no token.
        part_masks: (B, P, S) bool, if the memory is that of several inputs: the real positions of each. Attention
            then has a softmax per part.

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
    tokens: Tensor | None = None
    part_masks: Tensor | None = None

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
        tokens, part_masks = (None if x is None else x[index] for x in (self.tokens, self.part_masks))
        return Memory(self.values[index], self.mask[index], self.summary[index], cache, tokens, part_masks)

    @staticmethod
    def join(memories: Sequence[Memory]) -> Memory:
        """The inputs of several memories of one model, padded to the longest."""
        caches = [memory.attention_cache for memory in memories]
        tokens = [memory.tokens for memory in memories if memory.tokens is not None]
        part_masks = [memory.part_masks for memory in memories if memory.part_masks is not None]
        parts = zip(*(cache for cache in caches if cache is not None), strict=True)
        return Memory(
            _padded([memory.values for memory in memories]),
            _padded([memory.mask for memory in memories]),
            torch.cat([memory.summary for memory in memories]),
            None if caches[0] is None else tuple(map(_padded, parts)),
            _padded(tokens) if tokens else None,
            _padded(part_masks) if part_masks else None,
        )

    def with_attention_cache(self, cache: tuple[Tensor, ...]) -> Memory:
        """The same memory with ``attention_cache`` filled in."""
        return replace(self, attention_cache=cache)


def _padded(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors below one another, each filled up with zeros (False, PAD) to the largest in every other axis."""
    largest = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)]
    return torch.cat([_filled(t, largest) for t in tensors])


def _filled(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    wanted = [n for size, own in zip(sizes, tensor.shape[1:], strict=True) for n in (size - own, 0)]
    return torch.nn.functional.pad(tensor, wanted[::-1]) if any(wanted) else tensor
