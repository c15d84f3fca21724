"""Sequence generation around one shared recurrent decoder.

Example::

    run = gen.train("text", data="book.txt", out="runs/book", budget="10m")
    model = gen.load("runs/book")
    print(model("It was"))
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names as in _LAZY, for what reads the source: the manual, and some editors
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
    from gen.training.distill import distill as distill
    from gen.training.interfaces import Example as Example
    from gen.training.interfaces import Metric as Metric
    from gen.training.interfaces import Split as Split
    from gen.training.options import TrainOptions as TrainOptions
    from gen.training.registry import register as register
    from gen.training.run import Run as Run
    from gen.training.session import train as train
    from gen.training.task import Task as Task
    from gen.training.trainer import Trainer as Trainer

_LAZY = {
    "Beam": "gen.search",
    "ConfigError": "gen.base.errors",
    "Decoder": "gen.models.decoder",
    "DecoderConfig": "gen.models.decoder",
    "Encoder": "gen.models.encoders",
    "Example": "gen.training.interfaces",
    "Greedy": "gen.search",
    "Hypothesis": "gen.search",
    "Memory": "gen.models.memory",
    "Metric": "gen.training.interfaces",
    "Model": "gen.models.model",
    "Output": "gen.search",
    "Run": "gen.training.run",
    "Runtime": "gen.runtime",
    "Sample": "gen.search",
    "SearchOptions": "gen.search",
    "Split": "gen.training.interfaces",
    "Strategy": "gen.search",
    "Task": "gen.training.task",
    "TrainOptions": "gen.training.options",
    "Trainer": "gen.training.trainer",
    "UserError": "gen.base.errors",
    "distill": "gen.training.distill",
    "register": "gen.training.registry",
    "train": "gen.training.session",
}
"""Public name → the module that has it, imported when the name is first used."""


def load(path: str | PathLike[str], device: str = "cpu", precision: str = "fp32") -> Model | Runtime:
    """A saved model, ready to use.

    Args:
        path: a model folder, a run folder (its best model), "hf:user/name", or a folder that `gen export` made.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is. Exported models run on the CPU.
        precision: see `Model.load`.

    Raises:
        UserError: there is no model, it is damaged, or the device is not there.
    """
    from importlib.util import find_spec

    from gen import runtime
    from gen.base.errors import UserError

    if runtime.is_exported(path) or find_spec("torch") is None:
        if device not in ("cpu", "auto") or precision != "fp32":
            raise UserError(f"{path}: exported models run on the CPU, in the precision they were exported in")
        return runtime.load(path)
    from gen.models.device import pick_device
    from gen.models.model import Model

    return Model.load(path, pick_device(device), precision)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_LAZY, "load", "__version__"])
