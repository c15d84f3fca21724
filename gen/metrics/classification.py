"""Figures of a classifier: accuracy, macro-F1, calibration, confusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gen.base.errors import UserError

BINS = 15
"""Bins of the expected calibration error, as in Guo et al. (2017)."""


def classification_metrics(log_probs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Figures of N items and L labels.

    Args:
        log_probs: (N, L) float, natural logarithms.
        targets: (N,) int, indices of the right labels.

    Returns:
        "accuracy"; "macro_f1", the mean F1 of the labels that occur; "ece", the expected calibration error; each
        0 to 1; and "loss", nats per item.

    Raises:
        UserError: scikit-learn is not installed.

    Example:
        >>> log_probs = np.log([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]])
        >>> classification_metrics(log_probs, np.array([0, 1, 1]))["accuracy"]
        0.6666666666666666
    """
    metrics = library()
    chosen = log_probs.argmax(1)
    return {
        "accuracy": float(metrics.accuracy_score(targets, chosen)),
        "macro_f1": float(
            metrics.f1_score(targets, chosen, average="macro", labels=np.unique(targets), zero_division=0.0)
        ),
        "ece": calibration_error(log_probs, targets),
        "loss": -float(log_probs[np.arange(len(targets)), targets].mean()),
    }


def confusion(chosen: Sequence[str], targets: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """How often each label was taken for each other one.

    Args:
        chosen, targets: N labels each, the model's and the right ones.
        labels: L labels, in the order of the rows and the columns.

    Returns:
        (L, L) int64 counts: rows are the right labels, columns the chosen ones.

    Raises:
        UserError: scikit-learn is not installed.

    Example:
        >>> confusion(["cat", "dog", "dog"], ["cat", "cat", "dog"], ["cat", "dog"]).tolist()
        [[1, 1], [0, 1]]
    """
    found: np.ndarray = library().confusion_matrix(targets, chosen, labels=list(labels))
    return found


def calibration_error(log_probs: np.ndarray, targets: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error (Naeini et al., 2015; Guo et al., 2017): the mean difference between how
    probable the chosen label is said to be and how often it is right, over equally wide bins of probability.

    Args:
        log_probs: (N, L) float.
        targets: (N,) int.
        bins: the number of bins.

    Example:
        >>> round(calibration_error(np.log([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1])), 6)
        0.0
    """
    return reliability_gap(np.exp(log_probs.max(1)), log_probs.argmax(1) == targets, bins)


def reliability_gap(sure: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """The mean difference between the probability of being right and how often that is so, over equally wide bins.

    Args:
        sure: (N,) float, probabilities.
        right: (N,) bool.
        bins: the number of bins.

    Returns:
        0 to 1, where each bin counts as much as it has of the N.
    """
    at = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [abs(float(right[at == b].sum() - sure[at == b].sum())) for b in np.unique(at)]
    return sum(gaps) / len(right)


def temperature_of(log_probs: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that makes held-out labels most probable: temperature scaling (Guo et al., 2017).

    Args:
        log_probs: (N, L) float.
        targets: (N,) int.

    Returns:
        To divide the logits by; between 0.1 and 10.

    Example:
        >>> log_probs = np.log([[0.75, 0.25]] * 4) * 3 - np.log(0.75**3 + 0.25**3)
        >>> round(temperature_of(log_probs, np.array([0, 0, 0, 1])), 1)
        3.0
    """
    rows = np.arange(len(targets))

    def loss(temperature: float) -> float:
        scaled = log_probs / temperature
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[rows, targets]).mean())

    low, high = np.log(0.1), np.log(10.0)
    for _ in range(40):  # the loss has one minimum in 1 / temperature: narrow the interval around it
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if loss(np.exp(a)) < loss(np.exp(b)) else (a, high)
    return float(np.exp((low + high) / 2))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The p-value of McNemar's exact test that two classifiers are equally often right on the same N items.

    Example:
        >>> round(mcnemar([True] * 9 + [False], [False] * 5 + [True] * 5), 3)
        0.219
    """
    from scipy.stats import binomtest  # comes with scikit-learn

    pairs = Counter(zip(first, second, strict=True))
    only, other = pairs[True, False], pairs[False, True]
    return float(binomtest(only, only + other).pvalue) if only + other else 1.0


def library() -> Any:
    """The metrics of scikit-learn. Raises `UserError` if it is not installed."""
    try:
        from sklearn import metrics
    except ImportError as error:
        raise UserError(
            "classification needs scikit-learn for its figures: pip install 'gen-toolkit[classify]'"
        ) from error
    return metrics
