"""What a document has to translate: stretches of text with tags in them, which stand for themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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


# -- tags and the text between them ----------------------------------------------------------------------


@dataclass(eq=False)
class Node:
    """An element, or a tag that stands alone (``close`` is "" and ``begin`` is ``end``).

    Attributes:
        open, close: as they stand in the file.
        begin, end: where it stands in the layout's text.
        parent: the element around it.
        alone: it has no text in it.
        spaces: whether white space stood before it, and after it, or would stand there before a word.
    """

    open: str
    begin: int
    parent: Node | None
    end: int = -1
    close: str = ""
    alone: bool = False
    spaces: tuple[bool, bool] = (False, False)


@dataclass
class Layout:
    """A segment as its text and where tags stand in it.

    Attributes:
        text: without tags, white space collapsed; its chunks, which are translated on their own, in lines.
        breaks: what stands between the chunks in the file.
        nodes: in the order of the file; an element comes before what is in it.
        unpaired: opening tags without a closing one, and the other way round. They stand alone.
    """

    text: str = ""
    breaks: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    unpaired: list[Tag] = field(default_factory=list)

    @property
    def chunks(self) -> list[str]:
        """The texts to translate."""
        return self.text.split("\n")


CLOSES = re.compile(r"[,.;:!?)\]»”]")
"""A mark that has no space before it."""


def lay_out(parts: Parts) -> Layout:
    """Parts → text and nodes."""
    layout = Layout()
    pairs = _pairs(parts, layout)
    around: Node | None = None
    text, space, dropped = "", False, False  # a space comes with the word after it
    for i, part in enumerate(parts):
        if isinstance(part, str):
            words = part.split()
            if words:
                space = (space or part[0].isspace()) and text[-1:] not in ("", "\n")
                space = space and not (dropped and CLOSES.match(words[0]))  # "use `this`, then" without the tag
                text += " " * space + " ".join(words)
            space, dropped = part[-1:].isspace() or (space and not words), dropped and not words
        elif part.breaks:
            text, space = text + "\n", False
            layout.breaks.append(part.raw)
        elif part.kind == "close" and i in pairs and around:
            node, around = around, around.parent
            node.end, node.close, node.spaces = len(text), part.raw, (_ends(parts, pairs[i]), _begins(parts, i))
            if node.begin == node.end:
                _join(layout.nodes, node, parts, pairs[i], i)
        else:
            node = Node(part.raw, len(text), around)
            layout.nodes.append(node)
            if i in pairs:
                around = node
            else:
                node.end, node.alone, node.spaces = node.begin, True, (_ends(parts, i), _begins(parts, i))
                dropped = True
    layout.text = text
    return layout


def _pairs(parts: Parts, layout: Layout) -> dict[int, int]:
    """Which opening and closing tags belong together, both ways, so that elements are well nested."""
    waiting: list[tuple[int, Tag]] = []
    pairs: dict[int, int] = {}
    counts: Counter[str] = Counter()
    for i, tag in enumerate(parts):
        if isinstance(tag, str) or tag.kind == "alone":
            continue
        if tag.kind == "open":
            waiting.append((i, tag))
            counts[tag.name] += 1
        elif not counts[tag.name]:
            layout.unpaired.append(tag)
        else:
            while (other := waiting.pop())[1].name != tag.name:
                layout.unpaired.append(other[1])
                counts[other[1].name] -= 1
            counts[tag.name] -= 1
            pairs |= {i: other[0], other[0]: i}
    layout.unpaired += [tag for _, tag in waiting]
    return pairs


def _join(nodes: list[Node], node: Node, parts: Parts, begin: int, end: int) -> None:
    """Makes one tag of an element without text and all in it."""
    raw = (part if isinstance(part, str) else part.raw for part in parts[begin : end + 1])
    node.open, node.close, node.alone, node.end = "".join(raw), "", True, node.begin
    while nodes[-1] is not node:
        nodes.pop()


def _ends(parts: Parts, i: int) -> bool:
    before = parts[i - 1] if i else ""
    return isinstance(before, str) and before[-1:].isspace()


def _begins(parts: Parts, i: int) -> bool:
    after = parts[i + 1] if i + 1 < len(parts) else ""
    return isinstance(after, str) and bool(after[:1].isspace() or CLOSES.match(after))


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


def left_over(tags: Iterable[Tag]) -> list[Tag]:
    """Tags without another one to go with, less those whose partner is in another segment."""
    waiting: dict[str, list[Tag]] = {}
    found: list[Tag] = []
    for tag in tags:
        if tag.kind == "open":
            waiting.setdefault(tag.name, []).append(tag)
        elif waiting.get(tag.name):
            waiting[tag.name].pop()
        else:
            found.append(tag)
    return found + [tag for several in waiting.values() for tag in several]
