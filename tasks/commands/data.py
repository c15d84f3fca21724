"""`gen data`: what is in the data, before anything is trained on it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from gen.base.config import parse_command
from gen.base.errors import ConfigError, flag
from gen.base.fields import Arg, options_of
from gen.training.config import errors_in, with_groups
from gen.training.look import DataLook, look_at_data
from gen.training.registry import TASKS, find_task
from gen.training.task import Task
from tasks import display
from tasks.cli import all_commands
from tasks.commands.guess import task_for
from tasks.commands.train import watched
from tasks.data_page import write_data_page
from tasks.data_tables import column_grid, columns_of, grids

_MOST = 20
"""Lines about what was left out."""


@dataclass(frozen=True)
class DataCommand:
    """Look at data before training: sizes, lengths, vocabularies, scripts, duplicates, leaks between parts, odd
    characters, and what training will drop. `gen data TASK --help` (text, translate, caption, classify) lists the
    options of the data, those of `gen train TASK`. Without TASK, it is guessed from the files."""

    file: Annotated[tuple[str, ...], Arg("FILE", positional=True)] = ()
    """Training data, instead of the option that names it (--data, --train, or --images and --captions)."""
    test: tuple[str, ...] = ()
    """Data to test on, in the form of --valid: how much of it is in the other parts?"""
    json: bool = False
    """Print JSON."""
    page: str = ""
    """Also write a page with histograms, an .html file."""


def data_command(argv: list[str], command: str) -> None:
    """`gen data [TASK] FILE…`."""
    name, words = _task_in(argv)
    if not name:
        parse_command(DataCommand, argv, command)  # --help, or wrong options
        raise ConfigError(["name the data: `gen data FILE`, or a task and its options, as in `gen train`"])
    kind = find_task(name)
    config: Any = parse_command(
        with_groups(DataCommand, data=kind.Data), words, f"{command} {name}", common=kind.common
    )
    data = _named(kind, config)
    errors = errors_in(data)
    if config.page and not config.page.endswith((".html", ".htm")):
        errors.append(f"--page {config.page}: name an .html file")
    if errors:
        raise ConfigError(errors)
    task = kind()
    with nullcontext() if config.json else watched(task):
        found = look_at_data(kind, data, config.test, task.progress)
    if config.page:
        write_data_page(Path(config.page), found, " ".join(task.sources(data)))
    if config.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    if words is argv:
        display.say(f"Read as `gen train {name}` reads it; `gen data TASK FILE…` reads it for another task.")
    _show(found)
    if config.page:
        display.say(f"Page: {config.page}")


def _task_in(argv: list[str]) -> tuple[str, list[str]]:
    """The task and the words after it; all words where the task is guessed. "" for neither."""
    tasks = {name.partition(" ")[2] for name in all_commands() if name.startswith("train ")} | TASKS.keys()
    if argv and argv[0] in tasks:
        return argv[0], argv[1:]
    files = list(takewhile(lambda word: word[:1] != "-" or word == "-", argv))
    files = files or [word for word in argv if word[:1] != "-"]
    if not files or {"-h", "--help"} & set(argv):
        return "", argv
    return task_for(files, argv), argv


def _named(kind: type[Task], config: Any) -> Any:
    """The options of the data, with the files in them."""
    data = config.data
    if not config.file:
        return data
    given = {name: value for name, value in kind.named(config.file).items() if value}
    known = {option.name: option for option in options_of(type(data))}
    if wrong := [name for name in given if name not in known]:
        raise ConfigError(
            [f"FILE: {kind.name} has no --{wrong[0]}; `gen data {kind.name} --help` has its options"]
        )
    for name in [name for name, value in given.items() if isinstance(value, tuple) and not known[name].many]:
        if len(given[name]) > 1:
            raise ConfigError([f"FILE: {flag(name)} of {kind.name} takes one file, not {len(given[name])}"])
        given[name] = given[name][0]
    if twice := [name for name in given if getattr(data, name)]:
        raise ConfigError([f"name the data once: FILE and --{twice[0]} exclude each other"])
    return replace(data, **given)


def _show(found: DataLook) -> None:
    """Prints what was found."""
    display.left_out(found.dropped)
    display.console.print(display.table("Data", found.table))
    for grid in [*(column_grid(*each) for each in columns_of(found).items()), *grids(found)]:
        display.console.print(display.grid(*grid))
