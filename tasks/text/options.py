"""The options of `gen train text`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gen.base.config import range_errors

DROPOUTS = ("dropout", "embedding_dropout", "weight_dropout")


@dataclass(frozen=True)
class TextData:
    """What to read."""

    data: tuple[str, ...] = ()
    """UTF-8 files, folders, globs, .gz files, or - for standard input."""
    valid: tuple[str, ...] = ()
    """Files to validate on; without them, the end of the data."""
    valid_fraction: float = 0.1
    """Share of the data, from its end, to validate on; by characters."""
    unit: Literal["stream", "line"] = "stream"
    """stream: one long text. line: every line is a text of its own (titles, names, verses)."""
    level: Literal["char", "word", "subword"] = "char"
    """What a token is."""
    min_frequency: int = 2
    """Words: rarer ones are <unk>."""
    vocab_size: int | None = None
    """Words: keep the most frequent. Subwords: how many pieces. Unset: all words, 2000 pieces."""
    model_type: Literal["bpe", "unigram"] = "bpe"
    """Subwords: SentencePiece's algorithm."""
    batch_size: int = 32
    """Stream: rows per batch."""
    chunk: int | None = None
    """Stream: tokens through which the error flows back; the state is carried on. Chosen."""
    batch_tokens: int = 2048
    """Line: padded tokens per batch."""
    max_line: int = 1000
    """Line: longer lines are cut to this many tokens."""
    valid_limit: int = 1_000_000
    """Validate on at most this many tokens; `gen evaluate` reads them all."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """replace reads bytes that are not UTF-8 as U+FFFD."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
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
        sizes = ("batch_size", "chunk", "min_frequency", "batch_tokens", "max_line", "valid_limit")
        return [message for wrong, message in checks if wrong] + range_errors(self, sizes)


@dataclass(frozen=True)
class TextSizes:
    """The decoder's sizes."""

    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    """Recurrent cell."""
    hidden_size: int | None = None
    """Size of a layer. Chosen from how many tokens the budget allows."""
    num_layers: int = 1
    """Recurrent layers."""
    embedding_size: int = 128
    """Size of a token's vector."""
    dropout: float | None = None
    """Between layers and before the output, one mask per chunk. Chosen from how often the text is read."""
    embedding_dropout: float | None = None
    """On the tokens' vectors, likewise. Chosen."""
    weight_dropout: float | None = None
    """On the recurrent weights, one mask per chunk (AWD-LSTM). Chosen."""
    residual: bool = False
    """Add a layer's input to its output."""
    layer_norm: bool = False
    """Normalise every layer's input."""
    tie: Literal["none", "decoder"] = "none"
    """decoder: one matrix for input embeddings and output layer."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
        return range_errors(self, ("hidden_size", "num_layers", "embedding_size"), DROPOUTS)


@dataclass(frozen=True)
class TextHeldOut:
    """Other text than that held out in training."""

    data: tuple[str, ...] = ()
    """Text to judge the model by. Unset: all of the text held out in training."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """replace reads bytes that are not UTF-8 as U+FFFD."""
