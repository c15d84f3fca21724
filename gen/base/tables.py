"""Reading rows from CSV, JSON Lines, Parquet and Hugging Face datasets."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gen.base.errors import UserError
from gen.base.lines import read_lines

TABLES = (".tsv", ".csv", ".jsonl", ".ndjson", ".parquet")
"""File extensions of tables."""

_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+){0,2}")


def suffix(name: str) -> str:
    """The extension of a file name in lower case, without ``.gz``.

    Example:
        >>> suffix("pairs.TSV.gz")
        '.tsv'
    """
    return Path(name.removesuffix(".gz")).suffix.lower()


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


def csv_rows(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (number of the first line, fields) per row of a CSV file with a header."""
    reader = csv.DictReader((line + "\n" for line in read_lines(name)), strict=True)
    try:
        while True:
            first = max(reader.line_num + 1, 2)
            row = next(reader, None)
            if row is None:
                return
            if None in row:
                raise UserError(
                    f"{name}: line {first} has more fields than the header: quote texts that contain commas"
                )
            yield first, row
    except csv.Error as error:
        raise UserError(f"{name}: line {first}: {error}; is a quote not closed there?") from error


def json_rows(name: str) -> Iterator[tuple[int, Any]]:
    """Yields (line number, value) per line of a JSON Lines file; empty lines are skipped."""
    for number, line in enumerate(read_lines(name), 1):
        if line.strip():
            yield number, parse_json(line, f"{name}: line {number}")


def parse_json(text: str, where: str) -> Any:
    """Parses JSON.

    Args:
        text: the JSON text.
        where: file and line, to begin error messages with.

    Raises:
        UserError: the text is not JSON, or contains half a surrogate pair.

    Example:
        >>> parse_json('{"a": [1, 2]}', "data.jsonl: line 1")
        {'a': [1, 2]}
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} contains half a character (an escaped surrogate without its other half)"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error})") from error


def load_dataset(name: str) -> Any:
    """Loads a dataset with the `datasets` library: a Parquet file, a folder, or a name on the Hugging Face Hub.

    Raises:
        UserError: the library is missing, or the dataset cannot be loaded.
    """
    try:
        import datasets
    except ImportError as error:
        exists = Path(name).exists()
        problem = "reading it needs" if exists else "no such file; to load a dataset of that name, install"
        raise UserError(f"{name}: {problem} the datasets library: pip install 'gen-toolkit[hub]'") from error
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are reported once, below
    try:
        if suffix(name) == ".parquet":
            return datasets.load_dataset("parquet", data_files=name, split="train")
        base, *rest = name.split(":")
        return datasets.load_dataset(base, *rest[:-1], split=rest[-1] if rest else "train")
    except Exception as error:  # network, pyarrow, missing splits: no common base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{name}: cannot be loaded ({reason[:200]})") from error
