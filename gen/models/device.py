"""The machine: device, precision, allocator, seeds and their state, peak memory."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from gen.base.distributed import local_rank
from gen.base.errors import Terminated, UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def tune_cpu() -> None:
    """Makes the C library and oneDNN keep what they would have to make again. To be called before anything else.

    glibc returns large blocks to the kernel after every layer and faults them in again, which takes up to half of
    a training step on a CPU; where the C library is another one, nothing is done about it. oneDNN makes kernels
    for every shape it meets, and keeps a thousand: batches of many lengths need more.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 << 20)


def pick_device(name: str = "auto") -> torch.device:
    """ "auto", "cpu", "cuda", "cuda:1" or "mps" → a device that is there; under torchrun, each process's own GPU.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            device = torch.device("cuda", local_rank() if device.index is None else device.index)
            torch.cuda.set_device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        raise UserError(f"--device {name}: not available here; try --device cpu") from error
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for what is left in float32
    return device


def set_deterministic(on: bool) -> None:
    """Whether the same input gives the same bits, on a GPU too. To be called before the GPU is used."""
    if on:  # without a fixed workspace cuBLAS and cuDNN's recurrent layers vary
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.benchmark = False


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype to compute in. "auto": bfloat16 where the hardware multiplies it, else float16 on CUDA.

    On a CPU without the instructions bfloat16 is emulated and slower than float32.
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float16
    fast = device.type == "cpu" and torch.backends.mkldnn.is_available() and _cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bf16() -> bool:
    checks = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16")]
    return any(check() for check in checks if check is not None)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Autocast to ``dtype``; nothing at all for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


class Interruption:
    """While it lasts, the first Ctrl-C or SIGTERM is only noted, so that a step is finished and saved; a second
    one acts at once.

    Example:
        >>> with Interruption() as interruption:
        ...     while not interruption.requested: step()
        ...     interruption.stop()
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = 0  # the signal's number
        self._main = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: Any) -> None:
        self.requested = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> Interruption:
        if self._main:  # Python delivers signals to the main thread alone
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def stop(self, number: int | None = None) -> None:
        """Ends the work as the signal asked, or as signal ``number`` would have. Raises `Terminated` for SIGTERM,
        `KeyboardInterrupt` for Ctrl-C."""
        raise Terminated if (number or self.requested) == signal.SIGTERM else KeyboardInterrupt


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The state of every generator that training may draw from, in types that load without running code."""
    name, keys, *rest = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (name, torch.as_tensor(keys, dtype=torch.int64), *rest),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restores what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def peak_memory(device: torch.device | None = None) -> int:
    """The most memory that a GPU has given this process, or that the process itself has held, in bytes."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
