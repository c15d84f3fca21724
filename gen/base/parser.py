"""The command line of a dataclass: its argument parser with the help, and what was typed as values."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import MISSING
from itertools import pairwise
from typing import Any, NoReturn

from gen.base.errors import ConfigError, flag
from gen.base.fields import Option, convert, describe
from gen.base.lines import MAX_LINE_BYTES

NUMBERS = "a number, or several"

GENERAL = ("--config", "--max-line-bytes")
"""Options of every command."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse: "argument -o/--output: expected one argument"
        if match := re.fullmatch(r"argument (?:\S+/)?(\S+): expected .*", message):
            message = f"{match[1]} needs a value (one that begins with - is written {match[1]}=VALUE)"
        raise ConfigError([f"{message} (`{self.prog} --help` explains)"])


class _Formatter(argparse.HelpFormatter):
    """Prints an option the same with every version of Python."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 110) - 2
        super().__init__(prog, max_help_position=28, width=width)

    def _format_action_invocation(self, action: Any) -> str:
        option = getattr(action, "option", None)
        if option is None or option.arg.positional:
            return super()._format_action_invocation(action)
        # there is no need to show how to switch off what is off by default
        names = ", ".join(option.flags[: -1 if option.default is False else None])
        more = " ..." if option.many and action.nargs else ""
        return f"{names} {option.metavar}{more}".rstrip()


def make_parser(
    config: type, options: Sequence[Option], command: str, repeat: bool, common: Sequence[str] | None = None
) -> Parser:
    """The parser, its groups in the order of the help: positional words, the common options, the others."""
    common = list(getattr(config, "COMMON", ()) if common is None else common)
    places = [o for o in options if o.arg.positional]
    usage = [(o.metavar if o.default is MISSING else f"[{o.metavar}]") + "..." * o.many for o in places]
    parser = Parser(
        prog=command,
        usage=" ".join([command, *usage, "[options]"]).replace("%", "%%"),
        description=(inspect.getdoc(config) or "").split("\n\n")[0],
        formatter_class=_Formatter,
        argument_default=argparse.SUPPRESS,
        add_help=False,
        allow_abbrev=False,
    )
    groups: dict[tuple[str, str], list[Option]] = {
        (title, ""): [] for title in ("Arguments", "Common options", "Options")
    }
    for option in sorted(options, key=lambda o: common.index(o.name) if o.name in common else len(common)):
        groups.setdefault(_heading(config, option, common), []).append(option)
    if groups["Common options", ""]:  # the rest of the command's own options comes last
        groups["Other options", ""] = groups.pop(("Options", ""))
    for (title, doc), members in groups.items():
        group = parser.add_argument_group(title, doc or None)
        for option in members:
            _add(group, option, repeat)
        if title in ("Options", "Other options"):
            group.add_argument("--config", metavar="FILE", help="Take what is not given here from this YAML file.")
            group.add_argument(
                "--max-line-bytes",
                metavar="N",
                help=f"Refuse longer lines of text files. Default: {MAX_LINE_BYTES}.",
            )
            group.add_argument("-h", "--help", action="store_true", help="Print this.")
    return parser


def _heading(config: Any, option: Option, common: Sequence[str]) -> tuple[str, str]:
    """The title of the options among which the help lists one, and what they are."""
    own = "" if option.path else "Options"
    if title := "Arguments" if option.arg.positional else "Common options" if option.name in common else own:
        return title, ""
    for name in option.path:
        config = config.__dataclass_fields__[name].default_factory
    doc = re.split(r"(?<=\.)\s", inspect.getdoc(config) or "")[0]  # the rest is for those who read the code
    return getattr(config, "TITLE", option.path[-1].replace("_", " ").capitalize()), doc


def _add(group: Any, option: Option, repeat: bool) -> None:
    """Adds one option to a parser's group. Values stay text: they are converted later, all errors at once."""
    repeated = option.many and not option.arg.positional and "repeated" not in option.help
    parts = [option.help, "(may be repeated)" if repeated else "", option.default_text]
    kind: dict[str, Any] = {"help": " ".join(filter(None, parts)).replace("%", "%%"), "metavar": option.metavar}
    names: tuple[str, ...] = option.flags
    if option.arg.positional:
        names, kind["nargs"] = (option.name,), "*" if option.many else "?"
    elif option.is_flag:
        names, kind["action"] = option.flags[:-1], argparse.BooleanOptionalAction
        del kind["metavar"]
        kind["dest"] = option.name
    else:
        kind["dest"], kind["action"] = option.name, ("append" if repeat else "extend") if option.many else "store"
        kind["nargs"] = "+" if option.arg.words or kind["action"] == "extend" else None
    group.add_argument(*names, **kind).option = option


def near(name: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """A hint at the known name that is most like ``name``: ``"; did you mean --json?"``, or nothing."""
    found = difflib.get_close_matches(name, sorted(known), 1, 0.5)
    return f"; did you mean {shown(found[0])}?" if found else ""


def repeat_numbers(options: Sequence[Option], words: list[str]) -> list[str]:
    """``--temperature 0.3 0.8 FILE`` → ``--temperature=0.3 --temperature=0.8 FILE``: an option of several numbers
    takes the numbers after it and nothing else."""
    several = {name for option in options if option.hint == tuple[float, ...] for name in option.flags}
    number = re.compile(r"[+-]?((\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?|inf|nan)", re.IGNORECASE)
    made: list[str] = []
    name = ""
    for before, word in pairwise(["", *words]):
        name = before if before in several else name if number.fullmatch(word) else ""
        if before in several:
            made.pop()
        made.append(f"{name}={word}" if name else word)
    if made and made[-1] in several:
        raise ConfigError([f"{made[-1]} needs {NUMBERS}"])
    return made


def unknown_options(
    words: list[str], options: Sequence[Option], command: str, hidden: Collection[str], renamed: Any
) -> list[str]:
    """A line per option that the command does not have."""
    errors, known = [], {*GENERAL, *(name for option in options for name in option.flags)}
    for name in (word.split("=")[0] for word in words):
        field = name[2:].replace("-", "_")
        new = renamed.get(field) or ""
        new = flag(new if isinstance(new, str) else new[0])
        if not name.startswith("--") or name in known:
            continue
        if {field, field.removeprefix("no_")} & set(hidden):
            errors.append(f"unknown option {name} (does not apply to {command.split()[-1]})")
        elif new in known:
            errors.append(f"unknown option {name}: it is {new} now (`{command} --help` explains)")
        else:
            errors.append(f"unknown option {name}{near(name, known)} (`{command} --help` lists them)")
    return errors


def from_words(option: Option, value: Any, errors: list[str]) -> Any:
    """What was typed for an option as its type has it; what does not fit is added to ``errors``."""
    if option.arg.words:
        value = " ".join(value)
    found: list[Any] = []
    for each in value if isinstance(value, list) else [value]:
        try:
            made = convert(each, option.hint, text=True)
            found += made if option.many else [made]
        except (ValueError, TypeError):
            name = option.metavar if option.arg.positional else flag(option.name)
            needed = NUMBERS if option.hint == tuple[float, ...] else option.metavar
            what = f"must be {describe(option.hint)}" if option.choices else f"needs {needed}"
            errors.append(f"{name} {what}, not {each!r}{near(each, map(str, option.choices))}")
    return tuple(found) if option.many else found[0] if found else None
