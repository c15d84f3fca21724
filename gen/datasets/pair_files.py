"""Reading sentence pairs: two text files, or tables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from gen.base.errors import UserError
from gen.base.hub_data import load_dataset
from gen.base.lines import expand_braces, is_markup, read_lines, suffix
from gen.base.tables import TABLES, Table, is_dataset, listed

MARKUP = (
    "is XML or SGML, whose tags would be read as text: write what is in its <seg> to a text file, one per line; "
    "a translation memory is read if its name ends in .tmx"
)
"""What is wrong with such a file in place of text."""

PAIR_NAMES = (("source", "target"), ("src", "tgt"), ("src", "trg"))


class PairFiles:
    """Pairs of a source and a target sentence: a re-iterable of (source, target) without line ends.

    Args:
        names: text files in pairs (``a.en a.de b.en b.de``: line n of one translates line n of the other), or
            tables: ``pairs.tsv``, ``.csv``, ``.jsonl``, ``.json``, ``.tmx`` (each also with ``.gz``),
            ``.parquet``, or a Hugging Face dataset, ``owner/name[:configuration][:split]``. Braces as in
            ``train.{en,de}`` are expanded.
        source_field, target_field: the tables' columns, by name or by number from 1 on; "" for ``source`` and
            ``target`` (or ``src``, ``tgt``), of a ``.tmx`` for its first two languages. Without a header, the
            columns of text are the pair.
        tables: take files of every name for tables.
        advice: how columns are named, for messages.

    Attributes:
        columns: after reading: the columns that were chosen by their content, and what is odd about others.

    Raises:
        UserError: a file is missing, empty or not UTF-8; two files differ in their number of lines; a line
            lacks a field; a column holds no text. The message names the file and the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "pairs.tsv")
        ...     _ = path.write_text("a dog\\tein Hund\\na cat\\teine Katze\\n")
        ...     list(PairFiles([str(path)]))
        [('a dog', 'ein Hund'), ('a cat', 'eine Katze')]
    """

    def __init__(
        self,
        names: Sequence[str],
        source_field: str = "",
        target_field: str = "",
        *,
        tables: bool = False,
        advice: str = "with --src and --tgt",
    ) -> None:
        self.advice = advice
        self.fields = (source_field, target_field)
        self.columns: list[str] = []
        names = [each for name in names for each in expand_braces(name)]
        tables = tables or (len(names) == 1 and not _is_table(names[0]) and _has_tabs(names[0]))
        self.tables = [name for name in names if tables or _is_table(name)]
        files = [name for name in names if name not in self.tables]
        if self.tables and files:
            raise UserError(f"{files[0]}: give pairs of text files or tables ({', '.join(TABLES)}), not both")
        for name in names:
            if suffix(name) not in TABLES and not is_dataset(name) and is_markup(name):
                raise UserError(f"{name}: {MARKUP}")
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
            if not path.is_file():
                raise UserError(
                    f"{name}: is no regular file, and pairs are read more than once: write it to a file"
                )
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
        for table in self._in_order:
            chosen = self._columns[table.name]
            for where, row in table:
                source, target = (one_line(table.text(where, row, column)) for column in chosen)
                yield source, target

    def cells(self, columns: Sequence[tuple[str, str]]) -> list[list[Any]]:
        """Further columns of the tables: (option that names it, column) → a list of N cells, one per pair; None is
        an empty one.

        Raises:
            UserError: the pairs are not all from tables, or a table lacks a column.
        """
        if self.file_pairs:
            raise UserError(f"{self.file_pairs[0][0]}: {columns[0][0]} names a column of a table: see --data")
        found: list[list[Any]] = [[] for _ in columns]
        for table in self._in_order:
            names = [table.column(option, asked) for option, asked in columns]
            for _, row in table:
                for cells, name in zip(found, names, strict=True):
                    cell = row.get(name)
                    cells.append(None if cell is None or not str(cell).strip() else cell)
        return found

    @property
    def folders(self) -> list[Path]:
        """The folder of the table that each pair is from, (N,); without pairs of two files."""
        return [Path(table.name).parent for table in self._in_order for _ in table]

    @property
    def parts(self) -> np.ndarray | None:
        """The part of each pair, (N,) str: "train", "valid" or "test", if a table has a column "split" with
        some to validate or test on; else None.

        Raises:
            UserError: a cell names none of them, in a column in which others do.
        """
        tables = self._in_order
        if not any(table.split for table in tables):
            return None
        parts = [table.part(where, row) for table in tables for where, row in table]
        return np.array(parts) if set(parts) - {"train"} else None

    @property
    def _in_order(self) -> list[Table]:
        """The table of each name: the same one twice, if it was named twice."""
        return [self._tables[name] for name in self.tables]

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {name: Table(name, self.wanted) for name in self.tables}

    @property
    def wanted(self) -> list[str]:
        """Names that tell a header from a first row."""
        return [name for pair in (self.fields, *PAIR_NAMES) for name in pair]

    @cached_property
    def _columns(self) -> dict[str, tuple[str, str]]:
        return {name: self.choose(table) for name, table in self._tables.items()}

    def choose(self, table: Table) -> tuple[str, str]:
        """The columns of the pair. Raises `UserError` if they are not clear."""
        name, texts = table.name, table.texts
        known = ((table.find(a), table.find(b)) for a, b in PAIR_NAMES)
        if all(self.fields):
            if not table.named and len(table.columns) == 2 and not any(map(str.isdecimal, self.fields)):
                self.columns.append(f"1 and 2 of {name}, which does not name them, as {' and '.join(self.fields)}")
                return "1", "2"
            return self._checked(table, *map(table.column, ("--src", "--tgt"), self.fields))
        for source, target in known:
            if source is not None and target is not None:
                return self._checked(table, source, target)
        if suffix(name) == ".tmx" and len(table.columns) > 1:
            source, target = table.columns[:2]
            self.columns.append(f"{source} and {target} of {name}, its first languages")
            return source, target
        if table.named:
            raise UserError(f"{name}: name the fields to use {self.advice}; {_described(table)}")
        if len(table.columns) == 2 and not {"numbers", "web addresses"} & set(table.kinds.values()):
            return "1", "2"
        if {"1", "2"} <= set(texts):
            return "1", "2"
        if len(texts) != 2:
            raise UserError(f"{name}: name the columns to use {self.advice}, such as 2 and 4; {_described(table)}")
        self.columns.append(f"{texts[0]} and {texts[1]} of {name}, as they hold text")
        return texts[0], texts[1]

    def _checked(self, table: Table, source: str, target: str) -> tuple[str, str]:
        """The columns that were asked for: an error if one of them holds no text and another one does. A target
        with few values is a label, and may be a number."""
        odd = {column: table.kinds[column] for column in (source, target) if table.kinds[column]}
        for column, kind in odd.items():
            values = [str(row.get(column)) for _, row in table.head]
            is_label = column == target and 2 * len(set(values)) <= len(values)
            if set(table.texts) - {source, target} and not is_label:
                raise UserError(
                    f"{table.name}: column {column!r} holds {kind}, no sentences; choose others {self.advice}, "
                    f"or leave the rest out of the file; {_described(table)}"
                )
            self.columns.append(f"{column} of {table.name} holds {kind}")
        return source, target


def _described(table: Table) -> str:
    """The columns of a table, for a message."""
    texts, odd = table.texts, any(table.kinds.values())
    shown = f"; those of text are {listed(texts)}" if texts else "; none of them looks like text"
    return f"there are {listed(table.columns)}{shown if odd else ''}"


def one_line(text: str) -> str:
    """A cell as a sentence: cells in quotation marks may have several lines."""
    return re.sub(r"\s*[\r\n]+\s*", " ", text.strip())


def _has_tabs(name: str) -> bool:
    """Whether every one of the first lines of a file has a tab: pairs, whatever the file is called."""
    if not Path(name).is_file():
        return False
    lines = [line for line in islice(read_lines(name), 100) if line.strip()]
    return bool(lines) and all("\t" in line for line in lines)


def _is_table(name: str) -> bool:
    return suffix(name) in TABLES or is_dataset(name)


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
