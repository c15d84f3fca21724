"""The processor that lets a memory vote on what is written: nearest neighbours of the decoder's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gen.base.errors import UserError
from gen.search.ops import Array, Ops
from gen.search.processors import Processor

if TYPE_CHECKING:
    from gen.search.datastore import Datastore


class Vote(NamedTuple):
    """What the neighbours of Q queries say of the next token.

    Attributes:
        queries, token_ids: (C,) int64, a query and a token that neighbours of it have.
        probs: (C,) float64, what they add to its probability.
        rest: (Q,) float64, the share of the model.
    """

    queries: np.ndarray
    token_ids: np.ndarray
    probs: np.ndarray
    rest: np.ndarray


_LEAST = 10.0
"""Neighbours that count e^10 times less than the nearest one are left out."""

REACH = 0.2
"""The distance at which neighbours have 1/e of their share, in units of the mean between two entries."""


def vote(distances: np.ndarray, values: np.ndarray, temperature: float, weight: float) -> Vote:
    """Lets neighbours vote: each counts e^(-distance / temperature).

    Args:
        distances: (Q, n) float, squared; infinite where there is none.
        values: (Q, n) int, the tokens of the neighbours.
        temperature: above 0.
        weight: the share of all neighbours together where the nearest one is at distance 0; it falls with that
            distance as e^(-distance / `REACH`).
    """
    nearest = np.minimum(distances.min(1), 1e6).astype(np.float64)
    queries, at = np.nonzero(distances <= (nearest + _LEAST * temperature)[:, None])
    counts = np.exp((nearest[queries] - distances[queries, at]) / temperature)
    sums = np.bincount(queries, counts, minlength=len(distances))
    share = np.minimum(weight * np.exp(-nearest / REACH), 1 - 1e-6)  # the model may still be needed
    tokens = values[queries, at].astype(np.int64)
    size = int(tokens.max(initial=0)) + 1
    cells, which = np.unique(queries * size + tokens, return_inverse=True)
    queries = cells // size
    probs = np.bincount(which, counts, minlength=len(cells)) * (share / np.maximum(sums, 1e-30))[queries]
    return Vote(queries, cells % size, probs, 1 - share)


class Neighbours(Processor):
    """p = λ · p(neighbours) + (1 - λ) · p(model), token by token; see `vote`.

    Args:
        store: the memory.
        targets: for B inputs the token ids that each is to become; None: whatever the search finds.
        entries: for B inputs the entries that are searched; None: all of the store, for every input.
    """

    def __init__(
        self,
        store: Datastore,
        targets: Sequence[Sequence[int] | None],
        entries: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.store, self.targets = store, targets
        self._keys: np.ndarray | None = None
        if entries is not None:
            self._gather(entries)

    def _gather(self, entries: Sequence[np.ndarray]) -> None:
        """The keys (B, n, F) and values (B, n) of the entries of each input; the bias of what is no entry is
        infinite."""
        shape = len(entries), max(1, *map(len, entries))
        keys = self._keys = np.zeros((*shape, self.store.keys.shape[1]), np.float32)
        self._values = np.zeros(shape, np.int64)
        self._bias = np.full(shape, np.inf, np.float32)
        for b, own in enumerate(entries):
            keys[b, : len(own)] = self.store.keys[own]
            self._values[b, : len(own)] = self.store.values[own]
            self._bias[b, : len(own)] = np.square(keys[b, : len(own)]).sum(1)

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        self._width = len(prompts) // len(self.targets)
        self._inputs = np.arange(len(prompts)) // self._width  # the input of each row
        self._is_forced = np.array([bool(self.targets[i]) for i in self._inputs.tolist()])

    def keep(self, rows: np.ndarray) -> None:
        self._inputs, self._is_forced = self._inputs[rows], self._is_forced[rows]

    def observe_features(self, features: Any) -> None:
        if features is None:
            raise UserError("--memory: no ensembles, and no models that an older version exported")
        self._features = as_numpy(features)

    def _distances(self) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances of the rows' neighbours, and their tokens: (R, n) each."""
        queries = self._features
        if self._keys is None:
            return self.store.nearest(queries)
        inputs = self._inputs[:: self._width]
        whole = len(inputs) == len(self._keys)
        keys, bias = (self._keys, self._bias) if whole else (self._keys[inputs], self._bias[inputs])
        products = np.matmul(queries.reshape(len(inputs), self._width, -1), keys.transpose(0, 2, 1))
        products *= -2
        products += bias[:, None]
        distances = products.reshape(len(queries), -1)
        distances += np.square(queries).sum(1)[:, None]
        distances /= self.store.scale
        return distances, self._values[self._inputs]

    def vote(self) -> Vote:
        """What the neighbours say of the features that `observe_features` was given."""
        return vote(*self._distances(), self.store.temperature, self.store.weight)

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        ops, found = self.ops, self.vote()
        with np.errstate(divide="ignore"):
            rest, said = np.log(found.rest), np.log(found.probs)
        mixed = log_probs + ops.asarray(rest, "float32")[:, None]
        at = ops.asarray(found.queries, "int64"), ops.asarray(found.token_ids, "int64")
        before = ops.numpy(mixed[at])
        # What is forbidden stays so.
        after = np.where(np.isneginf(ops.numpy(log_probs[at])), -np.inf, np.logaddexp(before, said))
        mixed[at] = ops.asarray(after, "float32")
        return self._force(mixed, log_probs, lengths) if self._is_forced.any() else mixed

    def _force(self, mixed: Array, log_probs: Array, lengths: Array) -> Array:
        """Leaves the rows that have a target nothing but its next token."""
        rows, wanted = [], []
        for row, length in enumerate(self.ops.numpy(lengths).tolist()):
            target = self.targets[self._inputs[row]] if self._is_forced[row] else None
            if target and length < len(target):
                rows.append(row)
                wanted.append(target[length])
        at = self.ops.asarray(rows, "int64"), self.ops.asarray(wanted, "int64")
        mixed[at[0]] = -np.inf
        mixed[at] = log_probs[at]
        return mixed


def as_numpy(features: Any) -> np.ndarray:
    """Features as float32, from numpy or torch on any device."""
    return features if isinstance(features, np.ndarray) else features.float().cpu().numpy()
