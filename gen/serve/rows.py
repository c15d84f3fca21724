"""The rows that requests share: sampling and greedy search, vectorised over rows with options of their own.

`gen.search.loop.search` runs the rows of one call from its beginning to its end. Here rows come and go at any step.
What a row writes is what `search` would write: same numbers, same order, same draws.
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
from gen.search.prepare import PreparedSearch
from gen.search.processors import StopStrings
from gen.search.sample import Sample, draw
from gen.serve.job import Job

_BLOCK = 256  # random numbers drawn at once


def shares_rows(search: PreparedSearch) -> bool:
    """Whether a search is of the kind that `Rows` does: others run their own `search`, and share only its steps."""
    strategy = search.strategy
    plain = type(strategy) is Greedy or (type(strategy) is Sample and not strategy.independent)
    return plain and all(type(p) is StopStrings for p in search.processors)


@dataclass(slots=True, eq=False)
class Row:
    """One text that is being written.

    Attributes:
        job: whose it is.
        index: its place among the texts of the job; -1 while the prompt is read, by one row for all of them.
        prompt: token ids, BOS first.
        read: how many of them the decoder has seen.
        temperature: 0 takes the best.
        cut: top_k, top_p, min_p.
    """

    job: Job
    index: int
    prompt: list[int]
    read: int = 0
    temperature: float = 0.0
    cut: tuple[int, float, float] = (0, 1.0, 0.0)
    stream: np.random.Generator | None = None
    drawn: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    attention: list[np.ndarray] = field(default_factory=list)
    finished: bool = False

    @property
    def ahead(self) -> int:
        """Tokens that are known: the rest of the prompt, or the one just picked."""
        return max(len(self.prompt) - self.read, 1)

    def next_ids(self, count: int) -> list[int]:
        if self.read < len(self.prompt):
            return self.prompt[self.read : self.read + count]
        return self.token_ids[-1:]

    def uniform(self) -> float:
        """The next random number of the row's own stream."""
        assert self.stream is not None
        if not self.drawn:
            self.drawn = self.stream.random(_BLOCK, dtype=np.float32).tolist()[::-1]
        return self.drawn.pop()


class Rows:
    """R rows in one decoder state.

    Attributes:
        rows: R of them, in the order of the state's.
        state: see `gen.search.loop.Step`; its memory has one row per row. None without rows.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.state: Any = None

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, jobs: Sequence[Job]) -> None:
        """Takes jobs in. They are read at the next step."""
        states = [self.state] if self.rows else []
        for job in jobs:
            search = job.search
            search.strategy.start(search.start.ops, search.strategy.width)
            self.rows.append(Row(job, -1, search.prompts[0]))
            states.append(search.start.state)
        self.state = self._joined(states) if len(states) > 1 else states[0]

    def drop(self, gone: set[Job]) -> None:
        """Lets the rows of jobs go."""
        kept = [r for r, row in enumerate(self.rows) if row.job not in gone]
        if len(kept) < len(self.rows):
            self._keep(kept)

    def _keep(self, kept: list[int]) -> None:
        """Rows ``kept``, which may have some several times."""
        self.rows = [self.rows[r] for r in kept]
        self.state = self._joined([self.state.select(np.array(kept))]) if kept else None

    def _joined(self, states: list[Any]) -> Any:
        kind = type(states[0])
        # From each row's own, so that the longest that has gone leaves no padding.
        return kind.join(states, kind.join_memory([row.job.search.start.state.memory for row in self.rows]))

    def observe(self, log_probs: Array, attention: Array | None, read: int) -> list[Job]:
        """Picks a token for every row whose prompt has been read.

        Args:
            log_probs: (R, V) float32, what comes after the ``read`` tokens that each row was given.
            attention: (R, S) or None.
            read: tokens given.

        Returns:
            The jobs that are done, or failed.
        """
        for row in self.rows:
            row.read += read
        at = self._multiply()
        live = [r for r, row in enumerate(self.rows) if row.read >= len(row.prompt)]
        self._echo(log_probs, at)
        if not live:
            return []
        ops = self.rows[0].job.search.start.ops
        if len(live) < len(log_probs) or at is not None:
            sources = live if at is None else [at[r] for r in live]
            index = ops.asarray(sources, "int64")
            log_probs, attention = log_probs[index], None if attention is None else attention[index]
        rows = [self.rows[r] for r in live]
        search = rows[0].job.search
        is_nan = log_probs[:, 0] != log_probs[:, 0]
        log_probs = ops.ban(log_probs, None, ops.asarray([search.tokenizer.pad_id, *search.never], "int64"))
        token_ids = _picked(ops, rows, log_probs)
        picked = ops.at(log_probs, token_ids)
        is_nan = ops.numpy(is_nan | (picked != picked))
        self._tops(ops, rows, log_probs)
        seen = None if attention is None else ops.numpy(attention)
        ended: set[Row] = set()
        eos_id = search.tokenizer.eos_id
        for i, (row, token_id, log_prob) in enumerate(
            zip(rows, ops.numpy(token_ids).tolist(), ops.numpy(picked).tolist(), strict=True)
        ):
            if is_nan[i]:
                row.job.fail(NOT_FINITE)
            row.token_ids.append(token_id)
            row.log_probs.append(log_prob)
            if seen is not None and row.job.search.keep_attention:
                row.attention.append(seen[i, : row.job.search.mask.shape[1]].copy())
            if row.job.streams:
                row.job.say(row.index, token_id, log_prob, row.attention[-1] if row.attention else None)
            processors: Any = row.job.search.processors
            row.finished = token_id == eos_id or any(stop.found(row.token_ids) for stop in processors)
            if row.finished or len(row.token_ids) >= row.job.limit:
                ended.add(row)
        return self._let_go(ended)

    def _multiply(self) -> list[int] | None:
        """Prompts that have been read become as many rows as their job wants; returns each row's place before."""
        if all(row.index >= 0 or row.read < len(row.prompt) for row in self.rows):
            return None
        at: list[int] = []
        rows: list[Row] = []
        for r, row in enumerate(self.rows):
            several = _written_rows(row) if row.index < 0 and row.read >= len(row.prompt) else [row]
            rows += several
            at += [r] * len(several)
        if len(rows) == len(self.rows):
            self.rows = rows
            return None
        self._keep(at)
        self.rows = rows
        return at

    def _echo(self, log_probs: Array, at: list[int] | None) -> None:
        """The log-probability of the next token of prompts that are echoed."""
        for r, row in enumerate(self.rows):
            if row.job.echo is not None and row.read < len(row.prompt):
                source = r if at is None else at[r]
                row.job.echo.append(row.prompt[row.read], log_probs[source], row.job)

    def _tops(self, ops: Ops, rows: list[Row], log_probs: Array) -> None:
        """Alternatives for the rows that want them."""
        for i, row in enumerate(rows):
            if row.job.top:
                row.job.tops[row.index].append(row.job.best(ops, log_probs[i : i + 1])[0])

    def _let_go(self, ended: set[Row]) -> list[Job]:
        if not ended and not any(row.job.error for row in self.rows):
            return []
        done = []
        for row in ended:
            job = row.job
            job.hypotheses[row.index] = _hypothesis(row)
            if len(job.hypotheses) == job.search.strategy.width:
                done.append(job)
        failed = {row.job for row in self.rows if row.job.error}
        kept = [r for r, row in enumerate(self.rows) if row not in ended and row.job not in failed]
        self._keep(kept)
        return [*failed, *(job for job in done if job not in failed)]


def _written_rows(row: Row) -> list[Row]:
    """The rows that write the texts of a job whose prompt ``row`` has read."""
    strategy = row.job.search.strategy
    if not isinstance(strategy, Sample):
        return [Row(row.job, 0, row.prompt, row.read)]
    rows = []
    for i in range(strategy.width):
        temperature = strategy.temperatures[i // strategy.num_samples]
        stream = strategy.stream(i) if temperature > 0 else None
        cut = (strategy.top_k, strategy.top_p, strategy.min_p)
        rows.append(Row(row.job, i, row.prompt, row.read, temperature, cut, stream))
    return rows


def _picked(ops: Ops, rows: list[Row], log_probs: Array) -> Array:
    """A token for every row, (R,) int64: rows with the same options together."""
    kinds: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        kinds.setdefault(row.cut if row.temperature > 0 else None, []).append(i)
    found: Array = None
    for cut, members in kinds.items():
        index = ops.asarray(members, "int64")
        own = log_probs if len(kinds) == 1 else log_probs[index]
        if cut is None:
            token_ids = own.argmax(-1)
        else:
            uniform = ops.asarray([rows[i].uniform() for i in members], "float32")
            temperature = ops.asarray([[rows[i].temperature] for i in members], "float32")
            top_k, top_p, min_p = cut
            token_ids = draw(ops, own, uniform, temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        if len(kinds) == 1:
            return token_ids
        if found is None:
            found = ops.full((len(rows),), 0, "int64")
        found[index] = token_ids
    return found


def _hypothesis(row: Row) -> Hypothesis:
    search = row.job.search
    token_ids, seen = row.token_ids, row.attention
    if token_ids[-1] == search.tokenizer.eos_id:
        token_ids, seen = token_ids[:-1], seen[:-1]
    S = search.mask.shape[1]
    weights = np.array(seen, np.float32).reshape(-1, S) if row.attention else None
    hypothesis = Hypothesis(token_ids, sum(row.log_probs), row.log_probs, row.finished, weights)
    hypothesis.seed, hypothesis.temperature = search.strategy.origin(row.index)
    return hypothesis
