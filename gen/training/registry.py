"""The registry of tasks: registered classes, and entry points of installed packages."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import entry_points

from gen.base.errors import UserError
from gen.training.task import Task

TASKS: dict[str, type[Task]] = {}


def register(name: str) -> Callable[[type[Task]], type[Task]]:
    """Class decorator that registers a task as ``name``, for `gen train NAME`, `gen NAME RUN` and every command
    that loads one of its models."""

    def add(task: type[Task]) -> type[Task]:
        TASKS[name] = task
        task.name = name
        return task

    return add


def find_task(name: str) -> type[Task]:
    """The task called ``name``: registered, or found through the entry points of group ``gen.tasks``.

    Raises:
        UserError: unknown name; the message has the nearest known one.
    """
    if name not in TASKS:
        found = {entry.name: entry for entry in entry_points(group="gen.tasks")}
        if name in found:
            task = found[name].load()
            TASKS.setdefault(name, task)
            task.name = task.name or name
        else:
            known = sorted({*TASKS, *found})
            near = get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(known) or 'none'}"
            raise UserError(f"there is no task {name!r}; {hint}")
    return TASKS[name]
