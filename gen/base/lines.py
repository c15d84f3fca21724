"""Lines of text in, and out."""

from __future__ import annotations

import gzip
import io
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from gen.base.distributed import is_main
from gen.base.errors import UserError, encode_leniently

MAX_LINE_BYTES = 16 << 20
"""Longest line that is read, if nobody says otherwise."""

_max_line_bytes = MAX_LINE_BYTES


def set_max_line_bytes(number: int) -> None:
    """Sets the longest line that is read in this process, as ``--max-line-bytes`` does. A file without line ends,
    such as a disk image, would otherwise fill the memory."""
    global _max_line_bytes
    _max_line_bytes = number


def suffix(name: str) -> str:
    """The extension of a file name in lower case, without ``.gz``.

    Example:
        >>> suffix("pairs.TSV.gz")
        '.tsv'
    """
    return Path(name.removesuffix(".gz")).suffix.lower()


def expand_braces(name: str) -> list[str]:
    """Expands braces as shells do, for those that do not, and in quotes and YAML.

    Example:
        >>> expand_braces("{a,b}.{en,de}"), expand_braces("{08..10}.tar")
        (['a.en', 'a.de', 'b.en', 'b.de'], ['08.tar', '09.tar', '10.tar'])
    """
    match = re.fullmatch(r"(.*?)\{([^{}]*,[^{}]*|\d+\.\.\d+)\}(.*)", name, re.DOTALL)
    if not match or Path(name).exists():
        return [name]
    parts = match[2].split(",")
    if len(parts) == 1:
        first, last = match[2].split("..")
        step = 1 if int(first) <= int(last) else -1
        padded = any(len(end) > 1 and end[0] == "0" for end in (first, last))
        width = max(len(first), len(last)) if padded else 1
        parts = [f"{n:0{width}}" for n in range(int(first), int(last) + step, step)]
    return [each for part in parts for each in expand_braces(match[1] + part + match[3])]


def read_lines(
    name: str, max_bytes: int | None = None, *, ends: bool = False, errors: str = "strict"
) -> Iterator[str]:
    """The lines of a UTF-8 file (or .gz) or, for "-", of standard input, without their ends, one at a time.

    Lines end with a line feed. Only where the file begins without any, carriage returns end lines, too.

    Args:
        name: the file.
        max_bytes: of a line, its end included; no more of a longer one is read. None: see `set_max_line_bytes`.
        ends: with their ends, and a byte-order mark: joined, the lines are the file.
        errors: "strict", or "replace" to read bytes that are not UTF-8 as U+FFFD.

    Raises:
        UserError: the file cannot be read, is cut short, or a line is too long or not UTF-8 (names it).
    """
    where = "standard input" if name == "-" else name
    most = _max_line_bytes if max_bytes is None else max_bytes
    try:
        with _open(name) as file:
            refuse_foreign(file.peek(_LOOK), where)  # type: ignore[attr-defined]
            raw = iter(partial(file.readline, most + 1), b"") if ends else _raw_lines(file, most + 1)
            for number, line in enumerate(raw, 1):
                if len(line) > most:
                    raise UserError(
                        f"{where}: line {number} has more than {most:,} bytes: is it text, with line ends? "
                        "(--max-line-bytes sets the limit)"
                    )
                text = line.decode(errors=errors)
                yield text if ends else text.rstrip("\r\n").removeprefix("\ufeff" * (number == 1))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: line {number} is not UTF-8 (byte {error.start} of the line); convert the file"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None)  # the system's; without one it is the contents
        raise UserError(
            f"{where}: cannot be read ({reason})" if reason else f"{where}: damaged or cut short ({error})"
        ) from error


_LOOK = 1 << 16
"""Bytes at the beginning of a file that are looked at."""

_FOREIGN = {
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PK\x03\x04": "a zip archive or an office document",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"\x1f\x8b": "gzip data whose name does not end in .gz",
    b"BZh91AY&SY": "bzip2 data",
    b"\xfd7zXZ\0": "xz data",
    b"\x28\xb5\x2f\xfd": "Zstandard data",
    b"%PDF-": "a PDF document",
    b"PAR1": "a Parquet file whose name does not end in .parquet",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
"""What files begin with that hold no UTF-8 text, and what they are."""


def refuse_foreign(head: bytes, where: str) -> None:
    """Raises `UserError` if the first bytes are those of something else than UTF-8 text."""
    kind = next((kind for mark, kind in _FOREIGN.items() if head.startswith(mark)), "")
    if not kind and head.count(0) * 3 > len(head):
        kind = "UTF-16 text, or no text"
    if kind:
        raise UserError(f"{where}: is {kind}: save or unpack it as UTF-8 text")


_MARKUP = ("<?xml", "<tmx", "<srcset", "<refset", "<tstset")
"""How XML begins, and the SGML that WMT's test sets are in."""


def is_markup(name: str) -> bool:
    """Whether a file is XML or SGML by its first line, whose tags would be taken for text."""
    try:
        lines = read_lines(name) if Path(name).is_file() else iter(())
        first = next((line for line in lines if line.strip()), "")
    except UserError:  # what reads it says so
        return False
    return first.lstrip().lower().startswith(_MARKUP)


def _open(name: str) -> IO[bytes]:
    if name == "-":
        return open(0, "rb", _LOOK, closefd=False)
    return gzip.open(name) if name.endswith(".gz") else open(name, "rb", _LOOK)  # type: ignore[return-value]


def _raw_lines(file: IO[bytes], most: int) -> Iterator[bytes]:
    """The lines of a file with their ends, at most ``most`` bytes of each. A stray carriage return is no line end:
    files stay in step."""
    head = file.peek(_LOOK)  # type: ignore[attr-defined]
    if b"\n" in head or b"\r" not in head[:-1]:  # the last may be half of a "\r\n"
        yield from iter(partial(file.readline, most), b"")
    else:
        text = io.TextIOWrapper(file, "latin-1", newline=None)
        yield from (line.encode("latin-1") for line in iter(partial(text.readline, most), ""))


@contextmanager
def output(name: str, option: str = "--output") -> Iterator[IO[str]]:
    """A file that is there when all of it is written (packed, if its name ends in ``.gz``), or standard output for
    "-". Of several processes the main one writes. Errors name ``option``."""
    if not is_main():
        yield io.StringIO()
        return
    if name == "-" or _is_stdout(name):
        encode_leniently(sys.stdout)  # names of files need not be UTF-8
        yield sys.stdout
        return
    # A device or a pipe is written to; a file is replaced, or made, at once, and a link to one stays a link.
    in_system = Path(name).absolute().is_relative_to("/dev") or Path(name).absolute().is_relative_to("/proc")
    at_once = not in_system and (not Path(name).exists() or Path(name).is_file())
    path = temporary = Path(name).resolve() if at_once else Path(name)
    try:
        if at_once:
            descriptor, made = tempfile.mkstemp(prefix=f".{path.name}.gen-", dir=path.parent)
            temporary = Path(made)
        else:
            descriptor = os.open(path, os.O_WRONLY)
    except OSError as error:
        raise UserError(f"{option} {name}: cannot be written ({error.strerror})") from error
    try:
        raw = os.fdopen(descriptor, "wb")
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if name.endswith(".gz") else raw
        with raw, io.TextIOWrapper(packed, "utf-8", "surrogateescape", newline="") as file:
            yield file
        if at_once:
            with temporary.open("r+b") as written:
                os.fsync(written.fileno())
            os.umask(mask := os.umask(0))  # it cannot be read otherwise
            temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask)
            temporary.replace(path)
    except OSError as error:
        if error.filename or isinstance(error, BrokenPipeError):  # another file; or nobody reads any more
            raise
        raise UserError(f"{option} {name}: cannot be written ({error.strerror or error})") from error
    finally:
        if at_once:
            temporary.unlink(missing_ok=True)


def _is_stdout(name: str) -> bool:
    """Whether a name, such as /dev/stdout, is another one for standard output."""
    try:
        return os.path.samestat(os.stat(name), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # no such file yet; or standard output is none
        return False
