from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys

import pytest
import torch
from rich.console import Console

import gen as toolkit
from gen.base.errors import Terminated, UserError
from gen.datasets.batches import TokenFile
from gen.datasets.streams import StreamBatches
from gen.models import checkpoint
from gen.models.batch import Batch
from gen.models.device import compute_dtype, pick_device
from gen.models.model import Model
from gen.training import machine
from gen.training.display import progress
from gen.training.interfaces import Evaluation, Metric
from gen.training.options import TrainOptions, learning_rate, make_optimizer
from gen.training.run_folder import RunFolder
from gen.training.step import Stepper
from gen.training.task import Task
from gen.training.trainer import Trainer
from gen.training.validation import Event, Progress, Window
from tests.conftest import TINY, make_model


class Reverse(Task):
    """A task of our own on the shared loop: fixed batches, loss on the same."""

    metric = Metric("loss")

    def __init__(self, tokens):
        super().__init__()
        self.batches = StreamBatches(tokens, 4, 8, 1, seed=1)

    def validate(self, model, *, quick=False):
        loss_sum, n = model.evaluate(iter(list(self.batches.epoch(0))[: 2 if quick else None]))
        return Evaluation({"loss": loss_sum / n})

    def sample(self, model, evaluation):
        return model.generate("", max_new_tokens=5, seed=1)[0].text


@pytest.fixture
def tokens(tmp_path, tokenizer):
    text = "the cat ran to the dog. " * 60
    path = tmp_path / "tokens.bin"
    tokenizer.encode_array(text).astype("uint16").tofile(path)
    return TokenFile(path, "uint16")


def run_training(tokens, tokenizer, path, watch=lambda e: None, **options):
    """Trains as `gen train` does: Ctrl-C and SIGTERM end it after a step."""
    torch.manual_seed(1)
    model = make_model(tokenizer, dropout=0.2, embedding_dropout=0.1).train()
    options = {"budget": "40 steps", "precision": "fp32", "validations": 4, "learning_rate": 0.01, **options}
    trainer = Trainer(
        model, Reverse(tokens), TrainOptions(**options), out=path, callbacks=[watch], config={"x": 1}
    )
    with machine.Interruption() as interruption:
        interruption.when_requested = trainer.stop
        run = trainer.fit()
        if interruption.requested:
            interruption.stop()
    return model, trainer.now, run


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_keeps_best_and_last(tokens, tokenizer, tmp_path):
    model, now, run = run_training(tokens, tokenizer, tmp_path / "run", budget="3 epochs")
    records = run.history
    validations = [r["validation"]["loss"] for r in records if "validation" in r]
    assert validations[-1] < 0.7 * validations[0]
    assert now.done
    assert equal(weights(Model.load(tmp_path / "run" / "last")), weights(model))
    assert Model.load(tmp_path / "run").info.metrics["loss"] == pytest.approx(min(validations), abs=1e-4)
    assert (tmp_path / "run" / "samples.md").read_text().count("## Step") == len(validations)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_interrupted_and_resumed_is_never_interrupted(tokens, tokenizer, tmp_path, number, kind):
    """Stopped in the middle of an epoch, then the same command: the same weights and figures to the bit."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    whole, _, run_a = run_training(tokens, tokenizer, tmp_path / "a")

    def interrupt(event):
        if event.progress.step == 1:
            signal.raise_signal(number)

    with pytest.raises(kind):
        run_training(tokens, tokenizer, tmp_path / "b", watch=interrupt)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert checkpoint.read_training(tmp_path / "b" / "last")["progress"]["step"] == 1
    torch.manual_seed(99)
    resumed, now, run_b = run_training(tokens, tokenizer, tmp_path / "b")
    assert now.step == 40
    assert equal(weights(whole), weights(resumed))
    a, b = ([r["validation"] for r in run.history if "validation" in r] for run in (run_a, run_b))
    assert a == b


def test_speed_counts_the_time_before_a_stop(monkeypatch):
    """What was trained since the last report, and in which time, belong together."""
    times = iter((0.0, 10.0, 70.0, 75.0, 75.0))
    monkeypatch.setattr("gen.training.validation.time.monotonic", lambda: next(times))
    before = Window(torch.device("cpu"))
    before.add(torch.tensor(1500.0), 1000)
    state = before.state_dict()  # after 10 seconds
    after = Window.__new__(Window)
    after.device = torch.device("cpu")
    after.load_state_dict(state)  # a minute later
    after.add(torch.tensor(750.0), 500)
    assert after.close(Progress()) == (1.5, 100.0)  # after 5 more seconds


def test_the_time_that_a_grown_budget_takes(monkeypatch):
    """100 steps and 10 of 100 more took a second each: 90 seconds are left."""
    shown = []
    monkeypatch.setattr("gen.training.display.clock", lambda seconds: shown.append(seconds) or "")
    for budget, now, share in (
        ("200 steps", Progress(step=110, seconds=110.0, offset=100.0), 0.1),
        ("20 epochs", Progress(step=110, seconds=110.0, offset=10.0), 0.1),
        ("100 steps", Progress(step=10, seconds=10.0), 0.1),
        ("100s", Progress(step=10, seconds=10.0), 0.1),
    ):
        with progress(TrainOptions(budget=budget), lambda figures: "", Console(quiet=True)) as show:
            show(Event(now, share, 1.0, 1.0, 1.0))
    assert shown == pytest.approx([90.0, 90.0, 90.0, 90.0])


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    """The lock belongs to a process and dies with it."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert owner.stdout.readline() == "locked\n"
    run = RunFolder(tmp_path, {})
    with pytest.raises(UserError, match="another process is training there"), run.locked():
        pass
    owner.kill()
    owner.communicate()
    with run.locked():
        pass


_OWNER = """
import sys
from gen.training.run_folder import RunFolder
from gen.training.step import Stepper
with RunFolder(sys.argv[1], {}).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("clip", [1e9, 1e-3])
def test_accumulated_batches_are_one_large_batch(tokenizer, clip):
    """A step takes the mean once, over the tokens of all its batches, and then clips."""
    ids = torch.randint(4, len(tokenizer), (6, 9))
    ids[4:, 5:] = 0
    inputs, targets = ids[:, :-1], ids[:, 1:]

    def gradient(model):
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    model = make_model(tokenizer)
    output = model.loss(Batch({}, inputs, targets))
    (output.loss_sum / output.num_tokens).backward()
    expected = gradient(model)
    expected *= min(1, clip / float(expected.norm()))
    for parts in ([slice(0, 6)], [slice(0, 2), slice(2, 6)]):
        stepper = Stepper(make_model(tokenizer), Task(), TrainOptions(precision="fp32", clip=clip))
        result = stepper([Batch({}, inputs[p], targets[p]) for p in parts], None, 0.0)
        assert result.num_tokens == output.num_tokens
        torch.testing.assert_close(gradient(stepper.model), expected, atol=1e-6, rtol=1e-3)


def test_matrices_alone_decay(tokenizer):
    model = make_model(tokenizer)
    optimizer = make_optimizer(model, TrainOptions(weight_decay=0.5, learning_rate=0.01))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.5 if p.ndim > 1 else 0.0 for p in model.parameters()}
    assert set(decay.values()) == {0.0, 0.5}


def test_schedules():
    def at(schedule, share, **more):
        return learning_rate(TrainOptions(schedule=schedule, learning_rate=1.0, warmup=0.1), share, **more)

    assert at("cosine", 0.05) == at("linear", 0.05) == pytest.approx(0.5)
    assert at("cosine", 0.55) == pytest.approx(0.505)
    assert at("linear", 0.55) == pytest.approx(0.505)
    assert at("cosine", 1.0) == pytest.approx(0.01)
    assert at("constant", 0.9) == 1
    assert at("plateau", 0.9, factor=0.25) == 0.25


def test_early_stopping(tokens, tokenizer, tmp_path):
    _, now, _ = run_training(tokens, tokenizer, tmp_path / "run", learning_rate=1e-20, patience=2, validations=20)
    assert now.done
    assert now.step < 40


def test_a_plateau_halves_the_rate(tokens, tokenizer, tmp_path):
    """At each validation but the first, which is the best so far, and the last, after which there is no step."""
    events = []
    rate = {"schedule": "plateau", "learning_rate": 1e-20, "warmup": 0.0}
    _, now, _ = run_training(tokens, tokenizer, tmp_path / "run", watch=events.append, validations=4, **rate)
    assert now.rate_factor == 0.25
    assert events[-1].learning_rate == 0.25e-20


def test_a_loss_that_is_not_finite_stops_with_advice(tokens, tokenizer, tmp_path, capsys):
    with pytest.raises(UserError, match=r"not finite at step .* going back 3 times.*learning_rate"):
        run_training(tokens, tokenizer, tmp_path / "run", learning_rate=1e30, clip=1e30, warmup=0.0)
    assert capsys.readouterr().err.count("going back to step 0 with") == 3
    assert (
        not (tmp_path / "run" / "best").exists()
        or torch.isfinite(next(iter(weights(Model.load(tmp_path / "run")).values()))).all()
    )


@pytest.mark.skipif(compute_dtype("auto", torch.device("cpu")) == torch.float32, reason="no bfloat16 in hardware")
def test_bfloat16_learns_as_float32_does(tokens, tokenizer, tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        _, now, _ = run_training(tokens, tokenizer, tmp_path / precision, precision=precision, budget="2 epochs")
        losses.append(now.best)
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_run_goes_on_with_another_precision(book, tmp_path, monkeypatch, cell):
    """ "auto" is bfloat16 on one machine and float32 on the next."""
    options = {"data": book, "budget": "20 steps", "cell": cell, "hidden_size": 16, "embedding_size": 8}
    options |= {"batch_size": 2, "chunk": 16, "validations": 1, "device": "cpu", "out": tmp_path / "run"}
    for has_bf16 in (True, False):
        monkeypatch.setattr("gen.models.device._cpu_has_bf16", lambda has=has_bf16: has)
        stop = [lambda event: event.stop() if event.progress.step >= 10 else None] if has_bf16 else []
        run = toolkit.train("text", callbacks=stop, **options)
    assert run.history[-1]["step"] == 20


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_cuda(tokens, tokenizer, tmp_path, precision):
    model = make_model(tokenizer).to("cuda").train()
    options = TrainOptions(
        budget="40 steps", precision=precision, learning_rate=0.01, validations=2, device="cuda"
    )
    trainer = Trainer(model, Reverse(tokens), options, out=tmp_path / "run")
    trainer.fit()
    assert trainer.now.best < 2.5
    assert Model.load(tmp_path / "run", "cpu").generate("the ", max_new_tokens=5)


def test_devices_that_are_not_there():
    with pytest.raises(UserError, match="device quantum"):
        pick_device("quantum")
    assert pick_device("cpu").type == "cpu"


def test_training_state_runs_no_code(trained):
    file = trained / "last" / checkpoint.TRAINING
    state = checkpoint.read_training(trained / "last")
    assert state["progress"]["step"] == 30
    from tests.test_model import Hostile

    torch.save(Hostile(), file)
    with pytest.raises(UserError, match=r"training.pt: damaged"):
        checkpoint.read_training(trained / "last")


@pytest.mark.parametrize(
    "change", [torch.Tensor.to_sparse, lambda tensor: tensor.to("meta")], ids=["sparse", "meta"]
)
def test_foreign_tensors_are_noticed(trained, change):
    state = checkpoint.read_training(trained / "last")
    moments = next(iter(state["optimizer"]["state"].values()))
    moments["exp_avg"] = change(moments["exp_avg"])
    torch.save(state, trained / "last" / checkpoint.TRAINING)
    with pytest.raises(UserError, match=r"training.pt: damaged"):
        checkpoint.read_training(trained / "last")


@pytest.mark.parametrize(
    ("name", "value"),
    [("exp_avg_sq", None), ("exp_avg", torch.zeros(3)), ("step", torch.zeros((), dtype=torch.int64))],
)
def test_damaged_moments_are_noticed(name, value):
    layer = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2)).backward()
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    checkpoint.load_moments(optimizer, state)
    state["state"][0].pop(name)
    if value is not None:
        state["state"][0][name] = value
    with pytest.raises(ValueError, match="the optimizer's state"):
        checkpoint.load_moments(optimizer, state)


def test_the_same_command_again_changes_nothing(gen, trained, book):
    before = {p: p.read_bytes() for p in trained.rglob("*.safetensors")}
    again = ("train", "text", "--data", book, "--out", trained, "--budget", "30 steps", *TINY)
    status, out, _ = gen(*again)
    assert status == 0
    assert "already trained" in out
    assert before == {p: p.read_bytes() for p in trained.rglob("*.safetensors")}
    status, _, err = gen(*again[:-2], "--device", "cpu", "--cell", "gru")
    assert status == 2
    assert "--cell lstm → gru" in err
    assert before == {p: p.read_bytes() for p in trained.rglob("*.safetensors")}


def test_every_record_is_json(trained):
    for line in (trained / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["step"] >= 1
        assert record["loss"] > 0
