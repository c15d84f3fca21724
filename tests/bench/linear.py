"""Costs that may grow only linearly: long texts, wide beams, many lines."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gen.inputs.tokenizer import CharTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.model import Model
from gen.search.info import ModelInfo
from tests.bench.decode import exported, seconds
from tests.bench.startup import cold
from tests.bench.translation import build


def long_texts():
    tokenizer = CharTokenizer([chr(c) for c in range(32, 127)])
    small = exported(Model({"name": "none"}, DecoderConfig(len(tokenizer), 64, 128), tokenizer))

    def rate(length):
        took = seconds(small.generate, "", temperature=1.0, max_new_tokens=length, min_new_tokens=length)
        return length / took

    rate(1000)
    rounds = [(rate(1000), rate(100_000)) for _ in range(3)]
    short, long = (max(rates) for rates in zip(*rounds, strict=True))
    return {
        "what": "characters a second in a text of 100,000 against one of 1,000",
        "ours": f"{long:,.0f} tokens/s",
        "baseline": f"{short:,.0f} tokens/s (1,000)",
        "ratio": f"{long / short:.2f}",
        "bar": "0.9 to 1.1",
    }


def wide_beams():
    model = build().eval()
    sentences = [f" w{i} w{i + 1} w{i + 2}" * 4 for i in range(64)]
    options = {"max_new_tokens": 15, "min_new_tokens": 15, "ban": ()}

    def took(width):
        return seconds(model.generate, sentences, beam=width, **options)

    took(4)
    rounds = [(took(4), took(8), took(16)) for _ in range(3)]
    four, eight, sixteen = (min(times) for times in zip(*rounds, strict=True))
    return {
        "what": "beam search of width 16 against 4: time a row",
        "ours": f"{1000 * sixteen / 16:.0f} ms (8: {1000 * eight / 8:.0f})",
        "baseline": f"{1000 * four / 4:.0f} ms (4)",
        "ratio": f"{sixteen / four / 4:.2f}",
        "bar": "≤ 1.1",
    }


def many_lines():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build()
        model.info = ModelInfo("translate")
        model.save(folder / "model")
        peaks = {}
        for count in (1_000, 10_000):
            lines = folder / f"{count}.txt"
            lines.write_text("".join(f" w{i % 900} w{i % 77}\n" for i in range(count)))
            options = ("-i", lines, "-o", folder / "out.txt", "--max-new-tokens", "3", "--beam", "2")
            _, peaks[count] = cold("translate", folder / "model", *options)
    return {
        "what": "peak memory of gen translate, 10,000 lines against 1,000",
        "ours": f"{peaks[10_000]:,.0f} MB",
        "baseline": f"{peaks[1_000]:,.0f} MB (1,000 lines)",
        "ratio": f"{peaks[10_000] / peaks[1_000]:.3f}",
        "bar": "≤ 1.05",
    }


def run():
    yield long_texts()
    yield wide_beams()
    yield many_lines()
