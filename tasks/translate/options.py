"""The options of `gen train translate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gen.base.config import range_errors
from gen.datasets.corpus import TokenizerOptions
from gen.datasets.pairs import PairOptions
from tasks.text.options import CHOSEN_MULTIPLE, DROPOUTS


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
    byte_fallback: bool = True
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
    """Padded tokens per batch, of the longer side."""

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
        """Everything that is wrong with the options, one line each."""
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
class TranslateSizes:
    """Sizes of the encoder and the decoder."""

    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    """Recurrent cell of both."""
    attention: Literal["none", "dot", "additive", "multihead"] = "dot"
    """How the decoder looks at the source; none: it has to remember it."""
    num_heads: int = 4
    """Of multi-head attention."""
    embedding_size: int | None = None
    """Size of a token's vector. Chosen from how often the budget allows to read the pairs."""
    encoder_size: int | None = None
    """Size of an encoder layer, in each direction. Chosen from how often the budget allows to read the pairs."""
    encoder_layers: int = 2
    """Layers of the encoder."""
    bidirectional: bool = True
    """The encoder reads in both directions."""
    hidden_size: int | None = None
    """Size of a decoder layer. Chosen from how often the budget allows to read the pairs."""
    num_layers: int = 2
    """Layers of the decoder."""
    dropout: float | None = None
    """Between layers and before the output, one mask per sentence. Chosen likewise."""
    embedding_dropout: float | None = None
    """On the tokens' vectors. Chosen likewise."""
    weight_dropout: float = 0.0
    """On the recurrent weights, one mask per batch (AWD-LSTM)."""
    tie: Literal["none", "decoder", "all"] | None = None
    """One matrix for the decoder's embeddings and output layer; all: and the encoder's embeddings. Chosen: as
    far as the vocabularies allow."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
        sizes = ("num_heads", "embedding_size", "encoder_size", "encoder_layers", "hidden_size", "num_layers")
        found = range_errors(self, sizes, DROPOUTS)
        if self.attention == "multihead" and (self.hidden_size or CHOSEN_MULTIPLE) % max(self.num_heads, 1):
            size = self.hidden_size or f"(chosen as a multiple of {CHOSEN_MULTIPLE}; name one)"
            found.append(f"--num-heads {self.num_heads} does not divide --hidden-size {size}")
        return found


@dataclass(frozen=True)
class TranslateHeldOut:
    """Other pairs than those held out in training."""

    src: str = ""
    """Sentences to translate. Unset: the pairs held out in training."""
    ref: str = ""
    """What they should become."""
    lowercase: bool = False
    """Compare without case."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
        return ["--src and --ref go together"] if bool(self.src) != bool(self.ref) else []
