"""What an ONNX file consists of, read from its bytes without the package onnx, before anything of it is run."""

from __future__ import annotations

from collections.abc import Iterator

OURS = {"com.microsoft": ("DynamicQuantizeLSTM",)}
"""Operators in exported models that are not ONNX's own, by domain."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # kinds of values in a protocol buffer
# Numbers of fields, from onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE = (22, 23)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14


def foreign_parts(data: bytes) -> str:
    """What a graph has that no exported model has, such as a loop or a file elsewhere; "" for nothing.

    Args:
        data: the content of an ONNX file.

    Raises:
        ValueError: it is no protocol buffer.

    Example:
        >>> foreign_parts(bytes([25 << 3 & 0x7F | 2 | 0x80, 1, 0]))  # a model with one function
        'functions of its own'
    """
    view = memoryview(data)
    for number, model_part in _fields(view):
        if number == _MODEL_FUNCTIONS:
            return "functions of its own"
        if number == _MODEL_GRAPH and (found := _in_graph(model_part)):
            return found
    return ""


def _in_graph(graph: memoryview) -> str:
    for number, part in _fields(graph):
        if number == _GRAPH_NODE and (found := _in_node(part)):
            return found
        if number == _GRAPH_INITIALIZER and _is_elsewhere(part):
            return "weights in another file"
        if number == _GRAPH_SPARSE:
            return "sparse weights"
    return ""


def _in_node(node: memoryview) -> str:
    names = {_NODE_OPERATOR: "", _NODE_DOMAIN: ""}
    for number, part in _fields(node):
        if number in names:
            names[number] = bytes(part[:60]).decode("utf-8", "replace")
        if number != _NODE_ATTRIBUTE:
            continue
        for kind, value in _fields(part):
            if kind in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                return "loops or branches"
            if kind in _ATTRIBUTE_SPARSE:
                return "sparse weights"
            if kind in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS) and _is_elsewhere(value):
                return "weights in another file"
    domain, operator = names[_NODE_DOMAIN], names[_NODE_OPERATOR]
    return f"the operator {domain}.{operator}" if domain and operator not in OURS.get(domain, ()) else ""


def _is_elsewhere(tensor: memoryview) -> bool:
    return any(
        number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and part) for number, part in _fields(tensor)
    )


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of the fields of a message. Of an integer the content is so many bytes as make it true or
    false. Nothing is copied."""
    at, end = 0, len(view)
    while at < end:
        key, at = _varint(view, at)
        if key >> 32:  # onnxruntime would read another number
            raise ValueError("is no ONNX file")
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
            yield key >> 3, view[: min(value, 1)]
            continue
        elif kind == _BYTES:
            length, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("is no ONNX file")
        if length > end - at:
            raise ValueError("is cut short")
        yield key >> 3, view[at : at + length]
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and the position after it."""
    value = shift = 0
    while True:
        if at >= len(view) or shift > 63:
            raise ValueError("is cut short")
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
