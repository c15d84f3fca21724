"""Exported folders that somebody has made by hand: graphs that loop, read other files, or ask for any memory."""

from __future__ import annotations

import random
import resource
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gen import UserError, runtime
from gen.models.export import export
from gen.models.quantization import quantize
from gen.runtime.graphs import foreign_parts
from gen.runtime.session import Graph
from tests.conftest import make_model

pytest.importorskip("onnx")
from tests.soak.graphs import CRAFTED, endless, greedy, other_graph


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """An exported model."""
    from gen.inputs.tokenizer import CharTokenizer

    folder = tmp_path_factory.mktemp("exported")
    export(make_model(CharTokenizer.train(["abc"])), folder / "plain")
    quantize(folder / "plain", folder / "int8")
    return folder


@pytest.mark.parametrize("what", CRAFTED)
def test_a_graph_with_anything_foreign_is_not_run(exported, tmp_path, gen, what) -> None:
    shutil.copytree(exported / "plain", tmp_path / "m")
    (tmp_path / "m" / runtime.STEP).write_bytes(CRAFTED[what]())
    status, _, err = gen("generate", tmp_path / "m", "--prompt", "a")
    assert status == 2
    assert f"{runtime.STEP}: is no graph that `gen export` writes: it has {what.partition(', ')[0]}" in err
    assert len(err.strip().splitlines()) == 1


def test_what_onnxruntime_would_read_as_something_else_is_not_run(exported, tmp_path) -> None:
    data = endless()
    at = data.index(bytes([7 << 3 | 2]))  # the key of the graph
    hidden = bytes([7 << 3 | 2 | 0x80, 0x80, 0x80, 0x80, 0x10])  # the same, and a bit that a number of 32 loses
    for crafted in (data[:at] + hidden + data[at + 1 :], b"\x62\x84\x80\x00ORTM\x62\x14" + bytes(20)):
        (tmp_path / "g.onnx").write_bytes(crafted)
        with pytest.raises(UserError, match=r"g\.onnx: damaged"):
            Graph(str(tmp_path / "g.onnx"), 1)


def test_a_step_without_its_states_is_refused(exported, tmp_path) -> None:
    import onnx

    shutil.copytree(exported / "plain", tmp_path / "m")
    model = onnx.load(tmp_path / "m" / runtime.STEP)
    places = [n for n, output in enumerate(model.graph.output) if output.name == "next_state_0"]
    del model.graph.output[places[0]]
    onnx.save(model, tmp_path / "m" / runtime.STEP)
    with pytest.raises(UserError, match="do not belong together"):
        runtime.load(tmp_path / "m")


@pytest.mark.parametrize("kind", ["plain", "int8"])
@pytest.mark.parametrize("name", [runtime.STEP, runtime.ENCODER])
def test_what_we_export_has_nothing_foreign(exported, kind, name) -> None:
    assert foreign_parts((exported / kind / name).read_bytes()) == ""


def test_damaged_bytes_are_no_graph_and_end(exported) -> None:
    whole = (exported / "plain" / runtime.STEP).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))])
        for position in rng.integers(0, len(data), 8):
            data[position] = rng.integers(0, 256)
        with suppress(ValueError):
            assert isinstance(foreign_parts(bytes(data)), str)


@pytest.mark.parametrize("name", [runtime.STEP, runtime.ENCODER])
def test_a_graph_with_something_else_in_it_runs_or_gets_a_line(exported, tmp_path, name) -> None:
    shutil.copytree(exported / "plain", tmp_path / "m")
    whole = (tmp_path / "m" / name).read_bytes()
    for seed in range(12):
        (tmp_path / "m" / name).write_bytes(other_graph(whole, random.Random(seed)))
        try:
            runtime.load(tmp_path / "m").generate("a", max_new_tokens=3)
        except UserError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_a_graph_that_asks_for_any_memory_gets_a_line(tmp_path) -> None:
    (tmp_path / "g.onnx").write_bytes(greedy())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="damaged"):
        Graph(str(tmp_path / "g.onnx"), 1).run(None, {"x": np.zeros(1, np.float32)})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 << 20  # kB
