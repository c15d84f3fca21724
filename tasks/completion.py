"""Tab completion: the scripts for bash, zsh and fish, made from the commands' own options, and where they go.

A script holds everything, so that a press of Tab starts no Python. After an upgrade it is installed again.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from gen.base.config import LIST_OPTIONS, OptionList
from gen.base.errors import ConfigError, UserError, notify
from gen.base.fields import Option
from gen.base.lines import output
from tasks.cli import GROUPS, all_commands, run_command

SHELLS = ("bash", "zsh", "fish")
GLOBAL = ("--help", "--version", "--install-completion", "--show-completion")

Options = dict[str, list[Option]]
"""Command → its options."""

COMMAND_OF = """\
_gen_command() {  # WORDS: the command that the words between `gen` and the cursor begin with
  if [ "$1" = help ]; then shift; fi
  case "$1" in
    %s) if [ $# -gt 1 ]; then echo "$1 $2"; else echo "$1"; fi ;;
    *) echo "$1" ;;
  esac
}
"""

BASH = """\
_gen() {
  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"
  if [ "$cur" = "=" ]; then
    cur=""
  elif [ "$prev" = "=" ]; then
    prev="${COMP_WORDS[COMP_CWORD-2]}"
  fi
  local command="$(_gen_command "${COMP_WORDS[@]:1:COMP_CWORD-1}")"
  COMPREPLY=($(compgen -W "$(_gen_words "$command" "$prev" "$cur")" -- "$cur"))
}
complete -o bashdefault -o default -F _gen gen
"""

ZSH = """\
_gen() {
  local cur="${words[CURRENT]}" prev="${words[CURRENT-1]}"
  case "$cur" in
    --*=*) prev="${cur%%=*}"; cur=""; compset -P '*=' ;;
  esac
  local -a before found
  before=("${(@)words[2,CURRENT-1]}")
  found=(${=$(_gen_words "$(_gen_command "${before[@]}")" "$prev" "$cur")})
  if (( $#found )); then compadd -- $found; else _files; fi
}
if ! (( $+functions[compdef] )); then autoload -Uz compinit && compinit -i; fi
compdef _gen gen
"""

FISH = """\
function __gen_at  # COMMAND: whether it has been typed before the cursor
    set -l typed (commandline -opc)
    set -e typed[1]
    test "$typed[1]" = help; and set -e typed[1]
    set -l asked (string split -n ' ' -- $argv[1])
    switch "$argv[1]"
        case '' GROUP
            test "$typed" = "$argv[1]"
        case '*'
            test "$typed[1..$(count $asked)]" = "$argv[1]"
    end
end
complete -c gen -n '__gen_at ""' -f
"""


def show(argv: list[str]) -> None:
    """`gen --show-completion [SHELL]`: prints the script."""
    print(script(_shell(argv, "--show-completion")), end="")


def install(argv: list[str]) -> None:
    """`gen --install-completion [SHELL]`: writes the script where the shell finds it, or where a line in the
    shell's start-up file reads it. Twice does what once does."""
    shell = _shell(argv, "--install-completion")
    home = Path.home()
    if shell == "fish":
        path = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions" / "gen.fish"
        start_up = None
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
        path = data / "gen-toolkit" / f"completion.{shell}"
        start_up = home / ".bashrc" if shell == "bash" else Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, script(shell))
    print(f"Completion for {shell} is in {path}")
    if start_up:
        quoted = shlex.quote(str(path))
        added = _add_line(start_up, f"[ -f {quoted} ] && . {quoted}  # tab completion of gen")
        print(f"{start_up} {'reads it now' if added else 'reads it already'}.")
    print(f"New shells have it; in this one: source {shlex.quote(str(path))}")
    print("After an upgrade, or with a new task installed: `gen --install-completion` again.")


def _shell(argv: list[str], option: str) -> str:
    asked = argv[0] if argv else Path(os.environ.get("SHELL", "")).name
    if asked not in SHELLS or argv[1:]:
        raise ConfigError([f"{option}: name a shell, {', '.join(SHELLS[:-1])} or {SHELLS[-1]}: gen {option} bash"])
    return asked


def _add_line(path: Path, line: str) -> bool:
    """Adds a line to a file, which may not exist. Returns False where it has that line."""
    text = ""
    if path.exists():
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
    if line in text.splitlines():
        return False
    _write(path, text + ("" if not text or text.endswith("\n") else "\n") + line + "\n")
    return True


def _write(path: Path, text: str) -> None:
    """Replaces a file at once; it keeps its permissions, and a link to it stays one."""
    try:
        with output(str(path)) as file:
            file.write(text)
    except UserError as error:
        raise UserError(str(error).removeprefix("--output ")) from error


def script(shell: str) -> str:
    """The completion script of a shell."""
    options = _options()
    if shell == "fish":
        return _fish(options)
    head = "#compdef gen\n" if shell == "zsh" else ""
    words = _words(options)
    return f"{head}# Made by `gen --show-completion {shell}`.\n{COMMAND_OF % '|'.join(GROUPS)}{words}" + (
        ZSH if shell == "zsh" else BASH
    )


def _options() -> Options:
    """Every command's options, as its own function reads them. A command that cannot run here is left out."""
    found: Options = {}
    for name, command in all_commands().items():
        try:
            run_command(name, command, list(LIST_OPTIONS))
        except OptionList as answer:
            found[name] = list(answer.options)
        except ModuleNotFoundError:  # without torch there are fewer
            continue
        except Exception as error:  # a task of other people's, which must not take ours with it
            notify(f"{name}: no completion ({error})")
    return found


def _next_words(options: Options) -> dict[str, list[str]]:
    """What has been typed → the words that may follow: commands after nothing, second words after a group."""
    found: dict[str, list[str]] = {"": ["help"]}
    for name in options:
        first, _, second = name.partition(" ")
        if first not in found[""]:
            found[""].append(first)
        if second:
            found.setdefault(first, []).append(second)
    return found


def _words(options: Options) -> str:
    """A shell function that prints what may come next, for bash and zsh; nothing where files may."""
    values = [
        (f"{name}|{flag}", " ".join(_plain(option.choices)))
        for name, several in options.items()
        for option in several
        if not option.is_flag
        for flag in option.flags
    ]
    values += [(f"{option}|{option}", " ".join(SHELLS)) for option in GLOBAL[2:]]
    flags = {name: [f for o in several for f in o.shown_flags] for name, several in options.items()}
    lines = ["_gen_words() {  # COMMAND PREVIOUS CURRENT", '  case "$1|$2" in']
    lines += [f'    "{key}") echo "{words}"; return ;;' for key, words in values]
    lines += ["  esac", '  case "$3" in', '    -*) case "$1" in', f'      "") echo "{" ".join(GLOBAL)}" ;;']
    lines += [f'      "{name}") echo "{" ".join((*f, "--config", "--help"))}" ;;' for name, f in flags.items()]
    lines += ["    esac; return ;;", "  esac", '  case "$1" in']
    lines += [f'    "{name}") echo "{" ".join(words)}" ;;' for name, words in _next_words(options).items()]
    return "\n".join([*lines, "  esac", "}", ""])


def _fish(options: Options) -> str:
    """fish has a line per option, with its help."""
    lines = ["# Made by `gen --show-completion fish`.", FISH.replace("GROUP", " ".join(GROUPS)).rstrip()]
    summaries = {**GROUPS, **{name: command.summary for name, command in all_commands().items()}}
    for typed, words in _next_words(options).items():
        for word in words:
            text = summaries.get(f"{typed} {word}".strip(), "explain a command")
            lines.append(f"complete -c gen -n '__gen_at \"{typed}\"' -f -a {word} -d {_fish_text(text)}")
    for flag in GLOBAL:
        lines.append(f"complete -c gen -n '__gen_at \"\"' -l {flag[2:]}")
    lines += [f"complete -c gen -n '__gen_at {flag}' -f -a '{' '.join(SHELLS)}'" for flag in GLOBAL[2:]]
    for name, several in options.items():
        at = f"complete -c gen -n '__gen_at \"{name}\"'"
        for option in several:
            value = "" if option.is_flag else f" -x -a '{' '.join(c)}'" if (c := _plain(option.choices)) else " -r"
            text = _fish_text(re.split(r"(?<=[.;:])\s", option.help)[0])
            for flag in option.shown_flags:
                spelled = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                lines.append(f"{at} {spelled}{value} -d {text}")
        lines += [f"{at} -l config -r -d 'Options from a YAML file'", f"{at} -l help"]
    return "\n".join([*lines, ""])


def _plain(choices: Iterable[object]) -> list[str]:
    """Those that a shell reads as they are."""
    return [str(choice) for choice in choices if re.fullmatch(r"[\w.:/+-]+", str(choice))]


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
