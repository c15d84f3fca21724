"""Reading and writing lines of text: files, .gz files, standard input and output."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gen.base.distributed import is_main
from gen.base.errors import UserError


def read_lines(name: str) -> Iterator[str]:
    """Yields the lines of a UTF-8 file (or .gz), or of standard input for "-", without line ends.

    Raises:
        UserError: the file cannot be read, is truncated, or has a line that is not UTF-8 (the message gives its
            number).
    """
    where = "standard input" if name == "-" else name
    try:
        with _open(name) as file:
            for number, line in enumerate(file, 1):
                text = line.decode().rstrip("\r\n")
                yield text.removeprefix("\ufeff") if number == 1 else text
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: line {number} is not UTF-8 (byte {error.start} of the line); convert the file"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None)  # from the system; None if the content is at fault
        raise UserError(
            f"{where}: cannot be read ({reason})" if reason else f"{where}: damaged or cut short ({error})"
        ) from error


def _open(name: str) -> IO[bytes]:
    if name == "-":
        return open(0, "rb", closefd=False)
    return gzip.open(name) if name.endswith(".gz") else open(name, "rb")  # type: ignore[return-value]


@contextmanager
def output(name: str) -> Iterator[IO[str]]:
    """Opens a text file that appears only once it is complete, or standard output for "-". With several
    processes only the main one writes."""
    if not is_main():
        yield io.StringIO()
        return
    if name == "-" or _is_stdout(name):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # file names need not be UTF-8
        yield sys.stdout
        return
    # Devices and pipes are written to directly. Files are replaced atomically; a link to a file stays a link.
    in_system = Path(name).absolute().is_relative_to("/dev") or Path(name).absolute().is_relative_to("/proc")
    at_once = not in_system and (not Path(name).exists() or Path(name).is_file())
    path = temporary = Path(name).resolve() if at_once else Path(name)
    try:
        if at_once:
            descriptor, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            temporary = Path(made)
        else:
            descriptor = os.open(path, os.O_WRONLY)
    except OSError as error:
        raise UserError(f"--output {name}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            yield file
        if at_once:
            os.umask(mask := os.umask(0))  # the only way to read it
            temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask)
            temporary.replace(path)
    finally:
        if at_once:
            temporary.unlink(missing_ok=True)


def _is_stdout(name: str) -> bool:
    """Whether ``name`` is standard output under another name, such as /dev/stdout."""
    try:
        return os.path.samestat(os.stat(name), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # no such file yet, or standard output is not a file
        return False
