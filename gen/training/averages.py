"""Averages of weights: a moving one over all steps, and the mean of several validated ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gen.models.model import Model

Weights = list[Tensor]
"""Those of a model's parameters that learn, in the order of ``model.parameters()``."""


def trainable(model: Model) -> Weights:
    """The model's own weights that learn: a frozen trunk is nobody's average."""
    return [p for p in model.parameters() if p.requires_grad]


def copy_of(model: Model) -> Weights:
    """The model's weights as they are now."""
    return [p.detach().clone() for p in trainable(model)]


def mean(several: list[Weights]) -> Weights:
    """The mean of several models' weights.

    Example:
        >>> mean([[torch.tensor([1.0])], [torch.tensor([3.0])]])
        [tensor([2.])]
    """
    return [torch.stack(each).mean(0) for each in zip(*several, strict=True)]


@contextmanager
def swapped(model: Model, weights: Weights | None) -> Iterator[None]:
    """The model with other weights for as long as it lasts. None: with its own."""
    if weights is None:
        yield
        return
    own = copy_of(model)
    put(model, weights)
    try:
        yield
    finally:
        put(model, own)


@torch.no_grad()
def put(model: Model, weights: Weights) -> None:
    """Sets the model's weights."""
    for parameter, weight in zip(trainable(model), weights, strict=True):
        parameter.copy_(weight)


class Averages:
    """What may be better than the last weights.

    * An exponential moving average of the weights along the way (Polyak and Juditsky, 1992), with a decay that
      grows as (1 + step) / (10 + step) up to ``ema``, so that the first weights are soon forgotten.
    * The mean of the weights of the last, or of the best, ``count`` validations.

    Args:
        model: whose weights.
        ema: the decay a step; 0: no moving average.
        count: how many validated weights to average; 0: none.
        best: take the best ones instead of the last ones.
    """

    EVERY = 8  # steps between updates: the weights move little in that time, and each update reads all of them

    def __init__(self, model: Model, ema: float = 0.0, count: int = 0, best: bool = False) -> None:
        self.ema, self.count, self.best = ema, count, best
        self.moving: Weights | None = copy_of(model) if ema else None
        self.kept: list[tuple[float, Weights]] = []

    def step(self, model: Model, step: int) -> None:
        """Called after every optimizer step, counted from 1."""
        if self.moving is None or step % self.EVERY:
            return
        decay = min(self.ema, (1 + step) / (10 + step)) ** self.EVERY
        with torch.no_grad():
            torch._foreach_lerp_(self.moving, trainable(model), 1 - decay)

    def validated(self, weights: Weights, goodness: float) -> None:
        """Called with the weights that have just been validated; larger ``goodness`` is better."""
        if self.count:
            self.kept.append((goodness, [w.detach().clone() for w in weights]))
            if self.best:
                self.kept.sort(key=lambda item: -item[0])
                del self.kept[self.count :]
            else:
                del self.kept[: -self.count]

    def mean(self) -> Weights | None:
        """The mean of the validated weights that are kept; None for fewer than two."""
        return mean([weights for _, weights in self.kept]) if len(self.kept) > 1 else None

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, to go on from."""
        return {"moving": self.moving, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any], model: Model) -> None:
        """Goes on from what `state_dict` returned, on the model's device."""

        def here(weights: Weights) -> Weights:
            return [w.to(model.device) for w in weights]

        self.moving = None if state["moving"] is None else here(state["moving"])
        self.kept = [(goodness, here(weights)) for goodness, weights in state["kept"]]
