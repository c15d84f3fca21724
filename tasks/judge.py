"""`gen score`, `gen evaluate`, `gen info`: how good a model is, and what it is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal

import tyro

from gen.config import parse_command
from gen.errors import ConfigError
from gen.files import TextFiles
from gen.model import Model
from gen.optim import TrainOptions
from tasks import display
from tasks.generate import load_model, read_lines
from tasks.text import evaluate_files, evaluate_held_out


@dataclass(frozen=True)
class ScoreConfig:
    """Log-probability and perplexity of every line of a file."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run or of a model."""
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """UTF-8 text; - for standard input."""
    json: bool = False
    """Print a JSON object a line."""
    batch_size: int = 64
    """Lines at a time."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Loss, bits per character and perplexity of a model on a text."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run or of a model."""
    data: tuple[str, ...] = ()
    """Text to judge it by; without it, all of the text held out in training."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """replace reads bytes that are not UTF-8 as U+FFFD."""
    json: bool = False
    """Print JSON."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""


@dataclass(frozen=True)
class InfoConfig:
    """What a model is: sizes, training, figures."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run or of a model."""
    json: bool = False
    """Print JSON."""


def score_command(argv: list[str], command: str) -> None:
    """`gen score RUN FILE`: a line in, a line out: log-probability, perplexity, text."""
    config = parse_command(ScoreConfig, argv, command)
    if config.batch_size < 1:
        raise ConfigError([f"--batch-size must be at least 1, not {config.batch_size}"])
    model = load_model(config.run, config.device)
    lines = read_lines(config.file)
    while batch := list(islice(lines, config.batch_size)):
        for line, score in zip(batch, model.score(batch), strict=True):
            perplexity = math.exp(min(-score.log_prob / max(score.num_tokens, 1), 700.0))
            if config.json:
                record = {
                    "log_prob": score.log_prob,
                    "perplexity": perplexity,
                    "num_tokens": score.num_tokens,
                }
                print(json.dumps({**record, "text": line}, ensure_ascii=False))
            else:
                print(f"{score.log_prob:.4f}\t{perplexity:.4f}\t{line}")


def evaluate_command(argv: list[str], command: str) -> None:
    """`gen evaluate RUN`."""
    config = parse_command(EvaluateConfig, argv, command)
    model = load_model(config.run, config.device)
    if config.data:
        unit = "line" if model.info.ends_with_eos else "stream"
        figures = evaluate_files(model, TextFiles(config.data, config.encoding_errors), unit)
    else:
        figures = evaluate_held_out(model)
    if config.json:
        print(json.dumps(figures))
    else:
        display.console.print(display.metrics_table({config.run: figures}))


def info_command(argv: list[str], command: str) -> None:
    """`gen info RUN`."""
    config = parse_command(InfoConfig, argv, command)
    model = Model.load(config.run)
    rows = _facts(model)
    if config.json:
        print(json.dumps(rows))
        return
    display.console.print(display.table(config.run, rows))
    dtype = next(model.parameters()).dtype
    display.console.print(display.model_summary(model, dtype))


def _facts(model: Model) -> dict[str, Any]:
    training = model.info.training
    return {
        "task": model.info.task,
        "unit": "sequences that end by themselves" if model.info.ends_with_eos else "a stream of text",
        "vocabulary": f"{len(model.tokenizer):,} ({model.tokenizer.kind})",
        "parameters": sum(p.numel() for p in model.parameters()),
        "budget": training.get("train", {}).get("budget", TrainOptions.budget),
        "command": training.get("command", ""),
        "search": ", ".join(f"{k} {v}" for k, v in model.info.search.items()),
        **model.info.metrics,
    }
