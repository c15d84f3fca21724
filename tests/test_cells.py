"""Cells that train in parallel, and a cell of a user's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gen as toolkit
from gen.base.errors import UserError
from gen.models.cells import CELLS, Cell, gated, linear_scan, register_cell
from gen.models.cells.gated import _by_doubling
from gen.models.encoders import RNNEncoder
from gen.models.recurrent import RecurrentStack
from tasks.text.options import TextSizes
from tests.conftest import TINY, make_model


def one_at_a_time(keep, new, state):
    states = []
    for k, n in zip(keep.unbind(1), new.unbind(1), strict=True):
        state = k * state + n
        states.append(state)
    return torch.stack(states, 1)


@pytest.mark.parametrize("T", [1, 2, 7])
def test_a_scan_and_its_gradient_are_those_of_the_loop(T):
    inputs = [torch.rand(2, T, 3, dtype=torch.float64), torch.randn(2, T, 3, dtype=torch.float64)]
    inputs = [x.requires_grad_() for x in (*inputs, torch.randn(2, 3, dtype=torch.float64))]
    states, last = linear_scan(*inputs)
    expected = one_at_a_time(*inputs)
    torch.testing.assert_close(states, expected)
    torch.testing.assert_close(last, expected[:, -1])
    torch.testing.assert_close(_by_doubling(*inputs), expected)
    weights = torch.randn_like(states)
    found = torch.autograd.grad((states * weights).sum() + last.sum(), inputs)
    wanted = torch.autograd.grad((expected * weights).sum() + expected[:, -1].sum(), inputs)
    torch.testing.assert_close(found, wanted)


def test_a_long_scan_neither_overflows_nor_forgets():
    """Gates of almost 0 and almost 1, where sums of logarithms lose their digits."""
    keep = torch.stack([torch.full((1, 3000), 1e-30), torch.full((1, 3000), 1 - 1e-6)], -1)
    new, before = torch.full_like(keep, 1e-6), torch.full((1, 2), 5.0)
    exact = one_at_a_time(*(x.double() for x in (keep, new, before))).float()
    for scan in (lambda *x: linear_scan(*x)[0], _by_doubling):
        torch.testing.assert_close(scan(keep, new, before), exact, atol=1e-9, rtol=1e-3)  # the sum's own rounding


@pytest.mark.parametrize("cell", ["ssru", "mingru"])
def test_a_long_text_in_parallel_in_chunks_and_by_steps(cell):
    stack = RecurrentStack(6, 8, 2, cell).eval()
    x = torch.randn(3, 200, 6)
    with torch.no_grad():
        whole, last = stack(x, stack.zero_state(3))
        for size in (1, 64):
            outputs, state = [], stack.zero_state(3)
            for chunk in x.split(size, 1):
                output, state = stack(chunk, state)
                outputs.append(output)
            torch.testing.assert_close(torch.cat(outputs, 1), whole, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(state, last, atol=1e-5, rtol=1e-5)


def test_weight_dropout_needs_recurrent_weights():
    assert TextSizes(cell="lstm", weight_dropout=0.2).errors() == []
    for cell in ("ssru", "mingru"):
        errors = TextSizes(cell=cell, weight_dropout=0.2).errors()
        assert errors == [f"--weight-dropout: --cell {cell} has no recurrent weights"]


@pytest.fixture
def average():
    """A cell whose two states are averages of its inputs, of which the export unrolls nothing."""

    @register_cell("average")
    class Average(Cell):
        num_states = 2

        def __init__(self, input_size, hidden_size):
            super().__init__()
            self.read = nn.Linear(input_size, 2 * hidden_size)

        def scan(self, x, state):
            short, long = self.read(x).tanh().chunk(2, -1)
            short, last = linear_scan(torch.full_like(short, 0.5), short / 2, state[0])
            long, first = linear_scan(torch.full_like(long, 0.9), long / 10, state[1])
            return short + long, (last, first)

    yield Average
    CELLS.pop("average", None)


def test_a_cell_of_ones_own(average, gen, book, tmp_path):
    run = tmp_path / "run"
    assert "average}" in gen("train", "text", "--help")[1].split("--cell", 1)[1].split("\n", 1)[0]
    status, _, err = gen(
        "train", "text", "--data", book, "--out", run, "--cell", "average", "--budget", "6 steps", *TINY
    )
    assert status == 0, err
    model = toolkit.load(run)
    assert model.decoder.lower.states_per_layer == 2
    text = model.generate("the ", temperature=0, max_new_tokens=8)[0]
    assert model.score(["the " + text.text])[0].log_probs[4:12] == pytest.approx(text.log_probs, abs=1e-4)
    del CELLS["average"]
    with pytest.raises(UserError, match=r"unknown cell 'average' .*import the file that registers it"):
        toolkit.load(run)


def test_parallel_cells_are_exported(tokenizer, tmp_path, monkeypatch):
    runtime = pytest.importorskip("gen.runtime")
    pytest.importorskip("onnxscript")
    from gen.models.export import export
    from gen.models.quantization import quantize

    monkeypatch.setattr(gated, "_DOUBLINGS", 5)  # enough for these sentences, and traced sooner
    sizes = {"embedding_size": 6, "hidden_size": 32, "num_layers": 1}
    encoder = RNNEncoder(tokenizer, **sizes, cell="mingru", bidirectional=False)
    model = make_model(tokenizer, encoder=encoder, hidden_size=32, cell="ssru", attention="dot")
    export(model, tmp_path / "plain")
    quantize(tmp_path / "plain", tmp_path / "int8")
    texts, sentences = ["on the mat", "cat", ""], ["the cat", "a", "the dog ran to the mat"]
    ours = model.score(texts, sentences)
    for name, tolerance in (("plain", 1e-4), ("int8", 0.5)):
        theirs = runtime.load(tmp_path / name).score(texts, sentences)
        for a, b in zip(ours, theirs, strict=True):
            assert b.log_probs == pytest.approx(a.log_probs, abs=tolerance)
