"""Reading tables: text with delimiters, JSON, JSON Lines, Parquet and Hugging Face datasets."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from gen.base.dialects import DELIMITERS, Dialect, has_header, names_in, sniff
from gen.base.errors import UserError
from gen.base.hub_data import dataset_rows, load_dataset
from gen.base.json_files import json_document, json_rows, records
from gen.base.lines import read_lines, suffix
from gen.base.parts import SPLITS, plain, split_of
from gen.base.tmx import tmx_rows

TABLES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".parquet", ".tmx")
"""File extensions of tables; a translation memory (.tmx) has a column per language."""

_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+){0,2}")

_HEAD = 500
"""Rows at the beginning that are looked at."""


class Table:
    """A table: an iterable of (place in the file, {column: value}), whatever the format.

    Without a header, columns are called "1", "2" and so on. Fields of a nested object are columns of their own.

    Args:
        name: text with delimiters (the dialect is recognised), JSON Lines, JSON (see `records`), Parquet, or a
            Hugging Face dataset; text and JSON also with ``.gz``.
        wanted: names that tell a header from a first row.
        header: whether the first row is one where the cells do not tell, if commas or semicolons divide them.
        encoding_errors: "strict", or "replace" to read bytes of text that are not UTF-8 as U+FFFD.

    Attributes:
        columns: the names of the columns in the first rows.

    Raises:
        UserError: the file is missing or damaged; the message names the file and the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "pairs.csv")
        ...     _ = path.write_text("id;en;de\\n1;a dog;ein Hund\\n")
        ...     table = Table(str(path))
        ...     list(table), table.find("3")
        ([('line 2', {'id': '1', 'en': 'a dog', 'de': 'ein Hund'})], 'de')
    """

    def __init__(
        self,
        name: str,
        wanted: Sequence[str] = (),
        *,
        header: bool = True,
        delimiters: str = DELIMITERS,
        encoding_errors: str = "strict",
    ) -> None:
        self.name, self.wanted, self._has_header = name, [each for each in wanted if each], header
        self._delimiters, self._errors = delimiters, encoding_errors
        self._inner: dict[str, list[str]] = {}
        self.head = list(islice(self, _HEAD))
        first = [] if self._dialect is None else self._header[0]
        self.columns = list(dict.fromkeys([*first, *(column for _, row in self.head for column in row)]))
        if not self.columns:
            raise UserError(f"{name}: holds no rows of a table")

    # -- columns -------------------------------------------------------------------------------------------

    @property
    def named(self) -> bool:
        """Whether the columns have names, not only numbers."""
        return bool(self.columns) and self.columns[0] != "1"

    def find(self, asked: str) -> str | None:
        """The column of a name, in whatever case, or where no column has that name, of a number from 1 on; None:
        there is none. Raises `UserError` if several have the name."""
        alike = [column for column in self.columns if column.strip().lower() == asked.strip().lower()]
        if not alike and suffix(self.name) == ".tmx":  # "en" is "en-GB" there, if no other English is
            known = [column for column in self.columns if column.lower().split("-")[0] == asked.strip().lower()]
            alike = known if len(known) == 1 else []
        if alike and f"{alike[0]} (2)" in self.columns:
            raise UserError(
                f"{self.name}: several columns are called {alike[0]!r}: rename one, or name it by its number"
            )
        if asked in self.columns or alike:
            return asked if asked in self.columns else alike[0]
        is_number = asked.isdecimal() and 1 <= int(asked) <= len(self.columns)
        return self.columns[int(asked) - 1] if is_number else None

    def column(self, option: str, asked: str) -> str:
        """The column that an option asks for; see `find`. Raises `UserError` if there is none."""
        if (found := self.find(asked)) is None:
            raise UserError(f"{self.name}: {option} {asked}: no such column; there are {listed(self.columns)}")
        return found

    @cached_property
    def kinds(self) -> dict[str, str]:
        """What the first cells of each column are, such as "numbers"; "" for text."""
        cells = {c: [row[c] for _, row in self.head if row.get(c) not in (None, "")] for c in self.columns}
        return {column: kind_of(values) for column, values in cells.items()}

    @property
    def texts(self) -> list[str]:
        """The columns that look like text."""
        return [column for column, kind in self.kinds.items() if not kind]

    def text(self, where: str, row: Mapping[str, Any], column: str) -> str:
        """The text in a column of a row; "" where it is null, or where a row of JSON lacks a field that others
        have. A number in JSON, such as the title 1984, is its text.

        Raises:
            UserError: a row of text with delimiters lacks the column, or the row holds something else.
        """
        value = row.get(column)
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if column not in row and self._dialect is not None:
            if self._dialect.delimiter == "\t":
                have = f"has {len(row) - 1} tabs where {self.columns.index(column)} are needed"
                raise UserError(f"{self.name}: {where} {have}")
            raise UserError(f"{self.name}: {where} has no field {column!r}")
        if value is None:
            return ""
        raise UserError(f"{self.name}: {where} has no text in field {column!r}")

    @cached_property
    def split(self) -> str | None:
        """The column that says which part a row belongs to: one called "split", unless none of its first cells
        names a part."""
        name = self.find("split") if self.named else None
        cells = [row.get(name) for _, row in self.head] if name else []
        return name if any(plain(cell) and plain(cell) in SPLITS for cell in cells) else None

    def part(self, where: str, row: Mapping[str, Any]) -> str:
        """The part of a row: "train", "valid" or "test"; without a column that says so, "train"."""
        return split_of(row.get(self.split), f"{self.name}: {where}") if self.split else "train"

    # -- rows ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._is_loaded:
            rows: Iterator[tuple[str, Any]] = (
                (f"row {n}", row) for n, row in enumerate(dataset_rows(self.name, self._dataset), 1)
            )
        elif self._dialect is not None:
            yield from self._delimited(self._dialect)
            return
        elif suffix(self.name) == ".tmx":
            rows = tmx_rows(self.name)
        elif self._document is not None:
            rows = ((f"entry {n}", row) for n, row in enumerate(records(self._document), 1))
        else:
            rows = ((f"line {n}", row) for n, row in json_rows(self.name, self._errors))
        for where, row in rows:
            if isinstance(row, list) and len(row) > 1:
                row = {str(n): value for n, value in enumerate(row, 1)}
            if not isinstance(row, dict):
                raise UserError(f"{self.name}: {where} is not an object with named fields")
            yield where, self._flat(row)

    def _flat(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with the fields of its objects, as in Hugging Face's ``{"translation": {"en": …, "de": …}}``."""
        found: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, dict):
                self._inner.setdefault(name, list(value))
                found |= {(n if n not in row else f"{name}.{n}"): v for n, v in value.items()}
            elif value is None and name in self._inner:
                found |= dict.fromkeys(self._inner[name])
            else:
                found[name] = value
        # pandas writes a missing cell as NaN
        return {n: None if isinstance(v, float) and math.isnan(v) else v for n, v in found.items()}

    @property
    def _is_loaded(self) -> bool:
        return suffix(self.name) == ".parquet" or is_dataset(self.name)

    @cached_property
    def _dataset(self) -> Any:
        return load_dataset(self.name)

    @cached_property
    def _document(self) -> Any:
        return None if self._is_loaded else json_document(self.name, self._errors)

    @cached_property
    def _dialect(self) -> Dialect | None:
        if self._is_loaded or suffix(self.name) in (".json", ".jsonl", ".ndjson", ".tmx"):
            return None
        return sniff(self.name, "," if suffix(self.name) == ".csv" else "\t", self._delimiters, self._errors)

    @property
    def _lines(self) -> Iterator[str]:
        return read_lines(self.name, errors=self._errors)

    @cached_property
    def _header(self) -> tuple[list[str], bool]:
        """The names of the columns of text with delimiters, and whether the first row holds them."""
        assert self._dialect is not None
        try:
            rows = [cells for _, cells in islice(self._dialect.rows(self._lines), 100)]
        except csv.Error as error:
            raise _wrong_quotes(self.name, error) from error
        if not rows:
            return [], False
        if has_header(rows, self.wanted, self._has_header and self._dialect.delimiter in ",;"):
            return _numbered(names_in(rows[0])), True
        width = Counter(map(len, rows)).most_common(1)[0][0]
        return [str(n) for n in range(1, width + 1)], False

    def _delimited(self, dialect: Dialect) -> Iterator[tuple[str, dict[str, Any]]]:
        mark = {",": "commas", ";": "semicolons"}.get(dialect.delimiter)
        try:
            for row, (line, cells) in enumerate(dialect.rows(self._lines)):
                names, is_header = self._header
                if row == 0:
                    width = len(cells if is_header else names)  # the last names of a header may be empty
                if row == 0 and is_header:
                    continue
                if any(map(str.strip, cells[len(names) :])):
                    if mark and len(cells) > width:
                        other = "header" if is_header else "other lines"
                        raise UserError(
                            f"{self.name}: line {line} has more fields than the {other}: "
                            f"quote texts that contain {mark}"
                        )
                    names = names + [str(n) for n in range(len(names) + 1, len(cells) + 1)]
                yield f"line {line}", dict(zip(names, cells, strict=False))
        except csv.Error as error:
            raise _wrong_quotes(self.name, error) from error


def _numbered(names: Sequence[str]) -> list[str]:
    """Names of columns, each once: the second "text" becomes "text (2)"."""
    return [f"{name} ({n})" if (n := names[: i + 1].count(name)) > 1 else name for i, name in enumerate(names)]


def _wrong_quotes(name: str, error: csv.Error) -> UserError:
    return UserError(f"{name}: {error}; is a quote not closed there?")


_ADDRESS = re.compile(r"(https?://|www\.)\S+")
_PICTURE = re.compile(r".+\.(jpe?g|jfif|png|gif|bmp|webp|tiff?|heic|avif|jp2|p[pgbn]m)", re.IGNORECASE)
_KEY = re.compile(r"[0-9a-f]{8}[0-9a-f-]*|[0-9A-F]{8}[0-9A-F-]*")
_NUMBERED = re.compile(r"(\w*?[^\w\s]*)\d+")
_CODE = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{2,4})?")


def kind_of(cells: Sequence[Any]) -> str:
    """What the cells of a column hold if it is nothing to learn to write: "numbers", "web addresses", "pictures",
    "ids", "language codes", "one value", "lists" or "nothing"; "" for text.

    Example:
        >>> kind_of(["1", "2.5"]), kind_of(["en", "en"]), kind_of(["A dog runs.", "7"])
        ('numbers', 'language codes', '')
    """
    if not cells:
        return "nothing"

    def nearly_all(test: Callable[[str], Any]) -> bool:
        return sum(bool(test(text)) for text in texts) >= 0.95 * len(texts)

    if not all(isinstance(cell, str | int | float) for cell in cells):
        return "lists"
    texts = [str(cell).strip() for cell in cells]
    several = len(texts) > 2
    if nearly_all(lambda text: any(map(str.isdigit, text)) and not any(map(str.isalpha, text))):
        return "numbers"
    if nearly_all(_ADDRESS.fullmatch):
        return "web addresses"
    if nearly_all(_PICTURE.fullmatch):
        return "pictures"
    if nearly_all(lambda text: _KEY.fullmatch(text) and any(map(str.isdigit, text))):
        return "ids"
    if len(set(texts)) <= 2 and len(texts) > len(set(texts)) and nearly_all(_CODE.fullmatch):
        return "language codes"
    prefixes = Counter(match[1] for match in map(_NUMBERED.fullmatch, texts) if match)
    if several and prefixes and prefixes.most_common(1)[0][1] >= 0.95 * len(texts):
        return "ids"
    return "one value" if several and len(set(texts)) == 1 else ""


def is_dataset(name: str) -> bool:
    """Whether ``name`` is a dataset, not a file: ``owner/name`` or a folder, with an optional split."""
    base = name.split(":")[0]
    if Path(name).is_file() or suffix(name) in TABLES:
        return False
    return Path(base).is_dir() or bool("/" in base and _DATASET.fullmatch(name) and not Path(base).suffix)


def listed(names: Sequence[str]) -> str:
    """Quotes at most twelve names for a message.

    Example:
        >>> listed(["en", "de"])
        "'en', 'de'"
    """
    return ", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else "")
