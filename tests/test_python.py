"""The toolkit from Python: training, what it leaves, what it must not touch, and what editors see."""

from __future__ import annotations

import logging
import os
import pickle
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tasks.data.sequences import sequence_pairs

import gen as toolkit
from gen.base.errors import ConfigError, UserError
from gen.models import checkpoint
from gen.training.config import make_config
from gen.training.run_folder import RunFolder
from gen.training.validation import Event
from tasks.text.task import Text
from tests import stubs
from tests.conftest import SMALL_TRANSLATOR, TEXT, make_model

SMALL = SMALL_TRANSLATOR | {"validations": 2, "precision": "fp32", "device": "cpu"}
TEXT_SMALL = {
    "hidden_size": 16,
    "embedding_size": 8,
    "batch_size": 2,
    "chunk": 16,
    "validations": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder with train.{en,de} and valid.{en,de}."""
    folder = tmp_path_factory.mktemp("pairs")
    for name, size, seed in (("train", 400, 1), ("valid", 20, 2)):
        found = sequence_pairs("reverse", size, seed=seed, letters="abcdef", lengths=(2, 6))
        for side, texts in zip(("en", "de"), zip(*found, strict=True), strict=True):
            (folder / f"{name}.{side}").write_text("".join(t + "\n" for t in texts))
    return folder


@pytest.fixture(scope="module")
def run(pairs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN_CACHE", str(pairs / "cache"))
        return train_pairs(pairs, out=pairs / "run")


def train_pairs(pairs, **options):
    files = {"train": pairs / "train.{en,de}", "valid": pairs / "valid.{en,de}"}
    return toolkit.train("translate", **{**files, "budget": "20 steps", **SMALL, **options})


def test_every_public_name():
    names = (
        "load train Model Trainer Task register Run SearchOptions Output Memory Encoder Decoder DecoderConfig "
        "Strategy Greedy Sample Beam Hypothesis UserError TrainOptions"
    )
    for name in names.split():
        assert getattr(toolkit, name) is not None
        assert name in dir(toolkit)
    with pytest.raises(AttributeError, match="nothing"):
        _ = toolkit.nothing


def test_training(run, pairs):
    assert isinstance(run, toolkit.Run)
    assert run.path == pairs / "run"
    assert {"loss", "bleu", "chrf", "exact"} <= run.metrics.keys()
    validations = [record for record in run.history if "validation" in record]
    assert len(validations) >= 2
    assert run.history[-1]["step"] == 20
    assert run.config["hidden_size"] == 16
    assert run.config["learning_rate"] == 5e-3  # chosen, and why is known
    assert "learning_rate" in run.reasons
    assert run.config["train"] == [str(pairs / "train.{en,de}")]
    assert isinstance(run.model, toolkit.Model)
    assert run.model.info.training["command"].startswith("gen.train('translate', train=")


def test_a_model_is_called(run):
    one = run.model("A dog runs.", max_new_tokens=9)
    assert isinstance(one, str)
    several = run.model(["abc", "fed"], max_new_tokens=9)
    assert [type(text) for text in several] == [str, str]
    assert several[0] == run.model("abc", max_new_tokens=9)


def test_loading(run):
    for device in ("auto", "cpu"):
        model = toolkit.load(run.path, device=device)
        assert model("abc") == run.model("abc")
    with pytest.raises(UserError, match=r"^device=?.*quantum.*device=?.cpu"):
        toolkit.load(run.path, device="quantum")


def test_short_representations(run):
    for each in (run, run.model):
        assert "\n" not in repr(each)
        assert 10 < len(repr(each)) < 300
    assert "step 20" in repr(run)
    assert "<table>" in run._repr_html_()


def test_a_run_travels(run):
    again = pickle.loads(pickle.dumps(run))
    assert again.metrics == run.metrics
    assert again.model("abc") == run.model("abc")
    with pytest.raises(UserError, match="is not the folder of a run"):
        toolkit.Run(run.path / "best" / "nowhere")


def test_a_run_without_a_folder(book):
    found = toolkit.train("text", data=book, budget="2 steps", **TEXT_SMALL)
    path = found.path
    assert isinstance(found.model("the"), str)
    assert path.exists()
    del found
    assert not path.exists()


def test_wrong_names_and_values(pairs, book):
    with pytest.raises(ConfigError) as caught:
        train_pairs(pairs, hiden_size=3, budgt="1m", encoder_size=8)
    assert len(str(caught.value).splitlines()) == 2
    assert "hiden_size" in str(caught.value)
    assert "did you mean 'hidden_size'?" in str(caught.value)
    assert "did you mean 'budget'?" in str(caught.value)
    for options, message in (
        ({"level": "chars"}, "level: 'chars' does not fit; give char or word or subword"),
        ({"hidden_size": "big"}, "hidden_size: 'big' does not fit; give a whole number"),
        ({"separate": "yes"}, "separate: 'yes' does not fit; give true or false"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0, not -1.0"),
        ({"tie": "all", "separate": True}, "tie=all needs one vocabulary"),
        ({"budget": "soon"}, "budget"),
    ):
        with pytest.raises(ConfigError) as caught:
            train_pairs(pairs, **options)
        text = str(caught.value)
        assert message.replace("tie=all", "tie all") in text.replace("tie=all", "tie all")
        assert "\n" not in text
        assert "--" not in text
    with pytest.raises(UserError, match="there is no task 'translat'; did you mean 'translate'"):
        toolkit.train("translat", data=book)


def test_braces_are_those_of_a_shell(tmp_path):
    """A run that a shell began, which expands braces, is gone on with from Python."""
    out, small = tmp_path / "run", {"device": "cpu", "validations": 1, "level": "char", "budget": "2 steps"}
    for end, lines in zip(("en", "de"), zip(*[(f"a{i}", f"b{i}") for i in range(40)], strict=True), strict=True):
        (tmp_path / f"p.{end}").write_text("\n".join(lines) + "\n")
    begun = toolkit.train("translate", train=[tmp_path / "p.en", tmp_path / "p.de"], out=out, **small)
    same = toolkit.train("translate", train=str(tmp_path / "p.{en,de}"), out=out, **small)
    assert same.history == begun.history


def test_determinism_is_a_state_of_the_process(book, tmp_path):
    with pytest.raises(toolkit.ConfigError, match="use_deterministic_algorithms"):
        toolkit.train("text", data=book, out=tmp_path / "run", deterministic=True, device="cpu")


def test_what_score_takes(run):
    model = run.model
    (score,) = model.score(["fed"], ["def"])
    assert score.log_prob < 0
    for texts, items, message in (
        ("fed", ["def"], "score takes a list of texts"),
        (["fed"], "def", "score takes a list of texts"),
        (["fed"], None, "this model reads an input"),
        (["fed", "cba"], ["def"], "one item per text, not 1 for 2"),
    ):
        with pytest.raises(UserError, match=message):
            model.score(texts, items)
    for item in (None, {"sentence": None}):
        with pytest.raises(UserError, match="an input is missing: it is None"):
            model.generate(item)
    with pytest.raises(UserError, match="precision must be one of auto, fp32, bf16, fp16, not bfloat16"):
        toolkit.load(run.path, precision="bfloat16")


def test_a_text_is_one_path(tmp_path):
    assert make_config(Text, {"data": "/x"}).data.data == ("/x",)
    assert make_config(Text, {"data": tmp_path}).data.data == (str(tmp_path),)
    assert make_config(Text, {"data": ["a", tmp_path]}).data.data == ("a", str(tmp_path))
    with pytest.raises(UserError, match=r"/nowhere/at/all: no such file"):
        toolkit.train("text", data="/nowhere/at/all")


def state_of_the_world():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": (name, keys.tolist(), rest),
        "python": random.getstate(),
        "signals": handlers,
        "logging": (list(logging.root.handlers), logging.root.level),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "threads": threading.active_count(),
        "torch threads": torch.get_num_threads(),
    }


def test_nothing_global_changes(book, pairs, tmp_path, capfd):
    import matplotlib.pyplot  # noqa: F401  what libraries do when they are imported is theirs

    before = state_of_the_world()
    toolkit.train("text", data=book, out=tmp_path / "a", budget="3 steps", **TEXT_SMALL)
    train_pairs(pairs, budget="3 steps")
    after = state_of_the_world()
    assert {name for name in before if before[name] != after[name]} == set()
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_what_a_seed_makes_does_not_depend_on_the_world(book):
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        runs.append(toolkit.train("text", data=book, budget="3 steps", **TEXT_SMALL))
    assert runs[0].metrics["loss"] == runs[1].metrics["loss"]


def test_callbacks_stop_and_the_run_goes_on(pairs, tmp_path):
    events = []

    def watch(event):
        assert isinstance(event, Event)
        events.append(event.progress.step)
        event.stop()

    stopped = train_pairs(pairs, out=tmp_path / "run", callbacks=[watch])
    assert events[0] == 1
    assert checkpoint.read_training(stopped.path / "last")["progress"]["step"] == 1
    assert isinstance(stopped.model("abc", max_new_tokens=3), str)
    steps = []
    whole = train_pairs(pairs, out=tmp_path / "run", callbacks=lambda event: steps.append(event.progress.step))
    assert steps[-1] == whole.history[-1]["step"] == 20
    at_once = train_pairs(pairs, out=tmp_path / "other", callbacks=None)
    assert whole.metrics["loss"] == at_once.metrics["loss"]


class Lines(toolkit.Task):
    """A task whose parts are made by hand."""

    def validate(self, model, *, quick=False):
        loss_sum, num_tokens = model.evaluate(iter(list(self.batches.epoch(0))[:2]))
        return toolkit_evaluation({"loss": loss_sum / num_tokens})

    def sample(self, model, evaluation):
        return model("", max_new_tokens=4, temperature=0.0)


def toolkit_evaluation(figures):
    from gen.training.task import Evaluation

    return Evaluation(figures)


def test_a_trainer_of_ones_own(model, tokenizer, tmp_path):
    from gen.datasets.batches import TokenFile
    from gen.datasets.streams import StreamBatches

    tokenizer.encode_array(TEXT * 20).astype("uint16").tofile(tmp_path / "tokens.bin")
    task = Lines()
    task.batches = StreamBatches(TokenFile(tmp_path / "tokens.bin", "uint16"), 4, 8, 1, seed=1)
    options = toolkit.TrainOptions(budget="10 steps", validations=1, learning_rate=1e-2, device="cpu")
    called = []
    trainer = toolkit.Trainer(model, task, options, out=tmp_path / "run", callbacks=[called.append])
    found = trainer.fit()
    assert trainer.done
    assert found.history[-1]["step"] == 10
    assert found.metrics["loss"] == pytest.approx(found.history[-1]["validation"]["loss"], abs=1e-4)
    assert called[-1].validation == found.history[-1]["validation"]
    stopping = toolkit.Trainer(model, task, options, out=tmp_path / "b", callbacks=[lambda e: e.stop()])
    stopping.fit()
    assert not stopping.done
    assert RunFolder(tmp_path / "b", {}).progress()["step"] == 1
    again = toolkit.Trainer(model, task, options, out=tmp_path / "b")
    again.fit()
    assert again.done
    other = make_model(tokenizer, seed=9)
    toolkit.Trainer(other, task, options, out=tmp_path / "b").fit()  # nothing is left to do
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_options_of_a_model_that_is_made_by_hand(book):
    """Nothing would be frozen, and no model begun from, without a word."""
    with pytest.raises(ConfigError) as error:
        Text.from_options(data=book, init_from="runs/none", freeze="decoder.embedding.*")
    assert [line.split()[0] for line in error.value.errors] == ["--init-from", "--freeze"]


def test_two_trainings_at_the_same_time(book, tmp_path):
    def one(name):
        return toolkit.train("text", data=book, out=tmp_path / name, budget="30 steps", **TEXT_SMALL)

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(one, ("a", "b")))
    assert [run.history[-1]["step"] for run in runs] == [30, 30]
    assert all(isinstance(run.model("the"), str) for run in runs)


# -- what editors see ------------------------------------------------------------------------------------


def test_the_stub_is_up_to_date():
    assert stubs.FILE.read_text(encoding="utf-8") == stubs.stub(), "run python -m tests.stubs"


def test_type_checkers_know_the_options(tmp_path):
    api = pytest.importorskip("mypy.api")
    (tmp_path / "use.py").write_text(
        "from pathlib import Path\nimport gen\n"
        'run = gen.train("translate", train=Path("a.{en,de}"), tie="all", hidden_size=64)\n'
        "reveal_type(run)\nreveal_type(gen.UserError)\n"
        'gen.train("mine", anything=1)\n'
    )
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nfollow_imports = silent\nignore_missing_imports = true\n"
        "[mypy-torch.*,torchvision.*,numpy.*]\nfollow_imports = skip\n"  # reading them takes as long again
    )
    said, _, status = api.run(
        ["--config-file", str(config), "--cache-dir", str(tmp_path), str(tmp_path / "use.py")]
    )
    assert status == 0, said
    assert "gen.training.run.Run" in said
