"""`gen compare`: a table and plot of several runs, or one text model against other people's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape
from rich.table import Table

from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, UserError, flag, printable
from gen.base.fields import Arg
from gen.metrics.plots import plot_runs
from gen.training.config import identity
from gen.training.display import clock
from gen.training.run import Run
from tasks import display
from tasks.commands.models import encoding_errors


@dataclass(frozen=True)
class CompareCommand:
    """Compare runs: a table of their figures and of the options that differ, and a plot of their curves.
    With --with: one run of a text model, a Markov chain and models of transformers on the same held-out text."""

    run: Annotated[tuple[str, ...], Arg("RUN", positional=True)]
    """Run folders."""
    output: Annotated[str, Arg(aliases=("-o",))] = ""
    """Plot the validation curves into this .png, .svg or .pdf file."""
    metric: str = ""
    """The validation figure to plot, such as bleu. Unset: the loss."""
    with_: Annotated[tuple[str, ...], Arg("MODEL")] = ()
    """Causal language model of transformers, a folder or hf:USER/NAME, to measure RUN against; may be repeated."""
    data: tuple[str, ...] = ()
    """--with: text to measure on; may be repeated. Unset: what RUN held out."""
    max_characters: int = 100_000
    """--with: how much of that text to read."""
    prompt: str = ""
    """--with: what the samples continue. Unset: the first words of that text."""
    device: str = "auto"
    """--with: where to compute: auto, cpu, cuda, cuda:1 or mps."""

    def check(self) -> None:
        """Raises `ConfigError` with all errors."""
        errors = range_errors(self, sizes=("max_characters",))
        if self.with_:
            if len(self.run) != 1:
                errors.append("--with: name one run: gen compare runs/a --with hf:openai-community/gpt2")
            errors += [f"{flag(n)} does not go with --with" for n in ("output", "metric") if getattr(self, n)]
            errors += encoding_errors("--prompt", [self.prompt])
        else:
            alone = ("data", "max_characters", "prompt", "device")
            given = [name for name in alone if getattr(self, name) != getattr(CompareCommand, name)]
            errors += [f"{flag(name)} goes with --with" for name in given]
            if len(self.run) < 2:
                errors.append("name two runs or more: gen compare runs/a runs/b; or another model: --with MODEL")
            if self.metric and not self.output:
                errors.append("--metric goes with --output, the plot")
        if self.output and Path(self.output).suffix not in (".png", ".svg", ".pdf"):
            errors.append(f"--output {self.output}: name a .png, .svg or .pdf file")
        if errors:
            raise ConfigError(errors)


def compare_command(argv: list[str], command: str) -> None:
    """`gen compare RUN…`."""
    config = parse_command(CompareCommand, argv, command, repeat=True)
    config.check()
    if config.with_:
        from tasks.text.against import compare_text

        print(
            compare_text(
                config.run[0],
                config.with_,
                data=config.data,
                max_characters=config.max_characters,
                prompt=config.prompt,
                device=config.device,
            )
        )
        return
    runs = {name: Run(name) for name in config.run}
    records = {name: run.history for name, run in runs.items()}
    for name, found in records.items():
        if not found:
            raise UserError(f"{name}: is not the folder of a run")
    display.console.print(_table(runs, {name: found[-1] for name, found in records.items()}))
    if config.metric:
        for name, found in records.items():
            known = {key for r in found for key, v in r.get("validation", {}).items() if isinstance(v, float)}
            if config.metric not in known:
                raise UserError(f"--metric {config.metric}: {name} has {', '.join(sorted(known))}")
    if config.output:
        plot_runs(records, Path(config.output), config.metric or "loss")
        display.say(f"Curves: {config.output}")


def _table(runs: Mapping[str, Run], last: Mapping[str, dict[str, Any]]) -> Table:
    """One column per run: the options that all have and that differ, with chosen values; steps and time; the best
    figures."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in runs:
        table.add_column(escape(printable(name)), justify="right", overflow="fold")
    options = [identity(run.config) for run in runs.values()]
    for option in sorted(set.intersection(*map(set, options))):
        values = [each.get(option) for each in options]
        if any(value != values[0] for value in values):
            table.add_row(f"[dim]{flag(option)}[/dim]", *map(_cell, values))
    if table.row_count:
        table.add_row()
    table.add_row("[dim]steps[/dim]", *(f"{r['step']:,}" for r in last.values()))
    table.add_row("[dim]time[/dim]", *(clock(r["seconds"]) for r in last.values()))
    best = [run.metrics for run in runs.values()]
    table.add_row("[dim]best at step[/dim]", *(_cell(each.get("step")) for each in best))
    for figure in dict.fromkeys(name for each in best for name in each):
        if figure not in ("step", "seconds", "weights") and not figure.endswith("signature"):
            table.add_row(figure, *(_cell(each.get(figure)) for each in best))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return escape(printable(text))
