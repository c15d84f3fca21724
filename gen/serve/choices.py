"""What OpenAI's completions and chat have in common: their options, and a choice per text, whole or in pieces."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any
from uuid import uuid4

from msgspec import Meta, Struct

from gen.search.output import Hypothesis
from gen.search.pieces import Pieces
from gen.search.prepared import token_texts
from gen.serve.errors import Refusal
from gen.serve.job import Job, Token
from gen.serve.models import Served
from gen.serve.wire import Count, Search
from gen.serve.work import News, Work

Penalty = Annotated[float, Meta(ge=-2, le=2)]


class StreamOptions(Struct):
    include_usage: bool = False


class Shared(Search, kw_only=True):
    """What completions and chat have in common. Options of `gen generate` may be given besides OpenAI's."""

    model: str
    n: Count | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    given: dict[str, str | None] | None = None
    """What inputs besides the prompt, the text or the pictures get, such as the label to write about."""

    def search(self, served: Served) -> dict[str, Any]:
        """The search options. Raises `Refusal` for what a model cannot do."""
        for name in ("presence_penalty", "frequency_penalty", "logit_bias"):
            if getattr(self, name):
                hint = "; repetition_penalty is there" if name != "logit_bias" else "; ban is there"
                raise Refusal(f"{name} is not supported{hint}", param=name, code="unsupported_parameter")
        for name in ("num_samples", "n_best"):
            if getattr(self, name) is not None:  # else texts would be searched that no choice is for
                raise Refusal(f"{name}: here n says how many texts", param=name, code="unsupported_parameter")
        options = self.options()
        if self.max_tokens is not None:
            options["max_new_tokens"] = self.max_tokens
        if "beam" in options or served.defaults.beam:  # to clients these are off, and mean no sampling
            options = {k: v for k, v in options.items() if (k, v) not in (("top_p", 1), ("min_p", 0))}
        samples = {"temperature", "top_k", "top_p", "min_p"} & set(options)
        if "beam" in options or (served.defaults.beam and not samples):
            options.pop("seed", None)  # clients send one always, and a beam has nothing to draw
        return options


class Choices:
    """What completions and chat share: a choice per text, whole or in pieces.

    Args:
        work: with the jobs, n texts each.
        n: texts per job that are returned.
        top: alternatives per token; None for no log-probabilities.
    """

    def __init__(self, work: Work, n: int, top: int | None) -> None:
        self.work, self.n, self.top = work, n, top
        self.tokenizer = work.model.tokenizer
        self.spelled = token_texts(self.tokenizer)
        self._writers: dict[int, Pieces] = {}

    def wanted(self, job: Job, found: Sequence[Hypothesis]) -> list[tuple[int, Hypothesis]]:
        """The n best of a job's hypotheses, each with its place: of more samples, the most probable per token.
        Where there are fewer texts, as at temperature 0 or of a beam of equal ones, the last is repeated: clients
        count n choices per prompt."""
        ranked = list(enumerate(found))
        if len(ranked) > self.n:
            ranked.sort(key=lambda pair: -pair[1].score / max(len(pair[1].log_probs), 1))
        ranked = ranked[: self.n]
        return ranked + ranked[-1:] * (self.n - len(ranked))

    def wanted_each(self, found: Sequence[Sequence[Hypothesis]]) -> list[list[Hypothesis]]:
        """The n best of the first jobs."""
        pairs = zip(self.work.jobs, found, strict=False)
        return [[hypothesis for _, hypothesis in self.wanted(job, each)] for job, each in pairs]

    def bytes_of(self, token: str) -> bytes:
        """What a token writes, in UTF-8: one that stands for a byte, which text lacks, is that byte alone."""
        byte = re.fullmatch("<0x([0-9A-F]{2})>", token) if self.tokenizer.kind == "subword" else None
        return bytes.fromhex(byte[1]) if byte else token.encode()

    def usage(self) -> dict[str, int]:
        prompt, written = self.work.prompt_tokens, self.work.tokens
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def alternatives(
        self, token_id: int, log_prob: float, top: list[tuple[int, float]]
    ) -> list[tuple[str, float]]:
        """The likeliest tokens and the one picked: (text, log-probability)."""
        own = [] if token_id in dict(top) else [(token_id, log_prob)]
        return [(self.spelled[i], p) for i, p in [*top, *own]]

    def pieces(self, news: Sequence[News]) -> Iterator[tuple[int, str, list[Token], Hypothesis | None]]:
        """(choice, piece of its text, the tokens of it, the whole once it is there)."""
        writers = self._writers
        for number, said, found in news:
            job = self.work.jobs[number]
            search = job.search
            tokens: dict[int, list[Token]] = {}
            for token in said:
                tokens.setdefault(number * self.n + token.text, []).append(token)
            texts: dict[int, str] = {}
            for choice, each in tokens.items():
                if choice not in writers:
                    writers[choice] = Pieces(self.tokenizer, search.texts[0], search.stops)
                texts[choice] = writers[choice].add(*[token.token_id for token in each])
            for choice, text in texts.items():
                if (text or self.top is not None) and found is None:
                    yield choice, text, tokens[choice], None
            for place, (at, hypothesis) in enumerate(self.wanted(job, found) if found is not None else []):
                choice = number * self.n + place
                if choice in writers:
                    rest, last = texts.get(choice, "") + writers[choice].rest(), tokens.get(choice, [])
                else:  # nothing was told before: of a beam, or where one text is there n times
                    rest, last = hypothesis.text, job.tokens_of(at, hypothesis)
                yield choice, rest, last, hypothesis


def reason(hypothesis: Hypothesis) -> str:
    """Why a text ended."""
    return "stop" if hypothesis.finished else "length"


def envelope_of(served: Served, kind: str, prefix: str) -> dict[str, Any]:
    """What every answer begins with."""
    return {"id": f"{prefix}-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": served.name}
