"""The command line as a user types it, mistakes included."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gen.base.config import Budget
from gen.base.errors import ConfigError
from gen.base.fields import options_of
from gen.training.config import config_class
from tasks.cli import COMMANDS
from tasks.text.generate import GenerateConfig
from tasks.text.task import Text
from tests.conftest import TINY

ROOT = Path(__file__).parents[1]


def test_a_run_from_text_to_text(gen, trained, book):
    assert {
        "config.yaml",
        "resolved.yaml",
        "metrics.jsonl",
        "samples.md",
        "best",
        "last",
        "previous",
        "plots",
        ".lock",
    } == {p.name for p in trained.iterdir()}
    assert (trained / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")
    samples = (trained / "samples.md").read_text()
    for way in ("greedy", "temperature 0.3", "temperature 0.8", "temperature 1.3"):
        assert way in samples
    status, out, _ = gen("generate", trained, "--prompt", "the ", "--max-new-tokens", 20, "--seed", 3)
    assert status == 0
    assert out.startswith("the ")
    assert gen("generate", trained, "--prompt", "the ", "--max-new-tokens", 20, "--seed", 3, "--stream")[1] == out
    status, out, _ = gen("info", trained)
    assert "gen train text" in out
    assert json.loads(gen("info", trained, "--json")[1])["task"] == "text"
    figures = json.loads(gen("evaluate", trained, "--json")[1])
    assert figures["bits_per_char"] > 0
    again = json.loads(gen("evaluate", trained, "--data", book, "--json")[1])
    assert again["loss"] < 4
    (book.parent / "lines.txt").write_text("".join(f"{n} cats and {n} dogs\n" for n in range(200)))
    lines = (
        "train",
        "text",
        "--data",
        book.parent / "lines.txt",
        "--unit",
        "line",
        "--max-line",
        "8",
        "--budget",
        "2 steps",
        *TINY,
    )
    assert gen(*lines, "--budget", "2 steps", "--out", trained.parent / "lines")[0] == 0
    own, (_, out, err) = trained.parent / "lines", gen("evaluate", trained.parent / "lines", "--json")
    status, again, err = gen("evaluate", own, "--data", own / "valid.txt", "--json")
    assert status == 0, err
    assert "lines are longer than 8 tokens, and are evaluated up to there" in err
    assert json.loads(again)["loss"] == pytest.approx(json.loads(out)["loss"])
    assert "nats/token" in gen("evaluate", trained)[1]
    status, out, _ = gen("suggest", trained, "--prompt", "the c", "--n-best", 3)
    assert status == 0
    assert len(out.splitlines()) == 3
    assert all(re.fullmatch(r" *[\d.]+%  c\w*", line) for line in out.splitlines())


def test_the_last_line_of_training_is_the_command_that_writes(gen, book, tmp_path):
    status, out, _ = gen(
        "train", "text", "--data", book, "--out", tmp_path / "r", "--budget", "30", "steps", *TINY
    )
    assert status == 0
    assert "Markov chain" in out
    command = next(shlex.split(line) for line in out.splitlines() if "gen generate" in line)
    assert gen(*command[1:])[0] == 0


def test_prompts_from_files_and_json(gen, trained, tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the\n\na dog\n")
    status, out, _ = gen(
        "generate", trained, "--input", prompts, "--json", "--max-new-tokens", 5, "--num-samples", 2, "--seed", 7
    )
    assert status == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["prompt"] for r in records] == ["the", "the", "", "", "a dog", "a dog"]
    assert {r["seed"] for r in records} == {7}
    options = ("--json", "--max-new-tokens", 5, "--num-samples", 2, "--seed", 7)
    alone = gen("generate", trained, "--prompt", "a dog", *options)[1]
    assert [json.loads(line)["text"] for line in alone.splitlines()] == [r["text"] for r in records[4:]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("the\nthe é\n"))
    status, out, err = gen("generate", trained, "--interactive", "--max-new-tokens", 5)
    assert status == 0
    assert out.count("the") >= 1
    assert "no character 'é'" in err


def test_repeated_options_leave_the_run_alone(gen, trained):
    options = ("--max-new-tokens", 30, "--seed", 1)
    status, out, err = gen(
        "generate", *options, "--stop", "a", "--stop", "e", "--prompt", "", "--prompt", "t", trained
    )
    assert status == 0, err
    texts = out.split("---\n")
    assert len(texts) == 2
    assert not any(letter in text for text in texts for letter in "ae")


def test_scores_a_line(gen, trained, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("the cat sat\ntac eht tas\n\n")
    status, out, _ = gen("score", trained, lines)
    assert status == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [r[2] for r in rows] == ["the cat sat", "tac eht tas", ""]
    assert float(rows[0][0]) > float(rows[1][0])
    assert json.loads(gen("score", trained, lines, "--json")[1].splitlines()[0])["num_tokens"] == 11


@pytest.mark.parametrize("level", ["word", "subword"])
def test_other_levels(gen, book, tmp_path, level):
    out = tmp_path / level
    status, _, err = gen(
        "train", "text", "--data", book, "--out", out, "--level", level, "--budget", "10 steps", *TINY
    )
    assert status == 0, err
    assert gen("generate", out, "--prompt", "the", "--max-new-tokens", 5)[0] == 0


def test_lines_end_by_themselves(gen, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{a}{b}\n" for a in "abcdefgh" for b in ("nna", "lex", "rne")) * 5)
    out = tmp_path / "names"
    status, _, err = gen(
        "train",
        "text",
        "--data",
        names,
        "--unit",
        "line",
        "--out",
        out,
        "--budget",
        "150 steps",
        "--hidden-size",
        32,
        "--batch-tokens",
        200,
        "--learning-rate",
        0.02,
        "--precision",
        "fp32",
    )
    assert status == 0, err
    options = ("--json", "--num-samples", 20, "--temperature", 0.5, "--seed", 1)
    texts = [json.loads(record) for record in gen("generate", out, *options)[1].splitlines()]
    assert all(t["finished"] for t in texts)
    assert all("\n" not in t["text"] for t in texts)
    assert sum(t["text"] + "\n" in names.read_text() for t in texts) > 10


def test_a_yaml_file_gives_defaults(gen, trained, book, tmp_path):
    """A run's own config.yaml trains the same run again elsewhere; the command line goes before it."""
    status, _, err = gen("train", "text", "--config", trained / "config.yaml", "--out", tmp_path / "again")
    assert status == 0, err
    same = [p.joinpath("best/model.safetensors").read_bytes() for p in (trained, tmp_path / "again")]
    assert same[0] == same[1]
    (tmp_path / "bad.yaml").write_text("text: {dta: [x]}\nmodle: 3\n")
    status, _, err = gen("train", "text", "--config", tmp_path / "bad.yaml")
    assert status == 2
    assert "unknown name 'dta'; did you mean 'data'?" in err
    assert "unknown name 'modle'; did you mean 'model'?" in err


BAD = {
    "train text --out {t}/o": ["--data: name at least one text file"],
    "train text --data {t}/none.txt --out {t}/o": ["{t}/none.txt: no such file"],
    "train text --data {t}/empty.txt --out {t}/o": ["{t}/empty.txt: is empty"],
    "train text --data {t}/latin.txt --out {t}/o": [
        "{t}/latin.txt: not UTF-8 at byte 3",
        "--encoding-errors",
    ],
    "train text --data {t}/short.txt --out {t}/o": ["fewer than one batch", "--batch-size", "--chunk"],
    "train text --data {b} --out {t}/o --hiden-size 3": [
        "unknown option --hiden-size; did you mean --hidden-size?"
    ],
    "train text --data {b} --out {t}/o --budget soon": ["--budget 'soon'", "20 epochs"],
    "train text --data {b} --out {t}/o --cell lstn": ["'lstn'", "--cell"],
    "train text --data {b} --out {t}/o --num-layers two": ["--num-layers", "'two'"],
    "train text --data {b} --out {t}/o --hidden-size two": ["--hidden-size needs INT, not 'two'"],
    "train text --data {b} --out {t}/full": ["{t}/full: is not empty and holds no run"],
    "train text --data {b} --out {b}": ["is a file"],
    "train text --data {b} --out {t}/o --device quantum": ["--device quantum"],
    "train text --data {b} --out {t}/o --vocab-size 99 --dropout 2 --clip 0": [
        "--vocab-size",
        "--dropout",
        "--clip",
    ],
    "train text --data {b} --out {t}/o --level subword --vocab-size 90000": ["--vocab-size 90000 is too large"],
    "train text --data {b} --valid {b} --valid-fraction 0.2 --out {t}/o": ["--valid and --valid-fraction exclude"],
    "train novel": ["unknown task 'novel'", "text"],
    "trian text": ["did you mean train?"],
    "generate": ["RUN"],
    "generate {t}/none": ["{t}/none: no such model folder"],
    "generate {t}/full": ["not a model folder"],
    "generate {r} --prompt thé": ["no character 'é' (U+00E9"],
    "generate {r} --prompt caf\udce9": ["--prompt: is not UTF-8"],
    "generate {r} --temperature -1": ["--temperature must be"],
    "generate {r} --temperature nan": ["--temperature must be"],
    "generate {r} --temperature hot": ["--temperature needs a number, or several, not 'hot'"],
    "generate {r} --temperature": ["--temperature needs a number, or several"],
    "generate {r} --stream --temperature 0.3 0.8": ["--stream", "several values of --temperature"],
    "suggest {r} --n-best 0": ["--n-best must be"],
    "generate {r} --top-p 0": ["--top-p must be above 0"],
    "generate {r} --top-p 1.5": ["--top-p must be above 0"],
    "generate {r} --beam 2 --length-penalty nan": ["--length-penalty must be between -5 and 5, not nan"],
    "generate {r} --beam 0": ["--beam must be between 1 and 1,000"],
    "generate {r} --beam 3 --temperature 2 --n-best 9": ["--beam and --temperature exclude", "--n-best"],
    "generate {r} --stream --json": ["--stream", "--json"],
    "generate {r} --prompt a --input {b}": ["--prompt and --input exclude each other"],
    "train translate --train a b --valid c d --valid-size 9 --out x": [
        "--valid and --valid-size exclude each other"
    ],
    "train classify --data a --valid c --valid-size 9 --out x": ["--valid and --valid-size exclude each other"],
    "train caption --images a --valid-captions c --valid-size 9 --out x": [
        "--valid-captions and --valid-size exclude"
    ],
    "train caption --images a --finetune-rate 0.5 --out x": ["--finetune-rate goes with --finetune"],
    "train caption --data a.tar --feature-dtype float32 --out x": ["--feature-dtype does not go with --data"],
    "generate {r} --input {t}/none.txt": ["{t}/none.txt: cannot be read"],
    "generate {r} --input {t}/latin.txt": ["{t}/latin.txt: line 1 is not UTF-8"],
    "score {r}": ["FILE"],
    "score {r} {t}/none.txt": ["{t}/none.txt"],
    "evaluate {r} --data {t}/none.txt": ["{t}/none.txt: no such file"],
    "info {t}": ["not a model folder"],
}


@pytest.mark.parametrize("command", BAD)
def test_mistakes_get_one_clear_line_each(gen, trained, book, tmp_path, command):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n" * 99)
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("mine")
    names = {"t": tmp_path, "r": trained, "b": book}
    before = sorted(tmp_path.rglob("*"))
    status, out, err = gen(*command.format(**names).split())
    assert status == 2
    for expected in BAD[command]:
        assert expected.format(**names) in err
    assert "Traceback" not in err
    assert all(line.startswith("gen: ") for line in err.splitlines())
    assert len(err.splitlines()) <= 3
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written
    assert out == ""


def test_as_a_program():
    """Through the installed entry point's module, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", "generate", "nowhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gen: nowhere: no such model folder; `gen train` makes one\n"


def test_a_training_goes_on_when_the_reader_of_its_output_goes_away(book, tmp_path):
    """`gen train text … | head -1`."""
    words = ["train", "text", "--data", str(book), "--out", str(tmp_path / "run"), "--budget", "2 steps", *TINY]
    done = subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    done.stdout.close()
    _, err = done.communicate()
    assert (done.returncode, err) == (0, b"")
    assert (tmp_path / "run" / "best").is_dir()


def test_help_names_every_option(gen):
    status, out, _ = gen("--help")
    assert status == 0
    assert [command for command in COMMANDS if f"gen {command}" not in out] == []
    status, out, _ = gen("train", "text", "--help")
    assert status == 0
    used = [option for option in options_of(config_class(Text)) if option.name not in Text.unused]
    assert all(name in out for option in used for name in option.flags[:1])
    status, out, _ = gen("generate", "--help")
    assert all(name in out for option in options_of(GenerateConfig) for name in option.flags[:1])


def test_help_of_training_begins_with_what_most_people_need(gen):
    for task, first in (("text", "--data"), ("translate", "--train"), ("caption", "--images")):
        out = gen("train", task, "--help")[1]
        places = [out.index(f"{word} ") for word in (first, "--out", "--budget", "--level")]
        assert places == sorted(places)
        assert out.index("--level ") < out.index("\nData:") < out.index("\nModel:") < out.index("\nTraining:")
    assert "--coverage" not in gen("train", "text", "--help")[1]  # there is nothing to look at
    status, _, err = gen("train", "text", "--coverage", "1")
    assert status == 2
    assert err == "gen: unknown option --coverage (does not apply to text)\n"


def test_help_in_every_way(gen):
    main_help = gen("--help")[1]
    assert gen("help")[1] == gen("-h")[1] == gen()[1] == gen("help", "--help")[1] == main_help
    for group, members in (("train", ("text", "translate", "caption")), ("plot", ("attention",))):
        status, out, _ = gen("help", group)
        assert status == 0
        assert out == gen(group, "--help")[1] == gen(group, "-h")[1]
        assert all(f"gen {group} {member} " in out for member in members)
    for command in COMMANDS:
        status, out, _ = gen("help", *command.split())
        assert (status, out) == gen(*command.split(), "--help")[:2]
        assert status == 0
        assert out.startswith(f"usage: gen {command} ")
        assert "default: None" not in out
        assert "default: '')" not in out
        assert "--config FILE" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("help genrate", "unknown command 'genrate'; did you mean generate?"),
        ("halp", "did you mean help?"),
        ("train txt", "train: unknown task 'txt'; did you mean text?"),
        ("help train txt", "did you mean text?"),
        ("train", "train: name a task; there is: caption, classify, text, translate"),
        ("plot", "plot: name a kind; there is: attention"),
        ("-x", "unknown command '-x'"),
    ],
)
def test_unknown_commands(gen, words, expected):
    status, out, err = gen(*words.split())
    assert (status, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that brings two tasks, one of which has a name of ours."""
    info = tmp_path / "packages" / "toys-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[console_scripts]\ntoys = toys:main\n\n[gen.tasks]\nrhyme = toys:Rhyme\ntext=toys:Text\n[other]\nx=y:z\n"
    )
    monkeypatch.syspath_prepend(str(info.parent))
    calls = []
    for module, function in (("train", "train_command"), ("use", "use_command")):
        made = ModuleType(f"tasks.commands.{module}")
        setattr(made, function, lambda *words, function=function: calls.append((function, *words)))
        monkeypatch.setitem(sys.modules, made.__name__, made)
    return calls


def test_installed_tasks_have_commands(gen, installed):
    assert {e.name for e in entry_points(group="gen.tasks")} >= {"rhyme", "text"}
    assert gen("train", "rhyme", "--out", "x")[0] == 0
    assert gen("rhyme", "RUN", "--json")[0] == 0
    assert installed == [
        ("train_command", ["--out", "x"], "gen train rhyme", "rhyme"),
        ("use_command", ["RUN", "--json"], "gen rhyme", "rhyme"),
    ]
    out = gen("help", "train")[1]
    assert out == gen("train", "--help")[1]
    assert out.count("gen train rhyme --out ") == out.count("gen train text --data ") == 1
    assert "rhyme" not in gen("--help")[1]  # it does not search the installed packages
    assert "did you mean rhyme?" in gen("rhime")[2]
    assert "did you mean rhyme?" in gen("train", "rhime")[2]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_terminal(encoding):
    """What the encoding lacks is replaced; bytes that are not text pass as they are."""
    code = (
        "import sys; from tasks.cli import main\n"
        "for name in sys.argv[1:]:\n"
        "    sys.argv = ['gen', name]; assert main() == 2\n"
        "print('\u00e9 \u2192 \\udcff')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "caf\u00e9 \u2192", b"caf\xe9"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert [line[:25] for line in said] == [b"gen: unknown command 'caf"] * 2, done.stderr
    expected = {"ascii": b"? ? \xff\n", "latin-1": b"\xe9 ? \xff\n", "utf-8": "é → ".encode() + b"\xff\n"}
    assert done.stdout == expected[encoding]


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("90s", 90, "seconds"),
        ("3m", 180, "seconds"),
        ("1.5 h", 5400, "seconds"),
        ("2 minutes", 120, "seconds"),
        ("20 epochs", 20, "epochs"),
        ("1 epoch", 1, "epochs"),
        ("5000 steps", 5000, "steps"),
        ("7steps", 7, "steps"),
    ],
)
def test_budgets(text, amount, unit):
    assert Budget.parse(text) == Budget(amount, unit)


@pytest.mark.parametrize("text", ["", "3", "m", "-3m", "0s", "3 parsecs", "nan s"])
def test_budgets_that_are_none(text):
    with pytest.raises(ConfigError, match=r"^budget="):
        Budget.parse(text)


@given(
    amount=st.decimals(min_value="0.001", max_value=10**9, places=3),
    unit=st.sampled_from([f"{unit}{s}" for unit in ("sec", "minute", "hour", "epoch", "step") for s in ("", "s")]),
    shape=st.tuples(st.sampled_from(["", " ", "  "]), st.sampled_from([str.lower, str.upper, str.title])),
)
def test_budgets_of_any_amount(amount, unit, shape):
    space, case = shape
    found = Budget.parse(f" {amount}{space}{case(unit)} ")
    factor = {"sec": 1, "minute": 60, "hour": 3600}.get(unit.rstrip("s"), 1)
    assert found.amount == float(amount) * factor
    assert found.unit == (f"{unit.rstrip('s')}s" if unit[0] in "e" or unit.startswith("step") else "seconds")


@given(st.text() | st.from_regex(r"[-+]?[0-9.]{0,400}e?[0-9]{0,3} ?(s|m|h|steps|epochs)?", fullmatch=True))
@example("9" * 400 + "s")
def test_any_text_is_a_budget_or_an_error(text):
    try:
        found = Budget.parse(text)
    except ConfigError as error:
        lines = error.errors
    else:
        assert 0 < found.amount < math.inf
        assert found.unit in ("seconds", "epochs", "steps")
        lines = [f"{found.amount} {found.unit}"]
    assert len(lines) == 1


def test_data_from_standard_input(gen, book, tmp_path, monkeypatch):
    with book.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        status, _, err = gen("train", "text", "--data", "-", "--out", tmp_path / "r", "--budget", "4 steps", *TINY)
    assert status == 0, err
