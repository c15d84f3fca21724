"""The undamaged files: a model of every task, exported ones, a training that goes on, data, pictures."""

from __future__ import annotations

import json
from pathlib import Path

from tests import faults
from tests.soak.child import Children

TEXT = [word if word != "70 steps" else "6 steps" for word in faults.TEXT]
"""The options of the training that goes on."""


def prepare(folder: Path, children: Children, *, exported: bool = True) -> None:
    """Makes them in ``folder``; without exported models, in half the time."""
    import pyarrow as pa
    from PIL import Image
    from pyarrow import parquet

    for kind, argv in faults.commands(folder).items():
        if kind != "self-critical":
            argv[argv.index("--budget") + 1] = "4 steps"
            _do(children, [*argv, "--out", folder / kind])
    for kind in ("text", "translate") if exported else ():
        _do(children, ["export", folder / kind, "-o", folder / f"{kind}-exported"])
    (folder / "caption").rename(folder / "captions")
    # A training that has not reached its end.
    trainings = faults.Trainings(folder / "cache")
    trainings.finish(["train", "text", "--data", str(folder / "book.txt"), *TEXT], folder / "run", "step:5")
    (folder / "lines.txt").write_text("abc\n\nfed cab\n")
    rows = list(zip(*((folder / f"train.{s}").read_text().split("\n")[:40] for s in ("src", "tgt")), strict=True))
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in rows))
    (folder / "pairs.csv").write_text("source,target\n" + "".join(f'"{a}",{b}\n' for a, b in rows))
    named = [{"source": a, "target": b} for a, b in rows]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    (folder / "pairs.json").write_text(json.dumps(named))
    parquet.write_table(pa.Table.from_pylist(named), folder / "pairs.parquet")
    (folder / "options.yaml").write_text(
        "data:\n  level: char\n  chunk: 16\n  batch_size: 2\n"
        "model:\n  hidden_size: 16\n  embedding_size: 8\n  cell: gru\n"
        "train:\n  budget: 10 steps\n  clip: 1.0\n"
    )
    picture = Image.open(folder / "pictures" / "train-00000.png")
    for name in ("photo.jpg", "photo.webp", "photo.tiff", "photo.heic.jpg", "a.gif"):
        picture.convert("RGB").save(folder / name)


def _do(children: Children, argv: list[object]) -> None:
    ending = children.run(argv)
    if ending.status:
        raise RuntimeError(f"{argv}: {ending.said}")
