"""How sure a model is of what it wrote, for people who read it: checks, colours, records."""

from __future__ import annotations

import os
import sys
from typing import Any

from gen.base.errors import UserError, printable
from gen.runtime import is_exported
from gen.search import Hypothesis
from gen.search.confidence import located

DOUBTFUL, WRONG = 0.65, 0.35
"""Below these, words are yellow, and red: nearer to a half than to right; nearer to wrong than to a half."""


def check_calibrated(model: Any, run: str, option: str = "--confidence") -> None:
    """Raises `UserError` if nobody knows what the log-probabilities of a model mean."""
    if model.calibration is not None:
        return
    if getattr(model, "models", None):
        raise UserError(f"{option}: an ensemble has no calibration; name one run")
    if is_exported(run):
        raise UserError(
            f"{option}: {run} has no calibration: `gen evaluate RUN --calibrate` makes one for the run that it was "
            "exported from, then export that again"
        )
    raise UserError(f"{option}: {run} has no calibration: `gen evaluate {run} --calibrate` makes one")


def in_colour(output: str) -> bool:
    """Whether what is written to ``output`` ("-" for standard output) is read on a terminal that has colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return output == "-" and not plain and sys.stdout.isatty()


def coloured(hypothesis: Hypothesis) -> str:
    """The text of a hypothesis for a terminal, on one line: doubtful words in yellow, those probably wrong in red
    and underlined."""
    found = ""
    for piece, confidence in located(hypothesis):
        shown = printable(piece)
        if confidence is None or confidence >= DOUBTFUL:
            found += shown
        else:
            found += f"\x1b[{'33' if confidence >= WRONG else '31;4'}m{shown}\x1b[0m"
    return found


def confidence_record(hypothesis: Hypothesis) -> dict[str, Any]:
    """The fields of a hypothesis in JSON output."""
    words = [{"word": word, "confidence": round(confidence, 4)} for word, confidence in hypothesis.words]
    sure = hypothesis.confidence
    return {"confidence": None if sure is None else round(sure, 4), "words": words}
