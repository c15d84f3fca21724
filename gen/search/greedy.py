"""Greedy search: always the most probable token."""

from __future__ import annotations

from gen.search.ops import Array
from gen.search.strategy import Strategy, register


@register("greedy")
class Greedy(Strategy):
    """Picks the most probable token at every step: beam search of width 1, without the ranking."""

    def pick(self, log_probs: Array, scores: Array, finished: Array, lengths: Array) -> tuple[None, Array, Array]:
        token_ids = log_probs.argmax(-1)
        return None, token_ids, scores + self.ops.at(log_probs, token_ids)
