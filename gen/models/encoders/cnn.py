"""A convolutional encoder: one vector per grid cell of a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gen.inputs.pictures import Preprocessing
from gen.inputs.processors import PictureProcessor
from gen.models.encoders.backbones import LITE, grid, load_backbone, stages
from gen.models.encoders.base import Encoder
from gen.models.memory import Memory
from gen.models.recurrent import variational_dropout


class CNNEncoder(Encoder):
    """A pretrained CNN and a projection of its features.

    The memory holds one vector per cell of the last feature map, in reading order: the projected features plus a
    learned position. The summary is the mean of these vectors.

    The trunk always runs in eval mode: its batch norms keep their pretrained statistics.

    Args:
        backbone: see `load_backbone`.
        weights: "default", "none" or a path.
        memory_size: M, the size to which a cell's features are projected.
        dropout: variational dropout on the projected features.
        finetune: how many of the trunk's last stages are trained; 0 freezes the trunk.
        finetune_rate: learning-rate factor of these stages.
        image_size: pixels per side of its pictures; None: as many as the backbone was trained with.
        preprocessing: of pictures, as plain values; None: that of the backbone. A saved model has it.
        last_map: see `Backbone.last_map`; a saved model has it, so that loading needs no example run.

    Example:
        >>> encoder = CNNEncoder("shufflenet_v2_x0_5", weights="none")
        >>> pictures = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
        >>> encoder({"picture": pictures}).values.shape  # 7 × 7 cells
        torch.Size([1, 49, 512])
    """

    finetune: int
    finetune_rate: float

    AT_ONCE = 32  # pictures per pass of the frozen trunk

    _plain = False  # one pass for all pictures, for tracing

    def __init__(
        self,
        backbone: str = LITE,
        weights: str = "default",
        *,
        memory_size: int = 512,
        dropout: float = 0.0,
        finetune: int = 0,
        finetune_rate: float = 0.05,
        image_size: int | None = None,
        preprocessing: dict[str, Any] | None = None,
        last_map: Sequence[Any] | None = None,
    ) -> None:
        super().__init__()
        asked = None if preprocessing is None else Preprocessing.from_dict(preprocessing)
        made = load_backbone(backbone, weights, asked, image_size=image_size, last_map=last_map)
        self.trunk: nn.Module = made.trunk
        self.preprocessing = made.preprocessing
        self.processors = {"picture": PictureProcessor(made.preprocessing, made.num_cells)}
        self.memory_size = memory_size
        self.dropout = dropout
        self.project = nn.Linear(made.features, memory_size)
        self.where = nn.Parameter(_positions(made.num_cells, memory_size))
        self.norm = nn.LayerNorm(memory_size)
        self.config = {
            "backbone": backbone,
            "weights": "none",  # a saved model has them in its own file
            "memory_size": memory_size,
            "dropout": dropout,
            "preprocessing": made.preprocessing.to_dict(),
            "last_map": made.last_map,
        }
        self.unfreeze(finetune, finetune_rate)

    @classmethod
    def of(cls, sizes: Any, memory_size: int, **own: Any) -> CNNEncoder:
        """From the options of a task, and what else is its own."""
        shared = {"dropout": sizes.dropout, "image_size": sizes.image_size}
        return cls(sizes.backbone, sizes.weights, memory_size=memory_size, **shared, **own)

    def unfreeze(self, count: int, rate: float = 0.05) -> None:
        """Makes the trunk's last stages trainable, with a learning-rate factor, and freezes the others."""
        self.finetune, self.finetune_rate = count, rate
        self.config |= {"finetune": count, "finetune_rate": rate}
        self.trunk.requires_grad_(False)
        for stage in self._trainable():
            stage.requires_grad_(True)

    def _trainable(self) -> list[nn.Module]:
        return stages(self.trunk)[-self.finetune :] if self.finetune else []

    def slow_parameters(self) -> tuple[list[nn.Parameter], float]:
        return [p for stage in self._trainable() for p in stage.parameters()], self.finetune_rate

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
        """A hash of what features depend on apart from the picture: the trunk's weights and the preprocessing."""
        digest = hashlib.blake2b(repr((self.config["backbone"], self.preprocessing)).encode(), digest_size=12)
        for name, weights in self.trunk.state_dict().items():
            digest.update(name.encode())
            digest.update(weights.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size) uint8 pictures → (B, S, C) features, in the precision chosen by the caller."""
        if (self.finetune and self.training) or self._plain:
            return self._see(pixels)
        with torch.no_grad():
            # In parts: a picture's first feature maps are a hundred times as large as its last one.
            return torch.cat([self._see(part) for part in pixels.split(self.AT_ONCE)])

    def _see(self, pixels: Tensor) -> Tensor:
        x = self.preprocessing.normalise(pixels).to(memory_format=torch.channels_last)
        return grid(self.trunk(x))

    def forward(self, source: dict[str, Tensor]) -> Memory:
        """Encodes pictures.

        Args:
            source: "picture": (B, 3, size, size) uint8 pictures, or (B, S, C) float, their `features`.

        Returns:
            The memory: values (B, S, M), all of them real; summary (B, M).
        """
        picture = source["picture"]
        features = self.features(picture) if picture.dtype == torch.uint8 else picture
        features = features.to(self.project.weight.dtype)
        values = self.norm(self.project(features) + self.where)
        values = variational_dropout(values, self.dropout, self.training)
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Memory(values, mask, values.mean(1))

    @classmethod
    def from_config(cls, config: dict[str, Any], read: Callable[[str], bytes]) -> CNNEncoder:
        return cls(**{**config, "weights": "none"})  # a saved model may not name files elsewhere


def _positions(num_cells: int, size: int) -> Tensor:
    """First values of the position vectors of a square grid: (S, M), linear in row and column.

    Starting from zeros or noise, a decoder has to learn "above" and "left" for each cell separately. On drawn
    pictures it learned them from these values in a minute; without them it was still guessing by then.
    """
    side = round(num_cells**0.5)
    line = torch.linspace(-1, 1, side)
    at = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).view(-1, 2)  # (S, 2)
    return 0.5 * at @ torch.randn(2, size)
