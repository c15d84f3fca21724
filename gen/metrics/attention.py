"""Plots of what a decoder looked at in an item: its words and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gen.inputs.items import memory_slices, named_item
from gen.inputs.processors import PictureProcessor
from gen.metrics.plots import plot_attention, plot_looks
from gen.search import Hypothesis


def plot_attended(model: Any, item: Any, hypothesis: Hypothesis, to: Path) -> None:
    """Plots the attention (T, S) of a hypothesis on the words of an item into the file ``to``.

    For a picture there is a separate file, ``{stem}-{input}``. Without words, the first picture's is ``to``.
    """
    if not model.processors:  # the encoder prepares its input itself
        plot_attention(hypothesis.attention, hypothesis.tokens, model.encoder.labels(item), to)
        return
    parts, weights = memory_slices(model.processors, item), np.asarray(hypothesis.attention)
    named = named_item(model.processors, item)
    pictures = [name for name in parts if isinstance(model.processors[name], PictureProcessor)]
    words = [name for name in parts if name not in pictures]
    for i, name in enumerate(pictures):
        pixels = model.processors[name].read([named[name]])[0].transpose(1, 2, 0)
        file = to.with_stem(f"{to.stem}-{name}") if words or i else to
        plot_looks(pixels, weights[:, parts[name]], hypothesis.tokens, file)
    if words or not pictures:
        columns = np.concatenate([np.arange(weights.shape[1])[parts[name]] for name in words])
        labels = model.encoder.labels(item)
        plot_attention(weights[:, columns], hypothesis.tokens, [labels[i] for i in columns], to)
