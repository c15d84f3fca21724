"""Choosing values for options that are None, once, from measured facts, with a reason each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any

import numpy as np

from gen.base import distributed
from gen.base.config import Budget, differences, flat, from_dict, to_dict
from gen.base.errors import ConfigError, UserError, flag
from gen.datasets.batches import Batches
from gen.models.model import Model
from gen.training.config import PASSING, TrainConfig, errors_in
from gen.training.interfaces import Choice, Choices, Facts
from gen.training.options import TrainOptions
from gen.training.task import Task
from gen.training.trial import Trial

MOST_MEASURING = 0.03
"""Largest share of a budget of time for measuring the machine's speed."""

LONGEST_MEASURING = 4.0
"""Seconds after which measuring ends in any case."""

UNMEASURED = 20_000.0
"""Assumed target tokens per second, for choosing the options to measure with."""


@dataclass(frozen=True)
class Resolved:
    """The options of a training with all choices made.

    Attributes:
        config: the options; none is None that the task chooses.
        reasons: option name → the reason for its value, for chosen options.
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
    def read(cls, values: Mapping[str, Any], asked: TrainConfig, where: str) -> Resolved:
        """Restores what `to_dict` returned, with the options in `PASSING` from ``asked``.

        Raises:
            UserError: the values do not fit the options that were asked for.
        """
        errors: list[str] = []
        config = from_dict(type(asked), values["options"], "", errors)
        errors += [] if errors else errors_in(config.data, config.model, config.extra, config.train)
        before, now = flat(to_dict(asked)), flat(to_dict(config))
        free = {*PASSING, "budget"}  # a run that is done may go on with a larger one
        fixed = {n: v for n, v in before.items() if n in now and n not in free and v is not None}
        errors += differences(fixed, {n: now[n] for n in fixed})
        errors += [f"{flag(name)} has no value" for name in values["reasons"] if now.get(name) is None]
        if not all(isinstance(reason, str) for reason in values["reasons"].values()):
            errors.append("its reasons are no texts")
        if errors:
            raise UserError(f"{where}: {errors[0]}; delete the run, or choose another --out")
        passing = {f.name: getattr(asked.train, f.name) for f in fields(asked.train) if f.name in free}
        config = replace(config, out=asked.out, train=replace(config.train, **passing))
        return cls(config, dict(values["reasons"]), dict(values.get("measured") or {}))


def resolve(
    task: Task, asked: TrainConfig, split: Any, measure: Callable[[TrainConfig, float], float] | None = None
) -> Resolved:
    """Chooses values for options that are None.

    Args:
        task: its `defaults` choose.
        asked: the options as the user gave them.
        split: what the task has read.
        measure: (options with all choices made, time limit in seconds) → target tokens per second of training with
            them on this machine; None: assume `UNMEASURED`. Called only for a budget of time, and only if there is
            something to choose.
    """
    budget = Budget.parse(asked.train.budget)
    num_tokens = split.num_tokens
    if budget.unit == "epochs":
        tokens = budget.amount * num_tokens
    elif budget.unit == "steps":
        first = _choices(task, asked, Facts(split, num_tokens, budget, num_tokens))  # the sizes of batches
        tokens = budget.amount * task.tokens_per_step(_filled(asked, first))
    else:
        tokens = budget.amount * UNMEASURED
    facts = Facts(split, num_tokens, budget, tokens)
    chosen = _choices(task, asked, facts)
    measured: dict[str, Any] = {}
    if budget.unit == "seconds" and measure is not None and chosen:
        limit = min(MOST_MEASURING * budget.amount, LONGEST_MEASURING)
        reference = {n: Choice(value, "") for n, value in task.reference.items() if n in chosen}
        speed = measure(_filled(asked, {**chosen, **reference}), limit)
        measured["tokens_per_second"] = round(speed)
        facts = replace(facts, tokens=budget.amount * speed)
        chosen = _choices(task, asked, facts)
    measured["passes"] = float(f"{facts.passes:.3g}")
    return Resolved(_filled(asked, chosen), {name: choice.reason for name, choice in chosen.items()}, measured)


def _choices(task: Task, asked: TrainConfig, facts: Facts) -> Choices:
    """The choices for options that are None."""
    given, choices = flat(to_dict(asked)), dict(task.defaults(facts))
    fixed: set[str] = set()
    if asked.train.init_from:  # a trained model has its sizes, and is not pulled towards zero more than before
        fixed = {f.name for f in fields(asked.model)} - task.changeable | {"weight_decay"}
    chosen = {n: choice for n, choice in choices.items() if given.get(n) is None and n not in fixed}
    if given.get("weight_decay") is None and "weight_decay" not in {*chosen, *fixed}:
        filled = _filled(asked, chosen)
        steps = facts.tokens / max(task.tokens_per_step(filled), 1)
        chosen["weight_decay"] = weight_decay(filled.train.peak_rate, steps, facts.passes)
    return chosen


def weight_decay(rate: float, steps: float, passes: float) -> Choice:
    """More of it for fewer steps, and for more passes over the data.

    AdamW shrinks weights by rate · decay in each step, so it forgets what it learned 1 / (rate · decay) steps ago.
    That should be some passes over the data (Wang and Aitchison, "How to set AdamW's weight decay as you scale
    model and dataset size", 2024): four at the peak of the rate, or a third of the training if that is less.

    Args:
        rate: peak learning rate.
        steps: optimizer steps that fit into the budget.
        passes: passes over the training data that fit into it.

    Example:
        >>> weight_decay(0.005, 5000, passes=4).value, weight_decay(0.005, 1800, passes=46).value
        (0.12, 0.5)
    """
    # Passes, and decays with what they gave (in brackets rate · decay · steps):
    #  6  Shakespeare: 0.03 1.429 nats (0.7), 0.1 1.419 (2.4), 0.2 1.419 (4.8), 0.4 1.450 (9.6)
    # 12  Multi30k: 0.03 38.2 BLEU (0.4), 0.2 40.1 (2.7), 0.4 39.3 (5.4)
    # 16  captions of Flickr8k: 0.2 CIDEr-D 53.0 (2.4), 0.39 55.0 (4.7)
    # 31  200,000 characters: 0.12 1.853 nats (1.9), 0.4 1.795 (6.2), 0.8 1.816 (12)
    # 46  5,000 pairs: 0.2 23.9 BLEU (1.8), 0.7 25.1 (6.3)
    value = float(np.clip(max(3.0, passes / 4) / (rate * max(steps, 1.0)), 0.03, 0.5))
    return Choice(float(f"{value:.2g}"), f"{steps:,.0f} steps, {passes:.2g} passes, fit into the budget")


def _filled(asked: TrainConfig, chosen: Choices) -> TrainConfig:
    """The options with the chosen values. Raises `ConfigError` for one that there is not, or of the wrong type."""
    values = {**flat(to_dict(asked)), **{name: choice.value for name, choice in chosen.items()}}
    errors: list[str] = []
    config = from_dict(type(asked), values, "", errors)
    if errors:
        raise ConfigError(errors)
    return config


def measure_speed(task: Task, model: Model, batches: Batches, options: TrainOptions, seconds: float) -> float:
    """Measures real training steps of one batch each, for about ``seconds`` (at least one step).

    The first step compiles kernels and fills caches, so it is not counted if there is time for others. The faster
    quarter of those decides: other work on the machine in these few seconds would not last for the whole training.

    Returns:
        Target tokens per second over all processes.
    """
    trial = Trial(model, task, replace(options, accumulate=1), batches)
    if model.device.type == "cuda":  # the first step loads libraries and kernels, for longer than there is
        trial.step(options.peak_rate)
    began = time.perf_counter()
    rates: list[float] = []
    before, tokens = 0.0, trial.tokens
    for number in count(1):
        trial.step(options.peak_rate)
        (elapsed,) = distributed.all_reduce_max(time.perf_counter() - began)
        rates.append((trial.tokens - tokens) / max(elapsed - before, 1e-9))
        if elapsed * (number + 1) / number > seconds:  # another step would exceed the limit
            break
        before, tokens = elapsed, trial.tokens
    return float(np.quantile(rates[1:] or rates, 0.75))
