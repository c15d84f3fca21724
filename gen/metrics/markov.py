"""A Markov chain (n-gram language model): the baseline for every language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gen.inputs.tokenizer import Tokenizer
from gen.search.generation import GenerationMixin, SearchInput
from gen.search.ops import NumpyOps


@dataclass(frozen=True)
class _Order:
    """The counts of one order n. Contexts are numbered; a context of n tokens extends one of n - 1 tokens.

    Attributes:
        contexts: sorted, (context of order n - 1) · V + (the token before it).
        followers: sorted, (context) · V + (next token).
        counts: the count of each follower.
        totals: the count of each context.
        kinds: the number of different followers of each context.
    """

    contexts: np.ndarray
    followers: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray


@dataclass(frozen=True)
class _Recent:
    """The state of a search: the last tokens per row, (R, order) int64."""

    token_ids: np.ndarray

    def keep(self, inputs: np.ndarray, rows: np.ndarray) -> _Recent:
        return self.select(rows)

    def select(self, rows: np.ndarray) -> _Recent:
        return _Recent(self.token_ids[rows])


class MarkovChain(GenerationMixin):
    """Predicts from the last ``order`` tokens by interpolated Witten-Bell smoothing.

    P_n(w | c) = (count(c, w) + kinds(c) · P_{n-1}(w | c')) / (count(c) + kinds(c)), down to the uniform
    distribution (Chen and Goodman, 1999). It generates with the same search and options as a network.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> text = "the cat sat on the mat. " * 9
        >>> tokenizer = CharTokenizer.train([text])
        >>> chain = MarkovChain.fit(tokenizer.encode_array(text), tokenizer, order=4)
        >>> chain.generate("the c", temperature=0, max_new_tokens=6)[0].text
        'at sat'
    """

    def __init__(self, orders: Sequence[_Order], tokenizer: Tokenizer) -> None:
        self.orders = list(orders)
        self.tokenizer = tokenizer
        self.search_defaults: dict[str, Any] = {}

    @property
    def order(self) -> int:
        """The number of context tokens."""
        return len(self.orders) - 1

    @classmethod
    def fit(cls, token_ids: np.ndarray, tokenizer: Tokenizer, order: int = 5) -> MarkovChain:
        """Counts the n-grams of a text.

        Args:
            token_ids: (N,) int64, the text.
            tokenizer: the text's tokenizer.
            order: the number of context tokens, 0 or more.
        """
        V = len(tokenizer)
        x = np.asarray(token_ids, dtype=np.int64)
        context = np.zeros(len(x), dtype=np.int64)
        orders = []
        for n in range(order + 1):
            known = np.zeros(1, dtype=np.int64)
            if n:
                before = np.concatenate([np.full(min(n, len(x)), tokenizer.bos_id), x[:-n]])
                known, context = np.unique(context * V + before, return_inverse=True)
            followers, counts = np.unique(context * V + x, return_counts=True)
            totals = np.bincount(context, minlength=len(known))
            kinds = np.bincount(followers // V, minlength=len(known))
            orders.append(_Order(known, followers, counts, totals, kinds))
        return cls(orders, tokenizer)

    def log_probs(self, token_ids: np.ndarray) -> np.ndarray:
        """The log-probability in nats of each token given the tokens before it: (N,) int64 → (N,) float64."""
        V = len(self.tokenizer)
        x = np.asarray(token_ids, dtype=np.int64)
        probability = np.full(len(x), 1 / V)
        context, seen = np.zeros(len(x), dtype=np.int64), np.ones(len(x), dtype=bool)
        for n, counts in enumerate(self.orders):
            if n:
                before = np.concatenate([np.full(min(n, len(x)), self.tokenizer.bos_id), x[:-n]])
                context, found = _look_up(counts.contexts, context * V + before)
                seen &= found
            at, found = _look_up(counts.followers, context * V + x)
            count = np.where(found, counts.counts[at], 0)
            kinds, total = counts.kinds[context], counts.totals[context]
            smoothed = (count + kinds * probability) / np.maximum(total + kinds, 1)
            probability = np.where(seen, smoothed, probability)
        return np.log(probability)

    def _next(self, recent: np.ndarray) -> np.ndarray:
        """The distribution of the token after ``recent`` (order,), whose last is the newest: (V,) float64."""
        V = len(self.tokenizer)
        probability = np.full(V, 1 / V)
        context = 0
        for n, counts in enumerate(self.orders):
            if n:
                at, found = _look_up(counts.contexts, np.array([context * V + recent[-n]]))
                if not found[0]:
                    break
                context = int(at[0])
            first, last = np.searchsorted(counts.followers, [context * V, (context + 1) * V])
            kinds, total = counts.kinds[context], counts.totals[context]
            probability *= kinds / (total + kinds)
            probability[counts.followers[first:last] % V] += counts.counts[first:last] / (total + kinds)
        return probability

    def start_search(self, items: Sequence[Any]) -> SearchInput:
        empty = _Recent(np.full((len(items), max(self.order, 1)), self.tokenizer.bos_id))

        def step(token_ids: np.ndarray, state: _Recent) -> tuple[np.ndarray, _Recent, None]:
            recent = np.concatenate([state.token_ids, token_ids], 1)[:, -max(self.order, 1) :]
            log_probs = np.log(np.stack([self._next(row) for row in recent])).astype(np.float32)
            return log_probs, _Recent(recent), None

        return SearchInput(step, empty, [str(item) for item in items], NumpyOps())


def _look_up(table: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions of keys in a sorted table, and whether the table contains them."""
    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return at, table[at] == keys
