"""A finished run and the same command: changed data, a larger budget; two trainings and one folder."""

from __future__ import annotations

import json
import os

import pytest
import torch
import yaml

from gen import Run, UserError
from gen.base import folders
from gen.models.model import Model
from gen.training.run_folder import RunFolder
from tests.conftest import TEXT, TINY


def train(gen, book, out, budget="30 steps", *more):
    return gen("train", "text", "--data", book, "--out", out, "--budget", budget, *TINY, *more)


@pytest.mark.parametrize("more", ["zebra quick jumped\n" * 20, TEXT], ids=["new letters", "the same letters"])
def test_a_finished_run_refuses_other_data(gen, trained, book, more) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    book.write_text(TEXT * 40 + more)
    status, _, err = train(gen, book, trained)
    assert status == 2
    assert "the data has changed since this run was started" in err
    assert len(err.strip().splitlines()) == 1
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_and_the_same_data_is_left_as_it_is(gen, trained, book) -> None:
    before = Model.load(trained).state_dict()
    status, said, err = train(gen, book, trained)
    assert status == 0, err
    assert "already trained to the end" in said
    assert all(torch.equal(before[name], weight) for name, weight in Model.load(trained).state_dict().items())


def test_a_larger_budget_goes_on_from_the_best_weights(gen, trained, book) -> None:
    old = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    status, said, err = train(gen, book, trained, "50 steps")
    assert status == 0, err
    assert (
        "goes on up to 50 steps, from its best weights: the learning-rate schedule begins again (step 30)" in said
    )
    history = Run(trained).history
    assert history[: len(old)] == old
    assert history[-1]["step"] == 50
    assert max(r["learning_rate"] for r in history[len(old) :]) > old[-1]["learning_rate"]
    assert Run(trained).config["budget"] == "50 steps"
    # It is finished again: neither trained further, nor refused.
    assert "already trained to the end" in train(gen, book, trained, "50 steps")[1]


def test_the_same_budget_in_other_words_is_the_same_run(gen, trained, book) -> None:
    status, said, err = train(gen, book, trained, "30step")
    assert (status, "already trained to the end" in said) == (0, True), err


@pytest.mark.parametrize("budget", ["20 steps", "2 epochs"])
def test_a_smaller_budget_or_another_unit_is_another_configuration(gen, trained, book, budget) -> None:
    status, _, err = train(gen, book, trained, budget)
    assert status == 2
    assert "another configuration (--budget" in err


def test_a_file_by_another_name_is_the_same_file(gen, trained, book, monkeypatch) -> None:
    monkeypatch.chdir(book.parent)
    for name in ("book.txt", "./book.txt"):
        status, said, err = train(gen, name, trained, "30 steps")
        assert (status, "already trained to the end" in said) == (0, True), err


def test_its_own_configuration_resumes_a_run(gen, trained, book) -> None:
    status, _, err = train(gen, book, trained, "20 steps")
    assert (status, f"resume it with --config {trained}/config.yaml" in err) == (2, True), err
    status, said, err = gen("train", "text", "--config", trained / "config.yaml", "--out", trained)
    assert (status, "already trained to the end" in said) == (0, True), err


def test_what_was_chosen_can_be_chosen_again(gen, trained, tmp_path) -> None:
    status, _, err = gen("train", "text", "--config", trained / "resolved.yaml", "--out", tmp_path / "again")
    assert status == 0, err
    for name in ("learning_rate", "dropout", "weight_decay"):
        assert Run(tmp_path / "again").config[name] == Run(trained).config[name]
    assert not Run(tmp_path / "again").reasons


def test_a_run_needs_the_model_it_began_from_no_longer(gen, trained, book, tmp_path) -> None:
    import shutil

    base = shutil.copytree(trained, tmp_path / "base")
    more = ("--budget", "4 steps", "--validations", "1", "--device", "cpu", "--batch-size", "2")
    words = ("train", "text", "--data", book, "--init-from", base, "--out", tmp_path / "fine")
    assert gen(*words, *more)[0] == 0
    shutil.rmtree(base)
    status, said, err = gen(*words, "--budget", "6 steps", *more[2:])
    assert (status, "goes on up to 6 steps" in said) == (0, True), err
    other = ("--data", book, "--out", base, "--hidden-size", "24", "--budget", "2 steps", "--device", "cpu")
    assert gen("train", "text", *other)[0] == 0  # now it has other sizes
    status, said, err = gen(*words, "--budget", "8 steps", *more[2:])
    assert (status, "goes on up to 8 steps" in said) == (0, True), err


def test_a_terminal_that_has_gone_stops_no_training_unsaved(gen, book, tmp_path, monkeypatch) -> None:
    import os
    import signal

    from gen.training.trainer import Trainer

    class Gone:
        def write(self, text):
            raise OSError(5, "Input/output error")

        flush = write

    step = Trainer._step

    def hang_up(self, *args):
        if self.now.step == 7:
            with monkeypatch.context() as gone:
                gone.setattr("sys.stderr", Gone())
                os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(Trainer, "_step", hang_up)
    train(gen, book, tmp_path / "new")
    assert RunFolder(tmp_path / "new", {}).progress()["step"] == 8


def test_what_was_held_out_of_another_text_is_not_known(gen, trained, book) -> None:
    assert gen("evaluate", trained)[0] == 0
    book.write_text(book.read_text()[:-400])
    status, _, err = gen("evaluate", trained)
    assert (status, "the training text has changed since" in err) == (2, True)
    assert gen("evaluate", trained, "--data", book)[0] == 0


def test_a_run_cannot_be_in_a_file_and_says_so_at_once(gen, book, tmp_path) -> None:
    status, _, err = gen("train", "text", "--data", tmp_path / "none.txt", "--out", book / "run")
    assert (status, f"{book} is no folder" in err) == (2, True), err


def test_home_is_where_it_is(gen, book, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    status, _, err = train(gen, book, "~/at-home", "2 steps")
    assert status == 0, err
    assert Run(tmp_path / "at-home").history
    assert not (tmp_path / "~").exists()


def test_others_may_read_a_model(trained) -> None:
    config, weights = (trained / "best" / name for name in ("config.yaml", "model.safetensors"))
    assert weights.stat().st_mode == config.stat().st_mode


def test_what_goes_on_can_be_resumed_exactly(gen, trained, book, tmp_path, monkeypatch) -> None:
    import shutil

    from gen.training.trainer import Trainer

    shutil.copytree(trained, tmp_path / "twin")
    assert train(gen, book, trained, "50 steps")[0] == 0
    step = Trainer._step

    def stop_at_40(self, *args):
        done = step(self, *args)
        if self.now.step == 40:
            self.stop()
        return done

    monkeypatch.setattr(Trainer, "_step", stop_at_40)
    train(gen, book, tmp_path / "twin", "50 steps")
    monkeypatch.setattr(Trainer, "_step", step)
    assert RunFolder(tmp_path / "twin", {}).progress()["step"] == 40
    assert "stopped at step 40; the same command goes on" in gen("info", tmp_path / "twin", "--json")[1]
    assert train(gen, book, tmp_path / "twin", "50 steps")[0] == 0
    assert "stopped at" not in gen("info", tmp_path / "twin", "--json")[1]
    expected, found = (Model.load(path / "last").state_dict() for path in (trained, tmp_path / "twin"))
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())


def test_a_training_stops_when_its_folder_was_moved_and_another_one_took_its_place(tmp_path) -> None:
    path = tmp_path / "run"
    first, second = RunFolder(path, {"a": 1}), RunFolder(path, {"a": 1})
    with first.locked():
        first.log({"step": 1, "seconds": 1.0})
        path.rename(tmp_path / "elsewhere")
        with second.locked():
            second.log({"step": 7, "seconds": 1.0})
            with pytest.raises(UserError, match="was moved away or deleted, and another training has begun there"):
                first.log({"step": 2, "seconds": 2.0})
    assert [r["step"] for r in second.records()] == [7]
    assert [r["step"] for r in RunFolder(tmp_path / "elsewhere", {}).records()] == [1]


def test_a_folder_that_vanished_is_locked_again(tmp_path) -> None:
    path = tmp_path / "run"
    first, second = RunFolder(path, {"a": 1}), RunFolder(path, {"a": 1})
    with first.locked():
        path.rename(tmp_path / "elsewhere")
        first.log({"step": 1, "seconds": 1.0})
        with pytest.raises(UserError, match="another process is training there"), second.locked():
            pass


def test_cleaning_up_deletes_only_what_is_ours(tmp_path) -> None:
    ours = folders.beside(tmp_path / "best")
    ours.mkdir()
    (ours / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".teacher.jsonl.gen-ab_d3f9_").write_text("half")
    theirs = [".samples.md.swp", ".best.notes", ".best.personal", ".gen-12345678", ".a.gen-1234567", ".DS_Store.x"]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("mine")
    os.symlink(tmp_path / "kept", tmp_path / ".best.gen-0123abcd")
    folders.sweep(tmp_path)
    assert not ours.exists()
    assert not (tmp_path / ".teacher.jsonl.gen-ab_d3f9_").exists()
    assert all((tmp_path / name).exists() for name in theirs)
    assert (tmp_path / "kept" / "file").read_text() == "mine"


def test_files_have_the_rights_that_the_user_asked_for(tmp_path) -> None:
    before = os.umask(0o027)
    try:
        folders.write_text(tmp_path / "a", "x")
        folders.write_folder(tmp_path / "b", lambda folder: None)
    finally:
        os.umask(before)
    assert oct((tmp_path / "a").stat().st_mode & 0o777) == "0o640"
    assert oct((tmp_path / "b").stat().st_mode & 0o777) == "0o750"


def test_where_the_file_system_has_no_locks_a_file_is_the_lock(tmp_path, monkeypatch) -> None:
    import filelock

    def no_flock(self, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_flock)
    first, second = RunFolder(tmp_path / "run", {}), RunFolder(tmp_path / "run", {})
    with first.locked():
        first.log({"step": 1, "seconds": 1.0})
        with pytest.raises(UserError, match="another process is training there"), second.locked():
            pass
    with second.locked():
        second.log({"step": 2, "seconds": 1.0})
    assert [r["step"] for r in second.records()] == [1, 2]


def test_a_recorded_budget_that_is_none_is_another_configuration(gen, trained, book) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    config["train"]["budget"] = True
    (trained / "config.yaml").write_text(yaml.safe_dump(config))
    status, _, err = train(gen, book, trained)
    assert status == 2
    assert "another configuration (--budget True" in err


def test_a_message_about_many_changes_is_short(tmp_path) -> None:
    names = [f"option_{n}" for n in range(30)]
    (tmp_path / "config.yaml").write_text("".join(f"{name}: {'x' * 5000}\n" for name in names))
    with pytest.raises(UserError, match=r"x… → 1, .* and 27 more") as caught:
        RunFolder(tmp_path, dict.fromkeys(names, 1)).check()
    assert len(str(caught.value)) < 2000
