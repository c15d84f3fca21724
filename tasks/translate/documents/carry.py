"""Tags carried along: where in a translation they belong, by what the model looked at for each word."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from tasks.translate.documents.alignment import Alignment, Span, Translated, has_words
from tasks.translate.documents.layout import CLOSES, Layout, Node
from tasks.translate.documents.segments import Segment

# -- places ----------------------------------------------------------------------------------------------


def _place(layout: Layout, alignment: Alignment) -> dict[Node | None, Span]:
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
            mass = alignment.mass(begin, end)
            if has_words(layout.text[begin:end]):
                mass[alignment.marks] = -1
            low, high = _best(mass[low:high], free, low)
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


def _badness(node: Node, layout: Layout, alignment: Alignment) -> tuple[int, np.ndarray]:
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
    alignment = Alignment(layout, chunks)
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
