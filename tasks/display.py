"""What a user sees in the terminal while a model trains: summary, live progress, final table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from gen.base.config import Budget
from gen.models.model import Model
from gen.training.options import TrainOptions
from gen.training.validation import Event

console = Console(highlight=False)


def say(text: str) -> None:
    """Prints text as it is: a command to copy must not be broken to the terminal's width."""
    console.print(text, markup=False, soft_wrap=True)


def clock(seconds: float) -> str:
    """A length of time as 1:05 or 2:03:04."""
    minutes, s = divmod(max(round(seconds), 0), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def table(title: str, rows: Mapping[str, Any]) -> Table:
    """Two columns: names and values."""
    made = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        made.add_row(f"[dim]{name}[/dim]", str(value), style=None)
    return made


def model_summary(model: Model, dtype: torch.dtype) -> Table:
    """Parts of the model and how many parameters each has."""
    made = Table(title="Model", title_justify="left", box=None, padding=(0, 2, 0, 0))
    made.add_column("part")
    made.add_column("what it is")
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
        made.add_row(name, str(what), f"{count:,}")
    total = sum(p.numel() for p in model.parameters())
    made.add_row("all", f"computes in {str(dtype).removeprefix('torch.')} on {model.device}", f"{total:,}")
    return made


@contextmanager
def training_progress(options: TrainOptions, describe: Callable[[Mapping[str, float]], str]) -> Iterator[Any]:
    """A live line (share, loss, tokens/s, time left) and a lasting line a validation.

    Args:
        options: of the training, for its budget.
        describe: a task's words for its validation figures.
    """
    budget = Budget.parse(options.budget)
    columns = (BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as live:
        line = live.add_task("starting", total=1.0)

        def watch(event: Event) -> None:
            """Moves the live line; after a validation, leaves a line that stays."""
            now = event.progress
            left = (
                budget.amount - now.seconds
                if budget.unit == "seconds"
                else (now.seconds / max(event.share, 1e-9) * (1 - event.share))
            )
            text = f"loss {event.loss:.3f}  {event.tokens_per_second:,.0f} tokens/s  {clock(left)} left"
            live.update(line, completed=event.share, description=text)
            if event.validation:
                say(
                    f"{event.share:4.0%}  {clock(now.seconds)}  step {now.step:,}  train {event.loss:.3f}  "
                    f"{describe(event.validation)}"
                )

        yield watch


def metrics_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """A row a model: nats and perplexity a token, bits a character."""
    made = Table(title="Validation", title_justify="left", box=None, padding=(0, 2, 0, 0))
    made.add_column("")
    for name in ("nats/token", "bits/char", "perplexity"):
        made.add_column(name, justify="right")
    for name, figures in rows.items():
        cells = (figures["loss"], figures["bits_per_char"], figures["perplexity"])
        made.add_row(name, f"{cells[0]:.4f}", f"{cells[1]:.4f}", f"{cells[2]:,.2f}")
    return made


def show_scores(title: str, figures: Mapping[str, Any]) -> None:
    """Translation scores, each with the signature that says how it was computed."""
    console.print(f"[italic]{title}[/italic]")
    for name, label in {"bleu": "BLEU", "chrf": "chrF", "ter": "TER"}.items():
        if name in figures:
            say(f"{label:6}{figures[name]:7.2f}   {figures[name + '_signature']}")
    say(f"exact {figures['exact']:7.1%}")


def show_captions(title: str, figures: Mapping[str, Any]) -> None:
    """Caption scores."""
    console.print(f"[italic]{title}[/italic]")
    names = {"bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4"}
    for name, label in {**names, "rouge_l": "ROUGE-L", "cider": "CIDEr-D"}.items():
        say(f"{label:9}{figures[name]:7.2f}")
    say(f"different{figures['distinct']:7,}")
