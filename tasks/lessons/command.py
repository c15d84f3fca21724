"""`gen lesson`: list the lessons, copy one, and open it in Jupyter."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from gen.base.config import parse_command
from gen.base.errors import UserError, notify, printable
from gen.base.fields import Arg
from gen.base.folders import write_text
from gen.base.parser import near
from tasks.lessons.notebook import as_text

HERE = Path(__file__).parent
JUPYTER = ("jupyterlab", "notebook")
"""Packages that open a notebook, the one to be preferred first: ``python -m PACKAGE FILE``."""


@dataclass(frozen=True)
class LessonCommand:
    """Copy a lesson, a notebook, and open it in Jupyter. Without a name: list the lessons."""

    lesson: Annotated[tuple[str, ...], Arg("NAME | NUMBER", positional=True)] = ()
    """Name or number of the lesson; all: copy every one."""
    output: Annotated[str, Arg(aliases=("-o",))] = "lessons"
    """Folder to copy it to. What is there already is kept."""
    script: bool = False
    """Copy the script that the notebook is made from."""
    open: bool = True
    """Start Jupyter, where it is installed: with the lesson, or with the folder if there are several."""


def lesson_command(argv: list[str], command: str) -> None:
    """`gen lesson [NAME]`."""
    config = parse_command(LessonCommand, argv, command)
    known = lessons()
    if not config.lesson:
        for number, (name, path) in enumerate(known.items(), 1):
            print(f"{number}  {name:10}  {title(path)}")
        print("\n`gen lesson 1` copies the first one and opens it in Jupyter.")
        return
    chosen = known if config.lesson == ("all",) else {name: known[name] for name in map(_named, config.lesson)}
    folder = Path(config.output)
    copies = [_copy(path, folder, config.script) for path in chosen.values()]
    if not config.open or config.script:
        return
    program = next(filter(find_spec, JUPYTER), None)
    if program is None:
        notify("Jupyter is not installed: pip install 'gen-toolkit[lessons]', or run the script (--script)")
        return
    shown = copies[0] if len(copies) == 1 else folder
    subprocess.run([sys.executable, "-m", program, str(shown)], check=False)


def lessons() -> dict[str, Path]:
    """Name → the script of each lesson, in their order."""
    return {path.stem.split("_", 2)[2].replace("_", "-"): path for path in sorted(HERE.glob("lesson_*.py"))}


def title(path: Path) -> str:
    """The first heading of a lesson."""
    found = re.search(r"^# # (?:\d+\. )?(.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else path.stem


def _named(word: str) -> str:
    """The lesson of a name or a number. Raises `UserError` if there is none."""
    known = list(lessons())
    if word in known:
        return word
    if word.isdecimal() and 1 <= int(word) <= len(known):
        return known[int(word) - 1]
    there = f"1 to {len(known)}, or {', '.join(known)}"
    raise UserError(f"there is no lesson {word!r}{near(word, known)}; there is: {there}")


def _copy(path: Path, folder: Path, script: bool) -> Path:
    """Copies a lesson, unless it is there, and says so."""
    to = folder / (path.name if script else path.with_suffix(".ipynb").name)
    if to.exists():
        print(f"{printable(str(to))}: is there already, and is kept; another --output gets a fresh copy")
        return to
    text = path.read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(to, text if script else as_text(text))
    print(printable(str(to)))
    return to
