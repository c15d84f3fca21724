"""What can be asked of `gen train text`, and what it chooses where nothing is asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from gen.base.config import Budget, range_errors
from gen.base.errors import ConfigError
from gen.training.options import TrainOptions
from tasks.commands.preflight import Tools

DROPOUTS = ("dropout", "embedding_dropout", "weight_dropout")


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
    chunk: int | None = None
    """Stream: tokens through which the error flows back; the state is carried on. Unset: chosen."""
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
            (
                self.vocab_size is not None and self.vocab_size < 5,
                f"--vocab-size must be at least 5, not {self.vocab_size}",
            ),
            (
                self.vocab_size is not None and self.level == "char",
                "--vocab-size goes with --level word or subword: characters are all kept",
            ),
        ]
        sizes = ("chunk", "min_frequency", "batch_tokens", "max_line", "valid_limit")
        return [message for wrong, message in checks if wrong] + range_errors(self, sizes)


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
    weight_dropout: float | None = None
    """On the recurrent weights, one mask a chunk (AWD-LSTM)."""
    residual: bool = False
    """Add a layer's input to its output."""
    layer_norm: bool = False
    """Normalise every layer's input."""
    tie_embeddings: bool = False
    """One matrix for input embeddings and output layer."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        return range_errors(self, ("hidden_size", "num_layers", "embedding_size"), DROPOUTS)


@dataclass(frozen=True)
class TextConfig:
    """Train a language model on a text."""

    text: TextData = field(default_factory=TextData)
    model: TextModel = field(default_factory=TextModel)
    train: TrainOptions = field(default_factory=TrainOptions)
    tools: Tools = field(default_factory=Tools)
    out: str = ""
    """The run folder. The same command again goes on from where it stopped."""

    def check(self) -> None:
        """Raises `ConfigError` with every error of every part at once."""
        errors = self.text.errors() + self.model.errors() + self.train.errors() + self.tools.errors()
        errors += self.train.conflicting_sizes(self.model)
        if not self.out:
            errors.append("--out: name a folder for the run, such as runs/book")
        if errors:
            raise ConfigError(errors)


def choose(config: TextConfig, tokens: int) -> TextConfig:
    """Fills in what the user left open: the more often a text will be read, the larger the model and the
    stronger the dropout, which keeps it from learning the text by heart; the shorter the time, the higher the
    learning rate.

    Args:
        config: what the user asked for.
        tokens: size of the training part.
    """
    text, model, train = config.text, config.model, config.train
    budget = Budget.parse(train.budget)
    rows = text.batch_tokens if text.unit == "line" else train.batch_size * (text.chunk or 64)
    seen = {
        "seconds": budget.amount * 15_000,  # tokens a second that two cores do at these sizes
        "epochs": budget.amount * tokens,
        "steps": budget.amount * rows * train.accumulate,
    }[budget.unit]
    epochs = max(seen / max(tokens, 1), 1e-9)
    short = epochs < 6
    # Tuned on Shakespeare at 2 and 18 epochs; a straight line in the logarithm between and beyond them.
    dropout = float(np.clip(0.1 + 0.26 * np.log10(epochs / 2), 0.1, 0.5))
    weight_dropout = float(np.clip(0.31 * np.log10(epochs / 2), 0.0, 0.4))
    sizes = {
        "hidden_size": 384 if short else 704,
        "dropout": round(dropout, 2),
        "embedding_dropout": 0.1,
        "weight_dropout": 0.0 if short else round(weight_dropout, 2),
    }
    open_sizes = {name: value for name, value in sizes.items() if getattr(model, name) is None}
    chunk = min(64, max(tokens // (8 * train.batch_size), 16))  # a short text still wants a few steps an epoch
    return replace(
        config,
        text=replace(text, chunk=text.chunk or chunk),
        model=replace(model, **open_sizes),
        train=replace(train, learning_rate=train.learning_rate or (8e-3 if short else 4e-3)),
    )
