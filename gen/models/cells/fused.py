"""RNN, GRU and LSTM: a whole sequence in torch's fused kernel, a single step as one product.

`nn.LSTM` packs its weights again at every call. For one step at batch 1 on a CPU that is eight times slower than
a plain matrix product, so a step outside training takes a path of its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from gen.models.cells.base import Cell, LayerState
from gen.models.cells.step_weights import StepWeights


def drop_connections(weight: Any, p: float) -> Tensor:
    """DropConnect on (gates · H, H) recurrent weights. All gates share one (H, H) mask: an LSTM draws a quarter of
    the random numbers, which would otherwise take half as long as the layer itself."""
    H = weight.size(1)
    mask = torch.empty(H, H, dtype=weight.dtype, device=weight.device).bernoulli_(1 - p).div_(1 - p)
    return (weight.view(-1, H, H) * mask).view(-1, H)


class FusedCell(Cell):
    """What torch's recurrent layers have in common; a subclass also inherits from one of them.

    Attributes:
        onnx_gates: ONNX's order of the gates, as indices into torch's.
    """

    recurrent_weights = True
    onnx_gates: tuple[int, ...] = (0,)
    weight_hh_l0: Tensor
    input_size: int
    hidden_size: int

    def __init__(self, input_size: int, hidden_size: int) -> None:
        layer: Any = super()
        layer.__init__(input_size, hidden_size, batch_first=True)
        self._step_weights = StepWeights()
        self._onnx_weights: list[Tensor] = []

    def advance(self, gates: Tensor, state: LayerState) -> LayerState:
        """The state after a step from its gates, as `joined` weights give them; the output is the first vector."""
        raise NotImplementedError

    def joined(self) -> tuple[Tensor, Tensor]:
        """[W_ih, W_hh] in one matrix, (gates · H, D + H), and the sum of the biases."""
        w_ih, w_hh, b_ih, b_hh = (p.detach() for p in self.parameters())
        return torch.cat([w_ih, w_hh], 1), b_ih + b_hh

    def scan(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """All positions through torch's fused kernels; shapes as in `Cell.scan`."""
        if self._onnx_weights:
            return self._traced(x, state)
        if x.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16:
            # Autocast runs cuDNN's layers in float16 even when bfloat16 is asked for: gradients would underflow.
            with torch.autocast("cuda", enabled=False):
                return self.scan(x.float(), tuple(s.float() for s in state))
        before = tuple(s.contiguous().unsqueeze(0) for s in state)  # cuDNN takes no others
        inputs = (x, before if len(before) > 1 else before[0])
        if self.training and self.weight_dropout:
            weights = {"weight_hh_l0": drop_connections(self.weight_hh_l0, self.weight_dropout)}
            outputs, after = functional_call(self, weights, inputs)
        else:
            outputs, after = self(*inputs)
        after = after if isinstance(after, tuple) else (after,)
        return outputs, tuple(s.squeeze(0) for s in after)

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """A product of [input, hidden] with the joined weights, then the gates."""
        weight, bias = self._step_weights.get(self)
        after = self.advance(F.linear(torch.cat([x, state[0].to(x.dtype)], 1), weight, bias), state)
        return after[0], after

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """`.to()` and its like: the joined weights must not keep memory on the device that the module leaves."""
        self._step_weights.clear()
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> Any:
        if mode != self.training:  # fused optimizers change parameters without a new version
            self._step_weights.clear()
        return super().train(mode)

    def prepare_for_export(self) -> None:
        """Steps become products with constant weights, and a sequence one node, for any number of positions:
        torch's own tracing would unroll it for as many as the example has."""
        self._step_weights.freeze(self)

        def ordered(weight: Tensor) -> Tensor:
            parts = weight.detach().chunk(len(self.onnx_gates))
            return torch.cat([parts[gate] for gate in self.onnx_gates])[None]

        w_ih, w_hh, b_ih, b_hh = map(ordered, self.parameters())
        self._onnx_weights = [w_ih, w_hh, torch.cat([b_ih, b_hh], 1)]

    def _traced(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """T positions as one node of an ONNX graph."""
        B, T, H = x.size(0), x.size(1), self.hidden_size
        kind = type(self).__name__
        outputs, *after = torch.onnx.ops.symbolic_multi_out(
            kind,
            [x.transpose(0, 1), *self._onnx_weights, None, *(s[None] for s in state)],
            {"hidden_size": H, **({"linear_before_reset": 1} if kind == "GRU" else {})},
            dtypes=[torch.float32] * (1 + len(state)),
            shapes=[(T, 1, B, H), *[(1, B, H)] * len(state)],
        )
        return outputs[:, 0].transpose(0, 1), tuple(s[0] for s in after)


class RNN(FusedCell, nn.RNN):
    """tanh of one product."""

    def advance(self, gates: Tensor, state: LayerState) -> LayerState:
        return (torch.tanh(gates),)


class LSTM(FusedCell, nn.LSTM):
    """Its state is (hidden, cell)."""

    num_states = 2
    onnx_gates = (0, 3, 1, 2)  # i o f c

    def advance(self, gates: Tensor, state: LayerState) -> LayerState:
        i, f, _, o = torch.sigmoid(gates).chunk(4, -1)  # one call for all four: at batch 1 each call costs
        H = i.size(-1)
        cell = torch.addcmul(f * state[1], i, torch.tanh(gates[:, 2 * H : 3 * H]))
        return o * torch.tanh(cell), cell


class GRU(FusedCell, nn.GRU):
    """cuDNN's variant: the reset gate scales the hidden part of the new state after its product."""

    onnx_gates = (1, 0, 2)  # z r h

    def advance(self, gates: Tensor, state: LayerState) -> LayerState:
        reset, update, new_input, new_hidden = gates.chunk(4, -1)
        new = torch.tanh(new_input + torch.sigmoid(reset) * new_hidden)
        return (new + torch.sigmoid(update) * (state[0] - new),)

    def joined(self) -> tuple[Tensor, Tensor]:
        """With four blocks of rows. The last third comes twice, since the reset gate scales only the hidden part:
        for the input, with zeros for the hidden state, and for the hidden state, with zeros for the input."""
        w_ih, w_hh, b_ih, b_hh = (p.detach() for p in self.parameters())
        H = self.hidden_size
        weight = torch.cat([torch.cat([w_ih, torch.zeros_like(w_ih[:H])]), torch.cat([w_hh, w_hh[2 * H :]])], 1)
        weight[2 * H : 3 * H, self.input_size :] = 0
        bias = torch.cat([b_ih[: 2 * H] + b_hh[: 2 * H], b_ih[2 * H :], b_hh[2 * H :]])
        return weight, bias
