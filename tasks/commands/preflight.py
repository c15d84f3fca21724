"""Before a long training: does everything fit, does it learn, at which rate, where does the time go."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np

from gen.base import distributed
from gen.base.errors import UserError
from gen.metrics.plots import plot_rates
from gen.models.batch import Batch
from gen.models.model import Model
from gen.training import machine
from gen.training.display import clock
from gen.training.options import TrainOptions
from gen.training.step import Stepper
from gen.training.task import Task
from tasks import display


@dataclass(frozen=True)
class Tools:
    """Things to try instead of training; none of them trains."""

    dry_run: bool = False
    """Build everything, do two steps, and say what it takes: sizes, memory, time an epoch. Writes nothing."""
    overfit: bool = False
    """Learn one batch by heart, to see that the model can. Writes nothing."""
    find_rate: bool = False
    """Try learning rates from small to large and suggest one, with a plot beside --out."""
    profile: int = 0
    """Profile this many steps: a table, and a trace beside --out for chrome://tracing or Perfetto."""

    @property
    def preflight(self) -> bool:
        """Whether something is tried instead of training."""
        return self.dry_run or self.overfit or self.find_rate or self.profile > 0

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        return [f"--profile must be 0 or more, not {self.profile}"] if self.profile < 0 else []


def preflight(model: Model, task: Task, options: TrainOptions, tools: Tools, out: Path) -> None:
    """Does what ``tools`` ask for, each from the same first weights.

    Args:
        model: on its device.
        task: to train on.
        options: with everything chosen that was left open.
        tools: what to do.
        out: the run folder that training would use; plots and traces go beside it.
    """
    first = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.train()
    trace, plot = (out.with_name(f"{out.name}-{name}") for name in ("trace.json", "rates.png"))
    for asked, work in (
        (tools.dry_run, dry_run),
        (tools.profile, partial(profile, steps=tools.profile, trace=trace)),
        (tools.find_rate, partial(find_rate, plot=plot)),
        (tools.overfit, overfit),
    ):
        if asked:
            model.load_state_dict(first)
            work(model, task, options)


class _Trainer:
    """Steps without a run: the same ones that training does."""

    def __init__(self, model: Model, task: Task, options: TrainOptions) -> None:
        self._step = Stepper(model, task, options)
        self._batches = _endless(task)
        self._accumulate = options.accumulate

    def step(self, rate: float, group: list[Batch] | None = None) -> float:
        """A step at a learning rate; returns the loss a token before it."""
        for parameters in self._step.optimizer.param_groups:
            parameters["lr"] = rate * parameters["factor"]
        group = group or list(islice(self._batches, self._accumulate))
        result = self._step(group, None, 0.0)
        loss_sum, num_tokens = distributed.all_reduce_sum(float(result.loss_sum), result.num_tokens)
        return loss_sum / max(num_tokens, 1)


def _endless(task: Task) -> Iterator[Batch]:
    """The batches of all epochs, each as if it were the first of a text: these steps carry no state."""
    for epoch in count():
        for batch in task.batches.epoch(epoch):
            yield replace(batch, continues=False)


def dry_run(model: Model, task: Task, options: TrainOptions) -> None:
    """Two steps and a short validation."""
    trainer = _Trainer(model, task, options)
    trainer.step(options.peak_rate)  # the first one also fills caches
    began = time.perf_counter()
    trainer.step(options.peak_rate)
    seconds = time.perf_counter() - began
    task.validate(model, quick=True)
    steps = -(-task.batches.batches_per_epoch // options.accumulate)
    rows = {
        "steps an epoch": f"{steps:,}",
        "a step": f"{seconds:.2f} s",
        "an epoch": f"about {clock(seconds * steps)}",
        "peak memory": f"{machine.peak_memory(model.device) / 2**20:,.0f} MB",
    }
    display.console.print(display.table("Dry run", rows))


def overfit(model: Model, task: Task, options: TrainOptions, steps: int = 200) -> float:
    """Learns one batch by heart; returns the share of its loss that is left."""
    trainer = _Trainer(model, task, replace(options, label_smoothing=0.0, r_drop=0.0, coverage=0.0))
    batch = next(_endless(task))
    if batch.target_ids.numel() == 0:
        raise UserError("--overfit: this objective has no targets that could be learned by heart")

    def loss() -> float:
        loss_sum, num_tokens = distributed.all_reduce_sum(*model.evaluate(iter([batch])))
        return loss_sum / max(num_tokens, 1)

    before = loss()
    display.say(f"One batch of {len(batch.input_ids)} rows: {before:.3f} nats a token")
    for step in range(1, steps + 1):
        trainer.step(options.peak_rate * min(1.0, step / 10), [batch])
        if step % (steps // 4) == 0:
            display.say(f"after {step} steps: {loss():.3f}")
    left = loss() / before
    verdict = "it can learn" if left < 0.2 else "it hardly learns: look at --learning-rate, the sizes, the data"
    display.say(f"{left:.0%} of the loss is left: {verdict}.")
    return left


def find_rate(model: Model, task: Task, options: TrainOptions, plot: Path, steps: int = 100) -> float:
    """A range test (Smith, 2017): the learning rate grows step by step until the loss explodes.

    Returns:
        The rate at which the loss fell fastest.
    """
    trainer = _Trainer(model, task, options)
    rates = np.geomspace(1e-5, 1.0, steps)
    losses: list[float] = []
    for rate in rates:
        losses.append(trainer.step(float(rate)))
        if not math.isfinite(losses[-1]) or losses[-1] > 2 * losses[0]:
            break
    smooth = _smoothed(losses)
    slopes = np.gradient(smooth) if len(smooth) > 1 else np.zeros(1)
    best = float(rates[int(np.argmin(slopes))])
    if distributed.is_main():
        plot.parent.mkdir(parents=True, exist_ok=True)
        plot_rates(rates[: len(losses)].tolist(), smooth.tolist(), best, plot)
    display.say(
        f"The loss fell fastest at a learning rate of {best:.2g}; --learning-rate is {options.peak_rate:g}."
    )
    display.say(f"Plot: {plot}")
    return best


def _smoothed(losses: list[float], decay: float = 0.9) -> np.ndarray:
    """An exponential moving average, corrected for its beginning."""
    mean, smooth = 0.0, []
    for i, loss in enumerate(x for x in losses if math.isfinite(x)):
        mean = decay * mean + (1 - decay) * loss
        smooth.append(mean / (1 - decay ** (i + 1)))
    return np.array(smooth)


def profile(model: Model, task: Task, options: TrainOptions, steps: int, trace: Path) -> None:
    """Profiles some steps after two that warm up."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    trainer = _Trainer(model, task, options)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (model.device.type == "cuda")
    for _ in range(2):
        trainer.step(options.peak_rate)
    with profiler(activities=activities) as recorded:
        for _ in range(steps):
            trainer.step(options.peak_rate)
    key = "self_cuda_time_total" if model.device.type == "cuda" else "self_cpu_time_total"
    display.say(recorded.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=40))
    if not distributed.is_main():
        return
    trace.parent.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(trace))
    display.say(f"Trace: {trace}")
