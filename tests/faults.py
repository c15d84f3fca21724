"""Fault injection: small trainings of every task that are killed, and checks that the result is the same.

test_faults.py uses it for a few kills, soak.py for many.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import gen.training.session
import gen.training.task
from data.sequences import sequence_pairs
from data.shapes import write_shapes
from gen.training.step import Stepper
from gen.training.task import Task
from gen.training.validation import Validator
from tasks.cli import main

for loaded_once in ("caption.task", "commands.train", "text.task", "translate.task"):  # in the server that forks
    importlib.import_module(f"tasks.{loaded_once}")
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], fused=True)  # the first one takes seconds of imports

COMMON = (
    *("--precision", "fp32", "--device", "cpu", "--validations", "3", "--accumulate", "2", "--ema", "0.9"),
    *("--average", "2", "--dropout", "0.2", "--save-every", "0.15s", "--hidden-size", "24"),
)
TEXT = (*("--chunk", "16", "--batch-size", "4", "--embedding-size", "8", "--budget", "70 steps"), *COMMON)
PAIRS = (
    *("--level", "char", "--embedding-size", "8", "--encoder-size", "12", "--batch-tokens", "200"),
    *("--budget", "40 steps", *COMMON),
)
PICTURES = (
    *("--embedding-size", "8", "--memory-size", "16", "--batch-tokens", "120", "--budget", "40 steps"),
    *("--min-frequency", "1", "--r-drop", "1", *COMMON),
)
REWARD = (
    *("--self-critical", "--pictures", "6", "--samples", "2", "--budget", "12 steps"),
    *("--precision", "fp32", "--device", "cpu", "--validations", "3", "--save-every", "0.15s"),
)


def commands(folder: Path) -> dict[str, list[str]]:
    """The command of a training of each kind, without ``--out``; writes the data to ``folder``.

    The self-critical training starts from ``folder/captions``: train "caption" into it first.
    """
    text = "the cat sat on the mat. the dog ran to the cat, and the cat ran off the mat.\n"
    (folder / "book.txt").write_text(text * 60)
    pairs = sequence_pairs("reverse", 300, seed=1, letters="abcdef", lengths=(2, 7))
    for side, texts in zip(("src", "tgt"), zip(*pairs, strict=True), strict=True):
        (folder / f"train.{side}").write_text("".join(t + "\n" for t in texts))
    write_shapes(folder / "pictures", training=30, held_out=8)
    caption = ["train", "caption", "--images", str(folder / "pictures")]
    return {
        "text": ["train", "text", "--data", str(folder / "book.txt"), *TEXT],
        "translate": [
            "train",
            "translate",
            "--train",
            *(str(folder / f"train.{s}") for s in ("src", "tgt")),
            *PAIRS,
        ],
        "caption": [*caption, *PICTURES],
        "self-critical": [*caption, "--init-from", str(folder / "captions"), *REWARD],
    }


def _work(argv: list[str], environment: dict[str, str], die_at: str, log: str) -> None:
    """Runs a command in the process that will be killed; ``python CODE`` is one, too."""
    os.environ.update(environment)
    os.fsync = _nothing  # a killed process loses nothing that it has written
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "w")  # noqa: SIM115
    without_plots()
    if die_at:
        _die_at(*die_at.split(":"), argv[argv.index("--out") + 1])
    if argv[0] == "python":
        exec(argv[1], {})
        sys.exit(0)
    sys.exit(main(argv))


def without_plots() -> None:
    """Leaves out the plots, which take longer than the training."""
    gen.training.session.plot_losses = gen.training.task.plot_attended = _nothing


def _nothing(*args: object, **kwargs: object) -> None:
    """Replaces a plot, or a wait for the disk."""


def _die_at(kind: str, count: str, folder: str) -> None:
    """Arranges a SIGKILL at the ``count``-th event of a kind: "file" (a file in ``folder`` is opened, renamed or
    removed), "batch" (a micro-batch begins), "step" (gradients are computed, weights not yet updated) or
    "validation".
    """
    left = [int(count)]

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in FILE_EVENTS and str(arguments[0]).startswith(folder):
            tick()

    def before(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def dying(self: object, *args: object, **kwargs: object) -> object:
            tick()
            return method(self, *args, **kwargs)

        setattr(owner, name, dying)

    if kind == "file":
        sys.addaudithook(hook)
    else:
        before(*{"batch": (Task, "loss"), "step": (Stepper, "_update"), "validation": (Validator, "_try")}[kind])


FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "shutil.rmtree"}


class Trainings:
    """Processes that train. They start quickly: they are forked from one that has imported everything."""

    def __init__(self, cache: Path) -> None:
        self.environment = {"GEN_CACHE": str(cache)}
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.faults"])

    def start(self, argv: list[str], out: Path, die_at: str = "") -> multiprocessing.process.BaseProcess:
        return self._process([*argv, "--out", str(out)], self.environment, die_at)

    def _process(
        self, argv: list[str], environment: dict[str, str], die_at: str = "", log: str = os.devnull
    ) -> multiprocessing.process.BaseProcess:
        process = self.context.Process(target=_work, args=(argv, environment, die_at, log))
        process.start()
        return process

    def together(self, argv: list[str], logs: Path, processes: int = 2) -> list[int | None]:
        """Runs a command in several processes, as torchrun starts them; process n writes its output to
        ``logs/n``. Returns their exit statuses."""
        logs.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
        started = [
            self._process(
                argv, {**self.environment, **world, "RANK": str(n), "LOCAL_RANK": str(n)}, log=str(logs / str(n))
            )
            for n in range(processes)
        ]
        for process in started:
            process.join()
        return [process.exitcode for process in started]

    def finish(self, argv: list[str], out: Path, die_at: str = "") -> int | None:
        """Runs a training to its end or to a moment such as "step:7" (see `_die_at`). Returns its exit status."""
        process = self.start(argv, out, die_at)
        process.join()
        return process.exitcode

    def killed_at(self, argv: list[str], out: Path, moments: Sequence[str]) -> None:
        """Kills a training at each of several moments, resuming it in between, then lets it finish."""
        for moment in moments:
            assert self.finish(argv, out, moment) == -signal.SIGKILL, moment
        assert self.finish(argv, out) == 0

    def killed(self, argv: list[str], out: Path, kills: int, seconds: float, rng: random.Random) -> int:
        """Kills a training at random moments, at most ``kills`` times, then lets it finish.

        Args:
            argv: the command.
            out: the run folder.
            kills: the maximum number of kills.
            seconds: the duration of an undisturbed training.
            rng: draws the moments.

        Returns:
            The number of kills; fewer if the training ended before.
        """
        done = 0
        for _ in range(kills):
            process = self.start(argv, out)
            process.join(rng.uniform(0.1, 0.9) * seconds)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            done += 1
        assert self.finish(argv, out) == 0
        return done

    def timed(self, argv: list[str], out: Path) -> float:
        """Runs an undisturbed training; returns the seconds it took."""
        began = time.monotonic()
        assert self.finish(argv, out) == 0
        return time.monotonic() - began


def outcome(run: Path) -> dict[str, object]:
    """The result of a training, which kills must not change: weights to the bit, figures, samples."""
    passing = {"seconds", "tokens_per_second", "memory_mb"}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": {name: (run / name / "model.safetensors").read_bytes() for name in ("best", "last")},
        "records": [{k: v for k, v in record.items() if k not in passing} for record in records],
        "samples": (run / "samples.md").read_text(),
        "rubbish": [p.name for p in run.iterdir() if p.name.startswith(".") and p.name != ".lock"],
    }


def differences(a: dict[str, object], b: dict[str, object]) -> list[str]:
    """The parts in which two outcomes differ."""
    return [name for name in a if a[name] != b[name]]
