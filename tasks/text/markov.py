"""A Markov chain of the same text, to compare a network with."""

from __future__ import annotations

import numpy as np

from gen.datasets.corpus import Corpus, Part
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.markov import MarkovChain
from gen.metrics.scores import language_metrics
from tasks.text.evaluation import characters_of


def markov_order(tokenizer: Tokenizer) -> int:
    """The order that is best with a megabyte of text."""
    return 4 if tokenizer.kind == "char" else 2


def markov_metrics(corpus: Corpus, order: int, limit: int) -> dict[str, float]:
    """`language_metrics` on the validation part of a chain fitted to the training part; see `fit_markov`."""
    chain = fit_markov(corpus, order)
    part = corpus.valid
    token_ids = part.tokens.read(0, min(limit, len(part.tokens)))
    if part.offsets is not None:
        token_ids = _with_ends(part, corpus.tokenizer, limit)
    loss_sum = -float(chain.log_probs(token_ids).sum())
    return language_metrics(loss_sum, len(token_ids), characters_of(part, len(token_ids)))


def fit_markov(corpus: Corpus, order: int, limit: int = 2_000_000) -> MarkovChain:
    """A Markov chain fitted to the first ``limit`` tokens of the training part."""
    part = corpus.train
    token_ids = part.tokens.read(0, limit) if part.offsets is None else _with_ends(part, corpus.tokenizer, limit)
    return MarkovChain.fit(token_ids, corpus.tokenizer, order)


def _with_ends(part: Part, tokenizer: Tokenizer, limit: int) -> np.ndarray:
    """Lines as one array of token ids, with EOS after each."""
    offsets = np.asarray(part.offsets)
    offsets = offsets[offsets <= max(limit, offsets[min(1, len(offsets) - 1)])]
    return np.insert(part.tokens.read(0, int(offsets[-1])), offsets[1:], tokenizer.eos_id)
