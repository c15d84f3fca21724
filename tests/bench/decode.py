"""Writing characters with a 2-layer LSTM of 512: our search, in torch and exported in int8, against a plain loop
over `nn.LSTM`, T = 1."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from gen import runtime
from gen.decoder import DecoderConfig
from gen.model import Model
from gen.tokenizer import CharTokenizer

TOKENS = 100


class PlainModel(nn.Module):
    """A character model as its users write it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        decoder = model.decoder
        self.embedding, self.output = decoder.embedding, decoder.output
        self.lstm = nn.LSTM(decoder.config.embedding_size, 512, num_layers=2, batch_first=True)
        layers = [*decoder.reader.layers, *decoder.writer.layers]
        for i, layer in enumerate(layers):  # the same weights, so the same work
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(self.lstm, f"{kind}_l{i}").data.copy_(getattr(layer, f"{kind}_l0").data)

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


def seconds(what, *arguments, **options):
    began = time.perf_counter()
    what(*arguments, **options)
    return time.perf_counter() - began


EXPORT = """
import sys
from pathlib import Path
import gen
from gen import export
model, plain, small = map(Path, sys.argv[1:])
export.export(gen.load(model), plain)
export.quantize(plain, small)
"""


def exported(model, precision="int8"):
    """A model as `gen export` makes it; by another process, so that this one's memory stays as it was."""
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
    tokenizer = CharTokenizer([chr(c) for c in range(32, 127)])
    config = DecoderConfig(len(tokenizer), embedding_size=512, hidden_size=512, num_layers=2)
    model = Model({"name": "none"}, config, tokenizer).eval()
    plain, small, half = PlainModel(model).eval(), exported(model), copy.copy(model)
    half.precision = "auto"
    ways = ("torch", "torch, bfloat16", "exported, int8")
    for batch, *bars in ((1, 8, None, 25), (16, None, None, None), (64, 1.5, 1.5, 2)):
        prompts = [""] * batch
        options = {"temperature": 0.8, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
        for writer in (model, half, small):
            writer.generate(prompts, **options)
        plain.write(batch, 10)
        # In turn, so that all meet the machine in the same mood.
        rounds = [
            (
                seconds(model.generate, prompts, **options),
                seconds(half.generate, prompts, **options),
                seconds(small.generate, prompts, **options),
                seconds(plain.write, batch, TOKENS),
            )
            for _ in range(7)
        ]
        *ours, baseline = (batch * TOKENS / min(times) for times in zip(*rounds, strict=True))
        for rate, way, bar in zip(ours, ways, bars, strict=True):
            what = f"characters, 2-layer LSTM 512, batch {batch}, {way}"
            yield row(what, rate, baseline, "tokens/s", "nn.LSTM, T = 1", bar)
