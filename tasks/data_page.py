"""The page of `gen data --page`: the tables, and histograms of lengths."""

from __future__ import annotations

from pathlib import Path

from gen.base.errors import printable
from gen.training.look import DataLook
from tasks import report
from tasks.data_tables import column_grid, columns_of, grids

_LEFT_OUT = 200
"""Lines about what was left out."""


def write_data_page(path: Path, found: DataLook, subtitle: str) -> None:
    """Writes the page.

    Args:
        path: its file.
        found: what it shows.
        subtitle: a line below its title.
    """
    sections = [report.section("What training reads", "", report.texts(("", ""), list(found.table.items())))]
    for column, parts in columns_of(found).items():
        grid = column_grid(column, parts)
        plots = [
            report.histogram({name: facts.lengths[level] for name, facts in parts.items()}, f"{level} per text")
            for level in next(iter(parts.values())).lengths
        ]
        sections.append(report.section(grid.title, "", report.counts(grid.header, grid.rows), *plots))
    for grid in grids(found):
        table = report.texts if grid.title == "Odd" else report.counts
        sections.append(report.section(grid.title, "", table(grid.header, grid.rows)))
    for part, facts in found.pictures.items():
        if len(facts.sides):
            plot = report.histogram({part: facts.sides.min(1)}, "pixels of the shorter side")
            sections.append(report.section(f"Pictures, {part}", "", plot))
    if found.dropped:
        lines = found.dropped[:_LEFT_OUT]
        more = [f"… {len(found.dropped) - _LEFT_OUT:,} more"] * (len(found.dropped) > _LEFT_OUT)
        sections.append(report.section("Left out", "", report.commands([printable(x) for x in lines + more])))
    report.write_page(path, f"Data for gen train {found.task}", printable(subtitle), sections)
