"""What the user left open is chosen once, from facts that were measured, and recorded with its reasons."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from gen.base import distributed
from gen.base.config import Budget, differences, flat, from_dict, to_dict
from gen.base.errors import UserError
from gen.models.model import Model
from gen.training.config import PASSING, TrainConfig, config_class
from gen.training.interfaces import Choice, Choices, Facts
from gen.training.step import Stepper
from gen.training.task import Task

MOST_MEASURING = 0.03
"""Share of a budget of time that measuring the machine's speed may take; and no longer than:"""

ENOUGH_MEASURING = 4.0
"""Seconds."""

UNMEASURED = 20_000.0
"""Target tokens per second with which the reference sizes are found, before anything is measured."""


@dataclass(frozen=True)
class Resolved:
    """The options of a training with nothing left open.

    Attributes:
        config: all options.
        reasons: option name → why it has its value, for those that were chosen.
        measured: facts by name, such as ``tokens_per_second``.
    """

    config: TrainConfig
    reasons: dict[str, str]
    measured: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``resolved.yaml``."""
        options = {name: value for name, value in to_dict(self.config).items() if value != {}}
        return {"options": options, "reasons": self.reasons, "measured": self.measured}

    @classmethod
    def read(cls, values: Mapping[str, Any], asked: TrainConfig, task: type[Task], where: str) -> Resolved:
        """What `to_dict` gave, with those options of ``asked`` that may change when a run goes on.

        Raises:
            UserError: the values are not those of such a training.
        """
        errors: list[str] = []
        config = from_dict(config_class(task), values["options"], "", errors)
        groups = (config.data, config.model, config.extra, config.train)
        errors += [] if errors else [line for group in groups for line in group.errors()]
        before, now = flat(to_dict(asked)), flat(to_dict(config))
        fixed = {n: v for n, v in before.items() if n in now and n not in PASSING and v is not None}
        errors += differences(fixed, {n: now[n] for n in fixed})
        errors += [
            f"--{name.replace('_', '-')} is not chosen" for name in values["reasons"] if now.get(name) is None
        ]
        if errors:
            raise UserError(f"{where}: {errors[0]}; delete the run, or choose another --out")
        passing = {f.name: getattr(asked.train, f.name) for f in fields(asked.train) if f.name in PASSING}
        config = replace(config, out=asked.out, train=replace(config.train, **passing))
        return cls(config, dict(values["reasons"]), dict(values.get("measured") or {}))


def resolve(
    task: Task, asked: TrainConfig, split: Any, measure: Callable[[TrainConfig, float], float] | None = None
) -> Resolved:
    """Fills in what is None.

    Args:
        task: whose `defaults` choose.
        asked: what the user asked for.
        split: what the task has read.
        measure: (options with everything chosen, seconds it may take) → target tokens per second of training with
            them on this machine; None: `UNMEASURED` is assumed. Not called where the budget is no time, or where
            nothing is open.
    """
    budget = Budget.parse(asked.train.budget)
    num_tokens = split.num_tokens
    if budget.unit == "epochs":
        tokens = budget.amount * num_tokens
    elif budget.unit == "steps":
        tokens = budget.amount * task.tokens_per_step(asked)
    else:
        tokens = budget.amount * UNMEASURED
    facts = Facts(split, num_tokens, budget, tokens)
    chosen = _open(asked, task.defaults(facts))
    measured: dict[str, Any] = {}
    if budget.unit == "seconds" and measure is not None and chosen:
        limit = min(MOST_MEASURING * budget.amount, ENOUGH_MEASURING)
        reference = {n: Choice(value, "") for n, value in task.reference.items() if n in chosen}
        speed = measure(_filled(asked, {**chosen, **reference}), limit)
        measured["tokens_per_second"] = round(speed)
        facts = replace(facts, tokens=budget.amount * speed)
        chosen = _open(asked, task.defaults(facts))
    measured["passes"] = float(f"{facts.passes:.3g}")
    return Resolved(_filled(asked, chosen), {name: choice.reason for name, choice in chosen.items()}, measured)


def _open(asked: TrainConfig, choices: Choices) -> Choices:
    """The choices for options that the user left open."""
    given = flat(to_dict(asked))
    return {name: choice for name, choice in choices.items() if given.get(name) is None}


def _filled(asked: TrainConfig, chosen: Choices) -> TrainConfig:
    """The options with those that were chosen."""
    values = {**flat(to_dict(asked)), **{name: choice.value for name, choice in chosen.items()}}
    return from_dict(type(asked), values, "", [])


def measure_speed(task: Task, model: Model, batches: Any, options: Any, seconds: float) -> float:
    """Target tokens per second of real training steps of a real model, over all processes.

    The first step makes kernels and fills caches, so it does not count where there is time for others. Of those,
    the faster quarter decides: whatever else the machine does in these seconds would not last for all of the
    training.
    """
    stepper = Stepper(model.train(), task, options)
    began = time.perf_counter()
    rates: list[float] = []
    for batch in _endless(batches):
        before = time.perf_counter()
        result = stepper([replace(batch, continues=False)], None, 0.0)
        float(result.loss_sum)  # waits for the device
        now = time.perf_counter()
        elapsed, taken = distributed.all_reduce_max(now - began, now - before)
        (num_tokens,) = distributed.all_reduce_sum(result.num_tokens)
        rates.append(num_tokens / max(taken, 1e-9))
        # Another step must not go past the limit.
        if elapsed * (len(rates) + 1) / len(rates) > seconds:
            break
    return float(np.quantile(rates[1:] or rates, 0.75))


def _endless(batches: Any) -> Any:
    epoch = 0
    while True:
        yield from batches.epoch(epoch)
        epoch += 1
