"""Splitting texts into pieces that a translation model can read, and joining what it made of them."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

_ENDS = re.compile(
    r"(?<=[.!?…।॥؟۔።])[\"'”’»)\]]*\s+(?=\S)|(?<=[。！？])(?=[^\s.!?…。！？」』）】》〉〕\"'”’»)\]])"
)

_VOWELLED = (
    "abb abs abt adm anm app apr art asst aufl aug ave bd ca cap capt cie co col corp dec dept dez dipl dra "
    "ebd ed eds eq est etc evtl feb fig gen gov hon hrsg inc ing jan jul jun kap maj mar mio mlle mme no nov "
    "oct okt op pres prof rep rev sen sep sept sra sta ste tab tel univ usw vol ziff"
)
_ABBREVIATIONS = frozenset(_VOWELLED.split())
"""Of those that have a vowel; others are told by having none."""


def sentence_ends(text: str) -> list[int]:
    """The positions where the second and later sentences of a text begin.

    In doubt it does not split: before a lower-case letter (unless the whole text is lower-case), and after a full
    stop that may belong to an abbreviation: after a number, a capitalised word that often is one or has no vowel,
    or a word with a full stop inside.

    Args:
        text: any text.

    Returns:
        Indices into ``text``, ascending; [] for a single sentence.

    Example:
        >>> sentence_ends("Mr. Smith has a dog. It runs.")
        [21]
    """
    small = not text.islower()

    def ends(match: re.Match[str]) -> bool:
        word = text[max(match.start() - 20, 0) : match.start()].split()[-1]
        if small and text[match.end()].islower():
            return False
        stem = word.removesuffix(".").strip("\"'“”„‘’«»()[]")
        short = stem[:1].isupper() and (len(stem) == 1 or stem.lower() in _ABBREVIATIONS or _is_clipped(stem))
        return not word.endswith(".") or not (stem.isdigit() or "." in stem or short)

    return [match.end() for match in _ENDS.finditer(text) if ends(match)]


def _is_clipped(stem: str) -> bool:
    """Whether a word is short and has no vowel, such as "Mr" and "Nr"."""
    return len(stem) <= 4 and not set(unicodedata.normalize("NFD", stem.lower())) & set("aeiouyæøœ")


class Pieces(NamedTuple):
    """The pieces of a line (none for an empty line), and whether a sentence was cut."""

    texts: list[str]
    cut: bool


_PAUSES = r"(?<=[,;:—])\s+|(?<=[，；：、])"


def split_line(processor: Any, line: str) -> Pieces:
    """Splits a line into pieces to translate.

    A model trained on single sentences skips some if there are several. So a line is split at sentence ends, and
    neighbours are joined up to the usual length of lines of several sentences in training. A sentence more than
    twice as long as all in training is cut: at pauses, between words, or anywhere.
    """
    most = 2 * processor.max_length or sys.maxsize

    def split(text: str, ends: Callable[[str], list[int]], limit: int) -> list[str]:
        def fits(part: str) -> bool:
            # A character has at most four tokens (bytes), so only long texts are encoded.
            return 4 * len(part) + 2 <= limit or len(processor.encode(part)) <= limit

        return [text] if fits(text) else _cut(text, ends(text), fits)

    sentences = split(line, sentence_ends, processor.multi_sentence_p90 or most) if line else []
    texts = sentences
    for boundary in (_PAUSES, r"\s+", ""):
        texts = [part for text in texts for part in split(text, partial(_ends_of, boundary), most)]
    return Pieces(texts, len(texts) > len(sentences))


def _ends_of(boundary: str, text: str) -> list[int]:
    return [match.end() for match in re.finditer(boundary, text)]


def _cut(text: str, ends: list[int], fits: Callable[[str], bool]) -> list[str]:
    """Cuts a text at as few of ``ends`` as the parts fit."""
    cuts = sorted({*ends, len(text)})
    parts, begin = [], 0
    for cut, following in zip(cuts, [*cuts[1:], None], strict=True):
        if following is None or not fits(text[begin:following].strip()):
            parts.append(text[begin:cut].strip())
            begin = cut
    return [part for part in parts if part]


def continued(text: str, further: str) -> str:
    """Joins two pieces of a text, with a space if the script uses spaces."""
    wide = text and unicodedata.category(text[-1])[0] == "P" and unicodedata.east_asian_width(text[-1]) in "WF"
    return f"{text} {further}" if text and further and not wide else text + further
