"""Training a character model: bfloat16 autocast against float32, the same model and batches."""

from __future__ import annotations

import time

import torch

from gen.inputs.tokenizer import CharTokenizer
from gen.models.batch import Batch
from gen.models.decoder import DecoderConfig
from gen.models.device import compute_dtype
from gen.models.model import Model
from gen.training import machine
from gen.training.options import TrainOptions
from gen.training.step import Stepper
from gen.training.task import Task

B, T, STEPS = 32, 64, 12


def tokens_per_second(precision, layers):
    torch.manual_seed(0)
    tokenizer = CharTokenizer([chr(c) for c in range(32, 97)])
    config = DecoderConfig(len(tokenizer), embedding_size=128, hidden_size=512, num_layers=layers, dropout=0.1)
    model = Model({"name": "none"}, config, tokenizer).train()
    options = TrainOptions(precision=precision)
    step = Stepper(model, Task(), options)
    ids = torch.randint(4, len(tokenizer), (B, T + 1))
    batch = Batch({}, ids[:, :-1], ids[:, 1:], continues=True)
    carried, times = None, []
    for _ in range(STEPS):
        began = time.perf_counter()
        carried = step([batch], carried, 0.0).carried
        times.append(time.perf_counter() - began)
    return B * T / sorted(times)[len(times) // 4]


def run():
    if compute_dtype("auto", torch.device("cpu")) != torch.bfloat16:
        return
    machine.tune_cpu()  # as in training; it speeds up both sides
    for layers in (1, 2):
        fast, slow = [], []
        for _ in range(3):
            fast.append(tokens_per_second("bf16", layers))
            slow.append(tokens_per_second("fp32", layers))
        yield {
            "what": f"training, {layers}-layer LSTM 512, {B} × {T}",
            "ours": f"{max(fast):,.0f} tokens/s (bfloat16)",
            "baseline": f"{max(slow):,.0f} tokens/s (float32)",
            "ratio": f"{max(fast) / max(slow):.2f}",
            "bar": "≥ 2",
        }
