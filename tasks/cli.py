"""The command `gen`: which words lead where. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any, NamedTuple

from gen.base.errors import Terminated, UserError, command_line_terms, encode_leniently, notify

INTRODUCTION = """\
gen: sequence generation around one shared recurrent decoder

"""

CONCLUSION = """
`gen help COMMAND`, or `gen COMMAND --help`, lists a command's options. RUN is the folder of a run or of a model,
or hf:USER/NAME. `gen --install-completion` makes the Tab key complete commands and options (bash, zsh, fish).
`gen help train` also lists the tasks that other packages bring.
"""


class Command(NamedTuple):
    """A command.

    Attributes:
        target: the module and the function that does it. It gets the words after the command, the command as
            typed, and ``task`` if there is one, and returns the exit status (None: 0).
        usage: an example of the words after the command.
        summary: what it does, in a line.
        task: the name of a task whose command it is, for a function that serves every task.
    """

    target: str
    usage: str
    summary: str
    task: str = ""


TRAIN = "tasks.commands.train:train_command"
USE = "tasks.commands.use:use_command"

# fmt: off
COMMANDS = {
    "demo": Command("tasks.demo.command:demo_command", "",
                    "train small models of every kind and look at them"),
    "lesson": Command("tasks.lessons.command:lesson_command", "[NAME]",
                      "seven notebooks that teach all of it, from a network that writes letters on"),
    "data": Command("tasks.commands.data:data_command", "[TASK] FILE...",
                    "look at data before training: lengths, vocabularies, leaks, odd characters, what is dropped"),
    "train text": Command(TRAIN, "--data FILE --out runs/NAME",
                          "train a language model on a text (characters, words or subwords)", "text"),
    "generate": Command("tasks.text.generate:generate_command", "RUN --prompt TEXT", "write"),
    "suggest": Command("tasks.text.suggest:suggest_command", "RUN --prompt TEXT", "complete the word being typed"),
    "train translate": Command(TRAIN, "--train SOURCE TARGET --out runs/NAME",
                               "train a translation model on sentence pairs", "translate"),
    "translate": Command("tasks.translate.command:translate_command", "RUN < FILE", "translate line by line"),
    "train caption": Command(TRAIN, "--images FOLDER --captions FILE --out runs/NAME",
                             "train a model that describes pictures", "caption"),
    "caption": Command("tasks.caption.command:caption_command", "RUN PICTURE...", "describe pictures"),
    "train classify": Command(TRAIN, "--data FILE --out runs/NAME",
                              "train a model that says which label a text or picture has", "classify"),
    "classify": Command("tasks.classify.command:classify_command", "RUN TEXT | PICTURE...",
                        "say which label texts or pictures have"),
    "distill": Command("tasks.commands.distill:distill_command", "TEACHER... --out runs/NAME",
                       "train one model to do what others do, alone or as an ensemble"),
    "plot attention": Command("tasks.commands.plot:attention_command", "RUN --text TEXT | PICTURE -o FILE",
                              "draw what the decoder looked at"),
    "score": Command("tasks.commands.score:score_command", "RUN FILE", "how probable each line, or each pair, is"),
    "evaluate": Command("tasks.commands.evaluate:evaluate_command", "RUN",
                        "perplexity of a language model, BLEU of a translation model, CIDEr-D of captions"),
    "info": Command("tasks.commands.info:info_command", "RUN", "what a model is"),
    "compare": Command("tasks.commands.compare:compare_command", "RUN RUN... | RUN --with MODEL",
                       "several runs side by side, or a run beside a model of transformers"),
    "export": Command("tasks.commands.export:export_command", "RUN -o FOLDER [--int8]",
                      "write a model as a folder that runs fast, and without torch"),
    "serve": Command("tasks.commands.serve:serve_command", "RUN...",
                     "serve models to OpenAI's and LibreTranslate's clients, and a page to play with them"),
    "push": Command("tasks.commands.push:push_command", "RUN USER/NAME", "share a model on the Hugging Face Hub"),
}
# fmt: on
"""What is typed → what does it."""

GROUPS = {
    "train": "train a model of a task; the same command again goes on from where it stopped",
    "plot": "draw what a model does",
}
"""First words that want a second one → what they are for."""


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


@command_line_terms()
def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0, 1 where part of the input could not be used, 2 for the user's
    mistakes, 130 for Ctrl-C and 143 for SIGTERM, where there was something to save."""
    if argv is None:
        argv = sys.argv[1:]
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:  # closed by whoever started this process
                setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
        for name in ("SIGTERM", "SIGHUP"):  # so that what was begun is cleared away
            if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:  # nohup
                signal.signal(getattr(signal, name), _terminate)
        encode_leniently(sys.stdout)
        encode_leniently(sys.stderr)
    try:
        return _run(argv)
    except UserError as error:
        for line in getattr(error, "errors", [str(error)]):  # of a ConfigError
            notify(line)
        return 2
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        notify("terminated" if terminated else "interrupted")
        return 143 if terminated else 130
    except ModuleNotFoundError as error:
        from importlib.util import find_spec

        if find_spec("gen.models"):  # all of the toolkit is here, and should be whole
            raise
        small = error.name in ("yaml", "msgspec", "docstring_parser", "shtab", "filelock")
        remedy = "'gen-runtime[cli]'" if small else "gen-toolkit instead of gen-runtime"
        notify(f"this needs {error.name}, which is not installed here: pip install {remedy}")
        return 2
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch's word for it on a CPU
            raise
        notify("there is not enough memory: make the model, or the batch, smaller")
        return 2
    except OSError as error:  # a full disk, a folder without permission
        notify(f"{error.filename or 'input or output'}: {error.strerror or error}")
        return 2


def _run(argv: list[str]) -> int:
    """Does what was typed, and returns the exit status."""
    if argv[:1] == ["help"]:  # `gen help train text` is `gen train text --help`
        argv = [*argv[1:], "--help"]
    first = argv[0] if argv else "--help"
    if first in ("-h", "--help"):
        print(INTRODUCTION + _listed(COMMANDS) + CONCLUSION, end="")
    elif first in GROUPS and argv[1:2] in (["-h"], ["--help"]):
        known = all_commands()
        shown = {f"{first} "} | ({name for name in known if name not in COMMANDS} if first == "train" else set())
        members = {name: command for name, command in known.items() if name.startswith(tuple(shown))}
        print(f"gen {first}: {GROUPS[first]}\n\n{_listed(members)}")
        print(f"`gen {next(iter(members))} --help` lists the options.")
    elif first in ("-V", "--version"):
        from gen import __version__

        print(f"gen-toolkit {__version__}")
    elif first in ("--install-completion", "--show-completion"):
        from tasks.completion import complete

        complete(first, argv[1:])
    else:
        name, command, rest = _find(argv)
        return run_command(name, command, rest)
    return 0


def run_command(name: str, command: Command, argv: list[str]) -> int:
    """Runs the command that is typed as ``name`` with the words after it, and returns the exit status."""
    module, _, function = command.target.partition(":")
    task = [command.task] if command.task else []
    return getattr(import_module(module), function)(argv, f"gen {name}", *task) or 0


def _listed(commands: dict[str, Command]) -> str:
    """A line per command, or two where the first is long."""
    lines = []
    for name, command in commands.items():
        typed = f"  gen {name} {command.usage}".rstrip()
        mark = "  " if len(typed) < 34 else "\n" + " " * 35
        lines.append(f"{typed:<33}{mark}{command.summary}\n")
    return "".join(lines)


def all_commands() -> dict[str, Command]:
    """Our commands, and those of installed tasks: `gen train NAME`, and `gen NAME` to use the model."""
    from importlib.metadata import entry_points  # takes longer than all of `gen --help`

    found = {}
    ours = {name.removeprefix("train ") for name in COMMANDS}  # have their own
    for name in sorted({entry.name for entry in entry_points(group="gen.tasks")} - GROUPS.keys() - ours):
        found[f"train {name}"] = Command(TRAIN, "--out runs/NAME", f"train a model of the task {name}", name)
        found[name] = Command(USE, "RUN", f"use a model of the task {name}", name)
    return {**COMMANDS, **found}


def _find(argv: list[str]) -> tuple[str, Command, list[str]]:
    """The command that ``argv`` begins with: its name, itself, and the words after it."""
    for table in (lambda: COMMANDS, all_commands):  # packages are searched only where ours do not match
        known = table()
        for words in (2, 1):
            name = " ".join(argv[:words])
            if name in known:
                return name, known[name], argv[words:]
    from gen.base.parser import near

    first = argv[0]
    if first not in GROUPS:
        hint = near(first, {name.split()[0] for name in known} | {"help"})
        raise UserError(f"unknown command {first!r}{hint} (`gen --help` lists them)")
    kind = "task" if first == "train" else "kind"
    second = sorted(name.split()[1] for name in known if name.startswith(f"{first} "))
    asked = next((word for word in argv[1:2] if word[:1] != "-"), None)
    what = f"name a {kind}" if asked is None else f"unknown {kind} {asked!r}{near(asked, second)}"
    raise UserError(f"{first}: {what}; there is: {', '.join(second)} (`gen {first} {second[0]} --help`)")


if __name__ == "__main__":
    sys.exit(main())
