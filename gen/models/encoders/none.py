"""No encoder is an encoder: its memory is empty, and the decoder writes free text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gen.inputs.processors import PromptReader
from gen.models.encoders.base import Encoder, Prepared
from gen.models.memory import Memory


class NoneEncoder(Encoder):
    """An empty memory (S = 0, M = 0) an input. Its items are prompts; its source is their number.

    Example:
        >>> NoneEncoder()(3).values.shape
        torch.Size([3, 0, 0])
    """

    memory_size = 0

    def __init__(self) -> None:
        super().__init__()
        self.reader = PromptReader()
        self._where: Tensor
        self.register_buffer("_where", torch.empty(0), persistent=False)  # knows the device

    def prepare(self, items: Sequence[Any]) -> Prepared:
        return Prepared(source=len(items), prompts=self.reader.prompts(items))

    def forward(self, source: int | Tensor) -> Memory:
        """The memory of a number of rows, or of as many as a tensor has."""
        return Memory.empty(source if isinstance(source, int) else source.size(0), self._where.device)
