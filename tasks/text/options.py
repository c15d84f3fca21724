"""The options of `gen train text`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from gen.base.config import range_errors
from gen.base.lines import suffix
from gen.base.tables import TABLES
from gen.datasets.corpus import MAX_LINE
from gen.datasets.shard_files import is_streamed
from tasks.options import DecoderSizes, input_name, stream_errors, vocabulary_errors


@dataclass(frozen=True)
class TextData:
    """Training data."""

    data: tuple[str, ...] = ()
    """UTF-8 text: files, folders, globs, .gz files, or - for standard input; tables (.csv, .tsv, .jsonl, .json,
    .parquet) with --column. Streamed, see --shuffle-buffer: tars as of webdataset, shards/{000..099}.tar, and
    datasets on the Hugging Face Hub, hf:NAME[:CONFIGURATION][:SPLIT]."""
    shuffle_buffer: int | None = None
    """Stream the data, without writing its tokens to disk first, and shuffle so many texts at a time; running text
    stays together for 32,768 characters. The vocabulary, and without --valid the validation part, come from the
    beginnings of the files. Unset: 10000 for tars and hf:; other data is not streamed."""
    column: str = ""
    """Tables: the column of the text, by name or by number from 1 on. Unset: the only one of text."""
    given: tuple[str, ...] = ()
    """Tables: columns of labels to write about, such as a topic. Each row is then a text of its own."""
    input_dropout: float = 0.1
    """Share of the labels that are left out in training, so that one model also writes without them."""
    valid: tuple[str, ...] = ()
    """Text to validate on. Unset: the end of the data."""
    valid_fraction: float = 0.1
    """Share of the characters, at the end of the data, to validate on."""
    unit: Literal["stream", "line"] = "stream"
    """stream: one continuous text. line: every line is a separate text (titles, names, verses)."""
    level: Literal["char", "word", "subword"] = "char"
    """Kind of tokens."""
    min_frequency: int = 2
    """Words: replace rarer ones by <unk>."""
    vocab_size: int | None = None
    """Size of the vocabulary. Unset: all words, or 2000 subwords."""
    model_type: Literal["bpe", "unigram"] = "bpe"
    """Subwords: the SentencePiece algorithm."""
    normalize: Literal["nfc", "nfkc", "none"] = "nfc"
    """Unicode normalization of training text, inputs and references. nfc: one code for a letter and its accent.
    nfkc: also one for its widths and ligatures."""
    batch_size: int = 32
    """Stream: parallel streams per batch."""
    chunk: int | None = None
    """Stream: tokens per stream and step (truncated backpropagation; the state continues). Chosen from the size of
    the data."""
    batch_tokens: int = 2048
    """Line: tokens per batch, padding included."""
    max_line: int = MAX_LINE
    """Line: cut lines after this many tokens."""
    valid_limit: int = 1_000_000
    """Validate on at most this many tokens; `gen evaluate` uses all."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """replace: read bytes that are not UTF-8 as U+FFFD."""

    @property
    def by_line(self) -> bool:
        """Whether each line, or row of a table, is a text of its own."""
        return self.unit == "line" or bool(self.given)

    @property
    def streams(self) -> bool:
        """Whether the data is read while the model is trained."""
        return self.shuffle_buffer is not None or any(map(is_streamed, self.data))

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        found = [] if self.data else ["--data: name at least one text file"]
        found += column_errors(self.data, self.column)
        if len(set(map(input_name, self.given))) < len(self.given):
            found.append(f"--given {' '.join(self.given)}: names the same column twice")
        if not 0 < self.valid_fraction < 1:
            found.append(f"--valid-fraction must be between 0 and 1, not {self.valid_fraction}")
        if self.valid and self.valid_fraction != 0.1:
            found.append("--valid and --valid-fraction exclude each other")
        if self.given and any(map(is_streamed, self.valid)):
            found.append("--given does not go with --valid that is streamed: name tables")
        if self.streams:
            found += stream_errors(self.data, {"--given": self.given})
        sizes = (
            "shuffle_buffer",
            "batch_size",
            "chunk",
            "min_frequency",
            "batch_tokens",
            "max_line",
            "valid_limit",
        )
        return found + vocabulary_errors(self) + range_errors(self, sizes, ("input_dropout",))


@dataclass(frozen=True)
class TextSizes(DecoderSizes):
    """Sizes of the decoder."""

    embedding_size: int | None = None
    """Size of a token embedding. Chosen from the level."""
    num_layers: int | None = None  # type: ignore[assignment]  # text chooses it
    """Number of layers. Chosen: 1, or 2 with labels."""
    weight_dropout: float | None = None
    """Dropout on recurrent weights, one mask per chunk (AWD-LSTM). Chosen from the budget and the data."""
    residual: bool = False
    """Add the input of a layer to its output."""
    layer_norm: bool = False
    """Layer normalisation of the input of every layer."""
    tie: Literal["none", "decoder"] | None = None
    """decoder: one matrix for token embeddings and output layer. Chosen from the level."""


@dataclass(frozen=True)
class TextHeldOut:
    """Evaluate on other text than the validation part of the training."""

    NAMED: ClassVar = "--data"

    data: tuple[str, ...] = ()
    """Text to evaluate on. Unset: the validation part of the training data."""
    column: str = ""
    """Tables: the column of the text. Unset: that of the training, and of its labels likewise."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """replace: read bytes that are not UTF-8 as U+FFFD."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        return column_errors(self.data, self.column)


def column_errors(names: Sequence[str], column: str) -> list[str]:
    """An error if ``column`` is given and none of the files is a table."""
    if not column or any(suffix(name) in TABLES or is_streamed(name) for name in names):
        return []
    return [f"--column goes with tables: {', '.join(TABLES)}"]
