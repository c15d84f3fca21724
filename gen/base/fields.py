"""The fields of a configuration dataclass as options: names, types, help, and values read from text or YAML."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from os import PathLike, fspath
from threading import Lock
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Arg:
    """How a field is typed on the command line: ``run: Annotated[str, Arg("RUN", positional=True)]``.

    Attributes:
        metavar: the name of its value in the help. Empty: made from the type.
        positional: given by its place, without a name.
        aliases: short names, such as ``("-o",)``.
        words: several words make one text: ``--budget 20 epochs``.
        unset: what the help prints for a default of None, such as "chosen", unless the docstring has "unset" or
            "chosen" in it. A dataclass may set it for all of its fields with a class attribute ``UNSET``.
        required: the help prints "(required)" although the field has a default that the command refuses.
    """

    metavar: str = ""
    positional: bool = False
    aliases: tuple[str, ...] = ()
    words: bool = False
    unset: str = ""
    required: bool = False


@dataclass(frozen=True)
class Option:
    """One field of a dataclass, or of a dataclass nested in it.

    Attributes:
        name: of the field.
        hint: its type.
        default: `dataclasses.MISSING` where there is none.
        help: the docstring below the field.
        path: names of the nested dataclasses that lead to it, outermost first.
        arg: how it is typed.
    """

    name: str
    hint: Any
    default: Any
    help: str
    path: tuple[str, ...]
    arg: Arg

    @property
    def flag(self) -> str:
        """As typed: ``--learning-rate``."""
        return flag(self.name)

    @property
    def flags(self) -> tuple[str, ...]:
        """Every spelling of its name; none for a positional one."""
        if self.arg.positional:
            return ()
        negative = (f"--no-{self.flag[2:]}",) if self.is_flag else ()
        return (*self.arg.aliases, self.flag, *negative)

    @property
    def shown_flags(self) -> tuple[str, ...]:
        """The spellings worth showing: there is no need to switch off what is off by default."""
        return self.flags[:-1] if self.default is False else self.flags

    @property
    def is_flag(self) -> bool:
        """Whether it is on or off, and takes no value."""
        return bool in (self.hint, *_inner(self.hint))

    @property
    def many(self) -> bool:
        """Whether it takes several values."""
        return tuple in (get_origin(self.hint), *map(get_origin, _inner(self.hint)))

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values it may have; empty where any will do."""
        return tuple(_choices(self.hint))

    @property
    def metavar(self) -> str:
        """Its value in the help and in messages."""
        if self.arg.metavar or self.is_flag:
            return self.arg.metavar
        if self.choices:
            return "{" + ",".join(map(str, self.choices)) + "}"
        kinds = _leaves(self.hint)
        return "INT" if kinds == {int} else "FLOAT" if float in kinds else "TEXT"

    @property
    def default_text(self) -> str:
        """The default in parentheses, as the help prints it; empty where there is nothing to print."""
        if self.arg.required or (self.default is MISSING and not self.many):
            return "(required)"
        if self.default is None:
            told = re.search(r"\bunset\b|\bchosen\b", self.help, re.IGNORECASE)
            return f"({self.arg.unset})" if self.arg.unset and not told else ""
        if self.default is MISSING or self.default is False or self.default in ("", ()):
            return ""
        values = self.default if isinstance(self.default, tuple) else (self.default,)
        return f"(default: {'yes' if self.default is True else ' '.join(map(str, values))})"


def flag(name: str) -> str:
    """The option of a field: ``--learning-rate`` for ``learning_rate``."""
    return "--" + name.replace("_", "-")


def options_of(config: type) -> tuple[Option, ...]:
    """Every field of a dataclass and of those nested in it, in their order."""
    with _PARSING:
        return _options_of(config)


_PARSING = Lock()
"""CPython 3.11's `ast.parse` fails where two threads are in it (gh-106905)."""


@cache
def _options_of(config: Any) -> tuple[Option, ...]:
    return tuple(_walk(config, ()))


def _walk(config: type, path: tuple[str, ...]) -> Iterator[Option]:
    hints = get_type_hints(config, include_extras=True)
    documented = _docstrings(config)
    for field in fields(config):
        nested = nested_type(field, hints[field.name])
        if nested is not None:
            yield from _walk(nested, (*path, field.name))
            continue
        hint, *metadata = get_args(hints[field.name]) if _is_annotated(hints[field.name]) else [hints[field.name]]
        arg = next((each for each in metadata if isinstance(each, Arg)), None) or Arg()
        if not arg.unset and hasattr(config, "UNSET"):
            arg = Arg(**{**vars(arg), "unset": config.UNSET})
        default = field.default if field.default_factory is MISSING else field.default_factory()
        text = documented.get(field.name) or str(field.metadata.get("help", ""))
        yield Option(field.name, hint, default, text, path, arg)


def nested_type(field: Field[Any], hint: Any) -> type | None:
    """The dataclass that a field holds; None where it holds a value."""
    for kind in (field.default_factory, hint):
        if isinstance(kind, type) and is_dataclass(kind):
            return kind
    return None


def build(config: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass, and those nested in it, from values by the fields' own names; the rest have their defaults."""
    hints = get_type_hints(config)
    made: dict[str, Any] = {}
    for field in fields(config):  # type: ignore[arg-type]
        nested = nested_type(field, hints[field.name])
        if nested is not None:
            made[field.name] = build(nested, values)
        elif field.name in values:
            made[field.name] = values[field.name]
    return config(**made)


def _docstrings(config: type) -> dict[str, str]:
    """Field → the docstring below it in the source of the class or of one that it inherits from."""
    found: dict[str, str] = {}
    for each in reversed(config.__mro__):
        if not is_dataclass(each):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        except (OSError, TypeError, SyntaxError):  # made at run time, or installed without its source
            continue
        for line, below in pairwise(getattr(body, "body", ())):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(line.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[line.target.id] = " ".join(str(below.value.value).split())
    return found


def convert(value: Any, hint: Any, *, text: bool) -> Any:
    """A value as the type ``hint`` has it.

    Args:
        value: from the command line (text, or a list of texts), from YAML, or from Python (paths become texts).
            One value where several are allowed is one of them.
        hint: bool, int, float, str, Literal, ``tuple[X, ...]``, Any, or a union of these.
        text: whether numbers are still text.

    Raises:
        ValueError: it does not fit.

    Example:
        >>> convert("3", int | None, text=True), convert(["a", "b"], tuple[str, ...], text=False)
        (3, ('a', 'b'))
    """
    origin, inner = get_origin(hint), get_args(hint)
    if _is_annotated(hint):
        return convert(value, inner[0], text=text)
    if origin in (Union, UnionType):
        for each in sorted(inner, key=lambda kind: kind is type(None)):
            try:
                return convert(value, each, text=text)
            except ValueError:
                continue
        raise ValueError(value)
    if origin is Literal:
        for choice in inner:
            if (str(choice) if text else choice) == value and isinstance(value, bool) == isinstance(choice, bool):
                return choice
        raise ValueError(value)
    if origin is tuple:
        several = value if isinstance(value, (list, tuple)) else [value]
        return tuple(convert(each, inner[0], text=text) for each in several)
    if hint is type(None):
        if value is None or (text and str(value).lower() == "none"):
            return None
        raise ValueError(value)
    return value if hint is Any else _scalar(value, hint, text)


def _scalar(value: Any, hint: type, text: bool) -> Any:
    if isinstance(value, bool) or hint is bool:
        fits = isinstance(value, bool) and hint is bool
    elif hint is str and isinstance(value, PathLike):
        return fspath(value)
    elif hint is float and isinstance(value, str):  # YAML reads 1e-3 as a text
        return float(value)
    elif hint is int and text and isinstance(value, str):
        return int(value)
    else:
        fits = isinstance(value, (int, float) if hint is float else hint)
    if not fits:
        raise ValueError(value)
    return value


def describe(hint: Any) -> str:
    """A type in words."""
    inner = [each for each in get_args(hint) if each is not type(None)]
    if _is_annotated(hint):
        return describe(inner[0])
    if get_origin(hint) is Literal:
        return " or ".join(map(str, inner))
    if get_origin(hint) is tuple:
        return f"a list of {describe(inner[0])}"
    if inner:
        return " or ".join(map(describe, inner))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))


def _is_annotated(hint: Any) -> bool:
    return get_origin(hint) is Annotated


def _inner(hint: Any) -> tuple[Any, ...]:
    """What a union joins."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else ()


def _choices(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        for each in get_args(hint):
            yield from _choices(each)


def _leaves(hint: Any) -> set[Any]:
    inner = [each for each in get_args(hint) if each not in (type(None), ...)]
    return set().union(*map(_leaves, inner)) if inner else {hint}
