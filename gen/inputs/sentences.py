"""Sentence splitting."""

from __future__ import annotations

import re

_ENDS = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+(?=\S)|(?<=[。！？])(?=\S)")


def sentence_ends(text: str) -> list[int]:
    """The positions where the second and later sentences of a text begin.

    In doubt it does not split: before a lower-case letter (unless the whole text is lower-case), and after a full
    stop that may belong to an abbreviation: after a number, a short capitalised word, or a word with a full stop
    inside.

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
        short = len(stem) <= 4 and stem[:1].isupper()
        return not word.endswith(".") or not (stem.isdigit() or "." in stem or short)

    return [match.end() for match in _ENDS.finditer(text) if ends(match)]
