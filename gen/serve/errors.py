"""What a request is refused with; each interface writes it in its own form."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A request that is not answered, and why.

    Args:
        message: what is wrong and what to do, in a line.
        status: of HTTP.
        param: the field that is wrong; "" for none.
        code: a short name that programs read.
        headers: of the answer.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str = "",
        code: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code, self.headers = (
            message,
            status,
            param,
            code,
            headers or {},
        )


class ClientGone(Exception):
    """Nobody waits for the answer."""


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_LIBRETRANSLATE = ("/translate", "/languages", "/detect", "/suggest", "/frontend/")
"""Paths of LibreTranslate, also those that are not answered."""


def form(path: str, refusal: Refusal) -> dict[str, Any]:
    """The body of an answer: LibreTranslate's form for its paths, else OpenAI's."""
    if path.startswith(_LIBRETRANSLATE):
        return {"error": refusal.message}
    kind = _TYPES.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    param, code = refusal.param or None, refusal.code or None
    return {"error": {"message": refusal.message, "type": kind, "param": param, "code": code}}
