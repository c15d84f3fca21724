"""Output on the terminal: tables and text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gen.base.errors import flag, printable
from gen.models.model import Model


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader of our output went away, as `head` does. A training goes on; rich would end it."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = _Console(highlight=False)


def say(text: str) -> None:
    """Prints text without markup or line breaks, so that commands can be copied."""
    console.print(printable(text, keep="\n"), markup=False, soft_wrap=True)


MOST_LEFT_OUT = 20
"""Lines about what was left out."""


def left_out(lines: Sequence[str]) -> None:
    """Says what was left out, a line each of the first few, and how much more."""
    for line in lines[:MOST_LEFT_OUT]:
        say(f"Left out: {line}")
    if len(lines) > MOST_LEFT_OUT:
        say(f"Left out: {len(lines) - MOST_LEFT_OUT:,} more")


def table(title: str, rows: Mapping[str, Any]) -> Table:
    """A table with two columns, names and values."""
    return _rows(title, ((name, str(value)) for name, value in rows.items()))


def grid(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with a header, with the first column dimmed."""
    made = Table(title=_plain(title), title_justify="left", box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(header):
        made.add_column(_plain(name), style="dim" if number == 0 else "")
    for cells in rows:
        made.add_row(*map(_plain, cells))
    return made


def _rows(title: str, rows: Iterable[Sequence[str]]) -> Table:
    """A table without a header, with the first column dimmed."""
    made = Table(title=_plain(title), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, *cells in rows:
        made.add_row(f"[dim]{_plain(name)}[/dim]", *map(_plain, cells))
    return made


def _plain(text: str) -> str:
    """A text that is no markup, and moves no cursor."""
    return escape(printable(text, keep="\n"))


def model_summary(model: Model, dtype: torch.dtype) -> Table:
    """A table of the model's parts and their numbers of parameters."""
    made = Table(title="Model", title_justify="left", box=None, padding=(0, 2, 0, 0))
    made.add_column("part")
    made.add_column("kind")
    made.add_column("parameters", justify="right")
    c, decoder = model.decoder.config, model.decoder
    encoder = model.encoder.describe()
    parts: dict[str, tuple[Any, list[torch.nn.Module]]] = {
        "encoder": (encoder, [model.encoder]),
        "embedding": (f"{c.vocab_size:,} × {c.embedding_size}", [decoder.embedding]),
        "recurrent": (f"{c.num_layers} × {c.cell} {c.hidden_size}", [decoder.lower, decoder.upper]),
        "attention": (c.attention, [decoder.attention]),
        "output": ("tied to the embedding" if c.tie_embeddings else "linear", [decoder.output]),
    }
    for name, (what, modules) in parts.items():
        count = sum(p.numel() for m in modules for p in m.parameters())
        made.add_row(name, _plain(str(what)), f"{count:,}")
    total = sum(p.numel() for p in model.parameters())
    made.add_row("all", f"computes in {str(dtype).removeprefix('torch.')} on {model.device}", f"{total:,}")
    return made


def show_figures(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Prints figures, one per line: name, value, and how it was computed."""
    console.print(printable(title), style="italic", markup=False)
    width = max((len(name) for name, _, _ in rows), default=0) + 1
    for name, value, how in rows:
        say(f"{name:{width}}{value:>10}   {how}".rstrip())


def chosen_table(options: Mapping[str, Any], reasons: Mapping[str, str]) -> Table:
    """A table of chosen options: name, value, reason."""

    def shown(value: Any) -> str:
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

    return _rows("Chosen", ((flag(name), shown(options.get(name)), why) for name, why in reasons.items()))
