"""Beam search for outputs that have to say something."""

from __future__ import annotations

from typing import Any

import numpy as np

from gen.search.beam import Beam
from gen.search.must import Must
from gen.search.ops import Array, Ops

WIDEST = 3
"""How many times its width a beam may grow, for inputs with many constraints."""


class ConstrainedBeam(Beam):
    """Divides the beam among banks: hypotheses that have said equally much of what they must.

    Dynamic beam allocation (Post and Vilar, 2018): besides the best continuations, those that begin or continue
    a constraint are candidates. Then each bank gets the beam's rows in turn. There is a bank per number of
    constraints met, and one for the hypotheses inside of the next. Those are compared by what beginning it cost,
    so that one with the expensive tokens behind it does not lose to one with them before it.

    Args:
        must: the processor that knows where each row is; see `Must`.
        width: the beam width of an input without constraints. For others it is two rows per constraint and one,
            if that is more, up to `WIDEST` times ``width``.
        n_best, options: as for `Beam`.
    """

    def __init__(self, must: Must, width: int = 5, *, n_best: int = 1, **options: Any) -> None:
        own = [max(width, min(2 * len(goal.forms) + 1, WIDEST * width)) if goal else width for goal in must.goals]
        super().__init__(max(own), n_best=max(own), **options)  # what says most is found in the end
        self._own, self._must, self._n_best = own, must, n_best

    def start(self, ops: Ops, rows: int) -> None:
        super().start(ops, rows)
        self._slots = np.asarray(self._own)  # (B,)
        self._behind = np.zeros(rows, np.float32)  # per row, how far it was behind the best when it began

    def keep(self, rows: np.ndarray) -> None:
        super().keep(rows)
        self._slots = self._slots[rows[:: self.width] // self.width]
        self._behind = self._behind[rows]

    def pick(self, log_probs: Array, scores: Array, finished: Array, lengths: Array) -> tuple[Array, Array, Array]:
        """The best continuations of each bank in turn. See `Strategy.pick`."""
        ops, W = self.ops, self.width
        R, B = len(log_probs), len(log_probs) // W
        was, ended, length = (ops.numpy(each) for each in (scores, finished, lengths))
        same = (length == 0) & (np.arange(R) % W > 0) & ~ended  # at first all W rows of an input are identical
        token_ids, values = self._candidates(log_probs)  # (R, C)
        total = np.where(same, np.float32(-np.inf), was)[:, None] + values
        bonus = self._bonus(finished, lengths)
        adjusted = total if bonus is None else total + ops.numpy(bonus)[:, None]
        ranking = self._normalise(adjusted, (length + ~ended)[:, None])
        best = np.where(ended[:, None], -np.inf, total).reshape(B, -1).max(1)
        best = np.where(best > -np.inf, best, 0)
        behind = total - np.repeat(best, W)[:, None]
        bank, full = self._banks(token_ids, total, behind)
        # What has not said all may not end, and pays for going on. It is let go once enough outputs are there that
        # have, and are more probable already.
        done = ended[:, None] & (bank == full)
        enough = np.sort(np.where(done, total, -np.inf).reshape(B, -1), axis=1)[:, -self._n_best]
        goes_on = np.repeat(~ended.reshape(B, W).all(1), W)[:, None]  # else its search is over
        hopeless = goes_on & (bank < full) & (ended[:, None] | (total < np.repeat(enough, W)[:, None]))
        total = np.where(hopeless, np.float32(-np.inf), total)
        ranking = np.where(bank % 2 == 1, behind, ranking)
        # In the order of banks, the fullest first, and in each of them the best first.
        bank = np.where(total > -np.inf, bank, -1).reshape(B, -1)
        order = np.lexsort((-ranking.reshape(B, -1), -bank))  # (B, W*C)
        sorted_bank = np.take_along_axis(bank, order, 1)
        place = np.arange(order.shape[1])
        begins = np.diff(sorted_bank, axis=1, prepend=-2) != 0
        turn = place - np.maximum.accumulate(np.where(begins, place, 0), axis=1)
        turn = np.where(sorted_bank < 0, len(place), turn)
        chosen = np.take_along_axis(order, np.argsort(turn, axis=1, kind="stable")[:, :W], 1)  # (B, W)
        unused = np.arange(W) >= self._slots[:, None]
        chosen = (chosen + np.arange(B)[:, None] * order.shape[1]).reshape(R)
        self._behind = behind.reshape(-1)[chosen]
        parents = ops.asarray(chosen // token_ids.shape[1], "int64")
        picked = ops.asarray(token_ids.reshape(-1)[chosen], "int64")
        unused = ops.asarray(unused.reshape(R) | (total.reshape(-1)[chosen] == -np.inf), "bool")
        new = scores[parents] + log_probs[parents, picked]
        return parents, picked, ops.where(unused, ops.full((R,), -np.inf, "float32"), new)

    def _candidates(self, log_probs: Array) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that each row may continue with and their log-probabilities, (R, C) each: the best, and those
        that say what it must."""
        values, token_ids = map(self.ops.numpy, self.ops.topk(log_probs, self.width))
        own_width = np.repeat(self._slots, self.width)[:, None]  # whatever the others of the batch need
        beyond = np.arange(values.shape[1]) >= own_width
        values, token_ids = np.where(beyond, np.float32(-np.inf), values), np.where(beyond, -1, token_ids)
        wanted = {row: goal.next_ids(place) for row, goal, place in self._must.rows()}
        most = max(map(len, wanted.values()), default=0)
        further = np.full((len(token_ids), most), -1)
        for row, each in wanted.items():
            further[row, : len(each)] = each
        known = (further[:, :, None] == token_ids[:, None]).any(2) | (further < 0)
        further = np.maximum(further, 0)
        rows = self.ops.arange(len(token_ids))[:, None]
        own = self.ops.numpy(log_probs[rows, self.ops.asarray(further, "int64")])
        own = np.where(known, np.float32(-np.inf), own)
        return np.maximum(np.concatenate([token_ids, further], 1), 0), np.concatenate([values, own], 1)

    def _banks(
        self, token_ids: np.ndarray, total: np.ndarray, behind: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The bank of each candidate (R, C), and the last bank of each row (R, 1). Candidates that go on with what
        has begun keep what that cost."""
        bank, full = np.zeros(total.shape, np.int64), np.zeros((len(total), 1), np.int64)
        possible = total > -np.inf
        for row, goal, place in self._must.rows():
            full[row] = 2 * len(goal.forms)
            bank[row] = goal.bank(place)
            if bank[row, 0] == full[row] and not place.open:
                continue
            for at in np.flatnonzero(possible[row]).tolist():
                after = place.after(int(token_ids[row, at]))
                bank[row, at] = goal.bank(after)
                if place.going and len(after.tail) > len(place.tail) and after.tail.startswith(place.tail):
                    behind[row, at] = self._behind[row]
        return bank, full
