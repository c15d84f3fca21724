"""The search loop: prompts, greedy search, sampling, beam search and streaming all use `search`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gen.base.errors import UserError
from gen.search.ops import Array, Ops
from gen.search.output import Hypothesis
from gen.search.processors import Processor
from gen.search.strategy import Strategy

Step = Callable[[Array, Any], tuple[Array, Any, Array | None]]
"""The interface of the model: (token_ids (R, T) int64, state) → (log-probabilities (R, V) float32 of what comes
after the last token, state, attention (R, S) or None). Before the first call the state has one row per input,
afterwards W. It needs two methods: ``select(rows)``, which may copy and leave out rows of an input, and
``keep(inputs, rows)``, which leaves out other inputs; after a step it may have ``features`` (R, F), what the
log-probabilities were computed from, for processors. Search may modify the log-probabilities in place.

What shares steps between searches (`gen.serve`) needs three things more: ``memory``, and the static methods
``join(states, memory)``, the rows of several states with a memory of one row per row, and
``join_memory(memories)``, which pads. A step then takes the rows of any searches of its model together."""


class Wish(NamedTuple):
    """A step of the decoder that a search waits for; the answer is what a `Step` returns for it."""

    token_ids: Array
    state: Any


NOT_FINITE = (
    "the model computes NaN instead of probabilities: its weights, or its input, hold NaN or infinite values; use "
    "another checkpoint, or train it again"
)


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


@dataclass
class _Rows:
    """The progress of the R rows."""

    scores: Array  # (R,) float32, as the strategy counts them
    lengths: Array  # (R,) int64, tokens generated
    ended: Array  # (R,) bool, takes no more tokens
    finished: Array  # (R,) bool, ended by EOS or a stop string
    limit: Array  # (R,) int64, most tokens
    forced: Array  # (R, F) int64, see `_forced_tokens`
    columns: list[StepRecord] = field(default_factory=list)
    moved: dict[int, np.ndarray] = field(default_factory=dict)  # after column t: which rows were kept

    @classmethod
    def begin(cls, ops: Ops, limit: Array, forced: Array) -> _Rows:
        """Rows without generated tokens."""
        R = len(limit)
        nobody = ops.full((R,), 0, "bool")
        return cls(ops.full((R,), 0.0, "float32"), ops.full((R,), 0, "int64"), nobody, nobody, limit, forced)

    def keep(self, rows: np.ndarray) -> None:
        """Drops the other rows."""
        self.scores, self.lengths, self.ended = self.scores[rows], self.lengths[rows], self.ended[rows]
        self.finished, self.limit, self.forced = self.finished[rows], self.limit[rows], self.forced[rows]
        self.moved[len(self.columns) - 1] = rows


Events = Generator[Wish | StepRecord, "tuple[Array, Any, Array | None] | None", list[list[Hypothesis]]]
"""A search that asks for its steps: each `Wish` wants the answer sent, each `StepRecord` None."""


def search(
    step: Step, state: Any, prompts: Sequence[Sequence[int]], strategy: Strategy, **settings: Any
) -> Generator[StepRecord, None, list[list[Hypothesis]]]:
    """Unrolls the decoder: yields one `StepRecord` per step, returns the hypotheses of every input.

    Args:
        step: the model; see `Step`.
        state, prompts, strategy, settings: see `unroll`.

    Raises:
        UserError: the model's log-probabilities are NaN.
    """
    return (yield from answered(step, unroll(state, prompts, strategy, **settings)))


def answered(step: Step, events: Events) -> Generator[StepRecord, None, list[list[Hypothesis]]]:
    """The records of a search whose wishes ``step`` answers."""
    answer = None
    while True:
        try:
            event = events.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = None
        if isinstance(event, Wish):
            answer = step(*event)
        else:
            yield event


def unroll(
    state: Any,
    prompts: Sequence[Sequence[int]],
    strategy: Strategy,
    *,
    ops: Ops,
    eos_id: int,
    pad_id: int,
    max_new_tokens: int | Sequence[int],
    never: Sequence[int] = (),
    processors: Sequence[Processor] = (),
    keep_attention: bool = False,
) -> Events:
    """Unrolls the decoder: yields a `Wish` for each step and then its `StepRecord`, returns the hypotheses of
    every input.

    Prompts of different lengths need no padding: the length that all have is read in one pass, the rest is
    forced token by token while rows with shorter prompts already generate. A row that has ended takes PAD at cost
    0, so no row depends on another input; on a CPU, inputs whose rows have all ended are dropped when there are
    enough of them.

    Args:
        state: the decoder's first state, one row per input.
        prompts: B lists of token ids, each with at least one (BOS).
        strategy: chooses the tokens; see `Strategy`.
        ops: array operations of the library that the model uses.
        eos_id, pad_id: PAD is fed to rows that have ended, and never picked otherwise.
        max_new_tokens: the length limit, an ordinary end; one for all inputs, or one per input.
        never: tokens that are never picked, in addition to PAD.
        processors: applied in their order to what the strategy picks from.
        keep_attention: record the weights behind each token.

    Raises:
        UserError: the model's log-probabilities are NaN.
    """
    B, W = len(prompts), strategy.width
    R = B * W
    shared = min(len(p) for p in prompts)
    input_of_row = ops.asarray(np.repeat(np.arange(B), W), "int64")  # input-major
    answer = yield Wish(ops.asarray([list(p[:shared]) for p in prompts], "int64"), state)
    assert answer is not None
    log_probs, state, attention = answer
    if W > 1:
        log_probs, state = log_probs[input_of_row], state.select(input_of_row)
        attention = None if attention is None else attention[input_of_row]
    vocab_size = log_probs.shape[-1]
    strategy.start(ops, R)
    for processor in processors:
        processor.start(ops, [prompts[r // W][:shared] for r in range(R)], vocab_size)
    forbidden = ops.asarray([pad_id, *never], "int64")
    pad_only = ops.where(ops.arange(vocab_size) == pad_id, 0.0, ops.full((1,), -np.inf, "float32"))  # (V,)
    limit = ops.asarray(np.repeat(np.broadcast_to(max_new_tokens, B), W), "int64")
    rows = _Rows.begin(ops, limit, _forced_tokens(ops, prompts, shared, W))
    zero = rows.scores
    inputs = np.arange(B)  # those not dropped yet
    results: dict[int, list[Hypothesis]] = {}
    some_ended = False
    while True:
        t = len(rows.columns)
        is_nan = log_probs[:, 0] != log_probs[:, 0]  # a row with NaN has it everywhere, or where it is picked
        # Bans change what is picked, not the reported log-probabilities.
        choice = ops.ban(log_probs, None, forbidden)  # (R, V)
        features = getattr(state, "features", None)
        for processor in processors:
            processor.look(features)
            choice = processor(choice, rows.lengths)
        if some_ended:
            choice = ops.put(choice, rows.ended, pad_only)
        is_forced = rows.forced[:, t] >= 0 if t < rows.forced.shape[1] else None
        if is_forced is None or attention is None:
            strategy.look(attention)
        else:  # what a prompt forces was not chosen for where it looks
            strategy.look(ops.where(is_forced[:, None], 0 * attention, attention))
        parents, token_ids, scores = strategy.pick(choice, rows.scores, rows.ended, rows.lengths)
        stuck = scores == -np.inf  # everything was forbidden, or a beam row that is not in use yet
        live = ~stuck & ~(rows.ended if parents is None else rows.ended[parents])
        if is_forced is not None:
            token_ids = ops.where(is_forced, rows.forced[:, t], token_ids)
            scores = ops.where(is_forced, rows.scores, scores)
            parents = None if parents is None else ops.where(is_forced, ops.arange(len(parents)), parents)
            live, stuck = live & ~is_forced, stuck & ~is_forced
        if parents is None:
            scores = ops.where(stuck, rows.scores, scores)
            picked = ops.at(log_probs, token_ids)
        else:
            picked = log_probs[parents, token_ids]
            rows.lengths, rows.finished = rows.lengths[parents], rows.finished[parents]
        is_nan = is_nan | (picked != picked)
        picked = ops.where(live, picked, zero[: len(live)])
        rows.scores = scores
        rows.lengths = rows.lengths + live
        rows.finished = rows.finished | (live & (token_ids == eos_id))
        strategy.observe(parents)
        for processor in processors:
            stopped = processor.observe(parents, token_ids, live)
            rows.finished = rows.finished if stopped is None else rows.finished | (stopped & live)
        rows.ended = rows.finished | stuck | (rows.lengths >= rows.limit)
        column = StepRecord(parents, token_ids, picked, live, attention if keep_attention else None)
        rows.columns.append(column)
        yield column
        # The only place where a step waits for the device: the number of ended rows, plus more where there is NaN.
        num_ended = int((rows.ended + is_nan * (len(is_nan) + 1)).sum())
        if num_ended > len(is_nan):
            raise UserError(NOT_FINITE)
        some_ended = num_ended > 0
        leaves = _leaving(ops, rows.ended, num_ended, W)
        if leaves is not None:
            found = _hypotheses(ops, rows, strategy, np.flatnonzero(leaves), eos_id)
            results |= zip(inputs[leaves].tolist(), found, strict=True)
            if leaves.all():
                return [results[b] for b in range(B)]
            kept = np.flatnonzero(~leaves)
            inputs, at = inputs[kept], (kept[:, None] * W + np.arange(W)).reshape(-1)
            state = state.keep(kept, at if parents is None else parents[at])
            token_ids = token_ids[at]
            rows.keep(at)
            strategy.keep(at)
            for processor in processors:
                processor.keep(at)
        elif parents is not None:
            state = state.select(parents)
        answer = yield Wish(token_ids[:, None], state)
        assert answer is not None
        log_probs, state, attention = answer


def drain(running: Generator[StepRecord, None, list[list[Hypothesis]]]) -> list[list[Hypothesis]]:
    """Runs a search to its end and returns its hypotheses."""
    while True:
        try:
            next(running)
        except StopIteration as stop:
            return stop.value


def _leaving(ops: Ops, ended: Array, num_ended: int, W: int) -> np.ndarray | None:
    """(B,) bool, which of the inputs whose rows have all ended are dropped; None where there are too few."""
    if num_ended < len(ended) and (num_ended < W or not ops.drops):
        return None
    done = np.all(ops.numpy(ended).reshape(-1, W), axis=1)
    stay = -(-int((~done).sum()) // _TOGETHER) * _TOGETHER
    leaves: np.ndarray = done & (np.cumsum(done) <= len(done) - stay)
    return leaves if leaves.any() else None


def _forced_tokens(ops: Ops, prompts: Sequence[Sequence[int]], shared: int, W: int) -> Array:
    """The rest of the longer prompts: (R, F) int64, -1 where a row is free."""
    longest = max(len(p) for p in prompts)
    forced = np.full((len(prompts), longest - shared), -1, dtype=np.int64)
    for row, prompt in zip(forced, prompts, strict=True):
        row[: len(prompt) - shared] = prompt[shared:]
    return ops.asarray(np.repeat(forced, W, axis=0), "int64")


def _hypotheses(
    ops: Ops, rows: _Rows, strategy: Strategy, inputs: np.ndarray, eos_id: int
) -> list[list[Hypothesis]]:
    """Follows the parents of some inputs' rows back from the last step and ranks them."""
    W, T = strategy.width, len(rows.columns)
    last = at = (inputs[:, None] * W + np.arange(W)).reshape(-1)
    token_ids, log_probs, live = (np.zeros((T, len(at)), d) for d in (np.int64, np.float32, bool))
    attention: list[np.ndarray] = []
    for t in range(T - 1, -1, -1):
        column = rows.columns[t]
        at = rows.moved[t][at] if t in rows.moved else at
        token_ids[t] = ops.numpy(column.token_ids)[at]
        log_probs[t] = ops.numpy(column.log_probs)[at]
        live[t] = ops.numpy(column.live)[at]
        at = at if column.parents is None else ops.numpy(column.parents)[at]
        if column.attention is not None:
            attention.append(ops.numpy(column.attention)[at])
    scores, lengths, finished = (ops.numpy(each)[last] for each in (rows.scores, rows.lengths, rows.finished))
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
