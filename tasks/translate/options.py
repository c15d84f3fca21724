"""The options of `gen train translate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from gen.base.config import range_errors
from gen.datasets.corpus import TokenizerOptions
from gen.datasets.pairs import PairOptions
from gen.datasets.shard_files import is_streamed
from gen.metrics.scores import BleuTokenizer, missing_library
from gen.models.encoders.backbones import LITE
from tasks.options import (
    AttentionSizes,
    SelfCriticalOptions,
    augment_errors,
    input_name,
    stream_errors,
    vocabulary_errors,
)


@dataclass(frozen=True)
class FurtherInputs:
    """Columns of tables that the model reads besides the sentence. Where a cell is empty, nothing is read."""

    TITLE: ClassVar[str] = "Further inputs"

    image: tuple[str, ...] = ()
    """Columns of pictures: names of files in --images."""
    images: str = ""
    """Folder of the pictures. Unset: that of the table."""
    augment: int | None = None
    """Number of additional views per picture: mirrored and cropped. Chosen from the budget and the data."""
    context: tuple[str, ...] = ()
    """Columns of further sentences, such as the one before."""
    given: tuple[str, ...] = ()
    """Columns of labels, such as a style."""
    input_dropout: float = 0.1
    """Share of these inputs that is left out in training, so that the model also works without them."""

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(option, column) of every further input."""
        return [(kind, c) for kind in ("image", "context", "given") for c in getattr(self, kind)]

    @property
    def kinds(self) -> dict[str, str]:
        """Input name → "image", "context" or "given"."""
        return {input_name(column): kind for kind, column in self.columns}

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        found = range_errors(self, shares=("input_dropout",))
        if len(self.kinds) < len(self.columns):
            twice = " ".join(column for _, column in self.columns)
            found.append(f"--image, --context and --given name a column twice: {twice}")
        if self.images and not self.image:
            found.append("--images goes with --image, the column of the pictures")
        if self.augment and not self.image:
            found.append("--augment goes with --image, the column of the pictures")
        return found + augment_errors(self.augment)


@dataclass(frozen=True)
class TranslateData:
    """Training data."""

    train: tuple[str, ...] = ()
    """Two files with one sentence per line, source and target: train.{en,de}. More pairs of files may follow."""
    data: tuple[str, ...] = ()
    """Instead of --train: tables of pairs (.tsv, .csv, .jsonl, .json, .parquet, .tmx), or a Hugging Face dataset.
    Streamed, see --shuffle-buffer: tars as of webdataset, shards/{000..099}.tar, and hf:NAME of a dataset."""
    shuffle_buffer: int | None = None
    """Stream --data, without writing its tokens to disk first, and shuffle so many pairs at a time. The
    vocabulary, and without --valid the validation part, come from the beginnings of the files. Unset: 10000 for
    tars and hf:; other data is not streamed."""
    src: str = ""
    """Tables: the source column, by name or by number from 1 on. Unset: source, src, or the first of text."""
    tgt: str = ""
    """Tables: the target column, likewise. Unset: target, tgt, or the second of text."""
    valid: tuple[str, ...] = ()
    """Pairs to validate on, in the form of --train or --data. Unset: a part of the training pairs, with
    sources and targets of its own; the run folder gets it as valid.src and valid.tgt."""
    valid_size: int = 1000
    """Without --valid: number of training pairs to validate on, at most a tenth."""
    level: Literal["char", "word", "subword"] = "subword"
    """Kind of tokens."""
    vocab_size: int | None = None
    """Size of the vocabulary. Unset: all words, or up to 8000 subwords, 5000 for fewer than 20,000 pairs."""
    model_type: Literal["bpe", "unigram"] = "bpe"
    """Subwords: the SentencePiece algorithm."""
    byte_fallback: bool = True
    """Subwords: encode unknown characters as bytes instead of <unk>."""
    subword_dropout: float = 0.0
    """Subwords: probability of skipping a merge in training (BPE-dropout); 0.1 is usual."""
    min_frequency: int = 2
    """Words: replace rarer ones by <unk>."""
    normalize: Literal["nfc", "nfkc", "none"] = "nfc"
    """Unicode normalization of training text, inputs and references. nfc: one code for a letter and its accent.
    nfkc: also one for its widths and ligatures."""
    separate: bool = False
    """A vocabulary per side instead of a joint one."""
    lowercase: bool = False
    """Convert both sides to lower case."""
    max_length: int = 256
    """Drop training pairs with more tokens than this on either side."""
    length_ratio: float = 0.0
    """Drop training pairs where one side has this many times the tokens of the other; 0: keep all."""
    batch_tokens: int = 2000
    """Tokens per batch of the longer side, padding included."""
    bleu_tokenizer: BleuTokenizer | None = None
    """sacrebleu's tokenizer for BLEU. Chosen from the script of the targets."""
    further: FurtherInputs = field(default_factory=FurtherInputs)

    @property
    def streams(self) -> bool:
        """Whether the pairs are read while the model is trained."""
        return self.shuffle_buffer is not None or any(map(is_streamed, self.data))

    @property
    def pairs(self) -> PairOptions:
        """The options of `gen.datasets.pairs`."""
        tokenizer = TokenizerOptions(
            self.level,
            self.min_frequency,
            self.vocab_size,
            self.model_type,
            byte_fallback=self.byte_fallback,
            dummy_prefix=True,
            subwords=8000,
            normalization=self.normalize,
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
        """The errors in the options, one line each."""
        found = []
        if not self.train and not self.data:
            found.append("--train: name two text files (train.en train.de), or a table with --data")
        if self.train and self.data:
            found.append("--train and --data exclude each other")
        if bool(self.src) != bool(self.tgt):
            found.append("--src and --tgt go together")
        if self.valid and self.valid_size != type(self).valid_size:
            found.append("--valid and --valid-size exclude each other")
        if self.subword_dropout != 0 and self.level != "subword":
            found.append(f"--subword-dropout goes with --level subword, not {self.level}")
        if self.length_ratio != 0 and not self.length_ratio >= 1:
            found.append(f"--length-ratio must be at least 1, or 0 for none, not {self.length_ratio}")
        found += tokenizer_errors(self.bleu_tokenizer) + self.further.errors()
        if self.further.kinds and not self.data:
            found.append("--image, --context and --given name columns of a table: give it with --data")
        if self.streams:
            others: dict[str, Any] = {f"--{kind}": column for kind, column in self.further.columns}
            others |= {"--train": self.train, "--subword-dropout": self.subword_dropout}
            found += stream_errors(self.data, others)
        sizes = ("shuffle_buffer", "valid_size", "min_frequency", "max_length", "batch_tokens")
        return found + vocabulary_errors(self) + range_errors(self, sizes, ("subword_dropout",))


@dataclass(frozen=True)
class TranslateSizes(AttentionSizes):
    """Sizes of the encoder and the decoder."""

    encoder_size: int | None = None
    """Size of an encoder layer in each direction. Chosen from the budget and the data."""
    encoder_layers: int = 2
    """Number of encoder layers."""
    bidirectional: bool = True
    """Read the source in both directions."""
    copy: bool = False
    """Let attention copy tokens of the source: names and numbers that training never had come through
    (pointer-generator). Words that the vocabulary lacks still need --replace-unk: better copy subwords."""
    tie: Literal["none", "decoder", "all"] | None = None
    """decoder: one matrix for the decoder's embeddings and output layer. all: also for the encoder's embeddings.
    Chosen: all if both sides share a vocabulary, else decoder."""
    backbone: str = LITE
    """The CNN for --image: efficientnet_lite0, 1 or 2, or a torchvision classification model such as resnet50."""
    weights: str = "default"
    """Weights of the CNN: default (pretrained), none, or a file."""
    image_size: int | None = None
    """Pixels per side of the pictures that the CNN reads. Unset: as many as it was trained with."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        blind = self.copy and self.attention == "none"
        return super().errors() + ["--copy does not go with --attention none"] * blind


@dataclass(frozen=True)
class TranslateReward(SelfCriticalOptions):
    """Training by the scores of the model's own translations (minimum risk)."""

    reward: tuple[Literal["bleu", "chrf"], ...] = ("bleu", "chrf")
    """Score of a sampled translation: BLEU or chrF of the sentence, or their mean. BLEU alone makes translations
    shorter, chrF alone longer."""


@dataclass(frozen=True)
class TranslateHeldOut:
    """Evaluate on other pairs than the validation part of the training."""

    NAMED: ClassVar = "--src and --ref"

    data: tuple[str, ...] = ()
    """Tables of pairs with the columns of the training. Unset: the validation part of the training data."""
    images: str = ""
    """Folder of the pictures of --data. Unset: that of the table."""
    split: Literal["train", "valid", "test", "all"] = "all"
    """The rows of --data to use, by their column "split"."""
    without: tuple[str, ...] = ()
    """Further inputs of the model to leave out."""
    src: str = ""
    """Source sentences, one per line, instead of --data."""
    ref: str = ""
    """Reference translations, one per line."""
    lowercase: bool = False
    """Ignore case in the scores."""
    bleu_tokenizer: BleuTokenizer | None = None
    """sacrebleu's tokenizer for BLEU. Unset: that of the training."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        found = ["--src and --ref go together"] if bool(self.src) != bool(self.ref) else []
        if self.data and self.src:
            found.append("--data and --src exclude each other")
        if (self.images or self.split != "all") and not self.data:
            found.append(f"{'--images' if self.images else '--split'} goes with --data")
        return found + tokenizer_errors(self.bleu_tokenizer)


def tokenizer_errors(name: BleuTokenizer | None) -> list[str]:
    """An error if a BLEU tokenizer needs a package that is not installed."""
    missing = missing_library(name or "")
    return [f"--bleu-tokenizer {name}: needs {missing}; install it with pip"] if missing else []
