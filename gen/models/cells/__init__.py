"""Recurrent cells: layers that read a sequence, or a step. Your own is one file: subclass `Cell`, call
`register_cell`."""

from gen.models.cells.base import CELLS, Cell, LayerState, find_cell, register_cell
from gen.models.cells.fused import GRU, LSTM, RNN, FusedCell
from gen.models.cells.gated import GatedCell, linear_scan
from gen.models.cells.mingru import MinGRU
from gen.models.cells.ssru import SSRU

register_cell("rnn")(RNN)
register_cell("gru")(GRU)
register_cell("lstm")(LSTM)
register_cell("ssru")(SSRU)
register_cell("mingru")(MinGRU)

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "RNN",
    "SSRU",
    "Cell",
    "FusedCell",
    "GatedCell",
    "LayerState",
    "MinGRU",
    "find_cell",
    "linear_scan",
    "register_cell",
]
