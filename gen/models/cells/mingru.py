"""The minimal gated recurrent unit that trains in parallel."""

from __future__ import annotations

import torch
from torch import Tensor

from gen.models.cells.gated import GatedCell


class MinGRU(GatedCell):
    """hₜ = (1 − z) · hₜ₋₁ + z · g(Wxₜ) with z = σ(Vxₜ + b) and g(x) = x + ½ where x ≥ 0, else σ(x) (Feng et al.,
    2024, "Were RNNs all we needed?"). Without their convolution in front."""

    def gate(self, gate: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
        positive = torch.where(candidate >= 0, candidate + 0.5, torch.sigmoid(candidate))
        update = torch.sigmoid(gate)
        return 1 - update, update * positive
