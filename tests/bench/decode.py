"""Generating characters with a 2-layer LSTM of size 512: our search, in torch and exported in int8, against a
plain loop over `nn.LSTM`, T = 1."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from gen import runtime
from gen.inputs.tokenizer import CharTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.model import Model

TOKENS, SIZE = 100, 512
TOKENIZER = CharTokenizer([chr(c) for c in range(32, 127)])


class PlainModel(nn.Module):
    """A character model as usually written by hand."""

    def __init__(self, vocabulary: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        self.lstm = nn.LSTM(size, size, num_layers=2, batch_first=True)
        self.output = nn.Linear(size, vocabulary)

    @torch.no_grad()
    def write(self, batch: int, tokens: int) -> torch.Tensor:
        """Samples characters at temperature 0.8."""
        token_ids = torch.ones(batch, 1, dtype=torch.int64)
        state = None
        written = []
        for _ in range(tokens):
            outputs, state = self.lstm(self.embedding(token_ids), state)
            logits = self.output(outputs[:, -1]) / 0.8
            token_ids = torch.multinomial(logits.softmax(-1), 1)
            written.append(token_ids)
        return torch.cat(written, 1)


@cache
def plain_model() -> PlainModel:
    return PlainModel(len(TOKENIZER), SIZE).eval()


def plain_seconds(batch: int) -> float:
    """Seconds that `PlainModel` takes to generate."""
    return seconds(plain_model().write, batch, TOKENS)


@contextmanager
def alone():
    """A separate process for a baseline, so that our settings of the memory allocator neither help nor hurt it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def seconds(what, *arguments, **options):
    began = time.perf_counter()
    what(*arguments, **options)
    return time.perf_counter() - began


EXPORT = """
import sys
from pathlib import Path
import gen
from gen.models import export, quantization
model, plain, small = map(Path, sys.argv[1:])
export.export(gen.load(model), plain)
quantization.quantize(plain, small)
"""


def exported(model, precision="int8"):
    """A model exported as by `gen export`, in another process, so that this one's memory does not change."""
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("model", "float32", "int8")]
        model.save(folders[0])
        subprocess.run([sys.executable, "-W", "ignore", "-c", EXPORT, *folders], check=True)
        return runtime.load(Path(name) / precision)


def row(what, ours, baseline, unit, against, bar):
    return {
        "what": what,
        "ours": f"{ours:,.0f} {unit}",
        "baseline": f"{baseline:,.0f} {unit} ({against})",
        "ratio": f"{ours / baseline:.2f}",
        "bar": f"≥ {bar}" if bar else "",
    }


def run():
    config = DecoderConfig(len(TOKENIZER), embedding_size=SIZE, hidden_size=SIZE, num_layers=2)
    model = Model({"name": "none"}, config, TOKENIZER).eval()
    with torch.no_grad():
        model.decoder.output.bias[TOKENIZER.eos_id] = -1e4  # no end of the text, as in the baseline
    small, half = exported(model), copy.deepcopy(model)
    half.precision = "auto"
    ways = {"torch": model, "torch, bfloat16": half, "exported, int8": small}
    with alone() as baseline:
        options = {"temperature": 0.8, "max_new_tokens": TOKENS}
        for batch, *bars in ((1, 8, None, 25), (16, None, None, None), (64, None, 1.5, 2)):
            # In turn, so that changes of the machine's speed affect all alike.
            rounds = [
                (
                    *(seconds(writer.generate, [""] * batch, **options) for writer in ways.values()),
                    baseline(plain_seconds, batch),
                )
                for _ in range(8)
            ]
            *ours, plain = (batch * TOKENS / min(times) for times in zip(*rounds[1:], strict=True))
            for rate, way, bar in zip(ours, ways, bars, strict=True):
                what = f"characters, 2-layer LSTM 512, batch {batch}, {way}"
                yield row(what, rate, plain, "tokens/s", "nn.LSTM, T = 1", bar)
