"""Distillation: models learn from other models, by what these write or by their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml

from gen import load
from gen.base.config import flat, from_dict, range_errors, to_dict
from gen.base.errors import ConfigError, UserError, flag
from gen.base.fields import Arg, options_of
from gen.base.json_files import json_line
from gen.base.lines import output
from gen.base.yaml_files import read_yaml
from gen.models import checkpoint
from gen.models.device import pick_device
from gen.runtime import is_exported
from gen.training.config import config_class, recorded, upgraded, with_groups
from gen.training.registry import find_task
from gen.training.run import Run
from gen.training.session import Callbacks, Session, run_session
from gen.training.task import Task

WRITTEN, TEACHERS = "teacher.jsonl", "teachers.yaml"
"""In the run folder: what the teachers wrote, and the record of who they were."""

Written = Callable[[Iterator[Mapping[str, Any]]], Path]
"""Rows that teachers write → the file of them, JSON Lines, which is written first if it is not there."""


@dataclass(frozen=True)
class DistillOptions:
    """Distill models into one."""

    TITLE: ClassVar[str] = "Teachers"

    teachers: Annotated[tuple[str, ...], Arg("TEACHER", positional=True)] = ()
    """Runs or models to learn from, of one task; several write together as an ensemble."""
    teacher_weight: float = 0.5
    """Text: share of the loss that is the divergence from the teachers' probabilities, token by token."""
    teacher_beam: int = 5
    """Translations and captions: beam width of the teachers."""
    originals: bool = True
    """Translations and captions: train on the original targets, too, not only on what the teachers write."""
    sources: tuple[str, ...] = ()
    """Further inputs for the teachers, without targets: files of one sentence per line, or folders of pictures.
    What is trained or validated on is left out. Not for text."""
    backward: str = ""
    """Translations: a model of the other direction; its translations of the targets become further sources."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        found = [] if self.teachers else ["TEACHER is missing: name at least one run to learn from"]
        if not 0 <= self.teacher_weight <= 1:
            found.append(f"--teacher-weight must be between 0 and 1, not {self.teacher_weight}")
        return found + range_errors(self, ("teacher_beam",))


def unused_options(task: type[Task]) -> frozenset[str]:
    """The options of `DistillOptions` that do not apply to a task. Raises `UserError` if none does."""
    if not task.distilled_by:
        raise UserError(f"gen distill does not go with models of the task {task.name}")
    return frozenset(option.name for option in options_of(DistillOptions)) - task.distilled_by - {"teachers"}


@dataclass(frozen=True)
class TeacherRecord:
    """The models that wrote a run's ``teacher.jsonl``, as recorded in its ``teachers.yaml``. With this record the
    run is resumed without them.

    Attributes:
        task: its name.
        fingerprints: name of a model, as the user gave it → its fingerprint.
        data: options of the first one's training data; empty if it has no record of them.
    """

    task: str
    fingerprints: dict[str, str]
    data: dict[str, Any]

    @classmethod
    def of(cls, task: type[Task], models: Mapping[str, Any]) -> TeacherRecord:
        """The record of models by name."""
        data: dict[str, Any] = {}
        with suppress(UserError):
            data = flat(to_dict(recorded(task, next(iter(models.values()))).data))
        return cls(task.name, {name: model.fingerprint for name, model in models.items()}, data)

    @classmethod
    def read(cls, out: str, names: Collection[str] = ()) -> TeacherRecord | None:
        """The record in a run folder; None without one, if not all is written, or if it is not of these models."""
        try:
            if not out or not Path(out, WRITTEN).exists():
                return None
            found = read_yaml(Path(out, TEACHERS))
            models = {str(name): str(value) for name, value in found["fingerprints"].items()}
            known = not names or {*names} == {*models}
            return cls(str(found["task"]), models, dict(found["data"])) if known else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def check(self, out: str) -> None:
        """Raises `UserError` if one of the models that are still there is another one now."""
        for name, before in self.fingerprints.items():
            try:
                now = load(name).fingerprint
            except UserError:  # it is gone
                continue
            _check_same(out, name, before, now)


def _check_same(out: str, name: str, before: str, now: str) -> None:
    """Raises `UserError` if a teacher's fingerprint has changed; an export of an older version has none."""
    if before and now and now != before:
        raise UserError(f"{out}: {name} is no longer the model that it learned from: choose another --out")


class Distillation(Session):
    """A training that learns from other models. Its data, unless it is named, is that of the first of them.

    What the teachers write lies in the run folder as ``teacher.jsonl``: it is there when all of it is written, and
    a training that is resumed goes on with it, and without the teachers.
    """

    @staticmethod
    def config_class(task: type[Task]) -> Any:
        """The dataclass of the options: those of training, and `DistillOptions`."""
        made = with_groups(config_class(task), distill=DistillOptions)
        made.__doc__ = DistillOptions.__doc__
        return made

    def __init__(self, task: type[Task], config: Any, *, given: Collection[str] = (), **others: Any) -> None:
        self.options: DistillOptions = config.distill
        found = self.options.errors()
        if self.options.teachers:
            unused = unused_options(task) & set(given)
            found += [f"{flag(name)} does not go with {task.name} models" for name in sorted(unused)]
        if found:
            raise ConfigError(found)
        names = [*self.options.teachers, *filter(None, [self.options.backward])]
        models: dict[str, Any] = {}
        if record := TeacherRecord.read(config.out, names):
            record.check(config.out)
        else:
            models = _load(names, task, config)
            record = TeacherRecord.of(task, models)
        self.record = record
        config = _with_data(task, config, given, record.data, names[0])
        super().__init__(task, config, given=given, **others)
        self.task.teachers = [models[name] for name in self.options.teachers] if models else []
        self.task.backward = models.get(self.options.backward)

    def prepare(self) -> None:
        """As of any session. Teachers that were there at each step before must still be the same.

        Raises:
            UserError: one of them is another model now.
        """
        super().prepare()
        if self.task.teaching is not None:
            before = self.resolved.measured.setdefault("teachers", self.record.fingerprints)
            for name, now in self.record.fingerprints.items():
                _check_same(self.config.out, name, before.get(name, now), now)

    def _read(self) -> Any:
        return self.task.taught(self.options, self._written if self.writes else None)

    def _written(self, rows: Iterator[Mapping[str, Any]]) -> Path:
        file = self.folder.path / WRITTEN
        if not file.exists():
            first = list(islice(rows, 1))  # bad input is an error before there is a folder
            self.folder.make()
            record = str(self.folder.path / TEACHERS)  # no WRITTEN without it: the inner context ends first
            with output(str(file), "--out") as opened, output(record, "--out") as about:
                opened.writelines(map(json_line, chain(first, rows)))
                yaml.safe_dump(asdict(self.record), about, sort_keys=False, allow_unicode=True)
        return file


def _load(names: Sequence[str], task: type[Task], config: Any) -> dict[str, Any]:
    """The models by name, on one device."""
    device = "cpu" if any(map(is_exported, names)) else str(pick_device(config.train.device))
    models = {}
    for name in names:
        try:
            models[name] = load(name, device)
        except UserError as error:
            if "teacher_weight" not in task.distilled_by or not Path(config.out, checkpoint.CONFIG).exists():
                raise
            why = f"a {task.name} run learns from its teachers at every step, also when it is resumed"
            raise UserError(f"{error} ({why})") from error
        if (found := models[name].info.task) != task.name:
            raise UserError(f"{name}: is a {found or 'Python'} model, not a {task.name} one")
    return models


def _with_data(task: type[Task], config: Any, given: Collection[str], known: dict[str, Any], name: str) -> Any:
    """The options with the data that a teacher was trained on, unless other data is named."""
    if any(task(config).sources(config.data)):
        return config
    own = {n: value for n, value in flat(to_dict(config.data)).items() if n in given}
    data: Any = from_dict(task.Data, {**upgraded(known), **own}, "", [])
    if not any(task(config).sources(data)):
        raise UserError(f"{name}: has no record of its training data: name it as for `gen train {task.name}`")
    return replace(config, data=data)


def check_files(data: Any) -> None:
    """Raises `UserError` if the data is streamed: what teachers write of it would have to fit on the disk."""
    if data.streams:
        raise UserError("gen distill does not go with data that is streamed: write it to files")


def distill(
    teachers: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    out: str | PathLike[str] = "",
    callbacks: Callbacks = (),
    **options: Any,
) -> Run:
    """Distills models into one: `gen distill TEACHER…` with its options as keyword arguments.

    Args:
        teachers: runs or models of one task; several are an ensemble.
        out: the run folder, as for `gen.train`.
        callbacks: functions, or one, called with an `Event` every 50 steps and after every validation.
        options: the options of the command line, with underscores. Data that is not named is the first teacher's.

    Raises:
        ConfigError, UserError: as for `gen.train`; and teachers of different tasks or vocabularies.

    Example::

        run = gen.distill(["runs/a", "runs/b"], out="runs/student", budget="25m")
        print(run.metrics, run.model("A dog runs."))
    """
    names = [fspath(name) for name in ([teachers] if isinstance(teachers, str | PathLike) else teachers)]
    if not names:
        raise ConfigError(DistillOptions().errors())
    backward = [fspath(options["backward"])] if options.get("backward") else []
    record = TeacherRecord.read(fspath(out), names + backward)
    task = find_task(record.task if record else load(names[0]).info.task)
    given = {**options, "teachers": names}
    return run_session(Distillation, task, "gen.distill(", given, out, callbacks)
