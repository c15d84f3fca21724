"""Which words of a translation were written for which words of the source: by the model's attention."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import numpy as np
import regex

from gen.inputs.scripts import UNSPACED
from gen.inputs.sentences import continued
from gen.inputs.tokenizer import Tokenizer
from tasks.translate.documents.layout import Layout
from tasks.translate.lines import Translation

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


def translated(model: Any, found: Translation) -> Translated:
    """A translation, and what was looked at for it."""
    links: list[Links] = []
    processor, written, at = model.processors["sentence"], "", 0
    for source, hypothesis in found.pieces:
        text = " ".join(hypothesis.text.split())
        written = continued(written, text)
        at = found.source.index(source, at)
        if hypothesis.attention is not None and hypothesis.token_ids:
            ids = processor.encode(source if hypothesis.read is None else hypothesis.read)[:-1]
            sources = _spans(processor.tokenizer, ids, source, at)
            targets = _spans(model.tokenizer, hypothesis.token_ids, text, len(written) - len(text))
            if sources:  # it read something; the columns of EOS and of further inputs come after
                links.append(Links(sources, targets, hypothesis.attention[: len(targets), : len(ids)]))
        at += len(source)
    return Translated(written, links)


def _spans(tokenizer: Tokenizer, ids: list[int], text: str, at: int) -> list[Span]:
    """Where each token stands in a text that begins at ``at``; a tokenizer may have changed some characters."""
    decoded, ends = "", []
    for i in range(len(ids)):
        decoded = tokenizer.decode(ids[: i + 1])
        ends.append(len(decoded))
    where = list(range(len(text) + 1))
    if decoded != text:
        matcher = SequenceMatcher(None, decoded, text, autojunk=False)
        where = [0] * (len(decoded) + 1)
        for _, a, b, c, d in matcher.get_opcodes():
            where[a : b + 1] = [min(c + i, d) for i in range(b - a)] + [d]
    spans = []
    for begin, end in zip([0, *ends], ends, strict=False):
        begin, end = where[min(begin, len(where) - 1)], where[min(end, len(where) - 1)]
        begin += len(text[begin:end]) - len(text[begin:end].lstrip())  # a token may begin with a space
        spans.append((begin + at, end + at))
    return spans


# -- units -----------------------------------------------------------------------------------------------


class Chunk(NamedTuple):
    source: Span  # characters
    units: Span


class Alignment:
    """Which units of a translation were written for which characters of the source."""

    def __init__(self, layout: Layout, chunks: Sequence[Translated]) -> None:
        self.units: list[Span] = []
        self.chunks: list[Chunk] = []
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
            self.chunks.append(Chunk((at, at + len(source)), (first, len(self.units))))
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

    def cut(self, at: int, chunk: Chunk) -> np.ndarray:
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
