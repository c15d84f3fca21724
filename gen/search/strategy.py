"""The strategy contract: one method that picks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gen.search.ops import Array, Ops


class Strategy:
    """How the next tokens are chosen. A user's own is one class with a `pick`.

    Attributes:
        width: W, the rows an input has. Row r belongs to input r // W.
        num_return: how many hypotheses an input gets in the end, the first of `rank`'s order.

    Example:
        >>> @register("second-best")
        ... class SecondBest(Strategy):
        ...     def pick(self, log_probs, scores, finished, lengths):
        ...         token_ids = self.ops.topk(log_probs, 2)[1][:, -1]
        ...         return None, token_ids, scores
    """

    width: int = 1
    num_return: int = 1
    ops: Ops

    def start(self, ops: Ops, rows: int) -> None:
        """Called once before a search over ``rows`` = R rows; forget whatever the last one left."""
        self.ops = ops

    def pick(
        self, log_probs: Array, scores: Array, finished: Array, lengths: Array
    ) -> tuple[Array | None, Array, Array]:
        """Chooses a token for every row.

        Args:
            log_probs: (R, V) float32, processed: what is forbidden is -inf. A finished row offers PAD at
                cost 0 and nothing else, so it needs no case of its own.
            scores: (R,) float32, what earlier picks returned.
            finished: (R,) bool, rows that have ended.
            lengths: (R,) int64, tokens generated so far; what a prompt forced does not count.

        Returns:
            parents (R,) int64, the row each row continues (None: its own), token_ids (R,) int64 and the new
            scores (R,) float32.
        """
        raise NotImplementedError

    def keep(self, rows: np.ndarray) -> None:
        """Inputs that have ended have left the search: row i is now what row ``rows[i]`` was. For strategies that
        remember something of their rows."""

    def rank(self, scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The order of an input's hypotheses, best first, from their scores and lengths, each (W,)."""
        return np.arange(len(scores))


STRATEGIES: dict[str, type[Strategy]] = {}


def register(name: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Class decorator that makes a strategy known under ``name``."""

    def add(strategy: type[Strategy]) -> type[Strategy]:
        STRATEGIES[name] = strategy
        return strategy

    return add
