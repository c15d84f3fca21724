"""Beam search."""

from __future__ import annotations

import numpy as np

from gen.search.ops import Array
from gen.search.strategy import Strategy, register


@register("beam")
class Beam(Strategy):
    """Keeps the W best hypotheses an input; finished and live ones compete by the same measure.

    That measure is ``score / ((5 + length) / 6) ** length_penalty`` (Wu et al., 2016): 0 prefers short
    outputs as the raw sum does, larger values prefer longer ones.

    Args:
        width: W.
        length_penalty: the exponent α.
        n_best: how many hypotheses an input gets back, best first; at most ``width``.

    Example:
        >>> model.generate(["A dog runs ."], strategy=Beam(5, n_best=3))
    """

    def __init__(self, width: int = 5, *, length_penalty: float = 1.0, n_best: int = 1) -> None:
        self.width = width
        self.length_penalty = length_penalty
        self.num_return = n_best

    def _normalise(self, scores: Array, lengths: Array) -> Array:
        return scores / ((5 + lengths) / 6) ** self.length_penalty

    def pick(self, log_probs: Array, scores: Array, finished: Array, lengths: Array) -> tuple[Array, Array, Array]:
        """The W best continuations of an input's W rows; a row's own may be none of them. See `Strategy.pick`."""
        R, W, ops = len(log_probs), self.width, self.ops
        rows = ops.arange(R)
        # At first the W rows of an input are the same: let one of them speak.
        same = (lengths == 0) & (rows % W > 0) & ~finished
        scores = ops.where(same, ops.full((R,), -np.inf, "float32"), scores)
        # The W best of an input are among the W best of each of its rows: V is sorted once, and small.
        log_probs, token_ids = ops.topk(log_probs, W)  # (R, K)
        K = token_ids.shape[-1]
        candidates = scores[:, None] + log_probs  # (R, K)
        longer = lengths + ops.where(finished, 0 * lengths, 0 * lengths + 1)
        ranking = self._normalise(candidates, longer[:, None])
        _, best = ops.topk(ranking.reshape(R // W, W * K), W)  # (B, W), in 0 .. W*K
        best = (best + (ops.arange(R // W) * (W * K))[:, None]).reshape(R)  # into (R*K,)
        return best // K, token_ids.reshape(-1)[best], candidates.reshape(-1)[best]

    def rank(self, scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return np.argsort(-self._normalise(scores, lengths), kind="stable")
