"""The rows of a search: one token more per step, and in the end hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gen.search.ops import Array, Ops
from gen.search.output import Hypothesis
from gen.search.strategy import Strategy


@dataclass(slots=True)  # a long text has very many
class StepRecord:
    """What one step added: one token per row.

    Attributes:
        parents: (R,) int64, the row each row continued, or None where each continued itself.
        token_ids: (R,) int64.
        log_probs: (R,) float32, the model's own.
        live: (R,) bool; False where a prompt forced the token or the row had already ended.
        attention: (R, S) by *parent* row, or None.
    """

    parents: Array | None
    token_ids: Array
    log_probs: Array
    live: Array
    attention: Array | None


_TOGETHER = 8
"""Drop finished inputs only so that a multiple of this is left: each new row count compiles new kernels."""


class Unrolled:
    """R rows of a search, as far as they are unrolled.

    Attributes:
        scores: (R,) float32, as the strategy counts them.
        lengths: (R,) int64, tokens generated.
        ended: (R,) bool, takes no more tokens.
        finished: (R,) bool, ended by EOS or a stop string.
        is_nan: (R,) bool, the last step's probabilities are NaN.
        limit: (R,) int64, most tokens.
        forced: (R, F) int64, see `forced_tokens`.
        columns: what each step added.
        moved: after column t: which rows were kept.
    """

    def __init__(self, ops: Ops, limit: Array, forced: Array) -> None:
        R = len(limit)
        self.ops, self.limit, self.forced = ops, limit, forced
        self.scores = self._zero = ops.full((R,), 0.0, "float32")
        self.lengths = ops.full((R,), 0, "int64")
        self.ended = self.finished = self.is_nan = ops.full((R,), 0, "bool")
        self.columns: list[StepRecord] = []
        self.moved: dict[int, np.ndarray] = {}

    def take(
        self, strategy: Strategy, log_probs: Array, choice: Array, attention: Array | None, eos_id: int
    ) -> StepRecord:
        """Adds one token per row: what the prompt forces, else what the strategy picks from ``choice`` (R, V)."""
        ops, t = self.ops, len(self.columns)
        is_forced = self.forced[:, t] >= 0 if t < self.forced.shape[1] else None
        if is_forced is None or attention is None:
            strategy.observe_attention(attention)
        else:  # what a prompt forces was not chosen for where it looks
            strategy.observe_attention(ops.where(is_forced[:, None], 0 * attention, attention))
        parents, token_ids, scores = strategy.pick(choice, self.scores, self.ended, self.lengths)
        stuck = scores == -np.inf  # everything was forbidden, or a beam row that is not in use yet
        live = ~stuck & ~(self.ended if parents is None else self.ended[parents])
        if is_forced is not None:
            token_ids = ops.where(is_forced, self.forced[:, t], token_ids)
            scores = ops.where(is_forced, self.scores, scores)
            parents = None if parents is None else ops.where(is_forced, ops.arange(len(parents)), parents)
            live, stuck = live & ~is_forced, stuck & ~is_forced
        ended = self.ended
        if parents is None:
            scores = ops.where(stuck, self.scores, scores)
            picked = ops.at(log_probs, token_ids)
        else:
            picked = log_probs[parents, token_ids]
            self.lengths, self.finished, ended = self.lengths[parents], self.finished[parents], ended[parents]
        self.is_nan = self.is_nan | (picked != picked)
        self.scores, self.lengths = scores, self.lengths + live
        self.finished = self.finished | (live & (token_ids == eos_id))
        self.ended = ended | self.finished | stuck | (self.lengths >= self.limit)
        picked = ops.where(live, picked, self._zero[: len(live)])
        self.columns.append(StepRecord(parents, token_ids, picked, live, attention))
        return self.columns[-1]

    def stop(self, rows: Array) -> None:
        """Ends rows, (R,) bool, as EOS does."""
        self.finished, self.ended = self.finished | rows, self.ended | rows

    def keep(self, rows: np.ndarray) -> None:
        """Drops the other rows."""
        self.scores, self.lengths, self.ended = self.scores[rows], self.lengths[rows], self.ended[rows]
        self.finished, self.limit, self.forced = self.finished[rows], self.limit[rows], self.forced[rows]
        self.moved[len(self.columns) - 1] = rows

    def leaving(self, num_ended: int, W: int) -> np.ndarray | None:
        """(B,) bool, which of the inputs whose rows have all ended are dropped; None where there are too few."""
        if num_ended < len(self.ended) and (num_ended < W or not self.ops.drops):
            return None
        done = np.all(self.ops.numpy(self.ended).reshape(-1, W), axis=1)
        stay = -(-int((~done).sum()) // _TOGETHER) * _TOGETHER
        leaves: np.ndarray = done & (np.cumsum(done) <= len(done) - stay)
        return leaves if leaves.any() else None

    def hypotheses(self, strategy: Strategy, inputs: np.ndarray, eos_id: int) -> list[list[Hypothesis]]:
        """Follows the parents of some inputs' rows back from the last step and ranks them."""
        numpy, W, T = self.ops.numpy, strategy.width, len(self.columns)
        last = at = (inputs[:, None] * W + np.arange(W)).reshape(-1)
        token_ids, log_probs, live = (np.zeros((T, len(at)), d) for d in (np.int64, np.float32, bool))
        attention: list[np.ndarray] = []
        for t in range(T - 1, -1, -1):
            column = self.columns[t]
            at = self.moved[t][at] if t in self.moved else at
            token_ids[t] = numpy(column.token_ids)[at]
            log_probs[t] = numpy(column.log_probs)[at]
            live[t] = numpy(column.live)[at]
            at = at if column.parents is None else numpy(column.parents)[at]
            if column.attention is not None:
                attention.append(numpy(column.attention)[at])
        scores, lengths, finished = (numpy(each)[last] for each in (self.scores, self.lengths, self.finished))
        weights = np.stack(attention[::-1]) if attention else None  # (T, R, S)
        results: list[list[Hypothesis]] = []
        for b in range(len(inputs)):
            mine = slice(b * W, (b + 1) * W)
            order = b * W + strategy.rank(scores[mine], lengths[mine], last[mine])
            possible = [r for r in order if scores[r] > -np.inf] or list(order[:1])
            results.append([])
            for r in possible[: strategy.num_return]:
                written = live[:, r]
                tokens = token_ids[written, r].tolist()
                probs = log_probs[written, r].tolist()
                seen = None if weights is None else weights[written, r][: len(tokens)]
                if tokens and tokens[-1] == eos_id:
                    tokens = tokens[:-1]
                    seen = None if seen is None else seen[:-1]
                seed, temperature = strategy.origin(int(r) % W)
                hypothesis = Hypothesis(tokens, sum(probs), probs, bool(finished[r]), seen)
                hypothesis.seed, hypothesis.temperature = seed, temperature
                results[-1].append(hypothesis)
        return results


def forced_tokens(ops: Ops, prompts: Sequence[Sequence[int]], shared: int, W: int) -> Array:
    """The rest of the longer prompts: (R, F) int64, -1 where a row is free."""
    longest = max(len(p) for p in prompts)
    forced = np.full((len(prompts), longest - shared), -1, dtype=np.int64)
    for row, prompt in zip(forced, prompts, strict=True):
        row[: len(prompt) - shared] = prompt[shared:]
    return ops.asarray(np.repeat(forced, W, axis=0), "int64")
