"""The page of `gen caption --show`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from gen.search import Hypothesis
from tasks import report
from tasks.caption.pictures import Shown


def write_gallery(path: Path, run: str, shown: Sequence[Shown], words: str = "", language: str = "") -> None:
    """Writes a page with small copies of pictures and their captions.

    Args:
        path: the page.
        run: the name of the model.
        shown: the pictures in order.
        words: that were looked for; "" if none were.
        language: of the captions; "" if nobody knows.
    """
    common = _common([picture for picture, _, _ in shown])
    cards = [
        report.card(
            picture,
            path,
            captions,
            name=os.path.relpath(picture, common),
            remark=_remark(captions, score),
            lang=language,
        )
        for picture, captions, score in shown
    ]
    count = f"{len(shown):,} picture{'s' * (len(shown) != 1)}"
    said = f"{count} captioned by {run}."
    if any(isinstance(captions[0], Hypothesis) for _, captions, _ in shown):
        said += " The confidence is how good a caption probably is; words that are probably wrong are shaded."
    if words:
        said = (
            f"{count}, best first. The score is the log-probability per token of these words, where they fit best "
            f"into the caption by {run}."
        )
    script = files("tasks").joinpath("gallery.js").read_text("utf-8")
    body = report.SEARCH_FIELD + report.gallery(cards)
    report.write_page(path, f"“{words}”" if words else "Captions", said, [], body=body, script=script)


def _remark(captions: Sequence[str | Hypothesis], score: float | None) -> str:
    """What stands below the captions: how well the words fit, or how sure the model is of the first."""
    if score is not None:
        return f"score {score:.2f}".replace("-", "−")
    return f"confidence {captions[0].confidence:.2f}" if isinstance(captions[0], Hypothesis) else ""


def _common(pictures: Sequence[Path]) -> str:
    """The folder that has all pictures: below it, no two have the same name."""
    try:
        return os.path.commonpath([os.path.abspath(picture.parent) for picture in pictures])
    except ValueError:  # on several drives
        return os.curdir
