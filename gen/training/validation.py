"""Validation: where training stands, what is reported, and which weights are kept as the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from gen.base import distributed
from gen.models.device import autocast
from gen.models.model import Model
from gen.training.averages import Averages, Weights, swapped, trainable
from gen.training.run_folder import RunFolder
from gen.training.task import Task


@dataclass
class Progress:
    """Where training stands; saved with the model."""

    step: int = 0
    epoch: int = 0
    position: int = 0  # batches of the epoch that are done
    seconds: float = 0.0
    tokens: int = 0
    best: float | None = None
    since_best: int = 0
    rate_factor: float = 1.0  # halved on a plateau, and after gradients that were not finite
    next_validation: float = 0.0
    skipped: int = 0  # steps whose gradient was not finite
    bad: int = 0  # such steps in a row
    returns: int = 0  # to the last good checkpoint because of them
    done: bool = False


@dataclass
class Event:
    """Progress, as it is passed to callbacks.

    Attributes:
        progress: the state of the training.
        share: of the budget, 0 to 1.
        loss: nats per token over the last steps.
        tokens_per_second: over the last steps.
        learning_rate: at the moment.
        memory: the most that was held so far, in bytes: the GPU's, or the process's.
        validation: the figures, after a validation.
        stop: call it to end the training after this step; it is saved and can go on.
    """

    progress: Progress
    share: float
    loss: float
    tokens_per_second: float
    learning_rate: float
    memory: int = 0
    validation: dict[str, Any] = field(default_factory=dict)
    stop: Callable[[], None] = lambda: None

    def record(self) -> dict[str, Any]:
        """A line of ``metrics.jsonl``."""
        return {
            "step": self.progress.step,
            "seconds": round(self.progress.seconds, 2),
            "epoch": self.progress.epoch,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "tokens_per_second": round(self.tokens_per_second),
            "memory_mb": round(self.memory / 2**20),
            **({"skipped": self.progress.skipped} if self.progress.skipped else {}),
        }


class Validator:
    """Validates weights and keeps the best as ``best/``.

    With a moving average it is the average that is validated, until the end, where the last weights and the mean
    of several are tried as well.

    Args:
        model, task, averages, run: of the training.
        dtype: to compute in.
    """

    def __init__(self, model: Model, task: Task, averages: Averages, run: RunFolder, dtype: torch.dtype) -> None:
        self.model, self.task, self.averages, self.run, self.dtype = model, task, averages, run, dtype

    def validate(self, event: Event) -> dict[str, Any]:
        """Figures of the weights as they are now, or of their moving average."""
        now, moving = event.progress, self.averages.moving
        figures, better = self._try("moving average" if moving else "last", moving, event)
        self.averages.validated(moving or trainable(self.model), self.task.metric.goodness(figures))
        now.since_best = 0 if better else now.since_best + 1
        return figures

    def finish(self, event: Event) -> None:
        """Tries what `validate` did not."""
        if self.averages.moving:
            self._try("last", None, event)
        if (mean := self.averages.mean()) is not None:
            self._try(f"mean of {len(self.averages.kept)}", mean, event)

    def _try(self, name: str, weights: Weights | None, event: Event) -> tuple[dict[str, Any], bool]:
        """Figures of some weights, and whether they are the best so far."""
        now, metric = event.progress, self.task.metric
        with swapped(self.model, weights):
            with autocast(self.model.device, self.dtype):
                found = self.task.validate(self.model)
            figures, value = found.figures, found.figures[metric.name]
            best = {} if now.best is None else {metric.name: now.best}
            better = not best or math.isnan(best[metric.name]) or metric.goodness(figures) > metric.goodness(best)
            if better:
                rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
                when = {"step": now.step, "seconds": round(now.seconds, 1), "weights": name}
                saved = self.run.save_best(self.model, {**when, **rounded})
                if all(distributed.all_gather(saved)):  # else the next as good are saved
                    now.best = value
            record = {**event.record(), "weights": name, "validation": figures}
            if distributed.is_main():
                title = f"{name} weights ({metric.name} {value:.3f})"
                record["samples"] = self.run.add_samples(now.step, title, self.task.sample(self.model, found))
            self.run.log(record)
        return figures, better
