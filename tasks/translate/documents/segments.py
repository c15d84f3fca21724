"""What a document has to translate: stretches of text with tags in them, which stand for themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import groupby
from typing import Literal

VOID = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track"),
    "wbr",
}
"""Elements of HTML that have no end."""

_TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*)(?:\s[^<>]*?)?(/?)>")
_BRANCHES = r"[^{}]*+"
for _ in range(4):  # so deep in each other
    _BRANCHES = rf"[^{{}}]*+(?:\{{{_BRANCHES}\}}[^{{}}]*+)*+"
_ICU = r"\{\s*+\w++\s*+,\s*+(?:plural|select|selectordinal)\s*+,"
_ICU_MESSAGE = re.compile(rf"{_ICU}{_BRANCHES}\}}")
"""How a message of ICU with branches begins, and all of it: {count, plural, one {a cat} other {# cats}}."""
PLACEHOLDER = (
    rf"{_ICU_MESSAGE.pattern}"
    r"|%%|%\{[^{}\s]*\}|%#@\w+@"  # a percent sign; those of Ruby and Xcode
    r"|(?<!\d)%<\w+>[-+#0]*\d*(?:\.\d+)?[diouxXeEfgGs](?![A-Za-z])"  # those of Ruby with a format
    r"|%L?[1-9](?![\d$a-zA-Z%]|\.\d)|%n\b"  # those of Qt
    r"|\$?\{\{?[^{}\s]*\}?\}"  # {name}, {0}, ${name}, {{ name }} without spaces
    r"|%(?:\d+\$|\(\w+\))?[-+#0]*\d*(?:\.\d+)?(?:hh?|ll?|[zjtL])?[diouxXeEfFgGcrsa@]"  # %s, %(name)s, %1$d, %.2f
)
"""A pattern of what a program puts something in the place of."""


class BadDocument(Exception):
    """What is wrong in a document, and the line where."""

    def __init__(self, line: int, message: str) -> None:
        self.line, self.message = line, message
        super().__init__(message)


@dataclass(eq=False)
class Tag:
    """Something within a text that is not translated.

    Attributes:
        raw: as it stands in the file.
        kind: whether it opens or closes an element, or stands alone.
        name: what the opening and the closing tag of an element have in common.
        breaks: the texts before and after it are translated on their own.
    """

    raw: str
    kind: Literal["open", "close", "alone"] = "alone"
    name: str = ""
    breaks: bool = False


Parts = list[str | Tag]
BREAKS = re.compile(r"([^\S\n]*\n\s*)")
"""The end of a line, with the white space around it and the empty lines after it."""

_DECLARED = re.compile(
    r"""<meta\b[^<>]*?\bcharset\s*=\s*["']?\s*([\w.:-]+)|<\?xml\b[^<>]*?\bencoding\s*=\s*["']([\w.:-]+)""",
    re.IGNORECASE,
)

Spans = Callable[[str], Sequence[tuple[int, int]]]


def as_it_is(text: str) -> str:
    """For formats in which a text stands as it reads."""
    return text


def escape_for(document: str) -> Callable[[str], str]:
    """How text stands in HTML and XML: what the encoding that the document declares may lack as references."""
    found = _DECLARED.search(document)
    if not found or (found[1] or found[2]).lower().replace("-", "").replace("_", "") == "utf8":
        return partial(escape, quote=False)
    return lambda text: escape(text, quote=False).encode("ascii", "xmlcharrefreplace").decode()


@dataclass
class Segment:
    """A stretch of a document.

    Attributes:
        begin, end: what its translation replaces, in characters of the document.
        parts: its text, as one reads it, and the tags in it.
        escape: text → how it stands in the document.
        finish: all of the translation, tags included → what takes the stretch's place.
        width: its lines, where they matter, have at most so many characters; 0: they do not.
        lines: the number of its lines.
        valid: whether something that takes its place has the same markup.
    """

    begin: int
    end: int
    parts: Parts
    escape: Callable[[str], str] = as_it_is
    finish: Callable[[str], str] = as_it_is
    width: int = 0
    lines: int = 1
    valid: Callable[[str], bool] = bool


def valid_message(parts: Parts) -> Callable[[str], bool]:
    """`Segment.valid` of a message. One with branches that tags cut into pieces stays as it is: nobody knows which
    piece is which."""
    text = "".join(part for part in parts if isinstance(part, str))
    return (lambda written: False) if re.search(_ICU, text) else bool


def tag_of(raw: str) -> Tag:
    """The tag that a markup such as ``<b>``, ``</b>`` or ``<br/>`` is; anything else stands alone."""
    found = _TAG.fullmatch(raw)
    name = found[2].lower().partition(".")[0] if found else ""  # WebVTT has classes after a full stop
    if not found or not name or found[3] or name in VOID:
        return Tag(raw, breaks=name == "br")
    return Tag(raw, "close" if found[1] else "open", name)


def tagged(text: str, pattern: re.Pattern[str], escape: Callable[[str], str] = as_it_is) -> Parts:
    """A text, and what in it fits a pattern as tags.

    Example:
        >>> [getattr(part, "raw", part) for part in tagged("a <b>c</b>", re.compile(MARKUP))]
        ['a ', '<b>', 'c', '</b>']
    """
    parts: Parts = []
    at = 0
    for match in pattern.finditer(text):
        tag = tag_of(match[0])
        tag.raw = escape(match[0])
        parts += [text[at : match.start()], tag]
        at = match.end()
    return [part for part in [*parts, text[at:]] if part]


def lines_tagged(text: str, pattern: re.Pattern[str], escape: Callable[[str], str] = as_it_is) -> Parts:
    """As `tagged`, line by line: what is around the ends of lines is a tag. Messages of ICU may have several."""
    parts: Parts = []
    for piece in tagged(text, _ICU_MESSAGE, escape):
        if isinstance(piece, Tag):
            parts.append(piece)
            continue
        for i, part in enumerate(BREAKS.split(piece)):
            parts += [Tag(escape(part), breaks=True)] if i % 2 else tagged(part, pattern, escape)
    return parts


def kept(segment: Segment, spans: Spans) -> Parts:
    """The parts of a segment, and what in its text is no text to translate as tags."""
    parts: Parts = []
    for is_tag, several in groupby(segment.parts, lambda part: isinstance(part, Tag)):
        if is_tag:
            parts += several
            continue
        text, at = "".join(map(str, several)), 0  # entities are parts of their own
        for begin, end in spans(text):
            parts += [text[at:begin], Tag(segment.escape(text[begin:end]))]
            at = end
        parts.append(text[at:])
    return [part for part in parts if part]


MARKUP = r"</?[A-Za-z][^<>]*>"
"""A pattern of tags as HTML has them."""


def has_letters(text: str) -> bool:
    """Whether there is anything to translate."""
    return any(map(str.isalpha, text))


def line_of(text: str, at: int) -> int:
    """The number of the line of a position."""
    return text.count("\n", 0, at) + 1


def lines_of(text: str, places: Iterable[int]) -> Iterator[int]:
    """The numbers of the lines of ascending positions."""
    line, last = 1, 0
    for at in places:
        line, last = line + text.count("\n", last, at), at
        yield line
