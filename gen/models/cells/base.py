"""The contract of recurrent cells, and cells by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from gen.base.errors import UserError

LayerState = tuple[Tensor, ...]
"""What a layer carries from one position to the next: `Cell.num_states` tensors, each (R, H)."""


class Cell(nn.Module):
    """One recurrent layer. It is made as ``cell(input_size, hidden_size)``, D and H below.

    One call over T positions gives the same as T calls with one: outputs and states, to 1e-5 in float32.

    Attributes:
        num_states: state vectors per row. The first state of a decoder is learned, between -1 and 1; an encoder's
            is zero.
        recurrent_weights: whether there are weights from state to state, to which ``weight_dropout`` applies.
        weight_dropout: share of zeros in these weights during training (DropConnect), 0 to 1; set after the cell
            is made.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gen.models.cells import CELLS, Cell, linear_scan, register_cell
        >>> @register_cell("leaky")
        ... class Leaky(Cell):
        ...     def __init__(self, input_size, hidden_size):
        ...         super().__init__()
        ...         self.read = nn.Linear(input_size, hidden_size)
        ...         self.keep = nn.Parameter(torch.zeros(hidden_size))
        ...
        ...     def scan(self, x, state):
        ...         written = self.read(x).tanh()
        ...         keep = self.keep.sigmoid().expand_as(written)
        ...         states, last = linear_scan(keep, (1 - keep) * written, state[0])
        ...         return states, (last,)
        >>> from gen.models.recurrent import RecurrentStack
        >>> stack = RecurrentStack(3, 8, num_layers=2, cell="leaky")
        >>> stack(torch.rand(4, 5, 3), stack.zero_state(4))[0].shape
        torch.Size([4, 5, 8])
        >>> del CELLS["leaky"]
    """

    num_states: int = 1
    recurrent_weights: bool = False
    weight_dropout: float = 0.0

    def scan(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Reads T positions: (R, T, D) and the state before → outputs (R, T, H) and the state after.

        Exported encoders trace it: a Python loop over T would be unrolled for the length of the example, so loop
        through `linear_scan`, or change what is traced in `prepare_for_export`.
        """
        raise NotImplementedError

    def step(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Reads one position outside of training: (R, D) and the state before → (R, H) and the state after. Define
        it where a step can be faster than `scan` over one position."""
        outputs, after = self.scan(x.unsqueeze(1), state)
        return outputs.flatten(0, 1), after

    def prepare_for_export(self) -> None:
        """Called on a copy of the cell that will be traced, and never learns again."""


CELLS: dict[str, type[Cell]] = {}
"""Name in options and saved models → class."""


def register_cell(name: str) -> Callable[[type[Cell]], type[Cell]]:
    """Class decorator that makes a cell known as ``--cell NAME``, and in saved models; see `Cell`."""

    def add(cell: type[Cell]) -> type[Cell]:
        CELLS[name] = cell
        return cell

    return add


def find_cell(name: str) -> type[Cell]:
    """The cell registered as ``name``.

    Raises:
        UserError: there is none; the file that registers it has not been imported.
    """
    if name not in CELLS:
        known = ", ".join(CELLS)
        raise UserError(f"unknown cell {name!r} (known: {known}): import the file that registers it first")
    return CELLS[name]
