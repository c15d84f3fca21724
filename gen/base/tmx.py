"""Translation memories (TMX), read as tables: a row per unit, a column per language."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from functools import partial
from typing import IO, Any
from xml.parsers import expat

from gen.base.errors import UserError

_CODES = ("bpt", "ept", "it", "ph", "ut")
"""Elements that hold the markup of the text's own format, not its words."""


def tmx_rows(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (place, language → text) per unit of a TMX file, without markup inside the texts. No entities of the
    file's own are expanded, which could take any amount of memory, and no other file is read.

    Raises:
        UserError: the file cannot be read, or is damaged; the message names the line.
    """
    found: list[tuple[str, dict[str, str]]] = []
    row: dict[str, str] = {}
    spellings: dict[str, str] = {}  # of languages: en-us is EN-US
    language, words, codes, begin = "", [""], 0, 0
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(tag: str, given: dict[str, str]) -> None:
        nonlocal language, words, codes, begin
        if tag == "tu":
            row.clear()
            begin = parser.CurrentLineNumber
        elif tag == "tuv":
            language = given.get("xml:lang") or given.get("lang") or ""
            language = spellings.setdefault(language.lower(), language)
        elif tag == "seg":
            words, codes = [], 0
        codes += tag in _CODES

    def end(tag: str) -> None:
        nonlocal codes
        codes -= tag in _CODES
        if tag == "seg" and language:
            row.setdefault(language, " ".join("".join(words).split()))
        elif tag == "tu":
            found.append((f"line {begin}", dict(row)))

    def refuse(*_: Any) -> None:
        line = parser.CurrentLineNumber
        raise UserError(f"{name}: line {line} declares or names entities of its own, which are not read")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: None if codes else words.append(text)
    parser.EntityDeclHandler = parser.SkippedEntityHandler = refuse
    try:
        with _open(name) as file:
            for block in iter(partial(file.read, 1 << 16), b""):
                parser.Parse(block)
                yield from found
                found.clear()
        parser.Parse(b"", True)
        yield from found
    except expat.ExpatError as error:
        raise UserError(f"{name}: line {error.lineno} is no XML: {expat.errors.messages[error.code]}") from error
    except (ValueError, LookupError) as error:
        raise UserError(f"{name}: is in an encoding that is not read ({error}): save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None)
        raise UserError(f"{name}: cannot be read ({reason or error})") from error


def _open(name: str) -> IO[bytes]:
    return gzip.open(name) if name.endswith(".gz") else open(name, "rb")  # type: ignore[return-value]
