"""The weights of a recurrent layer as one matrix, for a single step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class StepWeights:
    """The weights of one layer joined into one matrix and one bias, so that a step is a single product.

    They are made at the first step, in the dtype of the computation (autocast would cast them again at every
    step), and made again at the next step after a change of

    * the dtype;
    * a parameter: replaced, moved, or written in place, which raises its version.

    Fused optimizers write without raising a version; so the layer's owner calls `clear` when training begins or
    ends. Memory that is written without torch, through a NumPy view for example, is not noticed either.
    Copies and pickles start empty. Threads may share an instance: what it keeps is replaced as a whole.
    """

    def __init__(self) -> None:
        # What the weights were made from, the weights, and aliases of the parameters, which keep their memory:
        # so a new parameter cannot have the address of an old one.
        self._kept: tuple[Any, tuple[Tensor, Tensor], tuple[Tensor, ...]] | None = None
        self._frozen: tuple[Tensor, Tensor] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return StepWeights, ()

    def get(self, layer: Any) -> tuple[Tensor, Tensor]:
        """The matrix (gates · H, D + H) and the bias (gates · H,) of a `FusedCell`."""
        if self._frozen is not None:
            return self._frozen
        parameters: Any = layer._flat_weights  # layer.parameters() would walk the module at every step
        device = parameters[0].device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else parameters[0].dtype
        try:
            made_from = (dtype, *(v for p in parameters for v in (p._version, p.data_ptr())))
        except RuntimeError:  # parameters made in inference mode have no version
            made_from = None
        kept = self._kept
        if kept is None or made_from is None or kept[0] != made_from:
            weight, bias = layer.joined()
            aliases = tuple(p.detach() for p in parameters)
            self._kept = kept = (made_from, (weight.to(dtype), bias.to(dtype)), aliases)
        return kept[1]

    def freeze(self, layer: Any) -> None:
        """Joins the weights for good: constants of a graph that is being traced."""
        self._frozen = layer.joined()

    def clear(self) -> None:
        """Forgets the joined weights and frees their memory."""
        self._kept = self._frozen = None
