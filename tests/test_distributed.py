"""Several processes: together they do what one does."""

from __future__ import annotations

import json

import pytest
import torch

from gen.base import distributed
from gen.datasets.batches import SequenceBatches, Sequences, TokenFile
from gen.datasets.streams import StreamBatches, stream_evaluation
from gen.training.run import Run
from tasks.cli import main
from tests import faults

EXACT = ("--budget", "50 steps", "--dropout", "0", "--embedding-dropout", "0", "--save-every", "10m")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Data, commands, and a way to start several processes: (folder, trainings, commands)."""
    folder = tmp_path_factory.mktemp("distributed")
    return folder, faults.Trainings(folder / "cache"), faults.commands(folder)


def losses(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r["loss"], r.get("validation", {}).get("loss", 0.0)) for r in records]


@pytest.mark.parametrize("kind", ["text", "translate", "caption"])
def test_two_processes_are_one(desk, tmp_path, kind):
    """The same losses over 50 steps in float32, with accumulation, averages, and a validation that is shared."""
    folder, trainings, commands = desk
    argv = [*commands[kind], *EXACT, "--r-drop", "0"]
    assert trainings.finish(argv, folder / kind) == 0
    out = tmp_path / "two"
    assert trainings.together([*argv, "--out", str(out)], tmp_path / "logs") == [0, 0], read(tmp_path / "logs")
    one, two = losses(folder / kind), losses(out)
    assert [step for step, *_ in one] == [step for step, *_ in two]
    torch.testing.assert_close(torch.tensor(one), torch.tensor(two), atol=1e-5, rtol=0)
    said = read(tmp_path / "logs")
    assert "Use it" in said[0]
    assert said[1] == ""


def test_two_processes_measure_one_speed(desk, tmp_path):
    """What is chosen from it is the same for both, and counts the tokens of both."""
    _, trainings, commands = desk
    argv = [*commands["text"], "--budget", "1s", "--out", str(tmp_path / "run")]
    assert trainings.together(argv, tmp_path / "logs") == [0, 0], read(tmp_path / "logs")
    run = Run(tmp_path / "run")
    assert run.resolved["measured"]["tokens_per_second"] > 0
    assert run.config["learning_rate"] == run.model.info.training["train"]["learning_rate"] > 0


def test_two_processes_train_from_python(desk, tmp_path):
    """The main one alone evaluates the best weights, and the others return after it."""
    _, trainings, commands = desk
    code = (
        "import gen",
        f"run = gen.train('text', data={commands['text'][3]!r}, out={str(tmp_path / 'run')!r}, budget='2 steps',",
        " hidden_size=8, embedding_size=8, batch_size=4, chunk=16, validations=1, precision='fp32', device='cpu')",
        "print(run.history[-1]['step'], run.model.calibration)",
    )
    assert trainings.together(["python", "\n".join(code)], tmp_path / "logs") == [0, 0], read(tmp_path / "logs")
    assert read(tmp_path / "logs") == ["2 None\n"] * 2


def read(logs):
    return [path.read_text() for path in sorted(logs.iterdir())]


def test_bulk_work_is_shared_out(desk, tmp_path, capsys):
    """Translations and scores of two processes: the same lines in the same order."""
    folder, trainings, commands = desk
    run = folder / "bulk"
    argv = [*commands["translate"], "--budget", "20 steps"]
    assert trainings.finish(argv, run) == 0
    lines = [line for i in range(30) for line in ("abc" * (i % 5 + 1), "", "fed cab")]
    (tmp_path / "in.txt").write_text("".join(line + "\n" for line in lines))
    translate = ["translate", str(run), "-i", str(tmp_path / "in.txt"), "--batch-size", "8", "--device", "cpu"]
    assert main([*translate, "-o", str(tmp_path / "one.txt")]) == 0
    assert trainings.together([*translate, "-o", str(tmp_path / "two.txt")], tmp_path / "a") == [0, 0]
    assert (tmp_path / "two.txt").read_text() == (tmp_path / "one.txt").read_text()
    score = ["score", str(run), str(folder / "train.src"), str(folder / "train.tgt"), "--device", "cpu"]
    capsys.readouterr()
    assert main(score) == 0
    one = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert trainings.together(score, tmp_path / "b") == [0, 0]
    two = [line.split("\t") for line in (tmp_path / "b" / "0").read_text().splitlines()]
    assert [row[2:] for row in one] == [row[2:] for row in two]
    torch.testing.assert_close(
        *(torch.tensor([float(row[0]) for row in rows]) for rows in (one, two)), atol=1e-3, rtol=0
    )
    assert (tmp_path / "b" / "1").read_text() == ""


def pretend(monkeypatch, rank, size):
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "size", lambda: size)


def test_shares_make_up_the_whole(monkeypatch, tokenizer, tmp_path):
    """Every row of every batch belongs to one process; one without a row gets one that does not count."""
    path = tmp_path / "tokens.bin"
    ids = tokenizer.encode_array("the cat ran to the dog and sat on the mat. " * 30)
    ids.astype("uint16").tofile(path)
    tokens = TokenFile(path, "uint16")
    offsets = torch.arange(0, len(ids) + 1, 7).numpy()

    def batches(kind):
        if kind == "lines":
            return list(SequenceBatches(Sequences(tokens, offsets), 24, tokenizer, seed=1).epoch(0))
        if kind == "streams":
            return list(StreamBatches(tokens, 4, 8, tokenizer.bos_id, 1).epoch(0))
        return list(stream_evaluation(tokens, tokenizer.bos_id, tokenizer.pad_id, chunk=16, lead=8))

    for kind in ("lines", "streams", "evaluation"):
        whole = batches(kind)
        parts = []
        for rank in range(4):
            with monkeypatch.context() as patch:
                pretend(patch, rank, 4)
                parts.append(batches(kind))
        for number, batch in enumerate(whole):
            counted = [p for part in parts for p in part[number].target_ids.tolist()]
            counted = sorted([t for t in row if t] for row in counted if any(row))
            assert counted == sorted([t for t in row if t] for row in batch.target_ids.tolist() if any(row))


def test_alone(monkeypatch):
    assert distributed.shard([1, 2, 3]) == [1, 2, 3]
    assert distributed.gather([1, 2]) == [1, 2]
    assert distributed.all_reduce_sum(1.5, 2) == [1.5, 2]
    assert list(distributed.share_out(range(3), lambda some: (2 * n for n in some))) == [0, 2, 4]
