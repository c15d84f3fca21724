"""The encoder contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from gen.base.errors import UserError
from gen.inputs.items import item_labels, prepare_items
from gen.inputs.processors import InputProcessor, processor_files
from gen.inputs.tokenizer import Tokenizer
from gen.models.memory import Memory


@dataclass(frozen=True)
class Prepared:
    """Items made ready for the model.

    Attributes:
        source: what `Encoder.forward` takes: one tensor with B rows per input name.
        prompts: the text with which the output of each item begins: the prompt of free text, "" for other inputs.
    """

    source: dict[str, Tensor]
    prompts: list[str]


class Encoder(nn.Module):
    """Turns inputs into a `Memory`. Subclasses set ``memory_size`` and define `forward`, and set ``processors`` or
    define `prepare`.

    Attributes:
        memory_size: M, the size of the vectors in the memory.
        processors: one input processor per input name. With them `prepare` and `labels` need not be defined, and
            the encoder can be exported: a runtime without torch prepares items with the same code.
        name: the name under which `register` knows the class.
        config: plain values from which `from_config` makes the same encoder; `build_encoder` sets it if the class
            does not.
    """

    memory_size: int = 0
    processors: Mapping[str, InputProcessor] = MappingProxyType({})
    name: str = ""
    config: dict[str, Any]

    def prepare(self, items: Sequence[Any]) -> Prepared:
        """B items → what `forward` takes, on the encoder's device. Includes all preprocessing of the input.

        Args:
            items: prompts, sentences, pictures, or mappings from input names to those; see
                `gen.inputs.items.prepare_items`.

        Raises:
            UserError: an item lacks an input name or has an unknown one, or cannot be read.
        """
        if not self.processors:
            raise NotImplementedError(f"{type(self).__name__} has neither `processors` nor a `prepare` of its own")
        device = next(chain(self.parameters(), self.buffers()), torch.empty(0)).device
        source, prompts = prepare_items(self.processors, items)
        return Prepared({name: torch.from_numpy(array).to(device) for name, array in source.items()}, prompts)

    def forward(self, source: dict[str, Tensor]) -> Memory:
        """A prepared source, tensors with B rows → the `Memory` of B inputs."""
        raise NotImplementedError

    # The rest has defaults that fit most encoders.

    def adopt(self, embedding: nn.Embedding, scale: float) -> None:
        """Receives the decoder's embeddings and the factor they are multiplied by, for an encoder that shares
        them. `Model` calls it once."""

    def give_tokens(self, tokenizer: Tokenizer) -> None:
        """From now on memories have `tokens`, for a decoder that copies and writes with this tokenizer. `Model`
        calls it once.

        Raises:
            UserError: the encoder reads no sentence, or its vocabulary has nothing in common with the decoder's.
        """
        raise UserError("--copy is for models that read a sentence")

    def slow_parameters(self) -> tuple[list[nn.Parameter], float]:
        """Pretrained weights that are trained, and their learning-rate factor."""
        return [], 1.0

    def prepare_for_export(self) -> None:
        """Disables shortcuts that depend on the device or on the batch size, before the encoder is traced."""

    def describe(self) -> str:
        """What the encoder is, in a few words."""
        return self.name or type(self).__name__

    def labels(self, item: Any) -> list[str]:
        """A label for each of the S memory positions of an item, for plots and alignments."""
        return item_labels(self.processors, item)

    def files(self) -> dict[str, bytes]:
        """The files that a model folder needs besides the weights: name → content."""
        return processor_files(self.processors)

    @classmethod
    def from_config(cls, config: dict[str, Any], read: Callable[[str], bytes]) -> Encoder:
        """The encoder of a saved model. ``read(name)`` returns the content of one of its `files`."""
        return cls(**config)
