"""Attention over a `Memory`: none, dot (Luong), additive (Bahdanau) and multi-head.

All kinds share one interface: ``keys(values)`` computes once per memory what all queries need, and
``forward(queries, memory)`` computes the context of all T positions of all rows in one batched product. Rows of
the same input share its memory: R = B·W rows are viewed as B inputs with W·T queries each, so nothing is copied.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gen.base.errors import UserError
from gen.models.memory import Memory


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis in float32, exactly zero at padding.

    Args:
        scores: (..., S) float.
        mask: bool, broadcastable to ``scores``; True = real, False = padding.

    Returns:
        (..., S) float32 that sums to 1 over the real positions; all zero if there are none.

    Example:
        >>> import torch
        >>> from gen.models.attention import masked_softmax
        >>> masked_softmax(torch.zeros(2, 3), torch.tensor([[True, True, False], [False, False, False]]))
        tensor([[0.5000, 0.5000, 0.0000],
                [0.0000, 0.0000, 0.0000]])
    """
    scores = scores.float()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(~mask, 0.0)


def attention_weights(scores: Tensor, memory: Memory) -> Tensor:
    """A softmax over the real positions. With several inputs it is one per input, so that none can take the
    attention of another.

    Args:
        scores: (B, N, S) float, of N queries per row of the memory.
        memory: of B rows; its ``mask`` and ``part_masks`` are read.

    Returns:
        (B, N, S) float32. They sum to 1, or with ``part_masks`` to the number of inputs that have real positions.
    """
    if memory.part_masks is None:
        return masked_softmax(scores, memory.mask[:, None])
    return masked_softmax(scores[:, :, None], memory.part_masks[:, None]).sum(2)


class Attention(nn.Module):
    """Base class, and the kind "none": ignores the memory and returns an empty context.

    Args:
        query_size: Q, size of the query vectors.
        memory_size: M, size of the vectors in the memory.
        num_heads: number of subspaces; only "multihead" uses it.

    Attributes:
        context_size: size of the context vectors; 0 for "none".
    """

    def __init__(self, query_size: int, memory_size: int, num_heads: int = 1) -> None:
        super().__init__()
        self.context_size = 0

    def keys(self, values: Tensor) -> tuple[Tensor, ...]:
        """What is computed once per memory: (B, S, M) values → the kind's own tensors."""
        return ()

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """The context of every query.

        Args:
            queries: (R, T, Q), R = B·W in input-major order.
            memory: B inputs; without an ``attention_cache`` it is computed here.

        Returns:
            context (R, T, context_size) in the queries' dtype, and weights (R, T, S) float32 or None.
        """
        return queries.new_zeros(*queries.shape[:2], 0), None


class _ScoredAttention(Attention):
    """Base class of "dot" and "additive": `attention_weights` of one score per position, and the weighted sum."""

    def __init__(self, query_size: int, memory_size: int, num_heads: int = 1) -> None:
        super().__init__(query_size, memory_size)
        self.context_size = memory_size

    def scores(self, queries: Tensor, keys: tuple[Tensor, ...]) -> Tensor:
        """(B, N, Q) queries → (B, N, S) scores."""
        raise NotImplementedError

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        R, T, Q = queries.shape
        B, S, M = memory.values.shape
        keys = self.keys(memory.values) if memory.attention_cache is None else memory.attention_cache
        scores = self.scores(queries.reshape(B, R // B * T, Q), keys)  # (B, W*T, S)
        weights = attention_weights(scores, memory)  # (B, W*T, S)
        context = weights.to(memory.values.dtype) @ memory.values  # (B, W*T, M)
        return context.reshape(R, T, M).to(queries.dtype), weights.reshape(R, T, S)


class DotAttention(_ScoredAttention):
    """score = (W q)ᵀ v / √M: Luong et al. 2015 ("general"), scaled as in Vaswani et al. 2017."""

    def __init__(self, query_size: int, memory_size: int, num_heads: int = 1) -> None:
        super().__init__(query_size, memory_size)
        self.query = nn.Linear(query_size, memory_size, bias=False)
        self.scale = 1 / math.sqrt(max(memory_size, 1))

    def keys(self, values: Tensor) -> tuple[Tensor, ...]:
        return (values.transpose(1, 2),)  # (B, M, S)

    def scores(self, queries: Tensor, keys: tuple[Tensor, ...]) -> Tensor:
        projected = self.query(queries) * self.scale
        return projected @ keys[0].to(projected.dtype)


class AdditiveAttention(_ScoredAttention):
    """score = wᵀ tanh(W q + U v): Bahdanau et al. 2015."""

    def __init__(self, query_size: int, memory_size: int, num_heads: int = 1) -> None:
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
    """Scaled dot product in ``num_heads`` subspaces: Vaswani et al. 2017. The returned weights are the mean over
    the heads.

    Raises:
        UserError: ``num_heads`` does not divide ``query_size``.
    """

    def __init__(self, query_size: int, memory_size: int, num_heads: int = 4) -> None:
        super().__init__(query_size, memory_size)
        if num_heads < 1 or query_size % num_heads:
            raise UserError(f"num_heads {num_heads} does not divide hidden_size {query_size}: choose a divisor")
        self.context_size = query_size
        self.num_heads = num_heads
        self.query = nn.Linear(query_size, query_size, bias=False)
        self.key = nn.Linear(memory_size, query_size, bias=False)
        self.value = nn.Linear(memory_size, query_size, bias=False)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, H·D) → (B, H, N, D)"""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def keys(self, values: Tensor) -> tuple[Tensor, ...]:
        # Contiguous: otherwise every step of a search would copy them.
        return tuple(self._heads(f(values)).contiguous() for f in (self.key, self.value))  # (B, H, S, D) each

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        R, T, Q = queries.shape
        B, S, _ = memory.values.shape
        keys, values = self.keys(memory.values) if memory.attention_cache is None else memory.attention_cache
        asked = self._heads(self.query(queries.reshape(B, R // B * T, Q)))  # (B, H, W*T, D)
        scores = asked @ keys.transpose(-1, -2).to(asked.dtype) / math.sqrt(asked.size(-1))
        weights = attention_weights(scores.flatten(1, 2), memory).view_as(scores)  # (B, H, W*T, S)
        context = weights.to(values.dtype) @ values  # (B, H, W*T, D)
        context = context.transpose(1, 2).reshape(R, T, Q).to(queries.dtype)
        return context, weights.mean(1).reshape(R, T, S)


ATTENTIONS: dict[str, type[Attention]] = {
    "none": Attention,
    "dot": DotAttention,
    "additive": AdditiveAttention,
    "multihead": MultiHeadAttention,
}


def build_attention(kind: str, query_size: int, memory_size: int, num_heads: int = 4) -> Attention:
    """The attention called ``kind``, one of `ATTENTIONS`. With a memory of size 0 (no encoder): "none".

    Raises:
        UserError: no attention has that name.

    Example:
        >>> from gen.models.attention import build_attention
        >>> build_attention("dot", query_size=512, memory_size=320).context_size
        320
    """
    if kind not in ATTENTIONS:
        raise UserError(f"--attention {kind!r}: must be one of {', '.join(ATTENTIONS)}")
    return ATTENTIONS[kind if memory_size else "none"](query_size, memory_size, num_heads)
