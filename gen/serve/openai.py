"""OpenAI's interface: models, completions, and chat for pictures and translation."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any
from uuid import uuid4

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from gen.search.output import Hypothesis
from gen.search.pieces import Pieces
from gen.search.prepare import token_texts
from gen.serve.errors import Refusal
from gen.serve.job import Job, Token
from gen.serve.models import Models, Served
from gen.serve.translation import Translating
from gen.serve.wire import Count, Search, Texts, answer, events, read
from gen.serve.work import Work, item_of, several

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

    def search(self, served: Served) -> dict[str, Any]:
        """The search options. Raises `Refusal` for what there is none of."""
        for name in ("presence_penalty", "frequency_penalty", "logit_bias"):
            if getattr(self, name):
                hint = "; repetition_penalty is there" if name != "logit_bias" else "; ban is there"
                raise Refusal(f"{name} is not supported{hint}", param=name, code="unsupported_parameter")
        if isinstance(self.stop, list) and len(self.stop) > 16:
            raise Refusal("stop: at most 16 strings", param="stop")
        options = self.options()
        if self.max_tokens is not None:
            options["max_new_tokens"] = self.max_tokens
        samples = {"temperature", "top_k", "top_p", "min_p"} & set(options)
        if "beam" in options or (served.defaults().beam and not samples):
            options.pop("seed", None)  # clients send one always, and a beam has nothing to draw
        return options


class Completion(Shared, kw_only=True):
    """`POST /v1/completions`."""

    prompt: Texts = None
    best_of: Count | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    suffix: str | None = None


class ImageURL(Struct):
    url: str
    detail: str | None = None


class Part(Struct):
    """A part of a message: a text, or a picture as a ``data:`` URL."""

    type: str
    text: str | None = None
    image_url: ImageURL | None = None


class Message(Struct):
    role: str
    content: str | list[Part] | None = None


class Chat(Shared, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


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


class _Choices:
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

    def wanted(self, job: Job, found: Sequence[Hypothesis]) -> list[tuple[int, Hypothesis]]:
        """The n best of a job's hypotheses, each with its place: of more samples, the most probable per token.
        Where all samples are the same text, it is there n times."""
        ranked = list(enumerate(found))
        if len(ranked) > self.n:
            ranked.sort(key=lambda pair: -pair[1].score / max(len(pair[1].log_probs), 1))
        ranked = ranked[: self.n]
        if len(ranked) < self.n and job.width == 1:
            ranked += [ranked[0]] * (self.n - len(ranked))
        return ranked

    def usage(self) -> dict[str, int]:
        prompt, written = self.work.prompt_tokens, self.work.tokens
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def alternatives(
        self, token_id: int, log_prob: float, top: list[tuple[int, float]]
    ) -> list[tuple[str, float]]:
        """The likeliest tokens and the one picked: (text, log-probability)."""
        own = [] if token_id in dict(top) else [(token_id, log_prob)]
        return [(self.spelled[i], p) for i, p in [*top, *own]]

    async def pieces(self) -> AsyncIterator[tuple[int, str, list[Token], Hypothesis | None]]:
        """(choice, piece of its text, the tokens of it, the whole once it is there)."""
        writers: dict[int, Pieces] = {}
        async for number, said, found in self.work.stream():
            job = self.work.jobs[number]
            search = job.search
            texts: dict[int, str] = {}
            tokens: dict[int, list[Token]] = {}
            for token in said:
                choice = number * self.n + token.text
                if choice not in writers:
                    writers[choice] = Pieces(self.tokenizer, search.texts[0], search.stops)
                texts[choice] = texts.get(choice, "") + writers[choice].add(token.token_id)
                tokens.setdefault(choice, []).append(token)
            for choice, text in texts.items():
                if (text or self.top is not None) and found is None:
                    yield choice, text, tokens[choice], None
            for place, (_, hypothesis) in enumerate(self.wanted(job, found) if found is not None else []):
                choice = number * self.n + place
                rest = writers[choice].rest() if choice in writers else hypothesis.text
                yield choice, texts.get(choice, "") + rest, tokens.get(choice, []), hypothesis


def _reason(hypothesis: Hypothesis) -> str:
    return "stop" if hypothesis.finished else "length"


def _envelope(served: Served, kind: str, prefix: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": served.name}


# -- completions -------------------------------------------------------------------------------------------


async def completions(request: Request) -> Response:
    """Continues prompts."""
    asked = await read(request, Completion)
    served = request.app.state.models.find(asked.model)
    if asked.suffix:
        raise Refusal("suffix is not supported", param="suffix", code="unsupported_parameter")
    n = asked.n or 1
    drawn = max(asked.best_of or n, n)
    if asked.best_of is not None and asked.best_of < n:
        raise Refusal("best_of must be at least n", param="best_of")
    if asked.stream and drawn > n:
        raise Refusal("best_of above n does not go with stream", param="best_of")
    options = asked.search(served)
    silent = options.get("max_new_tokens") == 0  # only the prompt's own log-probabilities are wanted
    if silent:
        if not asked.echo or asked.stream:
            raise Refusal("max_tokens 0 goes with echo, and without stream", param="max_tokens")
        options["max_new_tokens"] = 1
    options = several(served, options, drawn)
    prompts = [asked.prompt or ""] if not isinstance(asked.prompt, list) else asked.prompt
    limits = request.app.state.models.limits
    if not 1 <= len(prompts) <= limits.rows:
        raise Refusal(f"prompt: give 1 to {limits.rows} of them", param="prompt")
    items = [item_of(served, prompt, limits) for prompt in prompts]
    work = Work(request, served)
    scored = asked.logprobs is not None
    for item in items:
        await work.begin(
            item,
            options,
            top=asked.logprobs or 0,
            streams=bool(asked.stream),
            echo=bool(asked.echo) and scored,
        )
    choices = _Choices(work, n, asked.logprobs)
    envelope = _envelope(served, "text_completion", "cmpl")
    if asked.stream:
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        return events(
            request, _completion_chunks(choices, envelope, prompts if asked.echo else None, usage), b"[DONE]"
        )
    async with work:
        found = await work.results()
    made: list[dict[str, Any]] = []
    for prompt, job, several_found in zip(prompts, work.jobs, found, strict=True):
        for place, hypothesis in choices.wanted(job, several_found):
            before = prompt if asked.echo else ""
            text = before + ("" if silent else hypothesis.text)
            logprobs = None
            if scored:
                tokens = [] if silent else _tokens(job, place, hypothesis)
                logprobs = _completion_logprobs(choices, job, prompt, tokens, text, bool(asked.echo))
            made.append(
                {
                    "text": text,
                    "index": len(made),
                    "logprobs": logprobs,
                    "finish_reason": "length" if silent else _reason(hypothesis),
                    **hypothesis.drawn(),
                }
            )
    return answer({**envelope, "choices": made, "usage": choices.usage()})


def _tokens(job: Job, place: int, hypothesis: Hypothesis) -> list[Token]:
    """The tokens of a hypothesis, with their alternatives where those were kept."""
    tops = job.tops[place] if place < len(job.tops) else []
    written = zip(hypothesis.token_ids, hypothesis.log_probs, strict=False)
    return [Token(place, i, p, tops[t] if t < len(tops) else [], None) for t, (i, p) in enumerate(written)]


def _completion_logprobs(
    choices: _Choices, job: Job, prompt: str, tokens: list[Token], text: str, echo: bool, at: int = 0
) -> dict[str, Any]:
    """OpenAI's four lists: tokens, their log-probabilities, alternatives, and where each begins in the text."""
    if echo and job.echo is not None:
        ids = job.search.prompts[0][1:]
        own = zip(ids, job.echo.log_probs, job.echo.tops, strict=True)
        tokens = [*(Token(0, i, p, top, None) for i, p, top in own), *tokens]
    elif not at:
        at = len(prompt)
    writer, offsets = Pieces(choices.tokenizer, "" if echo else prompt), []
    for token in tokens:
        offsets.append(at)
        at += len(writer.add(token.token_id))
    end = len(text) if echo else len(prompt) + len(text)
    if job.search.stops:  # tokens of the stop string are no part of the text
        tokens = [token for token, offset in zip(tokens, offsets, strict=True) if offset < end]
    return {
        "tokens": [choices.spelled[token.token_id] for token in tokens],
        "token_logprobs": [token.log_prob for token in tokens],
        "top_logprobs": [dict(choices.alternatives(t.token_id, t.log_prob, t.top)) for t in tokens]
        if choices.top
        else None,
        "text_offset": offsets[: len(tokens)],
    }


async def _completion_chunks(
    choices: _Choices, envelope: dict[str, Any], prompts: list[str] | None, usage: bool
) -> AsyncIterator[dict[str, Any]]:
    async with choices.work as work:
        offsets: dict[int, int] = {}
        async for choice, text, tokens, hypothesis in choices.pieces():
            job = work.jobs[choice // choices.n]
            first = choice not in offsets
            echoed = prompts[choice // choices.n] if prompts is not None and first else ""
            logprobs = None
            if choices.top is not None:
                tokens = [t for t in tokens if t.token_id != choices.tokenizer.eos_id]
                at = offsets.get(choice, len(work.jobs[choice // choices.n].search.texts[0]))
                logprobs = _completion_logprobs(choices, job, "", tokens, text, False, at)
                if echoed and job.echo is not None:
                    begin = _completion_logprobs(choices, job, "", [], echoed, True)
                    logprobs = {name: (begin[name] or []) + (logprobs[name] or []) for name in logprobs}
                offsets[choice] = at + len(text)
            else:
                offsets[choice] = 0
            yield {
                **envelope,
                "choices": [
                    {
                        "text": echoed + text,
                        "index": choice,
                        "logprobs": logprobs,
                        "finish_reason": None if hypothesis is None else _reason(hypothesis),
                    }
                ],
            }
        if usage:
            yield {**envelope, "choices": [], "usage": choices.usage()}


# -- chat --------------------------------------------------------------------------------------------------


async def chat(request: Request) -> Response:
    """Describes a picture, translates a text, or continues one: what the last user message holds."""
    asked = await read(request, Chat)
    served = request.app.state.models.find(asked.model)
    n = asked.n or 1
    options = asked.search(served)
    if asked.max_completion_tokens is not None:
        options["max_new_tokens"] = asked.max_completion_tokens
    options = several(served, options, n)
    text, pictures = _said(asked.messages)
    limits = request.app.state.models.limits
    envelope = _envelope(served, "chat.completion", "chatcmpl")
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    translating = Translating(served, text) if Translating.does(served) and not pictures else None
    if translating is not None and translating.texts == [text]:
        translating = None  # a sentence, like any input
    if translating is not None and asked.logprobs:
        raise Refusal("logprobs: a text of several sentences has none; send one", param="logprobs")
    inputs = translating.texts if translating else [_input(served, text, pictures)]
    if len(inputs) > limits.queue:
        raise Refusal("too much text at once: send it in parts", param="messages")
    items = [item_of(served, each, limits) for each in inputs]
    work = Work(request, served)
    for item in items:
        streams = bool(asked.stream) and translating is None
        await work.begin(item, options, top=top or 0, streams=streams)
    choices = _Choices(work, n, top)
    if asked.stream:
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        chunks = _chat_chunks(choices, {**envelope, "object": "chat.completion.chunk"}, translating, usage)
        return events(request, chunks, b"[DONE]")
    async with work:
        found = await work.results()
    made: list[dict[str, Any]] = []
    for place, hypothesis in (
        translating.joined(found)[:n] if translating else choices.wanted(work.jobs[0], found[0])
    ):
        made.append(
            {
                "index": len(made),
                "message": {"role": "assistant", "content": hypothesis.text, "refusal": None},
                "logprobs": _chat_logprobs(
                    choices, [] if top is None else _tokens(work.jobs[0], place, hypothesis)
                ),
                "finish_reason": _reason(hypothesis),
            }
        )
    return answer({**envelope, "choices": made, "usage": choices.usage()})


def _said(messages: list[Message]) -> tuple[str, list[str]]:
    """The text and the pictures of the last user message."""
    last = next((m for m in reversed(messages) if m.role == "user"), None)
    if last is None or last.content is None:
        raise Refusal("messages: there is none of the user", param="messages")
    if isinstance(last.content, str):
        return last.content, []
    texts, pictures = [], []
    for part in last.content:
        if part.type in ("text", "input_text") and part.text is not None:
            texts.append(part.text)
        elif part.type == "image_url" and part.image_url is not None:
            pictures.append(part.image_url.url)
        else:
            raise Refusal(
                f"a part of type {part.type!r} is not read here: text and image_url are", param="messages"
            )
    return "\n".join(texts), pictures


def _input(served: Served, text: str, pictures: list[str]) -> dict[str, str]:
    """What each input of a model gets: pictures those of the message, others its text."""
    kinds = {name: processor.kind for name, processor in served.inputs.items()}
    wanted = [name for name, kind in kinds.items() if kind == "pictures"]
    if len(wanted) != len(pictures):
        much = "one picture" if len(wanted) == 1 else f"{len(wanted) or 'no'} pictures"
        raise Refusal(
            f"{served.name} reads {much}, and the message has {len(pictures) or 'none'}", param="messages"
        )
    return {**dict.fromkeys(kinds, text), **dict(zip(wanted, pictures, strict=True))}


def _chat_logprobs(choices: _Choices, tokens: list[Token]) -> dict[str, Any] | None:
    if choices.top is None:
        return None

    def entry(text: str, log_prob: float) -> dict[str, Any]:
        return {"token": text, "logprob": log_prob, "bytes": list(text.encode())}

    return {
        "content": [
            {
                **entry(choices.spelled[t.token_id], t.log_prob),
                "top_logprobs": [entry(*a) for a in choices.alternatives(t.token_id, t.log_prob, t.top)]
                if choices.top
                else [],
            }
            for t in tokens
        ],
        "refusal": None,
    }


async def _chat_chunks(
    choices: _Choices, envelope: dict[str, Any], translating: Translating | None, usage: bool
) -> AsyncIterator[dict[str, Any]]:
    begun: set[int] = set()

    def chunk(choice: int, text: str, tokens: list[Token], reason: str | None) -> dict[str, Any]:
        delta: dict[str, Any] = {"content": text} if text else {}
        if choice not in begun:
            delta = {"role": "assistant", "content": text}
            begun.add(choice)
        tokens = [t for t in tokens if t.token_id != choices.tokenizer.eos_id]
        logprobs = _chat_logprobs(choices, tokens)
        return {
            **envelope,
            "choices": [{"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}],
        }

    async with choices.work as work:
        if translating is None:
            async for choice, text, tokens, hypothesis in choices.pieces():
                yield chunk(choice, text, tokens, None if hypothesis is None else _reason(hypothesis))
        else:  # sentence by sentence
            sent = [""] * choices.n
            for number, job in enumerate(work.jobs):
                await work.results([job])
                found = [work.outcome(each) for each in work.jobs[: number + 1]]
                last = number + 1 == len(work.jobs)
                for choice, whole in translating.joined(found, whole=last)[: choices.n]:
                    new, sent[choice] = whole.text[len(sent[choice]) :], whole.text
                    yield chunk(choice, new, [], _reason(whole) if last else None)
        if usage:
            yield {**envelope, "choices": [], "usage": choices.usage()}
