"""Dataclasses ↔ the command line ↔ YAML. Every mistake is reported at once, by the option's name."""

from __future__ import annotations

import difflib
import re
from argparse import ArgumentParser
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass
from typing import Annotated, Any, TypeVar

import yaml

from gen.base.errors import ConfigError, UserError
from gen.base.fields import Arg, Option, build, convert, describe, flag, options_of
from gen.base.parser import make_parser

T = TypeVar("T")

Words = Annotated[str, Arg("3m | 20 epochs | 5000 steps", words=True)]
"""A string option that may be typed as several words: ``--budget 20 epochs``."""

Renamed = Mapping[str, "str | tuple[str, Callable[[Any], Any]] | None"]
"""Old name of an option or of a group → its new name, or (new name, function of the old value). The two names may
be the same: ``{"byte_fallback": ("byte_fallback", lambda value: value in (True, "yes"))}``. None: a file may have
the option, which is ignored by commands that have none of that name."""

LIST_OPTIONS = ["--list-options"]
"""Words that make `parse_given` raise `OptionList`: how tab completion learns a command's options."""

LARGEST_YAML = 1 << 20
"""Bytes of a configuration file."""


class OptionList(Exception):
    """The options of a command, as an answer to `LIST_OPTIONS`."""

    def __init__(self, options: Sequence[Option]) -> None:
        self.options = options
        super().__init__()


@dataclass(frozen=True)
class Budget:
    """How long to train: ``amount`` of "seconds", "epochs" or "steps".

    Example:
        >>> Budget.parse("3m")
        Budget(amount=180.0, unit='seconds')
    """

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str, option: str = "--budget") -> Budget:
        """Reads "90s", "3m", "1.5h", "20 epochs", "5000 steps", given with ``option``.

        Raises:
            ConfigError: it is none of these.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]+)\s*", text.lower())
        units = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
        if match and float(match[1]) > 0:
            amount, unit = float(match[1]), match[2]
            if unit in ("epochs", "epoch", "steps", "step"):
                return cls(amount, unit.rstrip("s") + "s")
            if (unit if unit in units else unit.rstrip("s")) in units:
                return cls(amount * units[unit if unit in units else unit.rstrip("s")], "seconds")
        raise ConfigError(
            [f"{option} {text!r}: give a time or an amount, such as 90s, 3m, 2h, 20 epochs, 5000 steps"]
        )


def parse_command(config: type[T], argv: Sequence[str], command: str, **settings: Any) -> T:
    """`parse_given` without the names of what was given."""
    return parse_given(config, argv, command, **settings)[0]


def parse_given(
    config: type[T],
    argv: Sequence[str],
    command: str,
    *,
    repeat: bool = False,
    hidden: Collection[str] = (),
    renamed: Renamed | None = None,
    common: Sequence[str] | None = None,
) -> tuple[T, frozenset[str]]:
    """Reads a dataclass, its nested dataclasses flattened, from command-line words.

    ``--config FILE`` takes what it does not find there from a YAML file. A field of type bool is an option
    without a value: ``--flag``, or ``--no-flag`` where it is on by default; both are always accepted.

    Args:
        config: a dataclass; its docstrings are the help. A nested one may have a class attribute ``TITLE``, the
            heading of its options.
        argv: the words after the command.
        command: what the user typed before them, for messages.
        repeat: options of several values are given one at a time (``--stop a --stop b``), so that they
            never swallow a positional word after them. Without it also together: ``--stop a b``.
        hidden: fields that do not apply to this command: not in its help, refused where they are given. They
            keep their defaults.
        renamed: options that had another name. A YAML file may use the old one; on the command line the error
            names the new one.
        common: fields that come first in the help. None: those in the class attribute ``COMMON``, if any.

    Returns:
        The dataclass, and the names of the fields that were given: on the command line, whatever the value, or
        in the YAML file with a value other than the default (a run's own file names every option).

    Raises:
        ConfigError: unknown options (with the nearest known one) and values that do not fit, all of them.
        SystemExit: --help.
        OptionList: ``argv`` is `LIST_OPTIONS`.
    """
    options = [option for option in options_of(config) if option.name not in hidden]
    if list(argv) == LIST_OPTIONS:
        raise OptionList(options)
    end = list(argv).index("--") if "--" in argv else len(argv)
    words, after = [_with_dashes(word) for word in argv[:end]], list(argv[end + 1 :])
    words = _repeat_numbers(options, words)
    if {"-h", "--help"} & set(words):
        make_parser(config, options, command, repeat, common).print_help()
        raise SystemExit(0)
    if errors := _unknown_options(words, options, command, hidden, renamed or {}):
        raise ConfigError(errors)
    parser = make_parser(config, [option for option in options if option.flags], command, repeat)
    typed, unexpected = _match(words, after, options, parser)
    values: dict[str, Any] = {}
    if path := typed.pop("config", ""):
        values = _checked(options_of(config), _load_yaml(path), path, errors, renamed or {}, hidden, command)
    given = set(typed)
    for option in options:
        if option.name in values and values[option.name] != option.default:
            given.add(option.name)
        if option.name in typed:
            values[option.name] = _from_words(option, typed[option.name], errors)
        elif option.default is MISSING and option.name not in values:
            values[option.name] = ()
            if not option.many:
                errors.append(f"{option.metavar} is missing (`{command} --help` explains)")
    errors += [f"unexpected {word!r} (`{command} --help` explains)" for word in unexpected]
    if errors:
        raise ConfigError(errors)
    return build(config, values), frozenset(given)


def option_names(config: type, hidden: Collection[str] = ()) -> list[str]:
    """Every option of a dataclass as typed: ``--learning-rate``, and ``--no-json`` for a bool."""
    found = {name for o in options_of(config) if o.name not in hidden for name in o.flags if name[:2] == "--"}
    return sorted({"--config", *found})


def _with_dashes(word: str) -> str:
    """``--learning_rate=X`` as ``--learning-rate=X``."""
    if not word.startswith("--"):
        return word
    name, mark, value = word.partition("=")
    return name.replace("_", "-") + mark + value


def _match(
    words: list[str], after: list[str], options: Sequence[Option], parser: ArgumentParser
) -> tuple[dict[str, Any], list[str]]:
    """What was typed for which field, still as text, and the words that are for none.

    Args:
        words: to parse.
        after: those behind "--", which are no options.
        options: of the command.
        parser: of the options with a name; argparse loses positional words where options lie between them.
    """
    namespace, rest = parser.parse_known_args(words)
    typed = vars(namespace)
    unexpected = [word for word in rest if word.startswith("-") and word != "-"]
    places = [word for word in rest if word not in unexpected] + after
    for option in options:
        if option.arg.positional and places:
            typed[option.name] = places if option.many else places[0]
            places = [] if option.many else places[1:]
    return typed, unexpected + places


NUMBERS = "a number, or several"


def _repeat_numbers(options: Sequence[Option], words: list[str]) -> list[str]:
    """``--temperature 0.3 0.8 FILE`` → ``--temperature=0.3 --temperature=0.8 FILE``: an option of several numbers
    takes the numbers after it and nothing else."""
    several = {name for o in options if o.hint == tuple[float, ...] for name in o.flags}
    made: list[str] = []
    last = ""
    for word in words:
        if word in several:
            last, fresh = word, True
            continue
        if last and (fresh or _is_number(word)):
            made.append(f"{last}={word}")
            fresh = False
            continue
        last = ""
        made.append(word)
    if last and fresh:
        raise ConfigError([f"{last} needs {NUMBERS}"])
    return made


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _unknown_options(
    words: list[str], options: Sequence[Option], command: str, hidden: Collection[str], renamed: Renamed
) -> list[str]:
    """A line per option that the command does not have."""
    errors, known = [], {"--config", *(name for option in options for name in option.flags)}
    for word in words:
        name = word.split("=")[0]
        if not name.startswith("--") or name in known:
            continue
        field = name[2:].replace("-", "_")
        new = renamed.get(field) or ""
        new = flag(new if isinstance(new, str) else new[0])
        near = difflib.get_close_matches(name, known, 1, 0.5)
        if {field, field.removeprefix("no_")} & set(hidden):
            errors.append(f"unknown option {name} (does not apply to {command.split()[-1]})")
        elif new in known:
            errors.append(f"unknown option {name}: it is {new} now (`{command} --help` explains)")
        else:
            hint = f"; did you mean {near[0]}?" if near else ""
            errors.append(f"unknown option {name}{hint} (`{command} --help` lists them)")
    return errors


def _from_words(option: Option, value: Any, errors: list[str]) -> Any:
    """What was typed for an option as its type has it; what does not fit is added to ``errors``."""
    if option.arg.words:
        value = " ".join(value)
    found: list[Any] = []
    for each in value if isinstance(value, list) else [value]:
        try:
            found.append(convert([each] if option.many else each, option.hint, text=True))
        except ValueError:
            name = option.metavar if option.arg.positional else option.flag
            if option.choices:
                near = difflib.get_close_matches(str(each), map(str, option.choices), 1, 0.5)
                hint = f"; did you mean {near[0]}?" if near else ""
                errors.append(f"{name} must be {describe(option.hint)}, not {each!r}{hint}")
            else:
                what = NUMBERS if option.hint == tuple[float, ...] else option.metavar
                errors.append(f"{name} needs {what}, not {each!r}")
    if not option.many:
        return found[0] if found else None
    return tuple(x for each in found for x in (each if isinstance(each, tuple) else (each,)))


class _Loader(yaml.SafeLoader):
    """YAML without aliases, a few of which can stand for more values than fit into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(problem="aliases (*name) are not allowed here")
        return super().compose_node(parent, index)


def _load_yaml(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_YAML + 1)
        if len(content) > LARGEST_YAML:
            raise UserError(f"{path}: is larger than {LARGEST_YAML >> 20} MB: this is no file of options")
        values = yaml.load(content.decode(), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    return {} if values is None else values


def read_yaml(config: type[T], path: str, renamed: Renamed | None = None) -> T:
    """A dataclass from a YAML file. Raises `ConfigError` with every unknown name in it."""
    errors: list[str] = []
    result = from_dict(config, _load_yaml(path), path, errors, renamed)
    if errors:
        raise ConfigError(errors)
    return result


def from_dict(config: type[T], values: Any, where: str, errors: list[str], renamed: Renamed | None = None) -> T:
    """A dataclass from plain values, nested or flat; what does not fit is added to ``errors``.

    Args:
        config: the dataclass.
        values: ``{"train": {"budget": "3m"}}`` or ``{"budget": "3m"}``.
        where: what the values are from, for messages; may be empty.
        errors: gets a line per mistake.
        renamed: names that were others.

    Raises:
        ConfigError: a field without a default is missing.
    """
    options = options_of(config)
    found = _checked(options, values, where, errors, renamed or {})
    missing = [o.name for o in options if o.default is MISSING and o.name not in found]
    if missing:
        prefix = f"{where}: " if where else ""
        raise ConfigError([*errors, *(f"{prefix}{name} is missing" for name in missing)])
    return build(config, found)


def _checked(
    options: Sequence[Option],
    values: Any,
    where: str,
    errors: list[str],
    renamed: Renamed,
    hidden: Collection[str] = (),
    command: str = "",
) -> dict[str, Any]:
    """Values by the fields' own names, from values that are nested or not; mistakes are added to ``errors``."""
    prefix = f"{where}: " if where else ""
    if not isinstance(values, dict):
        errors.append(f"{prefix}expected names and values, not {type(values).__name__}")
        return {}
    known = {option.name: option for option in options}
    groups = {name for option in options for name in option.path}
    found: dict[str, Any] = {}
    for old, value in values.items():
        new = renamed.get(str(old), str(old))
        if new is None and old not in known:
            continue
        new = str(old) if new is None else new
        name, change = (new, None) if isinstance(new, str) else new
        if old in known and name != old:  # here it is no old name
            name, change = old, None
        if name in groups and (isinstance(value, dict) or name not in known):
            nested = {} if value is None else value
            found |= _checked(options, nested, f"{prefix}{old}", errors, renamed, hidden, command)
        elif name not in known and value == {}:
            pass  # a group without options
        elif name not in known:
            near = difflib.get_close_matches(name, sorted({*known, *groups}), 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            errors.append(f"{prefix}unknown {'name' if prefix else 'option'} {old!r}{hint}")
        else:
            try:
                made = convert(change(value) if change else value, known[name].hint, text=False)
            except (ValueError, TypeError, KeyError):
                errors.append(f"{prefix}{old}: {value!r} does not fit; give {describe(known[name].hint)}")
                continue
            if name not in hidden:
                found[name] = made
            elif made != known[name].default:  # a file written for another command may name it
                errors.append(f"{prefix}{old} does not apply to {command.split()[-1]}")
    return found


def range_errors(options: Any, sizes: Sequence[str] = (), shares: Sequence[str] = ()) -> list[str]:
    """What is out of range among an object's options, a line each; None is left to be chosen.

    Args:
        options: a dataclass.
        sizes: names of those that must be at least 1.
        shares: names of those that must be at least 0 and below 1.
    """
    found = []
    for name in (*sizes, *shares):
        value = getattr(options, name)
        option = flag(name)
        if value is not None and name in sizes and value < 1:
            found.append(f"{option} must be at least 1, not {value}")
        if value is not None and name in shares and not 0 <= value < 1:
            found.append(f"{option} must be at least 0 and below 1, not {value}")
    return found


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain nested values that YAML and JSON know."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return plain(asdict(config))


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """Nested options by their own names alone, which are all different.

    Example:
        >>> flat({"train": {"budget": "3m"}, "seed": 1})
        {'budget': '3m', 'seed': 1}
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value) if isinstance(value, dict) else {name: value}
    return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two nested configurations, as "--option old → new"."""
    found = []
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b)
        elif a != b:
            found.append(f"{flag(name)} {_show(a)} → {_show(b)}")
    return found


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
