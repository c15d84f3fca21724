"""Distillation: students agree with their teachers, go on after a kill, and bad teachers are refused."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import gen as toolkit
import tasks.caption.taught as taught_captions
import tasks.translate.taught as taught
from data.shapes import write_shapes
from gen import UserError
from gen.datasets.captions import Captioned
from gen.inputs.labels import LabelTokenizer
from gen.models.encoders.labels import LabelEncoder
from gen.models.model import _divergence
from gen.search.info import ModelInfo, as_text
from gen.training.config import make_config
from gen.training.distill import DistillOptions
from tasks.caption.data import CaptionSplit
from tasks.text.task import Text
from tasks.translate.task import Translate
from tests.conftest import SMALL_TRANSLATOR, TINY, make_model

PAIRS = [(f"{a} {b}", f"{b} {a}") for a in "abcdefgh" for b in "abcdefgh"]
SMALL = SMALL_TRANSLATOR | {"batch_tokens": 200, "validations": 1, "device": "cpu", "precision": "fp32"}


def small_text(**options):
    sizes = {"hidden_size": 16, "embedding_size": 8, "batch_size": 2, "chunk": 16, "validations": 2}
    return {**sizes, "precision": "fp32", "device": "cpu", **options}


def made(folder, name, src="1", tgt="2", steps=8):
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS))
    data = {"data": folder / "pairs.tsv", "src": src, "tgt": tgt, "valid_size": 6}
    toolkit.train("translate", **data, out=folder / name, budget=f"{steps} steps", **SMALL)
    return folder / name


@pytest.fixture
def translator(tmp_path):
    return made(tmp_path, "teacher")


def rows_of(run):
    return [json.loads(line) for line in (run / "teacher.jsonl").read_text(encoding="utf-8").splitlines()]


def distance(teacher, student, text):
    """Mean KL(teacher‖student), nats per character."""
    logits = []
    for model in (teacher, student):
        batch = model.batch([text])
        memory = model.encoder(batch.encoder_source)
        with torch.no_grad():
            logits.append(model.decoder(batch.input_ids, model.decoder.init_state(memory), memory).logits)
    return float(_divergence(logits[0].softmax(-1), logits[1]).mean())


def test_a_student_agrees_more_than_a_model_of_the_data(trained, book, tmp_path):
    teacher, text = toolkit.load(trained), book.read_text()[:200]
    alone = toolkit.train("text", data=book, budget="90 steps", **small_text(seed=2))
    student = toolkit.distill(trained, budget="90 steps", teacher_weight=1, **small_text(seed=2))
    assert student.model.tokenizer.to_bytes() == teacher.tokenizer.to_bytes()
    assert distance(teacher, student.model, text) < distance(teacher, alone.model, text) / 2


def test_a_stopped_distillation_ends_with_the_same_weights(trained, tmp_path):
    other = toolkit.distill([trained, trained], out=tmp_path / "other", budget="30 steps", **small_text(seed=3))
    teachers, options = [trained, other.path], small_text(budget="60 steps", seed=4)
    whole = toolkit.distill(teachers, out=tmp_path / "whole", **options)

    def stop(event):
        if event.progress.step >= 30 and event.validation:
            event.stop()

    toolkit.distill(teachers, out=tmp_path / "parts", callbacks=[stop], **options)
    with pytest.raises(toolkit.UserError, match="another configuration"):
        toolkit.distill(trained, out=tmp_path / "parts", **options)
    parts = toolkit.distill(teachers, out=tmp_path / "parts", **options)
    assert parts.model.fingerprint == whole.model.fingerprint


def test_translations_are_learned_from_beside_the_pairs(gen, translator, tmp_path):
    known = "".join(f"{source}\n" for source, _ in PAIRS)  # trained or validated on: left out
    (tmp_path / "more.txt").write_text(f"a a a\n\n{known}h a b\n")
    out, words = tmp_path / "student", ["--budget", "4 steps", "--hidden-size", 32, "--device", "cpu"]
    command = ["distill", translator, translator, "--sources", tmp_path / "more.txt", "--out", out, *words]
    status, _, err = gen(*command, "--backward", translator, "--dry-run")
    assert (status, out.exists()) == (2, False)
    assert "trained from 1 of" in err
    assert f"as the teacher {translator}; name a model of the other direction" in err
    backward = made(tmp_path, "backward", "2", "1", steps=1)
    status, _, err = gen(*command, "--backward", backward, "--teacher-beam", 2, "--dry-run")
    assert (status, out.exists()) == (0, False), err
    status, _, err = gen(*command, "--backward", backward, "--teacher-beam", 2)
    assert status == 0, err
    rows, model = rows_of(out), toolkit.load(out)
    valid = [row for row in rows if row["split"] == "valid"]
    written = {row["source"]: row["target"] for row in rows if (row["source"], row["target"]) not in PAIRS}
    kept = [pair for pair in PAIRS if pair[0] not in {row["source"] for row in valid}]
    assert len(valid) == 6
    assert len(rows) == 6 + 3 * len(kept) + 2
    assert written["h a b"] == toolkit.load(translator)("h a b", beam=2)
    assert model.decoder.config.hidden_size == 32
    assert model.info.training["distill"]["backward"] == str(backward)
    assert f"Taught by {as_text(translator)}, {as_text(translator)}\n" in (out / "best/README.md").read_text()
    assert f"{translator}, {translator}" in json.loads(gen("info", out, "--json")[1])["taught by"]
    assert gen("evaluate", out)[0] == 0  # on what was held out from the teacher, too


def test_a_kill_while_the_teacher_writes(translator, tmp_path, monkeypatch):
    out, translate = tmp_path / "student", taught.translate_lines
    options = {"out": out, "budget": "2 steps", **SMALL}

    def killed(*args, **options):
        for n, found in enumerate(translate(*args, **options)):
            if n == 9:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(taught, "translate_lines", killed)
    with pytest.raises(KeyboardInterrupt):
        toolkit.distill(translator, **options)
    assert {path.name for path in out.iterdir()} == {"config.yaml"}
    monkeypatch.setattr(taught, "translate_lines", translate)

    def stop(event):
        event.stop()

    toolkit.distill(translator, **options, callbacks=[stop])
    assert {row["split"] for row in rows_of(out)} == {"train", "valid"}
    monkeypatch.setattr(taught, "translate_lines", None)  # it is not needed again
    assert toolkit.distill(translator, **options).metrics["loss"] > 0


def test_a_run_goes_on_without_its_teachers(gen, translator, tmp_path):
    out = tmp_path / "student"
    command = ["distill", translator, "--out", out, "--budget", "4 steps", "--hidden-size", 32, "--device", "cpu"]
    options = {"hidden_size": 32, "device": "cpu", "budget": "4 steps"}
    toolkit.distill(translator, out=out, **options)
    written, first = (out / "teacher.jsonl").read_bytes(), tmp_path / "first"
    translator.rename(first)
    status, _, err = gen("distill", tmp_path / "other", *command[2:])
    assert (status, "other: no such model folder" in err) == (2, True), err
    for name in ("best", "last", "previous"):  # as if killed before there was one of them
        shutil.rmtree(out / name, ignore_errors=True)
    status, _, err = gen(*command[:2], f"--out={out}", *command[4:])
    assert status == 0, err
    made(tmp_path, "teacher", steps=2)
    status, _, err = gen(*command)
    assert (status, "is no longer the model that it learned from" in err) == (2, True), err
    shutil.rmtree(translator)
    first.rename(translator)
    assert toolkit.distill(translator, out=out, **options).metrics["loss"] > 0
    assert (out / "teacher.jsonl").read_bytes() == written


def test_teachers_of_text_are_needed_to_the_end(gen, trained, book, tmp_path):
    teacher, out = tmp_path / "teacher", tmp_path / "student"
    shutil.copytree(trained, teacher)
    command = ["distill", teacher, "--out", out, "--budget", "2 steps", *TINY]
    assert gen(*command)[0] == 0
    shutil.rmtree(teacher)
    assert gen("train", "text", "--data", book, "--out", teacher, "--budget", "1 steps", *TINY)[0] == 0
    status, _, err = gen(*command)
    why = f"{teacher} is no longer the model that it learned from: choose another --out"
    assert (status, err) == (2, f"gen: {out}: {why}\n")
    shutil.rmtree(teacher)
    status, _, err = gen(*command)
    assert (status, len(err.splitlines())) == (2, 1), err
    assert "teacher: no such model folder" in err
    assert "a text run learns from its teachers at every step, also when it is resumed" in err


def test_teachers_of_other_labels_are_refused(tokenizer, tmp_path):
    """The student's batches have one id for a label: of these two, the first would read B as C, and C as D."""

    def teacher(*labels):
        encoder = LabelEncoder({"label": LabelTokenizer(labels)}, 8)
        model = make_model(tokenizer, encoder=encoder, num_layers=2, attention="dot")
        model.info = ModelInfo(task="text", ends_with_eos=True)
        return model

    rows = [f"the cat {'ran ' * (n % 7)}to the mat,{'BC'[n % 2]}" for n in range(60)]
    (tmp_path / "labelled.csv").write_text("title,label\n" + "\n".join(rows))
    task = Text(make_config(Text, {"data": tmp_path / "labelled.csv", "column": "title", "given": "label"}))
    options = DistillOptions(("runs/a", "runs/b"))
    task.teachers = [teacher("B", "C", "D"), teacher("A", "B", "C")]
    with pytest.raises(UserError, match="TEACHER: not all of these models know the label 'A' of given label"):
        task.taught(options, None)
    task.teachers = [teacher("B", "C"), teacher("B", "C")]
    assert set(task.taught(options, None).labels) == {"label"}


def test_the_card_escapes_names_of_teachers():
    record = {"distill": {"teachers": ["runs/a|b", "*c*\nd"]}}
    assert "\nTaught by runs/a\\|b, \\*c\\* d\n" in ModelInfo(training=record).card("A model.", "torch")
    for other in ({}, {"distill": 1}, {"distill": {"teachers": 1}}):
        assert "Taught by" not in ModelInfo(training=other).card("A model.", "torch")


def test_directions_that_contradict():
    model, task = SimpleNamespace(info=ModelInfo()), Translate()

    def sides(**data):
        model.info.training = {"data": data}
        return taught._sides(task, model)

    assert sides(train=["a.{en,de}", "b.en", "b.de"]) == ({"a.en", "b.en"}, {"a.de", "b.de"})
    assert sides(data=["a.tsv"]) == ({"source of a.tsv"}, {"target of a.tsv"})
    assert sides(data=["a.tsv"], src="2", tgt="en") == ({"2 of a.tsv"}, {"en of a.tsv", "en"})
    model.info.training = {}
    assert taught._sides(task, model) == (set(), set())


def test_what_was_written_stands_for_teachers_that_have_gone(translator, tmp_path, monkeypatch):
    names = {str(translator): "1", "backward": "2"}
    monkeypatch.setattr(
        "gen.training.distill.TeacherRecord.read", lambda out, asked: {*asked} == {*names} and Gone
    )
    monkeypatch.setattr("gen.training.distill.run_session", lambda kind, task, *rest: task)
    Gone = SimpleNamespace(task="translate")
    assert toolkit.distill(translator, backward="backward", out=tmp_path / "student").name == "translate"
    assert toolkit.distill(str(translator), backward=tmp_path / "none", out="").name == "translate"  # read from it


def test_captions_are_learned_from_beside_the_others(gen, tmp_path):
    write_shapes(tmp_path / "pictures", training=12, held_out=4)
    words = ["--memory-size", 16, "--embedding-size", 8, "--hidden-size", 16, "--budget", "12 steps"]
    words += ["--device", "cpu", "--validations", 1]
    made = gen("train", "caption", "--images", tmp_path / "pictures", "--out", tmp_path / "run", *words)
    assert made[0] == 0, made[2]
    status, _, err = gen("distill", tmp_path / "run", "--out", tmp_path / "student", "--teacher-beam", 2, *words)
    assert status == 0, err
    rows = rows_of(tmp_path / "student")
    pictures = {str(path) for path in (tmp_path / "pictures").glob("train-*")}
    assert rows
    assert {row["image"] for row in rows} <= pictures
    further = tmp_path / "further"
    shutil.copytree(tmp_path / "pictures", further)
    (further / "bad.png").write_text("no picture")
    odd = further / os.fsdecode(b"caf\xe9.png")  # not UTF-8
    Image.new("RGB", (64, 64), "red").save(odd)
    out, sources = tmp_path / "other", ("--sources", further)
    status, _, err = gen("distill", tmp_path / "run", "--out", out, "--teacher-beam", 2, *sources, *words)
    assert (status, "left out:" in err) == (0, True), err
    assert [row for row in rows_of(out) if row["image"] != str(odd)] == rows  # copies are known
    assert len(rows_of(out)) == len(rows) + 1
    for more, message in [
        (("--sources", tmp_path / "none"), "none: no picture is there"),
        (("--data", tmp_path / "a.tar"), "does not go with data that is streamed"),
    ]:
        status, _, err = gen("distill", tmp_path / "run", "--out", tmp_path / "no", *more, *words)
        assert (status, message in err, "Traceback" in err) == (2, True, False), err


def test_teachers_that_write_only_empty_captions_are_named(tmp_path, monkeypatch, capsys):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    train, valid = [Captioned(tmp_path / "a.png", ["a dog"])], [Captioned(tmp_path / "b.png", ["a cat"])]
    silent = SimpleNamespace(error="", hypotheses=[SimpleNamespace(text="")])
    monkeypatch.setattr(taught_captions, "caption_pictures", lambda *_, **__: [silent])
    task = SimpleNamespace(
        config=SimpleNamespace(data=SimpleNamespace(streams=False)),
        read=lambda data: CaptionSplit(train, valid, []),
        teachers=[None],
        progress=lambda *_: None,
    )

    def written(rows):
        (tmp_path / "teacher.jsonl").write_text("".join(map(json.dumps, rows)))
        return tmp_path / "teacher.jsonl"

    assert taught_captions.taught_captions(task, DistillOptions(("runs/mute",)), written).train == train
    assert capsys.readouterr().err.count("runs/mute: wrote only empty captions") == 1


def test_bad_teachers(gen, trained, translator, book, tmp_path):
    out = ("--out", tmp_path / "student")
    toolkit.train(
        "text", data=tmp_path / "pairs.tsv", out=tmp_path / "wide", budget="1 step", column="1", **small_text()
    )
    model = toolkit.load(trained)
    model.info.training.clear()
    model.save(tmp_path / "bare")
    for words, message in [
        ([trained, translator], f"{translator}: is a translate model, not a text one"),
        ([trained, tmp_path / "wide"], "their target vocabularies differ"),
        ([tmp_path / "bare"], f"{tmp_path / 'bare'}: has no record of its training data"),
        ([trained, "--level", "word"], "--level word: the vocabulary is the teachers', whose level is char"),
        ([trained, "--teacher-beam", 3], "--teacher-beam does not go with text models"),
        ([trained, "--teacher-weight", 2], "--teacher-weight must be between 0 and 1, not 2.0"),
        ([translator, "--sources", tmp_path / "none"], "none: cannot be read"),
        ([tmp_path / "none"], "none: no such model folder"),
        ([], "TEACHER is missing: name at least one run to learn from"),
    ]:
        status, _, err = gen("distill", *words, *out)
        assert (status, message in err, "Traceback" in err) == (2, True, False), err
    with pytest.raises(toolkit.ConfigError, match="teacher_beam does not go with text models"):
        toolkit.distill(trained, budget="1 step", teacher_beam=3)
    status, _, err = gen("distill", tmp_path / "bare", "--data", book, *out, "--budget", "2 steps", *TINY)
    assert status == 0, err
