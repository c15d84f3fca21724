"""Exported models, without torch: `load` a folder that `gen export` made, and generate.

Needs numpy, onnxruntime, sentencepiece, regex and pillow, and nothing else. Search, strategies, processors,
tokenizers and preprocessing are shared with trained models; only a step is computed by ONNX Runtime.

    from gen import runtime
    print(runtime.load("exported")("The ", temperature=0.8))
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from gen.base import hub
from gen.base.errors import ConfigError, UserError
from gen.base.files import read_whole
from gen.base.folders import read_folder, whole_folder
from gen.inputs.items import prepare_items
from gen.inputs.processors import PROCESSORS, InputProcessor
from gen.inputs.tokenizer import TOKENIZERS, Tokenizer
from gen.runtime.session import Graph
from gen.search import SearchOptions
from gen.search.confidence import read_calibration
from gen.search.generation import GenerationMixin, SearchInput
from gen.search.info import ModelInfo
from gen.search.ops import NumpyOps

FORMAT = 2
"""Version of the exported folder. Raised when older code cannot read what newer code writes."""

CONFIG = "runtime.json"
TOKENIZER = "tokenizer.bin"
ENCODER = "encoder.onnx"
STEP = "step.onnx"

MOST_CONFIG = 1 << 24
"""Largest size of a configuration in bytes."""

MOST_FILE = 1 << 28
"""Largest size of a vocabulary in bytes."""

_FORMAT_1_NAMES = {"prompts": "prompt", "sentences": "sentence", "pictures": "picture"}
"""Kind of the only processor of a format 1 folder → its input name today."""


@dataclass(frozen=True)
class _State:
    """Decoder state: (R, H) arrays in the order of the step's inputs, one row per hypothesis; and the memory by
    name, one row per input; and after a step the decoder's features (R, F), unless an older version exported."""

    arrays: tuple[np.ndarray, ...]
    memory: dict[str, np.ndarray]
    features: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> _State:
        features = None if self.features is None else self.features[rows]
        return _State(tuple(a[rows] for a in self.arrays), self.memory, features)

    def keep(self, inputs: np.ndarray, rows: np.ndarray) -> _State:
        return _State(tuple(a[rows] for a in self.arrays), {n: a[inputs] for n, a in self.memory.items()})

    @staticmethod
    def join(states: Sequence[_State], memory: dict[str, np.ndarray]) -> _State:
        """The rows of several states, one after another, over a memory of one row per row."""
        if len(states) == 1:
            return replace(states[0], memory=memory)
        arrays = zip(*(state.arrays for state in states), strict=True)
        features = [state.features for state in states if state.features is not None]
        joined = np.concatenate(features) if len(features) == len(states) else None
        return _State(tuple(np.concatenate(a) for a in arrays), memory, joined)

    @staticmethod
    def join_memory(memories: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The rows of several memories, padded to the longest."""
        return {name: _padded([memory[name] for memory in memories]) for name in memories[0]}


def _padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays below one another, each filled up with zeros (a mask: False) to the largest in every other axis."""
    shapes = {a.shape[1:] for a in arrays}
    if len(shapes) == 1:
        return np.concatenate(arrays)
    joined = np.zeros((sum(map(len, arrays)), *map(max, zip(*shapes, strict=True))), arrays[0].dtype)
    row = 0
    for a in arrays:
        joined[(slice(row, row + len(a)), *map(slice, a.shape[1:]))] = a
        row += len(a)
    return joined


class Runtime(GenerationMixin):
    """An exported model; see `load`. In float32 its outputs are those of the original model in float32.

    Attributes:
        tokenizer: the decoder's tokenizer.
        processors: one input processor per input name.
        info: metadata of the model.
        precision: "float32" or "int8".
        fingerprint: of the weights; "" where an older version exported.
    """

    def __init__(
        self,
        encoder: Any,
        step: Any,
        processors: Mapping[str, InputProcessor],
        tokenizer: Tokenizer,
        info: ModelInfo,
        precision: str,
        fingerprint: str = "",
    ) -> None:
        self.encoder, self.step = encoder, step
        self.processors, self.tokenizer = processors, tokenizer
        self.info, self.precision, self.fingerprint = info, precision, fingerprint
        self._given = [i.name for i in encoder.get_inputs()]
        self._inputs = [i.name for i in step.get_inputs()]
        self._outputs = [o.name for o in step.get_outputs()]
        self._encoded = [o.name for o in encoder.get_outputs()]

    @property
    def search_defaults(self) -> dict[str, Any]:  # type: ignore[override]
        return self.info.search

    @property
    def reads_input(self) -> bool:
        return not all(processor.optional for processor in self.processors.values())

    def start_search(self, items: Sequence[Any]) -> SearchInput:
        """Encodes the items once; a step is one call of the decoder's graph."""
        source, prompts = prepare_items(self.processors, items)
        if self._given == ["source"]:  # format 1: the only input, whatever it is
            source = dict(zip(self._given, source.values(), strict=True))
        made = dict(zip(self._encoded, self.encoder.run(None, source), strict=True))
        memory = {name: made[name] for name in self._inputs if name in made and not name.startswith("state")}
        states = [name for name in self._inputs if name.startswith("state")]

        def step(token_ids: np.ndarray, state: _State) -> tuple[np.ndarray, _State, np.ndarray | None]:
            arrays, ids = state.arrays, token_ids.astype(np.int64, copy=False)  # on Windows numpy may use int32
            for t in range(token_ids.shape[1]):
                given = {"token_ids": ids[:, t], **dict(zip(states, arrays, strict=True)), **state.memory}
                found = dict(zip(self._outputs, self.step.run(self._outputs, given), strict=True))
                arrays = tuple(found[f"next_{name}"] for name in states)
            return found["log_probs"], _State(arrays, state.memory, found.get("features")), found.get("attention")

        first = _State(tuple(made[name] for name in states), memory)
        return SearchInput(step, first, prompts, NumpyOps(), made.get("mask"))

    def forced_log_probs(
        self, encoded: Sequence[np.ndarray], items: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        tokenizer, start = self.tokenizer, self.start_search(items)
        said, features, state = [], [], start.state
        token_ids = np.full(len(encoded), tokenizer.bos_id, np.int64)
        for t in range(max(map(len, encoded)) + 1):
            log_probs, state, _ = start.step(token_ids[:, None], state)
            token_ids = np.array([ids[t] if t < len(ids) else tokenizer.eos_id for ids in encoded], np.int64)
            said.append(start.ops.at(log_probs, token_ids))
            features.append(state.features)
        return np.stack(said, 1), None if features[0] is None else np.stack(features, 1)


def is_exported(path: str | PathLike[str]) -> bool:
    """Whether a folder, or hf:user/name, is one that `gen export` made."""
    return (located(path) / CONFIG).is_file()


def located(path: str | PathLike[str]) -> Path:
    """A folder; that of hf:user/name is downloaded, or found in the cache."""
    return hub.fetch(str(path)) if str(path).startswith(hub.PREFIX) else whole_folder(Path(path))


def load(path: str | PathLike[str], threads: int = 0) -> Runtime:
    """An exported model, ready to use. Nothing in the folder can run code.

    Args:
        path: a folder that `gen export` made, or hf:user/name.
        threads: threads per step; 0: as many as this process may use.

    Raises:
        UserError: the folder is incomplete, damaged, or of a newer version; the message says which.
    """
    return read_folder(lambda: located(path), partial(_load, threads=threads))


def _load(folder: Path, threads: int) -> Runtime:
    """The model of a folder."""
    config = _read_config(folder)
    try:
        tokenizer = TOKENIZERS[config["tokenizer"]].from_bytes(_read(folder, TOKENIZER))
        processors = _read_processors(folder, config)
        info, precision = ModelInfo.of(config), str(config["precision"])
        fingerprint = str(config.get("fingerprint", ""))
        if precision != "float32":  # it computes other features than the weights that it was made from
            fingerprint = fingerprint and f"{fingerprint} {precision}"
        SearchOptions.make(info.search, {})
    except ConfigError as error:
        raise UserError(f"{folder}: {CONFIG}: {error.errors[0]}") from error
    except UserError:
        raise
    except Exception as error:  # whatever constructors raise for arguments that nobody would give
        what = f"{type(error).__name__}: {str(error)[:160]}"
        raise UserError(f"{folder}: {CONFIG} does not describe a model ({what})") from error
    encoder, step = (Graph(str(folder / name), threads) for name in (ENCODER, STEP))
    examples = {name: list(processor.example().shape) for name, processor in processors.items()}
    if "reader" in config:
        examples = dict(zip(["source"], examples.values(), strict=True))
    said = _shapes(step.get_outputs())
    made = {**_shapes(encoder.get_outputs()), **examples, "token_ids": [None], **said}
    given = _shapes(encoder.get_inputs())
    steps = _shapes(step.get_inputs())
    wanted = {**given, **steps} | {
        f"next_{name}": shape for name, shape in steps.items() if name.startswith("state")
    }
    whole = said.get("log_probs", [])[-1:] == [len(tokenizer)] and {*given} == {*examples}
    if not whole or any(name not in made or not _fits(made[name], shape) for name, shape in wanted.items()):
        raise UserError(f"{folder}: its graphs and its {CONFIG} do not belong together; export the model again")
    model = Runtime(encoder, step, processors, tokenizer, info, precision, fingerprint)
    model.calibration = read_calibration(folder)
    return model


def _read_processors(folder: Path, config: dict[str, Any]) -> dict[str, InputProcessor]:
    """The processors of an exported folder by input name."""

    def one(arguments: dict[str, Any], prefix: str) -> InputProcessor:
        plain = {key: value for key, value in arguments.items() if key not in ("kind", "optional")}
        made = PROCESSORS[arguments["kind"]].from_config(plain, lambda file: _read(folder, f"{prefix}-{file}"))
        made.optional = bool(arguments.get("optional", made.optional))
        return made

    if "reader" in config:  # format 1
        kind = config["reader"]["kind"]
        return {_FORMAT_1_NAMES.get(kind, kind): one(config["reader"], "reader")}
    return {name: one(arguments, f"processor-{name}") for name, arguments in config["processors"].items()}


def _shapes(tensors: Sequence[Any]) -> dict[str, list[int | None]]:
    """Name → sizes; None for axes of any size."""
    return {t.name: [n if isinstance(n, int) else None for n in t.shape] for t in tensors}


def _fits(made: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    return len(made) == len(wanted) and all(
        None in pair or pair[0] == pair[1] for pair in zip(made, wanted, strict=True)
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; `gen export` makes one")
    if not path.is_file():
        raise UserError(f"{folder}: holds no exported model: {CONFIG} is missing; `gen export` makes one")
    try:
        if path.stat().st_size > MOST_CONFIG:
            raise ValueError("too large")
        config = json.loads(path.read_text(encoding="utf-8"))
        version = int(config["format"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({str(error)[:160]}); export the model again") from error
    if version > FORMAT:
        raise UserError(f"{path}: format {version} is newer than this version knows ({FORMAT}): upgrade it")
    return config


def _read(folder: Path, name: str) -> bytes:
    try:
        return read_whole(folder / name, MOST_FILE)
    except OSError as error:
        raise UserError(f"{folder}: not a whole exported model: {name} is missing") from error
    except ValueError as error:
        raise UserError(f"{folder / name}: {error}") from error
