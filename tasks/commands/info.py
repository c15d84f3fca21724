"""`gen info`: a model's sizes, training and figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from gen.base.config import parse_command
from gen.base.fields import Arg
from gen.models.model import Model
from gen.training.display import clock
from gen.training.run_folder import RunFolder
from tasks import display
from tasks.commands.confidence import calibration_rows


@dataclass(frozen=True)
class InfoCommand:
    """Print a model's sizes, training options and figures."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run or model, or hf:USER/NAME."""
    json: bool = False
    """Print JSON."""


def info_command(argv: list[str], command: str) -> None:
    """`gen info RUN`."""
    config = parse_command(InfoCommand, argv, command)
    model = Model.load(config.run)
    facts = facts_of(model) | _unfinished(config.run)
    if config.json:
        print(json.dumps(facts))
        return
    display.console.print(display.table(config.run, {name: _shown(value) for name, value in facts.items()}))
    if chosen := model.info.record("reasons"):
        display.console.print(display.chosen_table(model.info.options(), chosen))
    display.console.print(display.model_summary(model, next(model.parameters()).dtype))


def _unfinished(run: str) -> dict[str, str]:
    """Where a training was stopped before its end."""
    progress = RunFolder(run, {}).progress() if Path(run, "last").is_dir() else None
    if not progress or progress.get("done"):
        return {}
    return {"unfinished": f"stopped at step {progress['step']:,}; the same command goes on"}


def facts_of(model: Model) -> dict[str, Any]:
    """Facts about a model and its training, and its validation figures, by name."""
    training, info = model.info.training, model.info
    options = info.options()
    facts = {
        "task": info.task,
        "unit": "sequences that end with EOS" if info.ends_with_eos else "a stream of text",
        "vocabulary": f"{len(model.tokenizer):,} ({model.tokenizer.kind})",
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": info.data,
        "taught by": ", ".join(info.teachers()),
        "command": training.get("command", ""),
        "budget": options.get("budget", ""),
        "seed": options.get("seed", ""),
        "date": training.get("date", ""),
        "trained": clock(seconds) if isinstance(seconds := info.metrics.get("seconds"), int | float) else "",
        "versions": ", ".join(f"{name} {value}" for name, value in info.record("versions").items()),
        "confidence": _confidence(model),
        "search": ", ".join(f"{k} {v}" for k, v in info.search.items()),
    }
    return {name: value for name, value in facts.items() if value != ""} | info.metrics


def _confidence(model: Model) -> str:
    """How well the model's confidence held where it was calibrated."""
    rows = calibration_rows(model.calibration) if model.calibration else []
    return "; ".join(f"{name} {value} {how}" for name, value, how in rows)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
