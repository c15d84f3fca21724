"""`gen export`: a trained model as a folder that runs without torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from gen import runtime
from gen.base.config import parse_command
from gen.base.errors import ConfigError, UserError, notify
from gen.base.fields import Arg
from gen.base.folders import write_folder
from gen.models.export import export, note, quantize, require
from gen.models.model import Model
from gen.training.interfaces import Metric, NoOptions
from gen.training.machine import tune_cpu
from gen.training.task import Task
from tasks.commands.evaluate import with_held_out
from tasks.commands.models import task_among


@dataclass(frozen=True)
class ExportCommand:
    """Write a model as a folder that runs fast, and without torch: every command that uses a model and `gen.load`
    take it.

    `gen export RUN --help` has the options of that model's task, too: what --int8 is measured on."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run or of a model."""
    output: Annotated[str, Arg(aliases=("-o",), required=True)] = ""
    """The folder to write."""
    int8: bool = False
    """Matrix products in int8: smaller and faster. What that costs is measured on held-out data."""
    max_loss: float | None = None
    """--int8: refuse where the model gets worse by more. Unset: as the task has it."""
    limit: int = 0
    """--int8: measure on this many held-out items (0: on as many as the task takes)."""
    held_out: Any = field(default_factory=NoOptions)

    def check(self) -> None:
        """Raises `ConfigError` with every error at once."""
        other = self.held_out
        given = [f.name for f in fields(other) if getattr(other, f.name) != f.default]
        given += ["max_loss"] * (self.max_loss is not None) + ["limit"] * bool(self.limit)
        flags = " and ".join("--" + name.replace("_", "-") for name in given)
        checks = [
            (not self.output, "name the folder to write: gen export RUN -o FOLDER"),
            (bool(given) and not self.int8, f"{flags} goes with --int8"),
            (self.limit < 0, f"--limit must be at least 0, not {self.limit}"),
            (
                self.max_loss is not None and not self.max_loss >= 0,
                f"--max-loss must be 0 or more, not {self.max_loss}",
            ),
        ]
        errors = [message for wrong, message in checks if wrong]
        if errors := errors + (list(other.errors()) if hasattr(other, "errors") else []):
            raise ConfigError(errors)


def export_command(argv: list[str], command: str) -> None:
    """`gen export RUN -o FOLDER`."""
    found = task_among(argv)
    config: Any = parse_command(with_held_out(ExportCommand, found), argv, command)
    config.check()
    tune_cpu()
    model = Model.load(config.run)
    folder = Path(config.output).resolve()
    _check_output(folder)
    require("onnx", "onnxscript", *(["onnxruntime"] if config.int8 else []))
    if not config.int8:
        export(model, folder)
    else:
        assert found is not None  # the model was loaded, so it was found among the words
        task = found()
        examples = task.held_out(model, config.held_out)
        with tempfile.TemporaryDirectory(prefix="gen-export-") as name:
            plain, small = Path(name) / "float32", Path(name) / "int8"
            export(model, plain)
            quantize(plain, small)
            note(small, quantization_check(task, examples, plain, small, config.max_loss, config.limit))
            write_folder(folder, partial(_copy, small))
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB, {'int8' if config.int8 else 'float32'}")


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _check_output(folder: Path) -> None:
    """Before anything takes long. What is replaced must be ours to replace."""
    ours = {runtime.CONFIG, runtime.TOKENIZER, runtime.ENCODER, runtime.STEP, "README.md"}
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = {name for name in there - ours if not name.startswith(("reader-", "processor-"))}
    if (folder.exists() and not folder.is_dir()) or others or (there and runtime.CONFIG not in there):
        raise UserError(f"--output {folder}: is there, and is no exported model: name another folder")
    parent = next(path for path in folder.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--output {folder}: cannot be written ({parent} is no folder that you may write to)")


def quantization_check(
    task: Task, examples: Any, plain: Path, small: Path, max_loss: float | None, limit: int = 0
) -> dict[str, Any]:
    """What int8 costs, for the model's card.

    Raises:
        UserError: that is more than ``max_loss`` (None: what the task's metric allows).
    """
    metric: Metric = task.metric
    if isinstance(examples, Sequence):
        if not examples:
            raise UserError("--int8: there is nothing to measure on: it is empty")
        if limit and len(examples) > limit:
            examples = [examples[i * len(examples) // limit] for i in range(limit)]
    (before, what), (after, _) = (task.measure(runtime.load(path), examples, limit) for path in (plain, small))
    lost = before - after if metric.higher_is_better else after - before
    most = metric.max_loss if max_loss is None else max_loss
    figures = f"{metric} {before:.4g} in float32, {after:.4g} in int8 ({what})"
    if not lost <= most:
        raise UserError(
            f"--int8: {figures}: that is worse by {lost:.3g}, more than --max-loss {most:g}; nothing written"
        )
    notify(figures)
    return {f"{metric}, float32": round(before, 4), f"{metric}, int8": round(after, 4)}
