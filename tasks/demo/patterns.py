"""The four patterns of recurrent networks, with a working example of each: two small classifiers complete them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from gen.base.folders import write_text
from gen.datasets.captions import read_captions
from gen.datasets.pair_files import PairFiles
from gen.models.model import Model
from tasks import report
from tasks.demo.training import train_part
from tasks.demo.translation import LANGUAGES
from tasks.display import console, say

ARRANGEMENTS = {"above": "one above the other", "below": "one above the other"}
SIDE_BY_SIDE = "side by side"
SENTENCES, PICTURES = 1500, 1000

Pattern = tuple[str, str, tuple[int, int], str | bytes, str]
"""Title, remark, the numbers of inputs and outputs, what goes in (a text or a small JPEG), what came out."""

_BOX = '<rect x="{x}" y="{y}" width="26" height="26" rx="5" class="{kind}"/>'  # an input, a state or an output
_ARROW = '<path d="M{x1} {y1}L{x2} {y2}" class="arrow" marker-end="url(#tip)"/>'
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="5" markerHeight="5" orient="auto">'
    '<path d="M0 0L6 3L0 6z" class="tip"/></marker></defs>'
)


def patterns_part(out: Path, budget: str) -> list[report.Section]:
    """Trains the two classifiers. Returns the section that shows all four patterns; the translation model and the
    caption model are in ``out`` already."""
    console.print("[bold]Labels[/bold]: the language of a sentence, the arrangement of a picture\n")
    sentences, pictures = write_sentences(out), write_arrangements(out)
    quick: dict[str, Any] = {"hidden_size": 32, "embedding_size": 32, "validations": 3, "learning_rate": 5e-3}
    language, *_ = train_part(
        "classify", out, budget, name="language", data=[str(sentences)], label="language", encoder_size=32, **quick
    )
    arrangement, *_ = train_part(
        "classify",
        out,
        budget,
        name="arrangement",
        data=[str(pictures)],
        image="image",
        images=str(out / "pictures"),
        label="arrangement",
        encoder_size=64,
        **quick,
    )
    return [_patterns(out, language, arrangement)]


def write_sentences(out: Path) -> Path:
    """A table of the phrase book's sentences and their language."""
    pairs = list(PairFiles([str(out / "phrase-book.tsv")]))[:SENTENCES]
    rows = [(source.partition(": ")[2], "English") for source, _ in pairs[:: len(LANGUAGES)]]
    rows += [(target, LANGUAGES[i % len(LANGUAGES)]) for i, (_, target) in enumerate(pairs)]
    text = io.StringIO()
    csv.writer(text).writerows([("sentence", "language"), *rows])
    return _written(out / "languages.csv", text.getvalue())


def write_arrangements(out: Path) -> Path:
    """A table of drawn pictures and how their two things lie."""
    train = read_captions(str(out / "pictures")).split("train")[:PICTURES]
    rows = [{"image": c.picture.name, "arrangement": arranged(c.captions[0])} for c in train]
    return _written(out / "arrangements.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def arranged(caption: str) -> str:
    """How the two things of a caption lie."""
    return next((name for word, name in ARRANGEMENTS.items() if f" {word} " in caption), SIDE_BY_SIDE)


def _written(path: Path, text: str) -> Path:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def _patterns(out: Path, language: Model, arrangement: Model) -> report.Section:
    picture = read_captions(str(out / "pictures")).split("valid")[0].picture
    source, _ = next(iter(PairFiles([str(out / "phrase-book-held-out.tsv")])))
    sentence = source.partition(": ")[2]
    shown = report.small_picture(picture)
    examples: list[Pattern] = [
        ("One to one", "a picture → a label", (1, 1), shown, str(arrangement(picture))),
        ("One to many", "a picture → words", (1, 4), shown, str(Model.load(out / "caption")(picture))),
        ("Many to one", "words → a label", (4, 1), sentence, str(language(sentence))),
        ("Many to many", "words → words", (4, 4), source, str(Model.load(out / "translate")(source))),
    ]
    for title, what, _, _, answer in examples:
        say(f"  {title}, {what}: {answer}")
    said = (
        "What goes in and what comes out may each be one or many. One decoder does all four: what is read becomes "
        "its memory, and a label is a text of one token."
    )
    return report.section("Four patterns, one decoder", said, drawn(examples))


def drawn(examples: Sequence[Pattern]) -> str:
    """Patterns of a recurrent network side by side."""
    found = []
    for number, (title, remark, (inputs, outputs), given, answer) in enumerate(examples):
        shown = (
            f'<img alt="" src="{report.data_url(given)}">'
            if isinstance(given, bytes)
            else f"<p>{escape(given)}</p>"
        )
        network = _unrolled(inputs, outputs, f"{title}: {remark}", _TIP if not number else "")
        found.append(
            f"<figure><figcaption>{escape(title)} <span>{escape(remark)}</span></figcaption>"
            f"{network}{shown}<p><b>→ {escape(answer)}</b></p></figure>"
        )
    return f'<div class="patterns">{"".join(found)}</div>'


def _unrolled(inputs: int, outputs: int, name: str, before: str) -> str:
    """A network unrolled: inputs below, states between, outputs above."""
    states = inputs + outputs - 1 if inputs > 1 else outputs
    xs = [6 + 34 * i for i in range(states)]
    parts = [before]
    for i, x in enumerate(xs):
        parts.append(_BOX.format(x=x, y=44, kind="state"))
        if i < inputs:
            parts += [_BOX.format(x=x, y=86, kind="given"), _ARROW.format(x1=x + 13, y1=86, x2=x + 13, y2=72)]
        if i >= states - outputs:
            parts += [_BOX.format(x=x, y=2, kind="said"), _ARROW.format(x1=x + 13, y1=44, x2=x + 13, y2=30)]
        if i:
            parts.append(_ARROW.format(x1=x - 8, y1=57, x2=x - 1, y2=57))
    size = f'viewBox="0 0 {6 + 34 * 7} 114"'
    return f'<svg role="img" aria-label="{escape(name)}" {size}>{"".join(parts)}</svg>'
