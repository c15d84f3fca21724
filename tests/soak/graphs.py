"""ONNX graphs that somebody has made by hand: they loop, read other files, or ask for any memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

h, T = onnx.helper, onnx.TensorProto

HUGE = (2**31 - 1, 2**40, 2**62, 60_000 * 60_000, -1, 0, -(2**62))


def graph(
    nodes: Sequence[Any], initializers: Sequence[Any] = (), functions: Sequence[Any] = (), domains: Any = ("",)
) -> bytes:
    """A model of one input x and one output y, (1,) each."""
    values = [h.make_tensor_value_info(name, T.FLOAT, [1]) for name in ("x", "y")]
    made = h.make_graph(nodes, "g", values[:1], values[1:], initializers)
    opsets = [h.make_opsetid(domain, 17) for domain in domains]
    return h.make_model(made, opset_imports=opsets, functions=functions, ir_version=9).SerializeToString()


def external(place: str = "/etc/passwd") -> bytes:
    tensor = T(name="w", data_type=T.FLOAT, dims=[1], data_location=T.EXTERNAL)
    tensor.external_data.add(key="location", value=place)
    return graph([h.make_node("Add", ["x", "w"], ["y"])], [tensor])


def endless() -> bytes:
    condition = h.make_tensor_value_info("c", T.BOOL, [])
    step, number = h.make_tensor_value_info("s", T.FLOAT, [1]), h.make_tensor_value_info("i", T.INT64, [])
    same = [h.make_node("Identity", ["c"], ["d"]), h.make_node("Identity", ["s"], ["t"])]
    after = [h.make_tensor_value_info("d", T.BOOL, []), h.make_tensor_value_info("t", T.FLOAT, [1])]
    body = h.make_graph(same, "body", [number, condition, step], after)
    true = h.make_tensor("true", T.BOOL, [], [True])
    return graph([h.make_node("Loop", ["", "true", "x"], ["y"], body=body)], [true])


def branches() -> bytes:
    after = [h.make_tensor_value_info("t", T.FLOAT, [1])]
    one = h.make_graph([h.make_node("Identity", ["x"], ["t"])], "one", [], after)
    true = h.make_tensor("true", T.BOOL, [], [True])
    return graph([h.make_node("If", ["true"], ["y"], then_branch=one, else_branch=one)], [true])


def scan() -> bytes:
    values = [h.make_tensor_value_info(name, T.FLOAT, []) for name in ("s", "t")]
    body = h.make_graph([h.make_node("Identity", ["s"], ["t"])], "body", values[:1], values[1:])
    return graph([h.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)])


def function() -> bytes:
    same = h.make_node("Identity", ["a"], ["b"])
    own = h.make_function("own", "F", ["a"], ["b"], [same], [h.make_opsetid("", 17)])
    return graph([h.make_node("Identity", ["x"], ["y"])], functions=[own], domains=("", "own"))


def foreign(domain: str, operator: str) -> bytes:
    return graph([h.make_node(operator, ["x"], ["y"], domain=domain)], domains=("", domain))


def sparse() -> bytes:
    model = onnx.load_from_string(graph([h.make_node("Identity", ["x"], ["y"])]))
    values, at = h.make_tensor("w", T.FLOAT, [1], [1.0]), h.make_tensor("i", T.INT64, [1], [10**12])
    model.graph.sparse_initializer.append(h.make_sparse_tensor(values, at, [10**13]))
    return model.SerializeToString()


def greedy(sizes: Sequence[int] = (60_000, 60_000)) -> bytes:
    """It asks for as many numbers as the product of ``sizes``."""
    shape = h.make_tensor("s", T.INT64, [len(sizes)], sizes)
    nodes = [h.make_node("ConstantOfShape", ["s"], ["z"]), h.make_node("ReduceSum", ["z"], ["y"], keepdims=0)]
    return graph(nodes, [shape])


CRAFTED: dict[str, Callable[[], bytes]] = {
    "weights in another file": external,
    "loops or branches": endless,
    "loops or branches, again": branches,
    "loops or branches, at last": scan,
    "functions of its own": function,
    "sparse weights": sparse,
    "the operator evil.ops.Run": lambda: foreign("evil.ops", "Run"),
    "the operator com.microsoft.Gelu": lambda: foreign("com.microsoft", "Gelu"),
}
"""What the message says a graph has → the graph. Words after a comma only tell two graphs apart."""


def other_graph(data: bytes, rng: random.Random) -> bytes:
    """Another graph instead of an exported one: a small one, or the same one with something else in it."""
    if rng.random() < 0.15:
        sizes = [rng.choice(HUGE) for _ in range(rng.randint(1, 4))]
        return rng.choice((*CRAFTED.values(), lambda: greedy(sizes), lambda: external("../text/config.yaml")))()
    model = onnx.load_from_string(data)
    rng.choice(WAYS)(model, rng)
    return model.SerializeToString()


def _greedy_output(model: Any, rng: random.Random) -> None:
    """An output passes through operators that ask for much."""
    name = rng.choice(model.graph.output).name
    node = next(n for n in model.graph.node if name in n.output)
    node.output[list(node.output).index(name)] = "inner"
    sizes = [rng.choice((1, 1, 1000, *HUGE)) for _ in range(rng.randint(1, 4))]
    model.graph.initializer.append(h.make_tensor("sizes", T.INT64, [len(sizes)], sizes))
    one = h.make_tensor("v", T.FLOAT, [1], [rng.choice((0.0, float("nan"), 1e38))])
    model.graph.node.extend(
        rng.choice(
            (
                [h.make_node("Tile", ["inner", "sizes"], [name])],
                [h.make_node("Expand", ["inner", "sizes"], [name])],
                [h.make_node("Reshape", ["inner", "sizes"], [name])],
                [h.make_node("Pad", ["inner", "sizes"], [name])],
                [h.make_node("RandomNormal", [], [name], shape=[abs(s) for s in sizes])],
                [
                    h.make_node("ConstantOfShape", ["sizes"], ["z"], value=one),
                    h.make_node("ReduceSum", ["z"], ["r"], keepdims=0),
                    h.make_node("Add", ["inner", "r"], [name]),
                ],
                [h.make_node("Mul", ["inner", "inner"], ["m"]), h.make_node("Log", ["m"], [name])],
                [h.make_node("Sub", ["inner", "inner"], ["m"]), h.make_node("Div", ["m", "m"], [name])],
            )
        )
    )


def _other_weight(model: Any, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.initializer)
    way = rng.randrange(5)
    if way == 0:
        tensor.dims[:] = [rng.choice(HUGE) for _ in range(rng.randint(0, 4))]
    elif way == 1:
        tensor.data_type = rng.choice((*range(24), 99, -1))
    elif way == 2:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif way == 3 and tensor.data_type == T.FLOAT:
        tensor.raw_data = np.full(len(tensor.raw_data) // 4, rng.choice((np.nan, np.inf, 1e38)), "f4").tobytes()
    else:
        tensor.raw_data, tensor.name = bytes(len(tensor.raw_data)), rng.choice((tensor.name, "", "log_probs"))


def _other_attribute(model: Any, rng: random.Random) -> None:
    node = rng.choice([n for n in model.graph.node if n.attribute])
    attribute = rng.choice(node.attribute)
    value = rng.choice((*HUGE, 7, 1.5, float("nan"), "x", b"\xff", [1, 2, 3], [2**40] * 4, [0.0]))
    node.attribute.remove(attribute)
    if rng.random() < 0.9:
        node.attribute.append(h.make_attribute(attribute.name, value))


_OPERATORS = ("Identity", "Exp", "Loop", "STFT", "Optional", "NonZero", "SequenceEmpty", "MatMul")


def _other_node(model: Any, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    way = rng.randrange(6)
    if way == 0:
        node.op_type = rng.choice(_OPERATORS)
    elif way == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice((node.output[0], "nothing", "", "log_probs"))
    elif way == 2:
        model.graph.node.remove(node)
    elif way == 3:
        model.graph.node.append(node)
    elif way == 4:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "x" * 200, "ai.onnx"))
    else:
        node.output[0] = rng.choice(("", "log_probs", "token_ids", "x" * 10**6))


def _other_value(model: Any, rng: random.Random) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    way = rng.randrange(4)
    if way == 0:
        value.name = rng.choice(("", "source", "state_9", value.name + "2", "token_ids"))
    elif way == 1:
        value.type.tensor_type.elem_type = rng.choice((*range(24), 99))
    elif way == 2:
        del value.type.tensor_type.shape.dim[:]
    else:
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_value = rng.choice(HUGE)


def _other_head(model: Any, rng: random.Random) -> None:
    way = rng.randrange(5)
    if way == 0:
        model.ir_version = rng.choice((0, 1, 99, 2**40, -1))
    elif way == 1:
        model.opset_import[0].version = rng.choice((0, 1, 7, 99, 2**40, -1))
    elif way == 2:
        del model.opset_import[:]
    elif way == 3:
        model.metadata_props.add(key="x" * 10**6, value="\x00")
    else:
        model.graph.node.extend([h.make_node("Identity", ["token_ids"], [f"n{i}"]) for i in range(3000)])


WAYS = (_greedy_output, _greedy_output, _other_weight, _other_attribute, _other_node, _other_value, _other_head)
