"""Text generation: read a corpus, train a language model on it, judge it."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gen import device as machine
from gen.config import Budget, from_dict, parse_command, to_dict
from gen.corpus import Corpus, Part, TextFiles, TokenizerOptions, build_corpus, tokenize
from gen.data import Batches, LineBatches, StreamBatches, length_buckets, sequence_batch, stream_evaluation
from gen.decoder import DecoderConfig
from gen.errors import ConfigError, UserError
from gen.markov import MarkovChain
from gen.metrics import language_metrics
from gen.model import Model, ModelInfo
from gen.run import RunFolder
from gen.tokenizer import Tokenizer
from gen.train import TrainOptions, train


@dataclass(frozen=True)
class TextData:
    """What to read."""

    data: tuple[str, ...] = ()
    """UTF-8 files, folders, globs, .gz files, or - for standard input."""
    valid: tuple[str, ...] = ()
    """Files to validate on; without them, the end of the data."""
    valid_fraction: float = 0.1
    """How much of the end, by characters."""
    unit: Literal["stream", "line"] = "stream"
    """stream: one long text. line: every line is a text of its own (titles, names, verses)."""
    level: Literal["char", "word", "subword"] = "char"
    """What a token is."""
    min_frequency: int = 2
    """Words: rarer ones are <unk>."""
    vocab_size: int | None = None
    """Words: keep the most frequent. Subwords: how many pieces."""
    model_type: Literal["bpe", "unigram"] = "bpe"
    """Subwords: SentencePiece's algorithm."""
    chunk: int = 64
    """Stream: tokens through which the error flows back; the state is carried on."""
    batch_tokens: int = 2048
    """Line: padded tokens a batch."""
    max_line: int = 1000
    """Line: longer lines are cut to this many tokens."""
    valid_limit: int = 1_000_000
    """Validate on at most this many tokens; `gen evaluate` reads them all."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """replace reads bytes that are not UTF-8 as U+FFFD."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        checks = [
            (not self.data, "--data: name at least one text file"),
            (
                not 0 < self.valid_fraction < 1,
                f"--valid-fraction must be between 0 and 1, not {self.valid_fraction}",
            ),
            (
                bool(self.valid) and self.valid_fraction != 0.1,
                "--valid and --valid-fraction exclude each other: validation text comes from one of them",
            ),
            (self.chunk < 1, f"--chunk must be at least 1, not {self.chunk}"),
            (self.min_frequency < 1, f"--min-frequency must be at least 1, not {self.min_frequency}"),
            (
                self.vocab_size is not None and self.vocab_size < 5,
                f"--vocab-size must be at least 5, not {self.vocab_size}",
            ),
            (
                self.vocab_size is not None and self.level == "char",
                "--vocab-size goes with --level word or subword: characters are all kept",
            ),
            (self.batch_tokens < 1, f"--batch-tokens must be at least 1, not {self.batch_tokens}"),
            (self.max_line < 1, f"--max-line must be at least 1, not {self.max_line}"),
            (self.valid_limit < 1, f"--valid-limit must be at least 1, not {self.valid_limit}"),
        ]
        return [message for wrong, message in checks if wrong]


@dataclass(frozen=True)
class TextModel:
    """The decoder's sizes. What is None is chosen from the budget and the size of the text."""

    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    """Recurrent cell."""
    hidden_size: int | None = None
    """Size of a layer."""
    num_layers: int = 1
    """Recurrent layers."""
    embedding_size: int = 128
    """Size of a token's vector."""
    dropout: float | None = None
    """Between layers and before the output, one mask a chunk."""
    embedding_dropout: float | None = None
    """On the tokens' vectors, likewise."""
    residual: bool = False
    """Add a layer's input to its output."""
    layer_norm: bool = False
    """Normalise every layer's input."""
    tie_embeddings: bool = False
    """One matrix for input embeddings and output layer."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        sizes = {"hidden_size": self.hidden_size, "num_layers": self.num_layers, "embedding_size": self.embedding_size}
        found = [
            f"--{name.replace('_', '-')} must be at least 1, not {value}"
            for name, value in sizes.items()
            if value is not None and value < 1
        ]
        for name in ("dropout", "embedding_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                found.append(f"--{name.replace('_', '-')} must be at least 0 and below 1, not {value}")
        return found


@dataclass(frozen=True)
class TextConfig:
    """Train a language model on a text."""

    text: TextData = field(default_factory=TextData)
    model: TextModel = field(default_factory=TextModel)
    train: TrainOptions = field(default_factory=TrainOptions)
    out: str = ""
    """The run folder. The same command again goes on from where it stopped."""

    def check(self) -> None:
        """Raises `ConfigError` with every error of every part at once."""
        errors = self.text.errors() + self.model.errors() + self.train.errors()
        if not self.out:
            errors.append("--out: name a folder for the run, such as runs/book")
        if errors:
            raise ConfigError(errors)


# -- data ------------------------------------------------------------------------------------------------


def read_corpus(options: TextData) -> Corpus:
    """The tokenized text. Raises `UserError` on files that are missing, empty or not UTF-8."""
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
    )


def make_batches(corpus: Corpus, options: TextData, train_options: TrainOptions) -> Batches:
    """The training set. Raises `UserError` where the text is too short for one batch."""
    tokens, offsets, t = corpus.train.tokens, corpus.train.offsets, corpus.tokenizer
    if offsets is not None:
        if len(offsets) < 2:
            raise UserError("--data: the training part has no lines")
        ids = {"bos_id": t.bos_id, "eos_id": t.eos_id, "pad_id": t.pad_id}
        return LineBatches(tokens, offsets, options.batch_tokens, seed=train_options.seed, **ids)
    batches = StreamBatches(tokens, train_options.batch_size, options.chunk, t.bos_id, train_options.seed)
    if batches.batches_per_epoch == 0:
        raise UserError(
            f"--data: the training part has {len(tokens):,} tokens, fewer than one batch of --batch-size "
            f"{train_options.batch_size} × --chunk {options.chunk}: lower one of them, or give more text"
        )
    return batches


def part_batches(part: Part, tokenizer: Tokenizer, limit: int | None = None) -> Any:
    """Batches that read a part once, every token counted once."""
    if part.offsets is None:
        return stream_evaluation(part.tokens, tokenizer.bos_id, tokenizer.pad_id, limit=limit)
    return _line_evaluation(part, tokenizer, limit)


def _line_evaluation(part: Part, tokenizer: Tokenizer, limit: int | None) -> Any:
    offsets = np.asarray(part.offsets)
    if limit is not None:
        offsets = offsets[: max(int(np.searchsorted(offsets, limit, "right")), 2)]
    for rows in length_buckets(np.diff(offsets) + 1, 8192, (0,)):
        lines = [part.tokens.read(int(offsets[r]), int(offsets[r + 1] - offsets[r])) for r in rows]
        yield sequence_batch(len(rows), lines, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)


def evaluate_part(model: Model, part: Part, limit: int | None = None) -> dict[str, float]:
    """Loss, bits per character and perplexity of a model on a part, states carried across."""
    loss_sum, num_tokens = model.evaluate(part_batches(part, model.tokenizer, limit))
    return language_metrics(loss_sum, num_tokens, _characters(part, num_tokens))


def _characters(part: Part, num_tokens: int) -> int:
    """Characters that belong to ``num_tokens`` of a part's tokens: all of it, or its share."""
    lines = 0 if part.offsets is None else len(part.offsets) - 1
    return round(part.characters * min(num_tokens / max(len(part.tokens) + lines, 1), 1.0))


# -- model -----------------------------------------------------------------------------------------------


def choose_sizes(options: TextModel, budget: Budget, batch_tokens: int, tokens: int) -> TextModel:
    """Fills in what the user left open: the more often a text will be read, the larger the model and the
    stronger the dropout, which is what keeps it from learning the text by heart.

    Args:
        options: what the user asked for.
        budget: how long.
        batch_tokens: tokens a step.
        tokens: size of the training part.
    """
    # A time buys about 15,000 tokens a second at these sizes on two cores.
    seen = {
        "seconds": budget.amount * 15_000,
        "epochs": budget.amount * tokens,
        "steps": budget.amount * batch_tokens,
    }[budget.unit]
    epochs = seen / max(tokens, 1)
    dropout = float(np.clip(0.1 + 0.35 * np.log10(max(epochs, 1e-9) / 2), 0.1, 0.5))
    hidden = 512 if epochs < 6 else 704
    return replace(
        options,
        hidden_size=options.hidden_size or hidden,
        dropout=round(dropout, 2) if options.dropout is None else options.dropout,
        embedding_dropout=0.1 if options.embedding_dropout is None else options.embedding_dropout,
    )


def build_model(options: TextModel, tokenizer: Tokenizer, info: ModelInfo) -> Model:
    """A model without an encoder, its sizes chosen."""
    sizes = {name: value for name, value in vars(options).items()}
    return Model({"name": "none"}, DecoderConfig(vocab_size=len(tokenizer), **sizes), tokenizer, info)


# -- training --------------------------------------------------------------------------------------------


class TextTask:
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
        return evaluate_part(model, self.corpus.valid, 64 if quick else self.valid_limit)

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


def train_text(config: TextConfig, command: str = "", baseline_order: int | None = None) -> dict[str, Any]:
    """The whole task: `gen train text`.

    Args:
        config: what the user asked for.
        command: how, for the model card.
        baseline_order: of the Markov chain to compare with; None: 4 for characters, 2 for the others.

    Returns:
        The final figures: "network" and "markov", and the run's path.

    Example:
        >>> train_text(TextConfig(TextData(data=("book.txt",)), out="runs/book"))
    """
    from tasks import display

    config.check()
    options = config.train
    machine.tune_allocator()
    machine.seed_everything(options.seed)
    device = machine.pick_device(options.device)
    corpus = read_corpus(config.text)
    batches = make_batches(corpus, config.text, options)
    if len(corpus.valid.tokens) < 2:
        raise UserError("the validation part is empty: raise --valid-fraction, or name files with --valid")
    line = config.text.unit == "line"
    step_tokens = config.text.batch_tokens if line else options.batch_size * config.text.chunk
    budget = Budget.parse(options.budget)
    sizes = choose_sizes(config.model, budget, step_tokens * options.accumulate, len(corpus.train.tokens))
    info = ModelInfo(
        task="text",
        ends_with_eos=line,
        search={"temperature": 0.8, "max_new_tokens": 400 if config.text.level == "char" else 120},
        training={"command": command, **to_dict(config)},
    )
    model = build_model(sizes, corpus.tokenizer, info).to(device)
    run = RunFolder(config.out, to_dict(config))
    state = run.open()
    display.console.print(_corpus_table(corpus, sizes))
    display.console.print(display.model_summary(model, machine.compute_dtype(options.precision, device)))
    if state and state["progress"]["done"]:
        display.console.print(f"{config.out} is already trained to the end of its budget.")
    elif state:
        display.console.print(f"Going on from step {state['progress']['step']:,}.")
    task = TextTask(corpus, batches, config.text.valid_limit)
    if not state or not state["progress"]["done"]:
        with display.training_progress(options, describe) as watch:
            train(model, task, options, run, state, watch)
    return finish(config, corpus, run, baseline_order)


def finish(config: TextConfig, corpus: Corpus, run: RunFolder, baseline_order: int | None) -> dict[str, Any]:
    """Final figures beside the Markov chain's, the plot, and what to type next."""
    from gen.plots import plot_losses
    from tasks import display

    limit = config.text.valid_limit
    model = Model.load(run.path)
    network = evaluate_part(model, corpus.valid, limit)
    order = baseline_order or (4 if config.text.level == "char" else 2)
    markov = markov_metrics(corpus, order, limit)
    (run.path / "plots").mkdir(exist_ok=True)
    plot_losses(list(run.records()), run.path / "plots" / "loss.png")
    rows = {"network": network, f"Markov chain, order {order}": markov}
    display.console.print(display.metrics_table(rows))
    if corpus.valid.unknown:
        share = corpus.valid.unknown / max(len(corpus.valid.tokens), 1)
        display.console.print(f"{share:.2%} of the validation tokens are unknown to the vocabulary.")
    display.console.print(f"Samples: {run.path}/samples.md   plot: {run.path}/plots/loss.png")
    prompt = shlex.quote(opening(model))
    display.console.print(f"Write with it:\n\n  gen generate {shlex.quote(str(run.path))} --prompt {prompt}\n")
    return {"network": network, "markov": markov, "order": order, "run": str(run.path)}


def opening(model: Model) -> str:
    """The first word of a greedy sample: a prompt that the model knows."""
    words = model.generate("", temperature=0, max_new_tokens=40)[0].text.split()
    return words[0] if words else ""


def markov_metrics(corpus: Corpus, order: int, limit: int) -> dict[str, float]:
    """The same figures for a chain fitted to (at most 5 million tokens of) the training part."""
    chain = fit_markov(corpus, order)
    part = corpus.valid
    token_ids = part.tokens.read(0, min(limit, len(part.tokens)))
    if part.offsets is not None:
        token_ids = _with_ends(part, corpus.tokenizer, limit)
    loss_sum = -float(chain.log_probs(token_ids).sum())
    return language_metrics(loss_sum, len(token_ids), _characters(part, len(token_ids)))


def fit_markov(corpus: Corpus, order: int, limit: int = 5_000_000) -> MarkovChain:
    """A Markov chain of the training part."""
    part = corpus.train
    token_ids = part.tokens.read(0, limit) if part.offsets is None else _with_ends(part, corpus.tokenizer, limit)
    return MarkovChain.fit(token_ids, corpus.tokenizer, order)


def _with_ends(part: Part, tokenizer: Tokenizer, limit: int) -> np.ndarray:
    """Lines as one array with EOS after each."""
    offsets = np.asarray(part.offsets)
    offsets = offsets[offsets <= max(limit, offsets[min(1, len(offsets) - 1)])]
    return np.insert(part.tokens.read(0, int(offsets[-1])), offsets[1:], tokenizer.eos_id)


def _corpus_table(corpus: Corpus, sizes: TextModel) -> Any:
    from tasks import display

    def part(p: Part) -> str:
        lines = "" if p.offsets is None else f", {len(p.offsets) - 1:,} lines"
        cut = f", {p.cut:,} lines cut" if p.cut else ""
        return f"{p.characters:,} characters, {len(p.tokens):,} tokens{lines}{cut}"

    rows = {
        "training": part(corpus.train),
        "validation": part(corpus.valid),
        "vocabulary": f"{len(corpus.tokenizer):,} ({corpus.tokenizer.kind})",
        "dropout": f"{sizes.dropout}",
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

    errors: list[str] = []
    config = from_dict(TextConfig, {k: v for k, v in model.info.training.items() if k != "command"}, "", errors)
    if errors or not config.text.data or "-" in config.text.data:
        raise UserError("the model does not say which text it was trained on: give one with --data")
    corpus = read_corpus(config.text)
    return evaluate_part(model, corpus.valid)




def train_command(argv: list[str], command: str) -> None:
    """`gen train text …`."""
    typed = f"{command} {shlex.join(argv)}"
    config = parse_command(TextConfig, argv, command)
    try:
        train_text(config, typed)
    except KeyboardInterrupt:
        print(f"\nStopped and saved. The same command goes on from here:\n\n  {typed}\n", file=sys.stderr)
        raise
