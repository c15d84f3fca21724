"""Continuous batching: all requests of a model share the steps of its decoder.

A recurrent state has a fixed size, so a request joins by one concatenation, whatever it has written, and leaves by
one selection. Rows that sample are picked for together (`Rows`); a request of another kind (beam search, processors)
runs its own `search`, unchanged, and only its steps are shared.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from gen.base.errors import UserError
from gen.search.loop import Events, Wish
from gen.search.ops import Array
from gen.serve.job import Job
from gen.serve.rows import Rows, shares_rows

MOST_AT_ONCE = 64
"""Tokens of a prompt that are read in one step: others wait so long, and a request that went away is noticed."""


class Busy(Exception):
    """The queue is full."""


class _Own:
    """A search of its own, up to its next wish."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.events: Events = job.search.unroll()
        self.best: list[Any] = []
        self.read = 0
        self.wish: Wish
        self.state: Any
        self._advance(None)

    @property
    def ahead(self) -> int:
        return self.wish.token_ids.shape[1] - self.read

    def observe(self, log_probs: Array, state: Any, attention: Array | None, read: int) -> bool:
        """Takes a step's answer. Returns whether the search is over."""
        self.read, self.state = self.read + read, state
        if self.ahead:
            return False
        job = self.job
        if job.top:
            self.best = job.best(job.search.start.ops, log_probs)
        return self._advance((log_probs, state, attention))

    def _advance(self, answer: Any) -> bool:
        job, ops = self.job, self.job.search.start.ops
        try:
            while not isinstance(event := self.events.send(answer), Wish):
                answer = None
                if job.records is not None:
                    job.records.append(event)
                if event.parents is not None or not (job.streams or job.top):
                    continue
                token_ids, log_probs, live = (
                    ops.numpy(a).tolist() for a in (event.token_ids, event.log_probs, event.live)
                )
                for row in (r for r, is_live in enumerate(live) if is_live):
                    if job.top:
                        job.tops[row].append(self.best[row if len(self.best) > 1 else 0])
                    if job.streams:
                        seen = None if event.attention is None else ops.numpy(event.attention)[row]
                        job.say(row, token_ids[row], log_probs[row], seen)
        except StopIteration as stop:
            job.hypotheses = dict(enumerate(stop.value[0]))
            job.unfinished_text = False
            return True
        except UserError as error:
            job.fail(str(error))
            return True
        self.wish, self.state, self.read = event, event.state, 0
        return False


class Engine:
    """Runs the searches of one model in a thread of its own.

    Args:
        model: of torch or exported.
        most_rows: rows in a step; further requests wait.
        most_waiting: requests that may wait.
    """

    def __init__(self, model: Any, most_rows: int = 256, most_waiting: int = 1024) -> None:
        self.model, self.most_rows, self.most_waiting = model, most_rows, most_waiting
        self.steps = self.tokens = 0
        self._shared, self._own = Rows(), list[_Own]()
        self._waiting: deque[Job] = deque()
        self._condition = threading.Condition()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._memories: tuple[list[Any], Any] = ([], None)
        self._thread = threading.Thread(target=self._run, name="gen-serve", daemon=True)
        self._thread.start()

    @property
    def rows(self) -> int:
        """Rows in the current step."""
        return len(self._shared) + sum(own.job.width for own in self._own)

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

    def cancel(self, job: Job) -> None:
        """Frees a job's rows before the next step."""
        with self._condition:
            job.cancelled = True
            self._condition.notify()

    def close(self) -> None:
        """Ends the thread when everything that was submitted is done."""
        with self._condition:
            self._closing = True
            self._condition.notify()

    def _run(self) -> None:
        with self.model._evaluating():
            while True:
                with self._condition:
                    while not (self._waiting or self._shared.rows or self._own):
                        if self._closing:
                            return
                        self._condition.wait()
                    taken = self._take()
                self._guarded(self._tick, taken)

    def _guarded(self, tick: Callable[[list[Job]], None], taken: list[Job]) -> None:
        """A step; what it raises is every job's error, and the next jobs begin anew."""
        try:
            tick(taken)
        except Exception as error:  # a damaged graph, memory that is not there: others' requests must go on
            jobs = {*taken, *(row.job for row in self._shared.rows), *(own.job for own in self._own)}
            self._shared, self._own = Rows(), []
            for job in jobs:
                job.fail(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
                self._finish(job)
            self._tell(list(jobs))

    def _take(self) -> list[Job]:
        """The waiting jobs whose rows fit in, in their order."""
        taken: list[Job] = []
        room = self.most_rows - self.rows
        while self._waiting:
            job = self._waiting[0]
            if not job.cancelled:
                if job.width > room and room < self.most_rows:
                    break
                room -= job.width
                taken.append(job)
            self._waiting.popleft()
        return taken

    def _tick(self, taken: list[Job]) -> None:
        """Takes jobs in, and does one step for all."""
        gone = {row.job for row in self._shared.rows if row.job.cancelled}
        if gone:
            self._shared.drop(gone)
        self._own = [own for own in self._own if not own.job.cancelled]
        if sharing := [job for job in taken if shares_rows(job.search)]:
            self._shared.add(sharing)
        self._own += [_Own(job) for job in taken if not shares_rows(job.search)]
        rows, own = self._shared.rows, self._own
        if not rows and not own:
            return
        read = min(MOST_AT_ONCE, *(row.ahead for row in rows), *(o.ahead for o in own))
        if any(row.job.echo is not None for row in rows):
            read = 1
        search = rows[0].job.search if rows else own[0].job.search
        ops = search.start.ops
        token_ids = ops.asarray([row.next_ids(read) for row in rows], "int64") if rows else None
        if own:
            wished = [o.wish.token_ids[:, o.read : o.read + read] for o in own]
            token_ids = ops.concat([*([] if token_ids is None else [token_ids]), *wished], 0)
        log_probs, state, attention = search.start.step(token_ids, self._joined())
        self.steps += 1
        done = self._give(log_probs, state, attention, read) if own else []
        if rows:
            R = len(rows)
            if not own:
                self._shared.state = state
            done += self._shared.observe(log_probs[:R], None if attention is None else attention[:R], read)
        for job in done:
            self._finish(job)
        jobs = {*(row.job for row in self._shared.rows), *(o.job for o in self._own), *done}
        self._tell([job for job in jobs if job.has_news])

    def _joined(self) -> Any:
        """The state of all rows, each with a memory of its own."""
        shared, own = self._shared, self._own
        if not own:
            return shared.state
        memories = [row.job.search.start.state.memory for row in shared.rows]
        memories += [o.state.memory for o in own for _ in range(len(o.wish.token_ids))]
        kind = type(own[0].state)
        known, memory = self._memories
        if len(known) != len(memories) or any(a is not b for a, b in zip(known, memories, strict=True)):
            memory = kind.join_memory(memories)
            self._memories = memories, memory
        return kind.join([*([shared.state] if shared.rows else []), *(o.state for o in own)], memory)

    def _give(self, log_probs: Array, state: Any, attention: Array | None, read: int) -> list[Job]:
        """Hands a step's answer to the searches of their own, and the shared rows their state."""
        kind, R = type(state), len(self._shared)
        if R:
            self._shared.state = kind.join([state.select(np.arange(R))], self._shared.state.memory)
        done, left = [], []
        for own in self._own:
            rows = slice(R, R + len(own.wish.token_ids))
            R = rows.stop
            S = own.job.search.mask.shape[1]
            seen = None if attention is None else attention[rows, :S]
            part = kind.join([state.select(np.arange(rows.start, rows.stop))], own.state.memory)
            if own.observe(log_probs[rows], part, seen, read):
                done.append(own.job)
            else:
                left.append(own)
        self._own = left
        return done

    def _finish(self, job: Job) -> None:
        job.done = job.has_news = True
        self.tokens += sum(len(h.log_probs) for h in job.hypotheses.values())

    def _tell(self, jobs: list[Job]) -> None:
        """Wakes the requests that have news, all with one call."""
        if not jobs or self._loop is None:
            return
        for job in jobs:
            job.has_news = False
        try:
            self._loop.call_soon_threadsafe(_wake, jobs)
        except RuntimeError:  # the loop has closed: nobody is left to be told
            return


def _wake(jobs: list[Job]) -> None:
    for job in jobs:
        job.news.set()
