"""Text with delimiters (CSV, TSV and their kin): which dialect it is in, and its rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest

from gen.base.lines import read_lines

_SAMPLE = 2000
"""Lines that the dialect is told from."""

_FURTHEST = 1_000_000
"""Lines among which the first quotation marks of tab-separated text are looked for."""

_CELL = 1 << 24
"""Largest number of characters in a cell."""

DELIMITERS = "\t|;,"
"""From the one that sentences have least to the one that they have most."""

_SAID = re.compile("sep=(.)")
"""A first line that names the delimiter."""

_LANGUAGES = (
    "ar bg bn ca cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv nl no pl pt ro ru sk sl sr sv sw ta "
    "te th tr uk ur vi zh arabic chinese czech danish dutch english farsi finnish french german greek hebrew "
    "hindi hungarian italian japanese korean norwegian persian polish portuguese romanian russian spanish swedish "
    "turkish ukrainian vietnamese"
)
_FIELDS = (
    "id no nr index source target src tgt trg input output text title sentence translation label caption captions "
    "image img picture photo file file_name filename image_name url split score"
)
LANGUAGES = frozenset(_LANGUAGES.split())
"""Codes and names of languages, as columns have them."""

_NAMES = LANGUAGES | frozenset(_FIELDS.split())
"""Usual names of columns."""


@dataclass(frozen=True)
class Dialect:
    """How a text with delimiters is to be read.

    Attributes:
        delimiter: between cells.
        quoted: whether quotation marks may surround cells; otherwise they are text.
        escaped: whether a quotation mark in such a cell has a backslash before it, instead of another one.
        spaced: whether a space follows each delimiter.
    """

    delimiter: str
    quoted: bool = True
    escaped: bool = False
    spaced: bool = False

    def rows(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yields (number of the first line, cells) per row that is not empty.

        Raises:
            csv.Error: quotation marks are wrong; the message begins with the line.

        Example:
            >>> list(Dialect(";").rows(["a;b", "", '"c;d";e']))
            [(1, ['a', 'b']), (3, ['c;d', 'e'])]
        """
        if not self.quoted:
            for number, line in enumerate(lines, 1):
                cells = line.split(self.delimiter)
                if len(cells) > 1 or cells[0].strip():
                    yield number, [cell.strip() for cell in cells] if self.spaced else cells
            return
        csv.field_size_limit(max(_CELL, csv.field_size_limit()))
        reader = csv.reader(
            (("" if n == 0 and _SAID.fullmatch(line) else line) + "\n" for n, line in enumerate(lines)),
            strict=True,
            delimiter=self.delimiter,
            doublequote=not self.escaped,
            escapechar="\\" if self.escaped else None,
            skipinitialspace=self.spaced,
        )
        first = 1
        try:
            for cells in reader:
                if cells and (len(cells) > 1 or cells[0].strip()):
                    yield first, cells
                first = reader.line_num + 1
        except csv.Error as error:
            raise csv.Error(f"line {first}: {error}") from error


def sniff(name: str, default: str, delimiters: str = DELIMITERS, errors: str = "strict") -> Dialect:
    """The dialect of a file, told from its first lines.

    Args:
        name: the file.
        default: the delimiter where the lines have none.
        delimiters: those that come into question, the surest first.
        errors: of the encoding; see `read_lines`.

    Raises:
        UserError: the file cannot be read.
    """
    sample = list(islice(read_lines(name, errors=errors), _SAMPLE + 1))
    if sample and (said := _SAID.fullmatch(sample[0])):  # by Excel
        return Dialect(said[1])
    whole = len(sample) <= _SAMPLE
    best, most = Dialect(default), 0.0
    for delimiter in delimiters:
        for dialect in _ways(delimiter, sample, whole):
            share = _regularity(_sampled(dialect, sample, whole))
            if share > most + 0.05:
                best, most = dialect, share
    if best.delimiter == "\t" and not best.quoted and not whole:
        rest = islice(read_lines(name, errors=errors), len(sample), _FURTHEST)
        marked = (line for line in rest if '"' in line)
        best = replace(best, quoted=_quoted_later(islice(marked, _SAMPLE)))
    rows = [cells for _, cells in _sampled(best, sample, whole) or []]
    after = [cell for cells in rows for cell in cells[1:] if cell]
    spaced = len(after) > 0 and best.delimiter != "\t" and sum(c[0] == " " for c in after) >= 0.9 * len(after)
    return Dialect(best.delimiter, best.quoted, best.escaped, spaced)


def _ways(delimiter: str, sample: list[str], whole: bool) -> Iterator[Dialect]:
    """The ways to read quotation marks that come into question with a delimiter, best first."""
    plain = Dialect(delimiter, quoted=False)
    for escaped in (False, True):
        for spaced in (False, True):
            quoted = Dialect(delimiter, escaped=escaped, spaced=spaced)
            found = _sampled(quoted, sample, whole)
            if not found or (escaped and not any('\\"' in line for line in sample)):
                continue
            # Sentences in tab-separated text may begin and end with quotation marks that are theirs.
            if delimiter != "\t" or _needs_quotes(found, _sampled(plain, sample, whole) or []):
                yield quoted
                return
    if delimiter != ",":  # without quotation marks, commas could not be told from those of sentences
        yield plain


def _needs_quotes(quoted: list[tuple[int, list[str]]], plain: list[tuple[int, list[str]]]) -> bool:
    """Whether quotation marks belong to the format: they hide delimiters, line ends or doubled marks, or are
    around every cell of a column."""
    if [len(cells) for _, cells in quoted] != [len(cells) for _, cells in plain[: len(quoted)]]:
        return True
    columns = [[cell for cell in column if cell] for column in zip_longest(*(row for _, row in plain))]
    marked = [[len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in column] for column in columns]
    return any(each and all(each) for each in marked) or any(
        is_marked and '""' in cell[1:-1]
        for column, each in zip(columns, marked, strict=True)
        for cell, is_marked in zip(column, each, strict=True)
    )


def _quoted_later(lines: Iterable[str]) -> bool:
    """Whether quotation marks belong to the format of tab-separated text by lines that have some: they hide a tab
    or a doubled mark in more of them than are left open, and are wrong in none."""
    found = left_open = 0
    quoted, plain = Dialect("\t"), Dialect("\t", quoted=False)
    for line in lines:
        try:
            cells = [cells for _, cells in quoted.rows([line])]
        except csv.Error as error:
            if "end of data" in str(error):  # the line may be the first one of a cell
                left_open += 1
                continue
            return False
        apart = [cell for _, row in plain.rows([line]) for cell in row]
        marked = [cell[1:-1] for cell in apart if len(cell) > 1 and cell[0] == cell[-1] == '"']
        found += any('""' in cell for cell in marked) or any(len(row) < len(apart) for row in cells)
    return found > left_open


def _sampled(dialect: Dialect, sample: list[str], whole: bool) -> list[tuple[int, list[str]]] | None:
    """The rows of a sample, without a last one that may be cut; None if they cannot be read so."""
    found: list[tuple[int, list[str]]] = []
    try:
        found.extend(dialect.rows(sample))
    except csv.Error as error:
        if whole or "end of data" not in str(error):
            return None
        return found
    return found if whole else found[:-1]


def _regularity(rows: list[tuple[int, list[str]]] | None) -> float:
    """The share of rows with as many cells as the first one, if that has several."""
    if not rows or len(rows[0][1]) < 2:
        return 0.0
    return sum(len(cells) == len(rows[0][1]) for _, cells in rows) / len(rows)


def has_header(rows: Sequence[Sequence[str]], wanted: Iterable[str], otherwise: bool) -> bool:
    """Whether the first row holds the names of the columns.

    Args:
        rows: the first rows.
        wanted: names that are looked for.
        otherwise: the answer where the cells do not tell.

    Example:
        >>> has_header([["id", "comment"], ["1", "A dog runs."]], [], False)
        True
        >>> has_header([["1", "A cat sits."], ["2", "A dog runs."]], [], True)
        False
    """
    first = names_in(rows[0])
    lower = [name.lower() for name in first]
    if any(name.lower() in lower for name in wanted if not name.isdecimal()):
        return True
    # The first name may be empty: that is how pandas writes an index.
    if len(set(first)) < len(first) or not all(map(_like_name, first[not first[0] :])) or first == [""]:
        return False
    below = [[cell.strip() for cell in row] for row in rows[1:]]
    for column in range(len(first)):
        cells = [row[column] for row in below if column < len(row) and row[column]]
        if cells and all(re.fullmatch(r"[-+\d.,:]+", cell) for cell in cells):
            return True
    if all(name in _NAMES for name in lower):  # not in a list of words, where these are words like others
        return sum(all(cell.lower() in _NAMES for cell in row) for row in below) <= len(below) // 10
    columns = zip(first, zip_longest(*below), strict=False)
    if any(25 * column.count(name) >= len(column) for name, column in columns):
        return False  # such as a label, which other rows have, too; once in a hundred it is a word like others
    return otherwise


def names_in(row: Sequence[str]) -> list[str]:
    """The cells of a header, without empty ones at its end."""
    names = [cell.strip() for cell in row]
    while len(names) > 1 and not names[-1]:
        names.pop()
    return names


def _like_name(cell: str) -> bool:
    """Whether a cell could be the name of a column: short, with letters, and no sentence."""
    return (
        0 < len(cell) <= 40
        and any(map(str.isalpha, cell))
        and cell[-1] not in ".?!…。？！।,"
        and len(cell.split()) <= 4
        and not re.search(r"\.(jpe?g|png|webp|gif|bmp|tiff?)(#|$)|://", cell, re.IGNORECASE)
    )
