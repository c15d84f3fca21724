"""Averages of weights: an exponential moving average over steps, and the mean of several validated weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gen.models.model import Model

Weights = list[Tensor]
"""The values of a model's trainable parameters, in the order of ``model.parameters()``."""


def trainable(model: Model) -> Weights:
    """The trainable parameters themselves, not copies; a frozen backbone is never averaged."""
    return [p for p in model.parameters() if p.requires_grad]


def copy_of(model: Model) -> Weights:
    """A copy of the model's trainable weights."""
    return [p.detach().clone() for p in trainable(model)]


def mean(several: list[Weights]) -> Weights:
    """The mean of several sets of weights.

    Example:
        >>> mean([[torch.tensor([1.0])], [torch.tensor([3.0])]])
        [tensor([2.])]
    """
    return [torch.stack(each).mean(0) for each in zip(*several, strict=True)]


@contextmanager
def swapped(model: Model, weights: Weights | None) -> Iterator[None]:
    """Gives the model other weights within the context; None leaves its own."""
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
    """Copies weights into the model's trainable parameters."""
    for parameter, weight in zip(trainable(model), weights, strict=True):
        parameter.copy_(weight)


class Averages:
    """Averages of weights, which often generalise better than the last weights.

    * An exponential moving average over training steps. Its decay grows as (1 + step) / (10 + step) up to ``ema``,
      as in TensorFlow's ``ExponentialMovingAverage``, so that it soon forgets the first weights.
    * The mean of the weights (Polyak and Juditsky, 1992) at the last or the best ``count`` validations.

    Args:
        model: the model that is trained.
        ema: the decay per step; 0 turns the moving average off.
        count: the number of validated weights to average; 0 for none.
        best: average the best instead of the last validated weights.
    """

    EVERY = 8  # steps between updates; weights change little in between, and an update reads all of them

    def __init__(self, model: Model, ema: float = 0.0, count: int = 0, best: bool = False) -> None:
        self.ema, self.count, self.best = ema, count, best
        self.moving: Weights | None = copy_of(model) if ema else None
        self.kept: list[tuple[tuple[float, ...], Weights]] = []

    def step(self, model: Model, step: int) -> None:
        """Updates the moving average. Call it after every optimizer step, with ``step`` from 1."""
        if self.moving is None or step % self.EVERY:
            return
        decay = min(self.ema, (1 + step) / (10 + step)) ** self.EVERY
        with torch.no_grad():
            torch._foreach_lerp_(self.moving, trainable(model), 1 - decay)

    def validated(self, weights: Weights, rank: tuple[float, ...]) -> None:
        """Adds the weights that have just been validated; a larger ``rank`` is better."""
        if self.count:
            self.kept.append((rank, [w.detach().clone() for w in weights]))
            if self.best:
                self.kept.sort(key=lambda item: item[0], reverse=True)
                del self.kept[self.count :]
            else:
                del self.kept[: -self.count]

    def mean(self) -> Weights | None:
        """The mean of the validated weights; None for fewer than two."""
        return mean([weights for _, weights in self.kept]) if len(self.kept) > 1 else None

    def state_dict(self) -> dict[str, Any]:
        """The state to resume from, plain values and tensors."""
        return {"moving": self.moving, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any], model: Model) -> None:
        """Restores the state that `state_dict` returned, on the model's device.

        Raises:
            ValueError: it is of another model.
        """

        def to_device(weights: Weights) -> Weights:
            if [w.shape for w in weights] != [w.shape for w in trainable(model)]:
                raise ValueError("averages of other weights")
            return [w.to(model.device) for w in weights]

        self.moving = None if state["moving"] is None else to_device(state["moving"])
        self.kept = []
        for rank, weights in state["kept"]:  # older versions saved one number
            self.kept.append((tuple(rank) if isinstance(rank, list | tuple) else (rank,), to_device(weights)))
