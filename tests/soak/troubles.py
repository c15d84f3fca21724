"""Sound input and bad luck: signals, several processes that write one output, full disks."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests import faults
from tests.soak.child import SECONDS, Children, Ending
from tests.soak.desk import TEXT as RESUMED

_CPU = "--device cpu --precision fp32 --validations 2 --hidden-size 16 --embedding-size 8"

EXPORT = "export DESK/text -o {}/made"
GENERATED = "generate {}/made --max-new-tokens 5 --seed 1"
TRANSLATE = "translate DESK/translate -i DESK/lines.txt -o {}/made.txt --max-new-tokens 8"
CAPTIONS = f"train caption --images DESK/pictures --min-frequency 1 --budget 2_steps --out {{}}/run {_CPU}"
TEXT = f"train text --data DESK/book.txt --chunk 16 --batch-size 4 --budget 6_steps --out {{}}/run {_CPU}"
PAIRS = f"train translate --data DESK/pairs.tsv --level char --budget 4_steps --out {{}}/run {_CPU}"
SIDECARS = "caption DESK/captions {}/pictures --sidecar --max-new-tokens 5"
SHOWN = "caption DESK/captions {}/pictures --show {}/made.html --max-new-tokens 5"
PLOT = "plot attention DESK/translate --text abc -o {}/made.png --max-new-tokens 5"


class Troubles:
    """Cases by number, each in a folder ``scratch`` that it may fill.

    Args:
        folder: the desk.
        seed: of all choices.
        children: run the commands.
    """

    def __init__(self, folder: Path, seed: int, children: Children) -> None:
        self.folder, self.seed, self.children = folder, seed, children
        self.usual: dict[str, float] = {}

    def _words(self, command: str, scratch: Path) -> list[str]:
        places = (("_", " "), ("{}", str(scratch)), ("DESK", str(self.folder)))
        words = command.split()
        for place, text in places:
            words = [word.replace(place, text) for word in words]
        return words

    def _fresh(self, scratch: Path, *names: str) -> dict[str, str]:
        """Empties the folder but for copies from the desk. Returns an environment with its own cache."""
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / "tmp").mkdir(parents=True)
        for name in names:
            source, _, target = name.partition(":")
            path = self.folder / source
            (shutil.copytree if path.is_dir() else shutil.copy)(path, scratch / (target or source))
        return {"GEN_CACHE": str(scratch / "cache"), "TMPDIR": str(scratch / "tmp")}

    def _again(self, command: str, scratch: Path, environment: dict[str, str], *allowed: int) -> str:
        """Runs a command after the trouble is over. What is wrong about that; "" for nothing."""
        ending = self.children.run(self._words(command, scratch), environment=environment)
        if problem := ending.problem((0, *allowed)):
            return f"the next time: {problem}"
        left = [str(p.relative_to(scratch)) for p in scratch.rglob("*.gen-*")]
        left += [p.name for p in (scratch / "tmp").iterdir() if "gen" in p.name]
        return f"left {left}" if left else ""

    # -- signals -------------------------------------------------------------------------------------------

    def signals(self, number: int, scratch: Path) -> tuple[Ending, str]:
        """A signal, or two, at a random moment."""
        command = (EXPORT, CAPTIONS, EXPORT, TRANSLATE, TEXT)[number % 5]
        rng = random.Random(f"{self.seed}-{number}")
        if command not in self.usual:
            self.usual[command] = self.children.run(
                self._words(command, scratch), environment=self._fresh(scratch)
            ).seconds
        old = ["text-exported:made"] if command == EXPORT and rng.random() < 0.5 else []
        environment = self._fresh(scratch, *old)
        child = self.children.start(self._words(command, scratch), environment=environment)
        child.begun()
        time.sleep(rng.random() * self.usual[command])
        sent = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        child.signal(sent)
        if rng.random() < 0.2:
            time.sleep(rng.random() * 0.3)
            child.signal(sent)
        ending = child.end()
        problem = ending.problem((0, 130, 143, -signal.SIGTERM, -signal.SIGHUP))
        if not problem and (scratch / "made").exists():
            problem = self._again(GENERATED, scratch, environment)
        problem = problem or self._again(command, scratch, environment)
        return ending, problem and f"{sent.name}, {command}: {problem}"

    # -- several writers -----------------------------------------------------------------------------------

    def writers(self, number: int, scratch: Path) -> tuple[Ending, str]:
        """Eight processes that write, or half of them read, one output at once."""
        command, end, read = (
            (TRANSLATE, "", ""),
            (EXPORT, "", ""),
            (CAPTIONS, "-{n}", ""),
            (EXPORT, "", GENERATED),
            (TEXT, "", ""),
        )[number % 5]
        old = ["text-exported:made"] if command == EXPORT and (read or number % 2) else []
        environment = self._fresh(scratch, *old)
        started = []
        for n in range(8):
            chosen = read if read and n % 2 else command.replace("{}/run", f"{{}}/run{end.format(n=n)}")
            started.append(self.children.start(self._words(chosen, scratch), environment=environment))
        endings = [child.end(8 * SECONDS) for child in started]
        problem = next(filter(None, (ending.problem() for ending in endings)), "")
        if not problem and command != TEXT and any(ending.status for ending in endings):
            problem = "; ".join(ending.said.strip() for ending in endings if ending.status)
        if not problem and not any(ending.status == 0 for ending in endings):
            problem = "none succeeded"
        if not problem and command == EXPORT:
            problem = self._again(GENERATED, scratch, environment)
        again = command.replace("{}/run", "{}/run-0") if end else command
        problem = problem or self._again(again, scratch, environment)
        worst = max(endings, key=lambda ending: ending.memory)
        return worst, problem and f"8 × {command}{' and ' if read else ''}{read}: {problem}"

    # -- full disks ----------------------------------------------------------------------------------------

    def disks(self, number: int, scratch: Path) -> tuple[Ending, str]:
        """A disk that is full from some file on, or within a file."""
        command, copies, old = (
            (EXPORT, ["text-exported:made"], "made"),
            (TRANSLATE, ["lines.txt:made.txt"], "made.txt"),
            (SIDECARS, ["pictures"], ""),
            (TEXT, [], ""),
            (TEXT, ["run"], ""),
            (CAPTIONS, [], ""),
            (PAIRS, [], ""),
            (PLOT, ["a.gif:made.png"], ""),
            (SHOWN, ["pictures", "lines.txt:made.html"], "made.html"),
        )[number % 9]
        rng = random.Random(f"{self.seed}-{number}")
        environment = self._fresh(scratch, *copies)
        if copies == ["run"]:
            command = TEXT.replace(_CPU, " ".join(word.replace(" ", "_") for word in RESUMED))
        before = _content(scratch / old) if old else {}
        if rng.random() < 0.6:
            del environment["GEN_CACHE"]  # what is in that of the desk need not be written
        if rng.random() < 0.5:
            trouble: Callable[[], object] = partial(full_from, int(rng.expovariate(1 / 8)), str(scratch))
        else:
            trouble = partial(full_within, int(2 ** rng.uniform(0, 21)))
        if command != PLOT and rng.random() < 0.7:
            trouble = partial(without_plots, trouble)
        ending = self.children.run(self._words(command, scratch), trouble, environment)
        problem = ending.problem()
        if not problem and old and ending.status and _content(scratch / old) != before:
            problem = f"{old} is neither the old nor the new one"
        problem = problem or self._again(command, scratch, environment, *[1] * (command == SIDECARS))
        return ending, problem and f"{trouble}, {command}: {problem}"


def _content(path: Path) -> dict[str, bytes]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def without_plots(trouble: Callable[[], object]) -> None:
    """A trouble where plots would take longer than all the rest."""
    faults.without_plots()
    trouble()


def full_from(count: int, folder: str) -> None:
    """From the ``count``-th file or folder on that is made in ``folder``, there is no space."""
    left = [count]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        if (opened or event == "os.mkdir") and str(arguments[0]).startswith(folder):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments[0])

    sys.addaudithook(hook)


_WRITES = os.O_WRONLY | os.O_RDWR


def full_within(size: int) -> None:
    """No file can have more than ``size`` bytes, whoever writes it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
