"""Where words begin and end, in any script: runs of letters, marks and numbers that never cut a grapheme cluster.

A grapheme cluster is what people take for one character: a letter with its vowel signs and accents, an emoji of
several joined code points (Unicode Standard Annex 29).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import regex

_BOUND = r"\p{M}\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}"
"""What continues a character: marks, joiners (ZWJ, ZWNJ), variation selectors."""
_LETTER = r"[\p{L}\p{N}_]"
# In a run of these every boundary of clusters is between two letters. `\X` finds the others: letters that bind
# what follows them.
_RUN = rf"(?={_LETTER})(?:[[\p{{L}}\p{{N}}_{_BOUND}]--[\p{{GCB=Prepend}}\p{{ExtPict}}]]++|(?={_LETTER})\X)++"
IN_WORD = rf"[\p{{L}}\p{{N}}_{_BOUND}'’\-]"
"""A pattern of `regex`: a character of a word, apostrophes and hyphens included."""
CLUSTERS = regex.compile(r"\X")
CONTINUES = regex.compile(rf"[{_BOUND}\p{{GCB=V}}\p{{GCB=T}}\p{{Emoji_Modifier}}\p{{Regional_Indicator}}]")
"""A character that may belong to the cluster of the one before it."""

_ANY = regex.compile(rf"(?V1) ?{_RUN}(?:['’\-]{_RUN})*+| ?(?=[^ ])\X|\X").findall
# Where every character is a cluster of its own, this finds the same words three times as fast.
_PLAIN = re.compile(r" ?\w++(?:['’\-]\w++)*+| ?(?:[^\w\s]|\r\n|[^\S ])| ").findall
_NOT_PLAIN = re.compile(
    r"[^\x00-\u02ff\u0370-\u0482\u048a-\u0530\u2010-\u2027\u20a0-\u20bf\u3000-\u3020\u3041-\u3096\u30a0-\u30ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff9d]"
)


def find_words(text: str) -> list[str]:
    """Words and other characters, each with the space before it; joined, they are the text.

    A single space before a word or mark belongs to it, so a space on its own stands before another one, or at the
    end.

    Example:
        >>> find_words("Cats don't, कुत्ता  दौड़ता")
        ['Cats', " don't", ',', ' कुत्ता', ' ', ' दौड़ता']
    """
    if text.isascii() or not _NOT_PLAIN.search(text):
        return _PLAIN(text)
    # No word crosses a line's end.
    return [
        w for line in text.splitlines(keepends=True) for w in (_ANY if _NOT_PLAIN.search(line) else _PLAIN)(line)
    ]


PATTERNS: dict[str, Callable[[str], list[str]]] = {
    "words": find_words,
    "captions": re.compile(r" ?[^\s']+| ?'[^\s']*").findall,  # clitics ('s, 't) are words; captions have no marks
}
"""Ways to find words by name. Your own go here before a tokenizer that uses them is loaded."""

# Tokenizers saved by older versions name the regular expression itself. No other is taken from a file: some never
# end.
for _old in (r" ?\w+(?:['’\-]\w+)*| ?[^\w\s]|\s", r" ?[^\s']+| ?'[^\s']*"):
    PATTERNS[_old] = re.compile(_old).findall


def pieces_of(text: str, length: int) -> list[str]:
    """Cuts a text into pieces of at most ``length`` characters, before a space where there is one, else between
    clusters.

    Example:
        >>> pieces_of("one two three", 8)
        ['one two', ' three']
    """
    pieces, begin = [], 0
    while len(text) - begin > length:
        end = text.rfind(" ", begin + 1, begin + length + 1)
        if end < 0:
            ends = [match.end() for match in CLUSTERS.finditer(text, begin, begin + length + 1)]
            # The last cluster may go on; one that is longer than all of a piece is cut.
            end = ends[-2] if len(ends) > 1 else begin + length
        pieces.append(text[begin:end])
        begin = end
    return [*pieces, text[begin:]]
