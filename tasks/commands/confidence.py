"""How sure a model is of what it wrote, for people who read it: checks, colours, records."""

from __future__ import annotations

import os
import sys
from typing import Any

from gen.base.errors import UserError, printable
from gen.runtime import is_exported
from gen.search import Hypothesis
from gen.search.confidence import Calibration, located
from gen.search.ensemble import Ensemble

DOUBTFUL, WRONG = 0.5, 0.25
"""Below these, words are yellow, for they are more probably wrong than right, and red: wrong in three of four
cases."""


def check_calibrated(model: Any, run: str, option: str = "--confidence") -> None:
    """Raises `UserError` if nobody knows what the log-probabilities of a model mean."""
    if model.calibration is not None:
        return
    if isinstance(model, Ensemble):
        raise UserError(f"{option}: an ensemble has no calibration; name one run")
    if is_exported(run):
        raise UserError(
            f"{option}: {run} has no calibration: make one for the run that it was exported from "
            "(`gen evaluate RUN --calibrate`), and export that again"
        )
    raise UserError(f"{option}: {run} has no calibration: `gen evaluate {run} --calibrate` makes one")


def in_colour(output: str) -> bool:
    """Whether what is written to ``output`` ("-" for standard output) is read on a terminal that has colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return output == "-" and not plain and sys.stdout.isatty()


def coloured(hypothesis: Hypothesis) -> str:
    """The text of a hypothesis for a terminal, on one line: doubtful words are yellow or, underlined, red."""
    found = ""
    for piece, confidence in located(hypothesis):
        shown = printable(piece)
        if confidence is None or confidence >= DOUBTFUL:
            found += shown
        else:
            found += f"\x1b[{'33' if confidence >= WRONG else '31;4'}m{shown}\x1b[0m"
    return found


def rated(hypothesis: Hypothesis, wanted: bool, output: str) -> str:
    """The text of a hypothesis; if ``wanted``, after its confidence and a tab, and in colours on a terminal."""
    if not wanted:
        return hypothesis.text
    return f"{hypothesis.confidence:.2f}\t{coloured(hypothesis) if in_colour(output) else hypothesis.text}"


def calibration_rows(calibration: Calibration) -> list[tuple[str, str, str]]:
    """What a calibration was made from and how well it holds, to print."""
    known = {
        "spearman": ("Spearman", f"of the confidence in a text with its {calibration.quality}"),
        "word_ece": ("error", "expected calibration error of the words' probabilities"),
    }
    found = calibration.figures
    return [(label, f"{found[name]:.3f}", how) for name, (label, how) in known.items() if name in found]
