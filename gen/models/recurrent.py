"""Recurrent layers that read a whole sequence in the fused kernel, or one step through a cell.

`nn.LSTM` on one step re-packs its weights at every call (eight times slower than a plain product at batch 1
on a CPU), so a single step outside training takes the cell path: one matrix product a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

LayerState = tuple[Tensor, ...]
"""(hidden,) or, for an LSTM, (hidden, cell); each (R, H)."""

StackState = tuple[LayerState, ...]


def variational_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout with one mask for a whole sequence (Gal and Ghahramani, 2016). ``x`` is (R, T, D)."""
    if not training or p == 0:
        return x
    mask = torch.empty(x.size(0), 1, x.size(2), dtype=x.dtype, device=x.device).bernoulli_(1 - p)
    return x * mask.div_(1 - p)


def _drop_connections(weight: Any, p: float) -> Tensor:
    """DropConnect on (gates · H, H) recurrent weights. A connection is dropped for all gates alike: a quarter
    of the random numbers, whose drawing would otherwise take as long as half of the layer."""
    H = weight.size(1)
    mask = torch.empty(H, H, dtype=weight.dtype, device=weight.device).bernoulli_(1 - p).div_(1 - p)
    return (weight.view(-1, H, H) * mask).view(-1, H)


def _rnn_cell(gates: Tensor, state: LayerState) -> LayerState:
    return (torch.tanh(gates),)


def _lstm_cell(gates: Tensor, state: LayerState) -> LayerState:
    i, f, _, o = torch.sigmoid(gates).chunk(4, -1)  # one call for all four: at batch 1 calls are what costs
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
"""name → (fused layer, one step from its gates, number of state vectors)."""


class RecurrentStack(nn.Module):
    """RNN (tanh), GRU or LSTM layers, one above the other.

    Args:
        input_size, hidden_size, num_layers: sizes; zero layers pass the input through.
        cell: "rnn", "gru" or "lstm".
        dropout: variational dropout on the input of every layer, 0 to 1.
        weight_dropout: share of the recurrent weights that is zero during one call in training: DropConnect
            on hidden-to-hidden, one mask a sequence, so the fused kernel still applies (Merity et al., 2018).
        residual: add a layer's input to its output where the sizes agree.
        layer_norm: normalise the input of every layer.

    Example:
        >>> stack = RecurrentStack(64, 128, num_layers=2, cell="gru")
        >>> outputs, state = stack(torch.rand(8, 20, 64), stack.zero_state(8))   # (8, 20, 128)
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
        self._step_weights: list[tuple[tuple[Any, ...] | None, Tensor, Tensor] | None] = [None] * num_layers

    def train(self, mode: bool = True) -> RecurrentStack:
        """Sets the mode. Forgets the joined weights with every change of it: fused optimizers change parameters
        without a new version."""
        if mode != self.training:
            self._step_weights = [None] * len(self.layers)
        super().train(mode)
        return self

    def fix(self) -> None:
        """Joins the weights of a step once and for all, for a stack that will not learn any more."""
        self._step_weights = [(None, *_join_weights(layer)) for layer in self.layers]  # type: ignore[arg-type]

    def zero_state(self, rows: int) -> StackState:
        """A state of zeros for ``rows`` rows, on the module's device."""
        like = next(self.parameters(), torch.empty(0))
        return tuple(
            tuple(like.new_zeros(rows, self.hidden_size) for _ in range(self.states_per_layer))
            for _ in self.layers
        )

    def forward(self, inputs: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        """Reads T positions from ``state`` on.

        Args:
            inputs: (R, T, input_size).
            state: a tuple of (R, H) tensors a layer.

        Returns:
            outputs (R, T, H) of the top layer, and the state after the last position.
        """
        one_step = inputs.size(1) == 1 and not self.training and not torch.is_grad_enabled()
        run: Callable[..., tuple[Tensor, LayerState]] = self._step if one_step else self._scan
        after: list[LayerState] = []
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = variational_dropout(norm(inputs), self.dropout, self.training)
            outputs, layer_state = run(i, layer, x, state[i])
            inputs = inputs + outputs if self.residual and inputs.shape == outputs.shape else outputs
            after.append(layer_state)
        return inputs, tuple(after)

    def _scan(self, i: int, layer: nn.RNNBase, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """T positions in the fused kernel."""
        if x.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16:
            # Autocast runs cuDNN's layers in float16 whatever it was asked for: too narrow without a scaler.
            with torch.autocast("cuda", enabled=False):
                return self._scan(i, layer, x.float(), tuple(s.float() for s in state))
        before = tuple(s.unsqueeze(0) for s in state)
        inputs = (x, before if len(before) > 1 else before[0])
        if self.training and self.weight_dropout:
            weights = {"weight_hh_l0": _drop_connections(layer.weight_hh_l0, self.weight_dropout)}
            outputs, after = functional_call(layer, weights, inputs)
        else:
            outputs, after = layer(*inputs)
        after = after if isinstance(after, tuple) else (after,)
        return outputs, tuple(s.squeeze(0) for s in after)

    def _step(self, i: int, layer: nn.RNNBase, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """One position: a product of [input, hidden] with the layer's weights, then the cell."""
        weight, bias = self._step_weight(i, layer)
        gates = F.linear(torch.cat([x.flatten(0, 1), state[0].to(x.dtype)], 1), weight, bias)
        after = self._cell(gates, state)
        return after[0].unsqueeze(1), after

    def _step_weight(self, i: int, layer: nn.RNNBase) -> tuple[Tensor, Tensor]:
        """The layer's weights as one matrix, in the dtype of the computation: made again only after the parameters
        have changed. (Autocast keeps what it casts of parameters, not of what is made from them.)"""
        kept = self._step_weights[i]
        if kept is not None and kept[0] is None:  # fixed
            return kept[1], kept[2]
        weights: Any = layer._flat_weights  # layer.parameters() would walk the module at every step
        device = weights[0].device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weights[0].dtype
        version = (dtype, *(v for w in weights for v in (w._version, w.data_ptr())))
        if kept is None or kept[0] != version:
            weight, bias = _join_weights(layer)
            kept = (version, weight.to(dtype), bias.to(dtype))
            self._step_weights[i] = kept
        return kept[1], kept[2]


def _join_weights(layer: nn.RNNBase) -> tuple[Tensor, Tensor]:
    """[W_ih, W_hh] side by side, so that a step is one product; biases added up."""
    w_ih, w_hh, b_ih, b_hh = (p.detach() for p in layer.parameters())
    if not isinstance(layer, nn.GRU):
        return torch.cat([w_ih, w_hh], 1), b_ih + b_hh
    # The reset gate scales the hidden part of the new state alone (cuDNN's GRU), so the last third of the
    # rows stays apart: once for the input with zeros for the hidden state, once the other way round.
    H = layer.hidden_size
    weight = torch.cat([torch.cat([w_ih, torch.zeros_like(w_ih[:H])]), torch.cat([w_hh, w_hh[2 * H :]])], 1)
    weight[2 * H : 3 * H, layer.input_size :] = 0
    bias = torch.cat([b_ih[: 2 * H] + b_hh[: 2 * H], b_ih[2 * H :], b_hh[2 * H :]])
    return weight, bias
