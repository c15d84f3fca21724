"""The overhead of the training loop: `Trainer` against a bare loop with the same model and batches."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gen.datasets.batches import TokenFile
from gen.datasets.streams import StreamBatches
from gen.inputs.tokenizer import CharTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.device import autocast, compute_dtype
from gen.models.model import Model
from gen.training import machine
from gen.training.options import TrainOptions, make_optimizer
from gen.training.task import Evaluation, Task
from gen.training.trainer import Trainer

B, T, STEPS, ROUNDS = 32, 64, 150, 5


class Text(Task):
    """A task on characters without validation."""

    def __init__(self, tokens: TokenFile) -> None:
        super().__init__()
        self.batches = StreamBatches(tokens, B, T, 1, seed=1)

    def validate(self, model: Model, *, quick: bool = False) -> Evaluation:
        return Evaluation({"loss": 0.0})

    def sample(self, model: Model, evaluation: Evaluation) -> str:
        return ""


def make(tokenizer: CharTokenizer) -> Model:
    torch.manual_seed(0)
    return Model({"name": "none"}, DecoderConfig(len(tokenizer), embedding_size=128, hidden_size=512), tokenizer)


def bare(model: Model, task: Task, dtype: torch.dtype) -> list[float]:
    """Seconds per step of a loop as written by hand, including the making of the batch."""
    options = TrainOptions()
    optimizer, state, moments = make_optimizer(model, options), None, []
    model.train()
    for _, batch in zip(range(STEPS), _Timed(task.batches, moments).epoch(0), strict=False):
        optimizer.zero_grad(set_to_none=True)
        with autocast(model.device, dtype):
            output = model.loss(batch, state if batch.continues else None)
        (output.loss_sum / output.num_tokens).backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        state = output.state.detach()
    return np.diff(moments).tolist()


def ours(model: Model, task: Task, folder: Path) -> list[float]:
    """Seconds per step of `Trainer.fit`, with everything that it does between steps."""
    moments: list[float] = []
    task.batches = _Timed(task.batches, moments)  # type: ignore[assignment]
    options = TrainOptions(budget=f"{STEPS} steps", validations=1, ema=0.999)
    Trainer(model, task, options, out=folder).fit()
    return np.diff(moments).tolist()


class _Timed:
    """Batches that record the time of each request."""

    def __init__(self, batches: StreamBatches, moments: list[float]) -> None:
        self.batches, self.moments = batches, moments
        self.batches_per_epoch = batches.batches_per_epoch

    def epoch(self, epoch: int, start: int = 0):
        for batch in self.batches.epoch(epoch, start):
            self.moments.append(time.perf_counter())
            yield batch


def run():
    machine.tune_cpu()
    tokenizer = CharTokenizer([chr(c) for c in range(32, 97)])
    dtype = compute_dtype("auto", torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "tokens.bin"
        np.random.default_rng(0).integers(4, len(tokenizer), B * T * (STEPS + 10)).astype("uint16").tofile(path)
        tokens = TokenFile(path, "uint16")
        # The fastest steps are those that nothing else on the machine slowed down; both in turn.
        rounds = [
            (
                np.quantile(bare(make(tokenizer), Text(tokens), dtype), 0.25),
                np.quantile(ours(make(tokenizer), Text(tokens), Path(name) / f"run{i}"), 0.25),
            )
            for i in range(ROUNDS)
        ]
    slow, fast = (min(seconds) for seconds in zip(*rounds, strict=True))
    ratio = float(np.median([b / a for a, b in rounds]))  # of measurements that directly follow each other
    yield {
        "what": f"a step of Trainer.fit() against a bare loop, 1-layer LSTM 512, {B} × {T}",
        "ours": f"{1000 * fast:.1f} ms",
        "baseline": f"{1000 * slow:.1f} ms",
        "ratio": f"{ratio:.3f}",
        "bar": "≤ 1.03",
    }
