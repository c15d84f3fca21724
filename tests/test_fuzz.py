"""A little of `make soak`, which does thousands: damaged and hostile input for every command."""

from __future__ import annotations

import pytest

from tests.soak import damage, desk
from tests.soak.child import SECONDS, Children, Ending


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
    numbers = [n for n, case in enumerate(damage.CASES) if "-exported" not in case.files][::2]
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
