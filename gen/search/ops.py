"""The few array operations search needs beyond operators, indexing and methods both libraries share.

Search runs on torch tensors where they live on a GPU, and on numpy arrays elsewhere: for a few rows numpy takes a
quarter of the time that torch takes, and an exported model needs no torch at all.
Both know ``+``, ``<``, ``&``, ``x[rows]``, ``x.argmax(-1)``, ``x.sum(-1)`` and ``x.reshape``;
what they spell differently is here, twice.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = Any
"""A torch tensor or a numpy array."""


class Ops(Protocol):
    """What an array library has to offer. ``dtype`` is one of "int64", "float32", "bool".

    Attributes:
        drops: whether inputs that have ended leave the search.
    """

    drops: bool

    def asarray(self, values: Any, dtype: str) -> Array: ...
    def arange(self, n: int) -> Array: ...
    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Array: ...
    def where(self, mask: Array, a: Any, b: Any) -> Array: ...
    def log_softmax(self, logits: Array) -> Array: ...
    def log_mean_exp(self, arrays: list[Array]) -> Array: ...
    def exp(self, x: Array) -> Array: ...
    def cumsum(self, x: Array) -> Array: ...
    def topk(self, x: Array, k: int) -> tuple[Array, Array]: ...
    def at(self, x: Array, token_ids: Array) -> Array: ...
    def put(self, x: Array, mask: Array, row: Array) -> Array: ...
    def ban(self, x: Array, rows: Array | None, token_ids: Array) -> Array: ...
    def ban_each(self, x: Array, mask: Array, token_ids: Array) -> Array: ...
    def concat(self, arrays: list[Array], axis: int) -> Array: ...
    def numpy(self, x: Array) -> np.ndarray: ...


class NumpyOps:
    """`Ops` for numpy."""

    drops = True

    def asarray(self, values: Any, dtype: str) -> np.ndarray:
        return np.asarray(values, dtype=dtype)

    def arange(self, n: int) -> np.ndarray:
        return np.arange(n)

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> np.ndarray:
        return np.full(shape, value, dtype=dtype)

    def where(self, mask: np.ndarray, a: Any, b: Any) -> np.ndarray:
        return np.where(mask, a, b)

    def log_softmax(self, logits: np.ndarray) -> np.ndarray:
        logits = logits.astype(np.float32)
        with np.errstate(invalid="ignore"):  # a row of -inf gives nan, as torch's does
            shifted = logits - logits.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

    def log_mean_exp(self, arrays: list[np.ndarray]) -> np.ndarray:
        """The logarithm of a mean of probabilities, from their logarithms."""
        return np.logaddexp.reduce(arrays) - np.float32(np.log(len(arrays)))

    def exp(self, x: np.ndarray) -> np.ndarray:
        """In float64, for sums that must not round."""
        return np.exp(x.astype(np.float64))

    def cumsum(self, x: np.ndarray) -> np.ndarray:
        """Along the last axis."""
        return x.cumsum(-1)

    def topk(self, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k largest of every row of (R, V), largest first, and where they stood."""
        k = min(k, x.shape[-1])
        if k > 16:
            found = np.argpartition(-x, k - 1, axis=-1)[:, :k]
            order = np.argsort(-np.take_along_axis(x, found, -1), axis=-1, kind="stable")
            found = np.take_along_axis(found, order, -1)
        elif x.shape[-1] > max(1024, 64 * k):
            columns = _largest_blocks(x, k)
            found = np.take_along_axis(columns, _largest(np.take_along_axis(x, columns, 1), k), 1)
        else:
            found = _largest(x, k)
        return np.take_along_axis(x, found, -1), found

    def at(self, x: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
        """From every row of (R, V) the column that ``token_ids`` (R,) names: (R,)."""
        return x[np.arange(len(x)), token_ids]  # `take_along_axis` takes ten times as long for a few rows

    def put(self, x: np.ndarray, mask: np.ndarray, row: np.ndarray) -> np.ndarray:
        """``x`` (R, V) with ``row`` (V,) where ``mask`` (R,) says so. ``x`` is not needed any more."""
        x[mask] = row
        return x

    def ban(self, x: np.ndarray, rows: np.ndarray | None, token_ids: np.ndarray) -> np.ndarray:
        """``x`` (R, V) with -inf for these tokens in ``rows`` (R,) bool (None: in all). ``x`` may be changed."""
        if rows is None:
            x[:, token_ids] = -np.inf
        elif rows.any():
            x[np.flatnonzero(rows)[:, None], token_ids] = -np.inf
        return x

    def ban_each(self, x: np.ndarray, mask: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
        """``x`` (R, V) with -inf for those of each row's own tokens (R, K) that ``mask`` (R, K) marks. ``x`` may
        be changed."""
        rows, at = np.nonzero(mask)
        x[rows, token_ids[rows, at]] = -np.inf
        return x

    def concat(self, arrays: list[np.ndarray], axis: int) -> np.ndarray:
        return np.concatenate(arrays, axis)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return x


def _largest(x: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest of every row stand, largest first: (R, k). A few passes for the maximum take a tenth of
    the time that partitioning takes."""
    rest = np.maximum(x, np.finfo(np.float32).min)  # so that what is taken, and no other, is -inf
    rows = np.arange(len(x))
    found = np.empty((len(x), k), np.int64)
    for i in range(k):
        found[:, i] = best = rest.argmax(-1)
        rest[rows, best] = -np.inf
    return found


def _largest_blocks(x: np.ndarray, k: int) -> np.ndarray:
    """Columns among which are the k largest of every row: those of the k blocks with the largest maxima."""
    R, V = x.shape
    size, count = 16, V // 16  # column c is in block c % count, so that maxima are taken of whole rows
    blocks = _largest(x[:, : size * count].reshape(R, size, count).max(1), k)  # (R, k)
    columns = (blocks[:, None] + np.arange(size)[:, None] * count).reshape(R, -1)
    return np.concatenate([columns, np.broadcast_to(np.arange(size * count, V), (R, V - size * count))], 1)


class TorchOps:
    """`Ops` for torch, on one device."""

    drops = False  # GPUs take few rows and many alike, and kernels for new shapes have to be found first

    def __init__(self, device: Any = "cpu") -> None:
        import torch

        self.torch = torch
        self.device = torch.device(device)
        self._dtypes = {"int64": torch.int64, "float32": torch.float32, "bool": torch.bool}

    def asarray(self, values: Any, dtype: str) -> Array:
        return self.torch.as_tensor(values, dtype=self._dtypes[dtype]).to(self.device)

    def arange(self, n: int) -> Array:
        return self.torch.arange(n, device=self.device)

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Array:
        return self.torch.full(shape, value, dtype=self._dtypes[dtype], device=self.device)

    def where(self, mask: Array, a: Any, b: Any) -> Array:
        return self.torch.where(mask, a, b)

    def log_softmax(self, logits: Array) -> Array:
        return logits.float().log_softmax(-1)

    def log_mean_exp(self, arrays: list[Array]) -> Array:
        return self.torch.stack(arrays).logsumexp(0) - float(np.log(len(arrays)))

    def exp(self, x: Array) -> Array:
        return x.double().exp()

    def cumsum(self, x: Array) -> Array:
        if x.is_cuda and self.torch.are_deterministic_algorithms_enabled():  # CUDA's own is not
            return x.cpu().cumsum(-1).to(x.device)
        return x.cumsum(-1)

    def topk(self, x: Array, k: int) -> tuple[Array, Array]:
        return self.torch.topk(x, min(k, x.shape[-1]), dim=-1)

    def at(self, x: Array, token_ids: Array) -> Array:
        return x.gather(1, token_ids[:, None])[:, 0]

    def put(self, x: Array, mask: Array, row: Array) -> Array:
        return self.torch.where(mask[:, None], row, x)  # indexing with a mask would wait for the device

    def ban(self, x: Array, rows: Array | None, token_ids: Array) -> Array:
        banned = x.index_fill(-1, token_ids, -np.inf)
        return banned if rows is None else self.torch.where(rows[:, None], banned, x)

    def ban_each(self, x: Array, mask: Array, token_ids: Array) -> Array:
        worst = self.torch.where(mask, -np.inf, np.inf).to(x.dtype)
        return x.scatter_reduce(-1, token_ids.clamp(min=0), worst, "amin")

    def concat(self, arrays: list[Array], axis: int) -> Array:
        return self.torch.cat(arrays, axis)

    def numpy(self, x: Array) -> np.ndarray:
        return x.cpu().numpy()
