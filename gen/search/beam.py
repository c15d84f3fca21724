"""Beam search."""

from __future__ import annotations

from typing import Any

import numpy as np

from gen.search.coverage import Coverage
from gen.search.ops import Array, Ops
from gen.search.strategy import Strategy, register


@register("beam")
class Beam(Strategy):
    """Keeps the W best hypotheses per input, finished and live ones ranked by the same normalised score.

    That is ``(score + reward · length) / lp + coverage``, where ``lp`` is ``((5 + length) / 6) ** length_penalty``
    and ``coverage`` is ``coverage_penalty`` times the sum, over the input's positions, of the logarithm of the
    attention that each has had, at most 1 (Wu et al., 2016). A length penalty of 0 prefers short outputs, as the
    raw sum does; larger values prefer longer ones.

    Args:
        width: the beam width W.
        length_penalty: the exponent α.
        n_best: hypotheses to return per input, best first; at most ``width``.
        coverage_penalty: β, at least 0. The model needs attention.
        length_reward: per token, in nats (He et al., 2016).

    Attributes:
        mask: (B, S) bool, the real positions of each input's memory; None: all are. `generate` sets it.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> from gen.metrics.markov import MarkovChain
        >>> text = "the cat sat on the mat. " * 9
        >>> tokenizer = CharTokenizer.train([text])
        >>> chain = MarkovChain.fit(tokenizer.encode_array(text), tokenizer, order=4)
        >>> [found.text for found in chain.generate("the ", strategy=Beam(4, n_best=2), max_new_tokens=4)]
        ['cat ', 'mat.']
    """

    mask: np.ndarray | None = None

    def __init__(
        self,
        width: int = 5,
        *,
        length_penalty: float = 1.0,
        n_best: int = 1,
        coverage_penalty: float = 0.0,
        length_reward: float = 0.0,
    ) -> None:
        self.width = width
        self.length_penalty = length_penalty
        self.num_return = n_best
        self.coverage_penalty = coverage_penalty
        self.length_reward = length_reward

    def start(self, ops: Ops, rows: int) -> None:
        super().start(ops, rows)
        mask = None if self.mask is None else np.repeat(self.mask, self.width, axis=0)
        self._coverage = Coverage(ops, mask) if self.coverage_penalty else None

    def observe_attention(self, attention: Array | None) -> None:
        if self._coverage:
            self._coverage.observe_attention(attention)

    def observe(self, parents: Array | None) -> None:
        if self._coverage:
            self._coverage.select(self.ops.numpy(parents))

    def keep(self, rows: np.ndarray) -> None:
        if self._coverage:
            self._coverage.keep(rows)

    def _normalise(self, scores: Array, lengths: Array) -> Array:
        return scores / ((5 + lengths) / 6) ** self.length_penalty

    def _extra(self, lengths: np.ndarray, rows: Any = ...) -> np.ndarray:
        """(R,) what is added to scores before they are normalised."""
        extra = self.length_reward * lengths
        if self._coverage:
            covered = self.coverage_penalty * self._coverage.penalty(rows)
            extra = extra + covered * ((5 + lengths) / 6) ** self.length_penalty
        return extra.astype(np.float32)

    def _bonus(self, finished: Array, lengths: Array) -> Array | None:
        """`_extra` of each row with one token more, (R,), whose attention then counts; None where it is 0."""
        if not (self._coverage or self.length_reward):
            return None
        running = ~self.ops.numpy(finished)
        if self._coverage:
            self._coverage.add(running)
        return self.ops.asarray(self._extra(self.ops.numpy(lengths) + running), "float32")

    def pick(self, log_probs: Array, scores: Array, finished: Array, lengths: Array) -> tuple[Array, Array, Array]:
        """The W best continuations per input; a row may continue several times or never. See `Strategy.pick`."""
        bonus = self._bonus(finished, lengths)
        adjusted = log_probs if bonus is None else log_probs + bonus[:, None]
        return self._best(log_probs, adjusted, scores, finished, lengths, self.width)

    def _best(
        self, log_probs: Array, adjusted: Array, scores: Array, finished: Array, lengths: Array, width: int
    ) -> tuple[Array, Array, Array]:
        """The ``width`` best continuations of every ``width`` rows: ranked by ``adjusted`` (R, V), scored by
        ``log_probs`` (R, V)."""
        R, W, ops = len(log_probs), width, self.ops
        rows = ops.arange(R)
        # At first all W rows of an input are identical: mask all but one.
        same = (lengths == 0) & (rows % W > 0) & ~finished
        scores = ops.where(same, ops.full((R,), -np.inf, "float32"), scores)
        # The W best of an input are among the W best of each of its rows, so only W·K candidates are ranked.
        adjusted, token_ids = ops.topk(adjusted, W)  # (R, K)
        K = token_ids.shape[-1]
        longer = lengths + ops.where(finished, 0 * lengths, 0 * lengths + 1)
        ranking = self._normalise(scores[:, None] + adjusted, longer[:, None])
        _, best = ops.topk(ranking.reshape(R // W, W * K), W)  # (B, W), in 0 .. W*K
        best = (best + (ops.arange(R // W) * (W * K))[:, None]).reshape(R)  # into (R*K,)
        parents, token_ids = best // K, token_ids.reshape(-1)[best]
        return parents, token_ids, scores[parents] + log_probs[parents, token_ids]

    def rank(self, scores: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.argsort(-self._normalise(scores + self._extra(lengths, rows), lengths), kind="stable")
