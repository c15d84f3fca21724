"""The errors a user can mend. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Sequence
from typing import Any


class UserError(Exception):
    """Bad input. Its message is one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class ConfigError(UserError):
    """Every contradiction of a configuration at once, a line each, naming the options."""

    def __init__(self, errors: Sequence[str]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(self.errors))


class Terminated(KeyboardInterrupt):
    """SIGTERM, answered as Ctrl-C is."""


def notify(message: str) -> None:
    """Tells the user, in a line on standard error, what went wrong and what is done about it."""
    print(f"gen: {message}", file=sys.stderr, flush=True)


def encode_leniently(stream: Any) -> None:
    """Lets standard output or error write every text: a character that its encoding lacks becomes "?", and bytes
    of a file's name that are not UTF-8 stay what they are."""
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error("gen-lenient", _replace_character)
        stream.reconfigure(errors="gen-lenient")


def _replace_character(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code = ord(error.object[error.start])
    is_byte = 0xDC80 <= code <= 0xDCFF  # how Python keeps a byte that it could not decode
    return (bytes([code - 0xDC00]) if is_byte else "?"), error.start + 1
