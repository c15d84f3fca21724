"""OpenAI's chat: a picture in, its description out; a text in, its translation out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from gen.serve.choices import Choices, Shared, envelope_of, reason
from gen.serve.errors import Refusal
from gen.serve.items import read_item
from gen.serve.job import Token
from gen.serve.models import Models, Served
from gen.serve.translation import Translating
from gen.serve.wire import answer, events, read
from gen.serve.work import Work, apart, check, several


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
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None

    def search(self, served: Served) -> dict[str, Any]:
        for name in ("tools", "functions"):
            if getattr(self, name):
                raise Refusal(f"{name}: models write text, no calls", param=name, code="unsupported_parameter")
        if self.response_format and self.response_format.get("type") != "text":
            wrong = "response_format: models write text, which need not be JSON"
            raise Refusal(wrong, param="response_format", code="unsupported_parameter")
        return super().search(served)


async def chat(request: Request) -> Response:
    """Describes a picture, translates a text, or continues one: what the last user message holds."""
    asked = await read(request, Chat)
    models: Models = request.app.state.models
    served, limits = models.find(asked.model), models.limits
    n = asked.n or 1
    options = asked.search(served)
    if asked.max_completion_tokens is not None:
        options["max_new_tokens"] = asked.max_completion_tokens
    options = several(served, options, n)
    text, pictures = _said(asked.messages)
    envelope = envelope_of(served, "chat.completion", "chatcmpl")
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    chosen = check(served, options, limits)
    translating = None
    if Translating.does(served) and not pictures:
        translating = await apart(models, lambda: Translating(served, text, chosen, limits))
    if translating is not None and translating.is_one:
        text, translating = translating.texts[0], None  # like any input
    if translating is not None and asked.logprobs:
        raise Refusal("logprobs: a text of several sentences has none; send one", param="logprobs")
    inputs = translating.texts if translating else [_input(served, text, pictures)]
    if len(inputs) > limits.queue:
        raise Refusal("too much text at once: send it in parts", param="messages")
    items = [await read_item(models, served, each, asked.given) for each in inputs]
    later = {name: value for name, value in options.items() if name != "prefix"}
    ways = [options if begins else later for begins in translating.begins] if translating else [options]
    work = Work(request, served)
    for item, way in zip(items, ways, strict=True):
        streams = bool(asked.stream) and translating is None
        await work.begin(item, way, top=top or 0, streams=streams)
    choices = Choices(work, n, top)
    if asked.stream:
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        chunks = _chunks(choices, {**envelope, "object": "chat.completion.chunk"}, translating, usage)
        return events(request, chunks, b"[DONE]")
    async with work:
        found = await work.results()
    if translating:
        best = translating.joined(choices.wanted_each(found), least=n)
    else:
        best = choices.wanted(work.jobs[0], found[0])

    def whole() -> Response:
        made = [
            {
                "index": index,
                "message": {"role": "assistant", "content": hypothesis.text, "refusal": None},
                "logprobs": None if top is None else _logprobs(choices, work.jobs[0].tokens_of(place, hypothesis)),
                "finish_reason": reason(hypothesis),
            }
            for index, (place, hypothesis) in enumerate(best)
        ]
        return answer({**envelope, "choices": made, "usage": choices.usage()})

    return await work.built(whole)


def _said(messages: list[Message]) -> tuple[str, list[str]]:
    """The text and the pictures of the last user message."""
    last = next((m for m in reversed(messages) if m.role == "user"), None)
    if last is None or last.content is None:
        raise Refusal("messages: one must have the role 'user', and a content", param="messages")
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
    """What the inputs of a model get: the first that reads text the message's text, others its pictures."""
    slots = [name for name, processor in served.inputs.items() if processor.kind == "pictures"]
    needed = [name for name in slots if not served.inputs[name].optional]
    if not len(needed) <= len(pictures) <= len(slots):
        much = "one picture" if len(slots) == 1 else f"{len(slots) or 'no'} pictures"
        found = len(pictures) or "none"
        raise Refusal(f"{served.name} reads {much}, and the message has {found}", param="messages")
    texts = [name for name, processor in served.inputs.items() if processor.kind in ("sentences", "prompts")]
    return {**dict.fromkeys(texts[:1], text), **dict(zip(slots, pictures, strict=False))}


def _logprobs(choices: Choices, tokens: list[Token]) -> dict[str, Any]:
    def entry(text: str, log_prob: float) -> dict[str, Any]:
        return {"token": text, "logprob": log_prob, "bytes": list(choices.bytes_of(text))}

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


async def _chunks(
    choices: Choices, envelope: dict[str, Any], translating: Translating | None, usage: bool
) -> AsyncIterator[list[dict[str, Any]]]:
    begun: set[int] = set()

    def chunk(choice: int, text: str, tokens: list[Token], ended: str | None) -> dict[str, Any]:
        delta: dict[str, Any] = {"content": text} if text else {}
        if choice not in begun:
            delta = {"role": "assistant", "content": text}
            begun.add(choice)
        tokens = [t for t in tokens if t.token_id != choices.tokenizer.eos_id]
        logprobs = None if choices.top is None else _logprobs(choices, tokens)
        return {
            **envelope,
            "choices": [{"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": ended}],
        }

    async with choices.work as work:
        if translating is None:
            async for news in work.stream():
                yield [
                    chunk(choice, text, tokens, None if hypothesis is None else reason(hypothesis))
                    for choice, text, tokens, hypothesis in choices.pieces(news)
                ]
        else:  # sentence by sentence
            sent = [""] * choices.n
            if not work.jobs:  # nothing but white space
                blank = translating.joined([], least=choices.n)
                yield [chunk(choice, whole.text, [], reason(whole)) for choice, whole in blank]
            for number, job in enumerate(work.jobs):
                await work.results([job])
                found = choices.wanted_each([work.outcome(each) for each in work.jobs[: number + 1]])
                last = number + 1 == len(work.jobs)
                for choice, whole in translating.joined(found, whole=last):
                    new, sent[choice] = whole.text[len(sent[choice]) :], whole.text
                    yield [chunk(choice, new, [], reason(whole) if last else None)]
        if usage:
            yield [{**envelope, "choices": [], "usage": choices.usage()}]
