"""The options of `gen train caption`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from gen.base.config import range_errors
from gen.datasets.captions import CAPTION_WORDS
from gen.datasets.corpus import TokenizerOptions
from gen.models.encoders.backbones import LITE
from tasks.text.options import CHOSEN_MULTIPLE, DROPOUTS


@dataclass(frozen=True)
class CaptionData:
    """What to look at and what to read."""

    images: str = ""
    """The folder of the pictures."""
    captions: str = ""
    """JSON Lines, CSV, Flickr's token file, Karpathy's or COCO's JSON, Parquet, or a dataset's name. Unset: the
    file of captions in the folder itself."""
    valid_images: str = ""
    """The folder of the pictures to validate on, where it is another one."""
    valid_captions: str = ""
    """Captions to validate on. Unset: those of the validation split, or of a part of the training pictures."""
    valid_size: int = 1000
    """How many pictures that part has, at most a tenth of all."""
    level: Literal["char", "word", "subword"] = "word"
    """What a token is."""
    vocab_size: int | None = None
    """Subwords: how many pieces. Words: keep the most frequent. Unset: 2000 pieces, or all the text supports."""
    min_frequency: int | None = None
    """Words: rarer ones are unknown. Chosen from the number of captions."""
    verbatim: bool = False
    """Learn captions as they stand, with case and punctuation."""
    max_length: int = 50
    """Cut captions after this many tokens."""
    batch_tokens: int = 1500
    """Padded tokens per batch."""
    augment: int | None = None
    """Also learn from this many other views of each picture: mirrored, and parts of it. Chosen: more where the
    budget is long enough to see each picture often."""
    feature_dtype: Literal["float16", "float32"] = "float16"
    """How the cache keeps what the CNN sees."""

    def tokenizer(self) -> TokenizerOptions:
        """The vocabulary's options."""
        return TokenizerOptions(
            self.level,
            self.min_frequency or 1,
            self.vocab_size,
            dummy_prefix=True,
            pattern=CAPTION_WORDS,
            subwords=2000,
        )

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
        found = range_errors(self, ("valid_size", "min_frequency", "max_length", "batch_tokens"))
        if not self.images and not self.captions:
            found.append("--images: name the folder of the pictures")
        if self.valid_images and not self.valid_captions:
            found.append("--valid-images goes with --valid-captions")
        if not 0 <= (self.augment or 0) <= 100:
            found.append(f"--augment must be between 0 and 100, not {self.augment}")
        if self.vocab_size is not None and (self.vocab_size < 5 or self.level == "char"):
            found.append("--vocab-size goes with --level word or subword, and must be at least 5")
        return found


@dataclass(frozen=True)
class CaptionSizes:
    """Sizes of the encoder and the decoder."""

    backbone: str = LITE
    """The CNN: efficientnet_lite0, or a torchvision classification model such as resnet50."""
    weights: str = "default"
    """Its weights: default, none, or a file."""
    finetune: int = 0
    """Let this many of its last stages learn, too; then nothing is cached."""
    finetune_rate: float = 0.05
    """How fast they learn, as a share of the learning rate."""
    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    """Recurrent cell of the decoder."""
    attention: Literal["none", "dot", "additive", "multihead"] = "dot"
    """How the decoder looks at the picture; none: it gets the mean of what there is to see, once."""
    num_heads: int = 4
    """Of multi-head attention."""
    memory_size: int | None = None
    """Size of a grid cell's vector. Chosen from how often the budget allows to read the captions."""
    embedding_size: int | None = None
    """Size of a token's vector. Chosen likewise."""
    hidden_size: int | None = None
    """Size of a decoder layer. Chosen likewise."""
    num_layers: int = 2
    """Layers of the decoder."""
    dropout: float | None = None
    """Between layers and before the output, one mask per caption; and on the picture's vectors. Chosen
    likewise."""
    embedding_dropout: float | None = None
    """On the tokens' vectors. Chosen likewise."""
    weight_dropout: float = 0.0
    """On the recurrent weights, one mask per batch (AWD-LSTM)."""
    tie: Literal["none", "decoder"] = "decoder"
    """decoder: one matrix for the embeddings and the output layer."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
        sizes = ("num_heads", "memory_size", "embedding_size", "hidden_size", "num_layers")
        found = range_errors(self, sizes, DROPOUTS)
        if self.attention == "multihead" and (self.hidden_size or CHOSEN_MULTIPLE) % max(self.num_heads, 1):
            size = self.hidden_size or f"(chosen as a multiple of {CHOSEN_MULTIPLE}; name one)"
            found.append(f"--num-heads {self.num_heads} does not divide --hidden-size {size}")
        if self.finetune < 0:
            found.append(f"--finetune must be 0 or more, not {self.finetune}")
        if not 0 < self.finetune_rate <= 1:
            found.append(f"--finetune-rate must be above 0 and at most 1, not {self.finetune_rate}")
        return found


@dataclass(frozen=True)
class SelfCriticalOptions:
    """Learning from the score of the model's own captions, after it has learned from people's."""

    TITLE: ClassVar[str] = "Self-critical training"

    self_critical: bool = False
    """Make captions with a higher CIDEr-D more probable. Needs --init-from."""
    samples: int = 5
    """Captions drawn for each picture."""
    baseline: Literal["mean", "greedy"] = "mean"
    """What a caption's score is compared with: the others' mean, or that of the greedy one."""
    pictures: int = 32
    """Pictures per batch."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
        found = range_errors(self, ("samples", "pictures"))
        if self.baseline == "mean" and self.samples < 2:
            found.append("--samples must be at least 2 with --baseline mean")
        return found


@dataclass(frozen=True)
class CaptionHeldOut:
    """Other pictures than those held out in training."""

    images: str = ""
    """A folder of pictures. Unset: the pictures held out in training."""
    captions: str = ""
    """What people wrote about them; see `gen train caption --help`."""
    split: Literal["train", "valid", "test", "all"] = "all"
    """Which part of those."""
