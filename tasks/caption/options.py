"""What can be asked of `gen train caption`, and what it chooses where nothing is asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from gen.base.config import Budget, range_errors
from gen.base.errors import ConfigError
from gen.datasets.captions import CAPTION_WORDS
from gen.datasets.corpus import TokenizerOptions
from gen.models.encoders.backbones import LITE
from gen.search import SearchOptions
from gen.training.options import TrainOptions
from tasks.commands.preflight import Tools
from tasks.text.options import DROPOUTS


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
    """Words: rarer ones are unknown. Unset: chosen from the number of captions."""
    verbatim: bool = False
    """Learn captions as they stand, with case and punctuation."""
    max_length: int = 50
    """Cut captions after this many tokens."""
    batch_tokens: int = 1500
    """Padded tokens a batch."""
    augment: int | None = None
    """Also learn from this many other views of each picture: mirrored, and parts of it. Unset: 3 where the budget
    is long enough to see each picture often, else none."""
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
        """Everything that is wrong with the options, a line each."""
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
class CaptionModel:
    """Sizes of the encoder and the decoder. What is None is chosen from the budget and the number of captions."""

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
    """Size of a place's vector."""
    embedding_size: int | None = None
    """Size of a token's vector."""
    hidden_size: int | None = None
    """Size of a decoder layer."""
    num_layers: int = 2
    """Layers of the decoder."""
    dropout: float | None = None
    """Between layers and before the output, one mask a caption; and on the picture's vectors."""
    embedding_dropout: float | None = None
    """On the tokens' vectors, likewise."""
    weight_dropout: float = 0.0
    """On the recurrent weights, one mask a batch (AWD-LSTM)."""
    tie: Literal["yes", "no"] = "yes"
    """One matrix for the embeddings and the output layer."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        sizes = ("num_heads", "memory_size", "embedding_size", "hidden_size", "num_layers")
        found = range_errors(self, sizes, DROPOUTS)
        if self.attention == "multihead" and (self.hidden_size or 0) % max(self.num_heads, 1):
            found.append(f"--num-heads {self.num_heads} does not divide --hidden-size {self.hidden_size}")
        if self.finetune < 0:
            found.append(f"--finetune must be 0 or more, not {self.finetune}")
        if not 0 < self.finetune_rate <= 1:
            found.append(f"--finetune-rate must be above 0 and at most 1, not {self.finetune_rate}")
        return found


@dataclass(frozen=True)
class SelfCriticalOptions:
    """Learning from the score of the model's own captions, after it has learned from people's."""

    self_critical: bool = False
    """Make captions with a higher CIDEr-D more probable. Needs --init-from."""
    samples: int = 5
    """Captions drawn for each picture."""
    baseline: Literal["mean", "greedy"] = "mean"
    """What a caption's score is compared with: the others' mean, or that of the greedy one."""
    pictures: int = 32
    """Pictures a batch."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        found = range_errors(self, ("samples", "pictures"))
        if self.baseline == "mean" and self.samples < 2:
            found.append("--samples must be at least 2 with --baseline mean")
        return found


@dataclass(frozen=True)
class CaptionConfig:
    """Train a model that describes pictures."""

    data: CaptionData = field(default_factory=CaptionData)
    model: CaptionModel = field(default_factory=CaptionModel)
    reward: SelfCriticalOptions = field(default_factory=SelfCriticalOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    tools: Tools = field(default_factory=Tools)
    out: str = ""
    """The run folder. The same command again goes on from where it stopped."""

    def check(self) -> None:
        """Raises `ConfigError` with every error of every part at once."""
        errors = (
            self.data.errors()
            + self.model.errors()
            + self.reward.errors()
            + self.train.errors()
            + self.tools.errors()
        )
        errors += self.train.conflicting_sizes(self.model, ("finetune", "finetune_rate"))
        if self.train.batch_size != TrainOptions.batch_size:
            errors.append("--batch-size counts streams of text: for captions give --batch-tokens")
        if self.reward.self_critical:
            foreign = ("coverage", "scheduled_sampling", "r_drop", "label_smoothing")
            given = [name for name in foreign if getattr(self.train, name)]
            given += ["batch_tokens"] if self.data.batch_tokens != CaptionData.batch_tokens else []
            errors += [f"--{name.replace('_', '-')} does not go with --self-critical" for name in given]
        if self.reward.self_critical and not self.train.init_from:
            errors.append("--self-critical goes on from a trained model: name its run with --init-from")
        if self.reward.self_critical and self.model.finetune:
            errors.append("--self-critical and --finetune exclude each other")
        if not self.out:
            errors.append("--out: name a folder for the run, such as runs/captions")
        if errors:
            raise ConfigError(errors)


SEARCH = SearchOptions(beam=3, length_penalty=0.7, no_repeat_ngram=3, max_new_tokens=60).given()
"""How a caption model searches where nobody says. Against a length penalty of 1.0 and repeats, four models gained
0.3 to 0.9 CIDEr-D on Flickr8k's validation pictures: "a man in a red shirt and a woman in a red shirt" is rare."""


def choose(config: CaptionConfig, captions: int) -> CaptionConfig:
    """Fills in what the user left open: the more often the captions will be read, the larger the model, the
    stronger the dropout and the more views of the pictures.

    Args:
        config: what the user asked for.
        captions: how many there are to train on.
    """
    data, model, train = config.data, config.model, config.train
    budget = Budget.parse(train.budget)
    tokens = captions * 12
    seen = {
        "seconds": budget.amount * 6_000,  # tokens a second that two cores do at these sizes
        "epochs": budget.amount * tokens,
        "steps": budget.amount * data.batch_tokens * train.accumulate,
    }[budget.unit]
    epochs = max(seen / max(tokens, 1), 1e-9)
    # On Flickr8k with 20 minutes (20 epochs by this count) larger sizes, more dropout and three more views gave
    # 2.565 nats, where the small ones gave 2.608 and, with the views, 2.585. With 8 minutes the small ones do.
    long = epochs >= 12
    dropout = round(float(np.clip(0.35 + 0.2 * np.log10(epochs / 15), 0.1, 0.5)), 2)
    sizes = {
        "memory_size": 512 if long else 256,
        "embedding_size": 384 if long else 256,
        "hidden_size": 640 if long else 384,
        "dropout": 0.5 if long else dropout,
        "embedding_dropout": 0.4 if long else dropout,
    }
    open_sizes = {name: value for name, value in sizes.items() if getattr(model, name) is None}
    frequency = 1 if captions < 5_000 else 2 if captions < 15_000 else 4
    own = config.reward.self_critical
    return replace(
        config,
        data=replace(
            data,
            min_frequency=data.min_frequency or frequency,
            augment=data.augment if data.augment is not None else 3 if long else 0,
        ),
        model=replace(model, **open_sizes),
        train=replace(
            train,
            learning_rate=train.learning_rate or (5e-4 if own else 3e-3),
            label_smoothing=0.1 if train.label_smoothing is None else train.label_smoothing,
            ema=0.999 if train.ema is None else train.ema,
        ),
    )
