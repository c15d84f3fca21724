"""The rows that requests share: sampling and greedy search, vectorised over rows with options of their own.

`gen.search.loop.search` runs the rows of one call from its beginning to its end; here rows come and go at any
step. What a row writes is what `search` would write: same numbers, same order, same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gen.search.greedy import Greedy
from gen.search.loop import NOT_FINITE
from gen.search.ops import Array, Ops
from gen.search.output import Hypothesis
from gen.search.prepared import PreparedSearch
from gen.search.processors import StopStrings
from gen.search.sample import Sample, draw
from gen.serve.job import Job

_BLOCK = 256  # random numbers drawn at once

Cut = tuple[int, float, float]
"""top_k, top_p, min_p: rows with the same are picked for together."""


def shares_rows(search: PreparedSearch) -> bool:
    """Whether `Rows` does a search; others run a `search` of their own, and share only its steps."""
    strategy = search.strategy
    plain = type(strategy) is Greedy or (type(strategy) is Sample and not strategy.independent)
    return plain and search.copying is None and all(type(p) is StopStrings for p in search.processors)


@dataclass(slots=True, eq=False)
class Row:
    """One text that is being written; or, before, the prompt of all texts of a job.

    Attributes:
        job: whose it is.
        text: its place among the texts of the job.
        unread: the tokens of the prompt that the decoder has not seen.
        temperature: 0 takes the best.
        cut: see `Cut`.
        stream: its own random numbers.
    """

    job: Job
    text: int = 0
    unread: list[int] = field(default_factory=list)
    temperature: float = 0.0
    cut: Cut = (0, 1.0, 0.0)
    stream: np.random.Generator | None = None
    drawn: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    attention: list[np.ndarray] = field(default_factory=list)
    finished: bool = False

    def draw(self) -> list[float]:
        """The next random numbers, last first."""
        assert self.stream is not None
        self.drawn = self.stream.random(_BLOCK, dtype=np.float32).tolist()[::-1]
        return self.drawn

    def write(self, token_id: int, log_prob: float) -> bool:
        """Takes the next token; whether it is the last."""
        token_ids, job = self.token_ids, self.job
        token_ids.append(token_id)
        self.log_probs.append(log_prob)
        if token_id == job.eos_id or (job.stops and job.stops[0].found(token_ids)):
            self.finished = True
        return self.finished or len(token_ids) >= job.limit

    def hypothesis(self) -> Hypothesis:
        """What was written, as `search` returns it."""
        search, token_ids, seen = self.job.search, self.token_ids, self.attention
        weights = np.array(seen, np.float32).reshape(len(seen), -1) if seen else None
        if token_ids[-1] == self.job.eos_id:
            token_ids, weights = token_ids[:-1], None if weights is None else weights[:-1]
        found = Hypothesis(token_ids, sum(self.log_probs), self.log_probs, self.finished, weights)
        found.seed, found.temperature = search.strategy.origin(self.text)
        return found


class _Kind:
    """Rows that are picked for together: those at temperature 0, or those with the same `Cut`.

    Args:
        rows: all that write.
        members: places of this kind's among them.
    """

    def __init__(self, rows: list[Row], members: list[int]) -> None:
        self.rows = [rows[r] for r in members]
        first = self.rows[0]
        ops = first.job.search.start.ops
        self.cut = first.cut if first.temperature > 0 else None
        self.index = None if len(members) == len(rows) else ops.asarray(members, "int64")
        self.temperature = ops.asarray([[row.temperature] for row in self.rows], "float32")

    def pick(self, ops: Ops, log_probs: Array) -> Array:
        """A token for each, (R,) int64."""
        if self.cut is None:
            return log_probs.argmax(-1)
        uniform = ops.asarray([(row.drawn or row.draw()).pop() for row in self.rows], "float32")
        top_k, top_p, min_p = self.cut
        return draw(ops, log_probs, uniform, self.temperature, top_k=top_k, top_p=top_p, min_p=min_p)


class Rows:
    """R rows in one decoder state.

    Attributes:
        rows: R of them, in the order of the state's.
        state: see `gen.search.loop.Step`; its memory has one row per row. None without rows.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.state: Any = None
        self._reading: list[tuple[int, Row]] = []  # those with a prompt to read, and their places
        self._writing: list[Row] = []  # the others
        self._places: list[int] = []  # where those are
        self._kinds: list[_Kind] = []  # of those; none: not known
        self._wishing = False  # whether anybody wants more than the text
        self._found: dict[Job, dict[int, Hypothesis]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """How many rows there are once all prompts have been read."""
        return len(self.rows) + sum(row.job.width - 1 for _, row in self._reading)

    @property
    def memories(self) -> list[Any]:
        """Each row's own, not padded."""
        return [row.job.search.start.state.memory for row in self.rows]

    @property
    def ahead(self) -> int:
        """How many next tokens are known of all rows; 0 without rows."""
        if self._writing:
            return 1
        return min((1 if row.job.echo else len(row.unread) for _, row in self._reading), default=0)

    def add(self, jobs: Sequence[Job]) -> None:
        """Takes jobs in: a row for each prompt, to be read at the next step."""
        states = [self.state] if self.rows else []
        for job in jobs:
            job.search.strategy.start(job.search.start.ops, job.width)
            self.rows.append(Row(job, unread=job.search.prompts[0]))
            states.append(job.search.start.state)
            self._found[job] = {}
        self._take(self.rows, states)

    def drop(self, gone: set[Job]) -> None:
        """Lets the rows of jobs go."""
        self._keep([r for r, row in enumerate(self.rows) if row.job not in gone])
        for job in gone:
            self._found.pop(job, None)

    def _keep(self, kept: list[int]) -> None:
        if len(kept) < len(self.rows):
            self._take([self.rows[r] for r in kept], [self.state.select(np.array(kept, np.int64))])

    def _take(self, rows: list[Row], states: list[Any]) -> None:
        """Goes on with ``rows``, whose states are ``states``. Memories are joined anew from each row's own, so
        that the longest, once it has gone, leaves no padding."""
        self._seat(rows)
        self._wishing = any(r.job.top or r.job.streams or r.job.search.keep_attention for r in rows)
        kind = type(states[0])
        self.state = kind.join(states, kind.join_memory(self.memories)) if rows else None

    def _seat(self, rows: list[Row]) -> None:
        """Notes who reads and who writes."""
        self.rows, self._kinds = rows, []
        self._reading = [(r, row) for r, row in enumerate(rows) if row.unread]
        self._places = [r for r, row in enumerate(rows) if not row.unread]
        self._writing = [rows[r] for r in self._places]

    def next_ids(self, count: int) -> list[list[int]]:
        """The next ``count`` tokens of every row; see `ahead`."""
        return [row.unread[:count] if row.unread else row.token_ids[-1:] for row in self.rows]

    def observe(self, log_probs: Array, attention: Array | None, read: int) -> list[Job]:
        """Picks a token for every row whose prompt has been read.

        Args:
            log_probs: (R, V) float32, what comes after the ``read`` tokens that each row was given.
            attention: (R, S) or None.
            read: tokens given.

        Returns:
            The jobs that are done, or failed.
        """
        if self._reading:
            places = self._read(log_probs, read)
            if not places:
                return []
            log_probs, attention = log_probs[places], None if attention is None else attention[places]
        rows = self._writing
        search = rows[0].job.search
        ops, tokenizer = search.start.ops, search.tokenizer
        is_nan = log_probs[:, 0] != log_probs[:, 0]
        log_probs = ops.ban(log_probs, None, ops.asarray([tokenizer.pad_id, *search.never], "int64"))
        token_ids = self._picked(ops, rows, log_probs)
        picked = ops.at(log_probs, token_ids)
        failed = [rows[r] for r in np.flatnonzero(ops.numpy(is_nan | (picked != picked)))]
        for row in failed:
            row.job.fail(NOT_FINITE)
        written = list(zip(rows, ops.numpy(token_ids).tolist(), ops.numpy(picked).tolist(), strict=True))
        if self._wishing:
            self._tell(written, log_probs, None if attention is None else ops.numpy(attention))
        ended = [row for row, token_id, log_prob in written if row.write(token_id, log_prob)]
        return self._let_go([*ended, *failed]) if ended or failed else []

    def _read(self, log_probs: Array, read: int) -> list[int]:
        """Moves on in the prompts. One that has been read becomes as many rows as its job has texts. Returns where
        the rows that write have their log-probabilities."""
        texts: dict[int, list[Row]] = {}
        for r, row in self._reading:
            row.unread = row.unread[read:]
            if not row.unread:
                texts[r] = _texts(row.job)
            elif row.job.echo:
                row.job.echo.hear(log_probs[r : r + 1], row.unread[0], row.job)
        if not texts:
            return self._places
        at = [r for r in range(len(self.rows)) for _ in texts.get(r, (None,))]
        rows = [new for r, row in enumerate(self.rows) for new in texts.get(r, [row])]
        if len(rows) > len(self.rows):
            self._take(rows, [self.state.select(np.array(at))])
        else:
            self._seat(rows)
        return [at[place] for place in self._places]

    def _picked(self, ops: Ops, rows: list[Row], log_probs: Array) -> Array:
        """A token for every row that writes, (R,) int64."""
        if not self._kinds:
            kinds: dict[Cut | None, list[int]] = {}
            for r, row in enumerate(rows):
                kinds.setdefault(row.cut if row.temperature > 0 else None, []).append(r)
            self._kinds = [_Kind(rows, members) for members in kinds.values()]
        if len(self._kinds) == 1:
            return self._kinds[0].pick(ops, log_probs)
        found = ops.full((len(rows),), 0, "int64")
        for kind in self._kinds:
            found[kind.index] = kind.pick(ops, log_probs[kind.index])
        return found

    def _tell(self, written: Sequence[Any], log_probs: Array, attention: np.ndarray | None) -> None:
        """Alternatives, attention and streams, for the rows that want them."""
        tops: dict[int, list[int]] = {}  # how many alternatives → places of the rows
        for r, (row, _, _) in enumerate(written):
            if row.job.top:
                tops.setdefault(row.job.top, []).append(r)
        for places in tops.values():
            rows = [written[r][0] for r in places]
            for row, best in zip(rows, rows[0].job.best(log_probs[places]), strict=True):
                row.job.tops[row.text].append(best)
        for r, (row, token_id, log_prob) in enumerate(written):
            job = row.job
            if attention is not None and job.search.keep_attention:
                row.attention.append(attention[r, : job.search.mask.shape[1]].copy())
            if job.streams:
                job.say(row.text, token_id, log_prob, row.attention[-1] if row.attention else None)

    def _let_go(self, ended: list[Row]) -> list[Job]:
        done = {row.job for row in ended if row.job.error}
        for row in ended:
            found = self._found[row.job]
            found[row.text] = row.hypothesis()
            if len(found) == row.job.width and row.job not in done:
                row.job.finish(row.job.search.finish([[found[i] for i in range(len(found))]])[0])
                done.add(row.job)
        gone = {*ended}
        self._keep([r for r, row in enumerate(self.rows) if row not in gone and row.job not in done])
        for job in done:
            del self._found[job]
        return list(done)


def _texts(job: Job) -> list[Row]:
    """The rows that write the texts of a job whose prompt has been read."""
    strategy = job.search.strategy
    if not isinstance(strategy, Sample):
        return [Row(job)]
    cut = (strategy.top_k, strategy.top_p, strategy.min_p)
    each = [strategy.temperatures[i // strategy.num_samples] for i in range(job.width)]
    return [
        Row(job, i, temperature=temperature, cut=cut, stream=strategy.stream(i) if temperature > 0 else None)
        for i, temperature in enumerate(each)
    ]
