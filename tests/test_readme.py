"""The README's commands and code do what they say, and so does the demo."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

import gen as toolkit
from data.shapes import draw, scenes, write_shapes
from gen import UserError
from gen.search import STRATEGIES
from gen.training.registry import TASKS
from gen.web import assets
from tasks.demo import caption as demo_caption
from tasks.demo import command as demo_command
from tasks.demo import translation as demo_translation
from tests.conftest import TEXT, TINY

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIBRARY = (ROOT / "gen" / "README.md").read_text(encoding="utf-8")
BOOK = (TEXT + "It was a dark night. It was a day in May.\n") * 40


def blocks(language, text=README):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for name, body in found if name == language]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with a book in it, where the user stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("It was\n"))
    Path("book.txt").write_text(BOOK)
    Path("lines.txt").write_text("It was a day.\n")
    Path("sentences.txt").write_text("A dog runs.\n\nTwo men sit.\n")
    Path("page.html").write_text("<p>A <b>dog</b> runs.</p>\n")
    for name in ("train", "val"):
        Path(f"{name}.en").write_text("A dog runs.\nTwo men sit.\nA man runs.\n" * 16)
        Path(f"{name}.de").write_text("Ein Hund rennt.\nZwei Männer sitzen.\nEin Mann rennt.\n" * 16)
    write_shapes(Path("photos"), training=10, held_out=2).rename("captions.jsonl")
    write_shapes(Path("more"), training=2, held_out=1)
    rows = [f"{label},The {label} {i},it is a {label}" for i in range(20) for label in ("Sports", "Business")]
    Path("news.csv").write_text("label,title,description\n" + "\n".join(rows) + "\n")
    for number, scene in enumerate(scenes(20)):
        folder = Path("photos-by-label", ("one", "other")[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        draw(scene, seed=number).save(folder / f"{number}.png")
    draw(next(scenes(1)), seed=1).save("photo.jpg")
    return tmp_path


def commands():
    return [shlex.split(line) for block in blocks("") for line in block.splitlines() if line.startswith("gen ")]


def tiny(words):
    """A command, shrunk: a small model, a short budget, files for redirections."""
    words = [{"<": "-i", ">": "-o"}.get(word, word) for word in words]
    if words[0] == "distill":
        words = [*words[: words.index("--budget")], "--budget", "20 steps", *TINY]
    if words[0] == "train":
        whole = [*TINY[:4], *TINY[8:]]  # no --batch-size, no --chunk
        sizes = {
            "text": TINY[4:] if "--init-from" in words else TINY,  # that model has sizes of its own
            "translate": ["--encoder-size", "8", *whole],
            "caption": ["--memory-size", "8", *whole],
            "classify": ["--encoder-size", "8", *whole],
        }
        at = words.index("--budget")
        words = [*words[:at], "--budget", "20 steps", *words[at + 2 :], *sizes[words[1]]]
    return words


def test_every_command_of_the_readme_runs(desk, gen):
    assert len(commands()) >= 27
    for command in commands():
        status, out, err = gen(*tiny(command[1:]))
        assert status == 0, (command, err)
        assert out.strip() or {">", "-o"} & {*command}
    assert len(Path("translated.txt").read_text().splitlines()) == 3


def shrink(code):
    """The code of a block, with short budgets and small models."""
    small = {
        'budget="10m"': 'budget="20 steps", chunk=16, batch_size=2, hidden_size=16',
        'budget="5m"': 'budget="20 steps", chunk=16, batch_size=2, hidden_size=16',
        'budget="25m"': 'budget="20 steps", encoder_size=8, hidden_size=16, embedding_size=8',
        'budget="1m"': 'budget="20 steps"',
        '"budget": "1m"': '"budget": "20 steps"',
    }
    for long, short in small.items():
        code = code.replace(long, short)
    assert not re.search(r'budget(=|": )"\w+"', code)
    return code


def test_the_python_of_the_readme_runs(desk, gen, monkeypatch, capsys):
    """All blocks, one after the other, as a reader types them; then those of gen/README.md."""
    pushed = []
    monkeypatch.setattr("gen.base.hub.push", lambda folder, name, **how: pushed.append(name))
    for kind in ("text", "caption"):
        command = next(command for command in commands() if command[1:3] == ["train", kind])
        assert gen(*tiny(command[1:]))[0] == 0
    names = {}
    code = [shrink(block) for text in (README, LIBRARY) for block in blocks("python", text)]
    assert len(code) >= 7
    try:
        for block in code:
            exec(block, names)
        assert gen("generate", "runs/book", "--strategy", "second-best", "--max-new-tokens", 5)[0] == 0
        Path("one.txt").write_text("word\n")
        with pytest.raises(UserError, match=r"one\.txt: the validation part has no examples"):
            toolkit.train("reverse", data="one.txt", out="one")
        assert not Path("one").exists()
        encoder = names["BagOfTokens"](names["model"].tokenizer)
        memory = encoder(encoder.prepare(["It was", "a day"]).source)
        assert memory.values.shape == (2, 7, 64)
        assert memory.mask.sum(1).tolist() == [7, 6]
        alone = encoder(encoder.prepare(["a day"]).source)
        assert torch.allclose(alone.summary[0], memory.summary[1])
    finally:
        STRATEGIES.pop("second-best", None)
        TASKS.pop("reverse", None)
    assert pushed == ["user/book"]
    assert Path("models/book/model.safetensors").is_file()


def test_the_reading_path_is_as_long_as_the_readme_says():
    path = README.split("## Read the code")[1].split("## Results")[0]
    said = int(re.search(r"these ([\d,]+) lines", path)[1].replace(",", ""))
    files, folder = [], ROOT
    for folder_or_file in re.findall(r"`([\w/]+/|[\w/]+\.py)`", path.split("\n\n")[1]):
        if folder_or_file.endswith("/"):
            folder = ROOT / folder_or_file
        else:
            files.append(folder / folder_or_file)
    assert len(files) == 14
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    assert lines == pytest.approx(said, rel=0.02)


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    contributing = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make (\w+)", README + contributing, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("name", ["README.md", "gen/README.md", "data/README.md", ".github/CONTRIBUTING.md"])
def test_paths_in_documents_exist(name):
    """Links, and what looks like a path below the document, the repository, `gen` or `tests`."""
    text = (ROOT / name).read_text(encoding="utf-8")
    bases = [(ROOT / name).parent, ROOT, ROOT / "gen"]
    links = [each for each in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in each]
    paths = re.findall(r"`((?:\.\./)?(?:gen|tasks|tests|data|models|search|training)/[\w./-]+)`", text)
    assert [each for each in links + paths if not any((base / each).exists() for base in bases)] == []


FETCHED = (assets.MODULE, assets.WASM)


def test_the_demo_says_what_is_missing_before_it_trains(gen, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    status, out, err = gen("demo", "--out", tmp_path / "demo", "--budget", "1 steps")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "pip install 'gen-toolkit[classify]'" in err
    assert not (tmp_path / "demo").exists()


def test_the_demo(gen, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_caption, "TRAINING", 60)
    monkeypatch.setattr(demo_caption, "HELD_OUT", 4)
    monkeypatch.setattr(demo_translation, "TRAINING", 2000)
    monkeypatch.setattr(demo_translation, "HELD_OUT", 20)
    monkeypatch.setattr(assets, "_fetch", lambda folder: [(folder / name).write_bytes(b"") for name in FETCHED])
    status, out, err = gen("demo", "--out", tmp_path / "demo", "--budget", "1 steps", "--label-budget", "1 steps")
    assert status == 0, err
    page = (tmp_path / "demo" / "report.html").read_text()
    for expected in (
        "Four patterns, one decoder",
        "Many to one",
        "Learning",
        "Writing",
        "Counting alone",
        "What surprises it",
        "Completing words",
        "Translating",
        "Held-out sentences",
        "Attention on sentences",
        "Describing pictures",
        "Held-out pictures",
        "Attention on pictures",
        "data:image/jpeg;base64,",
        "<svg",
        "gen train",
    ):
        assert expected in page
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="http', page)
    assert "Greedy" in out
    assert "page.html" in out
    assert (tmp_path / "demo" / "page.html").read_text().count('id="models/') == 3
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    demo_command._write_page(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    for line in out.splitlines():
        if line.strip().startswith(("gen suggest", "gen translate", "gen caption")):
            assert gen(*shlex.split(line)[1:])[0] == 0
