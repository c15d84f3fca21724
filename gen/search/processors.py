"""Processors of log-probabilities. They apply to every strategy and never change the reported scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from gen.search.ops import Array, Ops


class Processor:
    """Changes the log-probabilities that a strategy picks from. Keeps the state of one search.

    Subclasses define `__call__`, `observe`, or both. `start` sets ``ops``.
    """

    ops: Ops

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        """Called once before a search, with the prompt of each of the R rows as token ids."""
        self.ops = ops

    def observe_features(self, features: Any) -> None:
        """Called before each call with what the decoder predicts the next tokens from: (R, F), of numpy or torch;
        None where the model does not tell."""

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        """Changes the log-probabilities of the next token.

        Args:
            log_probs: (R, V) float32. Entries may be set to -inf in place; for any other change return a new
                array, since the reported scores are read from this one.
            lengths: (R,) int64, the tokens that each row has generated.

        Returns:
            (R, V) float32.
        """
        return log_probs

    def observe(self, parents: Array | None, token_ids: Array, live: Array) -> Array | None:
        """Called after each step: row r continues row ``parents[r]`` with ``token_ids[r]``.

        Args:
            parents: (R,) int64, or None if every row continues itself.
            token_ids: (R,) int64.
            live: (R,) bool; False for finished rows and for tokens forced by a prompt.

        Returns:
            (R,) bool, the rows that end here; or None.
        """
        return None

    def keep(self, rows: np.ndarray) -> None:
        """Called when rows of ended inputs are dropped: row i was row ``rows[i]`` before. Only for processors with
        state per row."""


class Processors(Processor):
    """Several processors as one, applied in their order."""

    def __init__(self, processors: Sequence[Processor]) -> None:
        self.processors = list(processors)

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        for processor in self.processors:
            processor.start(ops, prompts, vocab_size)

    def observe_features(self, features: Any) -> None:
        for processor in self.processors:
            processor.observe_features(features)

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        for processor in self.processors:
            log_probs = processor(log_probs, lengths)
        return log_probs

    def observe(self, parents: Array | None, token_ids: Array, live: Array) -> Array | None:
        each = [processor.observe(parents, token_ids, live) for processor in self.processors]
        stopped = [rows for rows in each if rows is not None]
        return reduce(or_, stopped) if stopped else None

    def keep(self, rows: np.ndarray) -> None:
        for processor in self.processors:
            processor.keep(rows)


class MinLength(Processor):
    """Forbids EOS before ``length`` tokens."""

    def __init__(self, length: int, eos_id: int) -> None:
        self.length = length
        self.eos_id = eos_id

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        self._eos = ops.asarray([self.eos_id], "int64")

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        return self.ops.ban(log_probs, lengths < self.length, self._eos)


class BannedTokens(Processor):
    """Forbids tokens: special tokens, `<unk>`, words of the user's choice."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self.token_ids = list(token_ids)

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        self._banned = ops.asarray(self.token_ids, "int64")

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        return self.ops.ban(log_probs, None, self._banned)


class ForcedPrefix(Processor):
    """Forces the output to begin with these tokens. Unlike a prompt, they count for length and score."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self.token_ids = list(token_ids)

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        self._prefix = ops.asarray(self.token_ids, "int64")

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        n = len(self.token_ids)
        if n == 0:
            return log_probs
        wanted = self._prefix[lengths * (lengths < n)]
        other = self.ops.arange(log_probs.shape[-1])[None] != wanted[:, None]
        return _ban(self.ops, log_probs, (lengths < n)[:, None] & other)


class RepetitionPenalty(Processor):
    """Multiplies the log-probability of every token seen so far, including the prompt, by ``penalty`` > 0. Below 1
    it encourages them.

    After Keskar et al. (2019), who divide the logits of seen tokens; log-probabilities are never positive, so that
    multiplying them makes tokens less likely.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        seen = np.zeros((len(prompts), vocab_size), dtype=bool)
        for row, prompt in enumerate(prompts):
            seen[row, list(prompt)] = True
        self._seen = ops.asarray(seen, "bool")

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        return self.ops.where(self._seen, log_probs * self.penalty, log_probs)

    def observe(self, parents: Array | None, token_ids: Array, live: Array) -> None:
        if parents is not None:
            self._seen = self._seen[parents]
        self._seen[self.ops.arange(len(token_ids)), token_ids] = True

    def keep(self, rows: np.ndarray) -> None:
        self._seen = self._seen[rows]


class NoRepeatNgram(Processor):
    """Forbids repeating an n-gram (Paulus et al., 2018), including those of the prompt.

    Args:
        n: the length of the n-gram.
        forced: the length of a forced prefix, which may repeat n-grams.

    Attributes:
        exempt: for each of the B inputs, whether its outputs may repeat n-grams; empty: none may.
    """

    def __init__(self, n: int, forced: int = 0) -> None:
        self.n, self.forced = n, forced
        self.exempt: Sequence[bool] = ()

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        longest = max(map(len, prompts), default=0)
        self._seen = ops.asarray([[-1] * (longest - len(p)) + list(p) for p in prompts], "int64")  # (R, T)
        exempt = self.exempt or [False]
        self._bound = ~np.repeat(np.asarray(exempt, bool), len(prompts) // len(exempt))  # (R,)

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        seen, windows = self._seen, self._seen.shape[1] - self.n + 1
        if windows < 1:
            return log_probs
        # Compares the first n - 1 tokens of every window of n with the last n - 1 tokens.
        repeats = seen[:, :windows] >= 0
        for i in range(self.n - 1):
            repeats = repeats & (seen[:, i : windows + i] == seen[:, windows + i, None])
        if not self._bound.all():
            repeats = repeats & self.ops.asarray(self._bound, "bool")[:, None]
        if self.forced:
            repeats = repeats & (lengths >= self.forced)[:, None]
        return self.ops.ban_each(log_probs, repeats, seen[:, self.n - 1 :])

    def observe(self, parents: Array | None, token_ids: Array, live: Array) -> None:
        seen = self._seen if parents is None else self._seen[parents]
        self._seen = self.ops.concat([seen, token_ids[:, None]], 1)

    def keep(self, rows: np.ndarray) -> None:
        self._seen, self._bound = self._seen[rows], self._bound[rows]


class StopStrings(Processor):
    """Ends a row once its text contains one of ``strings``. The text is cut before that string later.

    Args:
        strings: the stop strings.
        decode: token ids → text.
    """

    def __init__(self, strings: Sequence[str], decode: Callable[[list[int]], str]) -> None:
        self.strings = list(strings)
        self.decode = decode
        # A token is at least one byte of text, so a string of n bytes lies within the last n tokens. One more,
        # since decoding may drop a space at the beginning of the first token.
        self._window = max(len(s.encode()) for s in self.strings) + 1

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        self._tails: list[tuple[int, ...]] = [()] * len(prompts)

    def observe(self, parents: Array | None, token_ids: Array, live: Array) -> Array:
        order = range(len(self._tails)) if parents is None else self.ops.numpy(parents).tolist()
        new = zip(order, self.ops.numpy(token_ids).tolist(), self.ops.numpy(live).tolist(), strict=True)
        self._tails = [
            (*self._tails[p], token_id)[-self._window :] if is_live else self._tails[p]
            for p, token_id, is_live in new
        ]
        return self.ops.asarray([self.found(tail) for tail in self._tails], "bool")

    def found(self, token_ids: Sequence[int]) -> bool:
        """Whether the last of these tokens completes a stop string."""
        text = self.decode(list(token_ids[-self._window :]))
        return any(s in text for s in self.strings)

    def keep(self, rows: np.ndarray) -> None:
        self._tails = [self._tails[r] for r in rows]


def _ban(ops: Ops, log_probs: Array, mask: Array) -> Array:
    return ops.where(mask, ops.full((1, 1), -np.inf, "float32"), log_probs)
