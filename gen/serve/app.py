"""The server as an ASGI application: routes, and what holds for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from gen.serve import api, chat, libretranslate, openai
from gen.serve.errors import Refusal, form
from gen.serve.guard import Guard, Hosts, Key, Origins
from gen.serve.metrics import Metrics
from gen.serve.models import Models
from gen.serve.schema import describe
from gen.serve.wire import answer

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
    hosts: Sequence[str] = (),
    api_key: str = "",
    cors: Sequence[str] = (),
    log: str = "text",
    reload_seconds: float = 2.0,
) -> Starlette:
    """The application.

    Args:
        models: what is served.
        hosts: names under which it may be asked, without ports; none for any.
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
    ]
    checks: dict[str, Any] = {"hosts": Hosts(hosts), "origins": Origins(cors), "key": key}
    middleware = [Middleware(Guard, models=models, metrics=metrics, log=log, **checks)]
    if cors:  # around the guard: what it refuses is told to other origins, too
        any_ = ("*",)
        middleware.insert(
            0, Middleware(CORSMiddleware, allow_origins=cors, allow_methods=any_, allow_headers=any_)
        )
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={Refusal: _on_refusal, HTTPException: _on_http, Exception: _on_error},
    )
    app.router.default = Page(
        directory=PAGE, html=True
    )  # no route for "/": it would answer wrong methods with 404
    app.state.models, app.state.key = models, key
    return app


async def _reload(models: Models, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        for served in models.served.values():
            await asyncio.to_thread(served.reload)
