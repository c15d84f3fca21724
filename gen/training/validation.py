"""Validation: what a task reports, and which weights are kept as the best."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from gen.base import distributed
from gen.datasets.batches import Batches
from gen.models.batch import Batch
from gen.models.decoder import DecoderState
from gen.models.device import autocast
from gen.models.model import LossOutput, Model
from gen.training.averages import Averages, Weights, swapped, trainable
from gen.training.options import TrainOptions
from gen.training.run_folder import RunFolder


class Task:
    """What the loop needs to know of a task: a base class.

    Attributes:
        batches: the training set.
        metric: the name of the figure in `validate`'s result by which models are compared.
        higher_is_better: its direction.
    """

    batches: Batches
    metric: str
    higher_is_better: bool = False

    def loss(
        self, model: Model, batch: Batch, state: DecoderState | None, options: TrainOptions, share: float
    ) -> LossOutput:
        """What to make small: by default the cross-entropy, with whatever the options add to it.

        Args:
            model: in training mode.
            batch: on the model's device.
            state: where the decoder stands, for a batch that carries on.
            options: of the training.
            share: of the budget that is used up, 0 to 1.
        """
        return model.loss(
            batch,
            state,
            options.label_smoothing or 0.0,
            coverage=options.coverage,
            r_drop=options.r_drop,
            scheduled_sampling=options.scheduled_sampling * share,
        )

    def validate(self, model: Model, *, quick: bool = False) -> dict[str, Any]:
        """Figures on held-out data, the same for every process; each does its share. ``quick`` reads two batches,
        to see that it works."""
        raise NotImplementedError

    def sample(self, model: Model) -> str:
        """A few outputs, as Markdown."""
        raise NotImplementedError


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
    """What the loop tells whoever watches it.

    Attributes:
        progress: where it stands.
        share: of the budget, 0 to 1.
        loss: nats a token over the last steps.
        tokens_per_second: over the last steps.
        learning_rate: at the moment.
        memory: the most that was held so far, in bytes: the GPU's, or the process's.
        validation: the figures, where it has just validated.
    """

    progress: Progress
    share: float
    loss: float
    tokens_per_second: float
    learning_rate: float
    memory: int = 0
    validation: dict[str, Any] = field(default_factory=dict)

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
        self.sign = 1.0 if task.higher_is_better else -1.0

    def validate(self, event: Event) -> dict[str, Any]:
        """Figures of the weights as they are now, or of their moving average."""
        now, before, self.unsaved = event.progress, event.progress.best, False
        moving = self.averages.moving
        figures = self._try("moving average" if moving else "last", moving, event)
        self.averages.validated(moving or trainable(self.model), self.sign * figures[self.task.metric])
        better = now.best != before or self.unsaved
        now.since_best = 0 if better else now.since_best + 1
        return figures

    def finish(self, event: Event) -> None:
        """Tries what `validate` did not."""
        if self.averages.moving:
            self._try("last", None, event)
        if (mean := self.averages.mean()) is not None:
            self._try(f"mean of {len(self.averages.kept)}", mean, event)

    def _try(self, name: str, weights: Weights | None, event: Event) -> dict[str, Any]:
        now, metric = event.progress, self.task.metric
        with swapped(self.model, weights):
            with autocast(self.model.device, self.dtype):
                figures = self.task.validate(self.model)
            value = figures[metric]
            if now.best is None or math.isnan(now.best) or self.sign * value > self.sign * now.best:
                rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
                self.model.info.metrics = {"step": now.step, "weights": name, **rounded}
                if all(distributed.all_gather(self.run.save_best(self.model))):
                    now.best = value
                else:
                    self.unsaved = True
            self.run.log({**event.record(), "weights": name, "validation": figures})
            if distributed.is_main():
                title = f"{name} weights ({metric} {value:.3f})"
                self.run.add_samples(now.step, title, self.task.sample(self.model))
        return figures
