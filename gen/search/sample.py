"""Sampling: temperature, top-k, top-p, min-p."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from gen.search.ops import Array, Ops
from gen.search.strategy import Strategy, register

_BLOCK = 256


def fresh_seed() -> int:
    """A new seed from the system's randomness, 0 to 2³² - 1: short enough to type again."""
    return secrets.randbits(32)


@register("sample")
class Sample(Strategy):
    """Draws each token from the model's distribution, sharpened and cut as asked.

    The order is the usual one: temperature, then top-k, then top-p, then min-p.

    Args:
        temperature: divides the log-probabilities; below 1 sharpens, 0 always takes the best. With several, every
            input is sampled at each of them: W = temperatures × ``num_samples``, temperature by temperature.
        top_k: keep the k most probable tokens (0: all).
        top_p: keep the smallest set of tokens whose probabilities reach p (Holtzman et al., 2020).
        min_p: keep the tokens at least ``min_p`` times as probable as the best (Nguyen et al., 2024).
        num_samples: per input and temperature.
        seed: None draws a new one for every search. Sample i of any input has its own stream of random numbers,
            made from (seed, i). So the same seed gives the same text on every machine and array library, whatever
            else is in the batch and whatever the other temperatures.
        independent: give every row its own stream instead: estimates that average over a batch need draws that do
            not depend on each other.

    Example:
        >>> Sample((0.3, 0.8), num_samples=2).width
        4
    """

    def __init__(
        self,
        temperature: float | Sequence[float] = 1.0,
        *,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        num_samples: int = 1,
        seed: int | None = None,
        independent: bool = False,
    ) -> None:
        self.temperatures = tuple(temperature) if isinstance(temperature, Sequence) else (temperature,)
        self.top_k = top_k
        self.top_p = top_p
        self.min_p = min_p
        self.num_samples = num_samples
        self.width = self.num_return = num_samples * len(self.temperatures)
        self.seed = seed
        self.independent = independent

    def start(self, ops: Ops, rows: int) -> None:
        super().start(ops, rows)
        self._drawn_seed = fresh_seed() if self.seed is None else self.seed
        streams = rows if self.independent else self.num_samples
        self._stream_of_row = ops.arange(rows) % streams
        self._streams: list[np.random.Generator] = []  # made when the first number is drawn
        self._steps = 0
        self._uniform: Array = self.ops.full((0, streams), 0.0, "float32")
        each = np.repeat(np.asarray(self.temperatures, np.float32), self.num_samples)  # (W,)
        self._several = len(set(self.temperatures)) > 1
        self._temperature_of_row = ops.asarray(np.tile(each, rows // self.width), "float32")

    def origin(self, row: int) -> tuple[int | None, float | None]:
        temperature = self.temperatures[row // self.num_samples]
        return self._drawn_seed if temperature > 0 else None, temperature

    def _draw(self) -> None:
        """The next block of random numbers: (block, streams)"""
        if not self._streams:
            streams = self._uniform.shape[1]
            self._streams = [np.random.default_rng((self._drawn_seed, i)) for i in range(streams)]
        block = np.stack([g.random(_BLOCK, dtype=np.float32) for g in self._streams], axis=1)
        self._uniform = self.ops.concat([self._uniform, self.ops.asarray(block, "float32")], 0)

    def keep(self, rows: np.ndarray) -> None:
        self._stream_of_row = self._stream_of_row[rows]
        self._temperature_of_row = self._temperature_of_row[rows]

    def pick(self, log_probs: Array, scores: Array, finished: Array, lengths: Array) -> tuple[None, Array, Array]:
        if self._steps == len(self._uniform):  # no row is longer than the number of steps
            self._draw()
        self._steps += 1
        if not any(self.temperatures):
            token_ids = log_probs.argmax(-1)
        else:
            token_ids = self._choose(log_probs, self._uniform[lengths, self._stream_of_row])
            if 0 in self.temperatures:
                token_ids = self.ops.where(self._temperature_of_row > 0, token_ids, log_probs.argmax(-1))
        return None, token_ids, scores + self.ops.at(log_probs, token_ids)

    def _choose(self, log_probs: Array, uniform: Array) -> Array:
        temperature: Any = self.temperatures[0]
        if self._several:
            each = self._temperature_of_row  # (R,)
            temperature = self.ops.where(each > 0, each, each + 1)[:, None]
        return draw(
            self.ops, log_probs, uniform, temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p
        )

    def stream(self, row: int) -> np.random.Generator:
        """The random numbers of row 0 ≤ ``row`` < W of every input, from the beginning; after `start`."""
        return np.random.default_rng((self._drawn_seed, row % self.num_samples))


def draw(
    ops: Ops, log_probs: Array, uniform: Array, temperature: Any, *, top_k: int, top_p: float, min_p: float
) -> Array:
    """Inverts the cumulative distribution of every row at ``uniform`` (R,) in [0, 1).

    Args:
        ops: array operations.
        log_probs: (R, V) float32.
        uniform: (R,) float32.
        temperature: above 0: one, or (R, 1) float32.
        top_k, top_p, min_p: see `Sample`.

    Returns:
        token_ids (R,) int64.
    """
    cut = top_k > 0 or top_p < 1
    # Only top-k and top-p need an order; the others draw from the tokens where they stand.
    kept, token_ids = ops.topk(log_probs, top_k or log_probs.shape[-1]) if cut else (log_probs, None)
    best = kept[:, 0] if cut else ops.at(kept, kept.argmax(-1))
    # The best token's weight is 1. In float64 a draw (at most 1 - 2⁻²⁴) times the total is always less than
    # the total.
    with np.errstate(invalid="ignore"):  # where everything is forbidden
        weights = ops.exp((kept - best[:, None]) / temperature)
    cumulative = ops.cumsum(weights)
    if top_p < 1:
        weights = weights * (cumulative - weights < top_p * cumulative[:, -1:])
    if min_p > 0:
        weights = weights * (weights >= min_p)
    if top_p < 1 or min_p > 0:
        cumulative = ops.cumsum(weights)
    found = (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(-1)
    return found if token_ids is None else ops.at(token_ids, found)
