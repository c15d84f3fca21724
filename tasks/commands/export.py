"""`gen export`: ONNX export of a trained model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from gen import runtime
from gen.base.config import parse_command
from gen.base.errors import ConfigError, UserError, flag, notify, printable
from gen.base.fields import Arg
from gen.base.folders import copy_folder, write_folder
from gen.models.export import export, note, require
from gen.models.model import Model
from gen.models.quantization import quantize
from gen.search import confidence
from gen.training.config import errors_in, with_groups
from gen.training.interfaces import Metric, NoOptions
from gen.training.machine import tune_cpu
from gen.training.task import Task
from tasks.commands.models import held_out_examples, task_among

MEASURED = "--int8 measures what it costs on held-out data (without --int8 none is needed)"


@dataclass(frozen=True)
class ExportCommand:
    """Export a model to ONNX: a folder that runs fast and without torch, in commands and with `gen.load`. With
    --web a page that runs models in its reader's browser.
    `gen export RUN --help` also lists the options of the model's task: the data that --int8 is measured on."""

    run: Annotated[tuple[str, ...], Arg("RUN", positional=True)]
    """Folder of a run or model, or hf:USER/NAME; several, named NAME=RUN if you like, with --web."""
    output: Annotated[str, Arg(aliases=("-o",), required=True)] = ""
    """Folder to write."""
    web: bool = False
    """Write a page for any static host: the models run in the reader's browser, and nothing is sent anywhere. ONNX
    Runtime for browsers is fetched once, with npm."""
    single_file: bool = False
    """--web: put everything into one HTML file, which also opens without a server; -o may name it."""
    int8: bool = False
    """Quantize matrix products to int8: smaller and faster. The loss in quality is measured on held-out data."""
    max_loss: float | None = None
    """--int8: fail if the task's metric (of text: bits per character) gets worse by more than this. Unset: the
    task's own limit."""
    limit: int = 0
    """--int8: measure on at most this many held-out items; 0: the task's own limit."""
    held_out: Any = field(default_factory=NoOptions)

    def check(self) -> None:
        """Raises `ConfigError` with all errors."""
        other = self.held_out
        given = [f.name for f in fields(other) if getattr(other, f.name) != f.default]
        given += ["max_loss"] * (self.max_loss is not None) + ["limit"] * bool(self.limit)
        flags = " and ".join(map(flag, given))
        errors = [] if self.output else ["name the folder to write: gen export RUN -o FOLDER"]
        if len(self.run) != 1 and not self.web:
            errors.append("name one run: several go with --web" if self.run else "name a run: gen export RUN")
        if self.single_file and not self.web:
            errors.append("--single-file goes with --web")
        if given and not self.int8:
            errors.append(f"{flags} goes with --int8")
        if self.limit < 0:
            errors.append(f"--limit must be at least 0, not {self.limit}")
        if self.max_loss is not None and not self.max_loss >= 0:
            errors.append(f"--max-loss must be 0 or more, not {self.max_loss}")
        if errors := errors + errors_in(other):
            raise ConfigError(errors)


def export_command(argv: list[str], command: str) -> None:
    """`gen export RUN -o FOLDER`, `gen export RUN… --web -o SITE`."""
    found = task_among(argv)
    options = with_groups(ExportCommand, held_out=found.HeldOut if found else NoOptions)
    config = parse_command(options, argv, command)
    config.check()
    tune_cpu()
    if config.web:
        print(export_page(config))
        return
    folder = Path(config.output).resolve()
    _check_output(folder)
    with tempfile.TemporaryDirectory(prefix="gen-export-") as name:
        made = _exported(config.run[0], config, Path(name))
        write_folder(folder, partial(copy_folder, made))
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{printable(str(folder))}: {size / 1e6:.1f} MB, {'int8' if config.int8 else 'float32'}")


def export_page(config: ExportCommand) -> str:
    """Writes the page of all models, exported already or not, and returns a line about it."""
    from gen.serve.models import names_of
    from gen.web.assets import onnxruntime_web
    from gen.web.site import check_output, write_site

    output, names = Path(config.output).resolve(), names_of(list(config.run))
    check_output(output, config.single_file)
    require("onnx", "onnxruntime")  # also where all models are exported already
    onnxruntime_web()  # before minutes of work
    with tempfile.TemporaryDirectory(prefix="gen-export-") as scratch:
        models = {
            name: runtime.located(run)
            if runtime.is_exported(run)
            else _exported(run, config, Path(scratch) / str(number))
            for number, (name, run) in enumerate(names.items())
        }
        size = write_site(models, output, config.single_file)
    return f"{printable(str(output))}: {size / 1e6:.1f} MB, {len(models)} model{'s' * (len(models) > 1)}"


def _exported(run: str, config: ExportCommand, scratch: Path) -> Path:
    """The exported model of a run, in a folder of ``scratch``."""
    model, plain, small = Model.load(run), scratch / "float32", scratch / "int8"
    require("onnx", "onnxscript", *(["onnxruntime"] if config.int8 else []))
    if not config.int8:
        export(model, plain)
        return plain
    kind = task_among([run])
    assert kind is not None  # the model was loaded
    held_out = config.held_out if isinstance(config.held_out, kind.HeldOut) else kind.HeldOut()
    best = str(model.info.options().get("best") or "")
    task = kind()
    examples = held_out_examples(task, model, run, held_out, MEASURED)
    export(model, plain)
    quantize(plain, small)
    note(small, quantization_check(task, examples, plain, small, config.max_loss, config.limit, best))
    return small


def _check_output(folder: Path) -> None:
    """Raises `UserError` if the folder cannot be written, or holds anything but an exported model."""
    ours = {runtime.CONFIG, runtime.TOKENIZER, runtime.ENCODER, runtime.STEP, confidence.FILE, "README.md"}
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = {name for name in there - ours if not name.startswith(("reader-", "processor-"))}
    if (folder.exists() and not folder.is_dir()) or others or (there and runtime.CONFIG not in there):
        raise UserError(f"--output {folder}: exists and is no exported model: name another folder")
    parent = next(path for path in folder.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--output {folder}: cannot be written ({parent} is no writable folder)")


def _judge(
    task: Task, examples: Any, plain: runtime.Runtime, small: runtime.Runtime, best: str
) -> tuple[Metric, float, float] | None:
    """The first further metric that is not 0 for both models, ``best`` before others, and its two figures; None if
    there is none."""
    before, after = (task.evaluate(model, examples).figures for model in (plain, small))
    for metric in sorted(task.further_metrics, key=lambda m: m.name != best):
        figures = metric, float(before[metric.name]), float(after[metric.name])
        if any(round(figure, 4) for figure in figures[1:]):
            return figures
    return None


def quantization_check(
    task: Task, examples: Any, plain: Path, small: Path, max_loss: float | None, limit: int = 0, best: str = ""
) -> dict[str, Any]:
    """Compares an int8 export with its float32 export: by the metric ``best`` that chose the weights, if that is a
    further one of the task, else by the task's own. Returns both figures, for the model card.

    Raises:
        UserError: the loss exceeds ``max_loss`` (None: that of the metric).
    """
    if isinstance(examples, Sequence):
        if not examples:
            raise UserError("--int8: there is no held-out data to measure on")
        if limit and len(examples) > limit:
            examples = [examples[i * len(examples) // limit] for i in range(limit)]
    metric, models = task.measured or task.metric, (runtime.load(plain), runtime.load(small))
    (before, what), (after, _) = (task.measure(model, examples, limit) for model in models)
    blind = metric.higher_is_better and round(before, 4) == round(after, 4) == 0
    if blind or best in {further.name for further in task.further_metrics}:
        found = _judge(task, examples, *models, best)
        if blind:
            instead = f"judged by {found[0]}" if found else "the loss in quality is unknown"
            notify(f"--int8: {metric} is 0 in float32 and in int8, which says nothing: {instead}")
        metric, before, after = found or (metric, before, after)
    lost = before - after if metric.higher_is_better else after - before
    most = metric.max_loss if max_loss is None else max_loss
    figures = f"{metric} {before:.4g} in float32, {after:.4g} in int8 ({what})"
    if not lost <= most:
        raise UserError(
            f"--int8: {figures}: that is worse by {lost:.3g}, more than --max-loss {most:g}; nothing written"
        )
    notify(figures)
    return {f"{metric}, float32": round(before, 4), f"{metric}, int8": round(after, 4)}
