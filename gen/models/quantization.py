"""Exported models with weights in int8."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gen import runtime
from gen.base.folders import copy_folder, write_folder
from gen.models.export import quiet, require, write_config


def quantize(exported: Path, folder: Path) -> None:
    """Writes an exported float32 model with int8 matrix products: one scale per column of the weights, computed
    here, and one per row of what they are multiplied with, computed at run time. So a row's result does not depend
    on the rows next to it. Results depend slightly on the CPU.

    Convolutions and an encoder's recurrent layers are computed in float32: dynamic int8 convolutions are slower,
    and ONNX Runtime's int8 LSTM has one scale for all rows. Their weights are stored in int8, and so are large
    embeddings.
    """
    require("onnx", "onnxruntime")
    from onnxruntime.quantization.shape_inference import quant_pre_process

    def fill(path: Path) -> None:
        """The files of the float32 folder, with both graphs quantized."""
        copy_folder(exported, path)
        for name in (runtime.ENCODER, runtime.STEP):
            with quiet():
                # Folds the transpositions of large weights: only constants are quantized.
                quant_pre_process(exported / name, path / name, skip_symbolic_shape=True)
            _Graph(path / name).write()
        config = json.loads((exported / runtime.CONFIG).read_text(encoding="utf-8"))
        write_config(path, {**config, "precision": "int8"})

    write_folder(folder, fill)


class _Graph:
    """A graph whose weights become int8, in standard operators."""

    SMALL = 1 << 14
    """Weights with fewer elements stay float32, except those of matrix products."""

    RECURRENT = ("LSTM", "GRU", "RNN")

    def __init__(self, path: Path) -> None:
        import onnx

        self.path = path
        self.model = onnx.load(path)
        self.users = Counter(name for node in self.model.graph.node for name in node.input)
        floats = (t for t in self.model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
        self.weights = {tensor.name: tensor for tensor in floats}
        self.made: set[str] = set()  # constants and rows that are there already

    def write(self) -> None:
        """Quantizes the graph, and writes it to its file."""
        import onnx

        graph = self.model.graph
        nodes = [made for node in graph.node for made in self.quantized(node)]
        del graph.node[:]
        graph.node.extend(nodes)
        needed = {name for node in nodes for name in node.input} - {name for node in nodes for name in node.output}
        for i in reversed(range(len(graph.initializer))):
            if graph.initializer[i].name not in needed:
                del graph.initializer[i]
        onnx.save(self.model, self.path)

    def quantized(self, node: Any) -> Iterator[Any]:
        """The nodes that replace a node; itself where nothing is quantized."""
        kind, options = node.op_type, {a.name: a.f or a.i for a in node.attribute}
        if kind in ("MatMul", "Gemm") and self.is_matrix(node.input[1]) and not options.get("transA"):
            yield from self.product(node, options)
        elif kind == "Gather" and self.is_large(node.input[0]) and not options.get("axis"):
            yield from self.looked_up(node)
        else:
            inputs = {"Conv": (1,)}.get(kind, (1, 2) if kind in self.RECURRENT else ())
            for name in filter(self.is_large, (node.input[i] for i in inputs)):
                self.store(name, self.values(name), (0,) if kind == "Conv" else (0, 1))
                yield from _scaled(f"{name}_int8", f"{name}_scale", name)  # once, when the graph is loaded
            yield node

    def product(self, node: Any, options: dict[str, Any]) -> Iterator[Any]:
        """A product with a constant, of ``MatMul`` or ``Gemm``: (…, K) float32 → (…, N) float32."""
        (x, name, *bias), (out,) = node.input, node.output
        if x not in self.made:
            self.made.add(x)
            yield from self.rows(x)
        if name not in self.made:
            self.made.add(name)
            values = self.values(name) * options.get("alpha", 1)
            self.store(name, values.T if options.get("transB") else values, (1,))
        zeros = [self.constant("input_zero_point", np.uint8(128)), self.constant("weight_zero_point", np.int8(0))]
        yield _node("MatMulInteger", [f"{x}_uint8", f"{name}_int8", *zeros], f"{out}_sum")
        # One scale after the other: ONNX Runtime would take a product of both for one number, and be wrong.
        yield from _scaled(f"{out}_sum", f"{name}_scale", f"{out}_columns")
        yield _node("Mul", [f"{out}_columns", f"{x}_scale"], f"{out}_product" if bias else out)
        if bias:
            yield _node("Add", [f"{out}_product", *bias], out)

    def rows(self, x: str) -> Iterator[Any]:
        """(…, K) float32 → (…, K) uint8 around 128, and a scale per row: (…, 1)."""
        from onnx import TensorProto

        yield _node("Abs", [x], f"{x}_size")
        yield _node("ReduceMax", [f"{x}_size", self.constant("last", np.array([-1]))], f"{x}_largest")
        yield _node("Max", [f"{x}_largest", self.constant("tiny", np.float32(1e-30))], f"{x}_above_zero")
        yield _node("Div", [f"{x}_above_zero", self.constant("range", np.float32(127))], f"{x}_scale")
        yield _node("Div", [x, f"{x}_scale"], f"{x}_scaled")
        yield _node("Round", [f"{x}_scaled"], f"{x}_rounded")
        yield _node("Add", [f"{x}_rounded", self.constant("shift", np.float32(128))], f"{x}_shifted")
        yield _node("Cast", [f"{x}_shifted"], f"{x}_uint8", to=TensorProto.UINT8)

    def looked_up(self, node: Any) -> Iterator[Any]:
        """Rows of an embedding, made float32 after they are looked up."""
        (name, token_ids), (out,) = node.input, node.output
        self.store(name, self.values(name), (0,))
        for part in ("int8", "scale"):
            yield _node("Gather", [f"{name}_{part}", token_ids], f"{out}_{part}")
        yield from _scaled(f"{out}_int8", f"{out}_scale", out)

    # -- constants -----------------------------------------------------------------------------------------

    def is_matrix(self, name: str) -> bool:
        """Whether something is a weight with two axes."""
        return name in self.weights and len(self.weights[name].dims) == 2

    def is_large(self, name: str) -> bool:
        """Whether something is a weight of one node, and worth storing in int8."""
        return self.users[name] == 1 and name in self.weights and np.prod(self.weights[name].dims) >= self.SMALL

    def values(self, name: str) -> np.ndarray:
        """The values of a weight."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.weights[name])

    def store(self, name: str, values: np.ndarray, kept: tuple[int, ...]) -> None:
        """Adds a weight in int8, with a scale for every index of the axes ``kept``."""
        others = tuple(axis for axis in range(values.ndim) if axis not in kept)
        scale = np.maximum(abs(values).max(others, keepdims=True), 1e-30) / 127
        self.constant(f"{name}_int8", np.rint(values / scale).astype(np.int8))
        self.constant(f"{name}_scale", scale.astype(np.float32))

    def constant(self, name: str, value: Any) -> str:
        """Adds a constant, if it is not there; returns its name."""
        from onnx import numpy_helper

        if name not in self.made:
            self.made.add(name)
            self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _node(kind: str, inputs: list[str], output: str, **options: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, [output], **options)


def _scaled(whole: str, scale: str, output: str) -> Iterator[Any]:
    """Integers times a scale, as float32."""
    from onnx import TensorProto

    yield _node("Cast", [whole], f"{output}_float", to=TensorProto.FLOAT)
    yield _node("Mul", [f"{output}_float", scale], output)
