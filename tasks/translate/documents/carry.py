"""Tags carried along: where in a translation they belong, by what the model looked at for each word."""

from __future__ import annotations

import textwrap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import regex

from gen.inputs.scripts import UNSPACED
from tasks.translate.documents.segments import CLOSES, Layout, Node, Segment

Span = tuple[int, int]

_ALONE = "".join(rf"\p{{Script={name}}}" for name in UNSPACED)
_LETTERS = rf"(?:(?![{_ALONE}])[\w\p{{M}}])+"
_UNITS = regex.compile(rf"(?=[{_ALONE}])\X|{_LETTERS}(?:['’\-]{_LETTERS})*|\S\p{{M}}*")
"""Words, marks, and the characters of scripts without spaces: between two of them there may be a tag."""


@dataclass
class Links:
    """What a model looked at while it wrote a piece of a translation.

    Attributes:
        source: (S,) where in the source each of its tokens stands.
        target: (T,) where in the translation each of its tokens stands.
        weights: (T, S) attention.
    """

    source: list[Span]
    target: list[Span]
    weights: np.ndarray


@dataclass
class Translated:
    """The translation of a chunk, and what was looked at for it; nothing for a model without attention."""

    text: str
    links: list[Links] = field(default_factory=list)


class _Chunk(NamedTuple):
    source: Span  # characters
    units: Span


class _Alignment:
    """Which units of a translation were written for which characters of the source."""

    def __init__(self, layout: Layout, chunks: Sequence[Translated]) -> None:
        self.units: list[Span] = []
        self.chunks: list[_Chunk] = []
        self.blocks: list[tuple[int, np.ndarray, np.ndarray]] = []  # first unit, (S, 2) spans, (U, S) shares
        self.text, at = "", 0
        for source, chunk in zip(layout.chunks, chunks, strict=True):
            if at:  # the break is a unit that was written for itself
                self.blocks.append((len(self.units), np.array([[at - 1, at]]), np.ones((1, 1))))
                self.units.append((len(self.text), len(self.text) + 1))
                self.text += "\n"
            first, begin = len(self.units), len(self.text)
            units = [match.span() for match in _UNITS.finditer(chunk.text)]
            self._add(source, chunk, units, at)
            self.units += [(a + begin, b + begin) for a, b in units]
            self.text += chunk.text
            self.chunks.append(_Chunk((at, at + len(source)), (first, len(self.units))))
            at += len(source) + 1
        self.starts = [int(spans[0, 0]) for _, spans, _ in self.blocks]
        words = (has_words(self.text[a:b]) for a, b in self.units)
        self.marks = ~np.fromiter(words, bool, len(self.units))

    def _add(self, source: str, chunk: Translated, units: list[Span], at: int) -> None:
        ends = [end for _, end in units]
        for links in chunk.links or _diagonal(source, units):
            begin, end = links.target[0][0], links.target[-1][1]
            kept = [u for u in range(bisect_left(ends, begin + 1), len(units)) if units[u][0] < end]
            if not kept or not links.source:
                continue
            shares = np.array([[overlap(units[u], span) for span in links.target] for u in kept], float)
            looked = shares @ links.weights + 1e-9
            spans = np.array(links.source) + at
            self.blocks.append((len(self.units) + kept[0], spans, looked / looked.sum(1, keepdims=True)))

    def mass(self, begin: int, end: int) -> np.ndarray:
        """Per unit how much of what was looked at stands in a stretch of the source, (U,)."""
        found = np.zeros(len(self.units))
        nearest = max(bisect_right(self.starts, begin) - 1, 0)
        for first, spans, shares in self.blocks[nearest : bisect_left(self.starts, end)]:
            if begin <= spans[0, 0] and spans[-1, 1] <= end:
                found[first : first + len(shares)] += 1
            else:
                inside = np.minimum(spans[:, 1], end) - np.maximum(spans[:, 0], begin)
                parts = np.maximum(inside, 0) / np.maximum(spans[:, 1] - spans[:, 0], 1)
                found[first : first + len(shares)] += shares @ parts
        return found

    def cut(self, at: int, chunk: _Chunk) -> np.ndarray:
        """For each place between the units of a chunk how bad it is for a tag at a position of the source: what of
        the text around that was written on its wrong side, less the farther it is, and the way to the place that
        is in proportion, (units + 1,)."""
        low, high = chunk.units
        if low == high:
            return np.zeros(1)
        first, spans, shares = self.blocks[max(bisect_right(self.starts, at) - 1, 0)]
        last = first + len(shares)
        places = np.arange(low, high + 1)
        bad = 9.0 * np.maximum(np.maximum(first - places, places - last), 0)
        if low <= first and last <= high:
            left = spans[:, 0] < at
            order = np.where(left, np.cumsum(left[::-1])[::-1], np.cumsum(~left))  # 1 for the nearest
            near = shares / order**2
            begin, end = spans[0, 0], spans[-1, 1]
            here = bad[first - low : last - low + 1]
            here += np.abs(np.linspace(0, 1, len(here)) - (at - begin) / max(end - begin, 1))
            here[1:] += np.cumsum(near @ ~left)
            here[:-1] += np.cumsum((near @ left)[::-1])[::-1]
        return bad


def has_words(text: str) -> bool:
    """Whether there is more than marks: letters or digits, or the end of a line."""
    return any(c.isalnum() or c == "\n" for c in text)


def overlap(a: Span, b: Span) -> int:
    """How many characters two stretches share."""
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0)


def _diagonal(source: str, units: list[Span]) -> Iterator[Links]:
    """Without attention: the words came in the order of the source."""
    spans = [match.span() for match in _UNITS.finditer(source)]
    count = len(units) // 64 + 1  # pieces, so that these are small
    rows, columns = (np.linspace(0, len(each), count + 1).astype(int) for each in (units, spans))
    for a, b, c, d in zip(rows, rows[1:], columns, columns[1:], strict=False):
        weights = np.zeros((b - a, d - c))
        if weights.size:
            weights[np.arange(b - a), ((np.arange(b - a) + 0.5) * (d - c) / (b - a)).astype(int)] = 1
            yield Links(spans[c:d], units[a:b], weights)


# -- places ----------------------------------------------------------------------------------------------


def _place(layout: Layout, alignment: _Alignment) -> dict[Node | None, Span]:
    """The units that each element holds, and the place of each tag that stands alone."""
    number = len(alignment.units)
    places: dict[Node | None, Span] = {None: (0, number)}
    extent: dict[Node | None, Span] = {None: (0, len(layout.text))}
    owner: np.ndarray = np.full(number, -1)
    numbers: dict[Node | None, int] = {None: -1}
    for n, node in enumerate(node for node in layout.nodes if not node.alone):
        low, high = places[node.parent]
        begin, end = extent[node] = node.begin, node.end
        free = owner[low:high] == numbers[node.parent]
        if not (begin <= extent[node.parent][0] and end >= extent[node.parent][1] and free.all()):
            mass = np.where(alignment.marks, -1, alignment.mass(begin, end))[low:high]
            low, high = _best(mass, free, low)
        places[node], numbers[node] = (low, high), n
        owner[low:high] = n
    alone = [node for node in layout.nodes if node.alone]
    inner = {node.parent: np.zeros(number + 1, bool) for node in alone}
    for node in layout.nodes:
        if not node.alone and node.parent in inner:
            low, high = places[node]
            inner[node.parent][low + 1 : high] = True  # a tag that is not in the element has no place there
    for node in alone:
        low, high = places[node.parent]
        first, bad = _badness(node, layout, alignment)
        bad = bad[max(low - first, 0) : high - first + 1]
        first = max(first, low)
        bad = np.where(inner[node.parent][first : first + len(bad)], np.inf, bad)
        at = first + int(bad.argmin()) if np.isfinite(bad).any() else high
        places[node] = (at, at)
    return places


def _badness(node: Node, layout: Layout, alignment: _Alignment) -> tuple[int, np.ndarray]:
    """The first unit of a tag's chunk, and how bad each place between the chunk's units is for the tag."""
    chunk = next(chunk for chunk in alignment.chunks if node.begin <= chunk.source[1])
    first, last = chunk.units
    order = np.arange(last - first + 1.0)
    rest = layout.text[node.begin : chunk.source[1]]
    if node.begin <= chunk.source[0]:
        return first, order
    if all(map(CLOSES.match, rest)):  # the chunk's end, or before the full stop there
        end = last
        while rest and end > first and CLOSES.match(alignment.text, alignment.units[end - 1][0]):
            end -= 1
        return first, np.abs(order - (end - first))
    return first, alignment.cut(node.begin, chunk)


def _best(mass: np.ndarray, free: np.ndarray, low: int) -> Span:
    """The run of free units with the most mass above a half each; else the one unit with the most. A mark, with a
    mass below 0, may be within the run, and begins or ends none."""
    if not free.any():
        return low, low
    gain = np.where(mass < 0, -1e-6, mass - 0.5)
    sums = np.concatenate([[0], np.cumsum(np.where(free, gain, -len(mass) - 1))])
    least = np.minimum.accumulate(sums)
    end = int((sums - least)[1:].argmax()) + 1
    if sums[end] <= least[end]:
        unit = int(np.where(free, mass, -2).argmax())
        return low + unit, low + unit + 1
    return low + int(sums[:end].argmin()), low + end


# -- writing ---------------------------------------------------------------------------------------------


class _Mark(NamedTuple):
    """A tag as it is written."""

    kind: Literal["open", "close", "alone"]
    node: Node


def _sequence(layout: Layout, places: dict[Node | None, Span], number: int) -> list[list[_Mark]]:
    """The tags between the units: before the first, …, after the last."""
    found: list[list[_Mark]] = [[] for _ in range(number + 1)]
    within: dict[Node | None, list[Node]] = {}
    for node in layout.nodes:
        within.setdefault(node.parent, []).append(node)
    for several in within.values():  # in the order of the translation, else as they were; taken from the end
        several.sort(key=places.__getitem__)
        several.reverse()
    stack: list[tuple[Node | None, list[Node]]] = [(None, within.get(None, []))]
    while stack:
        around, waiting = stack[-1]
        if waiting:
            node = waiting.pop()
            found[places[node][0]].append(_Mark("alone" if node.alone else "open", node))
            if not node.alone:
                stack.append((node, within.get(node, [])))
        else:
            stack.pop()
            if around:
                found[places[around][1]].append(_Mark("close", around))
    return found


def carry(segment: Segment, layout: Layout, chunks: Sequence[Translated], apart: bool = False) -> str:
    """A segment's translation as it stands in the document: each of its tags is there once, and well nested.

    Args:
        segment: the segment.
        layout: of its parts.
        chunks: the translations of the layout's chunks.
        apart: whether there is a space around every element, also where words are written without.
    """
    alignment = _Alignment(layout, chunks)
    units, text = alignment.units, alignment.text
    tags = _sequence(layout, _place(layout, alignment), len(units))
    ends = _line_ends(segment, text)
    breaks = iter(layout.breaks)
    written: list[str] = []
    for i, marks in enumerate(tags):
        begin = units[i - 1][1] if i else 0
        end = units[i][0] if i < len(units) else len(text)
        edges = text[begin - 1 : begin] in ("", "\n"), text[end : end + 1] in ("", "\n")
        gap = "" if any(edges) else "\n" if begin in ends else text[begin:end] or " " * (apart and bool(marks))
        if not gap and CLOSES.match(text, end):
            edges = edges[0], True
        written += _between(marks, gap, edges)
        if i < len(units):
            unit = text[end : units[i][1]]
            written.append(next(breaks) if unit == "\n" else segment.escape(unit))
    return segment.finish("".join(written))


def _between(marks: list[_Mark], gap: str, edges: tuple[bool, bool]) -> list[str]:
    """Tags between two units, and the space there: around tags where it was, else after what is closed. There is
    none between an element's own tags and its text."""
    spaces = [False] * (len(marks) + 1)
    kinds = [mark.kind for mark in marks]
    for i, (kind, node) in enumerate(marks):
        if kind != "close" and node.spaces[0] and (gap or kind == "alone"):
            spaces[next((j for j in range(i, 0, -1) if kinds[j - 1] != "open"), 0)] = True
        if kind != "open" and node.spaces[1] and (gap or kind == "alone"):
            spaces[next((j for j in range(i + 1, len(marks)) if kinds[j] != "close"), len(marks))] = True
    if gap and not any(spaces):
        spaces[next((i for i, kind in enumerate(kinds) if kind != "close"), len(marks))] = True
    spaces[0] &= not edges[0]
    spaces[-1] &= not edges[1]
    found: list[str] = []
    for i, space in enumerate(spaces):
        if space:
            found.append(gap or " ")
            gap = "" if gap == "\n" else gap
        if i < len(marks):
            found.append(marks[i].node.close if marks[i].kind == "close" else marks[i].node.open)
    return found


_USUAL = 42
"""A subtitle's line of so many characters need not be broken."""


def _line_ends(segment: Segment, text: str) -> set[int]:
    """After which characters a line of a subtitle ends: in lines about as long as those of the source."""
    ends: set[int] = set()
    at = 0
    for chunk in text.split("\n") if segment.width else ():
        most = max(1.25 * segment.width, _USUAL if segment.lines == 1 else 0)
        lines, width = -(-len(chunk) // int(most)), int(most)
        for width in range(-(-len(chunk) // max(lines, 1)), int(most) + 1):  # as even as it goes
            if len(textwrap.wrap(chunk, max(width, 1), break_long_words=False, break_on_hyphens=False)) <= lines:
                break
        wrapped = textwrap.wrap(chunk, max(width, 1), break_long_words=False, break_on_hyphens=False)
        for line in wrapped[:-1]:
            at = text.index(line, at) + len(line)
            ends.add(at)
        at = text.find("\n", at) + 1
    return ends
