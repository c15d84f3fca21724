"""Which parts of the input a hypothesis has looked at (Wu et al., 2016)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gen.base.errors import ConfigError
from gen.search.ops import Array, Ops


class Coverage:
    """The attention that each position of the memory has had, per row.

    Args:
        ops: array operations.
        mask: (R, S) bool, the real positions; None: all are.
    """

    def __init__(self, ops: Ops, mask: np.ndarray | None) -> None:
        self.ops, self.mask = ops, mask
        self.seen: Any = np.float32(0)  # (R, S) after the first step
        self.next: Any = None  # (R, S), the weights behind the next token

    def observe_attention(self, attention: Array | None) -> None:
        """Takes the weights behind the next token, (R, S). Raises `ConfigError` without attention."""
        if attention is None or not attention.shape[1]:
            raise ConfigError(["--coverage-penalty: this model has no attention"])
        self.next = self.ops.numpy(attention)

    def add(self, running: np.ndarray) -> None:
        """Counts these weights for the rows that go on, (R,) bool."""
        self.seen = self.seen + self.next * running[:, None]

    def select(self, rows: Any) -> None:
        """Row i is now what row ``rows[i]`` was."""
        self.seen = self.seen[rows]

    def keep(self, rows: np.ndarray) -> None:
        """As `select`, where the inputs change, too."""
        self.select(rows)
        self.mask = None if self.mask is None else self.mask[rows]

    def penalty(self, rows: Any = ...) -> np.ndarray:
        """The sum over positions of the logarithm of what each has had, at most 1; (R,), at most 0."""
        logs = np.log(np.clip(self.seen[rows], 1e-9, 1))
        return (logs if self.mask is None else logs * self.mask[rows]).sum(1)
