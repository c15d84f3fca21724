"""The options of `gen train classify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gen.base.config import range_errors
from gen.datasets.corpus import TokenizerOptions
from gen.models.encoders.backbones import LITE
from tasks.options import AttentionSizes, vocabulary_errors


@dataclass(frozen=True)
class ClassifyData:
    """Training data."""

    data: tuple[str, ...] = ()
    """Tables of texts or pictures with labels (.csv, .tsv, .jsonl, .parquet), or a folder with a folder of texts
    or pictures per label, also within its folders train, valid and test."""
    column: tuple[str, ...] | None = None
    """Tables: the columns of the text, by name or number; several are joined. Unset: those that hold text in the
    first table, but for the label's, one called "split", and one with a value per label."""
    label: str | None = None
    """Tables: the column of the labels, by name or number. Unset: label, labels, class, category,
    topic, sentiment or target, or the only one whose values repeat."""
    image: str = ""
    """Tables: the column of picture files, instead of a text. Unset: the only one, where no column holds text."""
    images: str = ""
    """Folder of the pictures. Unset: the folder of the table."""
    valid: tuple[str, ...] = ()
    """Data to validate on, in the form of --data. Unset: what a column "split" names, or a part of the training
    data."""
    valid_size: int = 1000
    """Without --valid: number of examples to validate on, at most a tenth."""
    level: Literal["char", "word", "subword"] = "word"
    """Kind of tokens of texts."""
    vocab_size: int | None = None
    """Size of the vocabulary. Unset: all words, or up to 5000 subwords."""
    min_frequency: int = 2
    """Words: replace rarer ones by <unk>."""
    normalize: Literal["nfc", "nfkc", "none"] = "nfc"
    """Unicode normalization of texts. nfc: one code for a letter and its accent. nfkc: also one for its widths and
    ligatures."""
    lowercase: bool = True
    """Convert texts to lower case."""
    max_length: int = 400
    """Cut training texts after this many tokens."""
    word_dropout: float = 0.5
    """Probability that training hides a token of a text, as <unk>."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: every label counts the same in training, however few examples it has."""
    batch_size: int = 32
    """Examples per batch."""

    def tokenizer(self) -> TokenizerOptions:
        """The options of the vocabulary of texts."""
        return TokenizerOptions(
            self.level,
            self.min_frequency,
            self.vocab_size,
            dummy_prefix=True,
            subwords=5000,
            normalization=self.normalize,
        )

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        found = [] if self.data else ["--data: name a table, or a folder with a folder per label"]
        if self.image and self.column:
            found.append("--image and --column exclude each other: a model reads pictures or texts")
        if self.valid and self.valid_size != type(self).valid_size:
            found.append("--valid and --valid-size exclude each other")
        sizes = ("valid_size", "min_frequency", "max_length", "batch_size")
        return found + vocabulary_errors(self) + range_errors(self, sizes, ("word_dropout",))


@dataclass(frozen=True)
class ClassifySizes(AttentionSizes):
    """Sizes of the encoder and the decoder."""

    embedding_size: int | None = None
    """Size of a token embedding. Chosen: 128."""
    hidden_size: int | None = None
    """Size of a decoder layer. Chosen: 128."""
    dropout: float | None = None
    """Dropout between layers and before the output, one mask per sequence. Chosen: 0.5."""
    embedding_dropout: float | None = None
    """Dropout on token embeddings. Chosen: 0.5."""
    num_layers: int = 1
    """Number of decoder layers."""
    pooling: Literal["last", "mean"] = "mean"
    """Texts: what the decoder starts from: the encoder's last state, or the mean over all tokens."""
    encoder_size: int | None = None
    """Texts: size of an encoder layer in each direction; pictures: half the size of a cell's vector.
    Chosen: 128."""
    encoder_layers: int = 1
    """Texts: number of encoder layers."""
    bidirectional: bool = True
    """Texts: read in both directions."""
    backbone: str = LITE
    """Pictures: the CNN: efficientnet_lite0, 1 or 2, or a torchvision classification model such as resnet50."""
    weights: str = "default"
    """Pictures: weights of the CNN: default (pretrained), none, or a file."""
    image_size: int | None = None
    """Pictures: pixels per side that the CNN reads. Unset: as many as it was trained with."""


@dataclass(frozen=True)
class ClassifyHeldOut:
    """Evaluate on other data than the validation part of the training."""

    data: tuple[str, ...] = ()
    """Data in the form of the training's. Unset: its validation part."""
