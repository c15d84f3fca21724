"""Looking things up: the lines that share tokens with another one, and the keys that are nearest to others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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


Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(queries (Q, F), k) → squared distances and indices of the k nearest keys, (Q, k) each."""


LARGE = 1_000_000
"""Beyond so many keys they are searched with usearch, where it is installed."""

_BLOCK = 1 << 15
"""Keys that are compared with queries at once."""

QUERIES = 256
"""Queries that are compared with keys at once."""

_INDEX = "index.usearch"


def write_index(folder: Path) -> None:
    """Writes an index of the keys in a folder, ``keys.npy``, beside them."""
    from usearch.index import Index

    keys = np.load(folder / "keys.npy", mmap_mode="r")
    index = Index(ndim=keys.shape[1], metric="l2sq", dtype="f16")
    for begin in range(0, len(keys), _BLOCK):
        part = np.asarray(keys[begin : begin + _BLOCK])
        index.add(np.arange(begin, begin + len(part)), part)
    index.save(str(folder / _INDEX))


def open_keys(folder: Path, keys: np.ndarray) -> Search:
    """How the keys of a folder are searched: with its index if it has one, else all of them."""
    index = folder / _INDEX
    if index.exists() and find_spec("usearch"):
        from usearch.index import Index

        return partial(_search_index, Index.restore(str(index), view=True))
    blocks = range(0, len(keys), _BLOCK)
    squares = [np.square(keys[b : b + _BLOCK], dtype=np.float32).sum(1) for b in blocks]
    return partial(_search_all, keys, squares)


def _search_index(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    found = index.search(queries, k)
    return found.distances.reshape(len(queries), k), found.keys.reshape(len(queries), k).astype(np.int64)


def _search_all(
    keys: np.ndarray, squares: Sequence[np.ndarray], queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Exact, block by block."""
    distances, found = [], []
    for number, square in enumerate(squares):
        block = keys[number * _BLOCK : (number + 1) * _BLOCK].astype(np.float32)
        # But for the squares of the queries, which are the same for all keys.
        nearest, at = _smallest(square - 2 * queries @ block.T, k)
        distances.append(nearest)
        found.append(at + number * _BLOCK)
    nearest, at = _smallest(np.concatenate(distances, 1), k)
    nearest = np.maximum(nearest + np.square(queries).sum(1)[:, None], 0)
    return nearest, np.take_along_axis(np.concatenate(found, 1), at, 1)


def _smallest(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest values of each row, in any order, and their columns; all where there are no more."""
    at = np.argpartition(x, min(k, x.shape[1]) - 1, axis=1)[:, :k]
    return np.take_along_axis(x, at, 1), at
