"""Process settings for training: allocator, signals, random seeds, peak memory."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from gen.base.errors import Terminated


def tune_cpu() -> None:
    """Tunes glibc's allocator and oneDNN's kernel cache for the whole process. Call it before anything else.

    By default glibc returns large blocks to the kernel after every layer and faults them in again, which takes up
    to half of a training step on a CPU; other C libraries are left alone. oneDNN compiles a kernel per shape and
    caches a thousand: batches of many lengths need more.
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


def set_deterministic(on: bool) -> None:
    """Turns bitwise reproducible algorithms on or off, on a GPU too. Call it before the GPU is used."""
    if on:  # without a fixed workspace cuBLAS and cuDNN's recurrent layers vary
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if on != torch.are_deterministic_algorithms_enabled():  # asking for what is so takes two seconds of imports
        torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.benchmark = False


def determinism_errors(wanted: bool) -> list[str]:
    """An error if reproducible algorithms are wanted and off: that is a state of the process, thus the user's."""
    if not wanted or torch.are_deterministic_algorithms_enabled():
        return []
    return ["deterministic: before the training call torch.use_deterministic_algorithms(True)"]


class Interruption:
    """Within the context, the first Ctrl-C or SIGTERM is only recorded, so that the current step can finish and be
    saved; a second one takes effect at once.

    Use::

        with Interruption() as interruption:
            while not interruption.requested:
                step()
            interruption.stop()
    """

    SIGNALS = tuple(signal.Signals[n] for n in ("SIGINT", "SIGTERM", "SIGHUP") if n in signal.Signals.__members__)

    def __init__(self) -> None:
        self.requested = 0  # the signal's number
        self.when_requested: Callable[[], None] = lambda: None
        self._main = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: Any) -> None:
        self.requested = number
        self._restore()
        self.when_requested()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> Interruption:
        if self._main:  # Python delivers signals to the main thread alone
            heard = [n for n in self.SIGNALS if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}  # not under nohup
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def stop(self, number: int | None = None) -> None:
        """Raises `KeyboardInterrupt` for Ctrl-C, else `Terminated`.

        Args:
            number: the signal; None: the recorded one.
        """
        raise KeyboardInterrupt if (number or self.requested) == signal.SIGINT else Terminated


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def private_rng(seed: int) -> Iterator[None]:
    """Seeds the global random generators within the context and restores their state afterwards."""
    before = rng_state()
    seed_everything(seed)
    try:
        yield
    finally:
        set_rng_state(before)


def rng_state() -> dict[str, Any]:
    """The state of all random generators (Python, numpy, torch), loadable with ``weights_only=True``."""
    name, keys, *rest = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (name, torch.as_tensor(keys, dtype=torch.int64), *rest),
    }
    if torch.cuda.is_initialized():  # else a training on the CPU would take memory of a GPU
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
    """Peak memory in bytes: allocated on a GPU, else the process's resident size (0 on Windows)."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows has none
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
