"""Recurrent layers on top of each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gen.models.cells import FusedCell, LayerState, find_cell

StackState = tuple[LayerState, ...]
"""The states of a stack, one per layer."""


def variational_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout with one mask for all positions of a row (Gal and Ghahramani, 2016).

    Args:
        x: (R, T, D) float.
        p: probability of a zero, 0 to 1.
        training: False returns ``x`` as it is.
    """
    if not training or p == 0:
        return x
    mask = torch.empty(x.size(0), 1, x.size(2), dtype=x.dtype, device=x.device).bernoulli_(1 - p)
    return x * mask.div_(1 - p)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Eval mode for computing gradients, which cuDNN's recurrent layers do in training mode only."""
    before = model.training
    model.eval()
    fused = {cell: cell.weight_dropout for cell in model.modules() if isinstance(cell, FusedCell)}
    for cell in fused:
        cell.train()
        cell.weight_dropout = 0.0
    try:
        yield
    finally:
        for cell, share in fused.items():
            cell.weight_dropout = share
        model.train(before)


class RecurrentStack(nn.Module):
    """Layers of one cell on top of each other.

    Args:
        input_size, hidden_size, num_layers: sizes; zero layers pass the input through.
        cell: name of a cell; see `gen.models.cells`.
        dropout: variational dropout on the input of every layer, 0 to 1.
        weight_dropout: DropConnect on weights from state to state in training, with one mask per call, so that
            fused kernels still apply (Merity et al., 2018); share of zeros, 0 to 1.
        residual: add a layer's input to its output where the sizes agree.
        layer_norm: normalise the input of every layer.

    Attributes:
        output_size: H, or ``input_size`` with zero layers.
        states_per_layer: state vectors per layer; see `Cell.num_states`.

    Example:
        >>> import torch
        >>> from gen.models.recurrent import RecurrentStack
        >>> stack = RecurrentStack(64, 128, num_layers=2, cell="gru")
        >>> outputs, state = stack(torch.rand(8, 20, 64), stack.zero_state(8))
        >>> outputs.shape, len(state), state[0][0].shape
        (torch.Size([8, 20, 128]), 2, torch.Size([8, 128]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        cell: str = "lstm",
        *,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        residual: bool = False,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        made = find_cell(cell)
        self.states_per_layer = made.num_states
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.residual = residual
        sizes = [input_size] + [hidden_size] * num_layers
        layers = [made(size, hidden_size) for size in sizes[:-1]]
        for layer in layers:
            layer.weight_dropout = weight_dropout
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.LayerNorm(size) if layer_norm else nn.Identity() for size in sizes[:-1])
        self.output_size = sizes[-1]

    def zero_state(self, rows: int) -> StackState:
        """A state of zeros for ``rows`` rows, on the module's device."""
        like = next(self.parameters(), torch.empty(0))
        return tuple(
            tuple(like.new_zeros(rows, self.hidden_size) for _ in range(self.states_per_layer))
            for _ in self.layers
        )

    def forward(self, inputs: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        """Reads T positions, starting from ``state``.

        Args:
            inputs: (R, T, input_size).
            state: per layer, a tuple of (R, H) tensors; see `zero_state`.

        Returns:
            outputs of the top layer (R, T, output_size), and the state after the last position.
        """
        one_step = inputs.size(1) == 1 and not self.training and not torch.is_grad_enabled()
        after: list[LayerState] = []
        layer: Any
        for layer, norm, before in zip(self.layers, self.norms, state, strict=True):
            x = variational_dropout(norm(inputs), self.dropout, self.training)
            if one_step:
                outputs, layer_state = layer.step(x.flatten(0, 1), before)
                outputs = outputs.unsqueeze(1)
            else:
                outputs, layer_state = layer.scan(x, before)
            inputs = inputs + outputs if self.residual and inputs.shape == outputs.shape else outputs
            after.append(layer_state)
        return inputs, tuple(after)
