"""`gen distill`: one model that learns from others."""

from __future__ import annotations

import shlex
from dataclasses import fields

from gen.base.config import parse_given
from gen.models.checkpoint import find_model
from gen.training.config import RENAMED, RENAMED_GROUPS, with_groups
from gen.training.distill import Distillation, TeacherRecord
from gen.training.registry import find_task
from gen.training.task import Task
from tasks.commands.models import task_among
from tasks.commands.preflight import Tools
from tasks.commands.train import train_watched


def distill_command(argv: list[str], command: str) -> None:
    """`gen distill TEACHER… --out RUN`."""
    found = task_among(argv) or _task_written(argv)
    if found is None and argv and not argv[0].startswith("-"):
        find_model(argv[0])  # says what is wrong with it
    task = found or Task
    kind = Distillation.config_class(task)
    config, given = parse_given(
        with_groups(kind, tools=Tools),
        argv,
        command,
        hidden=task.unused,
        renamed={**RENAMED, **RENAMED_GROUPS},
        common=("out", "budget", "teacher_weight", "teacher_beam", "originals", "sources", "backward", "dry_run"),
    )
    plain = kind(**{f.name: getattr(config, f.name) for f in fields(kind)})
    train_watched(task, plain, given, f"{command} {shlex.join(argv)}", config.tools, Distillation)


def _task_written(argv: list[str]) -> type[Task] | None:
    """The task of teachers that are gone, after they have written what --out needs of them."""
    for word in argv:
        if record := TeacherRecord.read(word.removeprefix("--out=")):
            return find_task(record.task)
    return None
