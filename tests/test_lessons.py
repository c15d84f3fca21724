"""The notebooks that teach run from top to bottom, and `gen lesson` hands them out."""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from data.phrasebook import phrase_book
from data.shapes import write_shapes
from gen.models.encoders import ENCODERS
from gen.search import STRATEGIES
from gen.training.registry import TASKS
from tasks.lessons import command as lesson_command
from tasks.lessons.command import lessons, title
from tasks.lessons.notebook import as_text, notebook

ROOT = Path(__file__).parents[1]
NAMES = ["letters", "words", "attention", "pictures", "labels", "your-own", "shipping"]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One kernel for all lessons, in a folder of its own: starting one takes as long as a lesson."""
    for package in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(package, reason="needs nbclient and ipykernel: pip install 'gen-toolkit[lessons]'")
    from jupyter_client import KernelManager

    desk = tmp_path_factory.mktemp("lessons")
    models = ""
    if find_spec("transformers"):
        from tests.test_against import make

        models = make(tmp_path_factory.mktemp("gpt"))
    manager = KernelManager()
    manager.start_kernel(
        cwd=str(desk),
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "PATH": str(Path(sys.executable).parent),  # without npm: nothing is downloaded
            "GEN_CACHE": str(desk / "cache"),
            "GEN_LESSON_QUICK": "1",
            "GEN_LESSON_MODELS": models,
            "OMP_NUM_THREADS": "1",
        },
    )
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_runs(name, kernel):
    import nbformat
    from nbclient import NotebookClient

    made = nbformat.reads(as_text(lessons()[name].read_text(encoding="utf-8")), as_version=4)
    nbformat.validate(made)
    made.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))  # no lesson lives on what another one has defined
    NotebookClient(made, km=kernel, timeout=None).execute()  # raises what a cell raises
    outputs = [output for cell in made.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == {"letters": 2, "words": 1, "attention": 3, "pictures": 6, "labels": 2}.get(name, 0)
    assert len(str(outputs)) < 2_000_000
    assert "ipywidgets" not in str(outputs)  # no warning without it


def test_a_lesson_runs_as_a_script(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEN_LESSON_QUICK", "1")
    try:
        runpy.run_path(str(lessons()["your-own"]), run_name="__main__")
    finally:
        for known, own in ((TASKS, "backwards"), (ENCODERS, "bag"), (STRATEGIES, "stumble")):
            known.pop(own, None)
    assert "stumble:" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["attention", "pictures"])
def test_a_lesson_takes_data_of_your_own(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test may have imported it: no notebook
    monkeypatch.setenv("GEN_LESSON_QUICK", "1")
    pairs = [f"{english}\t{german}\n" for english, _, german in phrase_book(60)]
    Path("mine.tsv").write_text("".join(pairs), encoding="utf-8")
    write_shapes(Path("my photos"), 20, 0)
    rows = [{"image": f"train-{i:05}.png", "caption": f"a shape, number {i}"} for i in range(20)]
    Path("my photos", "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = lessons()[name].read_text(encoding="utf-8")
    script = script.replace('PHOTOS = ""', 'PHOTOS = "my photos"').replace(
        'PAIRS, HELD_OUT = "", ""', 'PAIRS = "mine.tsv"; HELD_OUT = ""'
    )
    exec(compile(script, name, "exec"), {"__name__": "__main__"})
    out = capsys.readouterr().out
    assert "of 2 new pictures" in out if name == "pictures" else "[german.png]" in out


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_begins_with_text_and_ends_with_hidden_answers(name):
    cells = notebook(lessons()[name].read_text(encoding="utf-8"))["cells"]
    assert [cell["cell_type"] for cell in cells[:2]] == ["markdown", "code"]
    assert title(lessons()[name]) in cells[0]["source"][0]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    assert max(map(len, code)) <= 28  # a class is one cell
    exercises = "".join(cells[-1]["source"])
    count = len(re.findall(r"^\*\*\d\.\*\*", exercises, re.MULTILINE))
    assert count >= 3
    assert exercises.count("<details><summary>Answer</summary>\n\n") == exercises.count("\n\n</details>") == count
    for answer in re.findall(r"```python\n(.*?)```", exercises, re.DOTALL):
        compile(answer, name, "exec")


def test_gen_lesson_lists_and_copies(gen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(lessons()) == NAMES
    listed = gen("lesson")[1]
    assert [line.split()[:2] for line in listed.splitlines()[:7]] == [[str(i), n] for i, n in enumerate(NAMES, 1)]
    monkeypatch.setattr(lesson_command, "find_spec", lambda name: None)
    status, out, err = gen("lesson", 3)
    assert (status, out) == (0, "lessons/lesson_3_attention.ipynb\n")
    assert "pip install 'gen-toolkit[lessons]'" in err
    copy = tmp_path / "lessons" / "lesson_3_attention.ipynb"
    copy.write_text("mine")
    assert "is there already" in gen("lesson", "attention", "--no-open")[1]
    assert copy.read_text() == "mine"
    assert gen("lesson", "all", "-o", "all", "--no-open")[1].count("\n") == len(NAMES)
    gen("lesson", "words", "--script")
    assert (tmp_path / "lessons" / "lesson_2_words.py").read_bytes() == lessons()["words"].read_bytes()
    opened = []
    monkeypatch.setattr(lesson_command, "find_spec", lambda name: name == "notebook")
    monkeypatch.setattr(lesson_command.subprocess, "run", lambda words, check: opened.append(words))
    assert gen("lesson", 1)[0] == 0
    assert opened == [[sys.executable, "-m", "notebook", "lessons/lesson_1_letters.ipynb"]]
    gen("lesson", 1, 2)
    assert opened[1][-1] == "lessons"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["0"], "there is no lesson '0'; there is: 1 to 7, or letters"),
        (["8"], "there is no lesson '8'"),
        (["leters"], "did you mean letters?"),
        (["1", "x"], "there is no lesson 'x'"),
        (["1", "-o", "file/below"], "file"),
    ],
)
def test_a_wrong_name_is_one_line(words, expected, gen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    status, out, err = gen("lesson", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert expected in err
    assert not Path("lessons").exists()
