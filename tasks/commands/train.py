"""`gen train TASK`: training with progress on the terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.progress import Progress

from gen.base import distributed
from gen.base.config import Budget, flat, parse_given, to_dict
from gen.models import checkpoint
from gen.models.device import compute_dtype
from gen.models.model import Model
from gen.training import machine
from gen.training.config import RENAMED, RENAMED_GROUPS, TrainConfig, config_class, with_groups
from gen.training.display import progress
from gen.training.registry import find_task
from gen.training.session import Session, log_to
from gen.training.task import Task
from gen.training.validation import read_progress, tie_of
from tasks import display
from tasks.commands.confidence import calibration_rows
from tasks.commands.preflight import Tools, preflight


def train_command(argv: list[str], command: str, name: str) -> None:
    """`gen train NAME …`."""
    task = find_task(name)
    options = with_groups(config_class(task), tools=Tools)
    renamed = {**RENAMED, **RENAMED_GROUPS}
    config, given = parse_given(options, argv, command, hidden=task.unused, renamed=renamed, common=task.common)
    plain = config_class(task)(**{f.name: getattr(config, f.name) for f in fields(config_class(task))})
    train_watched(task, plain, given, f"{command} {shlex.join(argv)}", config.tools)


def train_watched(
    task: type[Task],
    config: TrainConfig,
    given: Collection[str],
    typed: str,
    tools: Tools | None = None,
    kind: type[Session] = Session,
) -> tuple[Model, Session, dict[str, Any]] | None:
    """Trains with progress on the terminal.

    Args:
        task: the class of the task.
        config: the options.
        given: names of the options that the user gave.
        typed: the command, for the model card and for resuming.
        tools: checks to run instead of training.
        kind: the session.

    Returns:
        The best model, the session and the final figures; None after checks, and in all but the main process.
    """
    machine.tune_cpu()
    machine.set_deterministic(config.train.deterministic)
    tools = tools or Tools()
    session = kind(task, config, given=given, command=typed, writes=not tools.preflight, errors=tools.errors())
    display.console.quiet = not distributed.is_main()
    with watched(session.task):
        session.prepare()
    _show(session)
    if tools.preflight:
        options = session.resolved.config.train
        preflight(session.model, session.task, options, tools, session.folder.path)
        return None
    _train(session, typed)
    presents = distributed.is_main()
    distributed.stop()
    return _present(session) if presents else None


def _show(session: Session) -> None:
    """Prints the data, the chosen options with reasons, and the model."""
    task, resolved, model = session.task, session.resolved, session.model
    display.left_out(getattr(task.split, "dropped", ()))
    display.console.print(display.table("Data", task.split.table()))
    if resolved.reasons:
        options = flat(to_dict(resolved.config))
        display.console.print(display.chosen_table(options, resolved.reasons))
    display.console.print(
        display.model_summary(model, compute_dtype(resolved.config.train.precision, model.device))
    )


def _train(session: Session, typed: str) -> None:
    """Trains until the end, or until Ctrl-C or SIGTERM: then finishes the step and saves."""
    options, path = session.resolved.config.train, session.folder.path
    if state := session.folder.progress():
        with checkpoint.checked(Path(path) / "last"):
            state = read_progress(state)
        what = "is resumed"
        if state.get("done"):
            what = "is already trained to the end of its budget"
            before = state.get("budget") or options.budget
            if Budget.parse(before) != Budget.parse(options.budget):
                what = (
                    f"was trained for {before} and goes on up to {options.budget}, from its best weights: the "
                    "learning-rate schedule begins again"
                )
        display.say(f"{path} {what} (step {state['step']:,}).")
    with (
        session.tracked() as log,
        progress(options, session.task.describe, display.console) as show,
        machine.Interruption() as interruption,
    ):
        trainer = session.trainer([show, log_to(log)])

        def stop() -> None:
            trainer.stop()
            with suppress(OSError, RuntimeError):  # the terminal may be gone, or a print under way
                if distributed.is_main():
                    print("Stopping after this step or validation; once more stops at once.", file=sys.stderr)

        interruption.when_requested = stop
        trainer.fit()
        if interruption.requested and not trainer.done:
            if distributed.is_main() and (Path(path) / "last").exists():
                saved = (session.folder.progress() or {}).get("step") == trainer.now.step
                done = "Stopped and saved" if saved else "Stopped"  # on a full disk the checkpoint before is there
                print(f"\n{done}. The same command resumes the run:\n\n  {typed}\n", file=sys.stderr)
            interruption.stop()


def _present(session: Session) -> tuple[Model, Session, dict[str, Any]]:
    """Prints the final figures, the written files and example commands."""
    model, found = session.finish()
    out, rows = session.folder.path, session.task.rows(found.figures)
    if tied := tie_of(session.task, session.folder):
        rows.append(("chosen by", *tied))
    display.show_figures("Validation", rows)
    if model.calibration:
        display.show_figures("Confidence", calibration_rows(model.calibration))
    display.say(f"Peak memory: {machine.peak_memory(session.device) / 2**20:,.0f} MB")
    display.say(f"Samples: {out}/samples.md   plot: {out}/plots/loss.png")
    commands = session.task.commands(model, shlex.quote(str(out)))
    display.say("Use it:\n\n" + "".join(f"  {line}\n" for line in commands))
    return model, session, found.figures


@contextmanager
def watched(task: Task) -> Iterator[None]:
    """Shows the task's messages and progress within the context."""
    with Progress(console=display.console, transient=True, disable=not display.console.is_terminal) as live:
        lines: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in lines:
                display.say(f"{total:,}: {what}")
                lines[what] = live.add_task(what, total=total)
            live.update(lines[what], completed=done, total=total)

        task.say, task.progress = display.say, show
        yield
