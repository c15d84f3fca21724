"""The lines of a corpus that are most like another one, by the tokens that they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Lookup:
    """An inverted index of M lines.

    Two lines are the more alike the more tokens they share and the rarer these are: the cosine of their sets of
    tokens, weighted by inverse document frequency.

    Args:
        token_ids: (N,) int, the tokens of all lines.
        ends: (M + 1,) int, where each line begins, and where the last one ends.

    Example:
        >>> lookup = Lookup(np.array([7, 8, 8, 9, 10, 9]), np.array([0, 2, 5, 6]))
        >>> lookup.nearest([8, 10], 2).tolist()
        [1, 0]
    """

    def __init__(self, token_ids: np.ndarray, ends: np.ndarray) -> None:
        M = self.num_lines = len(ends) - 1
        V = int(token_ids.max(initial=0)) + 1
        line_of = np.repeat(np.arange(M), np.diff(ends))
        cells = np.unique(token_ids.astype(np.int64) * M + line_of)  # by token, then by line; none twice
        self._lines = cells % M
        counts = np.bincount(cells // M, minlength=V)
        self._ends = np.concatenate([[0], counts.cumsum()])
        self._weights = np.log((M + 1) / np.maximum(counts, 1)) ** 2
        squares = np.repeat(self._weights, counts)
        self._norms = np.sqrt(np.bincount(self._lines, squares, minlength=M)) + 1e-9

    def nearest(self, line: Sequence[int], count: int) -> np.ndarray:
        """The indices of the ``count`` lines most like this one, best first; only of those that share a token."""
        scores = np.zeros(self.num_lines)
        for token_id in sorted({i for i in line if i < len(self._weights)}):
            scores[self._lines[self._ends[token_id] : self._ends[token_id + 1]]] += self._weights[token_id]
        scores /= self._norms
        least = -np.partition(-scores, count - 1)[count - 1] if count < self.num_lines else 0.0
        found = np.flatnonzero((scores >= least) & (scores > 0))
        return found[np.argsort(-scores[found], kind="stable")][:count]  # of equal ones the first
