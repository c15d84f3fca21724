"""An encoder of labels: one learned vector per label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gen.inputs.labels import LabelProcessor, LabelTokenizer
from gen.inputs.processors import InputProcessor, PromptProcessor
from gen.models.encoders.base import Encoder
from gen.models.memory import Memory


class LabelEncoder(Encoder):
    """Labels of one or more kinds, such as a topic and an author → one vector each.

    Any label may be missing: "no label" has a vector of its own, which is trained if training leaves labels out.

    Args:
        tokenizers: the labels of each kind, by the name of the input.
        memory_size: M, the size of a vector.
        prompt: whether an item may also have the beginning of the output, under the name "prompt".

    Example:
        >>> encoder = LabelEncoder({"topic": LabelTokenizer(["news", "sports"])}, 8)
        >>> encoder(encoder.prepare([{"topic": "news"}, "The weather "]).source).values.shape
        torch.Size([2, 1, 8])
    """

    def __init__(
        self, tokenizers: Mapping[str, LabelTokenizer], memory_size: int = 64, *, prompt: bool = True
    ) -> None:
        super().__init__()
        self.memory_size = memory_size
        self.names = list(tokenizers)
        prompts: dict[str, InputProcessor] = {"prompt": PromptProcessor()} if prompt else {}
        self.processors = prompts | {name: LabelProcessor(t) for name, t in tokenizers.items()}
        self.embeddings = nn.ModuleList(nn.Embedding(len(t), memory_size) for t in tokenizers.values())
        self.config = {"names": self.names, "memory_size": memory_size, "prompt": prompt}

    def forward(self, source: dict[str, Tensor]) -> Memory:
        """Looks up the labels.

        Args:
            source: by name, (B, 1) int64 ids, 0 for "no label"; a name that is missing is "no label" for all rows.

        Returns:
            The memory: values (B, K, M) for K kinds of labels, summary (B, M), their mean.
        """
        rows = next(iter(source.values()))
        none = torch.zeros(rows.size(0), 1, dtype=torch.int64, device=rows.device)
        each = [table(source.get(n, none)) for n, table in zip(self.names, self.embeddings, strict=True)]
        values = torch.cat(each, 1)
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Memory(values, mask, values.mean(1))

    def describe(self) -> str:
        return f"labels of {', '.join(self.names)} → {self.memory_size}"

    @classmethod
    def from_config(cls, config: dict[str, Any], read: Callable[[str], bytes]) -> LabelEncoder:
        names, several = config["names"], len(config["names"]) + config["prompt"] > 1
        files = (f"{name}-tokenizer.bin" if several else "tokenizer.bin" for name in names)
        tokenizers = {n: LabelTokenizer.from_bytes(read(file)) for n, file in zip(names, files, strict=True)}
        return cls(tokenizers, config["memory_size"], prompt=config["prompt"])
