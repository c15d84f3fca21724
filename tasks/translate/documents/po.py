"""Message catalogues of gettext (.po): a segment is a translation, ``msgstr``, that is empty."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import polib

from tasks.translate.documents.segments import (
    MARKUP,
    PLACEHOLDER,
    BadDocument,
    Segment,
    as_it_is,
    has_letters,
    lines_tagged,
    valid_message,
)

_STRINGS = r'"(?:[^"\\\n]|\\.)*"'
_FIELD = re.compile(
    rf"^[ \t]*(msgctxt|msgid_plural|msgid|msgstr)(?:\[(\d+)\])?[ \t]*({_STRINGS}(?:\s*\n[ \t]*{_STRINGS})*)",
    re.MULTILINE,
)
_LINE = re.compile(rf"\s*(?:#.*|(?:msg\w+(?:\[\d+\])?[ \t]*)?{_STRINGS}\s*)?")
_TAGS = re.compile(f"{MARKUP}|{PLACEHOLDER}")
_OTHER_CHARSET = re.compile(r"charset=(?!utf-?8|charset)([\w.:-]+)", re.IGNORECASE)
_LINE_ENDS = str.maketrans(
    dict.fromkeys("\v\f\x1c\x1d\x1e\x85\u2028\u2029", " ")
)  # polib takes them for ends of lines


def segments(text: str, again: bool) -> Iterator[Segment]:
    """The translations that are missing, plural forms one by one. Raises `BadDocument` for a broken file."""
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not _LINE.fullmatch(line):
            raise BadDocument(number, 'not as a .po file has it, like msgid "a text in double quotes"')
    try:
        catalogue = polib.pofile(text.removeprefix("\ufeff").translate(_LINE_ENDS))
    except (OSError, ValueError, UnicodeError) as error:
        found = re.search(r"line (\d+)", str(error))
        raise BadDocument(
            int(found[1]) if found else 1, "not in the order of a .po file: msgid, msgstr"
        ) from error
    if found := _OTHER_CHARSET.search(catalogue.metadata.get("Content-Type", "")):
        raise BadDocument(1, f"declares the encoding {found[1]}: convert it first (msgconv -t UTF-8)")
    new_line = "\r\n" if "\r\n" in text else "\n"
    # Languages with one form for every number have it in msgstr[0]: it is that of the plural.
    one_form = re.match(r"\s*nplurals\s*=\s*1\b", catalogue.metadata.get("Plural-Forms", ""))
    sources: dict[str, str] = {}
    for match in _FIELD.finditer(text):
        key, form, strings = match.groups()
        content = polib.unescape("".join(string[1:-1] for string in re.findall(_STRINGS, strings)))
        if key == "msgid":
            sources = {"": content, "0": content}
        elif key == "msgid_plural":
            first = content if one_form else sources.get("", "")
            sources = {"0": first} | dict.fromkeys(map(str, range(1, 10)), content)
        elif key == "msgstr" and (again or not content) and has_letters(source := sources.get(form or "", "")):
            begin = source[: len(source) - len(source.lstrip())]
            end = source[len(source.rstrip()) :]
            finish = partial(_quoted, begin=begin, end=end, new_line=new_line)
            parts = lines_tagged(source.strip(), _TAGS)
            yield Segment(match.start(3), match.end(3), parts, as_it_is, finish, valid=valid_message(parts))


def _quoted(text: str, begin: str, end: str, new_line: str) -> str:
    """A text as a .po file has it: with several lines, each in a string of its own."""
    text = begin + text + end
    lines = text.splitlines(keepends=True) if "\n" in text[:-1] else [text]
    strings = [f'"{polib.escape(line)}"' for line in lines]
    return new_line.join(strings if len(strings) == 1 else ['""', *strings])
