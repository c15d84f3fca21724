"""Dataclasses ↔ the command line ↔ YAML. Every mistake is reported at once, by the option's name."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
import yaml

from gen.base.errors import ConfigError, UserError

T = TypeVar("T")

Words = Annotated[
    str,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="3m | 20 epochs | 5000 steps",
        instance_from_str=lambda words: " ".join(words),
        is_instance=lambda x: isinstance(x, str),
        str_from_instance=lambda x: x.split(),
    ),
]
"""A string option that may be typed as several words: ``--budget 20 epochs``."""


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


def parse_command(config: type[T], argv: list[str], command: str, *, repeat: bool = False) -> T:
    """Reads a dataclass, its nested dataclasses flattened, from command-line words.

    ``--config FILE`` takes what it does not find there from a YAML file.

    Args:
        config: a dataclass; its docstrings are the help.
        argv: the words after the command.
        command: what the user typed before them, for messages.
        repeat: options of several values are given one at a time (``--stop a --stop b``), so that they
            never swallow a positional word after them.

    Raises:
        ConfigError: unknown options (with the nearest known one) and values that do not fit, all of them.
        SystemExit: --help.
    """
    argv, default = _take_config_file(config, argv)
    known = option_names(config)
    words = _join_numbers(config, [_with_dashes(word) for word in argv])
    errors = []
    for word in words:
        name = word.split("=")[0]
        if name.startswith("--") and name not in known and name != "--help":
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            errors.append(f"unknown option {name}{hint} (`{command} --help` lists them)")
    if errors:
        raise ConfigError(errors)
    markers: tuple[Any, ...] = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    markers += (tyro.conf.UseAppendAction,) if repeat else ()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                config,
                args=words,
                prog=command,
                description=config.__doc__,
                default=default,
                config=markers,
                registry=_registry(),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError([f"{_plain(said.getvalue())} (`{command} --help` explains)"]) from None


def option_names(config: type) -> list[str]:
    """Every option of a dataclass as typed: ``--learning-rate``."""
    names = ["--config"]
    for field in fields(config):
        kind = field.default_factory if isinstance(field.default_factory, type) else None
        if kind is not None and is_dataclass(kind):
            names += option_names(kind)
        else:
            names.append("--" + field.name.replace("_", "-"))
    return sorted(set(names))


def _with_dashes(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, mark, value = word.partition("=")
    return name.replace("_", "-") + mark + value


def _number_options(config: type) -> set[str]:
    """The options that take several numbers."""
    names: set[str] = set()
    for field in fields(config):
        kind = field.default_factory if isinstance(field.default_factory, type) else None
        if kind is not None and is_dataclass(kind):
            names |= _number_options(kind)
        elif get_type_hints(config)[field.name] == tuple[float, ...]:
            names.add("--" + field.name.replace("_", "-"))
    return names


def _join_numbers(config: type, words: list[str]) -> list[str]:
    """``RUN --temperature 0.3 0.8 FILE`` → ``--temperature=0.3,0.8 RUN FILE``: only numbers belong to the option."""
    several = _number_options(config)
    numbers: dict[str, list[str]] = {}
    rest: list[str] = []
    last: str | None = None  # the option that a number belongs to
    for word in words:
        name, _, value = word.partition("=")
        if name in several:
            last = name
            numbers.setdefault(name, []).extend(value.split(",") if value else [])
        elif last and not word.startswith("--") and (not numbers[last] or _is_number(word)):
            numbers[last] += word.split(",")
        else:
            last = None
            rest.append(word)
    wrong = [
        f"{name} needs a number, or several" + "".join(f", not {v!r}" for v in values if not _is_number(v))
        for name, values in numbers.items()
        if not values or not all(map(_is_number, values))
    ]
    if wrong:
        raise ConfigError(wrong)
    return [f"{name}={','.join(values)}" for name, values in numbers.items()] + rest


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Options of several numbers are one word for tyro; see `_join_numbers`."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def several_numbers(
        kind: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[tuple[float, ...]] | None:
        if kind.type != tuple[float, ...]:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="NUMBER [NUMBER ...]",
            instance_from_str=lambda words: tuple(float(word) for word in words[0].split(",")),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [",".join(map(str, value))],
        )

    return registry


def _plain(boxed: str) -> str:
    """tyro's message without its frame, in one line."""
    lines = [line.strip("│╭╮╰╯ ") for line in boxed.splitlines()]
    lines = [line for line in lines if line.strip("─")]
    body = [line for line in lines if not line.endswith("─")]
    text = " ".join(body).split(" Argument helptext")[0].split(" For full helptext")[0]
    text = re.sub(r"\s*─{3,}.*", "", text).strip()
    optional = re.search(r"(--\S+): no type matching \{None\}\|(\w+) .* from \['(.*?)'\]", text)
    if optional:
        return f"{optional[1]} needs {optional[2]}, not {optional[3]!r}"
    return text or "the options do not fit"


def _take_config_file(config: type[T], argv: list[str]) -> tuple[list[str], Any]:
    if "--config" not in argv:
        return argv, None
    at = argv.index("--config")
    if at + 1 == len(argv):
        raise ConfigError(["--config needs a YAML file"])
    return argv[:at] + argv[at + 2 :], read_yaml(config, argv[at + 1])


def read_yaml(config: type[T], path: str) -> T:
    """A dataclass from a YAML file. Raises `ConfigError` with every unknown name in it."""
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    errors: list[str] = []
    result = from_dict(config, values, path, errors)
    if errors:
        raise ConfigError(errors)
    return result


def from_dict(config: type[T], values: Any, where: str, errors: list[str]) -> T:
    """A dataclass from nested plain values; what does not fit is added to ``errors``."""
    if not isinstance(values, dict):
        errors.append(f"{where}: expected names and values, not {type(values).__name__}")
        return config()
    known = {f.name: f for f in fields(config)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, 0.5)
            errors.append(f"{where}: unknown name {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    hints = get_type_hints(config)
    made: dict[str, Any] = {}
    for name, field in known.items():
        if name not in values:
            continue
        kind = field.default_factory if isinstance(field.default_factory, type) else None
        value = values[name]
        if kind is not None and is_dataclass(kind):
            value = from_dict(kind, value, f"{where}: {name}", errors)
        elif isinstance(value, list):
            value = tuple(value)
        elif get_origin(hints[name]) is tuple and value is not None:  # one where several are allowed
            value = (value,)
        if _fits(value, hints[name]):
            made[name] = value
        else:
            errors.append(f"{where}: {name}: {value!r} does not fit; give {_describe(hints[name])}")
    return config(**made)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from YAML is one that a field's type allows."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, inner[0]) for each in value)
    if hint is Any:
        return True
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _describe(hint: Any) -> str:
    """A type in words."""
    inner = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) is Literal:
        return " or ".join(map(str, inner))
    if get_origin(hint) is tuple:
        return f"a list of {_describe(inner[0])}"
    if inner:
        return " or ".join(map(_describe, inner))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))


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
        option = "--" + name.replace("_", "-")
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
            found.append(f"--{name.replace('_', '-')} {_show(a)} → {_show(b)}")
    return found


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
