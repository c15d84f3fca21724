"""What is foreign is data: never markup, mathematics, or a record of our own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from gen.metrics.plots import plot_attention, plot_looks, plot_losses, plot_runs
from gen.training.run_folder import RunFolder
from tasks.caption.command import _cell
from tests.conftest import TEXT, TINY

ODD = ["$$", "a$b$", "$x^2", "\\frac", "[/x]"]


def test_dollar_signs_are_no_mathematics_in_plots(tmp_path):
    for end in ("png", "svg"):
        plot_attention(np.full((5, 5), 0.2), ODD, ODD, tmp_path / f"a.{end}", title="$$")
        plot_looks(np.zeros((8, 8, 3), np.uint8), np.full((5, 4), 0.25), ODD, tmp_path / f"b.{end}")
        plot_runs({name: [{"seconds": 1, "validation": {"loss": 1.0}}] for name in ODD}, tmp_path / f"c.{end}")
    assert len(list(tmp_path.iterdir())) == 6


def test_a_figure_that_is_no_number_is_left_out_of_the_plot(tmp_path):
    each = [{"seconds": float(i), "validation": {"loss": 1.0, "f1": f1}} for i, f1 in enumerate((np.nan, 0.5))]
    plot_losses(each, tmp_path / "a.png", metric="f1")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_plots_of_long_texts_have_a_size_that_can_be_opened(tmp_path):
    plot_attention(np.full((400, 900), 1 / 900), ["a"] * 400, ["b"] * 900, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) < 8000


def test_samples_are_no_records(tmp_path):
    run = RunFolder(tmp_path, {})
    run.log({"step": 1, "seconds": 0.0, "samples": run.add_samples(1, "first", "## Step ,, \n## Step 999, x")})
    kept = (tmp_path / "samples.md").read_bytes()
    run.log({"step": 2, "seconds": 1.0, "samples": run.add_samples(2, "second", "## Step 1, again")})
    run.forget_after(1)
    assert (tmp_path / "samples.md").read_bytes() == kept
    assert [record["step"] for record in run.records()] == [1]
    run.forget_after(0)
    assert (tmp_path / "samples.md").read_bytes() == b""


@pytest.mark.parametrize("training", [5, {"train": 5, "reasons": 3, "versions": [1]}, {"command": "[/x] $$"}])
def test_metadata_of_any_form_is_shown_as_it_is(gen, trained, tmp_path, training):
    folder = tmp_path / "foreign"
    shutil.copytree(trained / "best", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["training"] = training
    config["metrics"] = {"[red]loss[/red]": "[/x]", "seconds": "soon"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    status, out, err = gen("info", folder)
    if not isinstance(training, dict):
        assert status == 2
        assert len(err.splitlines()) == 1
        return
    assert status == 0, err
    assert "[red]loss[/red]" in out
    assert "[/x]" in out


# -- names of files ------------------------------------------------------------------------------------------


def test_names_that_are_not_utf8_lose_nothing(gen, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    book, run, exported = (os.fsdecode(name) for name in (b"b\xffok.txt", b"r\xffun", b"ex\xffported"))
    Path(book).write_text(TEXT * 40)
    status, _, err = gen("train", "text", "--data", book, "--out", run, "--budget", "3 steps", *TINY)
    assert status == 0, err
    assert "already trained" in gen("train", "text", "--data", book, "--out", run, "--budget", "3 steps", *TINY)[1]
    assert gen("evaluate", run)[0] == 0
    assert gen("export", run, "-o", exported)[0] == 0
    assert gen("generate", run, "--seed", "1")[1] == gen("generate", exported, "--seed", "1")[1] != ""


def test_control_characters_in_names_move_no_cursor(gen, tmp_path) -> None:
    book = tmp_path / "a[x]\n\x1b[31m.txt"
    book.write_text(TEXT * 40)
    status, said, err = gen("train", "text", "--data", book, "--out", tmp_path / "r", "--budget", "3 steps", *TINY)
    assert status == 0, err
    shown = gen("info", tmp_path / "r")[1] + said + (tmp_path / "r" / "best" / "README.md").read_text()
    assert "\x1b" not in shown
    assert "a[x]" in shown
    status, _, err = gen("info", tmp_path / "no\x1b[31m\nfolder")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert r"no\x1b[31m\nfolder" in err


def test_no_spreadsheet_takes_a_caption_for_a_formula() -> None:
    assert [_cell(text) for text in ("=1+1", "+1", "-1", "@a", "a=1", "")] == [
        "'=1+1",
        "'+1",
        "'-1",
        "'@a",
        "a=1",
        "",
    ]


def test_a_pipe_of_the_shell_is_read_once(gen, tmp_path, book) -> None:
    reading, writing = os.pipe()
    os.write(writing, book.read_bytes()[:4000])
    os.close(writing)
    try:
        name = f"/dev/fd/{reading}"
        status, _, err = gen(
            "train", "text", "--data", name, "--out", tmp_path / "r", "--budget", "3 steps", *TINY
        )
    finally:
        os.close(reading)
    assert status == 0, err
    os.mkfifo(tmp_path / "fifo")
    status, _, err = gen("train", "text", "--data", tmp_path / "fifo", "--out", tmp_path / "q", "--dry-run", *TINY)
    assert status == 2
    assert "is no regular file" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hidden-size", "9" * 30), "--hidden-size must be at most"),
        (("--batch-size", "9" * 30), "--batch-size must be at most"),
        (("--dropout", "nan"), "--dropout must be"),
        (("--learning-rate", "inf"), "--learning-rate must be"),
        (("--device", "meta"), "--device meta: not available"),
    ],
)
def test_absurd_numbers_get_a_line(gen, tmp_path, book, words, message) -> None:
    status, _, err = gen("train", "text", "--data", book, "--out", tmp_path / "r", *words)
    assert status == 2
    assert message in err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [({"WORLD_SIZE": "two"}, "WORLD_SIZE='two'"), ({"WORLD_SIZE": "2"}, "RANK is not")],
)
def test_an_environment_that_makes_no_sense(gen, tmp_path, book, monkeypatch, environment, message) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    status, _, err = gen("train", "text", "--data", book, "--out", tmp_path / "r", "--budget", "3 steps", *TINY)
    assert status == 2
    assert message in err


def test_closed_streams_are_no_error(trained) -> None:
    words = [sys.executable, "-m", "gen", "generate", str(trained), "--max-new-tokens", "3"]
    closed = subprocess.run(["bash", "-c", f"{shlex.join(words)} >&- 2>&- <&-"], cwd=Path(__file__).parents[1])
    assert closed.returncode == 0
