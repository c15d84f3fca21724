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
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from gen.base.errors import UserError
from gen.base.lines import expand_braces, refuse_foreign, suffix
from gen.base.tables import TABLES, Table, listed

NAME_IT = "name the column of the text with --column"
"""What to do where it is not clear which column of a table is the text."""

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


def fingerprint(name: str | os.PathLike[str], most: int = 1 << 24) -> list[Any]:
    """What tells a file, or the files of a folder, from others and from what they were: absolute path, size in
    bytes, and a hash of the content; of more than ``most`` bytes, which are not read, the time of the last change
    in ns. The path alone if nothing can be read there.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     before = fingerprint(file.name), fingerprint(file.name, most=-1)
        ...     os.utime(file.name, (0, 0))
        ...     before[0] == fingerprint(file.name), before[1] == fingerprint(file.name, most=-1)
        (True, False)
    """
    path = os.path.abspath(name)
    try:
        about = os.stat(path)
        if stat.S_ISDIR(about.st_mode):
            files = sorted(each.path for each in os.scandir(path) if each.is_file())
            return [path, *(fingerprint(each, most) for each in files)]
        if about.st_size > most:
            return [path, about.st_size, about.st_mtime_ns]
        return [path, about.st_size, hashlib.blake2b(read_whole(path, most), digest_size=20).hexdigest()]
    except (OSError, ValueError):  # said by what reads it
        return [path]


def visible_files(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, also linked ones, sorted by path, without hidden ones and what
    macOS adds to archives (``._name``, ``__MACOSX``)."""
    found, seen, waiting = list[Path](), set[tuple[int, int]](), [folder]
    while waiting:  # links after all that is no link, so that no file is called by a detour
        for where, inner, names in os.walk(waiting.pop(0)):
            about = os.stat(where)
            if (about.st_dev, about.st_ino) in seen:  # a link to a folder that it is in, or to one that was read
                inner.clear()
                continue
            seen.add((about.st_dev, about.st_ino))
            inner[:] = sorted(name for name in inner if not name.startswith(".") and name != "__MACOSX")
            waiting += (path for name in inner if (path := Path(where, name)).is_symlink())
            found += (Path(where, name) for name in names if not name.startswith("."))
    return sorted(path for path in found if path.is_file())


class TextFiles:
    """UTF-8 text from files, folders (their .txt, .txt.gz), globs, .gz files, tables, or "-" for standard input.

    Iterating yields pieces of about a megabyte that end at line ends, and None between two files. It can be
    iterated again: standard input and ``<(command)`` are spooled to a file. Line ends become "\\n", a byte-order
    mark is dropped. Each cell of a table ends with a line end; empty ones are left out.

    Args:
        names: files, folders, globs or "-", as the user gave them.
        encoding_errors: "strict", or "replace" to read bytes that are not UTF-8 as U+FFFD.
        column: of tables (.csv, .tsv, .jsonl, .json, .parquet), by name or by number from 1 on; "" where only one
            holds text.
        given: columns of the tables that `given_cells` returns.
        one_line: whether line ends in cells become spaces.
        advice: what an error says where it is not clear which column is the text.
        part: of tables with a column "split", only the rows of this part: "train", "valid" or "test"; "" for all.

    Attributes:
        skipped: the names of files in folders that are no text.

    Raises:
        UserError: a file is missing, empty, or not UTF-8 (the message gives file and offset); a table has no such
            column.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("one\\r\\ntwo")
        ...     _ = Path(folder, "b.txt").write_text("three")
        ...     list(TextFiles([folder]))
        ['one\\n', 'two', None, 'three']
    """

    def __init__(
        self,
        names: Sequence[str],
        encoding_errors: str = "strict",
        column: str = "",
        *,
        one_line: bool = False,
        given: Sequence[str] = (),
        advice: str = NAME_IT,
        part: str = "",
    ) -> None:
        self.encoding_errors, self.column, self.one_line = encoding_errors, column, one_line
        self.given, self.part = given, part
        self.skipped: list[str] = []
        self._spools: dict[str, Any] = {}
        self.paths = [path for name in names for each in expand_braces(name) for path in self._expand(each)]
        tables = [path for path in self.paths if suffix(path.name) in TABLES]
        self._tables = {
            path: Table(str(path), [column, *given], encoding_errors=encoding_errors) for path in tables
        }
        self._columns = {path: text_column(table, column, given, advice) for path, table in self._tables.items()}
        if part not in ("", "train"):
            self.paths = [path for path, table in self._tables.items() if table.split]

    def _expand(self, name: str) -> list[Path]:
        if name == "-" or _is_stream(name):
            if name not in self._spools:
                spool = self._spools[name] = tempfile.NamedTemporaryFile(prefix="gen-stdin-")  # noqa: SIM115
                with nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as stream:
                    shutil.copyfileobj(stream, spool)
                spool.flush()
            found = [Path(self._spools[name].name)]
        elif Path(name).is_dir():
            texts = texts_in(Path(name))
            found = [path for path in texts if path.stat().st_size] or texts  # one that is empty is no error
            others = set(visible_files(Path(name))) - set(found)
            self.skipped += sorted(str(path.relative_to(name)) for path in others)
        elif glob.has_magic(name) and not Path(name).exists():
            found = sorted(Path(p) for p in glob.glob(name, recursive=True) if Path(p).is_file())
            if not found:
                raise UserError(f"{name}: no file matches")
        else:
            found = [Path(name)]
        for path in found:
            if not path.exists():
                raise UserError(f"{path}: no such file")
            if not path.is_file():
                raise UserError(f"{path}: is no regular file; - reads standard input")
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
            if path in self._columns:
                part = self.part if self._tables[path].split else ""
                digest.update(f"{self._columns[path]}\0{self.one_line}{part}".encode())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[str | None]:
        for number, path in enumerate(self.paths):
            if number:
                yield None
            yield from self._cells(path) if path in self._columns else self._pieces(path)

    def given_cells(self) -> list[tuple[str, ...]]:
        """The cells of the columns ``given``, for each row of the tables that has a text.

        Raises:
            UserError: a file is no table, or lacks a column.
        """
        found: list[tuple[str, ...]] = []
        for path in self.paths:
            if path not in self._columns:
                raise UserError(f"{path}: is no table, so it has no column {self.given[0]!r}")
            table = self._tables[path]
            columns = [table.column("--given", each) for each in self.given]
            for _, row, _ in self._rows(path):
                cells = (row.get(column) for column in columns)
                found.append(tuple("" if cell is None else " ".join(str(cell).split()) for cell in cells))
        return found

    def _rows(self, path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
        """The rows of a table that have a text, of the part that is wanted: place, row, text."""
        table = self._tables[path]
        for where, row in table:
            if self.part and table.part(where, row) != self.part:
                continue
            if text := table.text(where, row, self._columns[path]).strip():
                lines = text.replace("\r\n", "\n").replace("\r", "\n")
                yield where, row, " ".join(text.splitlines()) if self.one_line else lines

    def parts(self) -> Counter[str]:
        """The number of rows of each part, of the tables with a column "split"."""
        tables = (table for table in self._tables.values() if table.split)
        return Counter(table.part(where, row) for table in tables for where, row in table)

    def _cells(self, path: Path) -> Iterator[str]:
        """The cells of a table's column, in pieces."""
        piece: list[str] = []
        length = 0
        for _, _, text in self._rows(path):
            piece.append(text)
            length += len(text)
            if length > _BLOCK:
                yield "".join(line + "\n" for line in piece)
                piece, length = [], 0
        if piece:
            yield "".join(line + "\n" for line in piece)

    def _pieces(self, path: Path) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")(self.encoding_errors)
        newlines = io.IncrementalNewlineDecoder(None, translate=True)
        rest, offset = "", 0
        for block in self._blocks(path):
            if not offset:
                refuse_foreign(block[:1000], str(path))
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


def texts_in(folder: Path) -> list[Path]:
    """The .txt and .txt.gz files in a folder and its subfolders. Raises `UserError` if there are none."""
    found = [path for path in visible_files(folder) if path.name.lower().endswith((".txt", ".txt.gz"))]
    if not found:
        raise UserError(f"{folder}: the folder holds no .txt or .txt.gz file")
    return found


def _is_stream(name: str) -> bool:
    """Whether a name is that of an open pipe, as the shell makes of ``<(command)``: it can be read once only."""
    return name.startswith(("/dev/fd/", "/proc/self/fd/", "/dev/stdin")) and not Path(name).is_file()


def text_column(table: Table, asked: str, given: Sequence[str] = (), advice: str = NAME_IT) -> str:
    """The column of a table that is the text; unless asked for, none of those that are ``given``. ``advice`` says
    what to do if it is not clear."""
    there = f"there are {listed(table.columns)}"
    taken = {table.split, *map(table.find, given)}
    columns, texts = ([c for c in each if c not in taken] for each in (table.columns, table.texts))
    if asked:
        found = table.column("--column", asked)
    elif len(columns) == 1:
        (found,) = columns
    elif len(texts) == 1:
        (found,) = texts
    else:
        raise UserError(f"{table.name}: {advice}; {there}")
    if table.kinds[found] in ("lists", "nothing"):
        raise UserError(f"{table.name}: column {found!r} holds {table.kinds[found]}, no text; {there}")
    return found
