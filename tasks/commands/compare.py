"""`gen compare`: several runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from rich.table import Table

from gen.base.config import flat, parse_command
from gen.base.errors import ConfigError, UserError
from gen.base.fields import Arg
from gen.metrics.plots import plot_runs
from gen.models.checkpoint import CONFIG, UNREADABLE, find_model, read_config
from gen.training.config import upgraded
from gen.training.display import clock
from gen.training.run_folder import RunFolder
from tasks import display


@dataclass(frozen=True)
class CompareCommand:
    """Figures of several runs in a table, what was different about them, and their curves in one plot."""

    run: Annotated[tuple[str, ...], Arg("RUN", positional=True)]
    """Run folders."""
    output: Annotated[str, Arg(aliases=("-o",))] = ""
    """Where to draw the curves: a .png, .svg or .pdf file."""
    metric: str = ""
    """A validation figure to draw, such as bleu; unset: the loss."""


@dataclass(frozen=True)
class Run:
    """What a run folder says.

    Attributes:
        name: as it was typed.
        options: by their names.
        best: figures of the best model.
        records: lines of ``metrics.jsonl``.
    """

    name: str
    options: dict[str, Any]
    best: dict[str, Any]
    records: list[dict[str, Any]]

    @classmethod
    def read(cls, name: str) -> Run:
        """Raises `UserError` where there is no run."""
        path = Path(name)
        records = list(RunFolder(path, {}).records())
        if not records or not (path / CONFIG).exists():
            raise UserError(f"{name}: is not the folder of a run")
        try:
            options = upgraded(flat(yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))))
        except (*UNREADABLE, AttributeError) as error:
            raise UserError(f"{path / CONFIG}: cannot be read") from error
        return cls(name, options, read_config(find_model(path))["metrics"], records)


def compare_command(argv: list[str], command: str) -> None:
    """`gen compare RUN…`."""
    config = parse_command(CompareCommand, argv, command, repeat=True)
    if len(config.run) < 2:
        raise ConfigError(["name two runs or more: gen compare runs/a runs/b"])
    if config.output and Path(config.output).suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError([f"--output {config.output}: name a .png, .svg or .pdf file"])
    runs = [Run.read(name) for name in config.run]
    display.console.print(_table(runs))
    if config.metric:
        for run in runs:
            known = {
                name for r in run.records for name, v in r.get("validation", {}).items() if isinstance(v, float)
            }
            if config.metric not in known:
                raise UserError(f"--metric {config.metric}: {run.name} has {', '.join(sorted(known))}")
    if config.output:
        plot_runs({run.name: run.records for run in runs}, Path(config.output), config.metric or "loss")
        display.say(f"Curves: {config.output}")


def _table(runs: list[Run]) -> Table:
    """A column a run: the options in which they differ, how long they took, their best figures."""
    made = Table(box=None, padding=(0, 2, 0, 0))
    made.add_column("")
    for run in runs:
        made.add_column(run.name, justify="right")
    names = sorted({name for run in runs for name in run.options})
    for name in names:
        values = [run.options.get(name) for run in runs]
        if any(value != values[0] for value in values):
            made.add_row(f"[dim]--{name.replace('_', '-')}[/dim]", *map(_cell, values))
    last = [run.records[-1] for run in runs]
    made.add_row("[dim]steps[/dim]", *(f"{r['step']:,}" for r in last))
    made.add_row("[dim]time[/dim]", *(clock(r["seconds"]) for r in last))
    for name in dict.fromkeys(name for run in runs for name in run.best):
        if not name.endswith("signature"):
            made.add_row(name, *(_cell(run.best.get(name)) for run in runs))
    return made


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
