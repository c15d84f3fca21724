"""The simple simpler recurrent unit."""

from __future__ import annotations

import torch
from torch import Tensor

from gen.models.cells.gated import GatedCell


class SSRU(GatedCell):
    """cₜ = f · cₜ₋₁ + (1 − f) · Wxₜ with f = σ(Vxₜ + b), and ReLU at the output (Kim et al., 2019, "From research
    to production and back: ludicrously fast neural machine translation")."""

    def gate(self, gate: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
        keep = torch.sigmoid(gate)
        return keep, (1 - keep) * candidate

    def read(self, states: Tensor) -> Tensor:
        return torch.relu(states)
