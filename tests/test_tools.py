"""Before and beside a training: dry run, one batch by heart, learning rates, profile, trackers, fine-tuning,
freezing, comparing."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import gen as toolkit
from gen.base import folders
from gen.base.errors import UserError
from gen.inputs.tokenizer import CharTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.model import Model
from gen.models.transfer import freeze, with_dropout, with_vocabulary
from gen.training.options import TrainOptions
from gen.training.trackers import TRACKERS, figures_of, tracked
from tasks.commands.preflight import find_rate
from tests.conftest import TINY, make_model

# -- before ----------------------------------------------------------------------------------------------


@pytest.fixture
def train(gen, book, tmp_path):
    """`gen train text` on the book: (status, stdout, stderr)."""

    def run(*more):
        return gen(
            "train", "text", "--data", book, "--out", tmp_path / "new", "--budget", "30 steps", *TINY, *more
        )

    return run


def test_a_dry_run_writes_nothing(train, tmp_path):
    before = {p.name for p in tmp_path.iterdir()}
    status, out, err = train("--dry-run")
    assert status == 0, err
    for what in ("steps per epoch", "time per step", "time per epoch", "peak memory"):
        assert what in out
    assert {p.name for p in tmp_path.iterdir()} == before


def test_one_batch_is_learned_by_heart(train):
    status, out, _ = train("--overfit", "--learning-rate", "0.03")
    assert status == 0
    assert "it can learn" in out


def test_learning_rates(train, tmp_path):
    status, out, _ = train("--find-rate")
    assert status == 0
    assert "fell fastest at a learning rate of" in out
    assert (tmp_path / "new-rates.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "new").exists()


def test_the_rate_is_that_of_the_steepest_fall(monkeypatch, tmp_path):
    """A loss that falls around 1e-3 and explodes around 1e-1."""
    from tasks.commands import preflight

    class Known:
        def __init__(self, *args):
            pass

        def step(self, rate):
            return 4 - 2 / (1 + (1e-3 / rate) ** 2) + (100 * rate) ** 4

    monkeypatch.setattr(preflight, "Trial", Known)
    assert 3e-4 < find_rate(None, None, TrainOptions(), tmp_path / "plot.png") < 6e-3


def test_a_profile(train, tmp_path):
    status, out, _ = train("--profile", "2")
    assert status == 0
    assert "Self CPU" in out
    assert json.loads((tmp_path / "new-trace.json").read_text())["traceEvents"]


# -- beside ----------------------------------------------------------------------------------------------


def test_figures_of_a_record():
    record = {"step": 5, "loss": 2.0, "weights": "last", "validation": {"bleu": 30.1, "bleu_signature": "x"}}
    assert figures_of(record) == {"loss": 2.0, "valid/bleu": 30.1}


def test_tensorboard(train, tmp_path):
    pytest.importorskip("tensorboard")
    assert train("--track", "tensorboard")[0] == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "new" / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("valid/loss")] == [15, 30]
    assert events.Scalars("loss")[0].value > 0


def test_trackers_write_into_the_folder_of_a_new_run(train, tmp_path, monkeypatch):
    """As all of them do, before the training begins."""

    @contextmanager
    def tracker(folder, config):
        (folder / "tensorboard").mkdir(exist_ok=True)
        yield (lambda figures, step: None), "tensorboard --logdir new"

    monkeypatch.setitem(TRACKERS, "tensorboard", tracker)
    monkeypatch.setattr("gen.training.session.check_installed", lambda names: None)
    for said in ("loss", "already trained"):
        status, out, err = train("--track", "tensorboard")
        assert (status, said in out) == (0, True), err


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    message = r"track wandb: not installed; pip install 'gen-toolkit\[wandb\]'"
    with pytest.raises(UserError, match=message), tracked(["wandb"], tmp_path, {}):
        pass


@pytest.mark.parametrize("url", ["https://wandb.test/runs/7", None])
def test_where_to_look(tmp_path, monkeypatch, url):
    """The address of the run, or offline the command that uploads it."""
    run = SimpleNamespace(url=url, dir=str(tmp_path / "wandb" / "offline-run" / "files"), finish=lambda: None)
    library = SimpleNamespace(init=lambda **options: run, Settings=lambda **options: None)
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.setenv("WANDB_MODE", "online" if url else "offline")
    told = {}
    with tracked(["wandb"], tmp_path, {}, told.__setitem__):
        pass
    assert told == {"wandb": url or f"wandb sync {tmp_path / 'wandb' / 'offline-run'}"}


def test_who_is_refused_ends_no_record(train, trained, monkeypatch):
    began = []

    @contextmanager
    def tracker(folder, config):
        began.append(folder)
        yield (lambda figures, step: None), "somewhere"

    monkeypatch.setitem(TRACKERS, "wandb", tracker)
    monkeypatch.setattr("gen.training.session.check_installed", lambda names: None)
    assert train()[0] == 0
    lock = folders.acquire(trained.parent / "new" / ".lock", blocking=False)
    try:
        status, _, err = train("--track", "wandb")
    finally:
        lock.release()
    assert (status, began) == (2, [])
    assert "another process is training there" in err


# -- going on from another model -------------------------------------------------------------------------


def test_fine_tuning_begins_where_the_other_ended(train, trained, tmp_path):
    status, _, err = train("--init-from", trained, "--learning-rate", "1e-9")
    assert status == 2
    assert "--embedding-size, --hidden-size: cannot be set with --init-from, which takes the model's own" in err
    book = tmp_path / "book.txt"
    words = (
        "train",
        "text",
        "--data",
        book,
        "--out",
        tmp_path / "new",
        "--budget",
        "2 steps",
        "--batch-size",
        "2",
    )
    from tasks.cli import main

    assert main([*map(str, words), "--chunk", "16", "--init-from", str(trained), "--learning-rate", "1e-9"]) == 0
    one, two = (
        dict(toolkit.load(path).named_parameters()) for path in (trained / "best", tmp_path / "new" / "last")
    )
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_a_new_vocabulary_keeps_what_both_know(model, tokenizer):
    other = CharTokenizer.train(["the zebra quit"])
    adapted, shared = with_vocabulary(model, other)
    known = set(tokenizer.tokens()[4:]) & set(other.tokens()[4:])
    assert shared == len(known) + 4
    old, new = model.decoder, adapted.decoder
    for character in known:
        i, j = tokenizer.encode(character)[0], other.encode(character)[0]
        assert torch.equal(old.embedding.weight[i], new.embedding.weight[j])
        assert torch.equal(old.output.weight[i], new.output.weight[j])
        assert old.output.bias[i] == new.output.bias[j]
    for name, weight in new.lower.named_parameters():
        assert torch.equal(weight, dict(old.lower.named_parameters())[name])
    assert adapted.generate("the ", temperature=0, max_new_tokens=5, min_new_tokens=1).token_ids


def test_fine_tuning_a_translation_model_with_a_new_vocabulary(gen, tmp_path):
    """Embeddings of three places are one matrix before and after."""
    from tests import faults

    argv = [*faults.commands(tmp_path)["translate"], "--budget", "4 steps"]
    assert gen(*argv, "--out", tmp_path / "old")[0] == 0
    for side in ("src", "tgt"):
        (tmp_path / f"new.{side}").write_text("".join(f"abcdef xyz {'a' * n}\n" for n in range(40)))
    new = ("train", "translate", "--train", tmp_path / "new.src", tmp_path / "new.tgt", "--level", "char")
    more = ("--init-from", tmp_path / "old", "--new-vocabulary", "--budget", "4 steps", "--out", tmp_path / "new")
    status, out, err = gen(*new, *more)
    assert status == 0, err
    assert "Of 14 tokens 10 were known" in out  # a to f, and the specials
    model = toolkit.load(tmp_path / "new")
    assert model.encoder.embedding.weight is model.decoder.embedding.weight is model.decoder.output.weight
    assert gen("translate", tmp_path / "new", "--text", "xyz")[0] == 0


def test_fine_tuning_with_another_dropout(gen, tmp_path):
    """On both sides, and nothing else is another one; what is not given stays as it is."""
    from tests import faults

    argv = [*faults.commands(tmp_path)["translate"], "--budget", "2 steps"]
    assert gen(*argv, "--dropout", "0.1", "--embedding-dropout", "0.1", "--out", tmp_path / "old")[0] == 0
    sized = {"--hidden-size", "--encoder-size", "--embedding-size"}
    kept = [word for i, word in enumerate(argv) if not {argv[i - 1], word} & sized]
    more = ("--init-from", tmp_path / "old", "--dropout", "0.4", "--weight-dropout", "0.2")
    for _ in range(2):  # the second time it is done
        status, _, err = gen(*kept, *more, "--learning-rate", "1e-9", "--out", tmp_path / "new")
        assert status == 0, err
    old, new = toolkit.load(tmp_path / "old"), toolkit.load(tmp_path / "new" / "last")
    changed = {"dropout": 0.4, "weight_dropout": 0.2}
    assert new.decoder.config == replace(old.decoder.config, **changed)
    assert new.encoder.config == {**old.encoder.config, **changed}
    assert new.encoder.dropout == 0.4
    for one, two in zip(old.parameters(), new.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    status, _, err = gen(*kept, *more[:2], "--dropout", "1.5", "--out", tmp_path / "other")
    assert (status, "--dropout must be" in err) == (2, True)


def test_dropout_that_the_cell_to_start_from_cannot_have(tokenizer):
    other = Model({"name": "none"}, DecoderConfig(len(tokenizer), cell="mingru"), tokenizer)
    with pytest.raises(UserError, match=r"the mingru of .* has no recurrent weights"):
        with_dropout(other, {"weight_dropout": 0.2})
    assert with_dropout(other, {"dropout": 0.2}).decoder.config.dropout == 0.2


def test_the_level_is_that_of_the_model_to_start_from(gen, trained, book, tmp_path):
    """A vocabulary that is kept cannot be of another level, and the record names the right one."""
    words = ("train", "text", "--data", book, "--budget", "2 steps", *TINY[4:])
    assert gen(*words, *TINY[:4], "--level", "word", "--out", tmp_path / "words")[0] == 0
    start = (*words, "--init-from", tmp_path / "words", "--out", tmp_path / "more")
    status, _, err = gen(*start, "--level", "char")
    assert status == 2
    assert f"--level char: the vocabulary is that of --init-from {tmp_path / 'words'}, whose level is word" in err
    status, _, err = gen(*start, "--level", "word", "--vocab-size", "20")
    assert (status, "--vocab-size: cannot be set with --init-from" in err) == (2, True)
    for _ in range(2):  # the second time it is done
        status, _, err = gen(*start)
        assert status == 0, err
    assert toolkit.load(tmp_path / "more").info.options()["level"] == "word"


def test_the_case_is_that_of_the_model_to_start_from(gen, tmp_path):
    """Else capital letters would be unknown in training, and known later."""
    from tests import faults

    argv = [*faults.commands(tmp_path)["translate"], "--budget", "2 steps"]
    for name, more in (("cased", []), ("lower", ["--lowercase"])):
        assert gen(*argv, *more, "--out", tmp_path / name)[0] == 0
    words = [*argv[:5], "--level", "char", "--valid-size", "2", "--budget", "2 steps"]
    status, _, err = gen(*words, "--init-from", tmp_path / "lower", "--out", tmp_path / "more")
    assert status == 0, err
    assert toolkit.load(tmp_path / "more").info.options()["lowercase"] is True
    status, _, err = gen(*words, "--init-from", tmp_path / "cased", "--lowercase", "--out", tmp_path / "other")
    assert (status, f"--lowercase: --init-from {tmp_path / 'cased'} reads cased sentences" in err) == (2, True)


def test_speed_is_measured_with_the_new_vocabulary(trained, tmp_path):
    """It is larger than the model's; measuring leaves that model as it was."""
    (tmp_path / "other.txt").write_text("Übung macht den Meister; quod erat demonstrandum! 0123456789 " * 60)
    options = {"data": tmp_path / "other.txt", "init_from": trained, "new_vocabulary": True, "budget": "1s"}
    small = {"batch_size": 2, "chunk": 16, "validations": 1, "device": "cpu", "precision": "fp32"}
    run = toolkit.train("text", **options, **small)
    assert len(run.model.tokenizer) > len(toolkit.load(trained).tokenizer)


def test_sizes_that_are_those_of_a_vocabulary(tokenizer):
    """As many gates as characters: rows of a layer are no tokens."""
    characters = [chr(c) for c in range(97, 97 + 60)]
    model = make_model(CharTokenizer(characters))  # 64 with the specials, as four gates of 16
    other, _ = with_vocabulary(model, CharTokenizer(characters[::-1]))
    before, after = (dict(m.decoder.lower.named_parameters()) for m in (model, other))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_judged_with_the_vocabulary_it_was_trained_with(gen, trained, tmp_path):
    """The book of the second training alone would give other ids."""
    (tmp_path / "other.txt").write_text("a cat. the cat. " * 60)
    words = ("train", "text", "--data", tmp_path / "other.txt", "--out", tmp_path / "new", "--init-from", trained)
    assert gen(*words, "--budget", "2 steps", *TINY[4:])[0] == 0
    figures = json.loads(gen("evaluate", tmp_path / "new", "--json")[1])
    metrics = toolkit.load(tmp_path / "new").info.metrics
    assert figures["loss"] == pytest.approx(metrics["loss"], rel=1e-3)


def test_freezing(model, train, trained, tmp_path):
    count = freeze(model, ["*.embedding.weight", "decoder.output.*"])
    assert count == sum(p.numel() for p in model.parameters() if not p.requires_grad) > 0
    with pytest.raises(UserError, match=r"freeze nothing\*: matches no weights; there is decoder\."):
        freeze(model, ["nothing*"])
    with pytest.raises(UserError, match="nothing is left to learn"):
        freeze(model, ["*"])
    assert train("--freeze", "decoder.embedding.*")[0] == 0
    from tests.test_train import equal, weights

    moved = toolkit.load(tmp_path / "new" / "last")
    first = make_like(moved)
    assert torch.equal(moved.decoder.embedding.weight, first.decoder.embedding.weight)
    assert not equal(weights(moved), weights(first))


def test_freezing_tied_weights(tokenizer):
    """They are frozen by each of their names, and counted once."""
    model = make_model(tokenizer, tie_embeddings=True)
    output = model.decoder.output
    assert freeze(model, ["decoder.output.*"]) == output.weight.numel() + output.bias.numel()
    assert not model.decoder.embedding.weight.requires_grad
    model.requires_grad_(True)
    assert freeze(model, ["decoder.embedding.weight", "decoder.*put.weight"]) == output.weight.numel()


def make_like(model):
    """The model as it was before its training."""
    from gen.models.model import Model
    from gen.training.machine import seed_everything

    seed_everything(1)
    return Model({"name": "none"}, model.decoder.config, model.tokenizer)


# -- comparing -------------------------------------------------------------------------------------------


def test_runs_side_by_side(gen, trained, book, tmp_path):
    other = ("train", "text", "--data", book, "--out", tmp_path / "other", "--budget", "20 steps", *TINY)
    assert gen(*other, "--dropout", "0.3")[0] == 0
    status, out, err = gen("compare", trained, tmp_path / "other", "-o", tmp_path / "curves.png")
    assert status == 0, err
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    assert rows["--budget"] == ["30", "steps", "20", "steps"]
    assert rows["steps"] == ["30", "20"]
    assert len(rows["loss"]) == 2
    assert "--seed" not in rows
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_models_with_other_vocabularies_are_evaluated_on_one_text(gen, trained, book, tmp_path):
    """Each reads it in its own tokens, of a stream or of lines."""
    text = book.read_text()
    (tmp_path / "held-out.txt").write_text(text[int(len(text) * 0.9) :])
    (tmp_path / "other.txt").write_text(
        "".join(f"The cat {i} sat on the Matte! and ran off.\n" for i in range(200))
    )
    for unit in ("stream", "line"):
        other = tmp_path / unit
        words = ("train", "text", "--data", tmp_path / "other.txt", "--unit", unit, "--out", other)
        assert gen(*words, "--budget", "20 steps", *TINY[:4], *TINY[8:])[0] == 0
        found = json.loads(gen("evaluate", trained, "--compare", other, "--json")[1])
        apart = json.loads(gen("evaluate", other, "--data", tmp_path / "held-out.txt", "--json")[1])
        assert found["compare"] == pytest.approx(apart, rel=1e-2)
        assert found["loss"] == pytest.approx(toolkit.load(trained).info.metrics["loss"], rel=1e-2)


def test_an_exported_text_model_is_not_evaluated(gen, trained, page_exports):
    status, _, err = gen("evaluate", trained, "--compare", page_exports["topics"])
    assert status == 2
    assert "name the run that it was exported from" in err


def test_checks_need_no_run_folder(gen, book, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = gen("train", "text", "--data", book, "--profile", "1", *TINY)
    assert status == 0, err
    assert (tmp_path / "run-trace.json").exists()


def test_what_cannot_be_compared(gen, trained, tmp_path):
    for words, message in (
        ((trained,), "name two runs or more"),
        ((trained, tmp_path), "is not the folder of a run"),
        ((trained, trained, "--metric", "bleu", "-o", tmp_path / "a.png"), "--metric bleu"),
        ((trained, trained, "--metric", "bleu"), "--metric goes with --output"),
    ):
        status, _, err = gen("compare", *words)
        assert status == 2
        assert message in err
