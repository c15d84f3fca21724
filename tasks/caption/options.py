"""The options of `gen train caption`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from gen.base.config import range_errors
from gen.datasets.captions import CAPTION_WORDS, labelled
from gen.datasets.corpus import TokenizerOptions
from gen.datasets.streamed_pictures import BUFFER
from gen.models.encoders.backbones import LITE
from tasks.options import AttentionSizes, SelfCriticalOptions, augment_errors, stream_errors, vocabulary_errors


@dataclass(frozen=True)
class CaptionData:
    """Training data."""

    images: str = ""
    """Folder of the training pictures."""
    captions: tuple[str, ...] = ()
    """JSON Lines, JSON, CSV, TSV, Flickr's token file, Karpathy's or COCO's JSON, Parquet, or a Hugging Face
    dataset. Unset: the captions file in the folder --images, or .txt files with the names of pictures. Several as
    LABEL=FILE, such as en=captions.jsonl de=captions.de.jsonl: one model that is told which to write with
    --given."""
    data: tuple[str, ...] = ()
    """Instead of --images: streamed shards of pictures with their captions, such as tars as of webdataset,
    shards/{000..099}.tar (a picture and a .txt or .json of the same name), .parquet, or hf:NAME of a dataset. The
    vocabulary, and without --valid-captions the validation part, come from the beginning. Features of a frozen
    CNN are not kept: it looks at a picture again for each caption."""
    shuffle_buffer: int = BUFFER
    """With --data: shuffle so many pictures at a time; 1000 take 150 MB."""
    valid_images: str = ""
    """Folder of the validation pictures. Unset: --images."""
    valid_captions: tuple[str, ...] = ()
    """Captions to validate on, in the form of --captions. Unset: the validation split, or a part of the training
    pictures, which the run folder gets as valid.jsonl."""
    valid_size: int = 1000
    """Without a validation split: number of training pictures to validate on, at most a tenth, at least one."""
    level: Literal["char", "word", "subword"] = "word"
    """Kind of tokens."""
    vocab_size: int | None = None
    """Size of the vocabulary. Unset: all words, or up to 2000 subwords."""
    min_frequency: int | None = None
    """Words: replace rarer ones by <unk>. Chosen from the number of captions."""
    normalize: Literal["nfc", "nfkc", "none"] = "nfc"
    """Unicode normalization of training text, inputs and references. nfc: one code for a letter and its accent.
    nfkc: also one for its widths and ligatures."""
    verbatim: bool = False
    """Keep case and punctuation of the captions."""
    max_length: int = 50
    """Cut captions after this many tokens; --level char: after five times as many."""
    batch_tokens: int = 1500
    """Tokens per batch, padding included."""
    augment: int | None = None
    """Number of additional views per picture: mirrored and cropped. Chosen from the budget and the data."""
    feature_dtype: Literal["float16", "float32"] = "float16"
    """Number format of the cached CNN features."""

    @property
    def streams(self) -> bool:
        """Whether the pictures are read while the model is trained."""
        return bool(self.data)

    @property
    def longest(self) -> int:
        """Most tokens of a caption."""
        return self.max_length * (5 if self.level == "char" else 1)

    def tokenizer(self) -> TokenizerOptions:
        """The options of the vocabulary."""
        return TokenizerOptions(
            self.level,
            self.min_frequency or 1,
            self.vocab_size,
            dummy_prefix=True,
            pattern=CAPTION_WORDS,
            subwords=2000,
            normalization=self.normalize,
        )

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        sizes = ("valid_size", "min_frequency", "max_length", "batch_tokens", "shuffle_buffer")
        found = range_errors(self, sizes)
        if self.streams:
            found += stream_errors(self.data, {"--images": self.images, "--captions": self.captions})
            found += [
                f"--valid-captions {name}: a label does not go with data that is streamed"
                for name in self.valid_captions
                if labelled(name)[0]
            ]
        elif self.shuffle_buffer != BUFFER:
            found.append("--shuffle-buffer goes with --data")
        if not (self.images or self.captions or self.data):
            found.append("--images: name the folder of the pictures")
        if self.streams and self.feature_dtype != type(self).feature_dtype:
            found.append("--feature-dtype does not go with --data: of streamed pictures no features are kept")
        if self.valid_captions and self.valid_size != type(self).valid_size:
            found.append("--valid-captions and --valid-size exclude each other")
        if self.valid_images and not self.valid_captions:
            found.append("--valid-images goes with --valid-captions")
        return found + augment_errors(self.augment) + vocabulary_errors(self)


@dataclass(frozen=True)
class CaptionSizes(AttentionSizes):
    """Sizes of the encoder and the decoder."""

    backbone: str = LITE
    """The CNN: efficientnet_lite0, 1 or 2, or a torchvision classification model such as resnet50."""
    weights: str = "default"
    """Weights of the CNN: default (pretrained), none, or a file."""
    image_size: int | None = None
    """Pixels per side of the pictures that the CNN reads; with more it sees smaller things and is slower. Unset:
    chosen from the number of pictures for an EfficientNet-Lite, else as many as it was trained with."""
    finetune: int = 0
    """Train this many of the CNN's last stages. With 0 its features are computed once and cached."""
    finetune_rate: float = 0.05
    """Learning rate of these stages, as a share of --learning-rate."""
    memory_size: int | None = None
    """Size of the vector of a grid cell. Chosen from the budget and the data."""
    tie: Literal["none", "decoder"] = "decoder"
    """decoder: one matrix for token embeddings and output layer."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        found = super().errors()
        if self.finetune < 0:
            found.append(f"--finetune must be 0 or more, not {self.finetune}")
        if not self.finetune and self.finetune_rate != type(self).finetune_rate:
            found.append("--finetune-rate goes with --finetune")
        if not 0 < self.finetune_rate <= 1:
            found.append(f"--finetune-rate must be above 0 and at most 1, not {self.finetune_rate}")
        return found


@dataclass(frozen=True)
class CaptionReward(SelfCriticalOptions):
    """Training by the CIDEr-D of the model's own captions."""

    pictures: int = 32
    """Pictures per batch."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        return super().errors() + range_errors(self, ("pictures",))


@dataclass(frozen=True)
class CaptionHeldOut:
    """Evaluate on other pictures than the validation part of the training."""

    NAMED: ClassVar = "--images and --captions"

    images: str = ""
    """Folder of pictures. Unset: the validation part of the training data."""
    captions: tuple[str, ...] = ()
    """Reference captions, of a model with labels as LABEL=FILE; see `gen train caption --help` for formats."""
    split: Literal["train", "valid", "test", "all"] = "all"
    """The split of the captions to use; of the training's own captions "all" is the validation part."""
