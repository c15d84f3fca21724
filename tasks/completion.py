"""Tab completion: scripts for the shells, which shtab makes from the commands' own parsers, and where they go.

A script holds everything, so that a press of Tab starts no Python. After an upgrade it is installed again.
"""

from __future__ import annotations

import os
import shlex
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import shtab

from gen.base import folders
from gen.base.config import LIST_OPTIONS, OptionList
from gen.base.errors import ConfigError, UserError, notify
from tasks.cli import GROUPS, all_commands, run_command

SHELLS = ("bash", "zsh", "fish")

PREAMBLE = {"zsh": "if ! (( $+functions[compdef] )); then autoload -Uz compinit && compinit -i; fi"}
"""What a script needs where the user's own start-up file has not done it."""


def complete(option: str, argv: list[str]) -> None:
    """`gen --show-completion [SHELL]` prints the script. `gen --install-completion [SHELL]` writes it where the
    shell finds it, or where a line in its start-up file reads it. Twice does what once does."""
    shell = argv[0] if argv else Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS or argv[1:]:
        raise ConfigError([f"{option}: name a shell, {', '.join(SHELLS[:-1])} or {SHELLS[-1]}: gen {option} bash"])
    if option == "--show-completion":
        print(script(shell), end="")
        return
    if shell == "fish":
        path = _folder("XDG_CONFIG_HOME", ".config") / "fish" / "completions" / "gen.fish"
    else:
        path = _folder("XDG_DATA_HOME", ".local/share") / "gen-toolkit" / f"completion.{shell}"
    path.parent.mkdir(parents=True, exist_ok=True)
    folders.write_text(path, script(shell))
    print(f"Completion for {shell} is in {path}")
    quoted = shlex.quote(str(path))
    # what shtab makes for zsh must be evaluated
    read = f"source {quoted}" if shell == "fish" else f'eval "$(cat {quoted})"'
    if shell != "fish":
        start_up = _home() / ".bashrc" if shell == "bash" else _folder("ZDOTDIR", ".") / ".zshrc"
        line = os.fsencode(f"[ -f {quoted} ] && {read}  # tab completion of gen")
        with start_up.open("a+b") as file:
            file.seek(0)
            text = file.read()
            if line not in text.splitlines():
                file.write(b"\n" * (text[-1:] not in (b"", b"\n")) + line + b"\n")
        print(f"{start_up} reads it {'already' if line in text.splitlines() else 'now'}.")
    print(f"New shells have it; in this one: {read}")
    print("After an upgrade, or with a new task installed: `gen --install-completion` again.")


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or _home() / default)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # in a container, for a user whom nobody entered there
        raise UserError(
            "there is no home folder to install completion in: gen --show-completion prints the script"
        ) from error


def script(shell: str) -> str:
    """The completion script of a shell."""
    parser = ArgumentParser("gen")
    for option in ("--install-completion", "--show-completion"):
        parser.add_argument(option, choices=SHELLS)
    parser.add_argument("-V", "--version", action="store_true")
    top = parser.add_subparsers()
    parsers = _parsers()
    _add_commands(top, parsers)
    _add_commands(top.add_parser("help", help="explain a command").add_subparsers(), dict.fromkeys(parsers))
    return shtab.complete(parser, shell, preamble=PREAMBLE.get(shell, "")).rstrip("\n") + "\n"


def _parsers() -> dict[str, ArgumentParser]:
    """Every command's parser, as its own function makes it. A command that cannot run here is left out."""
    found = {}
    for name, command in all_commands().items():
        try:
            run_command(name, command, list(LIST_OPTIONS))
        except OptionList as answer:
            found[name] = answer.args[0]
        except ModuleNotFoundError:  # without torch there are fewer
            continue
        except Exception as error:  # a task of other people's, which must not take ours with it
            notify(f"{name}: no completion ({error})")
    for action in (action for parser in found.values() for action in parser._actions):
        if choices := getattr(action, "option", None) and action.option.choices:
            action.choices = choices
        elif action.nargs != 0:
            action.complete = shtab.FILE
    return found


def _add_commands(top: Any, parsers: dict[str, Any]) -> None:
    """Adds the commands, those of a group in one of its own, each with the options of its parser."""
    groups: dict[str, Any] = {}
    for name, parser in parsers.items():
        group, _, last = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = top.add_parser(group, help=GROUPS[group]).add_subparsers()
        text = all_commands()[name].summary.replace("%", "%%")
        place = groups[group] if group else top
        place.add_parser(last, help=text, add_help=False, parents=[parser] if parser else [])
