# Made by tests/stubs.py from the dataclasses of the options: change those, and run it again.

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, overload

from gen.base.errors import ConfigError as ConfigError
from gen.base.errors import UserError as UserError
from gen.models.decoder import Decoder as Decoder
from gen.models.decoder import DecoderConfig as DecoderConfig
from gen.models.encoders import Encoder as Encoder
from gen.models.memory import Memory as Memory
from gen.models.model import Model as Model
from gen.runtime import Runtime as Runtime
from gen.search import Beam as Beam
from gen.search import Greedy as Greedy
from gen.search import Hypothesis as Hypothesis
from gen.search import Output as Output
from gen.search import Sample as Sample
from gen.search import SearchOptions as SearchOptions
from gen.search import Strategy as Strategy
from gen.training.interfaces import Example as Example
from gen.training.interfaces import Metric as Metric
from gen.training.interfaces import Split as Split
from gen.training.options import TrainOptions as TrainOptions
from gen.training.registry import register as register
from gen.training.run import Run as Run
from gen.training.task import Task as Task
from gen.training.trainer import Trainer as Trainer
from gen.training.validation import Event

_Path = str | PathLike[str]
_Callbacks = Sequence[Callable[[Event], Any]]

__version__: str

def load(path: _Path, device: str = "cpu", precision: str = "fp32") -> Model | Runtime: ...
@overload
def train(
    task: Literal["text"],
    *,
    data: _Path | Sequence[_Path] = (),
    column: str = "",
    valid: _Path | Sequence[_Path] = (),
    valid_fraction: float = 0.1,
    unit: Literal["stream", "line"] = "stream",
    level: Literal["char", "word", "subword"] = "char",
    min_frequency: int = 2,
    vocab_size: int | None = None,
    model_type: Literal["bpe", "unigram"] = "bpe",
    normalize: Literal["nfc", "nfkc", "none"] = "nfc",
    batch_size: int = 32,
    chunk: int | None = None,
    batch_tokens: int = 2048,
    max_line: int = 1000,
    valid_limit: int = 1000000,
    encoding_errors: Literal["strict", "replace"] = "strict",
    cell: Literal["rnn", "gru", "lstm"] = "lstm",
    embedding_size: int | None = 128,
    hidden_size: int | None = None,
    num_layers: int = 1,
    dropout: float | None = None,
    embedding_dropout: float | None = None,
    weight_dropout: float | None = None,
    residual: bool = False,
    layer_norm: bool = False,
    tie: Literal["none", "decoder"] = "none",
    budget: str = "5m",
    init_from: _Path = "",
    new_vocabulary: bool = False,
    freeze: str | Sequence[str] = (),
    learning_rate: float | None = None,
    schedule: Literal["cosine", "linear", "constant", "plateau"] = "cosine",
    warmup: float = 0.02,
    weight_decay: float = 0.03,
    beta2: float = 0.99,
    clip: float = 1.0,
    accumulate: int = 1,
    label_smoothing: float | None = None,
    r_drop: float = 0.0,
    scheduled_sampling: float = 0.0,
    ema: float | None = None,
    average: int = 0,
    average_of: Literal["last", "best"] = "last",
    validations: int = 10,
    save_every: str = "10m",
    best: str | None = None,
    patience: int = 0,
    seed: int = 1,
    deterministic: bool = False,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    track: Literal["tensorboard", "wandb", "mlflow"] | Sequence[Literal["tensorboard", "wandb", "mlflow"]] = (),
    out: _Path = "",
    callbacks: _Callbacks = (),
) -> Run: ...
@overload
def train(
    task: Literal["translate"],
    *,
    train: _Path | Sequence[_Path] = (),
    data: _Path | Sequence[_Path] = (),
    src: str = "",
    tgt: str = "",
    valid: _Path | Sequence[_Path] = (),
    valid_size: int = 1000,
    level: Literal["char", "word", "subword"] = "subword",
    vocab_size: int | None = None,
    model_type: Literal["bpe", "unigram"] = "bpe",
    byte_fallback: bool = True,
    subword_dropout: float = 0.0,
    min_frequency: int = 2,
    normalize: Literal["nfc", "nfkc", "none"] = "nfc",
    separate: bool = False,
    lowercase: bool = False,
    max_length: int = 256,
    length_ratio: float = 0.0,
    batch_tokens: int = 2000,
    bleu_tokenizer: Literal["13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none"] | None = None,
    cell: Literal["rnn", "gru", "lstm"] = "lstm",
    embedding_size: int | None = None,
    hidden_size: int | None = None,
    num_layers: int = 2,
    dropout: float | None = None,
    embedding_dropout: float | None = None,
    weight_dropout: float | None = 0.0,
    attention: Literal["none", "dot", "additive", "multihead"] = "dot",
    num_heads: int = 4,
    encoder_size: int | None = None,
    encoder_layers: int = 2,
    bidirectional: bool = True,
    tie: Literal["none", "decoder", "all"] | None = None,
    budget: str = "5m",
    init_from: _Path = "",
    new_vocabulary: bool = False,
    freeze: str | Sequence[str] = (),
    learning_rate: float | None = None,
    schedule: Literal["cosine", "linear", "constant", "plateau"] = "cosine",
    warmup: float = 0.02,
    weight_decay: float = 0.03,
    beta2: float = 0.99,
    clip: float = 1.0,
    accumulate: int = 1,
    label_smoothing: float | None = None,
    r_drop: float = 0.0,
    scheduled_sampling: float = 0.0,
    coverage: float = 0.0,
    ema: float | None = None,
    average: int = 0,
    average_of: Literal["last", "best"] = "last",
    validations: int = 10,
    save_every: str = "10m",
    best: str | None = None,
    patience: int = 0,
    seed: int = 1,
    deterministic: bool = False,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    track: Literal["tensorboard", "wandb", "mlflow"] | Sequence[Literal["tensorboard", "wandb", "mlflow"]] = (),
    out: _Path = "",
    callbacks: _Callbacks = (),
) -> Run: ...
@overload
def train(
    task: Literal["caption"],
    *,
    images: _Path = "",
    captions: _Path = "",
    valid_images: _Path = "",
    valid_captions: _Path = "",
    valid_size: int = 1000,
    level: Literal["char", "word", "subword"] = "word",
    vocab_size: int | None = None,
    min_frequency: int | None = None,
    normalize: Literal["nfc", "nfkc", "none"] = "nfc",
    verbatim: bool = False,
    max_length: int = 50,
    batch_tokens: int = 1500,
    augment: int | None = None,
    feature_dtype: Literal["float16", "float32"] = "float16",
    cell: Literal["rnn", "gru", "lstm"] = "lstm",
    embedding_size: int | None = None,
    hidden_size: int | None = None,
    num_layers: int = 2,
    dropout: float | None = None,
    embedding_dropout: float | None = None,
    weight_dropout: float | None = 0.0,
    attention: Literal["none", "dot", "additive", "multihead"] = "dot",
    num_heads: int = 4,
    backbone: str = "efficientnet_lite0",
    weights: _Path = "default",
    finetune: int = 0,
    finetune_rate: float = 0.05,
    memory_size: int | None = None,
    tie: Literal["none", "decoder"] = "decoder",
    self_critical: bool = False,
    samples: int = 5,
    baseline: Literal["mean", "greedy"] = "mean",
    pictures: int = 32,
    budget: str = "5m",
    init_from: _Path = "",
    new_vocabulary: bool = False,
    freeze: str | Sequence[str] = (),
    learning_rate: float | None = None,
    schedule: Literal["cosine", "linear", "constant", "plateau"] = "cosine",
    warmup: float = 0.02,
    weight_decay: float = 0.03,
    beta2: float = 0.99,
    clip: float = 1.0,
    accumulate: int = 1,
    label_smoothing: float | None = None,
    r_drop: float = 0.0,
    scheduled_sampling: float = 0.0,
    coverage: float = 0.0,
    ema: float | None = None,
    average: int = 0,
    average_of: Literal["last", "best"] = "last",
    validations: int = 10,
    save_every: str = "10m",
    best: str | None = None,
    patience: int = 0,
    seed: int = 1,
    deterministic: bool = False,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    track: Literal["tensorboard", "wandb", "mlflow"] | Sequence[Literal["tensorboard", "wandb", "mlflow"]] = (),
    out: _Path = "",
    callbacks: _Callbacks = (),
) -> Run: ...
@overload
def train(task: str | type[Task], *, out: _Path = "", callbacks: _Callbacks = (), **options: Any) -> Run: ...
