"""Reading JSON: one value per line, or one document with the rows of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from gen.base.errors import UserError
from gen.base.lines import read_lines, suffix
from gen.base.parts import SPLITS

MOST_JSON = 1 << 30
"""Bytes of a JSON file: COCO's captions are one line of 90 MB."""


def json_line(value: Any) -> str:
    """A value as a line of JSON; bytes of file names that are no UTF-8 are escaped.

    Example:
        >>> json.loads(json_line("caf\\udce9.png")) == "caf\\udce9.png", json_line("é").encode()
        (True, b'"\\xc3\\xa9"\\n')
    """
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"


def json_rows(name: str, errors: str = "strict") -> Iterator[tuple[int, Any]]:
    """Yields (line number, value) per line of a JSON Lines file; empty lines are skipped."""
    for number, line in enumerate(read_lines(name, errors=errors), 1):
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


def json_document(name: str, errors: str = "strict") -> Any:
    """The value in a JSON file; None for JSON Lines and other formats.

    Raises:
        UserError: the file is not JSON.
    """
    kind = suffix(name)
    if kind not in (".json", ".jsonl", ".ndjson"):
        return None
    if kind != ".json":  # it may hold a list all the same
        first = next((line for line in read_lines(name, MOST_JSON, errors=errors) if line.strip()), "")
        with suppress(ValueError, RecursionError):
            value = json.loads(first)
            if not (isinstance(value, list) and value and isinstance(value[0], dict | list)):
                return None
    try:
        return parse_json("\n".join(read_lines(name, MOST_JSON, errors=errors)), name)
    except UserError as error:
        if kind != ".json" or "Extra data" in str(error):
            return None  # one value per line, or an error that reading lines names better
        raise


def records(document: Any) -> Iterator[Any]:
    """The rows in a JSON document: a list of objects or of lists, an object with a list of objects or one for
    each part of the data, an object of columns or of rows, or an object of pairs. None where it is something else.

    Example:
        >>> list(records({"version": 1, "data": [{"en": "dog"}]})), list(records({"en": ["a", "b"]}))
        ([{'en': 'dog'}], [{'en': 'a'}, {'en': 'b'}])
        >>> list(records({"dog": "Hund"}))
        [['dog', 'Hund']]
        >>> list(records({"train": [{"en": "dog"}], "test": [{"en": "cat"}]}))
        [{'split': 'train', 'en': 'dog'}, {'split': 'test', 'en': 'cat'}]
    """
    if isinstance(document, list):
        yield from document
        return
    if not isinstance(document, dict) or not document:
        return
    values = list(document.values())
    lists = {k: v for k, v in document.items() if isinstance(v, list) and v and isinstance(v[0], dict | list)}
    if len(lists) > 1 and all(name.lower() in SPLITS for name in lists):
        for part, rows in lists.items():
            yield from ({"split": part, **row} if isinstance(row, dict) else row for row in rows)
        return
    chosen = next((name for name in ("data", "train", *lists) if name in lists), None)
    if chosen is not None and (len(lists) == 1 or chosen in ("data", "train")):
        yield from lists[chosen]
    elif (
        all(isinstance(v, list) for v in values)
        and len({len(v) for v in values}) == 1
        and not any(map(_like_file, document))
    ):
        yield from (dict(zip(document, row, strict=True)) for row in zip(*values, strict=True))
    elif all(isinstance(v, dict) for v in values):
        if all(key.isdecimal() for v in values for key in v):  # column → index → value, as pandas writes it
            yield from ({c: document[c].get(i) for c in document} for i in values[0])
        else:
            yield from values
    elif all(v is None or isinstance(v, str | list) for v in values):
        yield from ([key, value] for key, value in document.items())


def _like_file(name: str) -> bool:
    """Whether a text is like the name of a file, as those of pictures."""
    return re.fullmatch(r"\S.*\.[A-Za-z]\w{1,4}(#\S*)?", name) is not None and len(name) < 300
