"""An exported model as one file for a page: its graphs, its tokenizers, what it reads, how it searches."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

from gen import runtime
from gen.base.errors import UserError
from gen.inputs.labels import LabelTokenizer
from gen.inputs.scripts import UNSPACED
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer, Tokenizer, WordTokenizer
from gen.inputs.words import PATTERNS
from gen.runtime import Runtime
from gen.search.confidence import FILE, calibration_files

_LEAST = 1 << 12  # bytes of weights that are looked for a second time
_KINDS = ("prompts", "sentences", "pictures", "labels")
_SEARCH = (
    *("max_new_tokens", "max_ratio", "min_new_tokens", "unknown", "temperature", "top_k", "top_p", "min_p"),
    *("num_samples", "seed", "beam", "length_penalty", "mbr", "n_best", "strategy", "repetition_penalty"),
    *("no_repeat_ngram", "prefix", "stop"),
)
"""The search options that `engine/options.js` knows, of those that a model may bring."""


def pack(model: Runtime, folder: Path) -> bytes:
    """One compressed file: the length of a JSON text, the text, and the pieces of the graphs that it names.

    Weights that both graphs have, such as tied embeddings, are in it once.

    Args:
        model: an exported model.
        folder: where it was loaded from.

    Raises:
        UserError: it reads, spells or searches in a way that the page does not know.
    """
    defaults = model.search_defaults
    if unknown := sorted({*defaults} - {*_SEARCH}) + [
        s for s in [defaults.get("strategy")] if s not in (None, "greedy")
    ]:
        raise UserError(
            f"{folder}: the model's own way to search has {unknown[0]!r}, which the page does not know"
        )
    blob = bytearray()
    known: dict[bytes, tuple[int, int]] = {}
    graphs: dict[str, list[tuple[int, int]]] = {}
    for name, file in (("encoder", runtime.ENCODER), ("step", runtime.STEP)):
        graphs[name] = []
        for piece in _pieces(_for_browsers((folder / file).read_bytes())):
            if piece not in known:
                known[piece] = len(blob), len(piece)
                blob += piece
            graphs[name].append(known[piece])
    about = {
        "search": {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()},
        "processors": {name: _processor(folder, name, p) for name, p in model.processors.items()},
        "tokenizer": saved_tokenizer(model.tokenizer),
        "confidence": _confidence(model),
        "graphs": graphs,
    }
    text = json.dumps(about, ensure_ascii=False).encode()
    return gzip.compress(struct.pack("<I", len(text)) + text + blob, mtime=0)


def _confidence(model: Runtime) -> dict[str, Any] | None:
    """What the page computes the confidence from; None for a model that is not calibrated."""
    files = calibration_files(model.calibration)
    return {**json.loads(files[FILE]), "unspaced": UNSPACED} if files else None


def _processor(folder: Path, name: str, processor: Any) -> dict[str, Any]:
    if processor.kind not in _KINDS:
        raise UserError(
            f"{folder}: the input {name!r} is of the kind {processor.kind!r}, which the page cannot read"
        )
    found = {"kind": processor.kind, "optional": processor.optional, **processor.config()}
    if hasattr(processor, "tokenizer"):
        found["tokenizer"] = saved_tokenizer(processor.tokenizer)
    return found


def saved_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer as `engine/tokenizers.js` reads it.

    Raises:
        UserError: it is of a kind that is not known there.
    """
    if isinstance(tokenizer, SubwordTokenizer):
        found = _pieces_of(tokenizer)
    elif type(tokenizer) in (CharTokenizer, WordTokenizer, LabelTokenizer):
        found = json.loads(tokenizer.to_bytes())
    else:
        raise UserError(f"--web: the page does not know tokenizers of the kind {tokenizer.kind!r}")
    if isinstance(tokenizer, WordTokenizer) and tokenizer.pattern not in _PATTERNS:
        raise UserError(f"--web: the page does not know words of the kind {tokenizer.pattern!r}")
    return {"kind": tokenizer.kind, "normalization": tokenizer.normalization, **found}


_PATTERNS = list(PATTERNS)  # those of the library, and none of a user's own


def _pieces_of(tokenizer: SubwordTokenizer) -> dict[str, Any]:
    from sentencepiece import sentencepiece_model_pb2 as protocol

    model = protocol.ModelProto.FromString(tokenizer.to_bytes())  # type: ignore[attr-defined]
    return {
        "pieces": [piece.piece for piece in model.pieces],
        "scores": [piece.score for piece in model.pieces],
        "types": [piece.type for piece in model.pieces],
        "model": "bpe" if model.trainer_spec.model_type == model.trainer_spec.BPE else "unigram",
        "dummy_prefix": model.normalizer_spec.add_dummy_prefix,
    }


# -- graphs ----------------------------------------------------------------------------------------------


def _pieces(graph: bytes) -> list[bytes]:
    """The bytes of a graph, cut around its larger weights."""
    import onnx

    found, at = [], 0
    for tensor in onnx.load_from_string(graph).graph.initializer:
        weights = tensor.raw_data
        begin = graph.find(weights, at) if len(weights) >= _LEAST else -1
        if begin >= 0:
            found += [graph[at:begin], weights]
            at = begin + len(weights)
    return [*found, graph[at:]]


def _for_browsers(graph: bytes) -> bytes:
    """A graph whose products of integers are computed on floating-point numbers, which WebAssembly does faster.

    They are the same numbers: products of bytes and their sums stay below 2²⁴, where every whole number is a
    float32. The weights stay bytes in the file, and are converted once, when it is loaded.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(graph)
    nodes = []
    for node in model.graph.node:
        if node.op_type != "MatMulInteger":
            nodes.append(node)
            continue
        sides = []
        for number, (values, zero) in enumerate(zip(node.input[:2], node.input[2:], strict=True)):
            own = [f"{node.output[0]}_{number}_{part}" for part in ("values", "zero", "side")]
            nodes.append(helper.make_node("Cast", [values], own[:1], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Cast", [zero], own[1:2], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Sub", own[:2], own[2:]))
            sides += own[2:]
        nodes.append(helper.make_node("MatMul", sides, list(node.output)))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return model.SerializeToString()
