"""Checks before a long training: memory and time, learning one batch, learning rates, a profile."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from gen.base import distributed
from gen.base.errors import UserError
from gen.metrics.plots import plot_rates
from gen.models.model import Model
from gen.training import machine
from gen.training.display import clock
from gen.training.options import TrainOptions
from gen.training.task import Task
from gen.training.trial import Trial
from tasks import display


@dataclass(frozen=True)
class Tools:
    """Checks to run instead of a training."""

    dry_run: bool = False
    """Build everything, do two steps, and print sizes, memory and time per epoch. Writes nothing."""
    overfit: bool = False
    """Overfit one batch, to check that the model can learn. Writes nothing."""
    find_rate: bool = False
    """Try learning rates from small to large and suggest one. Writes a plot next to --out."""
    profile: int = 0
    """Profile this many steps: a table, and a trace next to --out for chrome://tracing or Perfetto."""

    @property
    def preflight(self) -> bool:
        """Whether a check is asked for."""
        return self.dry_run or self.overfit or self.find_rate or self.profile > 0

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        return [f"--profile must be 0 or more, not {self.profile}"] if self.profile < 0 else []


def preflight(model: Model, task: Task, options: TrainOptions, tools: Tools, out: Path) -> None:
    """Runs the checks that ``tools`` asks for, each from the same initial weights.

    Args:
        model: on its device.
        task: with its ``batches``.
        options: with all choices made.
        tools: the checks.
        out: the run folder that training would use; plots and traces are written next to it. Without a name: into
            the working directory, as those of a folder "run".
    """
    out = out if out.name else out / "run"
    first = {name: weight.clone() for name, weight in model.state_dict().items()}
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


def dry_run(model: Model, task: Task, options: TrainOptions) -> None:
    """Two steps and a short validation."""
    trial = Trial(model, task, options)
    trial.step(options.peak_rate)  # the first step also fills caches
    began = time.perf_counter()
    trial.step(options.peak_rate)
    seconds = time.perf_counter() - began
    task.validate(model, quick=True)
    steps = -(-task.batches.batches_per_epoch // options.accumulate)
    rows = {
        "steps per epoch": f"{steps:,}",
        "time per step": f"{seconds:.2f} s",
        "time per epoch": f"about {clock(seconds * steps)}",
        "peak memory": f"{machine.peak_memory(model.device) / 2**20:,.0f} MB",
    }
    display.console.print(display.table("Dry run", rows))


def overfit(model: Model, task: Task, options: TrainOptions, steps: int = 200) -> float:
    """Overfits one batch. Returns the share of its loss that is left."""
    plain = replace(options, label_smoothing=0.0, r_drop=0.0, coverage=0.0)
    trial = Trial(model, task, plain)
    batch = next(trial.batches)
    if batch.target_ids.numel() == 0:
        raise UserError("--overfit: this objective has no targets to overfit")

    def loss() -> float:
        loss_sum, num_tokens = distributed.all_reduce_sum(*model.evaluate(iter([batch])))
        return loss_sum / max(num_tokens, 1)

    before = loss()
    display.say(f"One batch of {len(batch.input_ids)} rows: {before:.3f} nats per token")
    for step in range(1, steps + 1):
        trial.step(options.peak_rate * min(1.0, step / 10), [batch])
        if step % (steps // 4) == 0:
            display.say(f"after {step} steps: {loss():.3f}")
    left = loss() / before
    verdict = "it can learn" if left < 0.2 else "it hardly learns: check --learning-rate, the sizes and the data"
    display.say(f"{left:.0%} of the loss is left: {verdict}.")
    return left


def find_rate(model: Model, task: Task, options: TrainOptions, plot: Path, steps: int = 100) -> float:
    """A range test (Smith, 2017): the learning rate grows until the loss diverges.

    Returns:
        The rate at which the loss fell fastest.
    """
    trial = Trial(model, task, options)
    rates = np.geomspace(1e-5, 1.0, steps)
    losses: list[float] = []
    for rate in rates:
        losses.append(trial.step(float(rate)))
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
    """An exponential moving average with bias correction."""
    mean, smooth = 0.0, []
    for i, loss in enumerate(x for x in losses if math.isfinite(x)):
        mean = decay * mean + (1 - decay) * loss
        smooth.append(mean / (1 - decay ** (i + 1)))
    return np.array(smooth)


def profile(model: Model, task: Task, options: TrainOptions, steps: int, trace: Path) -> None:
    """Profiles ``steps`` steps after two warm-up steps."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    trial = Trial(model, task, options)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (model.device.type == "cuda")
    for _ in range(2):
        trial.step(options.peak_rate)
    with profiler(activities=activities) as recorded:
        for _ in range(steps):
            trial.step(options.peak_rate)
    key = "self_cuda_time_total" if model.device.type == "cuda" else "self_cpu_time_total"
    display.say(recorded.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=40))
    if not distributed.is_main():
        return
    trace.parent.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(trace))
    display.say(f"Trace: {trace}")
