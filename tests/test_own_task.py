"""A task that is no part of the toolkit: one file, made known by an entry point, serves every command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tasks.data.sequences import sequence_pairs

import gen as toolkit
from gen.base.errors import ConfigError
from gen.training.registry import TASKS

MODULE = Path(__file__).with_name("own_task.py")
OPTIONS = ("--hidden-size", "48", "--validations", "2", "--precision", "fp32", "--device", "cpu")


def run_apart(folder, *words):
    """`gen` in a process of its own, which knows the task from the installed package alone."""
    paths = (str(folder / "packages"), os.environ.get("PYTHONPATH", ""))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "GEN_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "tasks.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with the package, words, and a trained model (`run`)."""
    folder = tmp_path_factory.mktemp("own")
    info = folder / "packages" / "own_task-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-task\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[gen.tasks]\nreverse = my_reverse:Reverse\n")
    shutil.copy(MODULE, folder / "packages" / "my_reverse.py")
    words = [a for a, _ in sequence_pairs("reverse", 3000, seed=1, letters="abcdef", lengths=(2, 5))]
    (folder / "words.txt").write_text("\n".join(words) + "\n")
    data = ("--words", folder / "words.txt", "--out", folder / "run", "--budget", "250 steps")
    done = run_apart(folder, "train", "reverse", *data, *OPTIONS)
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def own(desk, monkeypatch):
    """The package, installed in this process while the test lasts."""
    monkeypatch.syspath_prepend(str(desk / "packages"))
    before = dict(TASKS)
    TASKS.pop("reverse", None)  # other tests register one of their own
    yield desk
    TASKS.clear()
    TASKS.update(before)
    sys.modules.pop("my_reverse", None)


def test_it_is_short():
    assert len(MODULE.read_text().splitlines()) <= 150


def test_it_learns_and_says_so(desk):
    run = toolkit.Run(desk / "run")
    assert run.metrics["exact"] > 0.5  # by chance: 1 in some thousands
    assert run.metrics["first_letter"] >= run.metrics["exact"]
    said = (desk / "said.txt").read_text()
    assert "--learning-rate" in said
    assert "small models learn fast" in said
    assert f"gen reverse {desk / 'run'}" in said
    assert "* output: " in (desk / "run" / "samples.md").read_text()
    assert "exact" in (desk / "run" / "best" / "README.md").read_text()
    assert (desk / "run" / "plots" / "loss.png").stat().st_size > 1000


def test_help_lists_it(own, gen):
    out = gen("help", "train")[1]
    assert "gen train reverse" in out
    assert "gen reverse" in out
    status, out, _ = gen("train", "reverse", "--help")
    assert status == 0
    for text in ("--words", "Files with a word per line.", "--order", "--hidden-size", "--budget"):
        assert text in out
    status, out, _ = gen("reverse", "--help")
    assert status == 0
    assert "usage: gen reverse " in out


def test_using_it(own, gen, tmp_path):
    run = own / "run"
    status, out, err = gen("reverse", run, "abc", "fade")
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 2
    found = toolkit.load(run)
    assert out.splitlines() == found(["abc", "fade"])
    (tmp_path / "in.txt").write_text("abc\nfade\n")
    assert gen("reverse", run, "-i", tmp_path / "in.txt")[1] == out
    done = run_apart(own, "reverse", run, "abc", "fade")
    assert (done.returncode, done.stdout) == (0, out)
    status, out, _ = gen("reverse", run, "abc", "--json", "--beam", "3", "--n-best", "2")
    assert status == 0
    record = json.loads(out)
    assert record["input"] == "abc"
    assert len(record["outputs"]) == 2


def test_info_and_evaluate(own, gen):
    status, out, err = gen("info", own / "run", "--json")
    assert status == 0, err
    facts = json.loads(out)
    assert facts["task"] == "reverse"
    assert facts["exact"] > 0.5
    status, out, err = gen("evaluate", own / "run", "--json")
    assert status == 0, err
    figures = json.loads(out)
    assert figures["exact"] == pytest.approx(facts["exact"], abs=0.1)  # one greedy, one by beam search
    status, out, err = gen("evaluate", own / "run", "--beam", "1")
    assert status == 0, err
    assert "first_letter" in out


def test_score(own, gen, tmp_path):
    (tmp_path / "p.tsv").write_text("abc\tcba\nabc\tabc\n")
    status, out, err = gen("score", own / "run", tmp_path / "p.tsv")
    assert status == 0, err
    right, wrong = (line.split("\t") for line in out.splitlines())
    assert right[2:] == ["abc", "cba"]
    assert float(right[0]) > float(wrong[0])


def test_plot(own, gen, tmp_path):
    status, out, err = gen("plot", "attention", own / "run", "--text", "abc", "-o", tmp_path / "a.png")
    assert status == 0, err
    assert out.splitlines()[0] == toolkit.load(own / "run")("abc")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_export(own, gen, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    status, _, err = gen("export", own / "run", "-o", tmp_path / "plain")
    assert status == 0, err
    status, _, err = gen("export", own / "run", "-o", tmp_path / "small", "--int8")
    assert status == 0, err
    assert "exactly right" in err
    assert "100 held-out examples" in err
    whole = gen("reverse", own / "run", "abc", "fade")[1]
    assert gen("reverse", tmp_path / "plain", "abc", "fade")[1] == whole
    status, out, err = gen("reverse", tmp_path / "small", "abc", "fade")
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 2


def test_going_on_and_beginning_from_it(own, gen, tmp_path):
    data = ("--words", own / "words.txt", "--budget", "250 steps")
    status, out, err = gen("train", "reverse", *data, "--out", own / "run", *OPTIONS)
    assert status == 0, err
    assert "already trained" in out
    other = ("--words", own / "words.txt", "--budget", "2 steps", "--init-from", own / "run", *OPTIONS[2:])
    status, _, err = gen("train", "reverse", *other, "--out", tmp_path / "more", "--order", "sorted")
    assert status == 0, err
    status, _, err = gen("translate", own / "run", "--text", "abc")
    assert status == 2
    assert f"use `gen reverse {own / 'run'}`" in err


def test_mistakes(own, gen, tmp_path):
    cases = [
        (["--out", "x"], "--words: name a file with a word per line"),
        (["--words", own / "words.txt", "--out", "x", "--hidden-size", "0"], "--hidden-size must be at least 1"),
        (["--words", own / "words.txt", "--out", "x", "--odrer", "sorted"], "did you mean --order?"),
        (["--words", own / "words.txt", "--out", tmp_path / "x", "--valid-size", "99999"], "--valid-size are"),
    ]
    for words, message in cases:
        status, _, err = gen("train", "reverse", *words)
        assert status == 2
        assert message in err
        assert err.count("\n") == 1
    status, _, err = gen("reverse", own / "run", "abc", "-i", own / "words.txt")
    assert (status, err) == (2, "gen: ITEM and --input exclude each other\n")
    status, _, err = gen("reverse", own / "run", "abc", "--json", "--scores")
    assert (status, err) == (2, "gen: --json includes scores: leave out --scores\n")


def test_from_python(own, tmp_path):
    """By its name, and by its class."""
    words = str(own / "words.txt")
    options = {"budget": "3 steps", "hidden_size": 16, "validations": 1, "device": "cpu"}
    run = toolkit.train("reverse", words=words, out=tmp_path / "a", **options)
    assert isinstance(run.model("abc"), str)
    import my_reverse

    again = toolkit.train(my_reverse.Reverse, words=words, **options)
    assert again.metrics["exact"] == run.metrics["exact"]
    with pytest.raises(ConfigError, match="unknown option 'wrods'; did you mean 'words'"):
        toolkit.train("reverse", wrods=words)
