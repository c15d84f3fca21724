"""The encoder of models that write free text: an empty memory."""

from __future__ import annotations

import torch
from torch import Tensor

from gen.inputs.processors import PromptProcessor
from gen.models.encoders.base import Encoder
from gen.models.memory import Memory


class NoneEncoder(Encoder):
    """An empty memory (S = 0, M = 0) for every input. An item is the prompt with which the output begins.

    Example:
        >>> NoneEncoder()({"prompt": torch.zeros(3)}).values.shape
        torch.Size([3, 0, 0])
    """

    memory_size = 0

    def __init__(self) -> None:
        super().__init__()
        self.processors = {"prompt": PromptProcessor()}
        self.register_buffer("_device", torch.empty(0), persistent=False)  # without weights, this knows the device

    def forward(self, source: dict[str, Tensor]) -> Memory:
        """An empty memory for as many inputs as ``source["prompt"]`` has rows; nothing else of it is read."""
        rows = source["prompt"]
        return Memory.empty(rows.size(0), rows.device)
