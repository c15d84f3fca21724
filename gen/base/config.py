"""Dataclasses ↔ the command line ↔ YAML. Every mistake is reported at once, by the option's name."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass
from typing import Annotated, Any, TypeVar

from gen.base.errors import ConfigError, flag
from gen.base.fields import Arg, build, convert, describe, options_of
from gen.base.lines import MAX_LINE_BYTES, expand_braces, set_max_line_bytes
from gen.base.parser import from_words, make_parser, near, repeat_numbers, unknown_options
from gen.base.yaml_files import read_options

T = TypeVar("T")

Words = Annotated[str, Arg("3m | 20 epochs | 5000 steps", words=True)]
"""A string option that may be typed as several words: ``--budget 20 epochs``."""

Renamed = Mapping[str, "str | tuple[str, Callable[[Any], Any]] | None"]
"""Old name of an option or of a group → its new name, or (new name, function of the old value). The two names may
be the same: ``{"byte_fallback": ("byte_fallback", lambda value: value in (True, "yes"))}``. None: a file may have
the option, which is ignored by commands that have none of that name."""

LIST_OPTIONS = ["--list-options"]
"""Words that make `parse_given` raise `OptionList`: how tab completion learns a command's options."""

LARGEST_SIZE = 10**9
"""Of sizes and counts in options: larger ones fit into no memory."""


class OptionList(Exception):
    """Its argument is the parser of a command, each of its actions with an ``option``; see `LIST_OPTIONS`."""


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
        units = r"(s|m|h|(sec|second|min|minute|hour|epoch|step)s?)"
        match = re.fullmatch(rf"(\d+(?:\.\d+)?|\.\d+)\s*{units}", text.strip().lower())
        if match and 0 < float(match[1]) < math.inf:
            amount, unit = float(match[1]), match[3] or match[2]
            if unit in ("epoch", "step"):
                return cls(amount, f"{unit}s")
            return cls(amount * {"s": 1, "m": 60, "h": 3600}[unit[0]], "seconds")
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
        raise OptionList(make_parser(config, options, command, repeat, common))
    end = list(argv).index("--") if "--" in argv else len(argv)
    words = [re.sub("^--[^=]+", lambda match: match[0].replace("_", "-"), word) for word in argv[:end]]
    if {"-h", "--help"} & set(words):
        make_parser(config, options, command, repeat, common).print_help()
        raise SystemExit(0)
    if errors := unknown_options(words, options, command, hidden, renamed or {}):
        raise ConfigError(errors)
    # argparse loses positional words where options lie between them: its parser does not know them
    parser = make_parser(config, [option for option in options if option.flags], command, repeat)
    namespace, rest = parser.parse_known_args(repeat_numbers(options, words))
    typed = vars(namespace)
    unexpected = [word for word in rest if word.startswith("-") and word != "-"]
    places = [word for word in rest if word not in unexpected] + list(argv[end + 1 :])
    for option in options:
        if option.arg.positional and places:
            typed[option.name] = places if option.many else places[0]
            places = [] if option.many else places[1:]
    path = typed.pop("config", "")
    set_max_line_bytes(_number_of_bytes(typed.pop("max_line_bytes", str(MAX_LINE_BYTES)), errors))
    values = _checked(config, _chosen(read_options(path)), path, errors, renamed or {}) if path else {}
    given = set(typed) | {o.name for o in options if values.get(o.name, o.default) != o.default}
    for option in options_of(config):
        if option.name in hidden and values.pop(option.name, option.default) != option.default:
            errors.append(f"{path}: {option.name} does not apply to {command.split()[-1]}")
        elif option.name in typed:
            values[option.name] = from_words(option, typed[option.name], errors)
        elif option.default is MISSING and option.name not in values:
            values[option.name] = ()
            if not option.many:
                errors.append(f"{option.metavar} is missing (`{command} --help` explains)")
    for word in unexpected + places:
        is_text = word in unexpected and " " in word
        advice = "put -- before texts that begin with -" if is_text else f"`{command} --help` explains"
        errors.append(f"unexpected {word!r} ({advice})")
    if errors:
        raise ConfigError(errors)
    return build(config, values), frozenset(given)


def _number_of_bytes(text: str, errors: list[str]) -> int:
    if re.fullmatch("[0-9]{1,12}", text) and int(text):
        return int(text)
    errors.append(f"--max-line-bytes must be a number from 1 to 10^12, not {text!r}")
    return MAX_LINE_BYTES


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
    found = _checked(config, values, where, errors, renamed or {})
    missing = [o.name for o in options_of(config) if o.default is MISSING and o.name not in found]
    if missing:
        raise ConfigError([*errors, *(f"{where}: {name} is missing".removeprefix(": ") for name in missing)])
    return build(config, found)


def _checked(config: type, values: Any, where: str, errors: list[str], renamed: Renamed) -> dict[str, Any]:
    """Values by the fields' own names, from values that are nested or not; mistakes are added to ``errors``."""
    prefix = f"{where}: " if where else ""
    if not isinstance(values, dict):
        errors.append(f"{prefix}expected names and values, not {type(values).__name__}")
        return {}
    known = {option.name: option for option in options_of(config)}
    groups = {name for option in known.values() for name in option.path}
    found: dict[str, Any] = {}
    for old, value in values.items():
        new = renamed.get(str(old), str(old)) or (str(old) if old in known else None)
        if new is None:
            continue
        name, change = (new, None) if isinstance(new, str) else new
        if old in known and name != old:  # here it is no old name
            name, change = old, None
        if name in groups and (isinstance(value, dict) or name not in known):
            found |= _checked(config, {} if value is None else value, f"{prefix}{old}", errors, renamed)
        elif name in known:
            try:
                found[name] = convert(change(value) if change else value, known[name].hint, text=False)
            except (ValueError, TypeError, KeyError):
                errors.append(f"{prefix}{old}: {value!r} does not fit; give {describe(known[name].hint)}")
        elif value != {}:  # a group without options
            kind = "name" if where else "option"
            errors.append(f"{prefix}unknown {kind} {old!r}{near(name, {*known, *groups}, repr)}")
    return found


def range_errors(options: Any, sizes: Sequence[str] = (), shares: Sequence[str] = ()) -> list[str]:
    """What is out of range among an object's options, a line each; None is left to be chosen.

    Args:
        options: a dataclass.
        sizes: names of those that must be at least 1, and at most `LARGEST_SIZE`.
        shares: names of those that must be at least 0 and below 1.
    """
    values = {name: value for name, value in vars(options).items() if value is not None}
    small = [name for name in sizes if values.get(name, 1) < 1]
    large = [name for name in sizes if values.get(name, 1) > LARGEST_SIZE]
    outside = [name for name in shares if not 0 <= values.get(name, 0) < 1]
    return [
        *(f"{flag(name)} must be at least 1, not {values[name]}" for name in small),
        *(f"{flag(name)} must be at most {LARGEST_SIZE:,}, not {values[name]}" for name in large),
        *(f"{flag(name)} must be at least 0 and below 1, not {values[name]}" for name in outside),
    ]


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
    """What changed between two configurations, nested or flat, as "--option old → new"."""
    pairs = {name: [each.get(name) for each in map(flat, (old, new))] for name in sorted({*flat(old), *flat(new)})}
    return [f"{flag(name)} {_show(a)} → {_show(b)}" for name, (a, b) in pairs.items() if not _same(a, b)]


def _same(a: Any, b: Any) -> bool:
    """Whether values mean the same: a file may have several names, and some shells expand braces before a command
    sees them."""
    if isinstance(a, list) and isinstance(b, list):
        a, b = ([y for x in each for y in (expand_braces(x) if isinstance(x, str) else [x])] for each in (a, b))
        return len(a) == len(b) and all(map(_same, a, b))
    if a == b or not (isinstance(a, str) and isinstance(b, str)):
        return bool(a == b)
    if a.partition("=")[0] == b.partition("=")[0]:  # LABEL=FILE
        a, b = a.partition("=")[2] or a, b.partition("=")[2] or b
    try:
        return os.path.samefile(a, b)
    except (OSError, ValueError):
        return False


def _chosen(values: Any) -> Any:
    """The options of the ``resolved.yaml`` of a run, or those of any other file."""
    is_record = isinstance(values, dict) and values.keys() == {"options", "reasons", "measured"}
    return values["options"] if is_record else values


_SHOWN = 300
"""Most characters of a value in a message."""


def _show(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str("not given" if value is None else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
