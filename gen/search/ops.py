"""Array operations for search, once for numpy and once for torch.

Search runs on torch tensors on a GPU and on numpy arrays elsewhere: for a few rows numpy takes a quarter of the
time of torch, and an exported model needs no torch at all. Both libraries have ``+``, ``<``, ``&``, ``x[rows]``,
``x.argmax(-1)``, ``x.sum(-1)`` and ``x.reshape``; the operations that differ are defined here.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = Any
"""A torch tensor or a numpy array."""


class Ops(Protocol):
    """The operations of an array library. ``dtype`` is "int64", "float32" or "bool".

    Attributes:
        drops: whether search drops the rows of inputs that have ended.
    """

    drops: bool

    def asarray(self, values: Any, dtype: str) -> Array:
        """An array of these values, on the device."""

    def arange(self, n: int) -> Array:
        """0 … n - 1, (n,) int64."""

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Array:
        """An array that holds one value everywhere."""

    def where(self, mask: Array, a: Any, b: Any) -> Array:
        """``a`` where ``mask`` is True, else ``b``; all of them are broadcast."""

    def log_softmax(self, logits: Array) -> Array:
        """The logarithm of the softmax over the last axis, float32."""

    def log_mean_exp(self, arrays: list[Array]) -> Array:
        """The logarithm of the mean of probabilities, given their logarithms: arrays of one shape."""

    def exp(self, x: Array) -> Array:
        """The exponential in float64, so that sums of it do not lose precision."""

    def cumsum(self, x: Array) -> Array:
        """The cumulative sum along the last axis."""

    def topk(self, x: Array, k: int) -> tuple[Array, Array]:
        """The k largest values per row of (R, V), in descending order, and their columns: (R, k) each; all V of
        them if k is larger."""

    def at(self, x: Array, token_ids: Array) -> Array:
        """``x[r, token_ids[r]]`` per row r of (R, V): (R,)."""

    def put(self, x: Array, mask: Array, row: Array) -> Array:
        """``x`` (R, V) with the rows of ``mask`` (R,) replaced by ``row`` (V,). May modify ``x`` in place."""

    def ban(self, x: Array, rows: Array | None, token_ids: Array) -> Array:
        """``x`` (R, V) with -inf for ``token_ids`` (K,) in ``rows`` (R,) bool, or in all rows for None. May modify
        ``x`` in place."""

    def ban_each(self, x: Array, mask: Array, token_ids: Array) -> Array:
        """``x`` (R, V) with -inf for the tokens of each row, ``token_ids`` (R, K), where ``mask`` (R, K) is True.
        May modify ``x`` in place."""

    def concat(self, arrays: list[Array], axis: int) -> Array:
        """Arrays joined along an axis."""

    def numpy(self, x: Array) -> np.ndarray:
        """A numpy array of the same values, on the CPU."""


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
        with np.errstate(invalid="ignore"):  # a row of -inf gives nan, as in torch
            shifted = logits - logits.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

    def log_mean_exp(self, arrays: list[np.ndarray]) -> np.ndarray:
        return np.logaddexp.reduce(arrays) - np.float32(np.log(len(arrays)))

    def exp(self, x: np.ndarray) -> np.ndarray:
        return np.exp(x.astype(np.float64))

    def cumsum(self, x: np.ndarray) -> np.ndarray:
        return x.cumsum(-1)

    def topk(self, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
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
        return x[np.arange(len(x)), token_ids]  # `take_along_axis` takes ten times as long for a few rows

    def put(self, x: np.ndarray, mask: np.ndarray, row: np.ndarray) -> np.ndarray:
        x[mask] = row
        return x

    def ban(self, x: np.ndarray, rows: np.ndarray | None, token_ids: np.ndarray) -> np.ndarray:
        if rows is None:
            x[:, token_ids] = -np.inf
        elif rows.any():
            x[np.flatnonzero(rows)[:, None], token_ids] = -np.inf
        return x

    def ban_each(self, x: np.ndarray, mask: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
        rows, at = np.nonzero(mask)
        x[rows, token_ids[rows, at]] = -np.inf
        return x

    def concat(self, arrays: list[np.ndarray], axis: int) -> np.ndarray:
        return np.concatenate(arrays, axis)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return x


def _largest(x: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k largest values per row, in descending order: (R, k). For small k, k passes of argmax
    take a tenth of the time of a partition."""
    rest = np.maximum(x, np.finfo(np.float32).min)  # so that only what was found is -inf
    rows = np.arange(len(x))
    found = np.empty((len(x), k), np.int64)
    for i in range(k):
        found[:, i] = best = rest.argmax(-1)
        rest[rows, best] = -np.inf
    return found


def _largest_blocks(x: np.ndarray, k: int) -> np.ndarray:
    """Candidate columns that include the k largest values per row: the k blocks with the largest maxima."""
    R, V = x.shape
    size, count = 16, V // 16  # column c is in block c % count, so that maxima are taken over contiguous memory
    blocks = _largest(x[:, : size * count].reshape(R, size, count).max(1), k)  # (R, k)
    columns = (blocks[:, None] + np.arange(size)[:, None] * count).reshape(R, -1)
    return np.concatenate([columns, np.broadcast_to(np.arange(size * count, V), (R, V - size * count))], 1)


class TorchOps:
    """`Ops` for torch, on one device."""

    drops = False  # a GPU is as fast with many rows as with few, and each new shape has to select kernels first

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
        if x.is_cuda and self.torch.are_deterministic_algorithms_enabled():  # CUDA's cumsum is not deterministic
            return x.cpu().cumsum(-1).to(x.device)
        return x.cumsum(-1)

    def topk(self, x: Array, k: int) -> tuple[Array, Array]:
        return self.torch.topk(x, min(k, x.shape[-1]), dim=-1)

    def at(self, x: Array, token_ids: Array) -> Array:
        return x.gather(1, token_ids[:, None])[:, 0]

    def put(self, x: Array, mask: Array, row: Array) -> Array:
        return self.torch.where(mask[:, None], row, x)  # indexing with a mask would synchronise with the device

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
