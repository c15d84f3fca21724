"""`make soak`: the suite's tests with kills and damaged input, for an hour instead of a minute.

    python -m tests.soak [kills] [cases]

kills: the number of SIGKILLs at random moments, over all kinds of training (50). cases: the number of damaged
inputs (2,000).
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from tests import faults, fuzz


def kill(folder: Path, count: int) -> int:
    """Kills trainings of all kinds at random moments. Returns how many results differ."""
    trainings, commands = faults.Trainings(folder / "cache"), faults.commands(folder)
    trainings.finish(commands["caption"], folder / "captions")
    seconds = {kind: trainings.timed(argv, folder / kind) for kind, argv in commands.items()}
    done = wrong = number = 0
    rng = random.Random(0)
    while done < count:
        kind = list(commands)[number % len(commands)]
        run = folder / f"{kind}-{number}"
        kills = trainings.killed(commands[kind], run, min(rng.randint(1, 3), count - done), seconds[kind], rng)
        found = faults.differences(faults.outcome(folder / kind), faults.outcome(run))
        done, wrong, number = done + kills, wrong + bool(found), number + 1
        print(f"{kind}: {kills} kills, {'differs in ' + ', '.join(found) if found else 'identical'}", flush=True)
    print(f"{done} SIGKILLs in {number} trainings; {wrong} with another result than undisturbed ones", flush=True)
    return wrong


def damage(folder: Path, count: int) -> int:
    """Runs commands on damaged inputs. Returns the number that did not end with a clear message."""
    fuzz.desk(folder)
    problems = []
    for first in range(0, count, 100):
        found = fuzz.campaign(folder, min(100, count - first), seed=first + 1, scratch=folder / "scratch")
        problems += found
        print(f"{first + 100:,} damaged inputs, {len(problems)} problems", *found, sep="\n", flush=True)
    return len(problems)


def main() -> int:
    kills, cases = (int(word) for word in (*sys.argv[1:], *("50", "2000")[len(sys.argv) - 1 :]))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gen-soak-") as name:
        for part in ("kills", "damage"):
            (Path(name) / part).mkdir()
        wrong = kill(Path(name) / "kills", kills) if kills else 0
        wrong += damage(Path(name) / "damage", cases) if cases else 0
    print(f"{(time.monotonic() - began) / 60:.0f} minutes")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
