"""Folders saved by an earlier version: they load, and write the same texts.

`saved-d9057b5.tar.xz` holds tiny models, runs and exported models made before input processors had names, and what
they wrote then (`expected.json`).
"""

from __future__ import annotations

import json
import shlex
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

import gen as toolkit
from gen import runtime
from gen.models import checkpoint
from gen.models.encoders.backbones import load_backbone
from gen.models.model import Model
from gen.training.run import Run

ARCHIVE = Path(__file__).parent / "saved-d9057b5.tar.xz"
OPTIONS = {
    "text": {"max_new_tokens": 40},
    "text-exported": {"max_new_tokens": 40},
    "words": {"max_new_tokens": 12},
}
HOW = {"greedy": {"temperature": 0}, "sampled": {"temperature": 0.9, "seed": 3}, "beam": {}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder with everything that was saved."""
    folder = tmp_path_factory.mktemp("saved")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(saved):
    return json.loads((saved / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name",
    ["text", "text-exported", "words", "translate", "translate-exported", "translate-int8", "caption"],
)
def test_the_texts_are_the_same(saved, expected, name):
    known = expected[name]
    model = toolkit.load(saved / name)
    items = [str(saved / item) if name == "caption" else item for item in known["items"]]
    told = known.keys() & HOW.keys()
    assert told
    for how in told:
        found = model.generate(items, **HOW[how], **OPTIONS.get(name, {}))
        assert [[h.text for h in several] for several in found] == known[how]
    if "score" in known:
        assert model.score(["the cat sat."])[0].log_prob == pytest.approx(known["score"], abs=1e-3)


def test_nothing_is_left_out(expected):
    (test,) = (m for m in test_the_texts_are_the_same.pytestmark if m.name == "parametrize")
    assert set(test.args[1]) == set(expected)


def test_old_names_become_todays(saved, tmp_path):
    old = checkpoint.read_config(checkpoint.find_model(saved / "translate"))["encoder"]
    assert old["longest"] > 0
    model = Model.load(saved / "translate")
    processor = model.processors["sentence"]
    assert (processor.max_length, processor.multi_sentence_p90) == (old["longest"], old["usual"])
    exported = runtime.load(saved / "translate-exported").processors["sentence"]
    assert (exported.max_length, exported.multi_sentence_p90) == (old["longest"], old["usual"])
    model.save(tmp_path / "m")
    new = checkpoint.read_config(tmp_path / "m")["encoder"]
    assert new["max_length"] == old["longest"]
    assert not {"longest", "usual"} & new.keys()
    assert Model.load(tmp_path / "m").generate("The big dog runs.")[0].text


def test_a_saved_caption_model_can_be_exported(saved, expected, tmp_path):
    pytest.importorskip("onnxscript")
    from gen.models.export import export

    export(Model.load(saved / "caption"), tmp_path / "out")
    model = runtime.load(tmp_path / "out")
    assert model.processors["picture"].num_cells == load_backbone("shufflenet_v2_x0_5", "none").num_cells
    found = model.generate([str(saved / item) for item in expected["caption"]["items"]])
    assert [[h.text for h in several] for several in found] == expected["caption"]["beam"]


def test_an_interrupted_run_can_be_read(saved):
    run = saved / "interrupted"
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["hidden_size"] == 16
    state = checkpoint.read_training(run / "last")
    assert state
    model = Model.load(run / "last")
    weights = torch.cat([p.flatten() for p in model.parameters()])
    assert torch.isfinite(weights).all()
    assert model.generate("the ", max_new_tokens=5, seed=1)[0].text


def test_a_saved_run_is_used_as_one_of_today(saved, gen, monkeypatch):
    monkeypatch.chdir(saved)  # it was trained there, on book.txt
    status, out, err = gen("info", "text", "--json")
    assert status == 0, err
    facts = json.loads(out)
    assert (facts["task"], facts["budget"], facts["data"]) == ("text", "60 steps", "book.txt")
    status, out, err = gen("generate", "text", "--prompt", "the", "--max-new-tokens", "20", "--seed", "1")
    assert status == 0, err
    assert len(out.strip()) > 3
    status, out, err = gen("evaluate", "text", "--json")
    assert status == 0, err
    assert json.loads(out)["loss"] == pytest.approx(facts["loss"], abs=1e-3)
    run = Run("text")
    assert (run.config["hidden_size"], run.reasons, run.metrics["loss"]) == (24, {}, facts["loss"])


def test_other_models_are_evaluated(saved, gen, monkeypatch):
    """Whose options had other names and values: on pairs that the run names, and on text without a table."""
    monkeypatch.chdir(saved)
    for name, words, figure in (
        ("translate", ("--src", "train.en", "--ref", "train.de"), "bleu"),
        ("words", (), "loss"),
    ):
        status, out, err = gen("evaluate", name, *words, "--json")
        assert status == 0, err
        assert 0 < json.loads(out)[figure] < 100


def test_a_saved_run_cannot_go_on(saved, gen, monkeypatch, tmp_path):
    """It recorded no choices. Nothing in it changes; its model is a place to begin from."""
    monkeypatch.chdir(saved)
    before = {path: path.read_bytes() for path in Path("interrupted").rglob("*") if path.is_file()}
    typed = shlex.split(Model.load("interrupted/last").info.training["command"])[1:]
    status, _, err = gen(*typed)
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith("gen: --out interrupted: was started by a version that did not record its choices")
    assert "--init-from interrupted and another --out" in err
    assert before == {path: path.read_bytes() for path in Path("interrupted").rglob("*") if path.is_file()}
    words = ("--data", "book.txt", "--batch-size", "4", "--chunk", "16", "--budget", "2 steps", "--device", "cpu")
    status, _, err = gen("train", "text", *words, "--init-from", "interrupted", "--out", tmp_path / "new")
    assert status == 0, err


@pytest.mark.parametrize("name", ["text", "translate"])
def test_the_options_of_a_saved_run_are_read(saved, gen, monkeypatch, tmp_path, name):
    """As --config, under the names of today."""
    monkeypatch.chdir(saved)
    status, out, err = gen(
        "train", name, "--config", f"{name}/config.yaml", "--out", tmp_path / "new", "--dry-run"
    )
    assert status == 0, err
    assert "1 × lstm" in out
