"""Where sentences end."""

from __future__ import annotations

import re

_ENDS = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+(?=\S)|(?<=[。！？])(?=\S)")


def sentence_ends(text: str) -> list[int]:
    """Where sentences after the first one begin.

    In doubt there is no end: before a small letter (but where there are no others), and after a full stop that may
    be an abbreviation's: after a number, after a short word with a capital, after one with stops inside.

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
