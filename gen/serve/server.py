"""Listening, and ending in good order."""

from __future__ import annotations

import socket
import sys
from contextvars import Context
from typing import Any

import uvicorn

from gen.base.errors import UserError, notify


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `UserError` where the address is taken or is none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason})") from error


def run(app: Any, listening: socket.socket, seconds: float) -> None:
    """Serves until SIGTERM or Ctrl-C, and then finishes what is under way; a second one ends at once.

    Args:
        app: an ASGI application.
        listening: see `listen`.
        seconds: that requests under way may take at the end.
    """
    sys.setswitchinterval(0.0005)  # a step of the engine must not wait long for the thread that talks to clients
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        lifespan="on",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(seconds) + 1,
        h11_max_incomplete_event_size=1 << 16,
    )
    host, port = listening.getsockname()[:2]
    notify(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}")
    server = uvicorn.Server(config)
    try:
        # In a context of its own: messages name options as JSON does, not as the command line does.
        Context().run(server.run, [listening])
    except KeyboardInterrupt:  # uvicorn raises the signal again once all is done
        notify("ended")
