"""Recurrent layers that read a whole sequence in the fused kernel, or a single step through a cell.

`nn.LSTM` packs its weights again at every call. For one step at batch 1 on a CPU that is eight times slower than
a plain matrix product, so a single step outside training takes the cell path: one product per layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from gen.models.step_weights import StepWeights

LayerState = tuple[Tensor, ...]
"""(hidden,) or, for an LSTM, (hidden, cell); each (R, H)."""

StackState = tuple[LayerState, ...]
"""The states of a stack, one per layer."""

Scan = Callable[[Tensor, LayerState], tuple[Tensor, LayerState]]
"""One layer over T positions: (R, T, D) inputs and the state before → (R, T, H) outputs and the state after."""


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


def _drop_connections(weight: Any, p: float) -> Tensor:
    """DropConnect on (gates · H, H) recurrent weights. All gates share one (H, H) mask: an LSTM draws a quarter of
    the random numbers, which would otherwise take half as long as the layer itself."""
    H = weight.size(1)
    mask = torch.empty(H, H, dtype=weight.dtype, device=weight.device).bernoulli_(1 - p).div_(1 - p)
    return (weight.view(-1, H, H) * mask).view(-1, H)


def _rnn_cell(gates: Tensor, state: LayerState) -> LayerState:
    return (torch.tanh(gates),)


def _lstm_cell(gates: Tensor, state: LayerState) -> LayerState:
    i, f, _, o = torch.sigmoid(gates).chunk(4, -1)  # one call for all four: at batch 1 each call costs
    H = i.size(-1)
    cell = torch.addcmul(f * state[1], i, torch.tanh(gates[:, 2 * H : 3 * H]))
    return o * torch.tanh(cell), cell


def _gru_cell(gates: Tensor, state: LayerState) -> LayerState:
    reset, update, new_input, new_hidden = gates.chunk(4, -1)
    new = torch.tanh(new_input + torch.sigmoid(reset) * new_hidden)
    return (new + torch.sigmoid(update) * (state[0] - new),)


CELLS: dict[str, tuple[Callable[..., nn.RNNBase], Callable[[Tensor, LayerState], LayerState], int]] = {
    "rnn": (nn.RNN, _rnn_cell, 1),
    "gru": (nn.GRU, _gru_cell, 1),
    "lstm": (nn.LSTM, _lstm_cell, 2),
}
"""name → (fused layer, function from gates and state to the next state, state vectors per layer)."""


class RecurrentStack(nn.Module):
    """RNN (tanh), GRU or LSTM layers on top of each other.

    Args:
        input_size, hidden_size, num_layers: sizes; zero layers pass the input through.
        cell: "rnn", "gru" or "lstm".
        dropout: variational dropout on the input of every layer, 0 to 1.
        weight_dropout: DropConnect on the hidden-to-hidden weights in training, with one mask per call, so that
            the fused kernel still applies (Merity et al., 2018); share of zeros, 0 to 1.
        residual: add a layer's input to its output where the sizes agree.
        layer_norm: normalise the input of every layer.

    Attributes:
        output_size: H, or ``input_size`` with zero layers.
        states_per_layer: state vectors per layer: 2 for an LSTM, else 1.

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
        layer, self._cell, self.states_per_layer = CELLS[cell]
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.weight_dropout = weight_dropout
        self.residual = residual
        sizes = [input_size] + [hidden_size] * num_layers
        self.layers = nn.ModuleList(layer(size, hidden_size, batch_first=True) for size in sizes[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(size) if layer_norm else nn.Identity() for size in sizes[:-1])
        self.output_size = sizes[-1]
        self._step_weights = [StepWeights() for _ in self.layers]
        self._scans: list[Scan] = []

    def _apply(self, fn: Any, recurse: bool = True) -> RecurrentStack:
        """`.to()` and its like: the joined weights must not keep memory on the device that the module leaves."""
        for weights in self._step_weights:
            weights.clear()
        super()._apply(fn, recurse)
        return self

    def prepare_for_export(self, build_scan: Callable[[nn.RNNBase], Scan]) -> None:
        """Makes the stack traceable; it must not learn afterwards.

        Args:
            build_scan: gives, for each layer, what runs it over a sequence in place of torch's fused kernel.
                Single steps become products with constant weights.
        """
        layers: Any = self.layers
        self._scans = [build_scan(layer) for layer in layers]
        for layer, weights in zip(layers, self._step_weights, strict=True):
            weights.freeze(layer)

    def train(self, mode: bool = True) -> RecurrentStack:
        if mode != self.training:  # fused optimizers change parameters without a new version
            for weights in self._step_weights:
                weights.clear()
        super().train(mode)
        return self

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
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = variational_dropout(norm(inputs), self.dropout, self.training)
            if one_step:
                outputs, layer_state = self._step(layer, self._step_weights[i], x, state[i])
            elif self._scans:
                outputs, layer_state = self._scans[i](x, state[i])
            else:
                outputs, layer_state = self._scan(layer, x, state[i])
            inputs = inputs + outputs if self.residual and inputs.shape == outputs.shape else outputs
            after.append(layer_state)
        return inputs, tuple(after)

    def _scan(self, layer: nn.RNNBase, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """T positions in the fused kernel."""
        if x.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16:
            # Autocast runs cuDNN's layers in float16 even when bfloat16 is asked for: gradients would underflow.
            with torch.autocast("cuda", enabled=False):
                return self._scan(layer, x.float(), tuple(s.float() for s in state))
        before = tuple(s.unsqueeze(0) for s in state)
        inputs = (x, before if len(before) > 1 else before[0])
        if self.training and self.weight_dropout:
            weights = {"weight_hh_l0": _drop_connections(layer.weight_hh_l0, self.weight_dropout)}
            outputs, after = functional_call(layer, weights, inputs)
        else:
            outputs, after = layer(*inputs)
        after = after if isinstance(after, tuple) else (after,)
        return outputs, tuple(s.squeeze(0) for s in after)

    def _step(
        self, layer: nn.RNNBase, weights: StepWeights, x: Tensor, state: LayerState
    ) -> tuple[Tensor, LayerState]:
        """One position: a product of [input, hidden] with the layer's weights, then the cell."""
        weight, bias = weights.get(layer)
        gates = F.linear(torch.cat([x.flatten(0, 1), state[0].to(x.dtype)], 1), weight, bias)
        after = self._cell(gates, state)
        return after[0].unsqueeze(1), after
