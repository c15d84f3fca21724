"""The server as an ASGI application: routes, and what holds for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gen.serve import api, chat, libretranslate, openai
from gen.serve.errors import ClientGone, Refusal, form
from gen.serve.metrics import Metrics
from gen.serve.models import Models
from gen.serve.schema import describe
from gen.serve.wire import answer
from gen.serve.work import Work

PAGE = Path(__file__).parent / "page"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked again each time, answered 304: an upgrade shows at once
}


class Endpoint(NamedTuple):
    """A path, its method, what answers it, and the type of its request."""

    path: str
    method: str
    handler: Callable[[Request], Awaitable[Response]]
    body: type | None = None


ENDPOINTS = (
    Endpoint("/v1/models", "GET", openai.models),
    Endpoint("/v1/models/{name:path}", "GET", openai.model),
    Endpoint("/v1/completions", "POST", openai.completions, openai.Completion),
    Endpoint("/v1/chat/completions", "POST", chat.chat, chat.Chat),
    Endpoint("/translate", "POST", libretranslate.translate, libretranslate.Translate),
    Endpoint("/languages", "GET", libretranslate.languages),
    Endpoint("/health", "GET", libretranslate.health),
    Endpoint("/api/models", "GET", api.models),
    Endpoint("/api/next", "POST", api.next_tokens, api.Next),
    Endpoint("/api/generate", "POST", api.generate, api.Generate),
    Endpoint("/api/classify", "POST", api.classify, api.Classify),
)


@dataclass(eq=False)
class Note:
    """What is written down of a request: never its text."""

    began: float
    status: int = 0
    first: float | None = None
    work: Work | None = None


class Guard:
    """Around every request: its size, its key, a line in the log, and the metrics."""

    def __init__(self, app: Any, models: Models, metrics: Metrics, key: Key, log: str) -> None:
        self.app, self.models, self.metrics, self.key, self.log = app, models, metrics, key, log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        note = scope["gen"] = Note(time.perf_counter())
        path, most, received, begun = scope["path"], self.models.limits.body, 0, False
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}

        async def counted() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _Stop(_too_large(most))
            return message

        async def noted(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun, note.status = True, message["status"]
            await send(message)

        try:
            declared = headers.get("content-length", b"0")
            if declared.isdigit() and int(declared) > most:
                raise _too_large(most)
            if path.startswith(("/v1/", "/api/", "/metrics")):  # a translation may bring its key in the body
                self.key.check(headers.get("authorization", b"").decode("latin-1"))
            await self.app(scope, counted, noted)
        except ClientGone:
            note.status = note.status or 499
        except (Refusal, _Stop) as error:
            refusal = error if isinstance(error, Refusal) else error.args[0]
            if not begun:
                await _refuse(path, refusal, receive, noted, drain=refusal.status == 413)
        except Exception:
            note.status = 500
            raise
        finally:
            self._write_down(scope, note)

    def _write_down(self, scope: Any, note: Note) -> None:
        seconds = time.perf_counter() - note.began
        work, route = note.work, scope.get("route")
        place = getattr(route, "path", "") or "other"
        self.metrics.request(place, note.status, seconds, None if note.first is None else note.first - note.began)
        record: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "client": scope["client"][0] if scope.get("client") else "",
            "method": scope["method"],
            "path": place if place != "other" else scope["path"][:80],
            "status": note.status,
            "ms": round(1000 * seconds, 1),
        }
        if work is not None:
            record |= {"model": work.served.name, "prompt_tokens": work.prompt_tokens, "tokens": work.tokens}
        if self.log == "json":
            print(json.dumps(record), file=sys.stderr, flush=True)
        elif self.log == "text":
            print(
                " ".join(ascii(v)[1:-1] if isinstance(v, str) else str(v) for v in record.values()),
                file=sys.stderr,
                flush=True,
            )


class Key:
    """The API key; "" asks for none."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def check(self, authorization: str, other: str = "") -> None:
        """Raises `Refusal` unless the header ``Authorization``, or ``other``, has the key."""
        given = [authorization.removeprefix("Bearer ").encode(), other.encode()]
        if self._key and not any(hmac.compare_digest(each, self._key) for each in given):
            wanted = {"WWW-Authenticate": "Bearer"}
            raise Refusal("the API key is missing or wrong", 401, code="invalid_api_key", headers=wanted)


class _Stop(Exception):
    """A refusal that ends the request from within its body."""


def _too_large(most: int) -> Refusal:
    return Refusal(
        f"the body has more than {most:,} bytes", 413, code="request_too_large", headers={"Connection": "close"}
    )


async def _refuse(path: str, refusal: Refusal, receive: Any, send: Any, drain: bool = False) -> None:
    """Sends a refusal. A client that is still sending would not see it if the connection were closed at once: it
    may send for a moment more, into nothing."""
    response = answer(form(path, refusal), refusal.status, refusal.headers)
    await send({"type": "http.response.start", "status": refusal.status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": drain})
    if drain:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b""})


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return answer(form(request.url.path, error), error.status, error.headers)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    names = {
        404: f"there is no {request.url.path[:80]}; see /openapi.json",
        405: f"{request.method} is not answered here",
    }
    refusal = Refusal(
        names.get(error.status_code, error.detail), error.status_code, headers=dict(error.headers or {})
    )
    return await _on_refusal(request, refusal)


async def _on_error(request: Request, error: Exception) -> Response:
    return await _on_refusal(
        request, Refusal("an error of the server's own; its log has more", 500, code="server_error")
    )


class Page(StaticFiles):
    """The page's files; what a model writes on it can run nothing and fetch nothing."""

    async def get_response(self, path: str, scope: Any) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(PAGE_HEADERS)
        return response


def application(
    models: Models,
    *,
    api_key: str = "",
    cors: Sequence[str] = (),
    log: str = "text",
    reload_seconds: float = 2.0,
) -> Starlette:
    """The application.

    Args:
        models: what is served.
        api_key: required of requests; "" for none.
        cors: origins whose pages may ask; "*" for all.
        log: a line per request: "text", "json" or "none".
        reload_seconds: how often folders are looked at.
    """
    metrics, key = Metrics(models), Key(api_key)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(_reload(models, reload_seconds))
        try:
            yield
        finally:
            watch.cancel()
            models.close()

    async def measured(request: Request) -> Response:
        return Response(metrics.text(), media_type=metrics.CONTENT_TYPE)

    async def schema(request: Request) -> Response:
        return answer(describe(ENDPOINTS))

    routes = [
        *(Route(e.path, e.handler, methods=[e.method]) for e in ENDPOINTS),
        Route("/metrics", measured),
        Route("/openapi.json", schema),
        Mount("/", Page(directory=PAGE, html=True)),
    ]
    around = (
        [Middleware(CORSMiddleware, allow_origins=list(cors), allow_methods=["*"], allow_headers=["*"])]
        if cors
        else []
    )
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[*around, Middleware(Guard, models=models, metrics=metrics, key=key, log=log)],
        exception_handlers={Refusal: _on_refusal, HTTPException: _on_http, Exception: _on_error},
    )
    app.state.models, app.state.key = models, key
    return app


async def _reload(models: Models, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        for served in models.served.values():
            await asyncio.to_thread(served.reload)
