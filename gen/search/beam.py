"""Beam search and diverse beam search."""

from __future__ import annotations

import numpy as np

from gen.base.errors import UserError
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


@register("diverse-beam")
class DiverseBeam(Beam):
    """Diverse beam search (Vijayakumar et al., 2018): the beam is split into groups, and a group is penalised for
    tokens that earlier groups picked in the same step.

    The penalty affects only the choice; hypotheses keep the model's own score.

    Args:
        width: the beam width W of all groups together.
        groups: the number of groups; it divides ``width``.
        diversity: the penalty of a token, in nats, per row of an earlier group that picked it in this step.
        length_penalty, n_best: as for `Beam`.

    Raises:
        UserError: ``groups`` does not divide ``width``.

    Example:
        >>> DiverseBeam(6, groups=3, diversity=0.5, n_best=6).width
        6
        >>> DiverseBeam(6, groups=4)
        Traceback (most recent call last):
        gen.base.errors.UserError: beam_groups 4 does not divide beam=6
    """

    def __init__(
        self,
        width: int = 6,
        *,
        groups: int = 3,
        diversity: float = 0.5,
        length_penalty: float = 1.0,
        n_best: int = 1,
    ) -> None:
        if width % groups:
            raise UserError(f"--beam-groups {groups} does not divide --beam {width}")
        super().__init__(width, length_penalty=length_penalty, n_best=n_best)
        self.groups = groups
        self.diversity = diversity

    def pick(self, log_probs: Array, scores: Array, finished: Array, lengths: Array) -> tuple[Array, Array, Array]:
        """Picks for one group after the other. See `Strategy.pick`."""
        ops, V = self.ops, log_probs.shape[-1]
        B, w = len(log_probs) // self.width, self.width // self.groups
        index = ops.arange(len(log_probs)).reshape(B, self.groups, w)
        counts = ops.full((B, V), 0.0, "float32")
        found = []
        for g in range(self.groups):
            rows = index[:, g].reshape(-1)  # (B*w,)
            inputs = rows // self.width
            penalty = ops.where(finished[rows][:, None], 0 * counts[inputs], self.diversity * counts[inputs])
            own, done = log_probs[rows], finished[rows]
            parents, token_ids, best = self._best(own, own - penalty, scores[rows], done, lengths[rows], w)
            found.append([a.reshape(B, w) for a in (rows[parents], token_ids, best)])
            chosen = token_ids.reshape(B, w)[..., None] == ops.arange(V)  # (B, w, V)
            counts = counts + chosen.sum(1)
        parents, token_ids, best = (ops.concat(list(each), 1).reshape(-1) for each in zip(*found, strict=True))
        return parents, token_ids, best
