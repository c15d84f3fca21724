"""What uvicorn leaves to a proxy: clients that send or read too slowly are let go."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gen.serve.errors import Refusal, form
from gen.serve.wire import encode

HEADER_SECONDS = 10.0
"""Until the headers of a request must be there, from the connection or from its first byte on."""

HEADER_BYTES = 1 << 16
"""The most bytes of headers."""

READ_SECONDS = 60.0
"""How long a client may read nothing of an answer that waits for it."""


class Protocol(HttpToolsProtocol):
    """A connection. Bodies are limited by what reads them; see `gen.serve.guard` and `gen.serve.wire.body`."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._request_due: asyncio.TimerHandle | None = None
        self._reading_due: asyncio.TimerHandle | None = None
        self._in_headers, self._header_bytes = True, 0
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._request_due, self._reading_due):
            if timer is not None:
                timer.cancel()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_request(self) -> None:
        if self._request_due is None and not self._is_answering:
            self._request_due = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        self._expect_request()
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > HEADER_BYTES:
            self._refuse(431, f"the headers have more than {HEADER_BYTES:,} bytes")

    def on_message_begin(self) -> None:
        self._in_headers = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._request_due is not None:
            self._request_due.cancel()
        self._request_due, self._in_headers, self._header_bytes = None, False, 0
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_headers:  # the next request began before the answer had ended
            self._expect_request()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no HTTP request")

    def _refuse(self, status: int, message: str) -> None:
        """Answers what never becomes a request, unless another one is being answered."""
        if self._is_answering:
            self.transport.abort()
            return
        body = encode(form("", Refusal(message, status)))
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_due = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading_due is not None:
            self._reading_due.cancel()
