"""What goes wrong while a model trains: kills, full disks, damaged files, full GPUs, numbers not finite."""

from __future__ import annotations

import errno
import resource
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from gen.base import folders
from gen.base.errors import UserError
from gen.base.lines import output
from gen.datasets.batches import SequenceBatches, Sequences, TokenFile
from gen.datasets.streams import StreamBatches
from gen.metrics.plots import plot_losses
from gen.models import checkpoint
from gen.models.batch import Batch
from gen.models.model import LossOutput, Model
from gen.training.interfaces import Evaluation, Metric
from gen.training.options import TrainOptions
from gen.training.run_folder import RunFolder
from gen.training.task import Task
from gen.training.trainer import Trainer
from tests import faults
from tests.conftest import TINY, make_model

# -- kills -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Data, commands, and undisturbed trainings: (folder, trainings, commands)."""
    folder = tmp_path_factory.mktemp("faults")
    trainings = faults.Trainings(folder / "cache")
    return folder, trainings, faults.commands(folder)


@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        ("text", ("step:0", "batch:33", "file:40", "validation:1", "file:75")),
        ("translate", ("batch:41", "validation:2")),
        ("caption", ("step:30",)),
    ],
)
def test_killed_at_any_moment(desk, kind, moments):
    """The same command again, and it ends as if nothing had happened. The rest of the moments: `make soak`."""
    folder, trainings, commands = desk
    whole, run = folder / kind, folder / f"{kind} killed"
    assert trainings.finish(commands[kind], whole) == 0
    trainings.killed_at(commands[kind], run, moments)
    assert faults.differences(faults.outcome(whole), faults.outcome(run)) == []
    tried = {record["weights"] for record in faults.outcome(run)["records"] if "validation" in record}
    assert tried == {"moving average", "last", "mean of 2"}


def test_killed_while_the_options_are_written(tmp_path):
    """Nothing but a temporary file is there, and it is ours: the same command begins again, and clears it away."""
    left = tmp_path / ".config.yaml.gen-0a1b2c3d"
    left.write_text("data:")
    with RunFolder(tmp_path, {"train": {"seed": 1}}).locked():
        assert not left.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".notes").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        RunFolder(tmp_path / "other", {}).check()


# -- a small training in this process --------------------------------------------------------------------


class Words(Task):
    """Text on the shared loop, with a loss that a test can tamper with."""

    metric = Metric("loss")

    def __init__(self, tokens, tamper=lambda output, batch, step: output):
        super().__init__()
        self.batches = StreamBatches(tokens, 4, 8, 1, seed=1)
        self.tamper = tamper
        self.steps = 0

    def loss(self, model, batch, state, options, share):
        self.steps += 1
        return self.tamper(super().loss(model, batch, state, options, share), batch, self.steps)

    def validate(self, model, *, quick=False):
        loss_sum, n = model.evaluate(iter(list(self.batches.epoch(0))[:2]))
        return Evaluation({"loss": loss_sum / n})

    def sample(self, model, evaluation):
        return "a sample"


@pytest.fixture
def tokens(tmp_path, tokenizer):
    path = tmp_path / "tokens.bin"
    tokenizer.encode_array("the cat ran to the dog. " * 60).astype("uint16").tofile(path)
    return TokenFile(path, "uint16")


def fit(task, tokenizer, path, dropout=0.2, watch=lambda event: None, **options):
    torch.manual_seed(1)
    model = make_model(tokenizer, dropout=dropout)
    given = {"budget": "40 steps", "precision": "fp32", "validations": 4, "learning_rate": 0.01, **options}
    trainer = Trainer(model, task, TrainOptions(**given), out=path, callbacks=[watch], config={"x": 1})
    run = trainer.fit()
    return model, trainer.now, run


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# -- numbers that are not finite -------------------------------------------------------------------------


def spoiled(steps):
    def tamper(output, batch, step):
        factor = float("nan") if step in steps else 1.0
        return LossOutput(output.loss_sum * factor, output.num_tokens, output.state)

    return tamper


def test_a_step_that_is_not_finite_is_skipped(tokens, tokenizer, tmp_path):
    model, now, run = fit(Words(tokens, spoiled({5, 6, 17})), tokenizer, tmp_path / "run")
    assert now.step == 40
    assert now.skipped == 3
    assert weights_of(model).isfinite().all()
    assert run.history[-1]["skipped"] == 3
    assert all(r["loss"] == r["loss"] for r in run.history)


def test_many_in_a_row_go_back_and_learn_more_slowly(tokens, tokenizer, tmp_path, capsys):
    """From the checkpoint of step 20, which the spoiled steps have not touched."""
    events = []
    _, now, _ = fit(
        Words(tokens, spoiled(set(range(25, 45)))),
        tokenizer,
        tmp_path / "run",
        budget="80 steps",
        schedule="constant",
        watch=lambda event: events.append((event.progress.step, event.learning_rate)),
    )
    assert "before step 44: going back to step 20 with 0.5 of the learning rate" in capsys.readouterr().err
    assert now.step == 80
    assert now.returns == 1
    assert now.rate_factor == 0.5
    assert events[-1][1] == pytest.approx(0.005)


def test_a_bad_step_at_the_very_end_costs_nothing_else(tokens, tokenizer, tmp_path):
    """Skipped, and what there is is kept."""
    model, now, _ = fit(Words(tokens, spoiled({39, 40})), tokenizer, tmp_path / "run")
    assert (now.step, now.skipped, now.returns) == (40, 2, 0)
    assert torch.equal(weights_of(Model.load(tmp_path / "run" / "last")), weights_of(model))


# -- memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["streams", "lines"])
def test_a_full_gpu_halves_the_micro_batch(tokens, tokenizer, tmp_path, capsys, unit):
    """The same steps, done in pieces; lines come in batches of different sizes."""

    def tamper(output, batch, step):
        if len(batch.input_ids) > 1:
            raise torch.OutOfMemoryError("no room")
        return output

    def task(*how):
        made = Words(tokens, *how)
        if unit == "lines":
            ends = np.cumsum([0, *np.random.default_rng(1).integers(3, 14, 150)])
            made.batches = SequenceBatches(Sequences(tokens, ends), 40, tokenizer, seed=1)
        return made

    whole, _, _ = fit(task(), tokenizer, tmp_path / "a", dropout=0.0)
    pieces, now, _ = fit(task(tamper), tokenizer, tmp_path / "b", dropout=0.0)
    assert now.step == 40
    torch.testing.assert_close(weights_of(whole), weights_of(pieces), atol=2e-4, rtol=1e-3)
    said = capsys.readouterr().err
    assert "rows at once: from now on every batch is processed in 2 pieces" in said
    assert "processed in 4 pieces" in said


def test_memory_full_elsewhere(tokens, tokenizer, tmp_path):
    class Full(Words):
        def validate(self, model, *, quick=False):
            raise torch.OutOfMemoryError("no room")

    with pytest.raises(UserError, match="the memory of cpu is too small: make the model smaller"):
        fit(Full(tokens), tokenizer, tmp_path / "run")


def test_a_gpu_too_small_for_one_row(tokens, tokenizer, tmp_path):
    def tamper(output, batch, step):
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(UserError, match="too small for one row of 8 tokens"):
        fit(Words(tokens, tamper), tokenizer, tmp_path / "run")


def test_a_batch_in_pieces(tokenizer):
    source = torch.arange(6).reshape(3, 2)
    both = {"first": source, "second": source[:, :, None] + 1}
    batch = Batch(both, source + 4, source + 5, rows=torch.tensor([7, 8, 9]))
    part = batch.take(torch.tensor([0, 2]))
    assert part.source["first"].tolist() == [[0, 1], [4, 5]]
    assert part.source["second"].tolist() == [[[1], [2]], [[5], [6]]]
    assert part.input_ids.tolist() == [[4, 5], [8, 9]]
    assert part.rows.tolist() == [7, 9]
    nothing = Batch({}, source, source).take(torch.tensor([1]))
    assert (nothing.source, len(nothing)) == ({}, 1)
    assert nothing.encoder_source["prompt"].shape[0] == 1
    assert part.to(torch.device("meta")).source["second"].device.type == "meta"


# -- disks -----------------------------------------------------------------------------------------------


def test_a_full_disk_does_not_end_a_training(tokens, tokenizer, tmp_path, monkeypatch, capsys):
    """Saving fails for a while: the user is told once, the old checkpoint stays, a later save works."""
    saved, attempts = folders.write_folder, []

    def full(path, fill, keep=None):
        attempts.append(path.name)
        if 1 < attempts.count("last") < 4:
            assert (tmp_path / "run" / "last").exists()
            raise OSError(errno.ENOSPC, "No space left on device")
        saved(path, fill, keep)

    monkeypatch.setattr(folders, "write_folder", full)
    model, now, _ = fit(Words(tokens), tokenizer, tmp_path / "run")
    assert now.done
    said = capsys.readouterr().err
    assert said.count("last: cannot be written (No space left on device); training goes on") == 1
    assert "last: could be written again" in said
    torch.testing.assert_close(weights_of(Model.load(tmp_path / "run" / "last")), weights_of(model))


def test_a_disk_full_to_the_end_is_an_error(tokens, tokenizer, tmp_path, monkeypatch):
    def full(path, fill, keep=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders, "write_folder", full)
    with pytest.raises(UserError, match="the trained model could not be saved; make room"):
        fit(Words(tokens), tokenizer, tmp_path / "run")


def test_an_export_that_does_not_fit_names_its_folder(gen, trained, tmp_path, monkeypatch):
    def full(*files):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gen.base.folders.shutil.copyfileobj", full)
    status, _, said = gen("export", trained, "-o", tmp_path / "exports" / "book")
    assert (status, said) == (2, f"gen: {tmp_path}/exports/book: No space left on device\n")
    assert not list((tmp_path / "exports").iterdir())


@pytest.mark.parametrize(("full", "said"), [(True, "\nStopped. The"), (False, "\nStopped and saved. The")])
def test_a_stop_says_saved_only_if_it_was(gen, book, tmp_path, monkeypatch, full, said):
    step = Trainer._step

    def stopped(self, group, used):
        def write(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        if full:
            monkeypatch.setattr("gen.base.folders.write_folder", write)
        signal.raise_signal(signal.SIGINT)
        return step(self, group, used)

    monkeypatch.setattr(Trainer, "_step", stopped)
    words = ("train", "text", "--data", book, "--out", tmp_path / "run", "--budget", "9 steps", *TINY)
    status, _, err = gen(*words)
    assert (status, said in err) == (130, True), err


def test_a_folder_that_vanishes_is_made_again(tokens, tokenizer, tmp_path):
    def vanish(event):
        if event.progress.step == 20:
            shutil.rmtree(tmp_path / "run")

    model, now, _ = fit(Words(tokens), tokenizer, tmp_path / "run", watch=vanish)
    assert now.done
    torch.testing.assert_close(weights_of(Model.load(tmp_path / "run" / "last")), weights_of(model))
    assert RunFolder(tmp_path / "run", {"x": 1}).read_last()["progress"]["step"] == 40


def _write_output(to):
    with output(str(to)) as file:
        file.write("x" * 200)


WRITERS = {
    "a folder": lambda to: folders.write_folder(to, lambda new: (new / "graph").write_bytes(bytes(200))),
    "a file": lambda to: folders.write_text(to, "x" * 200),
    "a plot": lambda to: plot_losses([], to),
    "an output": _write_output,
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_named_and_nothing_is_half_written(what, tmp_path):
    to, limits = tmp_path / "made.png", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises((OSError, UserError)) as caught:
            WRITERS[what](to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(to) in f"{caught.value} {getattr(caught.value, 'filename', '')}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["training.pt", "model.safetensors", "config.yaml", "everything"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tokens, tokenizer, tmp_path, capsys, damage):
    whole, _, _ = fit(Words(tokens), tokenizer, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        fit(Words(tokens), tokenizer, tmp_path / "b", watch=stop_at(20))
    last = tmp_path / "b" / "last"
    for file in last.iterdir() if damage == "everything" else [last / damage]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    resumed, now, _ = fit(Words(tokens), tokenizer, tmp_path / "b")
    assert now.step == 40
    assert torch.equal(weights_of(whole), weights_of(resumed))
    assert "resuming from the one before, of step 10" in capsys.readouterr().err


def test_other_data_under_the_same_name(gen, trained, book):
    """Its vocabulary is another one: going on would mix up every token."""
    book.write_text("zebra quiz. " + book.read_text())
    state = checkpoint.read_training(trained / "last")
    state["progress"]["done"] = False
    torch.save(state, trained / "last" / "training.pt")
    status, _, err = gen("train", "text", "--data", book, "--out", trained, "--budget", "30 steps", *TINY)
    assert status == 2
    assert "the data has changed since this run was started" in err


def test_nothing_left_to_go_on_from(tokens, tokenizer, tmp_path):
    fit(Words(tokens), tokenizer, tmp_path / "run")
    for name in ("last", "previous"):
        (tmp_path / "run" / name / "training.pt").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"last/training.pt: damaged"):
        fit(Words(tokens), tokenizer, tmp_path / "run")


def stop_at(step):
    def watch(event):
        if event.progress.step == step and event.validation:
            raise KeyboardInterrupt

    return watch


def test_saving_between_validations(tokens, tokenizer, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(
        RunFolder, "save_last", lambda self, model, state: steps.append(state["progress"]["step"]) or True
    )
    fit(Words(tokens), tokenizer, tmp_path / "run", save_every="0.000001s")
    assert set(range(1, 41)) <= set(steps)


# -- several processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("exchanges", [True, False])
def test_many_writers_and_readers_of_one_folder(tmp_path, monkeypatch, exchanges):
    """The last writer wins; a reader sees one writer's files, never some of two. Where folders cannot be
    exchanged in one step, that is promised for one writer at a time."""
    if not exchanges:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    path, writers = tmp_path / "made", 8 if exchanges else 1

    def write(number):
        for _ in range(20):
            folders.write_folder(path, lambda new: [(new / n).write_text(str(number)) for n in "abc"])

    def read(folder):
        try:
            return {(folder / name).read_text() for name in "abc"}
        except OSError as error:
            raise UserError("incomplete") from error

    write(0)
    with ThreadPoolExecutor(writers) as pool:
        running = [pool.submit(write, number) for number in range(writers)]
        while not all(future.done() for future in running):
            assert len(folders.read_folder(lambda: folders.whole_folder(path), read)) == 1
    assert [future.exception() for future in running] == [None] * writers
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_a_folder_replaced_while_it_is_read_is_read_again(model, tmp_path, monkeypatch):
    model.save(tmp_path / "m")
    read, saved = checkpoint.read_config, []

    def replaced(folder):
        found = read(folder)
        if not saved:
            saved.append(model.save(folder))
        (folder / "README.md").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(checkpoint, "read_config", replaced)
    Model.load(tmp_path / "m")
    assert not (tmp_path / "m" / "README.md").exists()  # of the new folder: it was read, too


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("progress"),
        lambda state: state.update(progress=3),
        lambda state: state["progress"].update(step=-1),
        lambda state: state["progress"].pop("step"),
        lambda state: state["progress"].update(seconds=float("nan")),
        lambda state: state.pop("processes"),
        lambda state: state["processes"][0].update(rng=None),
        lambda state: state["processes"][0].update(carried=[state["processes"][0]["carried"][0][:1]]),
        lambda state: state["processes"][0].update(carried=2 * state["processes"][0]["carried"]),
        lambda state: state["processes"][0]["window"].update(loss_sum=torch.zeros(2)),
        lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)),
        lambda state: state["averages"].update(moving=[torch.zeros(2)]),
        lambda state: state["averages"].update(kept=[1, 2]),
    ],
)
def test_a_state_with_something_else_in_it_is_damaged(tokens, tokenizer, tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        fit(Words(tokens), tokenizer, tmp_path / "run", watch=stop_at(10), validations=4)
    shutil.rmtree(tmp_path / "run" / "previous", ignore_errors=True)
    state = checkpoint.read_training(tmp_path / "run" / "last")
    change(state)
    torch.save(state, tmp_path / "run" / "last" / "training.pt")
    with pytest.raises(UserError, match=r"last/training\.pt: damaged \(.+\); delete the run"):
        fit(Words(tokens), tokenizer, tmp_path / "run")


@pytest.mark.parametrize("progress", [{"done": True}, {"step": "x"}, 3])
def test_a_damaged_progress_is_one_line(gen, trained, book, progress):
    """The command reads it before the trainer does."""
    state = checkpoint.read_training(trained / "last")
    torch.save({**state, "progress": progress}, trained / "last" / "training.pt")
    shutil.rmtree(trained / "previous", ignore_errors=True)
    status, _, err = gen("train", "text", "--data", book, "--out", trained, "--budget", "30 steps", *TINY)
    assert status == 2
    assert "training.pt: damaged" in err
    assert "Traceback" not in err


def test_records_nested_without_end_are_no_records(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("[" * 100_000 + '\n{"step": 1, "seconds": 2}\n')
    assert list(RunFolder(tmp_path, {}).records()) == [{"step": 1, "seconds": 2}]
