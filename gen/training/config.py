"""The options of a training: a task's own and those of every training, from Python, YAML and saved models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from os import PathLike, fspath
from typing import Annotated, Any, get_origin, get_type_hints

from gen.base.config import flat, from_dict
from gen.base.errors import ConfigError
from gen.base.fields import Arg
from gen.training.options import TrainOptions
from gen.training.task import NoOptions, Task

RENAMED: dict[str, Any] = {
    "one_way": ("bidirectional", lambda value: not value),
    "tie_embeddings": ("tie", lambda value: "decoder" if value else "none"),
}
"""Options that had another name: old name → new name, and the old value as the new one."""

PASSING = frozenset({"out", "device", "save_every", "track"})
"""Options that may differ when the same command goes on: they change no result."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a model."""

    data: Any = field(default_factory=NoOptions)
    model: Any = field(default_factory=NoOptions)
    extra: Any = field(default_factory=NoOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    out: Annotated[str, Arg(required=True)] = ""
    """The run folder. The same command again goes on from where it stopped."""


def config_class(task: type[Task]) -> type[TrainConfig]:
    """The dataclass of all options of a task's training."""
    groups = {"data": task.Data, "model": task.Sizes, "extra": task.Extra}
    made = make_dataclass(
        f"{task.__name__}Config",
        [(name, kind, field(default_factory=kind)) for name, kind in groups.items()],
        bases=(TrainConfig,),
        frozen=True,
    )
    made.__doc__ = (task.__doc__ or "Train a model.").strip()
    return made


def errors_of(task: Task, config: TrainConfig, given: Collection[str]) -> list[str]:
    """Everything that is wrong with a training's options, one line each.

    Args:
        task: whose options they are.
        config: the options.
        given: names of those that the user has given, whether they differ from the default or not.
    """
    groups = (config.data, config.model, config.extra, config.train)
    found = [line for group in groups if hasattr(group, "errors") for line in group.errors()]
    sizes = [f.name for f in fields(config.model) if f.name in given and f.name not in task.changeable]
    if config.train.init_from and sizes:
        flags = ", ".join("--" + name.replace("_", "-") for name in sizes)
        found.append(f"{flags}: with --init-from the model has the sizes that it has")
    return found + task.check(config)


def make_config(task: type[Task], options: Mapping[str, Any]) -> TrainConfig:
    """The options of a training from keyword arguments: the names of the command line, with underscores.

    A string where several are allowed is one of them; lists become tuples, paths strings.

    Raises:
        ConfigError: unknown names, with the nearest known one, and values that do not fit, all of them.
    """
    made = config_class(task)
    known = _names(made)
    errors = []
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1, 0.5)
            errors.append(f"unknown option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    nested = _nested(made, {n: _plain(v, known[n]) for n, v in options.items() if n in known})
    config = from_dict(made, nested, "", errors)
    if errors:
        raise ConfigError([line.removeprefix(": ") for line in errors])
    return config


def recorded(task: type[Task], model: Any) -> TrainConfig:
    """The options with which a model was trained, as far as it has them recorded.

    Raises:
        ConfigError: none are recorded.
    """
    options = upgraded(flat({k: v for k, v in model.info.training.items() if isinstance(v, dict)}))
    known = _names(config_class(task))
    kept = {name: _plain(value, known[name]) for name, value in options.items() if name in known}
    if not kept:
        raise ConfigError(["the model has no record of its training: name the data to judge it by"])
    return from_dict(config_class(task), _nested(config_class(task), kept), "", [])


def upgraded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as older versions named them → as they are named today."""
    made = dict(options)
    for old, (new, change) in RENAMED.items():
        if old in made:
            made[new] = change(made.pop(old))
    if made.get("tie") in ("yes", "no"):
        made["tie"] = "decoder" if made["tie"] == "yes" else "none"
    if isinstance(made.get("byte_fallback"), str):
        made["byte_fallback"] = made["byte_fallback"] == "yes"
    return made


def identity(options: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the run that it is: flat options, old names renewed, without those that may change."""
    return {name: value for name, value in upgraded(flat(dict(options))).items() if name not in PASSING}


def _names(made: type) -> dict[str, Any]:
    """Every option of a nested dataclass: name → type."""
    hints, found = get_type_hints(made), dict[str, Any]()
    for f in fields(made):
        kind = f.default_factory if isinstance(f.default_factory, type) else None
        found |= _names(kind) if kind is not None and is_dataclass(kind) else {f.name: hints[f.name]}
    return found


def _nested(made: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name → in the groups of a nested dataclass."""
    found: dict[str, Any] = {}
    for f in fields(made):
        kind = f.default_factory if isinstance(f.default_factory, type) else None
        if kind is not None and is_dataclass(kind):
            found[f.name] = _nested(kind, options)
        elif f.name in options:
            found[f.name] = options[f.name]
    return found


def _plain(value: Any, hint: Any) -> Any:
    """A value as an option holds it."""
    value = fspath(value) if isinstance(value, PathLike) else value
    if get_origin(hint) is tuple:
        several = (value,) if isinstance(value, str) else value
        return tuple(fspath(v) if isinstance(v, PathLike) else v for v in several)
    return value
