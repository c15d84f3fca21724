"""Peak memory of training on a large file against a small one, each in a process of its own."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL, LARGE = 10 << 20, 1 << 30

CHILD = """
import sys
from tasks.cli import main
from gen.device import peak_memory
status = main(sys.argv[1:])
print("PEAK", peak_memory())
sys.exit(status)
"""


def write_text(path, size):
    words = ["".join(random.Random(i).choices("abcdefghijklmnopqrstuvwxyz", k=2 + i % 8)) for i in range(5000)]
    rng = random.Random(0)
    block = "\n".join(" ".join(rng.choices(words, k=12)) for _ in range(20_000)) + "\n"
    with path.open("w") as file:
        written = 0
        while written < size:
            written += file.write(block)


def peak(folder, size):
    text = folder / f"{size}.txt"
    write_text(text, size)
    command = [
        sys.executable,
        "-c",
        CHILD,
        "train",
        "text",
        "--data",
        text,
        "--out",
        folder / f"run{size}",
        "--budget",
        "300 steps",
        "--validations",
        "1",
        "--valid-limit",
        "200000",
    ]
    done = subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "GEN_CACHE": str(folder / "cache")},
    )
    text.unlink()
    return int(re.search(r"PEAK (\d+)", done.stdout)[1])


def run():
    with tempfile.TemporaryDirectory() as folder:
        small, large = (peak(Path(folder), size) for size in (SMALL, LARGE))
    yield {
        "what": "peak memory of training, 1 GB of text against 10 MB",
        "ours": f"{large / 2**20:,.0f} MB",
        "baseline": f"{small / 2**20:,.0f} MB",
        "ratio": f"{(large - small) / 2**20:+,.0f} MB",
        "bar": "≤ +200 MB",
    }
