"""A text corpus: reading, evaluation of a model on it, and a Markov chain to compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

import numpy as np

from gen.base.distributed import all_reduce_sum, is_main
from gen.base.errors import few, notify
from gen.base.files import TextFiles
from gen.datasets.batches import SequenceBatches, Sequences
from gen.datasets.corpus import Corpus, Part, TokenizerOptions, build_corpus
from gen.datasets.streams import stream_evaluation
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.markov import MarkovChain
from gen.metrics.scores import language_metrics
from gen.models.batch import Batch
from gen.models.model import Model
from gen.training.interfaces import Evaluation
from tasks.text.options import TextData, TextHeldOut


def text_files(options: TextData | TextHeldOut, names: Sequence[str], unit: str, column: str) -> TextFiles:
    """The files of these names; tells what is skipped in folders."""
    files = TextFiles(names, options.encoding_errors, column, one_line=unit == "line")
    if files.skipped and is_main():
        notify(
            f"{len(files.skipped):,} files that do not end in .txt or .txt.gz are skipped: {few(files.skipped)}"
        )
    return files


def read_corpus(options: TextData, vocabulary: Tokenizer | None = None) -> Corpus:
    """Reads and tokenizes the text, with a new vocabulary if none is given."""
    files = text_files(options, options.data, options.unit, options.column)
    valid = text_files(options, options.valid, options.unit, options.column) if options.valid else None
    tokenizer = TokenizerOptions(
        options.level,
        options.min_frequency,
        options.vocab_size,
        options.model_type,
        normalization=options.normalize,
    )
    return build_corpus(
        files,
        valid,
        tokenizer,
        valid_fraction=options.valid_fraction,
        unit=options.unit,
        max_line=options.max_line,
        tokenizer=vocabulary,
    )


def part_batches(part: Part, tokenizer: Tokenizer, limit: int | None = None) -> Iterator[Batch]:
    """Batches over a part, each token once."""
    if part.offsets is None:
        return stream_evaluation(part.tokens, tokenizer.bos_id, tokenizer.pad_id, limit=limit)
    offsets = np.asarray(part.offsets)
    if limit is not None:
        offsets = offsets[: max(int(np.searchsorted(offsets, limit, "right")), 2)]
    return SequenceBatches(Sequences(part.tokens, offsets), 8192, tokenizer).epoch(0)


def evaluate_part(
    model: Model, part: Part, limit: int | None = None, max_batches: int | None = None
) -> Evaluation:
    """Loss, bits per character and perplexity of a model on a part, with states carried over."""
    batches = islice(part_batches(part, model.tokenizer, limit), max_batches)
    loss_sum, num_tokens = all_reduce_sum(*model.evaluate(batches))
    return Evaluation(language_metrics(loss_sum, int(num_tokens), _characters(part, int(num_tokens))))


def _characters(part: Part, num_tokens: int) -> int:
    """The number of characters of ``num_tokens`` of a part's tokens, in proportion."""
    lines = 0 if part.offsets is None else len(part.offsets) - 1
    return round(part.characters * min(num_tokens / max(len(part.tokens) + lines, 1), 1.0))


def text_of(held_out: Part | TextFiles, tokenizer: Tokenizer, limit: int = 1_000_000) -> str:
    """Held-out text, at most ``limit`` tokens of a part."""
    if isinstance(held_out, TextFiles):
        return "".join(piece for piece in held_out if piece)
    tokens = held_out.tokens
    if held_out.offsets is None:
        return tokenizer.decode(tokens.read(0, min(limit, len(tokens))).tolist())
    offsets = held_out.offsets[held_out.offsets <= limit].tolist()
    return "\n".join(tokenizer.decode(tokens.read(a, b - a).tolist()) for a, b in pairwise(offsets))


# -- a Markov chain to compare ----------------------------------------------------------------------------


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
    return language_metrics(loss_sum, len(token_ids), _characters(part, len(token_ids)))


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
