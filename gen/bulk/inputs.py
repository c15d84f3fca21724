"""The inputs of a large job in chunks that a worker can read by itself."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from gen.base.errors import UserError, notify
from gen.base.lines import expand_braces, refuse_foreign, suffix
from gen.base.tables import TABLES
from gen.datasets.shard_files import needs, parquet_batches, whole
from gen.inputs.pictures import find_pictures

LINES = (".jsonl", ".ndjson")
ROWS = (*LINES, ".parquet")
_LOOK = 4096
"""Bytes that tell whether a file is text."""


class Failed(str):
    """Why a row cannot be read."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of the input.

    Attributes:
        number: of the chunk, from 0.
        row: number of its first row in the whole input, from 1.
        count: rows.
        file: where they are; "" for pictures.
        begin: bytes before them in the file, of Parquet rows.
        pictures: their files.
    """

    number: int
    row: int
    count: int
    file: str = ""
    begin: int = 0
    pictures: tuple[str, ...] = ()


def find_chunks(names: Sequence[str], size: int, *, pictures: bool = False) -> list[Chunk]:
    """The chunks of text (a row per line), .jsonl, .parquet, pictures and folders of them.

    Args:
        names: files and folders.
        size: rows per chunk, at most; none reaches over two files, except of pictures.
        pictures: whether rows are pictures.

    Raises:
        UserError: a file is missing or damaged, or there are no rows.
    """
    places: list[tuple[int, str, int, tuple[str, ...]]] = []  # count, file, begin, pictures
    names = [each for name in names for each in expand_braces(name)]
    for name in names:
        if not Path(name).exists():
            raise UserError(f"{name}: no such file")
        if Path(name).is_dir() and not pictures:
            raise UserError(f"{name}: is a folder; name the files in it")
        if not pictures and suffix(name) in TABLES and suffix(name) not in ROWS:
            raise UserError(f"{name}: of tables, a large job reads {', '.join(ROWS)}")
    if pictures:
        paths = [str(p) for name in names for p in (find_pictures(Path(name)) if Path(name).is_dir() else [name])]
        parts = (tuple(paths[i : i + size]) for i in range(0, len(paths), size))
        places = [(len(part), "", 0, part) for part in parts]
    else:
        for name in names:
            with whole(name):
                found = list(_places(name, size))
            if name.endswith(".gz") and len(found) > 20:
                notify(f"{name}: each of its {len(found):,} chunks unpacks it from the beginning: unpack it first")
            places += [(count, name, begin, ()) for count, begin in found]
    if not places:
        raise UserError(f"{', '.join(names)}: {'no pictures' if pictures else 'no rows'} are there")
    chunks, row = [], 1
    for number, (count, file, begin, files) in enumerate(places):
        chunks.append(Chunk(number, row, count, file, begin, files))
        row += count
    return chunks


def _places(name: str, size: int) -> Iterator[tuple[int, int]]:
    """The number of rows of each chunk of a file, and where it begins."""
    if suffix(name) == ".parquet":
        rows = needs("pyarrow.parquet", name).ParquetFile(name).metadata.num_rows
        yield from ((min(size, rows - begin), begin) for begin in range(0, rows, size))
        return
    with _open(name) as file:
        refuse_foreign(file.peek(_LOOK)[:_LOOK], name)  # type: ignore[attr-defined]
        begin, count = 0, 0
        while line := file.readline():
            count += _is_row(line, name)
            if count == size:
                yield count, begin
                begin, count = file.tell(), 0
        if count:
            yield count, begin


def _is_row(line: bytes, name: str) -> bool:
    """Whether a line is a row: in JSON Lines empty ones are none."""
    return suffix(name) not in LINES or bool(line.strip())


def _open(name: str) -> IO[bytes]:
    return gzip.open(name) if name.endswith(".gz") else open(name, "rb")  # type: ignore[return-value]


def read_chunk(chunk: Chunk, columns: Sequence[str]) -> Iterator[Any]:
    """The items of a chunk's rows: texts (tuples of them if there are several columns), or paths of pictures;
    `Failed` for what is none."""
    if chunk.pictures:
        yield from chunk.pictures
    elif suffix(chunk.file) == ".parquet":
        rows = (row for batch in parquet_batches(chunk.file, chunk.begin, columns) for row in _rows(batch))
        with whole(chunk.file):
            yield from (_cells(row, columns) for row in islice(rows, chunk.count))
    else:
        with _open(chunk.file) as file:
            file.seek(chunk.begin)
            for line in islice((line for line in file if _is_row(line, chunk.file)), chunk.count):
                yield _line(line.rstrip(b"\r\n"), columns if suffix(chunk.file) in LINES else None)


def _rows(batch: Any) -> Iterator[Any]:
    """The rows of a batch of Parquet; `Failed` for a row that holds a text that is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError:
                yield Failed("holds a text that is not UTF-8")


def _line(line: bytes, columns: Sequence[str] | None) -> Any:
    try:
        text = line.decode("utf-8-sig")
        return text if columns is None else _cells(json.loads(text), columns)
    except UnicodeDecodeError as error:
        return Failed(f"not UTF-8 (byte {error.start} of the line)")
    except (ValueError, RecursionError) as error:
        return Failed(f"not JSON ({error})")


def _cells(row: Any, columns: Sequence[str]) -> Any:
    if isinstance(row, Failed):
        return row
    cells = tuple(row.get(column) if isinstance(row, dict) else None for column in columns)
    for column, cell in zip(columns, cells, strict=True):
        if not isinstance(cell, str):
            return Failed(f"no text in field {column!r}")
    return cells if len(cells) > 1 else cells[0]
