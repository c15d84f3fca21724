"""How well a few words fit what a model would write about each item: search over pictures by words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gen.base.errors import UserError
from gen.search.generation import GenerationMixin
from gen.search.loop import NOT_FINITE

PLACES = 40
"""Places of a text at which words are tried."""


@dataclass(frozen=True)
class Fit:
    """How well words fit an item: ``score``, their log-probability per token (nats) where they fit best in
    ``text``, the model's greedy output."""

    score: float
    text: str


def phrase_fits(model: GenerationMixin, items: Sequence[Any], phrase: str) -> list[Fit]:
    """How well some words fit each item, best where the model would write them.

    They may come at any place of the greedy output: "snow" begins few captions, but ends many. On 300 pictures of
    Flickr8k, short queries rank by a mean average precision of 0.35; as the first words of the output, 0.29. What
    is common to all words for one picture stays in: less the average over other texts, the right picture is first
    for 10 % of 200 captions instead of 12 to 14.

    Args:
        model: of torch or exported; it reads each item once.
        items: B inputs.
        phrase: words in the form that the model writes.

    Raises:
        UserError: the vocabulary lacks a word; or the model's log-probabilities are NaN.
    """
    tokenizer = model.tokenizer
    phrase_ids = phrase_tokens(model, phrase)
    with model._evaluating():
        start = model.start_search(items)
        ops, B = start.ops, len(items)

        def all_of(token_id: int) -> Any:
            return ops.asarray(np.full((B, 1), token_id), "int64")

        columns = [all_of(i) for i in phrase_ids]
        token_ids, state = all_of(tokenizer.bos_id), start.state
        best, written = np.full(B, -np.inf), np.empty((B, 0), np.int64)
        going = np.full(B, True)
        for _ in range(PLACES):
            log_probs, state, _ = start.step(token_ids, state)
            found, inner = log_probs, state
            fit = np.array(ops.numpy(ops.at(found, columns[0][:, 0])), np.float64)
            for before, column in pairwise(columns):
                found, inner, _ = start.step(before, inner)
                fit += ops.numpy(ops.at(found, column[:, 0]))
            if np.isnan(fit).any():
                raise UserError(NOT_FINITE)
            best = np.where(going, np.maximum(best, fit), best)
            never = ops.asarray([tokenizer.pad_id, tokenizer.bos_id, tokenizer.unk_id], "int64")
            token_ids = ops.ban(log_probs, None, never).argmax(-1)[:, None]
            chosen = ops.numpy(token_ids)[:, 0]
            going = going & (chosen != tokenizer.eos_id)
            if not going.any():
                break
            written = np.column_stack([written, np.where(going, chosen, tokenizer.pad_id)])
    scores = (best / len(phrase_ids)).tolist()
    return [Fit(s, tokenizer.decode(row.tolist()).strip()) for s, row in zip(scores, written, strict=True)]


def phrase_tokens(model: GenerationMixin, phrase: str) -> list[int]:
    """The token ids of some words. Raises `UserError` if there are none, or the vocabulary lacks one."""
    tokenizer = model.tokenizer
    lacking = [w for w in phrase.split() if tokenizer.unk_id in tokenizer.encode(w)]
    if lacking:
        raise UserError(f"{', '.join(map(repr, lacking))}: not in the vocabulary: no training text has it")
    token_ids = tokenizer.encode(phrase)
    if not token_ids:
        raise UserError("there are no words to look for")
    return token_ids
