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
    phrases = phrase_tokens(model, phrase)
    with model.evaluating():
        start = model.start_search(items)
        ops, B = start.ops, len(items)

        def all_of(token_id: int) -> Any:
            return ops.asarray(np.full((B, 1), token_id), "int64")

        never = ops.asarray([tokenizer.pad_id, tokenizer.bos_id, tokenizer.unk_id], "int64")
        token_ids, state = all_of(tokenizer.bos_id), start.state
        best, written = np.full(B, -np.inf), np.empty((B, 0), np.int64)
        going = np.full(B, True)
        for place in range(PLACES):
            log_probs, state, _ = start.step(token_ids, state)
            columns = [all_of(i) for i in phrases[min(place, 1)]]
            found, inner = log_probs, state
            fit = np.array(ops.numpy(ops.at(found, columns[0][:, 0])), np.float64)
            for before, column in pairwise(columns):
                found, inner, _ = start.step(before, inner)
                fit += ops.numpy(ops.at(found, column[:, 0]))
            if np.isnan(fit).any():
                raise UserError(NOT_FINITE)
            best = np.where(going, np.maximum(best, fit / len(columns)), best)
            token_ids = ops.ban(log_probs, None, never).argmax(-1)[:, None]
            chosen = ops.numpy(token_ids)[:, 0]
            going = going & (chosen != tokenizer.eos_id)
            if not going.any():
                break
            written = np.column_stack([written, np.where(going, chosen, tokenizer.pad_id)])
    texts = [tokenizer.decode([i for i in row if i != tokenizer.pad_id]).strip() for row in written.tolist()]
    return [Fit(*each) for each in zip(best.tolist(), texts, strict=True)]


def phrase_tokens(model: GenerationMixin, phrase: str) -> tuple[list[int], list[int]]:
    """The token ids of some words at the beginning of a text, and further on, with a space before them.

    Raises:
        UserError: there are no words, or the vocabulary lacks one.
    """
    tokenizer, words = model.tokenizer, phrase.split()

    def lacks(text: str) -> bool:
        return tokenizer.unk_id in tokenizer.encode(text)

    if lacking := [w for i, w in enumerate(words) if lacks(f" {w}") and (i or lacks(w))]:
        raise UserError(f"{', '.join(map(repr, lacking))}: not in the vocabulary: no training text has it")
    if not words:
        raise UserError("there are no words to look for")
    text = " ".join(words)
    first, further = text if not lacks(text) else f" {text}", f" {text}" if not lacks(f" {text}") else text
    return tokenizer.encode(first), tokenizer.encode(further)
