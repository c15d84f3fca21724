"""OpenAI's interface: models and completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from gen.search.output import Hypothesis
from gen.search.prepared import open_end
from gen.search.spelling import Spelling
from gen.serve.choices import Choices, Shared, envelope_of, reason
from gen.serve.errors import Refusal
from gen.serve.items import read_item
from gen.serve.job import Job, Token
from gen.serve.models import Models, Served
from gen.serve.wire import Count, Texts, answer, events, read
from gen.serve.work import News, Work, several


class Completion(Shared, kw_only=True):
    """`POST /v1/completions`."""

    prompt: Texts = None
    best_of: Count | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    suffix: str | None = None


async def models(request: Request) -> Response:
    """The models that are served."""
    found: Models = request.app.state.models
    return answer({"object": "list", "data": [_model(served) for served in found.served.values()]})


async def model(request: Request) -> Response:
    """One of them."""
    found: Models = request.app.state.models
    return answer(_model(found.find(request.path_params["name"])))


def _model(served: Served) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": served.created, "owned_by": "gen"}


async def completions(request: Request) -> Response:
    """Continues prompts."""
    asked = await read(request, Completion)
    models: Models = request.app.state.models
    served = models.find(asked.model)
    n = asked.n or 1
    options, prompts = _wanted(asked, served), asked.prompt
    prompts = prompts if isinstance(prompts, list) else [prompts or ""]
    if not 1 <= len(prompts) <= models.limits.rows:
        raise Refusal(f"prompt: give 1 to {models.limits.rows} of them", param="prompt")
    items = [await read_item(models, served, prompt, asked.given) for prompt in prompts]
    work = Work(request, served)
    echoes = bool(asked.echo) and asked.logprobs is not None
    for item in items:
        await work.begin(item, options, top=asked.logprobs or 0, streams=bool(asked.stream), echo=echoes)
    choices = Choices(work, n, asked.logprobs)
    envelope = envelope_of(served, "text_completion", "cmpl")
    if asked.stream:
        told = asked.stream_options is not None and asked.stream_options.include_usage
        chunks = _chunks(choices, envelope, prompts, bool(asked.echo), told)
        return events(request, chunks, b"[DONE]")
    async with work:
        found = await work.results()
    usage = choices.usage()
    if asked.max_tokens == 0:  # the one that was searched is not given
        usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}

    def whole() -> Response:
        made = [
            _choice(choices, asked, prompt, job, place, hypothesis)
            for prompt, job, each in zip(prompts, work.jobs, found, strict=True)
            for place, hypothesis in choices.wanted(job, each)
        ]
        numbered = [{"index": index, **choice} for index, choice in enumerate(made)]
        return answer({**envelope, "choices": numbered, "usage": usage})

    return await work.built(whole)


def _wanted(asked: Completion, served: Served) -> dict[str, Any]:
    """The search options. Raises `Refusal` where OpenAI's own contradict each other."""
    if asked.suffix:
        raise Refusal("suffix is not supported", param="suffix", code="unsupported_parameter")
    n = asked.n or 1
    drawn = asked.best_of or n
    if drawn < n:
        raise Refusal("best_of must be at least n", param="best_of")
    if asked.stream and drawn > n:
        raise Refusal("best_of above n does not go with stream", param="best_of")
    options = asked.search(served)
    if asked.max_tokens == 0:
        if not asked.echo or asked.stream:
            raise Refusal("max_tokens 0 goes with echo, and without stream", param="max_tokens")
        options["max_new_tokens"] = 1
    return several(served, options, drawn)


def _choice(
    choices: Choices, asked: Completion, prompt: str, job: Job, place: int, hypothesis: Hypothesis
) -> dict[str, Any]:
    """A text as a choice."""
    silent = asked.max_tokens == 0  # only the prompt's own log-probabilities are wanted
    text = (prompt if asked.echo else "") + ("" if silent else hypothesis.text)
    logprobs = None
    if asked.logprobs is not None:
        found = _Logprobs(choices, job, prompt, bool(asked.echo))
        found.add([] if silent else job.tokens_of(place, hypothesis))
        logprobs = found.take("" if silent else hypothesis.text)
    ended = "length" if silent else reason(hypothesis)
    return {"text": text, "logprobs": logprobs, "finish_reason": ended, **hypothesis.drawn()}


class _Logprobs:
    """The log-probabilities of a choice's tokens, and where each begins, counted from the beginning of the prompt.

    Args:
        choices: of the request.
        job: the search, whose prompt has been read.
        prompt: as it was asked for.
        echo: whether the prompt's own tokens come first.
    """

    def __init__(self, choices: Choices, job: Job, prompt: str, echo: bool) -> None:
        self._choices, self._stops = choices, bool(job.search.stops)
        ids = job.search.prompts[0][1:]
        self._waiting: list[tuple[Token, int]] = []
        self._sent, self._first = len(prompt), 0 if echo else len(prompt)
        self._end = 0 if echo else len(open_end(prompt, choices.tokenizer))
        self._spelling = Spelling(choices.tokenizer, [] if echo else ids)
        if echo and job.echo is not None:
            self.add([Token(0, *own, None) for own in zip(ids, job.echo.log_probs, job.echo.tops, strict=True)])

    def add(self, tokens: Iterable[Token]) -> None:
        """Takes the next tokens."""
        for token in tokens:
            self._waiting.append((token, max(self._end, self._first)))
            self._end += len(self._spelling.add(token.token_id))

    def take(self, text: str) -> dict[str, Any]:
        """OpenAI's four lists for the next piece of the text: tokens, their log-probabilities, alternatives, and
        where each begins. Tokens of a stop string are no part of the text, and never taken."""
        self._sent += len(text)
        count = sum(at < self._sent for _, at in self._waiting) if self._stops else len(self._waiting)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        choices, tokens = self._choices, [token for token, _ in taken]
        return {
            "tokens": [choices.spelled[token.token_id] for token in tokens],
            "token_logprobs": [token.log_prob for token in tokens],
            "top_logprobs": [dict(choices.alternatives(t.token_id, t.log_prob, t.top)) for t in tokens]
            if choices.top
            else None,
            "text_offset": [at for _, at in taken],
        }


async def _chunks(
    choices: Choices, envelope: dict[str, Any], prompts: list[str], echo: bool, usage: bool
) -> AsyncIterator[list[dict[str, Any]]]:
    begun: dict[int, _Logprobs] = {}

    def made(news: list[News]) -> Iterator[dict[str, Any]]:
        """A chunk for each piece of text; the first of a choice begins with the echoed prompt, if it is wanted."""
        for choice, text, tokens, hypothesis in choices.pieces(news):
            number, logprobs = choice // choices.n, None
            echoed = prompts[number] if echo and choice not in begun else ""
            if choice not in begun:
                begun[choice] = _Logprobs(choices, work.jobs[number], prompts[number], echo)
            if choices.top is not None:
                begun[choice].add(t for t in tokens if t.token_id != choices.tokenizer.eos_id)
                logprobs = begun[choice].take(text)
            yield {
                **envelope,
                "choices": [
                    {
                        "text": echoed + text,
                        "index": choice,
                        "logprobs": logprobs,
                        "finish_reason": None if hypothesis is None else reason(hypothesis),
                    }
                ],
            }

    async with choices.work as work:
        async for news in work.stream():
            yield [*made(news)]
        if usage:
            yield [{**envelope, "choices": [], "usage": choices.usage()}]
