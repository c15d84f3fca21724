"""`gen export`: a trained model as a folder that runs without torch."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from gen import runtime
from gen.base.config import parse_command
from gen.base.errors import ConfigError, UserError, notify
from gen.base.files import TextFiles
from gen.base.folders import write_folder
from gen.datasets.captions import read_captions
from gen.datasets.pair_files import PairFiles
from gen.metrics.captions import caption_metrics
from gen.metrics.scores import translation_metrics
from gen.models.export import export, note, quantize, require
from gen.models.model import Model
from gen.training.machine import tune_cpu
from tasks.caption.command import caption_pictures
from tasks.caption.task import held_out_pictures
from tasks.text.task import held_out_text
from tasks.translate.lines import translate_lines
from tasks.translate.task import held_out_pairs


@dataclass(frozen=True)
class ExportConfig:
    """Write a model as a folder that runs fast, and without torch: `gen generate`, `gen translate`, `gen caption`
    and `gen.load` take it."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run or of a model."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """The folder to write."""
    int8: bool = False
    """Matrix products in int8: smaller and faster. What that costs is measured on held-out data."""
    max_loss: float | None = None
    """--int8: refuse where the model gets worse by more: bits per character (0.02), BLEU (0.3), CIDEr-D (1)."""
    limit: int = 0
    """--int8: measure on this many held-out items; 0: on all of them, or 256 pieces of a text."""
    data: tuple[str, ...] = ()
    """--int8, text: measure on this instead of the text held out in training."""
    src: str = ""
    """--int8, translation: measure on these sentences instead of those held out in training."""
    ref: str = ""
    """--int8, translation: what they should become."""
    images: str = ""
    """--int8, captions: measure on these pictures instead of those held out in training."""
    captions: str = ""
    """--int8, captions: what people wrote about them; see `gen train caption --help`."""

    def check(self, task: str) -> None:
        """Raises `ConfigError` with every error at once."""
        owners = {"text": ("data",), "translate": ("src", "ref"), "caption": ("images", "captions")}
        given = [name for names in owners.values() for name in names if getattr(self, name)]
        foreign = [f"--{name}" for name in given if name not in owners.get(task or "text", ())]
        judged = [f"--{name}" for name in given] + [
            flag for flag, value in (("--max-loss", self.max_loss is not None), ("--limit", self.limit)) if value
        ]
        checks = [
            (not self.output, "name the folder to write: gen export RUN -o FOLDER"),
            (bool(foreign), f"{' and '.join(foreign)} does not go with a {task} model"),
            (bool(judged) and not self.int8, f"{' and '.join(judged)} goes with --int8"),
            (bool(self.src) != bool(self.ref), "--src and --ref go together"),
            (self.limit < 0, f"--limit must be at least 0, not {self.limit}"),
            (
                self.max_loss is not None and not self.max_loss >= 0,
                f"--max-loss must be 0 or more, not {self.max_loss}",
            ),
        ]
        if errors := [message for wrong, message in checks if wrong]:
            raise ConfigError(errors)


class Judge(NamedTuple):
    """How good exported models of a task are.

    Attributes:
        metric: its name.
        higher_is_better: whether more of it is.
        max_loss: how much worse int8 may be.
        items: what it is measured on.
        measure: (model, items) → figure.
    """

    metric: str
    higher_is_better: bool
    max_loss: float
    items: Sequence[Any]
    measure: Callable[[runtime.Runtime, Sequence[Any]], float]


def export_command(argv: list[str], command: str) -> None:
    """`gen export RUN -o FOLDER`."""
    config = parse_command(ExportConfig, argv, command)
    tune_cpu()
    model = Model.load(config.run)
    config.check(model.info.task)
    folder = Path(config.output).resolve()
    _check_output(folder)
    require("onnx", "onnxscript", *(["onnxruntime"] if config.int8 else []))
    if not config.int8:
        export(model, folder)
    else:
        judge = _judge(model, config)
        if not judge.items:
            raise UserError("--int8: there is nothing to measure on: it is empty")
        with tempfile.TemporaryDirectory(prefix="gen-export-") as name:
            plain, small = Path(name) / "float32", Path(name) / "int8"
            export(model, plain)
            quantize(plain, small)
            note(small, _compare(judge, plain, small, config))
            write_folder(folder, lambda path: shutil.copytree(small, path, dirs_exist_ok=True))
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB, {'int8' if config.int8 else 'float32'}")


def _check_output(folder: Path) -> None:
    """Before anything takes long. What is replaced must be ours to replace."""
    ours = {runtime.CONFIG, runtime.TOKENIZER, runtime.ENCODER, runtime.STEP, "README.md"}
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = {name for name in there - ours if not name.startswith(("processor-", "reader-"))}
    if (folder.exists() and not folder.is_dir()) or others or (there and runtime.CONFIG not in there):
        raise UserError(f"--output {folder}: is there, and is no exported model: name another folder")
    parent = next(path for path in folder.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--output {folder}: cannot be written ({parent} is no folder that you may write to)")


def _compare(judge: Judge, plain: Path, small: Path, config: ExportConfig) -> dict[str, Any]:
    """What int8 costs, for the model's card. Raises `UserError` where that is too much."""
    before, after = (judge.measure(runtime.load(path), judge.items) for path in (plain, small))
    lost = before - after if judge.higher_is_better else after - before
    most = judge.max_loss if config.max_loss is None else config.max_loss
    what = f"{judge.metric} {before:.4g} in float32, {after:.4g} in int8 ({len(judge.items):,} held-out items)"
    if not lost <= most:
        raise UserError(
            f"--int8: {what}: that is worse by {lost:.3g}, more than --max-loss {most:g}; nothing written"
        )
    notify(what)
    return {f"{judge.metric}, float32": round(before, 4), f"{judge.metric}, int8": round(after, 4)}


def _judge(model: Model, config: ExportConfig) -> Judge:
    task = model.info.task
    if task == "translate":
        pairs = list(PairFiles([config.src, config.ref])) if config.src else held_out_pairs(model)
        return Judge("BLEU", True, 0.3, _first(pairs, config.limit), _bleu)
    if task == "caption":
        given = config.images or config.captions
        pictures = read_captions(config.images, config.captions).pictures if given else held_out_pictures(model)
        return Judge("CIDEr-D", True, 1.0, _first(pictures, config.limit), _cider)
    text = "".join(p for p in TextFiles(config.data) if p) if config.data else held_out_text(model)
    size = 400  # of a stream is what fits into a batch; of a book, a part is enough
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    items = text.splitlines() if model.info.ends_with_eos else pieces
    return Judge("bits per character (short pieces)", False, 0.02, _first(items, config.limit or 256), _bits)


def _first(items: Sequence[Any], limit: int) -> Sequence[Any]:
    """``limit`` of the items, from everywhere among them."""
    return items if not limit or len(items) <= limit else [items[i * len(items) // limit] for i in range(limit)]


def _bits(model: runtime.Runtime, texts: Sequence[str]) -> float:
    scores = [s for i in range(0, len(texts), 64) for s in model.score(texts[i : i + 64])]
    return -sum(s.log_prob for s in scores) / math.log(2) / max(sum(map(len, texts)), 1)


def _bleu(model: runtime.Runtime, pairs: Sequence[tuple[str, str]]) -> float:
    found = translate_lines(model, [source for source, _ in pairs])
    texts = [t.hypotheses[0].text if t.hypotheses else "" for t in found]
    lowercase = getattr(model.processors["sentence"], "lowercase", False)
    return translation_metrics(texts, [reference for _, reference in pairs], lowercase=lowercase)["bleu"]


def _cider(model: runtime.Runtime, pictures: Sequence[Any]) -> float:
    described = zip(caption_pictures(model, [p.picture for p in pictures]), pictures, strict=True)
    kept = [(d.hypotheses[0].text, p.captions) for d, p in described if d.hypotheses]
    if not kept:
        raise UserError("no pictures are left to judge by")
    return caption_metrics([text for text, _ in kept], [references for _, references in kept])["cider"]
