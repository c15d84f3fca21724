"""The options of a training: a task's own and those of every training, from Python, YAML and saved models."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any

from gen.base.config import flat, from_dict
from gen.base.errors import ConfigError, UserError, flag, notify
from gen.base.fields import Arg, options_of
from gen.models.transfer import DROPOUT
from gen.training.interfaces import NoOptions
from gen.training.options import TrainOptions
from gen.training.task import Task


def _either(yes: Any, no: Any) -> Callable[[Any], Any]:
    """A function that replaces "yes" and "no"."""
    return lambda value: yes if value == "yes" else no if value == "no" else value


RENAMED: dict[str, Any] = {
    "one_way": ("bidirectional", lambda value: not value),
    "tie_embeddings": ("tie", lambda value: "decoder" if value else "none"),
    "tie": ("tie", _either("decoder", "none")),
    "byte_fallback": ("byte_fallback", _either(True, False)),
}
"""Renamed options: old name → (new name, function from the old value to the new one)."""

RENAMED_GROUPS: dict[str, Any] = {"text": "data", "pairs": "data", "reward": "extra", "batch_size": None}
"""Renamed groups of options in files of older versions: old name → new name; None: ignored."""

PASSING = frozenset({"out", "device", "save_every", "track"})
"""Options that may differ when a run is resumed: they change no result."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a model."""

    data: Any = field(default_factory=NoOptions)
    model: Any = field(default_factory=NoOptions)
    extra: Any = field(default_factory=NoOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    out: Annotated[str, Arg(required=True)] = ""
    """The run folder. Repeating the command resumes the run."""

    def __post_init__(self) -> None:
        # A shell leaves the ~ of --out=~/runs alone, and so does Python: a folder called ~ is nobody's wish.
        object.__setattr__(self, "out", os.path.expanduser(self.out))


def config_class(task: type[Task]) -> type[TrainConfig]:
    """The dataclass of all options of a task's training."""
    made = with_groups(TrainConfig, data=task.Data, model=task.Sizes, extra=task.Extra)
    made.__doc__ = (task.__doc__ or "Train a model.").strip()
    return made


def with_groups(config: type, **groups: type) -> Any:
    """A subclass of a dataclass with groups of options, dataclasses themselves, as fields."""
    added = [(name, kind, field(default_factory=kind)) for name, kind in groups.items()]
    made = make_dataclass(config.__name__, added, bases=(config,), frozen=True)
    made.__doc__ = config.__doc__
    return made


def errors_in(*groups: Any) -> list[str]:
    """The errors in groups of options, which may have a method ``errors()``, one line each."""
    return [line for group in groups if hasattr(group, "errors") for line in group.errors()]


def errors_of(task: Task, config: TrainConfig, given: Collection[str]) -> list[str]:
    """The errors in a training's options, one line each.

    Args:
        task: the task that checks its own options.
        config: the options.
        given: names of the options that the user gave, even if with their default value.
    """
    found = errors_in(config.data, config.model, config.extra, config.train)
    free = task.changeable | DROPOUT
    sizes = [f.name for f in fields(config.model) if f.name in given and f.name not in free]
    sizes += ["vocab_size"] if "vocab_size" in given and not config.train.new_vocabulary else []
    if config.train.init_from and sizes:
        flags = ", ".join(map(flag, sizes))
        found.append(f"{flags}: cannot be set with --init-from, which takes the model's own")
    names = [metric.name for metric in task.metrics]
    if config.train.best is not None and config.train.best not in names:
        found.append(f"--best {config.train.best}: must be one of {', '.join(names)}")
    return found + task.check(config)


def make_config(
    task: type[Task], options: Mapping[str, Any], kind: type[TrainConfig] | None = None
) -> TrainConfig:
    """The options of a training from keyword arguments, named as on the command line but with underscores.

    Where several values are allowed, a string is one value. Lists become tuples, paths strings.
    ``kind``: their dataclass; None: `config_class` of the task.

    Raises:
        ConfigError: unknown names (with the nearest known one) and invalid values, all at once.
    """
    errors: list[str] = []
    config = from_dict(kind or config_class(task), dict(options), "", errors, RENAMED)
    if errors:
        raise ConfigError(errors)
    return config


def flags_of_data(held_out: Any) -> str:
    """The options of a `HeldOut` that name data, for messages: its ``NAMED``, or all that are empty."""
    empty = (flag(option.name) for option in options_of(held_out) if option.default in ("", ()))
    return getattr(held_out, "NAMED", "") or " and ".join(empty)


def recorded(task: type[Task], model: Any) -> TrainConfig:
    """The options that a model was trained with, as recorded in its folder; defaults for the others.

    Raises:
        UserError: the training data is not recorded.
    """
    others = ("reasons", "measured", "versions")  # about options, by the same names
    groups = {k: v for k, v in model.info.training.items() if isinstance(v, dict) and k not in others}
    options = upgraded(flat(groups))
    known = {option.name for option in options_of(config_class(task))}
    kept = {name: value for name, value in options.items() if name in known}
    if not kept:
        flags = flags_of_data(task.HeldOut)
        raise UserError(
            "the model has no record of its training data" + (f": name some with {flags}" if flags else "")
        )
    return from_dict(config_class(task), kept, "", [])


SPLIT = 2
"""The way to hold out examples, recorded with a model. 1, not recorded: by the number of the row."""


def check_split(model: Any, held_out_by: str) -> None:
    """Tells the user if the part that is held out today is not the one that was held out in the model's training.

    Args:
        model: whose record says how its validation part was chosen.
        held_out_by: options that name other data, for the message.
    """
    if model.info.training.get("split") != SPLIT:
        notify(
            "an older version trained the model and held out other examples: some of those evaluated on now were "
            f"trained on; name others with {held_out_by}"
        )


def upgraded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Renames options of older versions; see `RENAMED`."""
    made = dict(options)
    for old, (new, change) in RENAMED.items():
        if old in made:
            made[new] = change(made.pop(old))
    return made


def identity(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that must be equal for a run to be resumed: flat, by their current names, without `PASSING`."""
    return {name: value for name, value in upgraded(flat(dict(options))).items() if name not in PASSING}
