"""The encoder contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gen.inputs.processors import Reader
from gen.models.memory import Memory


@dataclass(frozen=True)
class Prepared:
    """Items made ready for the model.

    Attributes:
        source: what `Encoder.forward` takes: a tensor, or a number of rows.
        prompts: where the output of each item begins: the prompt of free text, "" for the others.
    """

    source: Any
    prompts: list[str]


class Encoder(nn.Module):
    """Turns inputs into a `Memory`. Subclasses set ``memory_size`` and define `prepare` and `forward`.

    Attributes:
        memory_size: M, the size of the vectors in the memory.
        reader: makes arrays of items. With one, `prepare` and `labels` need not be defined, and the encoder can be
            exported: whoever runs it without torch reads items in the same way.
        name: under which `register` knows the class.
        config: plain values from which `from_config` makes the same encoder; set by `build_encoder` where
            the class does not set it.
    """

    memory_size: int = 0
    reader: Reader
    name: str = ""
    config: dict[str, Any]

    def prepare(self, items: Sequence[Any]) -> Prepared:
        """Prompts, sentences or pictures → what `forward` takes. Owns the input's preprocessing."""
        device = next(self.parameters(), torch.empty(0)).device
        return Prepared(torch.from_numpy(self.reader.read(items)).to(device), self.reader.prompts(items))

    def forward(self, source: Any) -> Memory:
        """A prepared source of B inputs → their `Memory`."""
        raise NotImplementedError

    # What follows is for encoders that have more to say.

    def adopt(self, embedding: nn.Embedding, scale: float) -> None:
        """The decoder's embeddings and what they are multiplied with, for an encoder that shares them. Called
        once, by `Model`."""

    def slow_parameters(self) -> tuple[list[nn.Parameter], float]:
        """Weights that learn at a share of the learning rate, and that share: those that came trained."""
        return [], 1.0

    def prepare_for_export(self) -> None:
        """Leaves out shortcuts that hang on the machine or on the number of inputs: what follows is an export."""

    def describe(self) -> str:
        """What it is, in a few words."""
        return self.name or type(self).__name__

    def labels(self, item: Any) -> list[str]:
        """What each of the S vectors that an item gets stands for, in words: for plots and alignments."""
        return self.reader.labels(item) if hasattr(self, "reader") else []

    def files(self) -> dict[str, bytes]:
        """What a model folder has to hold beside the weights: name → content."""
        return self.reader.files() if hasattr(self, "reader") else {}

    @classmethod
    def from_config(cls, config: dict[str, Any], read: Callable[[str], bytes]) -> Encoder:
        """The encoder of a saved model. ``read(name)`` gives back what `files` gave."""
        return cls(**config)
