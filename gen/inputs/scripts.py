"""Which script a text is written in, and the characters of scripts written without spaces."""

from __future__ import annotations

from collections.abc import Iterable

import regex

UNSPACED = (
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"),
    *("Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Javanese", "Balinese"),
)
"""Scripts, by Unicode's names, that put no spaces between words."""

_KANA = 0.1  # share of kana in Japanese; a Chinese text may quote some, a Japanese one has about half
_PATTERNS = {name: regex.compile(rf"\p{{Script={name}}}") for name in (*UNSPACED, "Hangul")}
_PUNCTUATION = regex.compile(r"\p{P}+")
_LETTER = regex.compile(r"\p{L}")
_UNSPACED = "".join(rf"\p{{Script={name}}}" for name in UNSPACED)
_CLUSTER = regex.compile(rf"(?=[{_UNSPACED}])\X")


def main_script(texts: Iterable[str]) -> str:
    """The script of most letters.

    Returns:
        "Japanese", "Hangul" or one of `UNSPACED`; "" for any other, which all put spaces between words.

    Example:
        >>> main_script(["一只狗在跑"]), main_script(["犬が走っている"]), main_script(["a dog runs"])
        ('Han', 'Japanese', '')
    """
    text = "\n".join(texts)
    counts = {name: len(pattern.findall(text)) for name, pattern in _PATTERNS.items()}
    counts[""] = len(_LETTER.findall(text)) - sum(counts.values())
    kana = counts.pop("Hiragana") + counts.pop("Katakana")
    if kana > _KANA * (kana + counts["Han"]):
        counts["Japanese"] = kana + counts.pop("Han")
    return max(counts, key=lambda name: (counts[name], name == ""))


def is_unspaced(text: str) -> bool:
    """Whether a text has characters of a script in `UNSPACED`."""
    return not text.isascii() and _CLUSTER.search(text) is not None


def is_punctuation(text: str) -> bool:
    """Whether a text has nothing but punctuation, of any script."""
    return _PUNCTUATION.fullmatch(text) is not None


def space_out(text: str) -> str:
    """A text with spaces around each character (grapheme cluster) of the scripts in `UNSPACED`.

    Example:
        >>> space_out("3只狗 running")
        '3 只  狗  running'
    """
    return _CLUSTER.sub(r" \g<0> ", text)
