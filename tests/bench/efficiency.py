"""Efficiency of a training step: the time of its matrix products, each timed alone in bfloat16 with the same
shapes, as a share of the time of the whole step."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import torch

from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.models.batch import Batch, pad, sequence_batch
from gen.models.decoder import DecoderConfig
from gen.models.device import compute_dtype
from gen.models.encoders import RNNEncoder
from gen.models.encoders.base import Encoder
from gen.models.memory import Memory
from gen.models.model import Model
from gen.training import machine
from gen.training.options import TrainOptions
from gen.training.step import Stepper
from gen.training.task import Task

ROUNDS, STEPS = 8, 3


def linear(rows, inputs, outputs):
    """The products of a linear layer, forward, and backward for inputs and weights: Counter of (M, K, N)."""
    return Counter([(rows, inputs, outputs), (rows, outputs, inputs), (outputs, rows, inputs)])


def lstm(batch, length, inputs, hidden):
    """The products of an LSTM layer: inputs of all positions at once, states one position at a time."""
    one_by_one = Counter({(batch, hidden, 4 * hidden): length, (batch, 4 * hidden, hidden): length})
    return (
        linear(batch * length, inputs, 4 * hidden) + one_by_one + Counter([(4 * hidden, batch * length, hidden)])
    )


def seconds(products):
    """Seconds that the products take one by one."""
    total = 0.0
    for (m, k, n), count in products.items():
        a, b = torch.randn(m, k).bfloat16(), torch.randn(n, k).bfloat16().t()
        times = []
        for _ in range(5):
            began = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - began)
        total += count * quartile(times)
    return total


def quartile(times):
    """The first quartile: the time when little else runs on the machine."""
    return sorted(times)[len(times) // 4]


def measure(name, model, batch, products, bar):
    step = Stepper(model.train(), Task(), TrainOptions())
    times, alone, carried = [], [], None
    for _ in range(ROUNDS + 1):  # in turn, since the machine's speed changes
        for _ in range(STEPS):
            began = time.perf_counter()
            carried = step([batch], carried if batch.continues else None, 0.0).carried
            times.append(time.perf_counter() - began)
        alone.append(seconds(products))
    taken, needed = quartile(times[STEPS:]), quartile(alone[1:])  # the first round compiles the kernels
    work = sum(2 * m * k * n * count for (m, k, n), count in products.items())
    return {
        "what": f"training, share of a step that is matrix products, {name}",
        "ours": f"{1000 * taken:.0f} ms, {work / taken / 1e9:.0f} GFLOP/s",
        "baseline": f"{1000 * needed:.0f} ms, {work / needed / 1e9:.0f} GFLOP/s (the products alone)",
        "ratio": f"{needed / taken:.2f}",
        "bar": f"≥ {bar}",
    }


def text(B=64, T=128, H=512):
    tokenizer = CharTokenizer([chr(c) for c in range(32, 97)])
    model = Model({"name": "none"}, DecoderConfig(len(tokenizer), H, H, 2, dropout=0.1), tokenizer)
    ids = torch.randint(4, len(tokenizer), (B, T + 1))
    products = lstm(B, T, H, H) + lstm(B, T, H, H) + linear(B * T, H, len(tokenizer))
    return measure("2-layer LSTM 512", model, Batch({}, ids[:, :-1], ids[:, 1:], continues=True), products, 0.7)


def decoder(B, T, E, H, V, M, S):
    """The products of a decoder of two layers with dot attention between them."""
    looks = Counter({(T, M, S): 2 * B, (T, S, M): 2 * B, (M, T, S): B, (S, T, M): B})
    layers = lstm(B, T, E, H) + lstm(B, T, H + M, H)
    return layers + linear(B * T, H, M) + looks + linear(B * T, H + M, E) + linear(B * T, E, V)


def translation(B=128, S=16, T=16, E=256, N=160, H=320, V=5000):
    tokenizer = WordTokenizer([f" w{i}" for i in range(V - 4)])
    sizes = {"embedding_size": E, "hidden_size": N, "num_layers": 2, "share_embeddings": True}
    encoder = RNNEncoder(tokenizer, **sizes, dropout=0.2)
    config = DecoderConfig(V, E, H, 2, attention="dot", dropout=0.2, tie_embeddings=True)
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, V, (B, S)), rng.integers(4, V, (B, T - 1))
    batch = sequence_batch({"sentence": pad(source, 0)}, list(target), *ids_of(tokenizer))
    both = lstm(B, S, E, N) + lstm(B, S, 2 * N, N)  # in one direction
    products = both + both + linear(B, 2 * N, 4 * H) + decoder(B, T, E, H, V, 2 * N, S)
    return measure("translation", Model(encoder, config, tokenizer), batch, products, 0.5)


class Features(Encoder):
    """An encoder of cached features, like the caption encoder."""

    def __init__(self, features, size):
        super().__init__()
        self.memory_size = size
        self.project, self.norm = torch.nn.Linear(features, size), torch.nn.LayerNorm(size)

    def forward(self, source):
        values = self.norm(self.project(source["features"]))
        return Memory(values, torch.ones(values.shape[:2], dtype=torch.bool), values.mean(1))


def captions(B=112, S=49, C=1280, T=12, E=256, M=256, H=384, V=2600):
    tokenizer = WordTokenizer([f" w{i}" for i in range(V - 4)])
    config = DecoderConfig(V, E, H, 2, attention="dot", dropout=0.3, tie_embeddings=True)
    written = np.random.default_rng(0).integers(4, V, (B, T - 1))
    batch = sequence_batch({"features": torch.randn(B, S, C)}, list(written), *ids_of(tokenizer))
    seeing = Counter([(B * S, C, M), (M, B * S, C)])  # features need no gradient
    products = seeing + linear(B, M, 4 * H) + decoder(B, T, E, H, V, M, S)
    return measure("captions", Model(Features(C, M), config, tokenizer), batch, products, 0.5)


def ids_of(tokenizer):
    return tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id


def run():
    if compute_dtype("auto", torch.device("cpu")) != torch.bfloat16:
        return
    machine.tune_cpu()
    for part in (text, translation, captions):
        torch.manual_seed(0)
        yield part()
