"""A request's part in the engine: one item, its options, and what comes of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gen.search.ops import Array
from gen.search.output import Hypothesis
from gen.search.prepared import PreparedSearch
from gen.search.processors import StopStrings
from gen.search.unrolled import StepRecord

Alternatives = list[tuple[int, float]]
"""The likeliest tokens in a place: (token id, log-probability)."""


class Token(NamedTuple):
    """A token of text ``text`` of a job, with the likeliest tokens in its place."""

    text: int
    token_id: int
    log_prob: float
    top: Alternatives
    attention: np.ndarray | None = None


@dataclass
class Echo:
    """The tokens of a prompt: their log-probabilities, and the likeliest in their place."""

    log_probs: list[float] = field(default_factory=list)
    tops: list[Alternatives] = field(default_factory=list)

    def hear(self, log_probs: Array, token_id: int, job: Job) -> None:
        """Keeps what is told of the prompt's next token, which was predicted by ``log_probs`` (1, V)."""
        self.log_probs.append(float(log_probs[0, token_id]))
        self.tops += job.best(log_probs) if job.top else [[]]


class Job:
    """One search among others.

    Args:
        search: of one item.
        news: set, in the event loop, when there are tokens or the job is done; jobs may share one.
        top: alternatives per token to keep.
        streams: whether tokens are told as they come.
        echo: keep the prompt's own log-probabilities.
        tree: keep the steps of a beam search.
        from_ids: the beginning of the output that the prompt ends with.

    Attributes:
        width: texts or beams: rows of a step.
        positions: of its memory.
        limit: the most tokens of a text.
        eos_id: the token that ends a text.
        tops: per text and token the alternatives.
        said: tokens that were not read yet.
        has_news: since the engine last set ``news``.
        told: whether the engine has ever set ``news``.
        done: with hypotheses, or an error; nothing comes after it.
        cancelled: its rows are to be freed.
        error: why it failed; "" where it did not.
        status: of HTTP, where it failed.
    """

    def __init__(
        self,
        search: PreparedSearch,
        news: asyncio.Event | None = None,
        *,
        top: int = 0,
        streams: bool = False,
        echo: bool = False,
        tree: bool = False,
        from_ids: Sequence[int] = (),
    ) -> None:
        self.search, self.news = search, news or asyncio.Event()
        self.top, self.streams = top, streams
        self.from_ids = list(from_ids)
        self.width, self.limit, self.eos_id = search.strategy.width, search.limits[0], search.tokenizer.eos_id
        self.positions = search.mask.shape[1]
        self.stops = [p for p in search.processors if isinstance(p, StopStrings)]
        self.echo = Echo() if echo else None
        self.records: list[StepRecord] | None = [] if tree else None
        self.tops: list[list[Alternatives]] = [[] for _ in range(self.width)]
        self.said: deque[Token] = deque()  # the engine's thread fills it, the event loop empties it
        self.has_news = self.told = self.done = self.cancelled = False
        self.error, self.status = "", 500
        self.hypotheses: list[Hypothesis] = []

    def best(self, log_probs: Array) -> list[Alternatives]:
        """The likeliest tokens of each row of (R, V)."""
        ops = self.search.start.ops
        values, token_ids = (ops.numpy(a).tolist() for a in ops.topk(log_probs, self.top))
        pairs = (zip(*row, strict=True) for row in zip(token_ids, values, strict=True))
        return [[(i, p) for i, p in row if p > -np.inf] for row in pairs]

    def tokens_of(self, place: int, hypothesis: Hypothesis) -> list[Token]:
        """The tokens of the hypothesis of a text, with their alternatives where those were kept."""
        tops = self.tops[place] if place < len(self.tops) else []
        written = zip(hypothesis.token_ids, hypothesis.log_probs, strict=False)
        return [Token(place, i, p, tops[t] if t < len(tops) else []) for t, (i, p) in enumerate(written)]

    def say(self, text: int, token_id: int, log_prob: float, attention: np.ndarray | None) -> None:
        """Tells of a token; the engine wakes the request after the step."""
        top = self.tops[text][-1] if self.top else []
        attention = None if attention is None else attention[self.search.mask[0]]
        self.said.append(Token(text, token_id, log_prob, top, attention))
        self.has_news = True

    def fail(self, message: str, status: int = 500) -> None:
        """Ends the job with an error."""
        if not self.error:
            self.error, self.status = message, status
        self.done = self.has_news = True

    def finish(self, hypotheses: list[Hypothesis]) -> None:
        """Ends the job: with its hypotheses, best first; samples in the order drawn."""
        self.hypotheses = hypotheses
        self.done = self.has_news = True
