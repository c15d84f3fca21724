"""Peak memory of training with a corpus ten times as large, each in a separate process."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

TIMES = 10

CHILD = """
import sys
from tasks.cli import main
from gen.training.machine import peak_memory
status = main(sys.argv[1:])
print("PEAK", peak_memory())
sys.exit(status)
"""


def sentences(count: int) -> Iterator[str]:
    """Random sentences from a few thousand words; the same for the same count."""
    words = ["".join(random.Random(i).choices("abcdefghijklmnopqrstuvwxyz", k=2 + i % 8)) for i in range(5000)]
    rng = random.Random(0)
    for _ in range(count):
        yield " ".join(rng.choices(words, k=12))


def text(folder: Path, times: int) -> list[str]:
    """A text; 100 MB at ten times."""
    path = folder / f"book{times}.txt"
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in sentences(120_000 * times))
    return ["text", "--data", str(path), "--valid-limit", "200000"]


def pairs(folder: Path, times: int) -> list[str]:
    """Sentence pairs; 300,000 at ten times, which is ten times Multi30k."""
    names = [folder / f"pairs{times}.{side}" for side in ("src", "tgt")]
    valid = [folder / f"valid{times}.{side}" for side in ("src", "tgt")]
    for several, count in ((names, 30_000 * times), (valid, 50)):
        for name in several:
            with name.open("w") as file:
                file.writelines(f"{line}\n" for line in sentences(count))
    return ["translate", "--train", *map(str, names), "--valid", *map(str, valid)]


def pictures(folder: Path, times: int) -> list[str]:
    """Small pictures with five captions each; 20,000 at ten times. The CNN runs once per distinct picture."""
    from PIL import Image

    where = folder / f"pictures{times}"
    where.mkdir()
    lines = sentences(5 * 2000 * times)
    with (where / "captions.jsonl").open("w") as file:
        for i in range(2000 * times):
            Image.new("RGB", (16, 16), (i % 256, 90, 90)).save(where / f"{i}.png")
            row = {
                "image": f"{i}.png",
                "captions": [next(lines) for _ in range(5)],
                "split": "train" if i >= 20 else "val",
            }
            file.write(json.dumps(row) + "\n")
    return ["caption", "--images", str(where), "--vocab-size", "2000"]


def peak(folder: Path, make, times: int) -> int:
    command = [sys.executable, "-c", CHILD, "train", *make(folder, times), "--out", str(folder / f"run{times}")]
    command += ["--budget", "300 steps", "--validations", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "GEN_CACHE": str(folder / "cache")}
    )
    return int(re.search(r"PEAK (\d+)", done.stdout)[1])


def run():
    for make in (text, pairs, pictures):
        with tempfile.TemporaryDirectory() as folder:
            small, large = (peak(Path(folder), make, times) for times in (1, TIMES))
        yield {
            "what": f"peak memory of training, {TIMES} × the {make.__name__}",
            "ours": f"{large / 2**20:,.0f} MB",
            "baseline": f"{small / 2**20:,.0f} MB",
            "ratio": f"{large / small:.3f}",
            "bar": "≤ 1.05",
        }
