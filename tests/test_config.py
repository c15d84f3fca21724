"""Dataclasses as options: the command line, YAML, plain values, and the help."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pytest

from gen.base.config import (
    LIST_OPTIONS,
    OptionList,
    Words,
    from_dict,
    parse_command,
    parse_given,
)
from gen.base.errors import ConfigError, UserError, notify
from gen.base.fields import Arg, convert, options_of
from gen.base.yaml_files import parse_yaml
from gen.training.config import upgraded


@dataclass(frozen=True)
class Learn:
    """How to learn."""

    TITLE: ClassVar[str] = "Training"

    budget: Words = "5m"
    """How long."""
    rate: float | None = None
    """The highest rate."""
    decay: float | None = None
    """Of the weights. Unset: none."""
    batch_size: int = 32
    """Rows per batch, 100 % of them."""
    bidirectional: bool = True
    """Read in both directions."""
    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    """Recurrent cell."""


@dataclass(frozen=True)
class Config:
    """Do something."""

    COMMON: ClassVar[tuple[str, ...]] = ("out", "budget")

    run: Annotated[str, Arg("RUN", positional=True)]
    """A folder."""
    files: Annotated[tuple[str, ...], Arg("FILE", positional=True)] = ()
    """More of them."""
    stop: tuple[str, ...] = ()
    """End there."""
    sizes: tuple[int, ...] = (1, 2)
    """Several numbers."""
    json: bool = False
    """Print JSON."""
    prefix: str = ""
    """Begin so."""
    out: Annotated[str, Arg(aliases=("-o",), required=True)] = ""
    """Where to write."""
    learn: Learn = field(default_factory=Learn)


def read(*words, **settings):
    return parse_command(Config, words, "gen do", **settings)


def errors(*words, **settings):
    with pytest.raises(ConfigError) as caught:
        read(*words, **settings)
    return caught.value.errors


# -- the command line ------------------------------------------------------------------------------------


def test_a_text_that_begins_with_a_number_stays_a_text() -> None:
    assert parse_yaml("a: 1.9e+02 passes\nb: 1e-3\nc: '1e-3'") == {"a": "1.9e+02 passes", "b": 0.001, "c": "1e-3"}


def test_every_kind_of_option():
    config = read(
        "R", "--stop", "a", "b", "--sizes=3", "--json", "-o", "x", "--rate", "1e-3", "--batch_size", "4"
    )  # fmt: skip
    assert config == Config(
        "R", (), ("a", "b"), (3,), True, "", "x", Learn(rate=1e-3, batch_size=4)
    )  # fmt: skip
    assert read("R", "--budget", "20", "epochs", "--prefix", "").learn.budget == "20 epochs"
    assert read("R", "--rate", "-1").learn.rate == -1
    assert read("R", "--rate", "none").learn.rate is None
    assert read("R", "--prefix=-x").prefix == "-x"
    assert read("R", "--prefix", "é_x").prefix == "é_x"


def test_positional_words_lie_between_options():
    assert read("R", "--json", "a", "--out", "x", "b").files == ("a", "b")
    assert read("--stop", "x", "--stop", "y", "R", "a", repeat=True).stop == ("x", "y")
    assert read("--json", "--", "R", "--x").files == ("--x",)
    assert read("-", "--", "--json", "--") == Config("-", ("--json", "--"))


def test_several_values_together_or_one_at_a_time():
    assert read("R", "--stop", "a", "b", "--stop", "c").stop == ("a", "b", "c")
    assert read("--stop", "a", "R", "--stop", "c", repeat=True) == Config("R", stop=("a", "c"))


@pytest.mark.parametrize(
    ("words", "json", "both"),
    [
        ((), False, True),
        (("--json", "--no-bidirectional"), True, False),
        (("--no-json", "--bidirectional"), False, True),
        (("--json", "--no-json"), False, True),
    ],
)
def test_flags_are_of_one_kind(words, json, both):
    config = read("R", *words)
    assert (config.json, config.learn.bidirectional) == (json, both)


def test_what_is_given_counts_even_if_it_is_the_default(tmp_path):
    assert parse_given(Config, ["R", "--batch-size", "32", "--no-json"], "gen do")[1] == {
        "run",
        "batch_size",
        "json",
    }
    file = tmp_path / "c.yaml"  # in a file only what differs: a run's own file names every option
    file.write_text("batch_size: 32\ncell: gru\n")
    assert parse_given(Config, ["R", "--config", str(file)], "gen do")[1] == {"run", "cell"}


def test_all_mistakes_at_once():
    found = errors("--batch-size", "two", "--cell", "lstn", "--rate", "x", "--sizes", "1", "b")
    assert found == [
        "RUN is missing (`gen do --help` explains)",
        "--sizes needs INT, not 'b'",
        "--rate needs FLOAT, not 'x'",
        "--batch-size needs INT, not 'two'",
        "--cell must be rnn or gru or lstm, not 'lstn'; did you mean lstm?",
    ]
    assert errors("R", "--jsn", "--bach-size", "3") == [
        "unknown option --jsn; did you mean --json? (`gen do --help` lists them)",
        "unknown option --bach-size; did you mean --batch-size? (`gen do --help` lists them)",
    ]
    assert errors("R", "--out")[0].startswith("--out needs a value")
    assert errors("R", "-x") == ["unexpected '-x' (`gen do --help` explains)"]
    assert errors("R", "--json=yes")


def test_hidden_options_are_not_there(capsys):
    hidden = {"batch_size", "json"}
    with pytest.raises(SystemExit):
        read("--help", hidden=hidden)
    assert "--batch-size" not in capsys.readouterr().out
    assert read("R", hidden=hidden).learn.batch_size == 32
    for word in ("--batch-size=32", "--batch_size", "--json", "--no-json"):
        assert "(does not apply to do)" in errors("R", word, hidden=hidden)[0]


def test_old_names_on_the_command_line():
    assert errors("R", "--tempo", "3", renamed={"tempo": "rate"}) == [
        "unknown option --tempo: it is --rate now (`gen do --help` explains)"
    ]


def test_completion_learns_the_options():
    with pytest.raises(OptionList) as answer:
        read(*LIST_OPTIONS, hidden={"cell"})
    found = {action.dest: getattr(action, "option", None) for action in answer.value.args[0]._actions}
    assert list(found)[:4] == ["run", "files", "out", "budget"]
    assert found["budget"].flags == ("--budget",)
    assert "cell" not in found


# -- help ------------------------------------------------------------------------------------------------


def help_of(capsys, **settings):
    with pytest.raises(SystemExit) as stop:
        read("--help", **settings)
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_help_says_what_is_true(capsys):
    text = help_of(capsys)
    assert text.startswith("usage: gen do RUN [FILE]... [options] Do something.")
    assert "RUN A folder. (required)" in text
    assert "-o, --output" not in text
    assert "-o, --out TEXT Where to write. (required)" in text
    assert "--budget 3m | 20 epochs | 5000 steps How long. (default: 5m)" in text
    assert "--rate FLOAT The highest rate. --" in text
    assert "--decay FLOAT Of the weights. Unset: none. --" in text
    assert "--batch-size INT Rows per batch, 100 % of them. (default: 32)" in text
    assert "--bidirectional, --no-bidirectional Read in both directions. (default: yes)" in text
    assert "--json Print JSON. --" in text
    assert "--prefix TEXT Begin so. --" in text
    assert "--cell {rnn,gru,lstm} Recurrent cell. (default: lstm)" in text
    assert "--stop TEXT ... End there. (may be repeated) --" in text
    assert "--sizes INT ... Several numbers. (may be repeated) (default: 1 2)" in text
    assert "None" not in text
    assert "''" not in text
    assert "--stop TEXT End there. (may be repeated)" in help_of(capsys, repeat=True)
    assert "--cell" not in help_of(capsys, hidden={"cell"})


def test_common_options_come_first(capsys):
    text = help_of(capsys)
    places = [
        text.index(f"{t}") for t in ("Common options:", "--out", "--budget", "Training: How to learn.", "--rate")
    ]
    assert places == sorted(places)
    assert text.index("Training:") < text.index("Other options:") < text.index("--stop")
    assert text.count("--budget ") == 1
    text = help_of(capsys, common=())
    assert "ommon" not in text
    assert text.index("Options: --stop") < text.index("Training:") < text.index("--budget")
    text = help_of(capsys, common=["cell"])
    assert text.index("--cell") < text.index("Training:") < text.index("--stop")


# -- YAML ------------------------------------------------------------------------------------------------


def from_yaml(tmp_path, text, **settings):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    return read("R", "--config", str(file), **settings)


@pytest.mark.parametrize(
    "text",
    [
        "learn: {budget: 3m, rate: 1e-3}\nstop: [a]\n",
        "budget: 3m\nrate: 0.001\nstop: a\n",
        "learn:\n  budget: 3m\nrate: 0.001\nstop: [a]\n",
    ],
)
def test_yaml_is_nested_or_flat(tmp_path, text):
    assert from_yaml(tmp_path, text) == Config("R", stop=("a",), learn=Learn("3m", 0.001))


def test_the_command_line_goes_before_yaml(tmp_path):
    (tmp_path / "c.yaml").write_text("json: true\nbatch_size: 7\nrun: other\n")
    config = read("R", "--no-json", f"--config={tmp_path}/c.yaml")
    assert config == Config("R", learn=Learn(batch_size=7))
    assert read("--config", f"{tmp_path}/c.yaml").run == "other"


def test_mistakes_in_yaml(tmp_path):
    with pytest.raises(ConfigError) as caught:
        from_yaml(tmp_path, "lern: 3\nlearn: {buget: 3m, batch_size: two, cell: lstn}\njson: 1\nout: 7\n")
    where = f"{tmp_path}/c.yaml"
    assert caught.value.errors == [
        f"{where}: unknown name 'lern'; did you mean 'learn'?",
        f"{where}: learn: unknown name 'buget'; did you mean 'budget'?",
        f"{where}: learn: batch_size: 'two' does not fit; give a whole number",
        f"{where}: learn: cell: 'lstn' does not fit; give rnn or gru or lstm",
        f"{where}: json: 1 does not fit; give true or false",
        f"{where}: out: 7 does not fit; give text",
    ]
    for text in ("[1]", "learn: [1]", "learn: 3"):
        with pytest.raises(ConfigError, match="expected names and values"):
            from_yaml(tmp_path, text)
    assert from_yaml(tmp_path, "") == from_yaml(tmp_path, "learn:\n") == Config("R")


def test_hidden_names_in_yaml(tmp_path):
    """A file of another command may name what does not apply, as long as it asks for nothing."""
    assert from_yaml(tmp_path, "batch_size: 32\n", hidden={"batch_size"}) == Config("R")
    with pytest.raises(ConfigError, match="batch_size does not apply to do"):
        from_yaml(tmp_path, "batch_size: 33\n", hidden={"batch_size"})


RENAMED = {
    "one_way": ("bidirectional", lambda value: not value),
    "teach": "learn",
    "json": ("json", lambda value: {"yes": True, "no": False}.get(value, value)),
    "cell": "prefix",  # not where `cell` is known
}


def test_old_names(tmp_path):
    text = "teach: {one_way: true}\njson: 'yes'\ncell: gru\n"
    expected = Config("R", json=True, learn=Learn(bidirectional=False, cell="gru"))
    assert from_yaml(tmp_path, text, renamed=RENAMED) == expected
    found = []
    values = {"run": "R", "one_way": True, "json": "yes", "cell": "gru"}
    assert from_dict(Config, values, "", found, RENAMED) == expected
    assert found == []


def test_hostile_yaml(tmp_path):
    bomb = "a: &a [x, x]\n" + "".join(
        f"{n}: &{n} [*{m}, *{m}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for text, reason in (
        (bomb, "aliases"),
        ("a: " + "[" * 100_000, "cannot be read"),
        ("x: '" + "y" * (1 << 20) + "'", "larger than 1 MB"),
        ("a: !!python/object/apply:os.system [ls]", "cannot be read"),
        ("a: [", "cannot be read"),
        ("steps: 0x" + "f" * 5000, "cannot be read .a number of 5,002 digits"),
        ("steps: " + "1:" * 50 + "1", "cannot be read .a number of 101 digits"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            from_yaml(tmp_path, text)
        assert "\n" not in str(caught.value)
    (tmp_path / "latin.yaml").write_bytes(b"out: caf\xe9")
    for path in ("latin.yaml", "none.yaml", "."):
        with pytest.raises(UserError, match="cannot be read"):
            read("--config", str(tmp_path / path))


# -- plain values ----------------------------------------------------------------------------------------


def test_values_from_python():
    found = []
    config = from_dict(Config, {"run": Path("a"), "stop": "x", "files": [Path("b")], "rate": 3}, "", found)
    assert config == Config("a", ("b",), ("x",), learn=Learn(rate=3))
    assert found == []
    config = from_dict(
        Config, {"run": np.str_("a"), "rate": np.float32(0.5), "batch_size": np.int64(2)}, "", found
    )
    assert config == Config("a", learn=Learn(rate=0.5, batch_size=2))
    assert found == []
    from_dict(Config, {"run": "a", "buget": 1, "stop": 3}, "", found)
    assert found == ["unknown option 'buget'; did you mean 'budget'?", "stop: 3 does not fit; give a list of text"]
    with pytest.raises(ConfigError, match="run is missing"):
        from_dict(Config, {}, "", [])


@pytest.mark.parametrize(
    ("value", "hint", "text"),
    [("x", int, True), ("1.5", int, True), (True, int, False), (1, bool, False), (1, Literal[True], False),
     (None, int, False), ("none", int, True), ([1, "x"], tuple[int, ...], False), ({}, str, False)],
)  # fmt: skip
def test_values_that_do_not_fit(value, hint, text):
    with pytest.raises(ValueError):
        convert(value, hint, text=text)


def test_classes_without_source_have_help_too():
    made = {}
    exec(  # as a notebook or an installation without sources has it
        "from dataclasses import dataclass, field\n@dataclass\nclass Made:\n"
        "    a: int = field(default=1, metadata={'help': 'A number.'})\n",
        made,
    )
    assert [(o.name, o.help) for o in options_of(made["Made"])] == [("a", "A number.")]


def test_the_help_is_as_wide_as_the_terminal(capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "COLUMNS", "60")
    with pytest.raises(SystemExit):
        read("--help")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_a_message_that_quotes_anything_has_an_end(capsys):
    notify(f"--budget {'x' * 100_000}: give a time")
    said = capsys.readouterr().err
    assert len(said) < 2000
    assert said.startswith("gen: --budget xxx")
    assert said.endswith("xxx: give a time\n")


def test_old_names_of_options_with_values_of_any_type():
    assert upgraded({"tie": "yes", "byte_fallback": []}) == {"tie": "decoder", "byte_fallback": []}
    assert upgraded({"tie": {"a": 1}}) == {"tie": {"a": 1}}
