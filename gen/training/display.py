"""Training progress in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from gen.base.config import Budget
from gen.training.options import TrainOptions
from gen.training.validation import Event

Describe = Callable[[Mapping[str, Any]], str]
"""Validation figures → a short text; see `Task.describe`."""


def clock(seconds: float) -> str:
    """Formats seconds as M:SS or H:MM:SS.

    Example:
        >>> clock(65), clock(7384)
        ('1:05', '2:03:04')
    """
    minutes, s = divmod(max(round(seconds), 0), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


@contextmanager
def progress(options: TrainOptions, describe: Describe, console: Console) -> Iterator[Callable[[Event], None]]:
    """Shows a live line (share of the budget, loss, tokens/s, time left) and prints a line per validation.

    Gives the callback that updates them.
    """
    budget = Budget.parse(options.budget)
    columns = (BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}", markup=False))
    shown = find_spec("ipywidgets") if console.is_jupyter else console.is_terminal  # without it rich warns
    with Progress(*columns, console=console, transient=True, disable=not shown) as live:
        line = live.add_task("starting", total=1.0)

        def show(event: Event) -> None:
            """Updates the live line; after a validation, prints its figures."""
            now = event.progress
            done = now.offset + event.share * (budget.amount - now.offset)  # a budget that has grown begins there
            left = (
                budget.amount - now.seconds
                if budget.unit == "seconds"
                else now.seconds / max(done, 1e-9) * (budget.amount - done)
            )
            text = f"loss {event.loss:.3f}  {event.tokens_per_second:,.0f} tokens/s  {clock(left)} left"
            live.update(line, completed=event.share, description=text)
            if event.validation:
                console.print(
                    f"{event.share:4.0%}  {clock(now.seconds)}  step {now.step:,}  train {event.loss:.3f}  "
                    f"{describe(event.validation)}",
                    markup=False,
                    soft_wrap=True,
                )

        yield show


@contextmanager
def notebook_progress(options: TrainOptions, describe: Describe) -> Iterator[list[Callable[[Event], None]]]:
    """The callback of `progress` in a list; an empty list outside notebooks."""
    console = Console(highlight=False)
    if not console.is_jupyter:
        yield []
        return
    with progress(options, describe, console) as show:
        yield [show]
