"""A request's part in the engine: one item, its options, and what comes of it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gen.search.loop import StepRecord
from gen.search.ops import Array, Ops
from gen.search.output import Hypothesis
from gen.search.prepare import PreparedSearch


class Token(NamedTuple):
    """A token of a text while it is written: of text ``index`` of the job."""

    index: int
    token_id: int
    log_prob: float
    top: list[tuple[int, float]]
    attention: np.ndarray | None


@dataclass
class Echo:
    """The tokens of a prompt with their log-probabilities, and the likeliest in their place."""

    log_probs: list[float] = field(default_factory=list)
    tops: list[list[tuple[int, float]]] = field(default_factory=list)

    def append(self, token_id: int, log_probs: Array, job: Job) -> None:
        self.log_probs.append(float(log_probs[token_id]))
        self.tops.append(job.best(job.search.start.ops, log_probs[None])[0] if job.top else [])


@dataclass(eq=False)
class Job:
    """One search among others.

    Attributes:
        search: of one item.
        top: alternatives per token to keep, by probability.
        streams: whether tokens are told as they come.
        echo: gets the prompt's own log-probabilities; None: they are not kept.
        records: the steps of a beam search; None: they are not kept.
        hypotheses: by their place, as far as they are done.
        tops: per text and token the alternatives, (token id, log-probability).
        error: why it failed.
    """

    search: PreparedSearch
    top: int = 0
    streams: bool = False
    echo: Echo | None = None
    records: list[StepRecord] | None = None
    hypotheses: dict[int, Hypothesis] = field(default_factory=dict)
    tops: list[list[list[tuple[int, float]]]] = field(default_factory=list)
    error: str = ""
    cancelled: bool = False
    done: bool = False

    def __post_init__(self) -> None:
        self.limit = self.search.limits[0]
        self.width = self.search.strategy.width
        self.tops = [[] for _ in range(self.width)]
        self.said: deque[Token] = deque()  # filled by the engine's thread, emptied by the request's
        self.news = asyncio.Event()
        self.has_news = False

    def best(self, ops: Ops, log_probs: Array) -> list[list[tuple[int, float]]]:
        """The ``top`` likeliest tokens of each row of (R, V): (token id, log-probability)."""
        values, token_ids = (ops.numpy(a).tolist() for a in ops.topk(log_probs, self.top))
        return [
            [(i, p) for i, p in zip(*row, strict=True) if p > -np.inf]
            for row in zip(token_ids, values, strict=True)
        ]

    def say(self, index: int, token_id: int, log_prob: float, attention: np.ndarray | None) -> None:
        """Tells of a token; the engine wakes the request after the step."""
        top = self.tops[index][-1] if self.top and self.tops[index] else []
        self.said.append(Token(index, token_id, log_prob, top, attention))
        self.has_news = True

    def fail(self, message: str) -> None:
        self.error = self.error or message

    def results(self) -> list[Hypothesis]:
        """The hypotheses with their text, best first; samples in the order drawn."""
        found = [self.hypotheses[i] for i in sorted(self.hypotheses)]
        return self.search.finish([found])[0] if self.unfinished_text else found

    unfinished_text: bool = True
    """Whether the text of the hypotheses is still to be made: a search of its own has done it."""
