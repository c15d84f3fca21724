"""Metrics of language models and translations, and a significance test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, Literal, get_args

from gen.base.errors import UserError
from gen.inputs.scripts import main_script

BleuTokenizer = Literal["13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none"]
"""sacrebleu's names of tokenizers for BLEU."""

_LIBRARIES = {"ja-mecab": ("MeCab", "ja"), "ko-mecab": ("mecab_ko", "ko")}  # module, sacrebleu's extra


def language_metrics(loss_sum: float, num_tokens: int, num_characters: int) -> dict[str, float]:
    """Language model metrics from a summed cross-entropy.

    Args:
        loss_sum: the cross-entropy of the whole text, in nats.
        num_tokens: the number of predicted tokens.
        num_characters: the length of the text, to compare models with different vocabularies.

    Returns:
        ``loss``, nats per token; ``bits_per_char``; ``perplexity`` per token, e^loss.

    Example:
        >>> found = language_metrics(loss_sum=140.0, num_tokens=100, num_characters=200)
        >>> {name: round(value, 2) for name, value in found.items()}
        {'loss': 1.4, 'bits_per_char': 1.01, 'perplexity': 4.06}
    """
    loss = loss_sum / max(num_tokens, 1)
    return {
        "loss": loss,
        "bits_per_char": loss_sum / max(num_characters, 1) / math.log(2),
        "perplexity": math.exp(min(loss, 700.0)),
    }


def bleu_tokenizer(texts: Iterable[str]) -> tuple[BleuTokenizer, str]:
    """The tokenizer that cuts texts of this script into words for BLEU, and the reason.

    Example:
        >>> bleu_tokenizer(["一只狗在跑"])[0], bleu_tokenizer(["หมาวิ่ง"])[0], bleu_tokenizer(["a dog runs"])[0]
        ('zh', 'char', '13a')
    """
    script = main_script(texts)
    if not script:
        return "13a", "the script of the targets has spaces between words"
    written = f"most target letters are {script.replace('_', ' ')}"
    own: dict[str, BleuTokenizer] = {"Han": "zh", "Japanese": "ja-mecab", "Hangul": "ko-mecab"}
    name = own.get(script, "char")
    if missing := missing_library(name):
        return "char", f"{written}, and {missing} is not installed"
    return name, written


def share_of_short(texts: Sequence[str], tokenize: str = "13a") -> float:
    """The share of N texts, 0 to 1, with fewer than the four tokens of BLEU's longest n-grams. Where most are so
    short, BLEU counts what is wrong alone: a longer output that is wrong raises it, all outputs right give 0.

    Example:
        >>> share_of_short(["May 3", "it was a very cold day"])
        0.5
    """
    metric = sacrebleu_metrics(["bleu"], tokenize=tokenize)["bleu"]
    short = sum(len(metric.tokenizer(text).split()) < metric.max_ngram_order for text in texts)
    return short / max(len(texts), 1)


def missing_library(tokenizer: str) -> str:
    """The package that a BLEU tokenizer needs, if it is not installed; else ""."""
    module, extra = _LIBRARIES.get(tokenizer, ("", ""))
    return f"sacrebleu[{extra}]" if module and find_spec(module) is None else ""


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

    Raises:
        UserError: the tokenizer is unknown, or needs a package that is not installed; or there are no texts.

    Example:
        >>> translation_metrics(["the cat sat there"], ["the cat sat there"])["bleu"]
        100.0
    """
    if not hypotheses:
        raise UserError("there is nothing to score")
    found: dict[str, Any] = {}
    for name, metric in sacrebleu_metrics(names, lowercase, tokenize).items():
        found[name] = round(metric.corpus_score(list(hypotheses), [list(references)]).score, 4)
        found[f"{name}_signature"] = str(metric.get_signature())
    pairs = zip(hypotheses, references, strict=True)
    equal = sum(h.lower() == r.lower() if lowercase else h == r for h, r in pairs)
    return {**found, "exact": equal / max(len(references), 1)}


def sacrebleu_metrics(names: Sequence[str], lowercase: bool = False, tokenize: str = "13a") -> dict[str, Any]:
    """sacrebleu's metric objects for "bleu", "chrf" and "ter"; see `translation_metrics`."""
    if tokenize not in get_args(BleuTokenizer):
        raise UserError(f"--bleu-tokenizer {tokenize!r}: must be one of {', '.join(get_args(BleuTokenizer))}")
    if missing := missing_library(tokenize):
        raise UserError(f"--bleu-tokenizer {tokenize}: needs {missing}; install it with pip, or name another one")
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    made = {
        "bleu": lambda: BLEU(lowercase=lowercase, tokenize=tokenize),
        "chrf": lambda: CHRF(lowercase=lowercase),
        "ter": lambda: TER(case_sensitive=not lowercase),
    }
    return {name: made[name]() for name in names}


def sentence_score(
    names: Sequence[str], lowercase: bool = False, tokenize: str = "13a"
) -> Callable[[str, str], float]:
    """The score of one sentence, 0 to 1, as a reward for training: (hypothesis, reference) → score.

    Args:
        names: "bleu", "chrf" or both, for their mean. BLEU counts one more match of each n-gram but words, so that
            it is above 0 without four words in a row (Lin and Och, 2004).
        lowercase, tokenize: see `translation_metrics`.

    Example:
        >>> sentence_score(["bleu", "chrf"])("the cat sat there", "the cat sat there")
        1.0
        >>> score = sentence_score(["bleu"])  # here (3/4 · (1+1)/(3+1) · (0+1)/(2+1) · (0+1)/(1+1)) ** (1/4)
        >>> round(score("the cat sat there", "the cat ran there"), 6)
        0.5
    """
    metrics = sacrebleu_metrics(names, lowercase, tokenize)
    if "bleu" in metrics:
        bleu = metrics["bleu"]
        bleu.smooth_method, bleu.smooth_value, bleu.effective_order = "add-k", 1, True

    def score(hypothesis: str, reference: str) -> float:
        found = [metric.sentence_score(hypothesis, [reference]).score / 100 for metric in metrics.values()]
        return min(sum(found) / len(found), 1.0)

    return score


def paired_bootstrap(
    hypotheses: Sequence[str],
    others: Sequence[str],
    references: Sequence[str],
    *,
    names: Sequence[str] = ("bleu", "chrf", "ter"),
    lowercase: bool = False,
    tokenize: str = "13a",
) -> dict[str, float]:
    """Significance test of the difference between two systems: paired bootstrap resampling (Koehn, 2004).

    Args:
        hypotheses, others: N texts each, the outputs of the two systems.
        references: N texts.
        names: the metrics; see `translation_metrics`.
        lowercase, tokenize: see `translation_metrics`.

    Returns:
        metric → p-value, with sacrebleu's default number of samples and seed; 1 where both scores are equal, such
        as two of 0.

    Example:
        >>> paired_bootstrap(["a b c d"], ["a b c d"], ["a b c d"], names=["bleu"])
        {'bleu': 1.0}
    """
    from sacrebleu.significance import PairedTest

    metrics = sacrebleu_metrics(names, lowercase, tokenize)
    if list(hypotheses) == list(others):
        return dict.fromkeys(names, 1.0)  # sacrebleu would count samples that differ by more than 0: none
    named: list[Any] = [("first", list(hypotheses)), ("second", list(others))]
    results: Any = PairedTest(named, metrics, references=[list(references)], test_type="bs")()[1]
    columns = [key for key in results if key != "System"]  # in the order of the metrics, with sacrebleu's names
    found = {}
    for name, column in zip(metrics, columns, strict=True):
        first, second = results[column]
        # From equal scores sacrebleu would count samples that differ by more than 0, and may find very few.
        equal = math.isclose(first.score, second.score, abs_tol=1e-9)
        found[name] = 1.0 if equal else float(second.p_value)
    return found
