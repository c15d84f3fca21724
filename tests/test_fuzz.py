"""Damaged input, for every command a little; `make soak` does thousands."""

from __future__ import annotations

import random

import pytest

from tests import fuzz


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    fuzz.desk(folder)
    return folder


def test_damaged_input_is_answered(desk, tmp_path):
    """No traceback, no hang, nothing half-written; each kind of damage twice."""
    assert fuzz.campaign(desk, 2 * len(fuzz.CASES), seed=1, scratch=tmp_path / "scratch") == []


def test_a_case_that_goes_wrong_is_noticed(desk, tmp_path, monkeypatch):
    def broken(argv):
        raise ValueError("a bug")

    monkeypatch.setattr(fuzz, "main", broken)
    assert "ValueError: a bug" in fuzz.run(desk, fuzz.CASES[0], random.Random(1), tmp_path / "scratch")
