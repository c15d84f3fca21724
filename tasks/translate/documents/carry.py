"""Tags carried along: where in a translation they belong, by what the model looked at for each word."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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

    def _add(self, source: str, chunk: Translated, units: list[Span], at: int) -> None:
        for links in chunk.links or [_diagonal(source, units)]:
            kept = [u for u, unit in enumerate(units) if any(overlap(unit, span) for span in links.target)]
            if not kept or not links.source:
                continue
            shares = np.array([[overlap(units[u], span) for span in links.target] for u in kept], float)
            looked = shares @ links.weights + 1e-9
            spans = np.array(links.source) + at
            self.blocks.append((len(self.units) + kept[0], spans, looked / looked.sum(1, keepdims=True)))

    def mass(self, begin: int, end: int) -> np.ndarray:
        """Per unit how much of what was looked at stands in a stretch of the source, (U,)."""
        found = np.zeros(len(self.units))
        for first, spans, shares in self.blocks:
            if spans[0, 0] < end and spans[-1, 1] > begin:
                inside = np.minimum(spans[:, 1], end) - np.maximum(spans[:, 0], begin)
                parts = np.maximum(inside, 0) / np.maximum(spans[:, 1] - spans[:, 0], 1)
                found[first : first + len(shares)] += shares @ parts
        return found

    def cut(self, at: int, chunk: _Chunk) -> np.ndarray:
        """For each place between the units of a chunk how bad it is for a tag at a position of the source: what of
        the text around that was written on its wrong side, less the farther it is, and the way to the place that
        is in proportion, (units + 1,)."""
        low, high = chunk.units
        before, after = np.zeros(len(self.units)), np.zeros(len(self.units))
        for first, spans, shares in self.blocks:
            if low <= first < high:
                left = spans[:, 0] < at
                order = np.where(left, np.cumsum(left[::-1])[::-1], np.cumsum(~left))  # 1 for the nearest
                near = shares / order**2
                before[first : first + len(shares)] += near @ left
                after[first : first + len(shares)] += near @ ~left
        begin, end = chunk.source
        bad = np.abs(np.linspace(0, 1, high - low + 1) - (at - begin) / max(end - begin, 1))
        bad[1:] += np.cumsum(after[low:high])
        bad[:-1] += np.cumsum(before[low:high][::-1])[::-1]
        return bad


def overlap(a: Span, b: Span) -> int:
    """How many characters two stretches share."""
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0)


def _diagonal(source: str, units: list[Span]) -> Links:
    """Without attention: the words came in the order of the source."""
    spans = [match.span() for match in _UNITS.finditer(source)]
    weights = np.zeros((len(units), len(spans)))
    if units and spans:
        rows = np.arange(len(units))
        weights[rows, ((rows + 0.5) * len(spans) / len(units)).astype(int)] = 1
    return Links(spans, units, weights)


# -- places ----------------------------------------------------------------------------------------------


def _place(layout: Layout, alignment: _Alignment) -> dict[Node | None, Span]:
    """The units that each element holds, and the place of each tag that stands alone."""
    number = len(alignment.units)
    places: dict[Node | None, Span] = {None: (0, number)}
    extent: dict[Node | None, Span] = {None: (0, len(layout.text))}
    inner: dict[Node | None, np.ndarray] = {}  # where no tag of that element can stand: in elements in it
    owner: np.ndarray = np.full(number, -1)
    numbers: dict[Node | None, int] = {None: -1}

    def inside(node: Node | None) -> np.ndarray:
        return inner.setdefault(node, np.zeros(number + 1, bool))

    for n, node in enumerate(node for node in layout.nodes if not node.alone):
        low, high = places[node.parent]
        begin, end = extent[node] = node.begin, node.end
        free = owner[low:high] == numbers[node.parent]
        if not (begin <= extent[node.parent][0] and end >= extent[node.parent][1] and free.all()):
            low, high = _best(alignment.mass(begin, end)[low:high], free, low)
        places[node], numbers[node] = (low, high), n
        owner[low:high] = n
        inside(node.parent)[low + 1 : high] = True
    for node in layout.nodes:
        if node.alone:
            low, high = places[node.parent]
            chunk = next(c for c in alignment.chunks if node.begin <= c.source[1])
            first, last = np.clip(chunk.units, low, high).tolist()
            if node.begin <= chunk.source[0]:
                bad = np.arange(first, last + 1.0)
            elif node.begin >= chunk.source[1]:
                bad = -np.arange(first, last + 1.0)
            else:
                begin = chunk.units[0]
                bad = alignment.cut(node.begin, chunk)[max(first - begin, 0) :][: last - first + 1]
            bad[inside(node.parent)[first : last + 1]] = np.inf
            at = first + int(bad.argmin()) if len(bad) and np.isfinite(bad).any() else high
            places[node] = (at, at)
    return places


def _best(mass: np.ndarray, free: np.ndarray, low: int) -> Span:
    """The run of free units with the most mass above a half each; else the one unit with the most."""
    if not free.any():
        return low, low
    sums = np.concatenate([[0], np.cumsum(np.where(free, mass - 0.5, -len(mass) - 1))])
    least = np.minimum.accumulate(sums)
    end = int((sums - least)[1:].argmax()) + 1
    if sums[end] <= least[end]:
        unit = int(np.where(free, mass, -1).argmax())
        return low + unit, low + unit + 1
    return low + int(sums[:end].argmin()), low + end


# -- writing ---------------------------------------------------------------------------------------------


@dataclass
class _Written:
    """A tag as it is written: an opening one, a closing one, or one that stands alone."""

    raw: str
    node: Node | None = None
    closes: bool = False


def _sequence(layout: Layout, places: dict[Node | None, Span], number: int) -> list[list[_Written]]:
    """The tags between the units: before the first, …, after the last."""
    found: list[list[_Written]] = [[] for _ in range(number + 1)]
    within: dict[Node | None, list[Node]] = {}
    for node in layout.nodes:
        within.setdefault(node.parent, []).append(node)
    for several in within.values():  # in the order of the translation, else as they were
        several.sort(key=places.__getitem__)
        several.reverse()
    stack: list[tuple[Node | None, list[Node]]] = [(None, within.get(None, []))]
    while stack:
        around, waiting = stack[-1]
        if not waiting:
            stack.pop()
            if around:
                found[places[around][1]].append(_Written(around.close, closes=True))
            continue
        node = waiting.pop()
        found[places[node][0]].append(_Written(node.open, node if node.alone else None))
        if not node.alone:
            stack.append((node, within.get(node, [])))
    return found


def carry(segment: Segment, layout: Layout, chunks: Sequence[Translated]) -> str:
    """A segment's translation as it stands in the document: each of its tags is there once, and well nested."""
    alignment = _Alignment(layout, chunks)
    units, text = alignment.units, alignment.text
    tags = _sequence(layout, _place(layout, alignment), len(units))
    ends = _line_ends(segment, text)
    breaks = iter(layout.breaks)
    written: list[str] = []
    for i, several in enumerate(tags):
        begin = units[i - 1][1] if i else 0
        end = units[i][0] if i < len(units) else len(text)
        gap = ("\n" if begin in ends else text[begin:end]) if 0 < i < len(units) else ""
        spaced = gap or (i < len(units) and not CLOSES.match(text, units[i][0]))
        written += _between(several, gap, edge=(i == 0, i == len(units) or not spaced))
        if i < len(units):
            unit = text[slice(*units[i])]
            written.append(next(breaks) if unit == "\n" else segment.escape(unit))
    return segment.finish("".join(written))


def _between(tags: list[_Written], gap: str, edge: tuple[bool, bool]) -> list[str]:
    """Tags between two units, and the space there: where it stood in the source, else after what is closed."""
    wanted = [False] * (len(tags) + 1)
    for i, tag in enumerate(tags):
        if tag.node:
            before, after = tag.node.spaces
            wanted[i], wanted[i + 1] = wanted[i] or before, wanted[i + 1] or after
    wanted[0] &= not edge[0]
    wanted[-1] &= not edge[1]
    if gap and not any(wanted):
        wanted[next((i for i, tag in enumerate(tags) if not tag.closes), len(tags))] = True
    found: list[str] = []
    for i, space in enumerate(wanted):
        if space:
            found.append(gap or " ")
            gap = "" if gap == "\n" else gap
        found += [tags[i].raw] if i < len(tags) else []
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
