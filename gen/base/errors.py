"""The errors a user can mend. Everything else is a bug and keeps its traceback.

Messages name options as the command line does: ``--top-p must be above 0``. That is what the command line prints.
In Python ``str(error)`` names them as Python does: ``top_p must be above 0``.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_on_command_line: ContextVar[bool] = ContextVar("gen_command_line", default=False)

# Quoted text and commands in backticks stay as they are. An option is a word that begins with two dashes.
_OPTION = re.compile(
    r"""(?<!\w)(?: '(?:[^'\\\n]|\\.)*' | "(?:[^"\\\n]|\\.)*" )(?!\w) | `[^`\n]*`
    | (?<![\w./\\-]) -- (?P<name>[a-z][a-z0-9]*(?:-[a-z0-9]+)*) (?![\w./\\-])
      (?P<value>\ (?= ['"] | -?\d+(?:\.\d+)?(?:[,:;)\n]|$) ))?""",
    re.VERBOSE,
)


@contextmanager
def command_line_terms() -> Iterator[None]:
    """Inside, `UserError`s name options as the command line does: ``--top-p`` instead of ``top_p``."""
    token = _on_command_line.set(True)
    try:
        yield
    finally:
        _on_command_line.reset(token)


def python_terms(message: str) -> str:
    """A message with ``--top-p`` written as ``top_p``, and ``--top-p 2`` as ``top_p=2``.

    Example:
        >>> python_terms("--top-p must be above 0, not 2; see `gen generate --help`")
        'top_p must be above 0, not 2; see `gen generate --help`'
        >>> python_terms("--beam-groups 3 does not divide --beam 4: '--beam' is kept as it is")
        "beam_groups 3 does not divide beam=4: '--beam' is kept as it is"
    """

    def written(match: re.Match[str]) -> str:
        if not match["name"]:
            return match[0]
        return match["name"].replace("-", "_") + ("=" if match["value"] else "")

    return _OPTION.sub(written, message)


class UserError(Exception):
    """Bad input. Its message is one line that says what is wrong, where, and what to do.

    Write options into it as the command line has them (``--top-p``): ``str()`` translates, see the module. The
    command line prints the message without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        message = super().__str__()
        return message if _on_command_line.get() else python_terms(message)


@contextmanager
def within(file: str) -> Iterator[None]:
    """Inside, the messages of `UserError`s get the name of a file in front."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


class ConfigError(UserError):
    """Every contradiction of a configuration at once, a line each, naming the options.

    Attributes:
        errors: the lines, with options named as on the command line.
    """

    def __init__(self, errors: Sequence[str]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(self.errors))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (self.errors,)


class Terminated(KeyboardInterrupt):
    """SIGTERM, answered as Ctrl-C is."""


_CONTROLS = {i: ascii(chr(i))[1:-1] for i in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_BYTES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(128, 256)}  # how Python keeps what is not UTF-8


def one_line(text: str) -> str:
    """A text with control characters escaped: the name of a file may have line ends, and move a terminal's cursor.

    Example:
        >>> one_line("a\\x1b[31m\\nb")
        'a\\\\x1b[31m\\\\nb'
    """
    return text.translate(_CONTROLS)


def printable(text: str, keep: str = "") -> str:
    """`one_line`, and bytes that are not UTF-8 escaped, for terminals and pages.

    Args:
        text: what may come from anywhere.
        keep: control characters to leave, such as line ends.
    """
    return text.translate({i: shown for i, shown in (_CONTROLS | _BYTES).items() if chr(i) not in keep})


_LONGEST = 1500
"""Most characters of a message."""


def notify(message: str) -> None:
    """Tells the user, in a line on standard error, what went wrong and what is done about it.

    What it quotes may be of any length: the middle of a very long line is left out.
    """
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"
    print(f"gen: {printable(message)}", file=sys.stderr, flush=True)


def flag(name: str) -> str:
    """The option of a field: ``--learning-rate`` for ``learning_rate``, ``--with`` for ``with_``."""
    return "--" + name.removesuffix("_").replace("_", "-")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none; 160 characters at most."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def reason_of(error: BaseException) -> str:
    """All that an error says, in one line of 160 characters at most; its class where it says nothing.

    Example:
        >>> reason_of(ValueError("no such\\n  graph"))
        'no such graph'
    """
    return " ".join(str(error).split())[:160] or type(error).__name__


def message_of(error: BaseException) -> str:
    """A user's error as it is; of any other the class, too, since its message may say little without it."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def few(names: Sequence[str], most: int = 3) -> str:
    """The first few names for a message, and how many more there are.

    Example:
        >>> few(["a.doc", "b.doc", "c.doc", "d.doc", "e.doc"])
        'a.doc, b.doc, c.doc and 2 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
