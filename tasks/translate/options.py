"""What can be asked of `gen train translate`, and what it chooses where nothing is asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from gen.base.config import Budget, range_errors
from gen.base.errors import ConfigError
from gen.datasets.corpus import TokenizerOptions
from gen.datasets.pairs import PairOptions
from gen.search import SearchOptions
from gen.training.options import TrainOptions
from tasks.commands.preflight import Tools
from tasks.text.options import DROPOUTS


@dataclass(frozen=True)
class TranslateData:
    """What to read."""

    train: tuple[str, ...] = ()
    """Two text files, source and target, line by line: train.{en,de}. Further pairs of files may follow."""
    data: tuple[str, ...] = ()
    """Or tables of pairs: .tsv, .csv, .jsonl, .parquet, or a Hugging Face dataset's name."""
    src: str = ""
    """Tables: the source's column. Also the languages' names, for the record."""
    tgt: str = ""
    """Tables: the target's column."""
    valid: tuple[str, ...] = ()
    """Pairs to validate on, named like either; without them, a part of the training pairs."""
    valid_size: int = 1000
    """How many pairs that part has, at most a tenth of all."""
    level: Literal["char", "word", "subword"] = "subword"
    """What a token is."""
    vocab_size: int | None = None
    """Subwords: how many pieces. Words: keep the most frequent. Unset: 5000 pieces, or all the text supports."""
    model_type: Literal["bpe", "unigram"] = "bpe"
    """Subwords: SentencePiece's algorithm."""
    byte_fallback: Literal["yes", "no"] = "yes"
    """Subwords: spell what is unknown as bytes instead of <unk>."""
    subword_dropout: float = 0.0
    """Subwords: spell the training pairs in several ways, with this much chance (BPE-dropout); 0.1 is usual."""
    min_frequency: int = 2
    """Words: rarer ones are <unk>."""
    separate: bool = False
    """A vocabulary for each side; without it, one for both."""
    lowercase: bool = False
    """Lower-case both sides."""
    max_length: int = 256
    """Drop training pairs with more tokens on one side."""
    length_ratio: float = 0.0
    """Drop training pairs in which one side has this many times the tokens of the other (0: none)."""
    batch_tokens: int = 2000
    """Padded tokens a batch, of the longer side."""

    @property
    def pairs(self) -> PairOptions:
        """The options of `gen.datasets.pairs`."""
        tokenizer = TokenizerOptions(
            self.level,
            self.min_frequency,
            self.vocab_size,
            self.model_type,
            byte_fallback=self.byte_fallback == "yes",
            dummy_prefix=True,
            subwords=5000,
        )
        joint = not self.separate
        return PairOptions(
            tokenizer,
            joint,
            self.lowercase,
            self.max_length,
            self.length_ratio,
            self.valid_size,
            self.subword_dropout,
        )

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        checks = [
            (
                not self.train and not self.data,
                "--train: name two text files (train.en train.de), or a table with --data",
            ),
            (bool(self.train and self.data), "--train and --data exclude each other: pairs come from one of them"),
            (bool(self.src) != bool(self.tgt), "--src and --tgt go together"),
            (
                self.vocab_size is not None and self.vocab_size < 5,
                f"--vocab-size must be at least 5, not {self.vocab_size}",
            ),
            (
                self.vocab_size is not None and self.level == "char",
                "--vocab-size goes with --level word or subword: characters are all kept",
            ),
            (
                self.subword_dropout != 0 and self.level != "subword",
                f"--subword-dropout goes with --level subword, not {self.level}",
            ),
            (
                self.length_ratio != 0 and not self.length_ratio >= 1,
                f"--length-ratio must be at least 1, or 0 for none, not {self.length_ratio}",
            ),
        ]
        sizes = ("valid_size", "min_frequency", "max_length", "batch_tokens")
        return [message for wrong, message in checks if wrong] + range_errors(self, sizes, ("subword_dropout",))


@dataclass(frozen=True)
class TranslateModel:
    """Sizes of the encoder and the decoder. What is None is chosen from the budget and the size of the text."""

    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    """Recurrent cell of both."""
    attention: Literal["none", "dot", "additive", "multihead"] = "dot"
    """How the decoder looks at the source; none: it has to remember it."""
    num_heads: int = 4
    """Of multi-head attention."""
    embedding_size: int = 256
    """Size of a token's vector."""
    encoder_size: int = 160
    """Size of an encoder layer, in each direction."""
    encoder_layers: int = 2
    """Layers of the encoder."""
    one_way: bool = False
    """The encoder reads from left to right only."""
    hidden_size: int = 320
    """Size of a decoder layer."""
    num_layers: int = 2
    """Layers of the decoder."""
    dropout: float | None = None
    """Between layers and before the output, one mask a sentence."""
    embedding_dropout: float | None = None
    """On the tokens' vectors, likewise."""
    weight_dropout: float = 0.0
    """On the recurrent weights, one mask a batch (AWD-LSTM)."""
    tie: Literal["none", "decoder", "all"] | None = None
    """One matrix for the decoder's embeddings and output layer; all: and the encoder's embeddings. Unset: as
    far as the vocabularies allow."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        sizes = ("num_heads", "embedding_size", "encoder_size", "encoder_layers", "hidden_size", "num_layers")
        found = range_errors(self, sizes, DROPOUTS)
        if self.attention == "multihead" and self.hidden_size % max(self.num_heads, 1):
            found.append(f"--num-heads {self.num_heads} does not divide --hidden-size {self.hidden_size}")
        return found


@dataclass(frozen=True)
class TranslateConfig:
    """Train a translation model on sentence pairs."""

    pairs: TranslateData = field(default_factory=TranslateData)
    model: TranslateModel = field(default_factory=TranslateModel)
    train: TrainOptions = field(default_factory=TrainOptions)
    tools: Tools = field(default_factory=Tools)
    out: str = ""
    """The run folder. The same command again goes on from where it stopped."""

    def check(self) -> None:
        """Raises `ConfigError` with every error of every part at once."""
        errors = self.pairs.errors() + self.model.errors() + self.train.errors() + self.tools.errors()
        errors += self.train.conflicting_sizes(self.model)
        if self.model.tie == "all" and self.pairs.separate:
            errors.append("--tie all needs one vocabulary for both sides: leave out --separate, or --tie decoder")
        if self.train.batch_size != TrainOptions.batch_size:
            errors.append("--batch-size counts streams of text: for pairs give --batch-tokens")
        if not self.out:
            errors.append("--out: name a folder for the run, such as runs/en-de")
        if errors:
            raise ConfigError(errors)


SEARCH = SearchOptions(beam=5, length_penalty=1.5, max_new_tokens=2000, max_ratio=3.0).given()
"""How a translation model searches where nobody says."""


def choose(config: TranslateConfig, tokens: int) -> TranslateConfig:
    """Fills in what the user left open: the more often the text will be read, the stronger the dropout, which
    keeps it from being learned by heart.

    Args:
        config: what the user asked for.
        tokens: target tokens of the training pairs.
    """
    pairs, model, train = config.pairs, config.model, config.train
    budget = Budget.parse(train.budget)
    seen = {
        "seconds": budget.amount * 7_000,  # target tokens a second that two cores do at these sizes
        "epochs": budget.amount * tokens,
        "steps": budget.amount * pairs.batch_tokens * train.accumulate,
    }[budget.unit]
    epochs = max(seen / max(tokens, 1), 1e-9)
    # On Multi30k 0.2 was good at 11 epochs, and at 60 epochs 0.28 (40.6 BLEU) was better than 0.36 (39.0).
    dropout = round(float(np.clip(0.2 + 0.25 * np.log10(epochs / 12), 0.1, 0.28)), 2)
    return replace(
        config,
        model=replace(
            model,
            tie=model.tie or ("decoder" if pairs.separate else "all"),
            dropout=dropout if model.dropout is None else model.dropout,
            embedding_dropout=dropout if model.embedding_dropout is None else model.embedding_dropout,
        ),
        train=replace(
            train,
            learning_rate=train.learning_rate or 5e-3,
            label_smoothing=0.1 if train.label_smoothing is None else train.label_smoothing,
            ema=0.999 if train.ema is None else train.ema,
        ),
    )
