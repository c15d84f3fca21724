"""Metrics of language models and translations, and a significance test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def language_metrics(loss_sum: float, num_tokens: int, num_characters: int) -> dict[str, float]:
    """Language model metrics from a summed cross-entropy.

    Args:
        loss_sum: the cross-entropy of the whole text, in nats.
        num_tokens: the number of predicted tokens.
        num_characters: the length of the text, to compare models with different vocabularies.

    Returns:
        ``loss``, nats per token; ``bits_per_char``; ``perplexity`` per token, e^loss.

    Example:
        >>> language_metrics(loss_sum=140.0, num_tokens=100, num_characters=100)["loss"]
        1.4
    """
    loss = loss_sum / max(num_tokens, 1)
    return {
        "loss": loss,
        "bits_per_char": loss_sum / max(num_characters, 1) / math.log(2),
        "perplexity": math.exp(min(loss, 700.0)),
    }


def translation_metrics(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    names: Sequence[str] = ("bleu", "chrf"),
    lowercase: bool = False,
    tokenize: str = "13a",
) -> dict[str, Any]:
    """Corpus scores by sacrebleu, each with its signature, which records the settings.

    Args:
        hypotheses, references: N texts each, detokenized.
        names: some of "bleu" (Papineni et al., 2002), "chrf" (Popović, 2015) and "ter" (Snover et al., 2006).
        lowercase: ignore case.
        tokenize: sacrebleu's name of the tokenizer for BLEU.

    Returns:
        Per name its score (0 to 100; TER may be more) and ``name_signature``; and ``exact``, the share of
        hypotheses equal to their reference (0 to 1).

    Example:
        >>> translation_metrics(["the cat sat there"], ["the cat sat there"])["bleu"]
        100.0
    """
    found: dict[str, Any] = {}
    for name, metric in sacrebleu_metrics(names, lowercase, tokenize).items():
        found[name] = round(metric.corpus_score(list(hypotheses), [list(references)]).score, 4)
        found[f"{name}_signature"] = str(metric.get_signature())
    equal = sum(h == r for h, r in zip(hypotheses, references, strict=True))
    return {**found, "exact": equal / max(len(references), 1)}


def sacrebleu_metrics(names: Sequence[str], lowercase: bool = False, tokenize: str = "13a") -> dict[str, Any]:
    """sacrebleu's metric objects for "bleu", "chrf" and "ter"."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    made = {
        "bleu": lambda: BLEU(lowercase=lowercase, tokenize=tokenize),
        "chrf": lambda: CHRF(lowercase=lowercase),
        "ter": lambda: TER(case_sensitive=not lowercase),
    }
    return {name: made[name]() for name in names}


def paired_bootstrap(
    hypotheses: Sequence[str],
    others: Sequence[str],
    references: Sequence[str],
    *,
    names: Sequence[str] = ("bleu", "chrf", "ter"),
    lowercase: bool = False,
) -> dict[str, float]:
    """Significance test of the difference between two systems: paired bootstrap resampling (Koehn, 2004).

    Args:
        hypotheses, others: N texts each, the outputs of the two systems.
        references: N texts.
        names: the metrics; see `translation_metrics`.
        lowercase: ignore case.

    Returns:
        metric → p-value, with sacrebleu's default number of samples and seed.

    Example:
        >>> paired_bootstrap(["a b c d"], ["a b c d"], ["a b c d"], names=["bleu"])
        {'bleu': 1.0}
    """
    from sacrebleu.significance import PairedTest

    metrics = sacrebleu_metrics(names, lowercase)
    if list(hypotheses) == list(others):
        return dict.fromkeys(names, 1.0)  # sacrebleu would count samples that differ by more than 0: none
    named: list[Any] = [("first", list(hypotheses)), ("second", list(others))]
    results: Any = PairedTest(named, metrics, references=[list(references)], test_type="bs")()[1]
    columns = [key for key in results if key != "System"]  # in the order of the metrics, with sacrebleu's names
    return {name: float(results[column][1].p_value) for name, column in zip(metrics, columns, strict=True)}
