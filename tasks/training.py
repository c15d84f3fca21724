"""What training is like for every task: the machine made ready, the run opened, the loop watched."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from gen import device as machine
from gen.config import from_dict, parse_command, to_dict
from gen.model import Model
from gen.optim import TrainOptions
from gen.plots import plot_losses
from gen.run import RunFolder
from gen.train import train
from gen.validation import Task
from tasks import display

T = TypeVar("T")


def start(options: TrainOptions) -> torch.device:
    """Allocator, seeds, device: before anything is made."""
    machine.tune_allocator()
    machine.seed_everything(options.seed)
    return machine.pick_device(options.device)


def fit(
    model: Model,
    task: Task,
    config: Any,
    options: TrainOptions,
    *,
    data: Any,
    describe: Callable[[Mapping[str, Any]], str],
) -> RunFolder:
    """Trains in the run folder ``config.out``, or goes on there, while the user watches.

    Args:
        model: on its device.
        task: data, validation, samples.
        config: what the user asked for; the run folder keeps it and refuses another.
        options: with everything chosen that was left open.
        data: a table of the data, to print.
        describe: validation figures in a few words.
    """
    run = RunFolder(config.out, {name: value for name, value in to_dict(config).items() if name != "out"})
    state = run.open()
    display.console.print(data)
    display.console.print(display.model_summary(model, machine.compute_dtype(options.precision, model.device)))
    if state and state["progress"]["done"]:
        display.say(f"{config.out} is already trained to the end of its budget.")
        return run
    if state:
        display.say(f"Going on from step {state['progress']['step']:,}.")
    with run.locked(), display.training_progress(options, describe) as watch:
        train(model, task, options, run, state, watch)
    (run.path / "plots").mkdir(exist_ok=True)
    metric = "" if task.metric == "loss" else task.metric
    plot_losses(list(run.records()), run.path / "plots" / "loss.png", metric=metric)
    return run


def closing(run: RunFolder, commands: Sequence[str]) -> None:
    """Where everything is, and what to type next."""
    display.say(f"Peak memory: {machine.peak_memory() / 2**20:,.0f} MB")
    display.say(f"Samples: {run.path}/samples.md   plot: {run.path}/plots/loss.png")
    display.say("Use it:\n\n" + "".join(f"  {line}\n" for line in commands))


def asked(model: Model, config: type[T]) -> T | None:
    """What was asked for when a model was trained; None where it does not say."""
    errors: list[str] = []
    found = from_dict(config, {k: v for k, v in model.info.training.items() if k != "command"}, "", errors)
    return None if errors else found


def command(config: type[Any], work: Callable[[Any, str], Any], argv: list[str], name: str) -> None:
    """`gen train …`: reads the options, works, and says how to go on where Ctrl-C ends it."""
    typed = f"{name} {shlex.join(argv)}"
    asked = parse_command(config, argv, name)
    try:
        work(asked, typed)
    except KeyboardInterrupt:
        if (Path(asked.out) / "last").exists():
            print(f"\nStopped and saved. The same command goes on from here:\n\n  {typed}\n", file=sys.stderr)
        raise
