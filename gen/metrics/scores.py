"""Figures from summed losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def language_metrics(loss_sum: float, num_tokens: int, num_characters: int) -> dict[str, float]:
    """What a summed cross-entropy says about a text.

    Args:
        loss_sum: nats over the whole text.
        num_tokens: how many were predicted.
        num_characters: the text's length, so that vocabularies of different kinds compare.

    Returns:
        loss: nats a token. bits_per_char: log2-loss over characters. perplexity: a token, e^loss.

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
    """Corpus scores by sacrebleu, each with the signature that says how it was computed.

    Args:
        hypotheses, references: N texts each, detokenized.
        names: of "bleu" (Papineni et al., 2002), "chrf" (Popović, 2015) and "ter" (Snover et al., 2006).
        lowercase: compare without case.
        tokenize: BLEU's tokenizer.

    Returns:
        name → score (0 to 100; TER may be more), ``exact`` → share of texts that equal their reference (0 to 1),
        ``name_signature`` → text.

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
    """sacrebleu's metric objects by our names for them."""
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
    """How probable it is that two systems' difference is chance: paired bootstrap resampling (Koehn, 2004).

    Args:
        hypotheses, others: N texts each, of the two systems.
        references: N texts.
        names: of the metrics; see `translation_metrics`.
        lowercase: compare without case.

    Returns:
        metric → p-value, from sacrebleu with its own number of samples and seed.
    """
    from sacrebleu.significance import PairedTest

    metrics = sacrebleu_metrics(names, lowercase)
    if list(hypotheses) == list(others):
        return dict.fromkeys(names, 1.0)  # sacrebleu counts samples that differ by more than 0, and finds none
    named: list[Any] = [("first", list(hypotheses)), ("second", list(others))]
    results: Any = PairedTest(named, metrics, references=[list(references)], test_type="bs")()[1]
    columns = [key for key in results if key != "System"]  # in the order of the metrics, under their own names
    return {name: float(results[column][1].p_value) for name, column in zip(metrics, columns, strict=True)}
