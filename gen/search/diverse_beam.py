"""Diverse beam search: groups that avoid each other's tokens."""

from __future__ import annotations

from typing import Any

from gen.base.errors import UserError
from gen.search.beam import Beam
from gen.search.ops import Array
from gen.search.strategy import register


@register("diverse-beam")
class DiverseBeam(Beam):
    """Diverse beam search (Vijayakumar et al., 2018): the beam is split into groups, and a group is penalised for
    tokens that earlier groups picked in the same step.

    The penalty affects only the choice; hypotheses keep the model's own score.

    Args:
        width: the beam width W of all groups together.
        groups: the number of groups; it divides ``width``.
        diversity: the penalty of a token, in nats, per row of an earlier group that picked it in this step.
        options: as for `Beam`.

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
        **options: Any,
    ) -> None:
        if groups < 1 or width % groups:
            raise UserError(f"--beam-groups {groups} does not divide --beam {width}")
        super().__init__(width, **options)
        self.groups = groups
        self.diversity = diversity

    def pick(self, log_probs: Array, scores: Array, finished: Array, lengths: Array) -> tuple[Array, Array, Array]:
        """Picks for one group after the other. See `Strategy.pick`."""
        ops, V = self.ops, log_probs.shape[-1]
        B, w = len(log_probs) // self.width, self.width // self.groups
        index = ops.arange(len(log_probs)).reshape(B, self.groups, w)
        counts = ops.full((B, V), 0.0, "float32")
        found = []
        bonus = self._bonus(finished, lengths)
        for g in range(self.groups):
            rows = index[:, g].reshape(-1)  # (B*w,)
            inputs = rows // self.width
            penalty = ops.where(finished[rows][:, None], 0 * counts[inputs], self.diversity * counts[inputs])
            own, done = log_probs[rows], finished[rows]
            choice = own - penalty if bonus is None else own - penalty + bonus[rows][:, None]
            parents, token_ids, best = self._best(own, choice, scores[rows], done, lengths[rows], w)
            found.append([a.reshape(B, w) for a in (rows[parents], token_ids, best)])
            chosen = token_ids.reshape(B, w)[..., None] == ops.arange(V)  # (B, w, V)
            counts = counts + chosen.sum(1)
        parents, token_ids, best = (ops.concat(list(each), 1).reshape(-1) for each in zip(*found, strict=True))
        return parents, token_ids, best
