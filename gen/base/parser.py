"""The argument parser of a command, made from the options of its dataclass: what is typed, and the help."""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any, NoReturn

from gen.base.errors import ConfigError
from gen.base.fields import Option


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse: "argument -o/--output: expected one argument"
        match = re.fullmatch(r"argument (\S+): expected .*", message)
        if match:
            name = match[1].split("/")[-1]
            message = f"{name} needs a value (one that begins with - is written {name}=VALUE)"
        raise ConfigError([f"{message} (`{self.prog} --help` explains)"])


class _Formatter(argparse.HelpFormatter):
    """Prints an option as `_add` wants it, the same with every version of Python."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 110) - 2
        super().__init__(prog, max_help_position=28, width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return getattr(action, "shown", "") or super()._format_action_invocation(action)


def make_parser(
    config: type, options: Sequence[Option], command: str, repeat: bool, common: Sequence[str] | None = None
) -> Parser:
    """The parser, its groups in the order of the help: positional words, the common options, the others."""
    common = list(getattr(config, "COMMON", ()) if common is None else common)
    places = [o.metavar if o.default is MISSING else f"[{o.metavar}]" for o in options if o.arg.positional]
    several = {o.metavar: "..." for o in options if o.arg.positional and o.many}
    places = [place + several.get(place.strip("[]"), "") for place in places]
    parser = Parser(
        prog=command,
        usage=" ".join([command, *places, "[options]"]).replace("%", "%%"),
        description=(inspect.getdoc(config) or "").split("\n\n")[0],
        formatter_class=_Formatter,
        argument_default=argparse.SUPPRESS,
        add_help=False,
        allow_abbrev=False,
    )
    groups: dict[str, list[Option]] = {"": [], "Common options": [], "Options": []}
    docs: dict[str, str | None] = {}
    for option in sorted(options, key=lambda o: common.index(o.name) if o.name in common else len(common)):
        title = "" if option.arg.positional else "Options"
        if option.name in common and not option.arg.positional:
            title = "Common options"
        elif option.path:
            title, docs[title] = _heading(config, option.path)
        groups.setdefault(title, []).append(option)
    rest = groups.pop("Options")
    if groups["Common options"]:  # the rest of the command's own options comes last
        groups["Other options"] = rest
    else:
        groups = {"": groups[""], "Options": rest, **groups}
    for title, members in groups.items():
        if members:
            group = parser.add_argument_group(title or "Arguments", docs.get(title))
            for option in members:
                _add(group, option, repeat)
    last = "Other options" if groups.get("Other options") or "Options" not in groups else "Options"
    found = next((g for g in parser._action_groups if g.title == last), None)
    group = found or parser.add_argument_group(last)
    config_file = group.add_argument("--config", help="Take what is not given here from this YAML file.")
    _shown(config_file, "--config FILE")
    _shown(group.add_argument("-h", "--help", action="store_true", help="Print this."), "-h, --help")
    return parser


def _heading(config: type, path: Sequence[str]) -> tuple[str, str | None]:
    """The title of a nested dataclass's options, and what it is."""
    found: Any = config
    for name in path:
        found = next(f for f in found.__dataclass_fields__.values() if f.name == name).default_factory
    doc = re.split(r"(?<=\.)\s", inspect.getdoc(found) or "")[0]  # the rest is for those who read the code
    return getattr(found, "TITLE", path[-1].replace("_", " ").capitalize()), doc


def _add(group: Any, option: Option, repeat: bool) -> None:
    """Adds one option to a parser's group. Values stay text: `_from_words` converts them, all errors at once."""
    repeated = option.many and not option.arg.positional and "repeated" not in option.help
    parts = [option.help, "(may be repeated)" if repeated else "", option.default_text]
    text = " ".join(part for part in parts if part).replace("%", "%%")
    if option.arg.positional:
        nargs = "*" if option.many else "?"
        _shown(group.add_argument(option.name, nargs=nargs, help=text), option.metavar)
    elif option.is_flag:
        action = argparse.BooleanOptionalAction
        _shown(group.add_argument(*option.flags[:-1], action=action, help=text), ", ".join(option.shown_flags))
    else:
        kind: dict[str, Any] = {"action": "store", "nargs": "+" if option.arg.words else None}
        if option.many:
            kind = {"action": "append"} if repeat else {"action": "extend", "nargs": "+"}
        more = " ..." if option.many and not repeat else ""
        added = group.add_argument(*option.flags, dest=option.name, help=text, **kind)
        _shown(added, f"{', '.join(option.flags)} {option.metavar}{more}")


def _shown(action: Any, text: str) -> None:
    action.shown = text
