"""The files of shards: tars, tables, text, and datasets on the Hub, as rows of columns."""

from __future__ import annotations

import glob
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from gen.base.errors import UserError, first_line
from gen.base.files import TextFiles
from gen.base.lines import expand_braces, suffix
from gen.base.tables import TABLES, Table
from gen.inputs.pictures import is_picture

Row = dict[str, Any]

HUB = "hf:"
TARS = (".tar", ".tgz")

_RUN = 1 << 15
"""Characters of a running text that stay together when it is shuffled."""


def is_streamed(name: str) -> bool:
    """Whether a name is that of data that is always streamed: a tar, or a dataset on the Hub as ``hf:NAME``.

    Example:
        >>> is_streamed("shards/{000..099}.tar"), is_streamed("hf:owner/name"), is_streamed("book.txt")
        (True, True, False)
    """
    return name.startswith(HUB) or suffix(name) in TARS


class Sample(Row):
    """A row of a tar.

    Attributes:
        key: the name of its files up to the first point.
    """

    def __init__(self, key: str) -> None:
        self.key = key


def place(row: Row, number: int) -> str:
    """Where a row is in its shard, for messages."""
    return row.key if isinstance(row, Sample) else f"row {number}"


@dataclass(frozen=True)
class Shard:
    """A part of the data that is read from its beginning to its end.

    Attributes:
        name: for messages.
        rows: (number of rows to skip) → the others.
        size: bytes, roughly; 0 if nobody knows.
        is_running: whether its rows are runs of one text.
    """

    name: str
    rows: Callable[[int], Iterator[Row]]
    size: int = 0
    is_running: bool = False


def find_shards(names: Sequence[str], encoding_errors: str = "strict", *, by_line: bool = False) -> list[Shard]:
    """The shards of these names: tars, text, tables (see `Table`), with braces and globs, or ``hf:NAME``.

    A row is {column: value}. One of a tar is the files of one name up to the first point of it, by extension: as
    in webdataset; of a .json file it has the fields. Text has one column, "text": its lines if ``by_line``, else
    runs of them.

    Raises:
        UserError: a file is missing, or the `datasets` library.
    """
    found: list[Shard] = []
    for name in (each for given in names for each in expand_braces(given)):
        if name.startswith(HUB):
            found += _hub(name)
            continue
        paths = (
            sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) and not Path(name).exists() else [name]
        )
        if not paths:
            raise UserError(f"{name}: no file matches")
        for path in paths:
            if not Path(path).exists():
                raise UserError(f"{path}: no such file")
            if not Path(path).is_file():
                raise UserError(f"{path}: is not a file; to stream a folder name the files in it: folder/*.jsonl")
            found.append(_local(path, encoding_errors, by_line))
    return found


def _local(path: str, encoding_errors: str, by_line: bool) -> Shard:
    size = os.path.getsize(path)
    if suffix(path) in TARS:
        return Shard(path, partial(_tar_rows, path), size)
    if suffix(path) == ".parquet":
        return Shard(path, partial(_parquet_rows, path), size)
    if suffix(path) in TABLES:
        return Shard(path, partial(_table_rows, path, encoding_errors), size)
    return Shard(path, partial(_text_rows, path, encoding_errors, by_line), size, is_running=not by_line)


def _tar_rows(name: str, skip: int) -> Iterator[Row]:
    with whole(name), tarfile.open(name) as tar:
        members = iter(partial(_next_file, tar), None)
        for number, (key, files) in enumerate(groupby(members, lambda member: _split(member.name)[0])):
            if number >= skip:
                row = Sample(key)
                for member in files:
                    where, kind = f"{name}: {member.name}", _split(member.name)[1]
                    try:
                        cells = _cells(where, kind, _content(where, tar, member))
                        row |= {k: v for k, v in cells.items() if k not in row or kind != "json"}
                    except UserError as error:  # of this sample: those behind it can be read
                        row[kind] = error
                yield row


def _content(where: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.islnk():  # what it links to was not kept
        raise UserError(f"{where}: is a hard link to {member.linkname}: make the tar with --hard-dereference")
    content = tar.extractfile(member)
    assert content is not None  # it is a regular file
    return content.read()


def _next_file(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
        if (member.isfile() or member.islnk()) and not os.path.basename(member.name).startswith("."):
            return member
    tar.fileobj.seek(tar.offset)
    if len(tar.fileobj.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:  # of zeros
        raise tarfile.ReadError("it has no end")
    return None


def _split(name: str) -> tuple[str, str]:
    """The name of a sample, and what a file is of it: the extensions."""
    folder, base = os.path.split(name)
    key, _, kind = base.partition(".")
    return os.path.join(folder, key), kind.lower()


def _cells(where: str, kind: str, content: bytes) -> Row:
    """The columns in a file of a tar: text, the fields of JSON, or bytes."""
    if is_picture(kind):
        return {kind: content}
    if kind != "json":
        try:
            return {kind: content.decode("utf-8-sig").strip("\r\n")}
        except UnicodeDecodeError:
            return {kind: content}
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise UserError(f"{where}: is not an object with named fields")
    return fields


def readable(row: Row) -> Row:
    """The row itself. Raises `UserError` if a file of it could not be read."""
    for cell in row.values():
        if isinstance(cell, UserError):
            raise cell
    return row


def _parquet_rows(name: str, skip: int) -> Iterator[Row]:
    with whole(name):
        for batch in parquet_batches(name, skip):
            yield from batch.to_pylist()


def parquet_batches(name: str, skip: int = 0, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The rows of a Parquet file but the first ``skip``, in batches of pyarrow with those of ``columns`` that it
    has (None: all). Row groups before them are not read."""
    with needs("pyarrow.parquet", name).ParquetFile(name) as file:
        there = None if columns is None else [each for each in file.schema_arrow.names if each in columns]
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if skip >= count:
                skip -= count
                continue
            for batch in file.iter_batches(1024, [group], there):
                if skip < batch.num_rows:
                    yield batch.slice(skip)
                skip = max(skip - batch.num_rows, 0)


def _table_rows(name: str, encoding_errors: str, skip: int) -> Iterator[Row]:
    return (row for _, row in islice(Table(name, encoding_errors=encoding_errors), skip, None))


def _text_rows(name: str, encoding_errors: str, by_line: bool, skip: int) -> Iterator[Row]:
    texts = (text for piece in TextFiles([name], encoding_errors) if piece for text in _runs(piece, by_line))
    return ({"text": text} for text in islice(texts, skip, None))


def _runs(piece: str, by_line: bool) -> Iterator[str]:
    """The lines of a piece of text that are not empty, or runs of its lines."""
    if by_line:
        yield from filter(None, piece.split("\n"))
        return
    begin = 0
    while begin < len(piece):
        end = piece.find("\n", begin + _RUN) + 1 or len(piece)
        yield piece[begin:end]
        begin = end


def _hub(name: str) -> list[Shard]:
    datasets = needs("datasets", name)
    base, *rest = name.removeprefix(HUB).split(":")
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are reported once, below
    with whole(name, "cannot be loaded"):
        data = datasets.load_dataset(base, *rest[:-1], split=rest[-1] if rest else "train", streaming=True)
        for column, feature in (data.features or {}).items():
            if isinstance(feature, datasets.Image):
                data = data.cast_column(column, datasets.Image(decode=False))  # {"bytes", "path"}
        count = data.num_shards
        size = (data.info.dataset_size or 0) // count

    def rows(number: int, skip: int) -> Iterator[Row]:
        with whole(name, "cannot be read"):
            yield from data.shard(count, number, contiguous=True).skip(skip)

    return [Shard(name, partial(rows, number), size) for number in range(count)]


def needs(library: str, name: str) -> Any:
    """A library that reads a file. Raises `UserError` if it is not installed."""
    from importlib import import_module

    try:
        return import_module(library)
    except ImportError as error:
        package = library.split(".")[0]
        raise UserError(
            f"{name}: reading it needs the {package} library: pip install 'gen-toolkit[streaming]'"
        ) from error


@contextmanager
def whole(name: str, problem: str = "damaged or cut short") -> Iterator[None]:
    """Within it, errors of reading name the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # tarfile, zlib, pyarrow, the network: no common base class
        raise UserError(f"{name}: {problem} ({first_line(error)})") from error
