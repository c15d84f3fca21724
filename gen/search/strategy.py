"""The strategy contract: one method that picks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gen.search.ops import Array, Ops


class Strategy:
    """How the next tokens are chosen. Your own is one class with a `pick`.

    Attributes:
        width: W, rows per input. Row r belongs to input r // W.
        num_return: hypotheses per input in the end, the first of `rank`'s order.

    Example:
        >>> class SecondBest(Strategy):
        ...     def pick(self, log_probs, scores, finished, lengths):
        ...         token_ids = self.ops.topk(log_probs, 2)[1][:, -1]
        ...         return None, token_ids, scores
        >>> add = register("second-best")  # as a decorator: @register("second-best")
    """

    width: int = 1
    num_return: int = 1
    ops: Ops

    def start(self, ops: Ops, rows: int) -> None:
        """Called once before a search over ``rows`` = R rows; reset what the last search left."""
        self.ops = ops

    def pick(
        self, log_probs: Array, scores: Array, finished: Array, lengths: Array
    ) -> tuple[Array | None, Array, Array]:
        """Chooses a token for every row.

        Args:
            log_probs: (R, V) float32, processed: what is forbidden is -inf. A finished row offers PAD at
                cost 0 and nothing else, so it is no special case.
            scores: (R,) float32, what earlier picks returned.
            finished: (R,) bool, rows that have ended.
            lengths: (R,) int64, tokens generated so far; what a prompt forced does not count.

        Returns:
            parents (R,) int64, the row each row continues (None: its own), token_ids (R,) int64 and the new
            scores (R,) float32.
        """
        raise NotImplementedError

    def observe_attention(self, attention: Array | None) -> None:
        """Called before each `pick` with the weights behind the next token, (R, S), or None without attention."""

    def observe(self, parents: Array | None) -> None:
        """Called after each `pick` with the rows that were continued: a prompt may have overruled it."""

    def keep(self, rows: np.ndarray) -> None:
        """Finished inputs were dropped: row i is now what row ``rows[i]`` was. For strategies with a state."""

    def rank(self, scores: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The order of an input's hypotheses, best first, from their scores, lengths and rows, each (W,)."""
        return np.arange(len(scores))

    def origin(self, row: int) -> tuple[int | None, float | None]:
        """The seed and the temperature that row 0 ≤ ``row`` < W of every input is sampled with, or None."""
        return None, None


STRATEGIES: dict[str, type[Strategy]] = {}


def register(name: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Class decorator that makes a strategy known under ``name``."""

    def add(strategy: type[Strategy]) -> type[Strategy]:
        STRATEGIES[name] = strategy
        return strategy

    return add
