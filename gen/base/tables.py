"""Rows of files: CSV, JSON Lines, Parquet and datasets by name."""

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
"""Endings of files that hold rows with fields."""

_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+){0,2}")


def suffix(name: str) -> str:
    """A file's ending, lower-case, that of the compression left out: ".tsv" of ``pairs.TSV.gz``."""
    return Path(name.removesuffix(".gz")).suffix.lower()


def is_dataset(name: str) -> bool:
    """A Hugging Face name, or a folder that holds a dataset, with a split; and not a file."""
    base = name.split(":")[0]
    if Path(name).is_file() or suffix(name) in TABLES:
        return False
    return Path(base).is_dir() or bool("/" in base and _DATASET.fullmatch(name) and not Path(base).suffix)


def listed(names: Sequence[str]) -> str:
    """Names for a message, the first dozen of them."""
    return ", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else "")


def csv_rows(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the first line, fields) of each row of a CSV file with a header."""
    reader = csv.DictReader((line + "\n" for line in read_lines(name)), strict=True)
    try:
        while True:
            first = max(reader.line_num + 1, 2)
            row = next(reader, None)
            if row is None:
                return
            if None in row:
                raise UserError(
                    f"{name}: line {first} has more fields than the header: quote texts that hold commas"
                )
            yield first, row
    except csv.Error as error:
        raise UserError(f"{name}: line {first}: {error}; is a quote left open there?") from error


def json_rows(name: str) -> Iterator[tuple[int, Any]]:
    """(line number, value) of a file with a JSON value a line."""
    for number, line in enumerate(read_lines(name), 1):
        if line.strip():
            yield number, parse_json(line, f"{name}: line {number}")


def parse_json(text: str, where: str) -> Any:
    """A JSON value. Raises `UserError`, which begins with ``where``, for anything else."""
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise UserError(f"{where} holds half of a character (an escaped surrogate without its other)") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error})") from error


def load_dataset(name: str) -> Any:
    """A dataset through the `datasets` library: a Parquet file, a folder, or a name on the hub."""
    try:
        import datasets
    except ImportError as error:
        problem = "needs the datasets library" if Path(name).exists() else "no such file, nor is there"
        problem += "" if Path(name).exists() else " the datasets library to look for a dataset of that name"
        raise UserError(f"{name}: {problem}: pip install 'gen-toolkit[hub]'") from error
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said once, by us
    try:
        if suffix(name) == ".parquet":
            return datasets.load_dataset("parquet", data_files=name, split="train")
        base, *rest = name.split(":")
        return datasets.load_dataset(base, *rest[:-1], split=rest[-1] if rest else "train")
    except Exception as error:  # of many kinds: network, pyarrow, missing splits
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{name}: cannot be loaded ({reason[:200]})") from error
