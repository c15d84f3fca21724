"""The encoder contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gen.memory import Memory


@dataclass(frozen=True)
class Prepared:
    """Items made ready for the model.

    Attributes:
        source: what `Encoder.forward` takes: a tensor, a tuple of them, or a number of rows.
        prompts: where the output of each item begins: the prompt of free text, "" for the others.
    """

    source: Any
    prompts: list[str]


class Encoder(nn.Module):
    """Turns inputs into a `Memory`. Subclasses set ``memory_size`` and define two methods."""

    memory_size: int = 0
    """M, the size of the vectors in the memory."""

    def prepare(self, items: Sequence[Any]) -> Prepared:
        """Prompts, sentences or pictures → what `forward` takes. Owns the input's preprocessing."""
        raise NotImplementedError

    def forward(self, source: Any) -> Memory:
        """A prepared source of B inputs → their `Memory`."""
        raise NotImplementedError
