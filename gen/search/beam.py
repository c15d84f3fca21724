"""Beam search."""

from __future__ import annotations

import numpy as np

from gen.search.ops import Array
from gen.search.strategy import Strategy, register


@register("beam")
class Beam(Strategy):
    """Keeps the W best hypotheses per input, finished and live ones ranked by the same normalised score.

    That is ``score / ((5 + length) / 6) ** length_penalty`` (Wu et al., 2016). A penalty of 0 prefers short
    outputs, as the raw sum does; larger values prefer longer ones.

    Args:
        width: the beam width W.
        length_penalty: the exponent α.
        n_best: hypotheses to return per input, best first; at most ``width``.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> from gen.metrics.markov import MarkovChain
        >>> text = "the cat sat on the mat. " * 9
        >>> tokenizer = CharTokenizer.train([text])
        >>> chain = MarkovChain.fit(tokenizer.encode_array(text), tokenizer, order=4)
        >>> [found.text for found in chain.generate("the ", strategy=Beam(4, n_best=2), max_new_tokens=4)]
        ['cat ', 'mat.']
    """

    def __init__(self, width: int = 5, *, length_penalty: float = 1.0, n_best: int = 1) -> None:
        self.width = width
        self.length_penalty = length_penalty
        self.num_return = n_best

    def _normalise(self, scores: Array, lengths: Array) -> Array:
        return scores / ((5 + lengths) / 6) ** self.length_penalty

    def pick(self, log_probs: Array, scores: Array, finished: Array, lengths: Array) -> tuple[Array, Array, Array]:
        """The W best continuations per input; a row may continue several times or never. See `Strategy.pick`."""
        return self._best(log_probs, log_probs, scores, finished, lengths, self.width)

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

    def rank(self, scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return np.argsort(-self._normalise(scores, lengths), kind="stable")
