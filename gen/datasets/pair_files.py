"""Reading sentence pairs: two text files, TSV, CSV, JSON Lines, Parquet, or a Hugging Face dataset."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gen.base.errors import UserError
from gen.base.lines import read_lines
from gen.base.tables import TABLES, csv_rows, is_dataset, json_rows, listed, load_dataset, suffix

_NAMES = (("source", "target"), ("src", "tgt"), ("src", "trg"))


class PairFiles:
    """Pairs of a source and a target sentence: a re-iterable of (source, target) without line ends.

    Args:
        names: text files in pairs (``a.en a.de b.en b.de``: line n of one translates line n of the other), or
            tables: ``pairs.tsv``, ``.csv``, ``.jsonl`` (each also with ``.gz``), ``.parquet``, or a Hugging Face
            dataset, ``owner/name[:configuration][:split]``. Braces as in ``train.{en,de}`` are expanded.
        source_field, target_field: the tables' columns; "" for ``source`` and ``target`` (or ``src``, ``tgt``). A
            TSV needs no header: its first two columns are the pair.

    Raises:
        UserError: a file is missing, empty or not UTF-8; two files differ in their number of lines; a line
            lacks a field. The message names the file and the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "pairs.tsv")
        ...     _ = path.write_text("a dog\\tein Hund\\na cat\\teine Katze\\n")
        ...     list(PairFiles([str(path)]))
        [('a dog', 'ein Hund'), ('a cat', 'eine Katze')]
    """

    def __init__(self, names: Sequence[str], source_field: str = "", target_field: str = "") -> None:
        self.fields = (source_field, target_field)
        names = [each for name in names for each in _expand_braces(name)]
        self.tables = [name for name in names if _is_table(name)]
        files = [name for name in names if not _is_table(name)]
        if self.tables and files:
            raise UserError(f"{files[0]}: give pairs of text files or tables ({', '.join(TABLES)}), not both")
        if len(files) % 2:
            raise UserError(
                f"{files[-1]}: text files come in pairs, a source and its target, such as train.en train.de; "
                f"a single file of pairs ends in {', '.join(TABLES)}"
            )
        self.file_pairs = list(zip(files[::2], files[1::2], strict=True))
        for name in files + [t for t in self.tables if not is_dataset(t)]:
            path = Path(name)
            if not path.exists():
                raise UserError(f"{name}: no such file")
            if path.is_dir():
                raise UserError(f"{name}: is a folder; name the files in it")
            if path.stat().st_size == 0:
                raise UserError(f"{name}: is empty")

    def digest(self) -> str:
        """A hash of the content and the choice of columns."""
        digest = hashlib.blake2b(json.dumps(self.fields).encode(), digest_size=20)
        for name in [n for pair in self.file_pairs for n in pair] + self.tables:
            if is_dataset(name):
                digest.update(str(load_dataset(name)._fingerprint).encode())
            else:
                with open(name, "rb") as file:
                    digest.update(hashlib.file_digest(file, "blake2b").digest())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for source, target in self.file_pairs:
            yield from _aligned_lines(source, target)
        for name in self.tables:
            yield from self._rows(name)

    def _rows(self, name: str) -> Iterator[tuple[str, str]]:
        kind = "" if is_dataset(name) else suffix(name)
        if kind == ".tsv":
            yield from self._tsv(name)
            return
        if kind == ".csv":
            rows: Iterator[tuple[int, Any]] = csv_rows(name)
        elif kind in (".jsonl", ".ndjson"):
            rows = json_rows(name)
        else:
            rows = enumerate(load_dataset(name), 1)
        fields: tuple[str, str] | None = None
        for number, row in rows:
            if not isinstance(row, dict):
                raise UserError(f"{name}: line {number} is not an object with named fields")
            if isinstance(row.get("translation"), dict):  # as in Hugging Face's translation datasets
                row = row["translation"]
            fields = fields or self._choose(name, list(row))
            for field in fields:
                if not isinstance(row.get(field), str):
                    what = "has no field" if row.get(field) is None else "has no text in field"
                    raise UserError(f"{name}: line {number} {what} {field!r}")
            yield row[fields[0]].strip(), row[fields[1]].strip()

    def _choose(self, name: str, names: list[str]) -> tuple[str, str]:
        """The names of the two columns."""
        given = self.fields
        if not all(given):
            found = next((pair for pair in _NAMES if all(n in names for n in pair)), None)
            if found is None:
                raise UserError(f"{name}: name the fields to use with --src and --tgt; there are {listed(names)}")
            return found
        for option, field in zip(("--src", "--tgt"), given, strict=True):
            if field not in names:
                raise UserError(f"{name}: {option} {field}: no such field; there are {listed(names)}")
        return given

    def _tsv(self, name: str) -> Iterator[tuple[str, str]]:
        """Reads tab-separated columns. The first line is a header if it contains the names of both fields."""
        columns = (0, 1)
        for number, line in enumerate(read_lines(name), 1):
            cells = line.split("\t")
            if number == 1 and (at := self._header(name, cells)):
                columns = at
                continue
            if not line.strip():
                continue
            if len(cells) <= max(columns):
                raise UserError(
                    f"{name}: line {number} has {len(cells) - 1} tabs where {max(columns)} are needed: "
                    "source, tab, target"
                )
            yield cells[columns[0]].strip(), cells[columns[1]].strip()

    def _header(self, name: str, cells: list[str]) -> tuple[int, int] | None:
        named = [pair for pair in (self.fields, *_NAMES) if all(pair) and all(n in cells for n in pair)]
        if named:
            return cells.index(named[0][0]), cells.index(named[0][1])
        if all(self.fields) and (len(cells) != 2 or set(cells) & set(self.fields)):
            self._choose(name, cells)  # raises an error that names the missing field
        return None


def _is_table(name: str) -> bool:
    return suffix(name) in TABLES or is_dataset(name)


def _expand_braces(name: str) -> list[str]:
    """Expands braces, for shells that do not, and in quotes and YAML.

    Example:
        >>> _expand_braces("train.{en,de}")
        ['train.en', 'train.de']
    """
    match = re.fullmatch(r"(.*)\{([^{}]*,[^{}]*)\}(.*)", name)
    if not match or Path(name).exists():
        return [name]
    return [each for part in match[2].split(",") for each in _expand_braces(match[1] + part + match[3])]


def _aligned_lines(source: str, target: str) -> Iterator[tuple[str, str]]:
    pairs = zip_longest(read_lines(source), read_lines(target))
    for number, (a, b) in enumerate(pairs):
        if a is None or b is None:
            counts = {source: number, target: number}
            counts[source if b is None else target] += 1 + sum(1 for _ in pairs)
            raise UserError(
                f"{source} has {counts[source]:,} lines and {target} has {counts[target]:,}: "
                "line n of one must translate line n of the other"
            )
        yield a.strip(), b.strip()
