"""Commands in child processes of their own, which are forked from one that has imported everything."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tasks.cli import main
from tests import faults

for _name in (
    *("gen.models.export", "tasks.text.generate", "tasks.translate.command", "tasks.caption.command"),
    *(f"tasks.commands.{name}" for name in ("compare", "export", "info", "plot", "score", "train")),
):  # once for all children. Not what starts threads, as onnxruntime and pyarrow do: a fork loses them
    import_module(_name)

SECONDS = 60
"""Every command on these small files takes less."""

BYTES = 3 << 30
"""Every command on these small files takes less memory."""


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        status: the exit status; minus the signal that ended it; None: it was still running after `SECONDS`.
        said: all that it printed.
        seconds: how long it took.
        memory: its peak in bytes.
    """

    status: int | None
    said: str
    seconds: float
    memory: int

    def problem(self, allowed: Sequence[int] = (0, 1, 2)) -> str:
        """What is wrong about it; "" for nothing."""
        if self.status is None:
            return f"no end after {SECONDS} seconds"
        if "Traceback" in self.said or "Exception ignored" in self.said:
            return self.said[-3000:]
        if self.status not in allowed:
            return f"exit status {self.status}: {self.said[-300:]}"
        if self.memory > BYTES or "there is not enough memory" in self.said:
            return f"{self.memory >> 20:,} MiB of memory: {self.said[-300:]}"
        lines = [line for line in self.said.splitlines() if line.startswith("gen: ")]
        if self.status == 2 and not lines:
            return f"exit status 2 without a message: {self.said[-300:]!r}"
        return f"a message of {max(map(len, lines)):,} characters" if lines and max(map(len, lines)) > 2000 else ""


class Children:
    """Starts commands in child processes.

    Args:
        folder: of the cache and the temporary files of all.
    """

    def __init__(self, folder: Path) -> None:
        self.environment = {"GEN_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "huggingface")}
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([__name__])

    def start(
        self,
        argv: Sequence[object],
        trouble: Callable[[], object] = faults.without_plots,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Starts a command; ``trouble`` is called before it in its process."""
        words = [str(word) for word in argv]
        return Child(self.context, words, trouble, {**self.environment, **(environment or {})})

    def run(
        self,
        argv: Sequence[object],
        trouble: Callable[[], object] = faults.without_plots,
        environment: Mapping[str, str] | None = None,
    ) -> Ending:
        """Runs a command to its end."""
        return self.start(argv, trouble, environment).end()


class Child:
    """A running command."""

    def __init__(
        self,
        context: multiprocessing.context.ForkServerContext,
        argv: list[str],
        trouble: Callable[[], object],
        environment: dict[str, str],
    ) -> None:
        self.began = time.monotonic()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(argv, trouble, environment, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def signal(self, number: int) -> None:
        """Sends a signal; nothing if it has ended."""
        if self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def begun(self) -> None:
        """Waits until the command begins."""
        self.connection.recv()

    def _computed(self) -> float:
        """Seconds of computing so far. A loaded machine, unlike a command that hangs, lets it compute little."""
        fields = _status(self.process.pid, "stat").rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0

    def end(self, seconds: float = SECONDS) -> Ending:
        """Waits for its end, or kills it after so many seconds of computing, or five times as many of any kind."""
        status: int | None = None
        said, memory, done = "", 0, False
        try:
            while not done and self._computed() < seconds and time.monotonic() - self.began < 5 * seconds:
                if self.connection.poll(0.5) and (found := self.connection.recv()):
                    (status, said, memory), done = found, True
        except (EOFError, ConnectionResetError):
            done = True
        if not done:
            peak = re.search(r"VmHWM:\s*(\d+)", _status(self.process.pid, "status"))
            memory = int(peak[1]) << 10 if peak else 0
            self.process.kill()
        self.process.join()
        self.connection.close()
        if not done:
            status = None
        elif not memory:  # it told nothing
            status = self.process.exitcode or 255
        return Ending(status, said, time.monotonic() - self.began, memory)


def _status(pid: int | None, name: str) -> str:
    """What the system knows about a process; "" if that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text()
    return ""


def _work(
    argv: list[str], trouble: Callable[[], object], environment: dict[str, str], connection: Connection
) -> None:
    os.environ.update(environment)
    tempfile.tempdir = None
    for name, most in (
        ("RLIMIT_DATA", 2 * BYTES),
        ("RLIMIT_CORE", 0),
    ):  # beyond it there is no memory
        resource.setrlimit(getattr(resource, name), (most, most))
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    output = io.BytesIO()
    sys.stdout = sys.stderr = io.TextIOWrapper(output, encoding="utf-8", write_through=True)
    sys.argv = ["gen", *argv]
    trouble()
    connection.send(None)
    try:
        status = main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        status = 1
        traceback.print_exc()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    connection.send((status, output.getvalue().decode(errors="replace"), memory))
    connection.close()
    os._exit(0)
