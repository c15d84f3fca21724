"""Attention over a `Memory`: none, dot (Luong), additive (Bahdanau) and multi-head.

All kinds share one interface: ``keys(values)`` computes once what every query needs, and
``forward(queries, memory)`` answers all T positions of all rows in one batched product. Rows of the same
input share its memory: R = B·W rows are viewed as B inputs with W·T queries each, so nothing is copied.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gen.models.memory import Memory


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis in float32 that gives padding exactly zero.

    Args:
        scores: (..., S) float.
        mask: bool, broadcastable to ``scores``; True = real.

    Returns:
        (..., S) float32 that sums to 1 over the real positions; all zero where nothing is real.
    """
    scores = scores.float()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(~mask, 0.0)


class Attention(nn.Module):
    """Base class, and the kind ``none``: looks at nothing, returns an empty context.

    Args:
        query_size: size of the vectors that ask.
        memory_size: M, size of the vectors in the memory.
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.context_size = 0

    def keys(self, values: Tensor) -> tuple[Tensor, ...]:
        """What is computed once a memory: (B, S, M) → tensors of the kind's own."""
        return ()

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Answers every query.

        Args:
            queries: (R, T, query_size), R = B·W in input-major order.
            memory: B inputs, with its ``keys`` prepared.

        Returns:
            context (R, T, context_size) in the queries' dtype, and weights (R, T, S) float32 or None.
        """
        return queries.new_zeros(*queries.shape[:2], 0), None


class _Looking(Attention):
    """Shared by the kinds that look: rows to inputs and back, softmax, weighted sum."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__(query_size, memory_size)
        self.context_size = memory_size

    def scores(self, queries: Tensor, keys: tuple[Tensor, ...]) -> Tensor:
        """(B, N, query_size) queries → (B, N, S) scores."""
        raise NotImplementedError

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        R, T, Q = queries.shape
        B, S, M = memory.values.shape
        keys = self.keys(memory.values) if memory.attention_cache is None else memory.attention_cache
        scores = self.scores(queries.reshape(B, R // B * T, Q), keys)  # (B, W*T, S)
        weights = masked_softmax(scores, memory.mask[:, None])  # (B, W*T, S)
        context = weights.to(memory.values.dtype) @ memory.values  # (B, W*T, M)
        return context.reshape(R, T, M).to(queries.dtype), weights.reshape(R, T, S)


class DotAttention(_Looking):
    """score = (W q)ᵀ v / √M: Luong et al. 2015 ("general"), scaled as in Vaswani et al. 2017."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__(query_size, memory_size)
        self.query = nn.Linear(query_size, memory_size, bias=False)
        self.scale = 1 / math.sqrt(max(memory_size, 1))

    def keys(self, values: Tensor) -> tuple[Tensor, ...]:
        return (values.transpose(1, 2),)  # (B, M, S)

    def scores(self, queries: Tensor, keys: tuple[Tensor, ...]) -> Tensor:
        projected = self.query(queries) * self.scale
        return projected @ keys[0].to(projected.dtype)


class AdditiveAttention(_Looking):
    """score = wᵀ tanh(W q + U v): Bahdanau et al. 2015."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__(query_size, memory_size)
        self.query = nn.Linear(query_size, query_size, bias=False)
        self.key = nn.Linear(memory_size, query_size)
        self.energy = nn.Linear(query_size, 1, bias=False)

    def keys(self, values: Tensor) -> tuple[Tensor, ...]:
        return (self.key(values),)  # (B, S, Q)

    def scores(self, queries: Tensor, keys: tuple[Tensor, ...]) -> Tensor:
        mixed = torch.tanh(self.query(queries)[:, :, None] + keys[0][:, None])  # (B, N, S, Q)
        return self.energy(mixed).squeeze(-1)


class MultiHeadAttention(Attention):
    """Scaled dot product in ``num_heads`` subspaces, Vaswani et al. 2017. Weights are the heads' mean."""

    def __init__(self, query_size: int, memory_size: int, num_heads: int = 4) -> None:
        super().__init__(query_size, memory_size)
        self.context_size = query_size
        self.num_heads = num_heads
        self.query = nn.Linear(query_size, query_size, bias=False)
        self.key = nn.Linear(memory_size, query_size, bias=False)
        self.value = nn.Linear(memory_size, query_size, bias=False)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, H·D) → (B, H, N, D)"""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def keys(self, values: Tensor) -> tuple[Tensor, ...]:
        # Contiguous, or every step of a search would copy them.
        return tuple(self._heads(f(values)).contiguous() for f in (self.key, self.value))  # (B, H, S, D) each

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        R, T, Q = queries.shape
        B, S, _ = memory.values.shape
        keys, values = self.keys(memory.values) if memory.attention_cache is None else memory.attention_cache
        asked = self._heads(self.query(queries.reshape(B, R // B * T, Q)))  # (B, H, W*T, D)
        scores = asked @ keys.transpose(-1, -2).to(asked.dtype) / math.sqrt(asked.size(-1))
        weights = masked_softmax(scores, memory.mask[:, None, None])  # (B, H, W*T, S)
        context = weights.to(values.dtype) @ values  # (B, H, W*T, D)
        context = context.transpose(1, 2).reshape(R, T, Q).to(queries.dtype)
        return context, weights.mean(1).reshape(R, T, S)


ATTENTIONS = {
    "none": Attention,
    "dot": DotAttention,
    "additive": AdditiveAttention,
    "multihead": MultiHeadAttention,
}


def build_attention(kind: str, query_size: int, memory_size: int, num_heads: int = 4) -> Attention:
    """The attention called ``kind``. Over a memory without a size (no encoder) every kind is ``none``.

    Example:
        >>> build_attention("dot", query_size=512, memory_size=320).context_size
        320
    """
    if memory_size == 0:
        return Attention(query_size, 0)
    if kind == "multihead":
        return MultiHeadAttention(query_size, memory_size, num_heads)
    return ATTENTIONS[kind](query_size, memory_size)
