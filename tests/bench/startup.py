"""Startup times: `gen --help`, and the first token from a cold start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gen.inputs.tokenizer import CharTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.model import Model
from tests import torchfree

# `wait` is of no use here: the peak memory that it reports for a child includes that of its parent.
CHILD = """
import re, sys
from pathlib import Path
from tasks.cli import main
status = main(sys.argv[1:])
print("PEAK", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
sys.exit(status)
"""


def cold(*words):
    """Seconds and peak memory (MB) of `gen` in a separate process."""
    began = time.perf_counter()
    command = [sys.executable, "-c", CHILD, *map(str, words)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, int(done.stderr.split("PEAK")[1]) / 1000


def fastest(*ways, rounds=7):
    """The fastest run of each command, taken in turn: (seconds, MB) each."""
    found = [[cold(*words) for words in ways] for _ in range(rounds)]
    return [min(times) for times in zip(*found, strict=True)]


def run():
    ((ours, _),) = fastest(("--help",))
    yield {"what": "gen --help", "ours": f"{ours:.3f} s", "baseline": "", "ratio": "", "bar": "< 0.5 s"}
    from gen.models import export, quantization

    tokenizer = CharTokenizer([chr(c) for c in range(32, 127)])
    config = DecoderConfig(len(tokenizer), embedding_size=512, hidden_size=512, num_layers=2)
    with tempfile.TemporaryDirectory() as name:
        model, plain, small = (Path(name) / part for part in ("model", "float32", "int8"))
        Model({"name": "none"}, config, tokenizer).save(model)
        export.export(Model.load(model), plain)
        quantization.quantize(plain, small)
        once = ("--max-new-tokens", "1")
        (ours, memory), (torch, heavy) = fastest(("generate", small, *once), ("generate", model, *once), rounds=5)
        wheel = torchfree.build_wheel(Path(name) / "wheel")
        size = torchfree.size(torchfree.everything(torchfree.requirements(wheel))) + wheel.stat().st_size
    yield {
        "what": "first token from a cold start, exported in int8",
        "ours": f"{ours:.2f} s",
        "baseline": f"{torch:.2f} s (torch)",
        "ratio": f"{ours / torch:.3f}",
        "bar": "≤ 0.167, 0.5 s",
    }
    yield {
        "what": "the same, peak memory",
        "ours": f"{memory:.0f} MB",
        "baseline": f"{heavy:.0f} MB (torch)",
        "ratio": f"{memory / heavy:.2f}",
        "bar": "≤ 150 MB",
    }
    yield {
        "what": "gen-runtime and all it needs, installed",
        "ours": f"{size / 1e6:.0f} MB",
        "baseline": "",
        "ratio": "",
        "bar": "≤ 200 MB",
    }
