"""Requests as JSON with checked types, answers as JSON or as server-sent events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from gen.serve.errors import ClientGone, Refusal, form

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
encode = _encoder.encode

Top = Annotated[int, Meta(ge=0, le=100)]
Count = Annotated[int, Meta(ge=1, le=128)]
Texts = str | list[str] | None


class Search(Struct, kw_only=True):
    """How to search: the options of `gen generate`, `gen translate` and `gen caption`. What is left out is the
    model's own default."""

    max_new_tokens: int | None = None
    max_ratio: float | None = None
    min_new_tokens: int | None = None
    unknown: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    num_samples: int | None = None
    seed: int | None = None
    beam: int | None = None
    length_penalty: float | None = None
    coverage_penalty: float | None = None
    length_reward: float | None = None
    mbr: bool | None = None
    n_best: int | None = None
    beam_groups: int | None = None
    diversity: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram: int | None = None
    prefix: str | None = None
    must: Texts = None
    ban: Texts = None
    stop: Texts = None
    protect: bool | None = None
    protect_only: Texts = None
    replace_unk: bool | None = None

    def options(self) -> dict[str, Any]:
        """The options that were given."""
        return {name: value for name in _SEARCH if (value := getattr(self, name)) not in (None, [])}


_SEARCH = Search.__struct_fields__


async def read(request: Request, kind: type[T]) -> T:
    """The body of a request.

    Raises:
        Refusal: it is no JSON, has wrong types, or does not come.
    """
    return parse(await body(request), kind)


async def body(request: Request) -> bytes:
    """The bytes of a request. Raises `Refusal` where they do not come in time."""
    try:
        async with asyncio.timeout(request.app.state.models.limits.body_seconds):
            return await request.body()
    except ClientDisconnect:
        raise ClientGone from None
    except TimeoutError:
        raise Refusal(
            "the body of the request did not come", 408, code="timeout", headers={"Connection": "close"}
        ) from None


def parse(data: bytes, kind: type[T]) -> T:
    """JSON → a `Struct`. Raises `Refusal` that names the field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refusal(f"the body is no JSON that can be read: {reason}", code="invalid_json") from error


def wrong_type(error: msgspec.ValidationError) -> Refusal:
    """A value of a wrong type, or out of range."""
    message, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    name = re.match(r"\w*", place)
    return Refusal(
        f"{place}: {message}" if place else message, param=name[0] if name else "", code="invalid_value"
    )


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(content), status, headers, "application/json")


def events(request: Request, messages: AsyncIterator[list[Any]], end: bytes = b"") -> Response:
    """Server-sent events: a line of JSON each, a group in one piece. An error that comes late is the last."""

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for group in messages:
                if group:
                    yield b"".join([b"data: " + encode(message) + b"\n\n" for message in group])
            if end:
                yield b"data: " + end + b"\n\n"
        except ClientGone:
            return
        except Refusal as refusal:
            yield b"data: " + encode(form(request.url.path, refusal)) + b"\n\n"

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)
