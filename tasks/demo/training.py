"""Training of the demo's models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gen.models.model import Model
from gen.training.config import make_config
from gen.training.registry import find_task
from gen.training.session import Session
from tasks.commands.train import train_watched


def train_part(
    task: str, out: Path, budget: str, *, name: str = "", **options: Any
) -> tuple[Model, Session, dict[str, Any]]:
    """Trains a model in ``out/name`` (default: the task's), or loads it if it is trained; see `train_watched`."""
    found = find_task(task)
    options |= {"budget": budget, "out": str(out / (name or task))}
    made = train_watched(found, make_config(found, options), options.keys(), f"gen demo --budget {budget}")
    assert made is not None  # the demo is one process, and trains
    return made
