"""Exported folders that somebody has made by hand: graphs that loop, read other files, or ask for any memory."""

from __future__ import annotations

import resource
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gen import UserError, runtime
from gen.models.export import export, quantize
from gen.runtime.graphs import foreign_parts
from tests.conftest import make_model

onnx = pytest.importorskip("onnx")
h, T = onnx.helper, onnx.TensorProto


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """An exported model."""
    from gen.inputs.tokenizer import CharTokenizer

    folder = tmp_path_factory.mktemp("exported")
    export(make_model(CharTokenizer.train(["abc"])), folder / "plain")
    quantize(folder / "plain", folder / "int8")
    return folder


def graph(nodes, initializers=(), functions=(), domains=("",)) -> bytes:
    values = [h.make_tensor_value_info(name, T.FLOAT, [1]) for name in ("x", "y")]
    made = h.make_graph(nodes, "g", values[:1], values[1:], initializers)
    opsets = [h.make_opsetid(domain, 17) for domain in domains]
    return h.make_model(made, opset_imports=opsets, functions=functions, ir_version=9).SerializeToString()


def external() -> bytes:
    tensor = T(name="w", data_type=T.FLOAT, dims=[1], data_location=T.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return graph([h.make_node("Add", ["x", "w"], ["y"])], [tensor])


def endless() -> bytes:
    condition = h.make_tensor_value_info("c", T.BOOL, [])
    step, number = h.make_tensor_value_info("s", T.FLOAT, [1]), h.make_tensor_value_info("i", T.INT64, [])
    same = [h.make_node("Identity", ["c"], ["d"]), h.make_node("Identity", ["s"], ["t"])]
    after = [h.make_tensor_value_info("d", T.BOOL, []), h.make_tensor_value_info("t", T.FLOAT, [1])]
    body = h.make_graph(same, "body", [number, condition, step], after)
    true = h.make_tensor("true", T.BOOL, [], [True])
    return graph([h.make_node("Loop", ["", "true", "x"], ["y"], body=body)], [true])


def function() -> bytes:
    same = h.make_node("Identity", ["a"], ["b"])
    own = h.make_function("own", "F", ["a"], ["b"], [same], [h.make_opsetid("", 17)])
    return graph([h.make_node("Identity", ["x"], ["y"])], functions=[own], domains=("", "own"))


def foreign(domain: str, operator: str) -> bytes:
    return graph([h.make_node(operator, ["x"], ["y"], domain=domain)], domains=("", domain))


CRAFTED = {
    "weights in another file": external(),
    "loops or branches": endless(),
    "functions of its own": function(),
    "the operator evil.ops.Run": foreign("evil.ops", "Run"),
    "the operator com.microsoft.Gelu": foreign("com.microsoft", "Gelu"),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_a_graph_with_anything_foreign_is_not_run(exported, tmp_path, gen, what) -> None:
    shutil.copytree(exported / "plain", tmp_path / "m")
    (tmp_path / "m" / runtime.STEP).write_bytes(CRAFTED[what])
    status, _, err = gen("generate", tmp_path / "m", "--prompt", "a")
    assert status == 2
    assert f"{runtime.STEP}: is no graph that `gen export` writes: it has {what}" in err
    assert len(err.strip().splitlines()) == 1


def test_what_onnxruntime_would_read_as_something_else_is_not_run(exported, tmp_path) -> None:
    data = endless()
    at = data.index(bytes([7 << 3 | 2]))  # the key of the graph
    hidden = bytes([7 << 3 | 2 | 0x80, 0x80, 0x80, 0x80, 0x10])  # the same, and a bit that a number of 32 loses
    for crafted in (data[:at] + hidden + data[at + 1 :], b"\x62\x84\x80\x00ORTM\x62\x14" + bytes(20)):
        (tmp_path / "g.onnx").write_bytes(crafted)
        with pytest.raises(UserError, match=r"g\.onnx: damaged"):
            runtime._Graph(str(tmp_path / "g.onnx"), 1)


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


def test_a_graph_that_asks_for_any_memory_gets_a_line(tmp_path) -> None:
    shape = h.make_tensor("s", T.INT64, [2], [60_000, 60_000])
    nodes = [h.make_node("ConstantOfShape", ["s"], ["z"]), h.make_node("ReduceSum", ["z"], ["y"], keepdims=0)]
    (tmp_path / "g.onnx").write_bytes(graph(nodes, [shape]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="damaged"):
        runtime._Graph(str(tmp_path / "g.onnx"), 1).run(None, {"x": np.zeros(1, np.float32)})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 << 20  # kB
