"""Around every request: under which name, with which key and how much is asked, and what is written down of it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from gen.serve.errors import ClientGone, Refusal, form
from gen.serve.metrics import Metrics
from gen.serve.models import Models
from gen.serve.wire import answer
from gen.serve.work import Work


@dataclass(eq=False)
class Note:
    """What is written down of a request: never its text."""

    began: float
    status: int = 0
    first: float | None = None
    work: Work | None = None


class Key:
    """The API key; "" asks for none."""

    def __init__(self, key: str) -> None:
        self._key = key.encode(errors="surrogateescape")  # as bytes, whatever the command line was encoded in

    def check(self, authorization: str, other: str = "") -> None:
        """Raises `Refusal` unless the header ``Authorization``, or ``other``, has the key."""
        given = [authorization.removeprefix("Bearer ").encode("latin-1"), other.encode(errors="surrogatepass")]
        if self._key and not any(hmac.compare_digest(each, self._key) for each in given):
            wanted = {"WWW-Authenticate": "Bearer"}
            raise Refusal("the API key is missing or wrong", 401, code="invalid_api_key", headers=wanted)


class Hosts:
    """The names under which the server may be asked; none: any.

    A page elsewhere can let its own name lead to 127.0.0.1 and then ask, as if the server were its own (DNS
    rebinding). The header ``Host`` shows the name.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = {name.lower() for name in names}

    def check(self, given: list[bytes]) -> None:
        """Raises `Refusal` unless there is one header ``Host``, with one of the names and any port."""
        if not self._names or "*" in self._names:
            return
        names = [re.sub(r":\d*$", "", each.decode("latin-1")).lower() for each in given]
        if len(names) != 1 or names[0] not in self._names:
            name = ascii(names[0][:80]) if names else "no name"
            hint = f"under {name}; --allow-host adds a name" if names else "without the header Host"
            raise Refusal(f"this server does not answer {hint}", 403, code="host_not_allowed")


class Origins:
    """The origins whose pages may ask, besides the server's own; "*": any.

    A browser sends what a page elsewhere posts as plain text, and only keeps the answer from that page (CSRF). Its
    header ``Sec-Fetch-Site`` shows it, or ``Origin`` alone where the address is neither https nor this machine's;
    what is no browser has neither.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = {*origins}

    def check(self, site: str, origin: str, host: str) -> None:
        """Raises `Refusal` for a page of another origin than ``host``."""
        elsewhere = site in ("cross-site", "same-site") if site else origin.partition("://")[2] != host
        if (site or origin) and elsewhere and not self._origins & {"*", origin}:
            message = f"pages of {origin[:80]!a} may not ask this server; --cors ORIGIN allows them to"
            raise Refusal(message, 403, code="origin_not_allowed")


class Guard:
    """Middleware: checks name, origin, key and size of every request; a line in the log, and the metrics."""

    def __init__(
        self, app: Any, models: Models, metrics: Metrics, hosts: Hosts, origins: Origins, key: Key, log: str
    ) -> None:
        self.app, self.metrics, self.hosts, self.key, self.log = app, metrics, hosts, key, log
        self.origins = origins
        self.most = models.limits.body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        note = scope["gen"] = Note(time.perf_counter())
        received = 0

        async def counted() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most:
                raise _TooLarge
            return message

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                note.status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, counted, noted)
        except ClientGone:
            note.status = note.status or 499
        except Refusal as refusal:
            await _refuse(scope["path"], refusal, noted)
        except _TooLarge:
            if not note.status:
                await self._refuse_rest(scope["path"], receive, noted)
        except Exception:
            note.status = 500
            raise
        finally:
            self._write_down(scope, note)

    def _check(self, scope: Any) -> None:
        """Raises what a request is refused with before it is read."""
        headers = dict(scope["headers"])
        self.hosts.check([value for name, value in scope["headers"] if name == b"host"])
        if scope["method"] == "POST":
            names = (b"sec-fetch-site", b"origin", b"host")
            self.origins.check(*(headers.get(name, b"").decode("latin-1") for name in names))
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.most:
            raise _TooLarge
        if scope["path"].startswith(("/v1/", "/api/", "/metrics")):  # a translation may bring its key in the body
            self.key.check(headers.get(b"authorization", b"").decode("latin-1"))

    async def _refuse_rest(self, path: str, receive: Any, send: Any) -> None:
        """Refuses a body that is too large. A client that is still sending would not see it if the connection were
        closed at once: it may send for a moment more, into nothing."""
        closing = {"Connection": "close"}
        refusal = Refusal(
            f"the body has more than {self.most:,} bytes", 413, code="request_too_large", headers=closing
        )
        await _refuse(path, refusal, send, more_body=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b""})

    def _write_down(self, scope: Any, note: Note) -> None:
        seconds = time.perf_counter() - note.began
        work, path = note.work, getattr(scope.get("route"), "path", "")
        first = None if note.first is None else note.first - note.began
        self.metrics.request(path or "other", note.status, seconds, first)
        if self.log == "none":
            return
        record: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "client": scope["client"][0] if scope.get("client") else "",
            "method": scope["method"],
            "path": path or scope["path"][:80],
            "status": note.status,
            "ms": round(1000 * seconds, 1),
        }
        if work is not None:
            record |= {"model": work.served.name, "prompt_tokens": work.prompt_tokens, "tokens": work.tokens}
        words = (ascii(v)[1:-1] if isinstance(v, str) else str(v) for v in record.values())
        print(json.dumps(record) if self.log == "json" else " ".join(words), file=sys.stderr, flush=True)


class _TooLarge(Exception):
    """Ends a request from within its body. No `Refusal`: the application would answer that itself."""


async def _refuse(path: str, refusal: Refusal, send: Any, more_body: bool = False) -> None:
    response = answer(form(path, refusal), refusal.status, refusal.headers)
    await send({"type": "http.response.start", "status": refusal.status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": more_body})
