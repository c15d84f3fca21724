"""The examples in docstrings run and return what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import data
import gen
import tasks

# Modules with examples that do not run yet.
LATER: set[str] = set()


def modules_with_examples():
    """The names of all modules with examples. Only packages are imported to find them."""
    for package in (gen, tasks, data):
        if has_examples(package.__spec__):
            yield package.__name__
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if has_examples(found.module_finder.find_spec(found.name)):
                yield found.name


def has_examples(spec):
    return ">>>" in spec.loader.get_source(spec.name)


@pytest.mark.parametrize("name", sorted(set(modules_with_examples()) - LATER))
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    runner, report = doctest.DocTestRunner(), []
    for test in doctest.DocTestFinder().find(module, name):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).attempted > 0
    assert not report, "".join(report)


def test_examples_are_found():
    assert {"gen.inputs.tokenizer", "gen.metrics.scores", "data.sequences"} <= set(modules_with_examples())
