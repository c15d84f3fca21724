"""Makes `gen/__init__.pyi`, from which editors and type checkers know the public names and the options of
`gen.train`: `python -m tests.stubs` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import gen
from gen.base.fields import Option, options_of
from gen.training.config import config_class
from gen.training.task import Task
from tasks.caption.task import Caption
from tasks.classify.task import Classify
from tasks.text.task import Text
from tasks.translate.task import Translate

PATHS = {"images", "valid_images", "weights", "init_from"}
"""Options of one text that is, or may be, a path."""

NO_PATHS = {"freeze"}
"""Options of several texts that are no paths."""

FILE = Path(gen.__file__).with_suffix(".pyi")

HEAD = """\
# Made by tests/stubs.py from the dataclasses of the options: change those, and run it again.

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, overload

"""

LOAD = """
_Path = str | PathLike[str]
_Callbacks = Callable[[Event], Any] | Sequence[Callable[[Event], Any]] | None

__version__: str

def load(path: str | PathLike[str], device: str = "cpu", precision: str = "fp32") -> Model | Runtime: ...
"""

OWN = """\
@overload
def train(task: str | type[Task], *, out: _Path = "", callbacks: _Callbacks = (), **options: Any) -> Run: ...
"""


def stub() -> str:
    """The text of the file."""
    lazy = {**gen._LAZY, "Event": "gen.training.validation"}
    del lazy["train"]
    names = sorted(lazy, key=lambda name: (lazy[name], name))
    imports = "".join(
        f"from {lazy[name]} import {name}{f' as {name}' if name in gen._LAZY else ''}\n" for name in names
    )
    return HEAD + imports + LOAD + "".join(map(_overload, (Text, Translate, Caption, Classify))) + OWN


def _overload(task: type[Task]) -> str:
    """The signature of `gen.train` for a task; the options of its data first."""
    options = [o for o in options_of(config_class(task)) if o.name != "out" and o.name not in task.unused]
    lines = [f"    task: Literal[{_text(task.name)}],", "    *,"]
    lines += [f"    {o.name}: {_hint(o)} = {_default(o.default)}," for o in options]
    lines += ['    out: _Path = "",', "    callbacks: _Callbacks = (),"]
    return "@overload\ndef train(\n" + "\n".join(lines) + "\n) -> Run: ...\n"


def _hint(option: Option) -> str:
    if option.name in PATHS:
        return "_Path"
    made = _type(option.hint)
    return made.replace("_Path", "str") if option.name in NO_PATHS else made


def _type(hint: Any) -> str:
    """A type as source; several values may be one, and texts that may be files may be paths."""
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint.__name__
    if get_origin(hint) is Literal:
        return f"Literal[{', '.join(map(_text, get_args(hint)))}]"
    if get_origin(hint) is tuple:
        inner = "_Path" if get_args(hint)[0] is str else _type(get_args(hint)[0])
        return f"{inner} | Sequence[{inner}]"
    if hasattr(hint, "__metadata__"):
        return _type(hint.__origin__)
    return " | ".join(map(_type, get_args(hint)))


def _default(value: Any) -> str:
    """A default as source; the value matters only where it is short."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_default, value))}{',' if len(value) == 1 else ''})"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


if __name__ == "__main__":
    FILE.write_text(stub(), encoding="utf-8")
