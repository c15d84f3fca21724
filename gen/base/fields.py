"""The fields of a configuration dataclass as options: names, types, help, and values read from text or YAML."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from os import fspath
from threading import Lock
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import msgspec

from gen.base.errors import flag

T = TypeVar("T")


@dataclass(frozen=True)
class Arg:
    """How a field is typed on the command line: ``run: Annotated[str, Arg("RUN", positional=True)]``.

    Attributes:
        metavar: the name of its value in the help. Empty: made from the type.
        positional: given by its place, without a name.
        aliases: short names, such as ``("-o",)``.
        words: several words make one text: ``--budget 20 epochs``.
        required: the help prints "(required)" although the field has a default that the command refuses.
        one_of: gives the values that it may have, where they are known only when the program runs.
    """

    metavar: str = ""
    positional: bool = False
    aliases: tuple[str, ...] = ()
    words: bool = False
    required: bool = False
    one_of: Callable[[], Collection[str]] | None = None


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
    def flags(self) -> tuple[str, ...]:
        """Every spelling of its name; none for a positional one."""
        if self.arg.positional:
            return ()
        negative = (flag(f"no_{self.name}"),) if self.is_flag else ()
        return (*self.arg.aliases, flag(self.name), *negative)

    @property
    def is_flag(self) -> bool:
        """Whether it is on or off, and takes no value."""
        return bool in _leaves(self.hint)

    @property
    def many(self) -> bool:
        """Whether it takes several values."""
        return is_list(self.hint)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values it may have; empty where any will do."""
        return tuple(leaf for leaf in _leaves(self.hint) if not isinstance(leaf, type))

    @property
    def metavar(self) -> str:
        """Its value in the help and in messages."""
        if self.arg.metavar or self.is_flag:
            return self.arg.metavar
        if self.choices:
            return "{" + ",".join(map(str, self.choices)) + "}"
        leaves = _leaves(self.hint)
        return "FLOAT" if float in leaves else "INT" if leaves == [int] else "TEXT"

    @property
    def default_text(self) -> str:
        """The default in parentheses, as the help prints it; empty where there is nothing to print."""
        if self.arg.required or (self.default is MISSING and not self.many):
            return "(required)"
        if self.default in (MISSING, None, "", ()) or self.default is False:
            return ""
        values = self.default if isinstance(self.default, tuple) else (self.default,)
        return f"(default: {'yes' if self.default is True else ' '.join(map(str, values))})"


def options_of(config: Any, path: tuple[str, ...] = ()) -> tuple[Option, ...]:
    """Every field of a dataclass and of those nested in it, in their order; ``path`` leads to the dataclass."""
    found: list[Option] = []
    hints, documented = get_type_hints(config, include_extras=True), _documented(config)
    for field in fields(config):
        hint, arg = hints[field.name], Arg()
        if nested := nested_type(field, hint):
            found += options_of(nested, (*path, field.name))
            continue
        if get_origin(hint) is Annotated:
            hint, *metadata = get_args(hint)
            arg = next((each for each in metadata if isinstance(each, Arg)), arg)
        if arg.one_of is not None:
            hint = Literal[tuple(arg.one_of())]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        text = documented.get(field.name) or str(field.metadata.get("help", ""))
        found.append(Option(field.name, hint, default, text, path, arg))
    return tuple(found)


_PARSING = Lock()
"""CPython 3.11's `ast.parse` fails where two threads are in it (gh-106905)."""


@cache
def _documented(config: Any) -> dict[str, str]:
    """Field → the docstring below it in the source of the class or of one that it inherits from."""
    found: dict[str, str] = {}
    for each in filter(is_dataclass, reversed(config.__mro__)):
        with _PARSING, suppress(TypeError, SyntaxError):  # made at run time, without a source
            params = docstring_parser.parse_from_object(each).params
            found |= {param.arg_name: " ".join((param.description or "").split()) for param in params}
    return found


def nested_type(field: Field[Any], hint: Any) -> Any:
    """The dataclass that a field holds; None where it holds a value."""
    return next((k for k in (field.default_factory, hint) if isinstance(k, type) and is_dataclass(k)), None)


def build(config: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass, and those nested in it, from values by the fields' own names; the rest have their defaults."""
    hints, made = get_type_hints(config), {}
    for field in fields(config):  # type: ignore[arg-type]
        if nested := nested_type(field, hints[field.name]):
            made[field.name] = build(nested, values)
        elif field.name in values:
            made[field.name] = values[field.name]
    return config(**made)


def convert(value: Any, hint: Any, *, text: bool) -> Any:
    """A value as the type ``hint`` has it.

    Args:
        value: from the command line (text, or a list of texts), from YAML, or from Python (paths become texts).
            One value where several are allowed is one of them.
        hint: any type that msgspec knows.
        text: whether numbers are still text.

    Raises:
        ValueError, TypeError: it does not fit.

    Example:
        >>> convert("3", int | None, text=True), convert(["a", "b"], tuple[str, ...], text=False)
        (3, ('a', 'b'))
    """
    if hint is Any or (text and str(value).lower() == "none" and NoneType in get_args(hint)):
        return value if hint is Any else None
    if is_list(hint) and not isinstance(value, (list, tuple, NoneType)):
        value = [value]
    return msgspec.convert(msgspec.to_builtins(value, enc_hook=_plain), hint, strict=not text)


def _plain(value: Any) -> Any:
    """A path, a number of numpy, or an instance of a subclass of str, as msgspec knows it."""
    return value.tolist() if hasattr(value, "tolist") else str.__str__(fspath(value))


def describe(hint: Any) -> str:
    """A type in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return ("a list of " if is_list(hint) else "") + " or ".join(words.get(x, str(x)) for x in _leaves(hint))


def is_list(hint: Any) -> bool:
    """Whether a type is ``tuple[X, ...]``, or may be."""
    return any(get_origin(each) is tuple for each in (hint, *get_args(hint)))


def _leaves(hint: Any) -> list[Any]:
    """The simple types, except None, and the literal values that a type is made of."""
    inner = [each for each in get_args(hint) if each not in (NoneType, ...)]
    if get_origin(hint) is Literal:
        return inner
    return [leaf for each in inner for leaf in _leaves(each)] if inner else [hint]
