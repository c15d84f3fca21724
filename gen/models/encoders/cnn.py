"""A convolutional encoder: looks at a picture, gives a vector for every place in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gen.inputs.pictures import Preprocessing
from gen.inputs.processors import PictureReader
from gen.models.encoders.backbones import LITE, grid, load_backbone, stages
from gen.models.encoders.base import Encoder
from gen.models.memory import Memory
from gen.models.recurrent import variational_dropout


class CNNEncoder(Encoder):
    """A pretrained CNN and a projection of what it sees.

    The memory holds a vector a place of the last feature map, in reading order, made of the features there and
    of where it is; the summary is their mean.

    The trunk always runs in eval mode: its batch norms keep the statistics they were trained with.

    Args:
        backbone: see `load_backbone`.
        weights: "default", "none" or a path.
        memory_size: M, what a place's features are projected to.
        dropout: variational dropout on the projected features.
        finetune: how many of the trunk's last stages learn with the rest; 0 freezes it.
        finetune_rate: how fast they do, as a share of the learning rate.
        preprocessing: of pictures, as plain values; None: the backbone's own.

    Example:
        >>> encoder = CNNEncoder()
        >>> encoder(encoder.prepare(["photo.jpg"]).source).values.shape   # 7 × 7 places
        torch.Size([1, 49, 512])
    """

    finetune: int
    finetune_rate: float

    AT_ONCE = 32  # pictures in the frozen trunk

    _plain = False  # all pictures at once, for tracing

    def __init__(
        self,
        backbone: str = LITE,
        weights: str = "default",
        *,
        memory_size: int = 512,
        dropout: float = 0.0,
        finetune: int = 0,
        finetune_rate: float = 0.05,
        preprocessing: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        asked = None if preprocessing is None else Preprocessing.from_dict(preprocessing)
        made = load_backbone(backbone, weights, asked)
        self.trunk: nn.Module = made.trunk
        self.preprocessing = made.preprocessing
        self.reader: PictureReader = PictureReader(made.preprocessing, made.places)
        self.memory_size = memory_size
        self.dropout = dropout
        self.project = nn.Linear(made.features, memory_size)
        self.where = nn.Parameter(_positions(made.places, memory_size))
        self.norm = nn.LayerNorm(memory_size)
        self.config = {
            "backbone": backbone,
            "weights": "none",  # a saved model brings its own
            "memory_size": memory_size,
            "dropout": dropout,
            "preprocessing": made.preprocessing.to_dict(),
        }
        self.unfreeze(finetune, finetune_rate)

    def unfreeze(self, count: int, rate: float = 0.05) -> None:
        """Lets the trunk's last stages learn, at a share of the learning rate, and freezes the others."""
        self.finetune, self.finetune_rate = count, rate
        self.config |= {"finetune": count, "finetune_rate": rate}
        self.trunk.requires_grad_(False)
        for stage in self._learning():
            stage.requires_grad_(True)

    def _learning(self) -> list[nn.Module]:
        return stages(self.trunk)[-self.finetune :] if self.finetune else []

    def slow_parameters(self) -> tuple[list[nn.Parameter], float]:
        return [p for stage in self._learning() for p in stage.parameters()], self.finetune_rate

    def prepare_for_export(self) -> None:
        self._plain = True

    def train(self, mode: bool = True) -> CNNEncoder:
        super().train(mode)
        self.trunk.eval()
        return self

    def describe(self) -> str:
        learns = f"last {self.finetune} stages learn" if self.finetune else "frozen"
        return f"{self.config['backbone']} ({learns}) → {self.memory_size}"

    def key(self) -> str:
        """What features depend on beside the picture: the trunk's weights and the preprocessing."""
        digest = hashlib.blake2b(repr((self.config["backbone"], self.preprocessing)).encode(), digest_size=12)
        for name, weights in self.trunk.state_dict().items():
            digest.update(name.encode())
            digest.update(weights.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def look(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size) uint8 pictures → (B, S, C) features, in the precision that the caller has chosen."""
        if (self.finetune and self.training) or self._plain:
            return self._see(pixels)
        with torch.no_grad():
            # In parts: the first maps of a picture are a hundred times as large as what is left of it.
            return torch.cat([self._see(part) for part in pixels.split(self.AT_ONCE)])

    def _see(self, pixels: Tensor) -> Tensor:
        x = self.preprocessing.normalise(pixels).to(memory_format=torch.channels_last)
        return grid(self.trunk(x))

    def forward(self, source: Tensor) -> Memory:
        """Looks at pictures.

        Args:
            source: (B, 3, size, size) uint8 pictures, or (B, S, C) float features that `look` gave for them.

        Returns:
            The memory: values (B, S, M), all of them real; summary (B, M).
        """
        features = self.look(source) if source.dtype == torch.uint8 else source
        features = features.to(self.project.weight.dtype)
        values = self.norm(self.project(features) + self.where)
        values = variational_dropout(values, self.dropout, self.training)
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Memory(values, mask, values.mean(1))

    @classmethod
    def from_config(cls, config: dict[str, Any], read: Callable[[str], bytes]) -> CNNEncoder:
        return cls(**{**config, "weights": "none"})  # whatever the folder says: it names no files elsewhere


def _positions(places: int, size: int) -> Tensor:
    """First vectors for the places of a square grid: (S, M), linear in row and column.

    From zeros or from noise a decoder has to learn place by place what "above" and "left" mean; from these it
    learned it in a minute of drawn pictures, where without them it still guessed.
    """
    side = round(places**0.5)
    line = torch.linspace(-1, 1, side)
    at = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).view(-1, 2)  # (S, 2)
    return 0.5 * at @ torch.randn(2, size)
