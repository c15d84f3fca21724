"""A little of `make soak`, which does thousands: damaged and hostile input for every command."""

from __future__ import annotations

import pytest

from tests.soak import damage, desk
from tests.soak.child import SECONDS, Children, Ending
from tests.soak.troubles import Troubles


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    """Undamaged files in a folder, and processes to run commands in."""
    folder = tmp_path_factory.mktemp("fuzz")
    children = Children(folder)
    desk.prepare(folder, children, exported=False)
    return folder, children


def test_damaged_input_is_answered(children, tmp_path):
    """No traceback, no hang, nothing half-written. Exported models: test_crafted.py."""
    folder, processes = children
    numbers = [n for n, case in enumerate(damage.CASES) if "-exported" not in case.files][::3]
    found = [damage.run(number, 1, folder, tmp_path / "scratch", processes) for number in numbers]
    assert [problem for _, problem in found if problem] == []


@pytest.mark.parametrize(
    ("ending", "problem"),
    [
        (Ending(None, "", SECONDS, 0), "no end"),
        (Ending(1, "Traceback (most recent call last):\nValueError: a bug", 1, 0), "ValueError: a bug"),
        (Ending(-11, "", 1, 0), "exit status -11"),
        (Ending(0, "", 1, 4 << 30), "4,096 MiB"),
        (Ending(2, "what?", 1, 0), "without a message"),
        (Ending(2, "gen: no such file\n", 1, 0), ""),
    ],
)
def test_what_counts_as_a_problem(ending, problem):
    assert problem in ending.problem()
    assert bool(problem) == bool(ending.problem())


@pytest.mark.parametrize("part", ["signals:3", "disks:1", "disks:2", "disks:4"])
def test_bad_luck_leaves_nothing_half_written(children, tmp_path, part):
    """A signal during a translation; disks that get full during a translation, sidecars, and a training."""
    folder, processes = children
    name, _, number = part.partition(":")
    _, problem = getattr(Troubles(folder, 1, processes), name)(int(number), tmp_path / "scratch")
    assert problem == ""
