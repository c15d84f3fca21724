"""XLIFF 1.x and 2.x (.xliff, .xlf): a segment is a ``<target>`` that is missing or empty."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, groupby
from typing import Any
from xml.parsers import expat

from tasks.translate.documents.segments import (
    MARKUP,
    PLACEHOLDER,
    BadDocument,
    Parts,
    Segment,
    Tag,
    escape_for,
    has_letters,
    lines_tagged,
    tagged,
    valid_message,
)

_TAGS = re.compile(f"{MARKUP}|{PLACEHOLDER}")
_PAIRED = {"g", "mrk", "pc"}
_OPENS, _CLOSES = {"bpt", "bx", "sc"}, {"ept", "ex", "ec"}
_NOT_YET = {"new", "initial", "needs-translation"}
"""States of a target that is no translation yet."""


@dataclass
class _Event:
    """A piece of the file: a tag, or text, or anything else.

    Attributes:
        kind: "start", "end", "text" or "".
        begin, end: where it stands; the end of an element without content is empty.
        name: of the element, without its prefix.
        data: the attributes, or the text.
    """

    kind: str
    begin: int
    end: int = -1
    name: str = ""
    data: Any = None


def _events(text: str) -> list[_Event]:
    """What a file of XML is made of, in order."""
    content = text.encode()
    found: list[_Event] = []
    parser = expat.ParserCreate("utf-8")

    def add(kind: str, name: str = "", data: Any = None) -> None:
        found.append(_Event(kind, parser.CurrentByteIndex, name=name.rpartition(":")[2], data=data))

    def refuse(*_: Any) -> None:
        raise BadDocument(parser.CurrentLineNumber, "declares or names entities of its own, which are not read")

    parser.StartElementHandler = partial(add, "start")
    parser.EndElementHandler = partial(add, "end")
    parser.CharacterDataHandler = lambda data: add("text", "", data)
    parser.StartCdataSectionHandler = parser.EndCdataSectionHandler = lambda: add("cdata")
    parser.CommentHandler = lambda data: add("")
    parser.ProcessingInstructionHandler = lambda target, data: add("")
    parser.EntityDeclHandler = parser.SkippedEntityHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise BadDocument(error.lineno, f"no XML: {expat.errors.messages[error.code]}") from error
    marks = [*sorted({event.begin for event in found}), len(content)]
    characters = [0, *accumulate((byte & 0xC0) != 0x80 for byte in content)]
    for last, event in zip([None, *found], found, strict=False):
        after_start = event.kind == "end" and last and last.kind == "start"
        empty = after_start and content.endswith(b"/>", 0, event.begin)  # of <g/>, after it
        end = event.begin if empty else marks[bisect_right(marks, event.begin)]
        event.begin, event.end = characters[event.begin], characters[end]
    return found


@dataclass
class _Unit:
    """A ``<trans-unit>`` (1.x) or ``<segment>`` (2.x): the events of its children, tags included."""

    attributes: dict[str, str]
    start: _Event
    preserve: bool
    children: dict[str, list[_Event]] = field(default_factory=dict)


def segments(text: str, again: bool) -> Iterator[Segment]:
    """The targets to fill in. Raises `BadDocument` for a file that is no XLIFF."""
    declared = escape_for(text)
    for unit in _units(_events(text)):
        source, target = unit.children.get("source"), unit.children.get("target")
        if source is None:
            continue
        start = target[0] if target else None
        state = (start.data.get("state") if start else None) or unit.attributes.get("state")
        filled = bool(target) and any(event.kind == "text" and event.data.strip() for event in target or ())
        if filled and not again and (state not in _NOT_YET or unit.attributes.get("approved") == "yes"):
            continue
        source = unit.children.get("seg-source", source)
        parts = _parts(text, source[1:-1], unit.preserve, declared)
        if not has_letters("".join(part for part in parts if isinstance(part, str))):
            continue
        valid = valid_message(parts)
        spaces = {"begin": declared(_ends(parts[0])[0]), "end": declared(_ends(parts[-1])[1])}
        if target and start:
            opening = text[start.begin : start.end]
            if opening.endswith("/>"):
                opening = opening[:-2].rstrip() + ">"
            name = opening[1:].split()[0].rstrip(">")
            opening = re.sub(r"(\sstate\s*=\s*['\"])[\w:-]*", r"\1needs-review-translation", opening)
            yield Segment(
                start.begin,
                target[-1].end,
                parts,
                declared,
                partial(_element, before="", opening=opening, name=name, **spaces),
                valid=valid,
            )
        else:
            at, first = source[-1].end, unit.children["source"][0]
            name = text[first.begin + 1 : first.end].split()[0].rstrip("/>")
            prefix = name.rpartition(":")[0]
            name = f"{prefix}:target" if prefix else "target"
            before = text[: first.begin]
            before = before[len(before.rstrip()) :]
            finish = partial(_element, before=before, opening=f"<{name}>", name=name, **spaces)
            yield Segment(at, at, parts, declared, finish, valid=valid)


def _element(content: str, before: str, opening: str, name: str, begin: str, end: str) -> str:
    return f"{before}{opening}{begin}{content}{end}</{name}>"


def _ends(part: str | Tag) -> tuple[str, str]:
    """The white space at the beginning and at the end of a text."""
    text = part if isinstance(part, str) else ""
    return text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]


def _units(events: list[_Event]) -> Iterator[_Unit]:
    """The units that may be translated."""
    if (root := next((event.name for event in events if event.kind == "start"), "")) != "xliff":
        raise BadDocument(1, f"no XLIFF: it begins with <{root}>")
    path: list[tuple[str, bool, bool]] = [("", True, False)]  # name, translate, preserve white space
    unit: _Unit | None = None
    child: list[_Event] | None = None
    depth = 0
    for event in events:
        if child is not None:
            child.append(event)
        if event.kind == "start":
            _, translate, preserve = path[-1]
            translate = {"yes": True, "no": False}.get(event.data.get("translate", ""), translate)
            preserve = {"preserve": True, "default": False}.get(event.data.get("xml:space", ""), preserve)
            path.append((event.name, translate and event.name not in ("alt-trans", "ignorable"), preserve))
            if event.name in ("trans-unit", "segment") and translate:
                unit, depth = _Unit(event.data, event, preserve), len(path)
            elif unit and len(path) == depth + 1 and event.name in ("source", "seg-source", "target"):
                child = unit.children[event.name] = [event]
                unit.preserve |= preserve
        elif event.kind == "end":
            path.pop()
            if unit and len(path) == depth:
                child = None
            elif unit and len(path) == depth - 1:
                yield unit
                unit = None


def _parts(text: str, events: list[_Event], preserve: bool, escape: Callable[[str], str]) -> Parts:
    """Content of a source: text, and inline elements, some of which hold code that is not text."""
    parts: Parts = []
    kept, depth = events[:1], 0  # an element that is kept whole, and how many are open in it
    for event in events:
        raw = text[event.begin : event.end]
        if depth or (event.kind == "start" and _is_code(event)):
            kept = kept if depth else [event]
            depth += {"start": 1, "end": -1}.get(event.kind, 0)
            if not depth:
                parts.append(_code(text[kept[0].begin : event.end], kept[0].name, kept[0].data))
        elif event.kind == "text":
            parts.append(event.data)
        elif event.kind == "start":
            parts.append(Tag(raw, "open", event.name))
        elif event.kind == "end":
            parts.append(Tag(raw, "close", event.name))
        elif event.kind == "":
            parts.append(Tag(raw))
    joined: Parts = []  # a character reference is an event of its own
    for is_text, group in groupby(parts, lambda part: isinstance(part, str)):
        several = list(group)
        joined += _text("".join(map(str, several)), preserve, escape) if is_text else several
    return joined


def _is_code(event: _Event) -> bool:
    kept = event.data.get("translate") == "no" or event.data.get("mtype") == "protected"
    return event.name not in _PAIRED or kept


def _code(raw: str, name: str, attributes: dict[str, str]) -> Tag:
    number = next((attributes[key] for key in ("rid", "startRef", "id") if key in attributes), "")
    kind: Any = "open" if name in _OPENS else "close" if name in _CLOSES else "alone"
    return Tag(raw, kind, f"code {number}")


def _text(content: str, preserve: bool, escape: Callable[[str], str]) -> Parts:
    """Text, in which there may be escaped tags of HTML; where white space counts, lines are on their own."""
    if not preserve:
        return tagged(content, _TAGS, escape)
    return lines_tagged(content, _TAGS, lambda part: escape(part).replace("\r", "&#13;"))
