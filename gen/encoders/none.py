"""No encoder is an encoder: its memory is empty, and the decoder writes free text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gen.encoders.base import Encoder, Prepared
from gen.memory import Memory


class NoneEncoder(Encoder):
    """An empty memory (S = 0, M = 0) an input. Its items are prompts; its source is their number.

    Example:
        >>> NoneEncoder()(3).values.shape
        torch.Size([3, 0, 0])
    """

    memory_size = 0

    def __init__(self) -> None:
        super().__init__()
        self._where: torch.Tensor
        self.register_buffer("_where", torch.empty(0), persistent=False)  # knows the device

    def prepare(self, items: Sequence[Any]) -> Prepared:
        return Prepared(source=len(items), prompts=[str(item) for item in items])

    def forward(self, source: int) -> Memory:
        return Memory.empty(source, self._where.device)
