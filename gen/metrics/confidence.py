"""Calibrating a model: what the log-probabilities of its words and texts mean, from outputs with references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gen.base.errors import UserError
from gen.metrics.classification import reliability_gap
from gen.search.confidence import Calibration, Curve, words_of
from gen.search.output import Hypothesis

GROUPS = 40
"""Most groups of words, or of texts, whose means a curve is made from."""

LEAST = 10
"""Words, or texts, in a group at least."""

LOWEST = -1e4
"""What is less probable counts as so: a log-probability may be infinite."""


def calibrate(
    hypotheses: Sequence[Hypothesis],
    references: Sequence[Sequence[str]],
    qualities: Sequence[float],
    quality: str,
) -> Calibration:
    """A calibration from N outputs of a model.

    Its figures are measured on other outputs than those that the curves are from, by making it twice, from every
    other output: "word_ece", the expected calibration error of "this word is in a reference", and "spearman", the
    rank correlation of the confidence in a text with its quality.

    Args:
        hypotheses: rated with `gen.search.confidence.RAW`: their confidences are log-probabilities.
        references: one or more per hypothesis, normalised as the model writes.
        qualities: (N,) of the hypotheses, 0 to 1.
        quality: its name.

    Raises:
        UserError: there are too few outputs or words.
    """
    texts = np.array([h.confidence for h in hypotheses], float).clip(LOWEST)  # (N,)
    words = np.array([word.confidence for h in hypotheses for word in h.words], float).clip(LOWEST)  # (W,)
    pairs = zip(hypotheses, references, strict=True)
    right = np.array([known for h, wanted in pairs for known in _right(h, wanted)], bool)
    owner = np.repeat(np.arange(len(texts)), [len(h.words) for h in hypotheses])
    scores, odd = np.array(qualities, float), np.arange(len(texts)) % 2 == 1
    for half, what in ((odd, "outputs"), (odd[owner], "words")):
        if min(half.sum(), (~half).sum()) < 2 * LEAST:
            raise UserError(f"--calibrate: {len(half)} {what} are too few: name data with {4 * LEAST} or more")
    sure, expected = np.empty(len(words)), np.empty(len(texts))
    for half in (odd, ~odd):
        sure[half[owner]] = fit_curve(words[~half[owner]], right[~half[owner]])(words[half[owner]])
        expected[half] = fit_curve(texts[~half], scores[~half])(texts[half])
    figures = {
        "outputs": float(len(texts)),
        "words": float(len(words)),
        "word_ece": reliability_gap(sure, right),
        "spearman": spearman(expected, scores),
    }
    return Calibration(fit_curve(words, right), fit_curve(texts, scores), quality, figures)


def _right(hypothesis: Hypothesis, references: Iterable[str]) -> list[bool]:
    """Per word whether it is in a reference."""
    known = {word for text in references for _, word in words_of(text)}
    return [word.text in known for word in hypothesis.words]


def fit_curve(values: np.ndarray, targets: np.ndarray) -> Curve:
    """The curve that says best what to expect at a value: centred isotonic regression (Oron and Flournoy, 2017) of
    the means of equally large groups. It rises between its knots, so it keeps the order of what it is given.

    Args:
        values: (N,) float.
        targets: (N,), 0 to 1.

    Example:
        >>> curve = fit_curve(np.arange(40.0), np.repeat([0.0, 0.5, 0.25, 1.0], 10))
        >>> curve.x, curve.y
        ((4.5, 19.5, 34.5), (0.0, 0.375, 1.0))
    """
    order = np.argsort(values, kind="stable")
    count = max(min(GROUPS, len(values) // LEAST), 1)
    pooled: list[tuple[float, float, int]] = []  # mean value, mean target, how many
    for group in np.array_split(order, count):
        new = float(values[group].mean()), float(targets[group].mean()), len(group)
        while pooled and (pooled[-1][1] >= new[1] or pooled[-1][0] >= new[0]):
            old = pooled.pop()
            total = old[2] + new[2]
            new = (old[0] * old[2] + new[0] * new[2]) / total, (old[1] * old[2] + new[1] * new[2]) / total, total
        pooled.append(new)
    return Curve(tuple(x for x, _, _ in pooled), tuple(min(y, 1.0) for _, y, _ in pooled))


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation of (N,) values with others, -1 to 1; ties share their mean rank. 0 where all are equal.

    Example:
        >>> round(spearman(np.array([1.0, 2.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3, 0.4])), 3)
        0.949
    """
    ranks = []
    for values in (one, other):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    centred = [rank - rank.mean() for rank in ranks]
    size = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / size) if size else 0.0
