"""The search loop: prompts, greedy search, sampling, beam search and streaming all use `search`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gen.base.errors import UserError
from gen.search.ops import Array, Ops
from gen.search.output import Hypothesis
from gen.search.processors import BannedTokens, Processor, Processors
from gen.search.strategy import Strategy
from gen.search.unrolled import StepRecord, Unrolled, forced_tokens

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
    processor = Processors([BannedTokens([pad_id, *never]), *processors])
    processor.start(ops, [prompts[r // W][:shared] for r in range(R)], vocab_size)
    pad_only = ops.where(ops.arange(vocab_size) == pad_id, 0.0, ops.full((1,), -np.inf, "float32"))  # (V,)
    limit = ops.asarray(np.repeat(np.broadcast_to(max_new_tokens, B), W), "int64")
    rows = Unrolled(ops, limit, forced_tokens(ops, prompts, shared, W))
    inputs = np.arange(B)  # those not dropped yet
    results: dict[int, list[Hypothesis]] = {}
    some_ended = False
    while True:
        rows.is_nan = log_probs[:, 0] != log_probs[:, 0]  # a row with NaN has it everywhere, or where it is picked
        processor.observe_features(getattr(state, "features", None))
        choice = processor(log_probs, rows.lengths)  # (R, V), what is picked from; `log_probs` is what is reported
        if some_ended:
            choice = ops.put(choice, rows.ended, pad_only)
        column = rows.take(strategy, log_probs, choice, attention, eos_id)
        column.attention = attention if keep_attention else None
        parents, token_ids = column.parents, column.token_ids
        strategy.observe(parents)
        stopped = processor.observe(parents, token_ids, column.live)
        if stopped is not None:
            rows.stop(stopped & column.live)
        yield column
        # The only place where a step waits for the device: the number of ended rows, plus more where there is NaN.
        num_ended = int((rows.ended + rows.is_nan * (len(rows.is_nan) + 1)).sum())
        if num_ended > len(rows.is_nan):
            raise UserError(NOT_FINITE)
        some_ended = num_ended > 0
        leaves = rows.leaving(num_ended, W)
        if leaves is not None:
            found = rows.hypotheses(strategy, np.flatnonzero(leaves), eos_id)
            results |= zip(inputs[leaves].tolist(), found, strict=True)
            if leaves.all():
                return [results[b] for b in range(B)]
            kept = np.flatnonzero(~leaves)
            inputs, at = inputs[kept], (kept[:, None] * W + np.arange(W)).reshape(-1)
            state = state.keep(kept, at if parents is None else parents[at])
            token_ids = token_ids[at]
            rows.keep(at)
            strategy.keep(at)
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
