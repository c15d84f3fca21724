"""Reading large text files, folders, globs and standard input in constant memory."""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import io
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from gen.base.errors import UserError

_BLOCK = 1 << 20


def check_regular(path: str | os.PathLike[str], most: int | None = None) -> None:
    """Raises ValueError if there is a pipe, a device or a folder where a file belongs, or a file of more than
    ``most`` bytes: reading those may never end. Raises OSError if there is nothing."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("is no regular file")
    if most is not None and found.st_size > most:
        raise ValueError(f"has {found.st_size:,} bytes, and at most {most:,} are read")


def read_whole(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes. Raises as `check_regular` does."""
    check_regular(path, most)
    with open(path, "rb") as file:
        return file.read(most)


class TextFiles:
    """UTF-8 text from files, folders (their .txt and .txt.gz), globs, .gz files, or "-" for standard input.

    Iterating yields pieces of about a megabyte that end at line ends, and None between two files. It can be
    iterated again: standard input is spooled to a file. Line ends become "\\n" and a byte-order mark is
    dropped.

    Args:
        names: files, folders, globs or "-", as the user gave them.
        encoding_errors: "strict", or "replace" to read bytes that are not UTF-8 as U+FFFD.

    Raises:
        UserError: a file is missing, empty, or not UTF-8 (the message gives file and offset).

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("one\\r\\ntwo")
        ...     _ = Path(folder, "b.txt").write_text("three")
        ...     list(TextFiles([folder]))
        ['one\\n', 'two', None, 'three']
    """

    def __init__(self, names: Sequence[str], encoding_errors: str = "strict") -> None:
        self.encoding_errors = encoding_errors
        self._spool: Any = None
        self.paths = [path for name in names for path in self._expand(name)]

    def _expand(self, name: str) -> list[Path]:
        if name == "-":
            if self._spool is None:
                self._spool = tempfile.NamedTemporaryFile(prefix="gen-stdin-")  # noqa: SIM115
                shutil.copyfileobj(sys.stdin.buffer, self._spool)
                self._spool.flush()
            found = [Path(self._spool.name)]
        elif Path(name).is_dir():
            found = sorted(p for p in Path(name).rglob("*") if p.name.endswith((".txt", ".txt.gz")))
            if not found:
                raise UserError(f"{name}: the folder holds no .txt or .txt.gz file")
        elif glob.has_magic(name) and not Path(name).exists():
            found = sorted(Path(p) for p in glob.glob(name, recursive=True) if Path(p).is_file())
            if not found:
                raise UserError(f"{name}: no file matches")
        else:
            found = [Path(name)]
        for path in found:
            if not path.exists():
                raise UserError(f"{path}: no such file")
            if path.stat().st_size == 0:
                raise UserError(f"{'standard input' if name == '-' else path}: is empty")
        return found

    def _open(self, path: Path) -> BinaryIO:
        try:
            file = path.open("rb")
            if file.read(2) == b"\x1f\x8b":
                file.close()
                return gzip.open(path)  # type: ignore[return-value]
            file.seek(0)
            return file
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error

    def _blocks(self, path: Path) -> Iterator[bytes]:
        with self._open(path) as file:
            try:
                while block := file.read(_BLOCK):
                    yield block
            except (OSError, EOFError, zlib.error) as error:
                raise UserError(f"{path}: damaged or cut short ({error})") from error

    def digest(self) -> str:
        """A hash of the content of all files, in order."""
        digest = hashlib.blake2b(digest_size=20)
        for path in self.paths:
            for block in self._blocks(path):
                digest.update(block)
            digest.update(b"\0end of file\0")
        return digest.hexdigest()

    def __iter__(self) -> Iterator[str | None]:
        for number, path in enumerate(self.paths):
            if number:
                yield None
            yield from self._pieces(path)

    def _pieces(self, path: Path) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")(self.encoding_errors)
        newlines = io.IncrementalNewlineDecoder(None, translate=True)
        rest, offset = "", 0
        for block in self._blocks(path):
            rest += newlines.decode(self._decode(decoder, block, path, offset))
            offset += len(block)
            end = rest.rfind("\n") + 1 or (len(rest) if len(rest) > 4 * _BLOCK else 0)
            if end:
                yield rest[:end]
                rest = rest[end:]
        rest += newlines.decode(self._decode(decoder, b"", path, offset, final=True), final=True)
        if rest:
            yield rest

    def _decode(self, decoder: Any, block: bytes, path: Path, offset: int, final: bool = False) -> str:
        waiting = len(decoder.getstate()[0])
        try:
            return decoder.decode(block, final)
        except UnicodeDecodeError as error:
            at = offset - waiting + error.start
            raise UserError(
                f"{path}: not UTF-8 at byte {at} (0x{error.object[error.start]:02x}); convert the file, or read "
                "such bytes as U+FFFD with --encoding-errors replace"
            ) from error
