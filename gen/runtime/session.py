"""A graph as ONNX Runtime runs it: within a limit of memory, and with errors that name its file."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from gen.base.errors import UserError, reason_of
from gen.runtime.graphs import foreign_parts

# Otherwise onnxruntime (1.32) gives this machine a number, kept in ~/.cache, and reports on its use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

MOST_MEMORY = 2 << 30
"""Bytes that all graphs together may take: a damaged one may ask for any number."""


class Graph:
    """An ONNX graph, ready to run. Pickled, it takes its bytes along."""

    def __init__(self, path: str, threads: int, data: bytes | None = None) -> None:
        self.path, self.threads, self.data = path, threads, data
        session = _session(Path(path), threads, data)
        self._run, self.get_inputs, self.get_outputs = session.run, session.get_inputs, session.get_outputs

    def run(self, names: Any, inputs: dict[str, Any]) -> Any:
        try:
            return self._run(names, inputs)
        except Exception as error:  # of many kinds; the inputs are ours, so the graph is at fault
            raise UserError(f"{self.path}: damaged: it cannot be run ({reason_of(error)})") from error

    def __reduce__(self) -> tuple[type[Graph], tuple[str, int, bytes]]:
        return Graph, (self.path, self.threads, self.data or Path(self.path).read_bytes())


@cache
def _limit_memory() -> None:
    """Gives all sessions one allocator with a limit. Once per process."""
    import onnxruntime as ort

    kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    config = ort.OrtArenaCfg({"max_mem": MOST_MEMORY, "arena_extend_strategy": 1})
    ort.create_and_register_allocator(kind, config)


def _session(path: Path, threads: int, data: bytes | None) -> Any:
    """A graph of a file, or of its bytes if they are given."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("exported models need onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and need not be logged as well
    if not threads and hasattr(os, "sched_getaffinity"):  # in a container, fewer than the machine has
        threads = len(os.sched_getaffinity(0))
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # it keeps a plan for every number of rows: a server meets hundreds
    _limit_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # There is another format, which nobody checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if data is None and not path.is_file():
        raise UserError(f"{path.parent}: not a whole exported model: {path.name} is missing")
    try:
        data = data or path.read_bytes()
        foreign = foreign_parts(data)
        if not foreign:
            return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds for damaged files
        raise UserError(f"{path}: damaged, or newer than this onnxruntime ({reason_of(error)})") from error
    raise UserError(f"{path}: is no graph that `gen export` writes: it has {foreign}")
