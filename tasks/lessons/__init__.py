"""`gen lesson`: seven notebooks that teach, and the little that they share.

A lesson is a file ``lesson_N_NAME.py`` in the percent format (``# %%`` begins a cell). It also runs as a script.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def show(picture: str | Path) -> None:
    """Shows a picture file in a notebook; prints its name in a script."""
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(str(picture), width=640))
    else:
        print(f"[{picture}]")


def terminal(line: str) -> int:
    """Prints a command such as ``gen info runs/book``, and does what a terminal would. Returns its exit status."""
    from tasks.cli import main

    print(f"$ {line}")
    return main(shlex.split(line)[1:])
