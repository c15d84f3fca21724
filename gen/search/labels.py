"""Labels of items: one step of the decoder, over the labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gen.inputs.tokenizer import SPECIALS
from gen.search.generation import GenerationMixin, in_batches, length_of


def label_log_probs(model: GenerationMixin, items: Sequence[Any]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The log-probability of every label for every item.

    Args:
        model: with a `LabelTokenizer`, of torch or exported.
        items: B inputs.

    Returns:
        (B, L) float32 natural logarithms, in the order of the tokenizer's labels; and per item the attention over
        its memory, (S,) float32 (S = 0 without attention).
    """
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    batches = list(in_batches(list(map(length_of, items)), len(items)))
    if len(batches) < 2:
        return _together(model, items)
    for rows in batches:
        found.update(zip(rows, zip(*_together(model, [items[i] for i in rows]), strict=True), strict=True))
    labels, looks = zip(*(found[i] for i in range(len(items))), strict=True)
    return np.stack(labels), list(looks)


def _together(model: GenerationMixin, items: Sequence[Any]) -> tuple[np.ndarray, list[np.ndarray]]:
    """`label_log_probs` of one batch."""
    tokenizer = model.tokenizer
    with model.evaluating():
        start = model.start_search(items)
        first = start.ops.asarray(np.full((len(items), 1), tokenizer.bos_id), "int64")
        predicted, _, attention = start.step(first, start.state)
    labels = np.asarray(start.ops.numpy(predicted), np.float32)[:, len(SPECIALS) :]
    labels = labels - np.logaddexp.reduce(labels, axis=1, keepdims=True)
    if attention is None or start.mask is None:
        return labels, [np.empty(0, np.float32)] * len(items)
    weights = np.asarray(start.ops.numpy(attention), np.float32)
    return labels, [row[real] for row, real in zip(weights, start.mask, strict=True)]
