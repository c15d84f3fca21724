"""Continuous batching: all requests of a model share the steps of its decoder.

A recurrent state has a fixed size, so a request joins by one concatenation, whatever it has written, and leaves by
one selection. Rows that sample are picked for together (`Rows`); a request of another kind (beam search,
processors) runs its own `search`, unchanged, and only its steps are shared.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from gen.base.errors import ConfigError, message_of
from gen.search.loop import Events, Wish
from gen.search.ops import Array
from gen.search.unrolled import StepRecord
from gen.serve.job import Alternatives, Job
from gen.serve.rows import Rows, shares_rows

MOST_AT_ONCE = 64
"""Tokens of a prompt that are read in one step: others wait so long, and a request that went away is noticed."""

TELL_SECONDS = 0.05
"""Seconds that new tokens of a stream may wait, so that several share an event. The first is sent at once."""


class Busy(Exception):
    """The queue is full."""


class _Own:
    """A search of its own, up to its next wish.

    Attributes:
        over: it has ended, and its job is done.
        state: what its next step starts from.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.over = job, False
        self._events: Events = job.search.unroll()
        self._best: list[Alternatives] = []
        self._read = 0  # tokens of the wish that the decoder has seen
        self._wish: Wish
        self.state: Any
        self._advance(None)

    @property
    def ahead(self) -> int:
        """How many next tokens are known."""
        left: int = self._wish.token_ids.shape[1] - self._read
        return min(left, 1) if self.job.echo else left  # an echo judges each token of the prompt

    @property
    def rows(self) -> int:
        return len(self._wish.token_ids)

    def next_ids(self, count: int) -> Array:
        """The next tokens, (rows, count)."""
        return self._wish.token_ids[:, self._read : self._read + count]

    def observe(self, log_probs: Array, state: Any, attention: Array | None, read: int) -> None:
        """Takes the answer to a step of ``read`` tokens."""
        self._read, self.state = self._read + read, state
        if self.job.echo and self.ahead:
            self.job.echo.hear(log_probs[:1], int(self._wish.token_ids[0, self._read]), self.job)
        if not self.ahead:
            self._best = self.job.best(self._allowed(log_probs)) if self.job.top else []
            self._advance((log_probs, state, attention))

    def _allowed(self, log_probs: Array) -> Array:
        """A copy without the tokens that are never picked."""
        search = self.job.search
        ops = search.start.ops
        return ops.ban(log_probs + 0.0, None, ops.asarray([search.tokenizer.pad_id, *search.never], "int64"))

    def _advance(self, answer: Any) -> None:
        try:
            while not isinstance(event := self._events.send(answer), Wish):
                answer = None
                self._record(event)
            self._wish, self.state, self._read = event, event.state, 0
        except StopIteration as stop:
            self.job.finish(stop.value[0])
            self.over = True
        except Exception as error:  # of this search alone: the others go on
            self.job.fail(message_of(error), 400 if isinstance(error, ConfigError) else 500)
            self.over = True

    def _record(self, record: StepRecord) -> None:
        """What the job wants to know of a step. A beam's tokens are not told: they may be revised."""
        job, ops = self.job, self.job.search.start.ops
        if job.records is not None:
            job.records.append(record)
        if record.parents is not None or not (job.streams or job.top):
            return
        columns = (ops.numpy(a).tolist() for a in (record.token_ids, record.log_probs, record.live))
        for row, (token_id, log_prob, live) in enumerate(zip(*columns, strict=True)):
            if not live:
                continue
            if job.top:  # after the prompt there is one row for all
                job.tops[row].append(self._best[row if len(self._best) > 1 else 0])
            if job.streams:
                seen = None if record.attention is None else ops.numpy(record.attention)[row]
                job.say(row, token_id, log_prob, seen)


class Engine:
    """Runs the searches of one model in a thread of its own.

    Args:
        model: of torch or exported.
        most_rows: rows in a step; further requests wait.
        most_waiting: requests that may wait.
        most_positions: of the memories of all rows in a step; further requests wait.
    """

    def __init__(
        self, model: Any, most_rows: int = 256, most_waiting: int = 1024, most_positions: int = 1 << 20
    ) -> None:
        self.model, self.most_rows, self.most_waiting = model, most_rows, most_waiting
        self.most_positions = most_positions
        self.steps = self.tokens = 0
        self._shared, self._own = Rows(), list[_Own]()
        self._waiting: deque[Job] = deque()
        self._condition = threading.Condition()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._memories: tuple[list[Any], Any] = ([], None)
        self._told: list[Job] = []  # to be woken while the next step is computed
        self._tell_at = 0.0
        self._runs = False

    @property
    def rows(self) -> int:
        """Rows in the current step, or in the one that writes what is still being read."""
        return self._shared.width + sum(own.job.width for own in self._own)

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Lets a job join, from the thread of an event loop, which is told of its news.

        Raises:
            Busy: too many are waiting.
        """
        self._loop = asyncio.get_running_loop()
        with self._condition:
            if len(self._waiting) >= self.most_waiting:
                raise Busy
            self._waiting.append(job)
            self._condition.notify()
            if not self._runs:  # it has not begun; or it has been closed, and somebody still had it in hand
                self._runs = True
                threading.Thread(target=self._run, name="gen-serve", daemon=True).start()

    def cancel(self, job: Job) -> None:
        """Frees a job's rows before the next step, or its place among those that wait."""
        with self._condition:
            job.cancelled = True
            with suppress(ValueError):
                self._waiting.remove(job)
            self._condition.notify()

    def close(self) -> None:
        """Ends the thread when everything that was submitted is done."""
        with self._condition:
            self._closing = True
            self._condition.notify()

    def _run(self) -> None:
        with self.model.evaluating():
            while True:
                with self._condition:
                    while not (self._waiting or self._shared.rows or self._own):
                        self._wake()
                        self._tell_at = 0.0
                        if self._closing:
                            self._runs = False
                            return
                        self._condition.wait()
                    taken = self._take()
                self._guarded(taken)

    def _guarded(self, taken: list[Job]) -> None:
        """A step; what it raises is the error of all jobs that it did not finish, and later ones begin anew."""
        rows, searches = list(self._shared.rows), list(self._own)
        try:
            self._tick(taken)
        except Exception as error:  # a damaged graph, memory that is not there: the server must go on
            jobs = {*taken, *(row.job for row in rows), *(own.job for own in searches)}
            self._shared = Rows()
            self._keep_own([])
            for job in jobs:
                if not job.done:
                    job.fail(message_of(error))
            self._tell(jobs)

    def _take(self) -> list[Job]:
        """The waiting jobs whose rows fit in, in their order. Each row's memory is padded to the longest."""
        taken: list[Job] = []
        if not self._waiting:
            return taken
        jobs = [*(row.job for row in self._shared.rows), *(own.job for own in self._own)]
        rows, longest = self.rows, max((job.positions for job in jobs), default=0)
        while self._waiting:
            job = self._waiting[0]
            more, long = rows + job.width, max(longest, job.positions)
            if rows and (more > self.most_rows or more * long > self.most_positions):
                break
            rows, longest = more, long
            taken.append(self._waiting.popleft())
        return taken

    def _tick(self, taken: list[Job]) -> None:
        """Takes jobs in, and does one step for all."""
        shared = self._shared
        if gone := {row.job for row in shared.rows if row.job.cancelled}:
            shared.drop(gone)
        self._keep_own([own for own in self._own if not own.job.cancelled])
        if sharing := [job for job in taken if shares_rows(job.search)]:
            shared.add(sharing)
        begun = [_Own(job) for job in taken if not shares_rows(job.search)]
        self._tell(own.job for own in begun if own.over)  # failed before it asked for a step
        self._own += [own for own in begun if not own.over]
        own, R = self._own, len(shared)
        if not R and not own:
            return
        read = min(n for n in (MOST_AT_ONCE, shared.ahead, *(o.ahead for o in own)) if n)
        start = shared.rows[0].job.search.start if R else own[0].job.search.start
        token_ids = [start.ops.asarray(shared.next_ids(read), "int64")] if R else []
        token_ids += [o.next_ids(read) for o in own]
        joined, before = token_ids[0] if len(token_ids) == 1 else start.ops.concat(token_ids, 0), self._joined()
        self._wake()
        log_probs, state, attention = start.step(joined, before)
        self.steps += 1
        done = []
        if own:
            self._give(log_probs, state, attention, read)
            done = [o.job for o in own if o.over]
        elif R:
            shared.state = state
        if R:
            done += shared.observe(log_probs[:R], None if attention is None else attention[:R], read)
        self.tokens += sum(len(h.log_probs) for job in done for h in job.hypotheses)
        streams = [*(o.job for o in own), *(row.job for row in shared.rows if row.job.streams)]
        if (now := time.monotonic()) >= self._tell_at:
            self._tell_at = now + TELL_SECONDS
        else:
            streams = [job for job in streams if not job.told]
        self._tell([*done, *streams])

    def _joined(self) -> Any:
        """The state of all rows, each with a memory of its own."""
        shared, own = self._shared, self._own
        if not own:
            return shared.state
        memories = shared.memories + [o.state.memory for o in own for _ in range(o.rows)]
        kind = type(own[0].state)
        known, memory = self._memories
        if list(map(id, known)) != list(map(id, memories)):  # else nobody came or went
            memory = kind.join_memory(memories)
            self._memories = memories, memory
        return kind.join([*([shared.state] if shared.rows else []), *(o.state for o in own)], memory)

    def _give(self, log_probs: Array, state: Any, attention: Array | None, read: int) -> None:
        """Hands out a step's answer: to each search of its own its part, and to the shared rows their state."""
        kind, R = type(state), len(self._shared)
        if R:
            self._shared.state = kind.join([state.select(np.arange(R))], self._shared.state.memory)
        for own in self._own:
            rows = np.arange(R, R + own.rows)
            R += own.rows
            seen = None if attention is None else attention[rows[0] : R, : own.job.search.mask.shape[1]]
            part = kind.join([state.select(rows)], own.state.memory)
            own.observe(log_probs[rows[0] : R], part, seen, read)
        self._keep_own([own for own in self._own if not own.over])

    def _keep_own(self, own: list[_Own]) -> None:
        """Keeps these searches of their own; if there are none, frees the joined memory."""
        if not own:
            self._memories = [], None
        self._own = own

    def _tell(self, jobs: Iterable[Job]) -> None:
        """Notes which requests have news."""
        for job in jobs:
            if job.has_news:
                job.has_news, job.told = False, True
                self._told.append(job)

    def _wake(self) -> None:
        """Wakes the requests that have news, all with one call: before a step, which holds no lock of Python's."""
        if self._told and self._loop is not None:
            with suppress(RuntimeError):  # the loop has closed: nobody is left to be told
                self._loop.call_soon_threadsafe(_set, [job.news for job in self._told])
            self._told = []


def _set(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()
