"""What the user leaves open is chosen once, from what was measured, and recorded with its reasons."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import yaml

import gen as toolkit
from gen.base.errors import ConfigError
from gen.training import resolve as resolving
from gen.training import session as sessions
from gen.training import trackers
from gen.training.config import config_class, make_config
from gen.training.interfaces import Choice
from gen.training.options import TrainOptions
from gen.training.resolve import measure_speed, resolve
from gen.training.run import Run
from gen.training.session import Session, train
from gen.training.step import Stepper
from tasks.caption.task import Caption
from tasks.text.task import Text
from tasks.translate.task import Translate

SMALL = {
    "hidden_size": 16,
    "embedding_size": 8,
    "batch_size": 8,
    "chunk": 16,
    "validations": 1,
    "precision": "fp32",
    "device": "cpu",
}


def words(options):
    return [w for name, value in options.items() for w in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture
def speed(monkeypatch):
    """Lets the machine have a speed in tokens per second; returns the list of times that were allowed for it."""
    allowed = []

    def have(value):
        def measured(task, model, batches, options, seconds):
            allowed.append(seconds)
            return value

        monkeypatch.setattr(sessions, "measure_speed", measured)
        return allowed

    return have


# -- measured --------------------------------------------------------------------------------------------


def test_a_slower_machine_gets_other_choices_and_both_are_recorded(gen, book, tmp_path, speed):
    made = {}
    for name, value in (("fast", 100_000), ("slow", 25_000)):
        speed(value)
        command = ("train", "text", "--data", book, "--out", tmp_path / name, "--budget", "1s")
        status, _, err = gen(*command, *words(SMALL))
        assert status == 0, err
        made[name] = run = Run(tmp_path / name)
        recorded = toolkit.load(tmp_path / name).info.training
        for known in (run.resolved, recorded):
            assert known["measured"]["tokens_per_second"] == value
        assert recorded["model"]["dropout"] == run.config["dropout"] == run.model.decoder.config.dropout
    fast, slow = made["fast"].config, made["slow"].config
    assert fast["dropout"] > slow["dropout"]
    assert fast["weight_dropout"] > slow["weight_dropout"]
    assert fast["learning_rate"] < slow["learning_rate"]


def test_size_follows_the_measured_speed():
    def hidden_size(tokens_per_second):
        asked = config_class(Text)(train=TrainOptions(budget="10m"), out="run")
        split = SimpleNamespace(num_tokens=1_000_000)
        return resolve(
            Text(asked), asked, split, lambda config, seconds: tokens_per_second
        ).config.model.hidden_size

    assert hidden_size(80_000) > hidden_size(20_000) + 32


def test_slow_steps_are_measured(book, tmp_path, monkeypatch):
    """The same training with steps that take four times as long: measured on the real steps."""
    step, found = Stepper.__call__, {}
    for seconds in (0.05, 0.2):

        def slowed(self, *args, seconds=seconds):
            time.sleep(seconds)
            return step(self, *args)

        monkeypatch.setattr(Stepper, "__call__", slowed)
        config = make_config(Text, {**SMALL, "data": str(book), "budget": "1m", "out": str(tmp_path / "run")})
        session = Session(Text, config, given=SMALL)
        session.prepare()
        found[seconds] = session.resolved
    fast, slow = found.values()
    assert fast.measured["tokens_per_second"] > 1.5 * slow.measured["tokens_per_second"]
    assert fast.config.model.dropout > slow.config.model.dropout


@pytest.mark.parametrize(("budget", "limit"), [("10s", 0.3), ("60s", 1.8), ("2h", 4.0)])
def test_measuring_takes_a_small_share_of_the_time(budget, limit):
    """At most 3 % of it is allowed, and never more than 4 seconds."""
    asked = config_class(Text)(train=TrainOptions(budget=budget), out="run")
    allowed = []

    def measure(config, seconds):
        allowed.append(seconds)
        assert config.model.hidden_size == Text.reference["hidden_size"]
        assert config.train.learning_rate is not None
        return 20_000.0

    resolve(Text(asked), asked, SimpleNamespace(num_tokens=1_000_000), measure)
    assert allowed == [pytest.approx(limit)]


@pytest.mark.parametrize("limit", [0.25, 0.3, 1.0, 1.8, 4.0])
@pytest.mark.parametrize("seconds", [0.01, 0.07, 0.12])
def test_steps_end_before_the_limit(monkeypatch, limit, seconds):
    """By a clock that only steps move; the first one takes twice as long as the others, and is not counted."""
    now = [100.0]

    class Known:
        def __init__(self, *args):
            self.tokens = 0

        def step(self, rate):
            now[0] += seconds * (1 if self.tokens else 2)
            self.tokens += 50

    monkeypatch.setattr(resolving, "Trial", Known)
    monkeypatch.setattr(resolving, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    model = SimpleNamespace(device=torch.device("cpu"))
    found = measure_speed(Text(), model, None, TrainOptions(), limit)
    used = now[0] - 100
    assert used <= limit
    assert used >= limit / 2 or used == 2 * seconds
    counted = used > 2.5 * seconds
    assert found == pytest.approx(50 / seconds if counted else 25 / seconds)


@pytest.mark.parametrize("budget", ["3 epochs", "50 steps"])
def test_nothing_is_measured_where_the_budget_is_no_time(budget):
    asked = config_class(Text)(train=TrainOptions(budget=budget), out="run")
    found = resolve(Text(asked), asked, SimpleNamespace(num_tokens=1000), lambda config, seconds: 1 / 0)
    assert "tokens_per_second" not in found.measured


def test_nothing_is_measured_where_nothing_is_open():
    asked = make_config(
        Text,
        {
            **SMALL,
            "data": "x",
            "budget": "1m",
            "dropout": 0.1,
            "embedding_dropout": 0.1,
            "weight_dropout": 0.0,
            "learning_rate": 0.01,
            "weight_decay": 0.03,
            "tie": "none",
            "num_layers": 1,
            "out": "run",
        },
    )
    found = resolve(Text(asked), asked, SimpleNamespace(num_tokens=1000), lambda config, seconds: 1 / 0)
    assert found.config == asked
    assert found.reasons == {}


@pytest.mark.parametrize(
    ("budget", "options", "decay"),
    [
        ("3000 steps", {"learning_rate": 8e-3}, 0.12),
        ("100 steps", {"learning_rate": 8e-3}, 0.5),
        ("90000 steps", {"learning_rate": 8e-3}, 0.064),  # as many passes are forgotten as with 9,000
        ("3000 steps", {"learning_rate": 4e-3}, 0.25),
        ("9000 steps", {"learning_rate": 8e-3}, 0.064),
        ("3000 steps", {"weight_decay": 0.0}, 0.0),
        ("3000 steps", {"init_from": "runs/trained"}, None),
    ],
)
def test_the_weight_decay_depends_on_rate_steps_and_passes(budget, options, decay):
    """But for the user's own, and where trained weights are trained further."""
    asked = make_config(Text, {"data": "x", "budget": budget, **options})
    found = resolve(Text(asked), asked, SimpleNamespace(num_tokens=1_000_000))
    assert found.config.train.weight_decay == decay
    assert found.config.train.decay == (0.03 if decay is None else decay)


# -- smooth ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [Text, Translate, Caption])
@pytest.mark.parametrize("tokens_per_second", [3_000.0, 80_000.0])
def test_neighbouring_budgets_get_neighbouring_choices(task, tokens_per_second):
    """From half a minute to a day in steps of 5 %: no size jumps, none falls."""
    split = SimpleNamespace(num_tokens=400_000, num_captions=30_000, train=[None] * 6_000)
    kind, choices, seconds = config_class(task), [], 30.0
    while seconds < 86_400:
        asked = kind(train=TrainOptions(budget=f"{seconds:.3f}s"), out="run")
        choices.append(resolve(task(asked), asked, split, lambda config, limit: tokens_per_second).config)
        seconds *= 1.05
    sizes = [name for name, value in vars(choices[0].model).items() if name.endswith("_size") and value]
    assert sizes
    for before, after in pairwise(choices):
        for name in sizes:
            assert 0 <= getattr(after.model, name) - getattr(before.model, name) <= 32, name
        for name in ("dropout", "embedding_dropout", "weight_dropout"):
            assert abs(getattr(after.model, name) - getattr(before.model, name)) <= 0.02, name
        assert after.train.learning_rate == pytest.approx(before.train.learning_rate, rel=0.05)
    assert choices[-1].model != choices[0].model


@pytest.mark.parametrize(
    ("pictures", "options", "size"),
    [
        (1_000, {}, 288),
        (999, {}, None),
        (1_000, {"backbone": "efficientnet_lite2"}, 320),
        (1_000, {"backbone": "resnet18"}, None),
        (1_000, {"finetune": 1}, None),
        (1_000, {"image_size": 96}, 96),
    ],
)
def test_many_pictures_are_seen_in_more_detail(pictures, options, size):
    """Where features are kept, and there are many pictures."""
    split = SimpleNamespace(num_tokens=5_000, num_captions=1_000, train=[None] * pictures)
    asked = make_config(Caption, {"images": "photos", "budget": "2 epochs", **options})
    assert resolve(Caption(asked), asked, split).config.model.image_size == size
    further = replace(asked, train=replace(asked.train, init_from="runs/trained"))  # that model has a size
    assert resolve(Caption(further), further, split).config.model.image_size == options.get("image_size")


# -- recorded --------------------------------------------------------------------------------------------


def test_choices_are_recorded_with_their_reasons(gen, book, tmp_path, speed, monkeypatch):
    """In resolved.yaml, in the model, in what `gen train` and `gen info` print, and at the trackers."""
    told = []

    @contextmanager
    def tracker(folder, config):
        told.append(config)
        yield (lambda figures, step: None), "https://tracker.test/runs/1"

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", tracker)
    monkeypatch.setattr("gen.training.session.check_installed", lambda names: None)
    allowed = speed(50_000)
    out = tmp_path / "run"
    command = ("train", "text", "--data", book, "--out", out, "--budget", "1s", "--track", "tensorboard")
    status, printed, err = gen(*command, *words(SMALL))
    assert status == 0, err
    assert allowed == [pytest.approx(0.03)]
    file = yaml.safe_load((out / "resolved.yaml").read_text())
    dropouts = {"dropout", "embedding_dropout", "weight_dropout"}
    assert set(file["reasons"]) == {*dropouts, "learning_rate", "weight_decay", "num_layers", "tie"}
    assert "passes over the text" in file["reasons"]["dropout"]
    assert yaml.safe_load((out / "config.yaml").read_text())["model"]["dropout"] is None  # what was asked
    info = toolkit.load(out).info.training
    for known in (told[0], info | {"options": info}):
        assert known["reasons"] == file["reasons"]
        assert known["measured"] == file["measured"]
        assert known["options"]["train"]["learning_rate"] == file["options"]["train"]["learning_rate"] is not None
    assert told[0]["options"] == file["options"]
    assert "--track tensorboard: https://tracker.test/runs/1\n" in printed
    assert info["trackers"] == {"tensorboard": "https://tracker.test/runs/1"}
    card = (out / "best" / "README.md").read_text()
    assert "Followed with tensorboard: https\\://tracker.test/runs/1\n" in card
    status, shown, _ = gen("info", out)
    assert status == 0
    for text in (printed, shown):
        assert "--dropout" in text
        assert " ".join(file["reasons"]["learning_rate"].split()) in " ".join(text.split())


def test_what_was_chosen_is_read_back(book, tmp_path, speed, monkeypatch):
    """A later version would choose something else, and the machine is slower now: the run goes on as it was."""
    options = {**SMALL, "data": str(book), "out": tmp_path / "run", "budget": "1s"}
    del options["hidden_size"]
    allowed = speed(50_000)
    stopped = train("text", **options, callbacks=[lambda event: event.stop()])
    assert stopped.history[-1]["step"] == 1
    chosen = stopped.resolved
    defaults = Text.defaults

    def others(self, facts):
        return {**defaults(self, facts), "hidden_size": Choice(999, "new"), "dropout": Choice(0.77, "new")}

    monkeypatch.setattr(Text, "defaults", others)
    speed(1)
    run = train("text", **options)
    assert len(allowed) == 1
    assert run.resolved == chosen
    assert run.model.decoder.config.hidden_size == chosen["options"]["model"]["hidden_size"] != 999
    assert run.model.info.training["reasons"] == chosen["reasons"]
    assert run.history[-1]["step"] > 1


def test_a_choice_for_an_option_that_there_is_not(book, tmp_path, monkeypatch):
    monkeypatch.setattr(Text, "defaults", lambda self, facts: {"hiden_size": Choice(8, "a slip")})
    with pytest.raises(ConfigError, match="hiden_size"):
        train("text", data=str(book), out=tmp_path / "run", budget="1 steps", device="cpu")


DAMAGE = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "a list": lambda text: "- options\n- reasons\n",
    "not YAML": lambda text: "options: [1, 2\n" + text,
    "not text": lambda text: "\x00" + text,
    "a word for a number": lambda text: text.replace("learning_rate: 0.0", "learning_rate: fast"),
    "a number out of range": lambda text: text.replace("learning_rate: ", "learning_rate: -"),
    "nothing chosen": lambda text: text.replace("    dropout: 0.1\n", "    dropout:\n"),
    "an unknown name": lambda text: text.replace("learning_rate:", "learning_rat:"),
    "another training's": lambda text: text.replace("hidden_size: 16", "hidden_size: 17"),
    "measurements": lambda text: text[: text.index("measured")] + "measured: 3\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_one_clear_line(gen, trained, book, damage):
    from tests.conftest import TINY

    file = trained / "resolved.yaml"
    whole = file.read_text()
    damaged = DAMAGE[damage](whole)
    assert damaged != whole
    file.write_text(damaged)
    status, _, err = gen("train", "text", "--data", book, "--out", trained, "--budget", "30 steps", *TINY)
    assert status == 2
    assert err.startswith(f"gen: {file}: ")
    assert "delete the run" in err
    assert err.count("\n") == 1


# -- given -----------------------------------------------------------------------------------------------


def test_an_option_given_with_the_default_value_is_given(gen, trained, book, tmp_path):
    """`--num-layers 1` is refused with --init-from as `--num-layers 2` is; without it nothing is wrong."""
    words = (
        "train",
        "text",
        "--data",
        book,
        "--init-from",
        trained,
        "--out",
        tmp_path / "new",
        "--budget",
        "2 steps",
    )
    small = ("--batch-size", "2", "--chunk", "16", "--device", "cpu")
    message = "cannot be set with --init-from, which takes the model's own"
    for option in (("--num-layers", "1"), ("--num-layers", "2"), ("--cell", "lstm"), ("--no-residual",)):
        status, _, err = gen(*words, *small, *option)
        assert (status, err) == (2, f"gen: {option[0].replace('--no-', '--')}: {message}\n")
    assert not (tmp_path / "new").exists()
    options = {"data": str(book), "init_from": str(trained), "budget": "2 steps", "batch_size": 2, "chunk": 16}
    with pytest.raises(ConfigError, match="num_layers: cannot be set with init_from, which takes the model's own"):
        train("text", **options, num_layers=1)
    status, out, err = gen(*words, *small)
    assert status == 0, err
    assert "--learning-rate" in out
    assert "--hidden-size" not in out
    reasons = yaml.safe_load((tmp_path / "new" / "resolved.yaml").read_text(encoding="utf-8"))["reasons"]
    assert "learning_rate" in reasons
    assert "hidden_size" not in reasons
