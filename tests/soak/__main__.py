"""Hours of bad luck, for every command.

    python -m tests.soak [--seed N] [PART=COUNT | PART:NUMBER]...

Parts, and how much of each by default:

    kills=100      SIGKILLs at random moments of trainings of all kinds, which must end as undisturbed ones do
    damage=10000   damaged and hostile files of all kinds, for all commands
    signals=200    SIGINT, SIGTERM or SIGHUP at random moments of exports, trainings, translations
    writers=40     eight processes that write one output, or read it meanwhile
    disks=500      disks that are full from some file on, or within one, for everything that writes

Named parts alone are run. Nothing may print a traceback, take over 60 seconds or 3 GB, or leave anything
half-written. Every problem is printed with the command line that repeats it alone, which has PART:NUMBER. The exit
status is 1 if there was any.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import faults
from tests.soak import damage, desk
from tests.soak.child import Children, Ending
from tests.soak.troubles import Troubles

PARTS = {"kills": 100, "damage": 10_000, "signals": 200, "writers": 40, "disks": 500}


class Soak:
    """Runs cases and collects what went wrong."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.children = Children(folder)
        self.troubles = Troubles(folder, seed, self.children)
        self.began = time.monotonic()
        self.count: Counter[str] = Counter()
        self.problems = self.memory = self.minutes = 0
        self.seconds = 0.0

    def note(self, part: str, number: int, ending: Ending | None, problem: str) -> None:
        """Counts a case, and prints what was wrong."""
        self.count[part] += 1
        if ending:
            self.memory, self.seconds = max(self.memory, ending.memory), max(self.seconds, ending.seconds)
        if problem:
            self.problems += 1
            print(f"\n{problem}\nagain: python -m tests.soak --seed {self.seed} {part}:{number}", flush=True)
        minutes = int(time.monotonic() - self.began) // 60
        if minutes > self.minutes:
            self.minutes = minutes
            print(f"{minutes} minutes: {self.count[part]:,} {part}, {self.problems} problems", flush=True)

    def damage(self, numbers: range) -> None:
        """Damaged files, as many at once as there are cores."""
        self.each(
            "damage",
            numbers,
            lambda number, scratch: damage.run(number, self.seed, self.folder, scratch, self.children),
        )

    def signals(self, numbers: range) -> None:
        """Signals at random moments."""
        self.each("signals", numbers, self.troubles.signals)

    def writers(self, numbers: range) -> None:
        """Several writers of one output."""
        self.each("writers", numbers, self.troubles.writers)

    def disks(self, numbers: range) -> None:
        """Full disks."""
        self.each("disks", numbers, self.troubles.disks)

    def each(self, part: str, numbers: range, case: Callable[[int, Path], tuple[Ending | None, str]]) -> None:
        """Runs cases by number, each with a folder of its own."""

        def one(number: int) -> tuple[Ending | None, str]:
            return case(number, self.folder / f"scratch-{threading.get_ident()}")

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for number, found in zip(numbers, pool.map(one, numbers), strict=True):
                self.note(part, number, *found)

    def kills(self, numbers: range) -> None:
        """Kills trainings of all kinds at random moments; a number is a training with up to three kills."""
        folder = self.folder / "kills"
        folder.mkdir()
        trainings, commands = faults.Trainings(folder / "cache"), faults.commands(folder)
        trainings.finish(commands["caption"], folder / "captions")
        seconds = {kind: trainings.timed(argv, folder / kind) for kind, argv in commands.items()}
        done = 0
        for number in range(numbers.start, 10 * numbers.stop):
            kind, rng = list(commands)[number % len(commands)], random.Random(f"{self.seed}-{number}")
            run = folder / f"{kind}-{number}"
            done += trainings.killed(commands[kind], run, rng.randint(1, 3), seconds[kind], rng)
            found = faults.differences(faults.outcome(folder / kind), faults.outcome(run))
            self.note("trainings killed", number, None, f"{kind} differs in {', '.join(found)}" if found else "")
            if done >= len(numbers):
                break
        self.count["SIGKILLs"] = done


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__, add_help=True)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("part", nargs="*", default=[f"{part}={count}" for part, count in PARTS.items()])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gen-soak-") as name:
        soak = Soak(Path(name), given.seed)
        desk.prepare(soak.folder, soak.children)
        for word in given.part:
            part, alone, number = word.partition(":")
            part, _, count = part.partition("=")
            if part not in PARTS or not (number or count).isdecimal():
                parser.error(f"{word}: give one of {', '.join(PARTS)}, as {part}=COUNT or {part}:NUMBER")
            getattr(soak, part)(range(int(number), int(number) + 1) if alone else range(int(count)))
    counts = ", ".join(f"{count:,} {part}" for part, count in soak.count.items())
    print(
        f"{counts}: {soak.problems} problems; at most {soak.memory >> 20:,} MiB and {soak.seconds:.0f} s; "
        f"{(time.monotonic() - soak.began) / 60:.0f} minutes"
    )
    return int(soak.problems > 0)


if __name__ == "__main__":
    sys.exit(main())
