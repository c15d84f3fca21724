"""`make bench`: ratios to baselines of the same run on the same machine; a table, also in runs/bench.json.

`python -m tests.bench [NAME...]` runs some of the benchmarks; `BENCHES` lists their names.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

BENCHES = (
    "decode",
    "training",
    "efficiency",
    "translation",
    "caption",
    "overhead",
    "memory",
    "startup",
    "linear",
    "peers",
    "serve",
)


def main(names: list[str]) -> None:
    table = Table(title="Benchmarks", title_justify="left")
    for name, justify in (
        ("what", "left"),
        ("ours", "right"),
        ("baseline", "right"),
        ("ratio", "right"),
        ("bar", "right"),
    ):
        table.add_column(name, justify=justify)
    path = Path("runs/bench.json")
    path.parent.mkdir(exist_ok=True)
    rows = []
    for name in names or BENCHES:
        for row in import_module(f"tests.bench.{name}").run():
            rows.append(row)
            table.add_row(row["what"], row["ours"], row["baseline"], row["ratio"], row["bar"])
            path.write_text(json.dumps(rows, indent=2) + "\n")  # after each row, in case a later one fails
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
