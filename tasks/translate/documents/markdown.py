"""Markdown (.md): a segment is a paragraph, a heading or a cell of a table. A translated paragraph is one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from tasks.translate.documents import html
from tasks.translate.documents.segments import (
    BadDocument,
    Parts,
    Segment,
    Tag,
    has_letters,
    line_of,
    tag_of,
    tagged,
)

_DEPTH = 100
"""Lists and quotes in each other."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
_FRONT = re.compile(r"\ufeff?(?:(---|\+\+\+)[ \t]*\r?\n(?=[ \t]*\S)(?:.*\n)*?\1[ \t]*(?:\r?\n|\Z))?")
"""What comes before the text: a byte-order mark, and data about the page."""
_NOTE = re.compile(r":{3,}.*|(?:!!!|\?\?\?\+?)\s.*")
"""A line that begins or ends a note: ``:::tip``, ``!!! note``."""
_MARKS = re.compile(r"^\[[ xX]\](?=\s)|\[\^[^\]\s]+\]:?|\[![A-Z]+\]")
"""What CommonMark takes for text: the box of a task, a footnote, the kind of a note."""
_MARKS_OF_LINES = re.compile(rf"{_MARKS.pattern}|^(?:{_NOTE.pattern})")
_SPECIAL = re.compile(r"([\\`*\[\]<])|^_|_$|^~~")
_BEGINS = re.compile(r"([-+>]|#{1,6}|\d{1,9}(?=[.)]))(?=[.)]?(?:\s|$))")
"""What would be no text at the beginning of a paragraph."""


def segments(text: str, again: bool) -> Iterator[Segment]:
    """The texts of a page, each with the markup within it. Raises `BadDocument` where it is nested too deep."""
    front = _FRONT.match(text)
    begin = front.end() if front else 0
    lines = [match.span() for match in _LINE.finditer(text, begin)]
    cursors = [at for at, _ in lines]  # in tables, where the next cell is
    parser = _parser()
    references: dict[str, Any] = {}
    tokens = parser.parse(text[begin:], references)
    before = ""
    for token in tokens:
        if token.map and token.level >= 2 * _DEPTH - 1:
            line = line_of(text, lines[token.map[0]][0])
            raise BadDocument(line, f"lists or quotes are more than {_DEPTH} deep in each other")
        if token.type == "html_block" and token.map and not token.level:
            first, last = lines[token.map[0]][0], lines[token.map[1] - 1][1]
            for found in html.segments(text[first:last], again):
                yield replace(found, begin=found.begin + first, end=found.end + first)
        elif token.type == "inline" and token.map and has_letters(token.content):
            where = _where(text, token, lines, cursors, before)
            if where:
                cell = before in ("td_open", "th_open")
                finish = _paragraph if before == "paragraph_open" else str
                parts = _parts(text, token, where)
                escape = partial(_escape, cell=cell)
                valid = partial(_same, parser, references, token.children or [])
                yield Segment(where[0], where[-1], parts, escape, finish, valid=valid)
        before = token.type


def _where(text: str, token: Token, lines: list[tuple[int, int]], cursors: list[int], block: str) -> list[int]:
    """Where in the file each character of a token stands, and the end; nothing if that cannot be told."""
    found: list[int] = []
    cell = block in ("td_open", "th_open")
    assert token.map
    for i, content in enumerate(token.content.split("\n")):
        number = token.map[0] + i
        begin, end = lines[number]
        line, kept = text[begin:end].rstrip("\r\n"), content.lstrip()
        if cell or (block == "heading_open" and not line.rstrip().endswith(kept)):
            raw = kept.replace("|", r"\|") if cell else kept
            at = text.find(raw, cursors[number], end)
            if at < 0:
                return []
            cursors[number] = at + len(raw)
        else:
            raw, at = kept, begin + len(line) - len(kept)
            if not line.endswith(kept):
                at -= len(line) - len(line.rstrip())
            if text[at : at + len(kept)] != kept:
                return []
        found += [at] * (len(content) - len(kept))
        for character in kept:
            found.append(at)
            at += 1 + (cell and character == "|")
        found.append(at)
    return found


# -- inline ----------------------------------------------------------------------------------------------


def _parser() -> MarkdownIt:
    """A parser of CommonMark with tables and strikethrough, whose tokens know what they were made of."""
    parser = MarkdownIt("commonmark", {"maxNesting": 2 * _DEPTH}).enable(["table", "strikethrough"])
    parser.inline.ruler2.disable("fragments_join")
    parser.core.ruler.disable("text_join")
    for rule in list(parser.inline.ruler.__rules__):
        parser.inline.ruler.at(rule.name, _recorded(rule.name, rule.fn))
    return parser


def _recorded(name: str, rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    """A rule that notes in the tokens it makes from where to where in the source they go."""

    def apply(state: StateInline, silent: bool) -> bool:
        """Applies the rule. Returns whether it did; if ``silent``, it only moves on and makes no tokens."""
        at, count, pending = state.pos, len(state.tokens), bool(state.pending)
        if not rule(state, silent):
            return False
        new = [] if silent else state.tokens[count:]
        if name in ("emphasis", "strikethrough"):
            for token in new[pending:]:
                token.meta["span"] = (at, at + len(token.content))
                at += len(token.content)
        for token in new:
            if token.type != "text" and "span" not in token.meta:
                token.meta["span"] = (at, state.pos)
        if name == "link" and new:
            end = state.md.helpers.parseLinkLabel(state, at, True)
            opening = next(token for token in new if token.type == "link_open")
            opening.meta["span"], new[-1].meta["span"] = (at, at + 1), (end, state.pos)
        return True

    return apply


def _parts(text: str, token: Token, where: list[int]) -> Parts:
    """The text of an inline token and the markup in it."""
    parts: Parts = []
    content, at, line = token.content, 0, 0
    kept, kept_from = "", 0  # an element of HTML that is kept whole
    children = [child for child in token.children or () if "span" in child.meta]
    for child in sorted(children, key=lambda child: child.meta["span"]):
        begin, end = _span(child, content)
        if begin < at or (child.type == "text" and not child.content):
            continue
        if not kept:
            parts += _text(content, at, begin)
        at, raw = end, text[where[begin] : where[end]]
        part: Any = child.content if child.type in ("text", "text_special") else Tag(raw)
        if child.type == "html_inline":
            part = tag_of(raw)
        elif child.nesting and child.markup != "autolink":
            part = Tag(raw, "open" if child.nesting > 0 else "close", child.tag)
        elif child.type == "hardbreak":
            part = Tag(raw, breaks=True)
        elif child.type == "softbreak":
            words = any(isinstance(part, str) and has_letters(part) for part in parts[line:])
            ends = _NOTE.fullmatch(content[end:].partition("\n")[0])
            part = " " if words and not ends else Tag(raw, breaks=True)
        if child.type in ("hardbreak", "softbreak"):
            line = len(parts) + 1
        if kept:
            if part.__class__ is Tag and (part.kind, part.name) == ("close", kept):
                parts.append(Tag(text[where[kept_from] : where[end]]))
                kept = ""
        elif isinstance(part, Tag) and part.kind == "open" and part.name in html.KEPT:
            kept, kept_from = part.name, begin
        else:
            parts.append(part)
    if kept:
        return [*parts, Tag(text[where[kept_from] : where[-1]])]
    return parts + _text(content, at, len(content))


def _text(content: str, begin: int, end: int) -> Parts:
    """Text between markup, and what in it CommonMark does not know as such."""
    begins_line = begin == 0 or content[begin - 1] == "\n"
    return tagged(content[begin:end], _MARKS_OF_LINES if begins_line else _MARKS)


def _same(parser: MarkdownIt, references: dict[str, Any], children: list[Token], written: str) -> bool:
    """Whether a text has the same markup as the children of an inline token."""
    tokens = parser.parseInline(written, references)[0].children or []
    return _counts(tokens) == _counts(children)


def _counts(tokens: list[Token]) -> Counter[tuple[str, str]]:
    texts = ("text", "text_special", "softbreak")
    return Counter((token.type, str(token.attrs or token.markup)) for token in tokens if token.type not in texts)


def _span(token: Token, content: str) -> tuple[int, int]:
    """From where to where a token goes, with all of its markup."""
    begin, end = token.meta["span"]
    if token.type == "strong_open":
        begin -= 1
    elif token.type == "strong_close":
        end += 1
    elif token.type == "hardbreak":
        begin = len(content[:begin].rstrip(" "))
    return begin, end


# -- writing ---------------------------------------------------------------------------------------------


def _escape(text: str, cell: bool) -> str:
    """A word or mark of which nothing is markup."""
    text = _SPECIAL.sub(lambda match: "\\" + match[0], text)
    return text.replace("|", r"\|") if cell else text


def _paragraph(text: str) -> str:
    """A paragraph that is not taken for a list or the like."""
    if found := _BEGINS.match(text):
        return f"{found[1]}\\{text[found.end() :]}" if found[1].isdigit() else "\\" + text
    return text
