"""Pages (.html): a segment is text between tags that begin or end a block; attributes stay as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape
from html.parser import HTMLParser
from itertools import accumulate
from typing import NamedTuple

from tasks.translate.documents.segments import VOID, Segment, Tag, escape_for, tag_of

INLINE = {
    *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "br", "cite", "code", "data", "del", "dfn", "em", "font"),
    *("i", "img", "ins", "kbd", "mark", "nobr", "q", "rb", "rp", "rt", "ruby", "s", "samp", "small", "span"),
    *("strike", "strong", "sub", "sup", "svg", "math", "time", "tt", "u", "var", "wbr"),
}
"""Elements that stand within a sentence; any other begins a new one."""
KEPT = {
    "code",
    "kbd",
    "samp",
    "var",
    "tt",
    "pre",
    "script",
    "style",
    "textarea",
    "svg",
    "math",
    "noscript",
    "template",
}
"""Elements whose content is no text to translate."""
_NEED_NO_END = {"li", "dt", "dd", "p", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "optgroup"}
_UNFINISHED = re.compile(r"<[a-zA-Z/!?][^>]*\Z")
"""A tag cut off by the end of the file; the parser may report it as several pieces of text."""


_NO_REFERENCE = re.compile(r"&(?=#)(?!#(?:[0-9]+|[xX][0-9a-fA-F]+)[^0-9a-fA-F])")
"""What looks like a reference to a character: the parser would read no tags after it."""


class _Event(NamedTuple):
    kind: str
    begin: int
    name: str = ""
    kept: bool = False


class _Parser(HTMLParser):
    """Collects where the tags, texts and comments of a page begin."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.lines = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
        self.events: list[_Event] = []
        # Of the same length: what is written is taken from the text itself.
        self.feed(_NO_REFERENCE.sub("x", text))
        self.close()

    def add(self, kind: str, name: str = "", kept: bool = False) -> None:
        line, column = self.getpos()
        self.events.append(_Event(kind, self.lines[line - 1] + column, name, kept))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        no = given.get("translate") == "no" or "notranslate" in (given.get("class") or "").split()
        self.add("start", tag, tag not in VOID and (no or tag in KEPT))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.add("void", tag)

    def handle_endtag(self, tag: str) -> None:
        self.add("end", tag)

    def handle_data(self, data: str) -> None:
        self.add("text")

    def handle_entityref(self, name: str) -> None:
        self.add("text")

    def handle_charref(self, name: str) -> None:
        self.add("text")

    def handle_comment(self, data: str) -> None:
        self.add("other")

    def handle_decl(self, decl: str) -> None:
        self.add("other")

    def handle_pi(self, data: str) -> None:
        self.add("other")

    def unknown_decl(self, data: str) -> None:
        self.add("other")

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:  # unknown to the parser; browsers read it as a comment
            return self.parse_bogus_comment(i)


def segments(text: str, again: bool) -> Iterator[Segment]:
    """The texts of a page, each with the tags within it."""
    events, escape = _Parser(text).events, escape_for(text)
    run: list[tuple[int, int, str | Tag]] = []
    kept, begin = "", 0  # an element that is kept whole
    opened: list[str] = []  # it, and those in it
    for event, end in zip(events, [*(e.begin for e in events[1:]), len(text)], strict=False):
        raw = text[event.begin : end]
        if opened:
            within = _follow(opened, event)
            if kept in INLINE and (not opened or end == len(text)):
                stop = end if within else event.begin
                run.append((begin, stop, Tag(text[begin:stop], "open" if opened or not within else "alone", kept)))
            if within:
                continue
        if event.kind == "text" and _UNFINISHED.match(text, event.begin):
            run.append((event.begin, len(text), Tag(text[event.begin :])))
            break
        if event.kind == "text":
            run.append((event.begin, end, unescape(raw)))
        elif event.kept:
            kept, begin, opened = event.name, event.begin, [event.name]
        elif event.kind == "other" or event.name in INLINE:
            run.append((event.begin, end, Tag(raw) if event.kind == "other" else tag_of(raw)))
        if event.kind not in ("text", "other") and event.name not in INLINE:
            yield from _segment(text, run, escape)
            run = []
    yield from _segment(text, run, escape)


def _follow(opened: list[str], event: _Event) -> bool:
    """Whether an event belongs to the element ``opened[0]``, which some tags end though they are not its own."""
    if event.kind == "start":
        if opened == [event.name] and event.name in _NEED_NO_END:
            opened.clear()
        elif event.name not in VOID:
            opened.append(event.name)
    elif event.kind == "end" and event.name in opened:
        while opened.pop() != event.name:
            pass
        return True
    elif event.kind == "end" and event.name not in INLINE:
        opened.clear()
    return bool(opened)


def _segment(text: str, run: list[tuple[int, int, str | Tag]], escape: Callable[[str], str]) -> Iterator[Segment]:
    """The segment of a run of text and inline tags, without the white space around it."""
    while run and isinstance(run[0][2], str) and not run[0][2].strip():
        run = run[1:]
    while run and isinstance(run[-1][2], str) and not run[-1][2].strip():
        run = run[:-1]
    if run:
        begin, end = run[0][0], run[-1][1]
        raw = text[begin:end]
        begin, end = begin + len(raw) - len(raw.lstrip()), end - len(raw) + len(raw.rstrip())
        yield Segment(begin, end, [part for *_, part in run], escape)
