"""BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D of captions, as the COCO caption code computes them, without Java."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gen.inputs.ptb import ptb_tokens
from gen.inputs.scripts import is_punctuation, is_unspaced, main_script, space_out

Tokens = Sequence[str]
_N = 4  # the largest n of the n-grams


def caption_tokenizer(references: Iterable[Sequence[str]]) -> tuple[str, Callable[[str], list[str]]]:
    """The function that cuts captions into words for the metrics, and its name: "ptb", the COCO caption code's, or
    "char", where one in twenty references or more is in a script without spaces: there each character (grapheme
    cluster) of such a script is a word.

    Example:
        >>> name, tokens = caption_tokenizer([["一只狗在跑。"]])
        >>> name, tokens("狗在跑 fast。")
        ('char', ['狗', '在', '跑', 'fast'])
    """
    texts = [text for each in references for text in each]
    unspaced = sum(not text.isascii() and main_script([text]) not in ("", "Hangul") for text in texts)
    return ("char", _character_tokens) if unspaced and unspaced >= 0.05 * len(texts) else ("ptb", ptb_tokens)


def caption_metrics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Corpus scores of captions, 0 to 100 (CIDEr-D may be more).

    Args:
        hypotheses: N captions.
        references: one or more reference captions per hypothesis.

    Returns:
        bleu1 … bleu4, rouge_l, cider (CIDEr-D), ``cider_signature`` and the like, which name the tokens (see
        `caption_tokenizer`), and ``distinct``, the number of different hypotheses.

    Raises:
        ValueError: a hypothesis has no reference.

    Example:
        >>> round(caption_metrics(["a dog runs"], [["a dog runs", "the dog is running"]])["bleu1"], 2)
        100.0
    """
    return CaptionScorer(references).corpus(hypotheses)


class CaptionScorer:
    """`caption_metrics` for repeated use on the same pictures: the references are prepared once.

    Args:
        references: one or more captions per picture, for N pictures.

    Raises:
        ValueError: a picture has no reference.

    Example:
        >>> scorer = CaptionScorer([["a dog runs"], ["two men sit"]])
        >>> round(scorer.corpus(["a dog runs", "a man sits"])["bleu1"], 2)
        50.0
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        if any(not each for each in references):
            raise ValueError("every picture needs at least one reference")
        self.tokenizer, self.tokens = caption_tokenizer(references)
        self.references = [[self.tokens(text) for text in each] for each in references]
        self.cider = CiderD(self.references)

    def corpus(self, hypotheses: Sequence[str]) -> dict[str, Any]:
        """Corpus scores of N captions; see `caption_metrics`."""
        scores = self.each(hypotheses)
        corpus, _ = bleu([self.tokens(h) for h in hypotheses], self.references)
        return {
            **{f"bleu{n + 1}": 100 * score for n, score in enumerate(corpus)},
            **{name: float(np.mean(scores[name])) if len(hypotheses) else 0.0 for name in ("rouge_l", "cider")},
            **{f"{name}_signature": f"tok:{self.tokenizer}" for name in ("cider", "rouge_l", "bleu4")},
            "distinct": len({h.strip() for h in hypotheses}),
        }

    def each(self, hypotheses: Sequence[str]) -> dict[str, np.ndarray]:
        """The scores per picture: name → (N,) float64, 0 to 100 (CIDEr-D may be more)."""
        tokens = [self.tokens(h) for h in hypotheses]
        _, scores = bleu(tokens, self.references)
        pairs = zip(tokens, self.references, strict=True)
        return {
            **{f"bleu{n + 1}": 100 * scores[:, n] for n in range(_N)},
            "rouge_l": 100 * np.array([rouge_l(hypothesis, wanted) for hypothesis, wanted in pairs]),
            "cider": 100 * np.array([self.cider.score(h, i) for i, h in enumerate(tokens)]),
        }


def _character_tokens(text: str) -> list[str]:
    """The characters of scripts without spaces and the words of others, without punctuation."""
    parts = space_out(text).split()
    tokens = [token for part in parts for token in ([part] if is_unspaced(part) else ptb_tokens(part))]
    return [token for token in tokens if not is_punctuation(token)]


def ngrams(tokens: Tokens) -> Counter[tuple[str, ...]]:
    """The counts of all n-grams of 1 to 4 tokens."""
    return Counter(tuple(tokens[i : i + n]) for n in range(1, _N + 1) for i in range(len(tokens) - n + 1))


def bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> tuple[list[float], np.ndarray]:
    """BLEU-1 to BLEU-4 (Papineni et al., 2002), with the brevity penalty relative to the closest reference length.

    Unlike sacrebleu it takes tokens as they are, and smooths the score of a single picture only so much that
    nothing is divided by zero.

    Args:
        hypotheses: N token sequences.
        references: one or more token sequences per hypothesis.

    Returns:
        The four scores of the corpus, and the scores per picture, (N, 4) float64; 0 to 1.

    Example:
        >>> bleu([["a", "dog", "runs"]], [[["a", "dog", "sleeps"]]])[0][0]  # doctest: +ELLIPSIS
        0.666...
    """
    small, tiny = 1e-9, 1e-15  # as in the reference code
    lengths = np.zeros((len(hypotheses), 2))  # hypothesis, closest reference
    matched, tried = np.zeros((len(hypotheses), _N)), np.zeros((len(hypotheses), _N))
    for i, (hypothesis, wanted) in enumerate(zip(hypotheses, references, strict=True)):
        allowed: Counter[tuple[str, ...]] = Counter()
        for reference in wanted:
            allowed |= ngrams(reference)
        for ngram, count in ngrams(hypothesis).items():
            matched[i, len(ngram) - 1] += min(count, allowed[ngram])
        size = len(hypothesis)
        tried[i] = [max(size - n, 0) for n in range(_N)]
        lengths[i] = size, min((abs(len(r) - size), len(r)) for r in wanted)[1]

    def combine(matched: np.ndarray, tried: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        precision = (matched + tiny) / (tried + small)
        scores = np.cumprod(precision, -1) ** (1 / np.arange(1, _N + 1))
        ratio = (sizes[..., :1] + tiny) / (sizes[..., 1:] + small)
        return scores * np.exp(np.minimum(1 - 1 / ratio, 0))

    corpus = combine(matched.sum(0), tried.sum(0), lengths.sum(0))
    return corpus.tolist(), combine(matched, tried, lengths)


def rouge_l(hypothesis: Tokens, references: Sequence[Tokens], beta: float = 1.2) -> float:
    """ROUGE-L (Lin, 2004): the F-measure of the longest common subsequence, 0 to 1. As in the COCO caption code,
    the best precision and the best recall may come from different references.

    Example:
        >>> rouge_l(["a", "dog", "runs"], [["a", "dog", "runs"], ["it", "runs"]])
        1.0
    """
    precision = recall = 0.0
    for reference in references:
        common = _longest_common(hypothesis, reference)
        precision = max(precision, common / max(len(hypothesis), 1))
        recall = max(recall, common / max(len(reference), 1))
    if not precision or not recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def _longest_common(a: Tokens, b: Tokens) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


_Vector = tuple[list[dict[tuple[str, ...], float]], list[float], int]


class CiderD:
    """CIDEr-D (Vedantam et al., 2015): similarity with the references, n-grams weighted by tf-idf.

    Args:
        references: the tokenized captions per picture, for N pictures; document frequencies are counted over all
            of them.
        sigma: the standard deviation of the Gaussian penalty on a difference in length, in bigrams.

    Example:
        >>> cider = CiderD([[["a", "dog", "runs", "fast"]], [["two", "men", "sit", "down"]]])
        >>> cider.score(["a", "dog", "runs", "fast"], picture=0)
        10.0
    """

    MAX_CACHED = 2000  # pictures whose vectors are cached: about 40 kB each

    def __init__(self, references: Sequence[Sequence[Tokens]], sigma: float = 6.0) -> None:
        self.references = references
        self.sigma = sigma
        frequency: Counter[tuple[str, ...]] = Counter()
        for captions in references:
            frequency.update({ngram for tokens in captions for ngram in ngrams(tokens)})
        self._size = math.log(max(len(references), 1))
        # Most n-grams occur with one picture; their inverse frequency is the same as that of unseen ones.
        self._idf = {ngram: self._size - math.log(n) for ngram, n in frequency.items() if n > 1}
        self._vectors: dict[int, list[_Vector]] = {}

    def score(self, hypothesis: Tokens, picture: int) -> float:
        """The score of a tokenized caption of a picture, given by its index: 0 to 10."""
        if picture not in self._vectors:
            if len(self._vectors) >= self.MAX_CACHED:
                self._vectors.clear()
            self._vectors[picture] = [self._vector(tokens) for tokens in self.references[picture]]
        vectors = self._vectors[picture]
        vector = self._vector(hypothesis)
        return 10 * sum(self._similarity(vector, other) for other in vectors) / _N / len(vectors)

    def _vector(self, tokens: Tokens) -> _Vector:
        """The tf-idf weights of the n-grams per n, their norms, and the length in bigrams."""
        weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(_N)]
        for ngram, count in ngrams(tokens).items():
            weights[len(ngram) - 1][ngram] = count * self._idf.get(ngram, self._size)
        norms = [math.sqrt(sum(w * w for w in by_n.values())) for by_n in weights]
        return weights, norms, max(len(tokens) - 1, 0)

    def _similarity(self, hypothesis: _Vector, reference: _Vector) -> float:
        """The sum over n of cosine similarities, with weights clipped to those of the reference."""
        total = 0.0
        for h, r, h_norm, r_norm in zip(hypothesis[0], reference[0], hypothesis[1], reference[1], strict=True):
            if h_norm and r_norm:
                common = h.keys() & r.keys()
                total += sum(min(h[ngram], r[ngram]) * r[ngram] for ngram in common) / (h_norm * r_norm)
        return total * math.exp(-((hypothesis[2] - reference[2]) ** 2) / (2 * self.sigma**2))
