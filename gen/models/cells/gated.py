"""Units that train in parallel over a sequence: all products at once, then a loop of elementwise operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gen.models.cells.base import Cell, LayerState


class GatedCell(Cell):
    """A unit whose gate depends on the input alone, and a feed-forward part; both are residual, after a norm.

    Its one state vector is kept in float32 at least, whatever the precision of the products.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        H = hidden_size
        self.project = nn.Linear(input_size, H) if input_size != H else nn.Identity()
        self.norm = nn.LayerNorm(H)
        self.gates = nn.Linear(H, 2 * H)
        self.feed_forward = nn.Sequential(nn.LayerNorm(H), nn.Linear(H, 2 * H), nn.ReLU(), nn.Linear(2 * H, H))

    def gate(self, gate: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
        """What a state keeps, and what is added to it, from two products of the input; all (R, T, H)."""
        raise NotImplementedError

    def read(self, states: Tensor) -> Tensor:
        """The unit's outputs from its states, (R, T, H)."""
        return states

    def scan(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        x = self.project(x)
        gates = self.gates(self.norm(x))
        gates = gates.to(torch.promote_types(gates.dtype, torch.float32))
        keep, new = self.gate(*gates.chunk(2, -1))
        states, last = linear_scan(keep, new, state[0].to(new.dtype))
        x = x + self.read(states)
        return x + self.feed_forward(x), (last,)


def linear_scan(keep: Tensor, new: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """hₜ = keepₜ · hₜ₋₁ + newₜ, elementwise.

    Nothing is divided and no logarithm taken, so it is as exact as a step at a time. It can be exported.

    Args:
        keep, new: (R, T, H), T ≥ 1.
        before: h₀, (R, H), in the dtype of ``new``.

    Returns:
        All states (R, T, H), and the last one (R, H).

    Example:
        >>> keep, new = torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)
        >>> linear_scan(keep, new, torch.zeros(1, 1))[0].flatten().tolist()
        [1.0, 1.5, 1.75]
    """
    if new.size(1) == 1:
        last = torch.addcmul(new.flatten(0, 1), keep.flatten(0, 1), before)
        return last.unsqueeze(1), last
    exporting = getattr(torch.compiler, "is_exporting", bool)()  # older versions cannot export
    states = (_by_doubling if exporting else _Scan.apply)(keep, new, before)
    return states, states[:, -1]


class _Scan(torch.autograd.Function):
    """A loop over T that autograd does not record: two small kernels per position, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, keep: Tensor, new: Tensor, before: Tensor) -> Tensor:
        states = torch.empty_like(new, memory_format=torch.contiguous_format)
        state = before
        for k, n, out in zip(keep.unbind(1), new.unbind(1), states.unbind(1), strict=True):
            state = torch.addcmul(n, k, state, out=out)
        ctx.save_for_backward(keep, states, before)
        return states

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        keep, states, before = ctx.saved_tensors
        total = torch.empty_like(grad, memory_format=torch.contiguous_format)
        total[:, -1] = grad[:, -1]
        later = total[:, -1]
        for t in range(grad.size(1) - 2, -1, -1):
            later = torch.addcmul(grad[:, t], keep[:, t + 1], later, out=total[:, t])
        earlier = torch.cat([before.unsqueeze(1), states[:, :-1]], 1)
        return total * earlier, total, keep[:, 0] * total[:, 0]


_DOUBLINGS = 16
"""A state of an exported encoder depends on 65,536 positions before it."""


def _by_doubling(keep: Tensor, new: Tensor, before: Tensor) -> Tensor:
    """The same without a loop, for graphs of any T: after n rounds a state has read 2ⁿ positions (Hillis and
    Steele, 1986)."""
    first = new[:, :1] + keep[:, :1] * before.unsqueeze(1)
    new = torch.cat([first, new[:, 1:]], 1)
    positions = torch.arange(new.size(1), device=new.device)
    for n in range(_DOUBLINGS):
        earlier = positions - (1 << n)
        keep = keep * (earlier >= 0)[:, None]
        earlier = earlier.clamp(min=0)
        new = new + keep * new.index_select(1, earlier)
        keep = keep * keep.index_select(1, earlier)
    return new
