"""Text generation: read a corpus, train a language model on it, judge it."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gen.base import distributed
from gen.base.errors import UserError
from gen.base.files import TextFiles
from gen.datasets.batches import Batches, SequenceBatches, Sequences
from gen.datasets.corpus import Corpus, Part, TokenizerOptions, build_corpus, tokenize
from gen.datasets.streams import StreamBatches, stream_evaluation
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.markov import MarkovChain
from gen.metrics.scores import language_metrics
from gen.models.batch import Batch
from gen.models.decoder import DecoderConfig
from gen.models.model import Model
from gen.search.info import ModelInfo
from gen.training.options import TrainOptions
from gen.training.validation import Task
from tasks import display
from tasks.commands import train as training
from tasks.text.options import TextConfig, TextData, TextModel, choose

# -- data ------------------------------------------------------------------------------------------------


def read_corpus(options: TextData, vocabulary: Tokenizer | None = None) -> Corpus:
    """The tokenized text, with a vocabulary of its own if none is given. Raises `UserError` on files that are
    missing, empty or not UTF-8."""
    train_files = TextFiles(options.data, options.encoding_errors)
    valid_files = TextFiles(options.valid, options.encoding_errors) if options.valid else None
    tokenizer = TokenizerOptions(options.level, options.min_frequency, options.vocab_size, options.model_type)
    return build_corpus(
        train_files,
        valid_files,
        tokenizer,
        valid_fraction=options.valid_fraction,
        unit=options.unit,
        max_line=options.max_line,
        tokenizer=vocabulary,
    )


def make_batches(corpus: Corpus, options: TextData, train_options: TrainOptions) -> Batches:
    """The training set. Raises `UserError` where the text is too short for one batch."""
    tokens, offsets, t = corpus.train.tokens, corpus.train.offsets, corpus.tokenizer
    if offsets is not None:
        if len(offsets) < 2:
            raise UserError("--data: the training part has no lines")
        return SequenceBatches(Sequences(tokens, offsets), options.batch_tokens, t, seed=train_options.seed)
    batches = StreamBatches(tokens, train_options.batch_size, options.chunk, t.bos_id, train_options.seed)
    if batches.batches_per_epoch == 0:
        raise UserError(
            f"--data: the training part has {len(tokens):,} tokens, fewer than one batch of --batch-size "
            f"{train_options.batch_size} × --chunk {options.chunk}: lower one of them, or give more text"
        )
    return batches


def part_batches(part: Part, tokenizer: Tokenizer, limit: int | None = None) -> Iterator[Batch]:
    """Batches that read a part once, every token counted once."""
    if part.offsets is None:
        return stream_evaluation(part.tokens, tokenizer.bos_id, tokenizer.pad_id, limit=limit)
    return _line_evaluation(part, tokenizer, limit)


def _line_evaluation(part: Part, tokenizer: Tokenizer, limit: int | None) -> Iterator[Batch]:
    offsets = np.asarray(part.offsets)
    if limit is not None:
        offsets = offsets[: max(int(np.searchsorted(offsets, limit, "right")), 2)]
    return SequenceBatches(Sequences(part.tokens, offsets), 8192, tokenizer).epoch(0)


def evaluate_part(
    model: Model, part: Part, limit: int | None = None, max_batches: int | None = None
) -> dict[str, float]:
    """Loss, bits per character and perplexity of a model on a part, states carried across."""
    batches = islice(part_batches(part, model.tokenizer, limit), max_batches)
    loss_sum, num_tokens = distributed.all_reduce_sum(*model.evaluate(batches))
    return language_metrics(loss_sum, int(num_tokens), _characters(part, int(num_tokens)))


def _characters(part: Part, num_tokens: int) -> int:
    """Characters that belong to ``num_tokens`` of a part's tokens: all of it, or its share."""
    lines = 0 if part.offsets is None else len(part.offsets) - 1
    return round(part.characters * min(num_tokens / max(len(part.tokens) + lines, 1), 1.0))


# -- model -----------------------------------------------------------------------------------------------


def build_model(options: TextModel, tokenizer: Tokenizer, info: ModelInfo) -> Model:
    """A model without an encoder, its sizes chosen."""
    return Model({"name": "none"}, DecoderConfig(vocab_size=len(tokenizer), **vars(options)), tokenizer, info)


# -- training --------------------------------------------------------------------------------------------


class TextTask(Task):
    """Text, as the training loop sees it."""

    metric = "loss"
    higher_is_better = False
    TEMPERATURES = (0.3, 0.8, 1.3)
    SAMPLE_LENGTH = {"char": 160, "subword": 60, "word": 40}

    def __init__(self, corpus: Corpus, batches: Batches, valid_limit: int) -> None:
        self.corpus = corpus
        self.batches = batches
        self.valid_limit = valid_limit

    def validate(self, model: Model, *, quick: bool = False) -> dict[str, float]:
        """Loss over the held-out part, state carried through it."""
        return evaluate_part(model, self.corpus.valid, self.valid_limit, max_batches=2 if quick else None)

    def sample(self, model: Model) -> str:
        """Greedy and at several temperatures, from an empty prompt."""
        length = self.SAMPLE_LENGTH[model.tokenizer.kind]
        ways = {"greedy": 0.0, **{f"temperature {t}": t for t in self.TEMPERATURES}}
        parts = []
        for name, temperature in ways.items():
            text = model.generate("", temperature=temperature, seed=1, max_new_tokens=length)[0].text
            parts.append(f"**{name}**\n\n```text\n{text.strip(chr(10))}\n```\n")
        return "\n".join(parts)


def describe(figures: Mapping[str, float]) -> str:
    """Validation figures in a few words."""
    return f"valid {figures['loss']:.3f} nats, {figures['bits_per_char']:.3f} bits/char"


def train_text(config: TextConfig, command: str = "") -> dict[str, Any]:
    """The whole task: `gen train text`.

    Args:
        config: what the user asked for.
        command: how, for the model card.

    Returns:
        The final figures: "network" and "markov", and the run's path. Empty where there is nothing to present:
        after a dry run, in all but the main one of several processes.

    Example:
        >>> train_text(TextConfig(TextData(data=("book.txt",)), out="runs/book"))
    """
    session = training.Session(config, "text", command)
    with distributed.main_first():
        corpus = read_corpus(config.text, session.tokenizer)
    chosen = choose(config, len(corpus.train.tokens))
    batches = make_batches(corpus, chosen.text, chosen.train)
    if len(corpus.valid.tokens) < 2:
        raise UserError("the validation part is empty: raise --valid-fraction, or name files with --valid")
    model = session.model(
        lambda info: build_model(chosen.model, corpus.tokenizer, info),
        corpus.tokenizer,
        data=config.text.data,
        ends_with_eos=config.text.unit == "line",
        search={"temperature": 0.8, "max_new_tokens": 400 if corpus.tokenizer.kind == "char" else 120},
    )
    task = TextTask(corpus, batches, config.text.valid_limit)
    table = _corpus_table(corpus, model)
    if not session.fit(model, task, chosen.train, data=table, describe=describe):
        return {}
    return finish(config, corpus, session)


def finish(config: TextConfig, corpus: Corpus, session: training.Session) -> dict[str, Any]:
    """Final figures beside the Markov chain's, the plot, and what to type next."""
    limit = config.text.valid_limit
    path = session.run.path
    model = Model.load(path)
    network = evaluate_part(model, corpus.valid, limit)
    order = 4 if corpus.tokenizer.kind == "char" else 2  # what counting does best with a megabyte
    markov = markov_metrics(corpus, order, limit)
    rows = {"network": network, f"Markov chain, order {order}": markov}
    display.console.print(display.metrics_table(rows))
    if corpus.valid.unknown:
        share = corpus.valid.unknown / max(len(corpus.valid.tokens), 1)
        display.say(f"{share:.2%} of the validation tokens are unknown to the vocabulary.")
    session.close([f"gen generate {shlex.quote(str(path))} --prompt {shlex.quote(opening(model))}"])
    return {"network": network, "markov": markov, "order": order, "run": str(path)}


def opening(model: Model) -> str:
    """A word that the model likes to begin with: a prompt to try."""
    text = model.generate("", temperature=0.5, seed=1, max_new_tokens=60)[0].text
    return next(iter(re.findall(r"(?<=\s)[^\W\d_]{2,}(?=\s)", text)), "")  # whole words: a stream begins anywhere


def markov_metrics(corpus: Corpus, order: int, limit: int) -> dict[str, float]:
    """The same figures for a chain fitted to (at most 2 million tokens of) the training part."""
    chain = fit_markov(corpus, order)
    part = corpus.valid
    token_ids = part.tokens.read(0, min(limit, len(part.tokens)))
    if part.offsets is not None:
        token_ids = _with_ends(part, corpus.tokenizer, limit)
    loss_sum = -float(chain.log_probs(token_ids).sum())
    return language_metrics(loss_sum, len(token_ids), _characters(part, len(token_ids)))


def fit_markov(corpus: Corpus, order: int, limit: int = 2_000_000) -> MarkovChain:
    """A Markov chain of the training part."""
    part = corpus.train
    token_ids = part.tokens.read(0, limit) if part.offsets is None else _with_ends(part, corpus.tokenizer, limit)
    return MarkovChain.fit(token_ids, corpus.tokenizer, order)


def _with_ends(part: Part, tokenizer: Tokenizer, limit: int) -> np.ndarray:
    """Lines as one array with EOS after each."""
    offsets = np.asarray(part.offsets)
    offsets = offsets[offsets <= max(limit, offsets[min(1, len(offsets) - 1)])]
    return np.insert(part.tokens.read(0, int(offsets[-1])), offsets[1:], tokenizer.eos_id)


def _corpus_table(corpus: Corpus, model: Model) -> Any:
    def part(p: Part) -> str:
        lines = "" if p.offsets is None else f", {len(p.offsets) - 1:,} lines"
        cut = f", {p.cut:,} lines cut" if p.cut else ""
        return f"{p.characters:,} characters, {len(p.tokens):,} tokens{lines}{cut}"

    c = model.decoder.config
    rows = {
        "training": part(corpus.train),
        "validation": part(corpus.valid),
        "vocabulary": f"{len(corpus.tokenizer):,} ({corpus.tokenizer.kind})",
        "dropout": f"{c.dropout}, embedding {c.embedding_dropout}, recurrent {c.weight_dropout}",
    }
    return display.table("Text", rows)


# -- evaluation ------------------------------------------------------------------------------------------


def evaluate_files(model: Model, files: TextFiles, unit: str) -> dict[str, float]:
    """Figures of a model on any text."""
    with tempfile.TemporaryDirectory(prefix="gen-") as folder:
        part = tokenize(files, model.tokenizer, unit, Path(folder))
        if len(part.tokens) == 0:
            raise UserError(f"{files.paths[0]}: holds no text")
        return evaluate_part(model, part)


def evaluate_held_out(model: Model) -> dict[str, float]:
    """Figures of a model on all of the validation text it was trained beside."""
    return evaluate_part(model, _held_out(model))


def held_out_text(model: Model, limit: int = 1_000_000) -> str:
    """The first ``limit`` tokens of the validation text that a model was trained beside, its lines on lines."""
    part = _held_out(model)
    if part.offsets is None:
        return model.tokenizer.decode(part.tokens.read(0, min(limit, len(part.tokens))).tolist())
    offsets = part.offsets[part.offsets <= limit].tolist()
    return "\n".join(model.tokenizer.decode(part.tokens.read(a, b - a).tolist()) for a, b in pairwise(offsets))


def _held_out(model: Model) -> Part:
    config = training.asked(model, TextConfig)
    if config is None or not config.text.data or "-" in config.text.data:
        raise UserError("the model does not say which text it was trained on: give one with --data")
    return read_corpus(config.text, model.tokenizer).valid


def train_command(argv: list[str], command: str) -> None:
    """`gen train text …`."""
    training.command(TextConfig, train_text, argv, command)
