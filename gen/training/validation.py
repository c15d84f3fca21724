"""Validation: the progress of a training, its events, and the choice of the best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, get_type_hints

import torch

from gen.base import distributed
from gen.base.fields import convert
from gen.models.device import autocast
from gen.models.model import Model
from gen.training.averages import Averages, Weights, swapped, trainable
from gen.training.interfaces import Metric, is_better, rank
from gen.training.run_folder import RunFolder
from gen.training.task import Task


@dataclass
class Progress:
    """The progress of a training; saved with the training state."""

    step: int = 0
    epoch: int = 0
    position: int = 0  # finished batches of the epoch
    seconds: float = 0.0
    tokens: int = 0
    best: float | None = None  # the deciding metric of the best weights
    best_figures: dict[str, float] = field(default_factory=dict)  # all metrics; older versions saved none
    since_best: int = 0
    budget: str = ""  # the option, of the schedule that is under way or done
    offset: float = 0.0  # what was used up before this schedule, in the budget's unit
    rate_factor: float = 1.0  # halved on a plateau, and after gradients that were not finite
    next_validation: float = 0.0
    skipped: int = 0  # steps whose gradient was not finite
    bad: int = 0  # consecutive ones
    returns: int = 0  # to the last good checkpoint, because of them
    done: bool = False


def read_progress(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a saved `Progress`; an older version may have had fewer.

    Raises:
        ValueError, TypeError: one makes no sense, or there is no step.
    """
    if "step" not in saved:
        raise ValueError("it has no step")
    hints = get_type_hints(Progress)
    found = {name: convert(saved[name], hint, text=False) for name, hint in hints.items() if name in saved}
    for name, value in found.items():
        if isinstance(value, int | float) and name != "best" and not 0 <= value < 2**53:
            raise ValueError(f"{name} is {value}")
    return found


@dataclass
class Event:
    """The progress of a training, as passed to callbacks.

    Attributes:
        progress: the state of the training.
        share: the used share of the budget, 0 to 1.
        loss: mean over the last steps, nats per token.
        tokens_per_second: over the last steps.
        learning_rate: the current learning rate.
        memory: peak memory so far in bytes, of the GPU or the process.
        validation: figures by name; empty unless a validation has just ended.
        stop: call it to end the training after this step; its state is saved.
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
    """Validates weights and saves the best as ``best/``.

    With a moving average, the average is validated. At the end, the last weights and the mean of several validated
    weights are validated, too.

    Args:
        model, task, averages, run: of the training.
        dtype: of the matrix products.
    """

    def __init__(self, model: Model, task: Task, averages: Averages, run: RunFolder, dtype: torch.dtype) -> None:
        self.model, self.task, self.averages, self.run, self.dtype = model, task, averages, run, dtype

    def validate(self, event: Event) -> dict[str, Any]:
        """Validates the current weights or their moving average. Returns the figures."""
        now, moving = event.progress, self.averages.moving
        figures, better = self._try("moving average" if moving else "last", moving, event)
        self.averages.validated(moving or trainable(self.model), rank(self.task.metrics, figures))
        now.since_best = 0 if better else now.since_best + 1
        return figures

    def finish(self, event: Event) -> None:
        """Validates the weights that `validate` does not: the last ones and the mean of several. Tells the user if
        the deciding metric was always the same."""
        if self.averages.moving:
            self._try("last", None, event)
        if (mean := self.averages.mean()) is not None:
            self._try(f"mean of {len(self.averages.kept)}", mean, event)
        if distributed.is_main() and (tied := tie_of(self.task, self.run)):
            decided, reason = tied
            self.task.say(f"Note: {reason}; {decided} decided which weights are best.")

    def _try(self, name: str, weights: Weights | None, event: Event) -> tuple[dict[str, Any], bool]:
        """Validates weights (None: the current ones). Returns the figures and whether they are the best so far."""
        now, metrics = event.progress, self.task.metrics
        with swapped(self.model, weights):
            with autocast(self.model.device, self.dtype):
                found = self.task.validate(self.model)
            figures, first = found.figures, metrics[0].name
            value = figures[first]
            best = {} if now.best is None else now.best_figures or {first: now.best}
            better = not best or is_better(metrics, figures, best)
            samples = self.task.sample(self.model, found) if distributed.is_main() else ""
            if better:
                rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
                when = {"step": now.step, "seconds": round(now.seconds, 1), "weights": name}
                saved = self.run.save_best(self.model, {**when, **rounded}, samples)
                if all(distributed.all_gather(saved)):  # else a later tie is saved
                    now.best = value
                    now.best_figures = {m.name: float(figures[m.name]) for m in metrics if m.name in figures}
            record = {**event.record(), "weights": name, "validation": figures}
            if distributed.is_main():
                title = f"{name} weights ({first} {value:.3f})"
                record["samples"] = self.run.add_samples(now.step, title, samples)
            self.run.log(record)
        return figures, better


def tie_of(task: Task, run: RunFolder) -> tuple[str, str] | None:
    """`broken_tie` of a run. The task's own metric comes first also where another one was chosen in its place: the
    user did not ask for that one."""
    chosen = "best" in (run.chosen or {}).get("reasons", {})
    return broken_tie(sorted(task.metrics, key=lambda m: chosen and m != task.metric), run.records())


def broken_tie(metrics: Sequence[Metric], records: Iterable[Mapping[str, Any]]) -> tuple[str, str] | None:
    """The metric that decided which weights are best in place of the first one, and why: those before it were the
    same at all validations. None if the first one could decide.

    Args:
        metrics: see `gen.training.task.Task.metrics`.
        records: of ``metrics.jsonl``.
    """
    validated = [record for record in records if isinstance(record.get("validation"), dict)]
    found = [record["validation"] for record in validated]
    metrics = [m for m in metrics if all(m.name in figures for figures in found)]
    values = {m: {str(figures[m.name]) for figures in found} for m in metrics}
    same = list(takewhile(lambda m: len(values[m]) == 1, metrics))
    if len({record.get("step") for record in validated}) < 2 or not same or len(same) == len(metrics):
        return None
    named = " and ".join(f"{m} was {found[0][m.name]:g}" for m in same)
    return str(metrics[len(same)]), f"{named} at all {len(found)} validations and cannot tell weights apart"


class Window:
    """Sums over the steps since the last report; tensors, so that steps do not wait for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.loss = math.nan  # of the last report; kept until there are new steps
        self.speed = 0.0
        self.restart()

    def restart(self) -> None:
        """Forgets the sums, and starts the clock again."""
        self.began = time.monotonic()
        self.loss_sum = torch.zeros((), device=self.device)
        self.num_tokens = 0

    def add(self, loss_sum: torch.Tensor, num_tokens: int) -> None:
        """Adds a step: its summed loss in nats, a scalar on the device, and its number of target tokens."""
        self.loss_sum = self.loss_sum + loss_sum
        self.num_tokens += num_tokens

    def close(self, now: Progress) -> tuple[float, float]:
        """Mean loss (nats per token) and tokens per second of all processes since the last call."""
        loss_sum, num_tokens = distributed.all_reduce_sum(float(self.loss_sum), self.num_tokens)
        if num_tokens:
            self.loss = loss_sum / num_tokens
            self.speed = num_tokens / max(time.monotonic() - self.began, 1e-9)
            now.tokens += int(num_tokens)
        self.restart()
        return self.loss, self.speed

    def state_dict(self) -> dict[str, Any]:
        """The sums and their time, to resume from."""
        seconds = time.monotonic() - self.began
        sums = {"loss_sum": self.loss_sum.cpu(), "num_tokens": self.num_tokens, "seconds": seconds}
        return {"loss": self.loss, **sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.restart()
        self.loss, self.num_tokens = float(state["loss"]), int(state["num_tokens"])
        self.began -= float(state.get("seconds", 0.0))  # older versions saved none
        self.loss_sum = state["loss_sum"].to(self.device).reshape(())


def next_validation(used: float, interval: float) -> float:
    """The share of the budget of the next validation; not shortly before the final one."""
    after = used + interval
    return after if after + interval / 2 < 1 else 1.0
