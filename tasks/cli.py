"""The command `gen`: which words lead where. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from signal import SIGTERM, signal
from typing import Any

from gen.base.errors import command_line_terms

HELP = """\
gen: sequence generation around one shared recurrent decoder

  gen demo                         train a small model on Python's own documentation and look at it
  gen train text --data FILE --out runs/NAME
                                   train a language model on a text (characters, words or subwords)
  gen generate RUN --prompt TEXT   write
  gen suggest RUN --prompt TEXT    complete the word being typed
  gen train translate --train SOURCE TARGET --out runs/NAME
                                   train a translation model on sentence pairs
  gen translate RUN < FILE         translate line by line
  gen train caption --images FOLDER --captions FILE --out runs/NAME
                                   train a model that describes pictures
  gen caption RUN PICTURE...       describe pictures
  gen plot attention RUN --text TEXT | PICTURE -o FILE
                                   what the decoder looked at
  gen score RUN FILE               how probable each line, or each pair, is
  gen evaluate RUN                 perplexity of a language model, BLEU of a translation model
  gen info RUN                     what a model is
  gen compare RUN RUN...           several runs side by side
  gen export RUN -o FOLDER [--int8]
                                   write a model as a folder that runs fast, and without torch
  gen push RUN USER/NAME           share a model on the Hugging Face Hub

`gen COMMAND --help` lists a command's options. RUN is the folder of a run or of a model, or hf:USER/NAME.
"""

COMMANDS = {
    "train text": "tasks.text.task:train_command",
    "train translate": "tasks.translate.task:train_command",
    "train caption": "tasks.caption.task:train_command",
    "generate": "tasks.text.generate:generate_command",
    "translate": "tasks.translate.command:translate_command",
    "caption": "tasks.caption.command:caption_command",
    "plot attention": "tasks.commands.plot:attention_command",
    "suggest": "tasks.text.suggest:suggest_command",
    "score": "tasks.commands.evaluate:score_command",
    "evaluate": "tasks.commands.evaluate:evaluate_command",
    "info": "tasks.commands.evaluate:info_command",
    "compare": "tasks.commands.compare:compare_command",
    "export": "tasks.commands.export:export_command",
    "push": "tasks.commands.push:push_command",
    "demo": "tasks.demo.command:demo_command",
}
"""What is typed → the module and the function that does it, given the words after it and the command itself."""


@command_line_terms()
def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0, 1 where part of the input could not be used, 2 for the user's
    mistakes, 130 for Ctrl-C and 143 for SIGTERM, where there was something to save."""
    from gen.base.errors import ConfigError, Terminated, UserError, notify

    if argv is None:
        argv = sys.argv[1:]
        signal(SIGTERM, _terminate)  # so that what was begun is cleared away
    try:
        groups = {name.split()[0] for name in COMMANDS if " " in name}
        asks = argv[1:] in (["-h"], ["--help"]) and argv[0] in groups
        if not argv or argv[0] in ("-h", "--help", "help") or asks:
            print(HELP, end="")
        elif argv[0] in ("-V", "--version"):
            from gen import __version__

            print(f"gen-toolkit {__version__}")
        else:
            command, rest = _find(argv)
            module, _, function = COMMANDS[command].partition(":")
            return getattr(import_module(module), function)(rest, f"gen {command}") or 0
    except ConfigError as error:
        for line in error.errors:
            notify(line)
        return 2
    except UserError as error:
        notify(str(error))
        return 2
    except Terminated:
        notify("terminated")
        return 143
    except KeyboardInterrupt:
        notify("interrupted")
        return 130
    except ModuleNotFoundError as error:
        from importlib.util import find_spec

        if find_spec("gen.models.model"):  # all of the toolkit is here, and should be whole
            raise
        remedy = "'gen-runtime[cli]'" if error.name in ("tyro", "yaml") else "gen-toolkit instead of gen-runtime"
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
    return 0


def _terminate(number: int, frame: Any) -> None:
    from gen.base.errors import Terminated

    raise Terminated


def _find(argv: list[str]) -> tuple[str, list[str]]:
    """The command that ``argv`` begins with, and the words after it."""
    from gen.base.errors import UserError

    for words in (2, 1):
        name = " ".join(argv[:words])
        if name in COMMANDS:
            return name, argv[words:]
    first = argv[0]
    if second := sorted(name.split()[1] for name in COMMANDS if name.startswith(f"{first} ")):
        kind = "task" if first == "train" else "kind"
        what = f"unknown {kind} {argv[1]!r}" if argv[1:] and not argv[1].startswith("-") else f"name a {kind}"
        raise UserError(f"{first}: {what}; there is: {', '.join(second)} (`gen {first} {second[0]} --help`)")
    near = get_close_matches(first, {name.split()[0] for name in COMMANDS}, 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"unknown command {first!r}{hint} (`gen --help` lists them)")


if __name__ == "__main__":
    sys.exit(main())
