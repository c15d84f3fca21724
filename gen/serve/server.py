"""Listening, and ending in good order."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from contextvars import Context
from ipaddress import ip_address
from typing import Any

import uvicorn

from gen.base.errors import UserError, notify
from gen.serve.protocol import Protocol


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `UserError` where the address is taken or is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol, unlike `socket.create_server`: asyncio sends small answers at once (TCP_NODELAY) only
        # where it sees that a connection is one of TCP.
        listening = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2048)
        except BaseException:
            listening.close()
            raise
        return listening
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason})") from error


def local_names(host: str) -> list[str]:
    """The names by which this machine alone is asked, with ``host``; none where others may ask.

    Example:
        >>> local_names("127.0.0.1"), local_names("0.0.0.0")
        (['localhost', '127.0.0.1', '[::1]', '127.0.0.1'], [])
    """
    address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    if not ip_address(address).is_loopback:
        return []
    return ["localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host]


def serving(app: Any, seconds: float) -> uvicorn.Server:
    """The server of an application. At its end, requests under way may take ``seconds``."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        lifespan="on",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(seconds) + 1,
    )
    return uvicorn.Server(config)


def run(app: Any, listening: socket.socket, seconds: float) -> None:
    """Serves until SIGTERM or Ctrl-C, and then finishes what is under way; a second Ctrl-C ends at once.

    Args:
        app: an ASGI application.
        listening: see `listen`.
        seconds: see `serving`.
    """
    sys.setswitchinterval(0.0005)  # a step of the engine must not wait long for the thread that talks to clients
    host, port = listening.getsockname()[:2]
    notify(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}")
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once all is done
        # In a context of its own: messages name options as JSON does, not as the command line does.
        Context().run(serving(app, seconds).run, [listening])
    notify("ended")
