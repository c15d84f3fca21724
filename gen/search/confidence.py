"""How sure a model is: the probability that a word is right, and how good a text probably is.

A model's log-probabilities order its words and its texts well, but are no frequencies: it was trained on right
prefixes, with smoothed targets, and writes on its own. A `Calibration`, made from held-out data (see
`gen.metrics.confidence`), says how often words of a log-probability were in the reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import regex

from gen.base.errors import UserError, reason_of
from gen.base.files import read_whole
from gen.base.folders import write_bytes
from gen.inputs.scripts import space_out
from gen.inputs.tokenizer import Tokenizer
from gen.inputs.words import find_words
from gen.search.output import Hypothesis, Word
from gen.search.spelling import Spelling

FILE = "confidence.json"
"""The file of a model folder, or of an exported one, that holds its calibration."""

FORMAT = 1
"""Version of that file."""

MOST_BYTES = 1 << 20
"""Largest size of that file."""


@dataclass(frozen=True)
class Curve:
    """A function that never falls: linear between its knots, and constant outside.

    Args:
        x: its knots, increasing.
        y: their values, 0 to 1, never falling.

    Raises:
        ValueError: they are something else.

    Example:
        >>> Curve((-2.0, 0.0), (0.5, 1.0))(np.array([-9.0, -1.0, 0.0])).tolist()
        [0.5, 0.75, 1.0]
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.x or len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} knots have {len(self.y)} values")
        if not all(isinstance(v, int | float) and isfinite(v) for v in (*self.x, *self.y)):
            raise ValueError("a knot is no finite number")
        if any(a >= b for a, b in zip(self.x, self.x[1:], strict=False)):
            raise ValueError("its knots do not increase")
        if any(a > b for a, b in zip(self.y, self.y[1:], strict=False)) or self.y[0] < 0 or self.y[-1] > 1:
            raise ValueError("its values fall, or are not between 0 and 1")

    def __call__(self, values: Any) -> np.ndarray:
        return np.interp(values, self.x, self.y)


@dataclass(frozen=True)
class Calibration:
    """What a model's log-probabilities mean.

    Attributes:
        word: the log-probability of a word (the sum over its tokens) → the probability that it is in a reference.
        text: the mean log-probability per token of a text → its expected quality, 0 to 1.
        quality: what the quality is, such as chrF.
        figures: what it was made from, and how well it held there.
    """

    word: Callable[[Any], np.ndarray]
    text: Callable[[Any], np.ndarray]
    quality: str = ""
    figures: dict[str, float] = field(default_factory=dict)

    def rate(self, hypothesis: Hypothesis, tokenizer: Tokenizer, known: bool = False) -> None:
        """Fills in how sure the model is of a hypothesis and of its words.

        Args:
            hypothesis: finished.
            tokenizer: of its tokens.
            known: it is what a memory has, so it is sure.
        """
        if known:
            hypothesis.confidence = 1.0
            hypothesis.words = [Word(word, 1.0) for _, word in words_of(hypothesis.text)]
            return
        log_probs = hypothesis.log_probs
        hypothesis.confidence = float(self.text(sum(log_probs) / max(len(log_probs), 1)))
        written = hypothesis.text
        if hypothesis.kept:
            unknown = tokenizer.unk_id in hypothesis.token_ids  # and replaced
            written = "".join(hypothesis.tokens) if unknown else tokenizer.decode(hypothesis.token_ids)
        words, sums = word_log_probs(hypothesis, written, tokenizer)
        hypothesis.words = list(map(Word, words, self.word(sums).tolist()))
        if hypothesis.kept:
            hypothesis.words = list(_with_kept(hypothesis))

    def to_bytes(self) -> bytes:
        """The content of its file."""
        curves = {name: {"x": c.x, "y": c.y} for name, c in (("word", self.word), ("text", self.text))}  # type: ignore[attr-defined]
        about = {"format": FORMAT, "quality": self.quality, "figures": self.figures}
        return (json.dumps({**about, **curves}) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Calibration:
        """The calibration that `to_bytes` wrote. Raises ValueError for anything else."""
        try:
            found = json.loads(data)
            if found["format"] > FORMAT:
                raise ValueError(f"format {found['format']} is newer than this version knows ({FORMAT})")
            word, text = (Curve(tuple(found[n]["x"]), tuple(found[n]["y"])) for n in ("word", "text"))
            return cls(word, text, str(found["quality"]), {k: float(v) for k, v in found["figures"].items()})
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


RAW = Calibration(np.asarray, np.asarray)
"""Log-probabilities as they are: what calibrations are made from."""


def calibration_files(calibration: Calibration | None) -> dict[str, bytes]:
    """The file of a calibration, by name; none where there is no calibration, or `RAW`."""
    made = calibration is not None and isinstance(calibration.word, Curve)
    return {FILE: calibration.to_bytes()} if calibration and made else {}


def read_calibration(folder: Path) -> Calibration | None:
    """The calibration of a model folder; None if it has none.

    Raises:
        UserError: the file is damaged, or something else.
    """
    path = folder / FILE
    try:
        return Calibration.from_bytes(read_whole(path, MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: is no calibration ({reason_of(error)}): delete it; `gen evaluate RUN --calibrate` makes a "
            "new one"
        ) from error


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Puts a calibration into a model folder, in place of the one that it has."""
    write_bytes(folder / FILE, calibration.to_bytes())


_LETTER = regex.compile(r"[\p{L}\p{N}]")


def words_of(text: str) -> Iterator[tuple[int, str]]:
    """The words of a text, and where they begin. Marks are none; a character of a script without spaces is one.

    Example:
        >>> list(words_of("Ja, 一只 dog."))
        [(0, 'Ja'), (4, '一'), (5, '只'), (7, 'dog')]
    """
    at = 0
    for part in find_words(text):
        for word in space_out(part).split():
            begin = text.index(word, at)
            at = begin + len(word)
            if _LETTER.search(word):
                yield begin, word


def _with_kept(hypothesis: Hypothesis) -> Iterator[Word]:
    """The words of a text in which there are protected spans, which are sure, from the words that were written."""
    at = 0
    for begin, word in words_of(hypothesis.text):
        if any(k.target <= begin < k.target + len(k.text) for k in hypothesis.kept):
            yield Word(word, 1.0)
            continue
        same = (i for i in range(at, len(hypothesis.words)) if hypothesis.words[i].text == word)
        if (found := next(same, None)) is not None:
            yield hypothesis.words[found]
            at = found + 1


def word_log_probs(hypothesis: Hypothesis, text: str, tokenizer: Tokenizer) -> tuple[list[str], np.ndarray]:
    """The N words of a text and their log-probabilities, (N,) float64: of all tokens that are in a word.

    Args:
        hypothesis: its tokens.
        text: what they spell.
        tokenizer: of them.
    """
    spelling, waiting, whole = Spelling(tokenizer, []), 0.0, ""
    begins, parts = list[int](), list[float]()  # where pieces of the text begin, and their log-probabilities
    for at, (token_id, log_prob) in enumerate(zip(hypothesis.token_ids, hypothesis.log_probs, strict=False)):
        waiting += log_prob  # EOS comes after them
        piece = spelling.add(token_id)
        if token_id == tokenizer.unk_id and hypothesis.tokens:  # it may be replaced
            piece = hypothesis.tokens[at]
        if piece:  # else it is a part of a character
            begins.append(len(whole))
            parts.append(waiting)
            whole, waiting = whole + piece, 0.0
    found = list(words_of(text)) if parts else []
    shift = max(whole.find(text), 0)  # the text may lack a space at the beginning
    ends = [begin + shift + len(word) for begin, word in found]
    first = np.searchsorted(begins, [begin + shift for begin, _ in found], "right") - 1
    sums = [sum(parts[i:j]) for i, j in zip(first, np.searchsorted(begins, ends), strict=True)]
    return [word for _, word in found], np.array(sums)


def mean_confidence(parts: Sequence[Hypothesis]) -> float | None:
    """The confidence in a text of several hypotheses: the mean over their tokens."""
    sizes = [max(len(h.log_probs), 1) for h in parts]
    sure = [h.confidence for h in parts]
    return None if None in sure else float(np.average(sure, weights=sizes))  # type: ignore[arg-type]


def confidence_record(hypothesis: Hypothesis) -> dict[str, Any]:
    """The confidence and the words of a hypothesis as JSON has them; empty where its model is not calibrated."""
    if hypothesis.confidence is None:
        return {}
    words = [{"word": text, "confidence": round(sure, 4)} for text, sure in hypothesis.words]
    return {"confidence": round(hypothesis.confidence, 4), "words": words}


def located(hypothesis: Hypothesis) -> Iterator[tuple[str, float | None]]:
    """The text of a hypothesis in pieces: each word with its confidence, and what is between them with None."""
    text, at = hypothesis.text, 0
    for word, confidence in hypothesis.words:
        begin = text.find(word, at)
        if begin < 0:
            continue
        if begin > at:
            yield text[at:begin], None
        yield word, confidence
        at = begin + len(word)
    if at < len(text):
        yield text[at:], None
