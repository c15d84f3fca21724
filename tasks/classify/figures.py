"""The probabilities that a classifier gives the labels of examples, and their calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from gen.base.distributed import gather, shard
from gen.inputs.tokenizer import SPECIALS
from gen.metrics.classification import classification_metrics, temperature_of
from gen.models.model import Model
from gen.search.labels import label_log_probs
from gen.training.interfaces import Example


def targets_of(model: Any, examples: Sequence[Example]) -> np.ndarray:
    """(N,) indices of the right labels."""
    ids = [model.tokenizer.encode(e.target, strict=True)[0] for e in examples]
    return np.array(ids) - len(SPECIALS)


def log_probs_of(
    model: Any, examples: Sequence[Example], prepare: Callable[[list[Any]], Any], batch_size: int = 64
) -> np.ndarray:
    """(N, L) log-probabilities of the labels. Processes share the examples.

    Args:
        model: a classifier.
        examples: N of them.
        prepare: items → what the model reads.
        batch_size: items per pass.
    """
    order = sorted(range(len(examples)), key=lambda i: len(str(examples[i].item)))
    mine = shard(order)
    found: list[np.ndarray] = []
    for begin in range(0, len(mine), batch_size):
        items = [examples[i].item for i in mine[begin : begin + batch_size]]
        found += list(label_log_probs(model, prepare(items))[0])
    everyone = dict(gather(list(zip(mine, found, strict=True))))
    return np.stack([everyone[i] for i in range(len(examples))])


def calibrate(model: Model, log_probs: np.ndarray, targets: np.ndarray) -> None:
    """Divides the output layer by the temperature that suits (N, L) held-out log-probabilities, and records it and
    the calibration error before."""
    temperature, before = temperature_of(log_probs, targets), classification_metrics(log_probs, targets)["ece"]
    with torch.no_grad():
        model.decoder.output.weight.div_(temperature)
        model.decoder.output.bias.div_(temperature)
    model.info.metrics.update({"temperature": round(temperature, 4), "uncalibrated_ece": round(before, 4)})
