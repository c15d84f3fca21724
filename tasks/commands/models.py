"""Models that commands work with: found among a command's words, loaded, refused where they do not fit."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gen import runtime
from gen.base.errors import UserError

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model
    from gen.training.task import Task

Precision = Literal["fp32", "bf16", "fp16", "auto"]

COMMANDS = {"text": "generate"}
"""Task → the command that uses its models, where that has another name than the task."""


def load_model(
    run: str, device: str = "auto", task: str = "", precision: Precision = "fp32"
) -> Model | runtime.Runtime:
    """The model of a run, or an exported one.

    Args:
        run: a folder, or hf:user/name.
        device: where to put it.
        task: the one that has to have made it; "" for any.
        precision: of the matrix products.

    Raises:
        UserError: there is none, or another task made it.
    """
    if runtime.is_exported(run) or find_spec("torch") is None:
        if device not in ("auto", "cpu"):
            raise UserError(f"--device {device}: exported models run on the CPU")
        if precision not in ("fp32", "auto"):
            raise UserError(f"--precision {precision}: exported models have their own; see gen export --int8")
        model: Model | runtime.Runtime = runtime.load(run)
    else:
        from gen.models.device import pick_device
        from gen.models.model import Model
        from gen.training.machine import tune_cpu

        tune_cpu()
        model = Model.load(run, pick_device(device), precision)
    made_by = model.info.task
    if task and made_by not in ("", task):
        use = f"`gen {COMMANDS.get(made_by, made_by)} {shlex.quote(run)}`"
        raise UserError(f"{run}: is a {made_by} model, and this command is for {task} models; use {use}")
    return model


def task_among(words: Sequence[str]) -> type[Task] | None:
    """The task of the model that a command's words name; None where they name none, as with --help alone.

    Raises:
        UserError: the model's task is not known here.
    """
    from gen.models.checkpoint import find_model, read_config
    from gen.training.registry import find_task

    for word in words:
        if word.startswith("-") or not (word.startswith("hf:") or Path(word).is_dir()):
            continue
        try:
            name = read_config(find_model(word))["task"]
        except (UserError, KeyError):
            continue  # loading it will say what is wrong
        return find_task(name or "text")
    return None
