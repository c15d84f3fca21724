"""What a look at data found, as tables for the terminal and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from gen.datasets.look import DECOMPOSED, TextFacts
from gen.training.look import DataLook

_MOST = 20
"""Labels that are shown."""

_SCRIPTS = 4
"""Scripts that are shown per column."""


class Grid(NamedTuple):
    """A table: a title, column heads, and rows whose first cells are names."""

    title: str
    header: list[str]
    rows: list[list[str]]


def columns_of(found: DataLook) -> dict[str, dict[str, TextFacts]]:
    """Column → part → facts."""
    columns = dict.fromkeys(column for part in found.texts.values() for column in part)
    return {c: {name: texts[c] for name, texts in found.texts.items() if c in texts} for c in columns}


def column_grid(column: str, parts: Mapping[str, TextFacts]) -> Grid:
    """Sizes, lengths and scripts of a column in each part."""
    rows = [
        ["texts", *(f"{facts.rows:,}" for facts in parts.values())],
        ["occur before", *(f"{facts.repeated:,}" for facts in parts.values())],
        ["different characters", *(f"{len(facts.characters):,}" for facts in parts.values())],
    ]
    for level in next(iter(parts.values())).lengths:
        found = [(facts.quantiles(level), int(facts.lengths[level].sum())) for facts in parts.values()]
        rows += [
            [f"{level}, median", *(f"{q['median']:,}" if q else "" for q, _ in found)],
            [f"{level}, nine in ten texts", *(f"{q['p5']:,}–{q['p95']:,}" if q else "" for q, _ in found)],
            [f"{level}, all texts", *(f"{q['min']:,}–{q['max']:,}" if q else "" for q, _ in found)],
            [f"{level}, together", *(f"{total:,}" for _, total in found)],
        ]
    rows.append(["scripts", *(_scripts(facts) for facts in parts.values())])
    return Grid(column.capitalize(), ["", *parts], rows)


def _scripts(facts: TextFacts) -> str:
    shown = [
        f"{name} {share:.3g} %"
        for name, share in ((n, 100 * s) for n, s in list(facts.scripts.items())[:_SCRIPTS])
    ]
    return ", ".join(shown) + (f", {more} more" if (more := len(facts.scripts) - _SCRIPTS) > 0 else "")


def grids(found: DataLook) -> Iterator[Grid]:
    """The tables after those of the columns; empty ones are left out."""
    made = (_vocabulary(found), *_labels(found), _pictures(found), _leaks(found), _odd(found))
    return (grid for grid in made if grid.rows)


def _vocabulary(found: DataLook) -> Grid:
    """The size of the vocabulary, and what of the parts it does not know."""
    rows = []
    for level, sizes in found.vocabulary.items():
        for column, size in sizes.items():
            shares = [_unknown(part.get(column), level) for part in found.texts.values()]
            mark = " (chosen)" if level == found.level else ""
            rows.append([f"{level} of {column}{mark}", f"{size:,}", *shares])
    return Grid("Vocabularies and unknown tokens", ["", "size", *found.texts], rows)


def _unknown(facts: TextFacts | None, level: str) -> str:
    if facts is None or not (total := int(facts.lengths[level].sum())):
        return ""
    return f"{facts.unknown[level] / total:.2%}"


def _labels(found: DataLook) -> Iterator[Grid]:
    names = dict.fromkeys(name for part in found.labels.values() for name in part)
    for name in names:
        parts = {part: labels[name] for part, labels in found.labels.items() if name in labels}
        order = [label for label, _ in sum(parts.values(), Counter()).most_common()]
        rows = [[visible(label), *(f"{counts[label]:,}" for counts in parts.values())] for label in order[:_MOST]]
        if len(order) > _MOST:
            rows.append([f"… {len(order) - _MOST:,} more", *("" for _ in parts)])
        yield Grid(f"Examples per {name}", ["", *parts], rows)


def _pictures(found: DataLook) -> Grid:
    parts = found.pictures
    if not parts:
        return Grid("Pictures", [], [])
    sides = {name: facts.sides.min(1) if len(facts.sides) else np.zeros(1, int) for name, facts in parts.items()}
    rows = [
        ["pictures", *(f"{len(facts.keys):,}" for facts in parts.values())],
        ["occur before", *(f"{facts.repeated:,}" for facts in parts.values())],
        ["cannot be read", *(f"{len(facts.unreadable):,}" for facts in parts.values())],
        [
            "shorter side in pixels",
            *(f"{int(np.median(s)):,} ({s.min():,}–{s.max():,})" for s in sides.values()),
        ],
    ]
    return Grid("Pictures", ["", *parts], rows)


def _leaks(found: DataLook) -> Grid:
    rows = [
        [f"{leak.what} of {leak.other}", f"{leak.count:,} of {leak.rows:,}", f"in {leak.part}"]
        for leak in found.leaks
    ]
    return Grid("In two parts", ["", "rows", ""], rows)


def _odd(found: DataLook) -> Grid:
    rows = []
    for part, columns in found.texts.items():
        for column, facts in columns.items():
            for kind, (count, first, excerpt) in facts.odd.items():
                made = " (training composes them, unless --normalize none)" if kind == DECOMPOSED else ""
                rows.append([kind + made, f"{column}, {part}", f"{count:,}", f"{first:,}", visible(excerpt)])
    return Grid("Odd", ["", "where", "texts", "first", "excerpt"], rows)


def visible(text: str) -> str:
    """A text with what cannot be seen written as escapes.

    Example:
        >>> visible("a\\u200bb\\x07")
        'a\\\\u200bb\\\\x07'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
