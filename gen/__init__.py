"""Sequence generation around one shared recurrent decoder.

Use::

    import gen

    model = gen.load("runs/demo")
    print(model("The "))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gen.models.model import Model
    from gen.runtime import Runtime
    from gen.search.output import Output as Output

_LAZY = {
    "Model": "gen.models.model",
    "Memory": "gen.models.memory",
    "Encoder": "gen.models.encoders",
    "Decoder": "gen.models.decoder",
    "DecoderConfig": "gen.models.decoder",
    "Strategy": "gen.search",
    "Greedy": "gen.search",
    "Sample": "gen.search",
    "Beam": "gen.search",
    "Hypothesis": "gen.search",
    "Output": "gen.search",
    "SearchOptions": "gen.search",
    "UserError": "gen.base.errors",
    "ConfigError": "gen.base.errors",
}


def load(path: str, device: str = "cpu", precision: str = "fp32") -> Model | Runtime:
    """A saved model from a model folder, a run folder, or the hub ("hf:user/name"), see `Model.load`; or from what
    `gen export` made, see `gen.runtime.load`."""
    from importlib.util import find_spec

    from gen import runtime
    from gen.base.errors import UserError

    if runtime.is_exported(path) or find_spec("torch") is None:
        if device != "cpu" or precision != "fp32":
            raise UserError(f"{path}: exported models run on the CPU, in the precision they were exported in")
        return runtime.load(path)
    from gen.models.model import Model

    return Model.load(path, device, precision)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_LAZY, "load", "__version__"])
