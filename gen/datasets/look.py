"""A look at texts and pictures before training: lengths, scripts, odd characters, duplicates, leaks."""

from __future__ import annotations

import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import regex

from gen.base.errors import UserError
from gen.datasets.splits import picture_keys, text_key
from gen.inputs.pictures import ahead, open_picture
from gen.inputs.tokenizer import Tokenizer


@dataclass(frozen=True)
class Column:
    """The texts of a part that are one side of its examples, such as the sources.

    Attributes:
        texts: N texts as the files have them, a re-iterable.
        input: the name of the model's input that reads them; "" for what the decoder writes.
        prepare: what training does to a text before it is tokenized, such as lower case.
    """

    texts: Iterable[str]
    input: str = ""
    prepare: Callable[[str], str] = str


@dataclass(frozen=True)
class DataPart:
    """What one part of the data holds, such as the training part.

    Attributes:
        columns: name → texts.
        labels: name → the label of each example; "" for none.
        pictures: the files of its pictures.
    """

    columns: Mapping[str, Column] = field(default_factory=dict)
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pictures: Sequence[Path] = ()


ODD = {
    "control characters": r"[^\P{Cc}\t\n]",
    "replacement characters (U+FFFD)": "\ufffd",
    "zero-width spaces": "[\u180e\u200b\u2060\ufeff]",
    "zero-width joiners": "[\u200c\u200d]",
    "direction marks": "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]",
    "soft hyphens": "\u00ad",
    "unusual spaces": r"[^\P{Z} \u3000]",
    "private or unassigned characters": r"[\p{Co}\p{Cn}\p{Cs}]",
    "markup": r"(?i)&(?:\#\d+|\#x[\da-f]+|[a-z]{2,8});|</?[a-z][^<>]{0,200}>",
}
"""What is seldom meant in a text → a pattern that finds it."""

MOJIBAKE, DECOMPOSED = "mojibake (UTF-8 read as another encoding)", "decomposed characters (not NFC)"

_ODD = {name: regex.compile(pattern) for name, pattern in ODD.items()}
_PLAIN = regex.compile(r"[^\n\t -~]|[&<]")  # where there is nothing of this, nothing is odd


def oddities(text: str) -> dict[str, str]:
    """What is odd in a text: the name of each kind → an excerpt.

    Example:
        >>> oddities("fÃ¼r &amp; wider")
        {'markup': 'fÃ¼r &amp; wider', 'mojibake (UTF-8 read as another encoding)': 'fÃ¼r &amp; wider'}
    """
    if _PLAIN.search(text) is None:
        return {}
    found = {name: _around(text, at) for name, pattern in _ODD.items() if (at := pattern.search(text))}
    if not text.isascii():
        from ftfy.badness import BADNESS_RE, is_bad

        if is_bad(text):
            found[MOJIBAKE] = _around(text, BADNESS_RE.search(text))
        if not unicodedata.is_normalized("NFC", text):
            at = regex.search(r"\p{M}", text)
            found[DECOMPOSED] = _around(text, at)
    return found


def _around(text: str, at: Any) -> str:
    """What a match found, with some text around it."""
    begin, end = at.span() if at else (0, 0)
    cut = text[max(begin - 20, 0) : end + 20]
    return ("…" if begin > 20 else "") + cut.strip("\n") + ("…" if end + 20 < len(text) else "")


@dataclass
class TextFacts:
    """What the texts of a column are.

    Attributes:
        rows: N, their number.
        characters: character → how often it occurs.
        lengths: level ("characters", "words", "subwords") → the tokens of each text, (N,) int.
        unknown: level → the number of tokens that are `<unk>`.
        keys: (N,) uint64, see `text_key`.
        odd: kind → the number of texts that have it, the first of them (from 1 on), and an excerpt.
    """

    rows: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Any] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    keys: Any = field(default_factory=lambda: array("Q"))
    odd: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    @property
    def repeated(self) -> int:
        """The number of texts that occur before."""
        return len(self.keys) - len(np.unique(self.keys))

    @property
    def scripts(self) -> dict[str, float]:
        """Script → its share of the letters, most first."""
        counts: Counter[str] = Counter()
        for character, count in self.characters.items():
            if character.isalpha():
                counts[_script(character)] += count
        total = max(counts.total(), 1)
        return {name: count / total for name, count in counts.most_common()}

    def quantiles(self, level: str) -> dict[str, int]:
        """The shortest, the 5 % shortest, the median, the 5 % longest and the longest length."""
        names = {"min": 0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1}
        if not len(self.lengths[level]):
            return {}
        found = np.quantile(self.lengths[level], list(names.values()), method="nearest")
        return {name: int(value) for name, value in zip(names, found, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        levels = {
            level: {"total": int(counts.sum()), "unknown": self.unknown[level], **self.quantiles(level)}
            for level, counts in self.lengths.items()
        }
        odd = {kind: {"rows": n, "first": row, "excerpt": text} for kind, (n, row, text) in self.odd.items()}
        return {
            "rows": self.rows,
            "repeated": self.repeated,
            "different_characters": len(self.characters),
            "lengths": levels,
            "scripts": {name: round(share, 4) for name, share in self.scripts.items()},
            "odd": odd,
        }


def _script(letter: str) -> str:
    """The script of a letter, by the first word of its Unicode name."""
    words = [w for w in unicodedata.name(letter, "UNKNOWN").split() if w not in ("FULLWIDTH", "HALFWIDTH")]
    return {"CJK": "Han", "MODIFIER": "Other", "MATHEMATICAL": "Other"}.get(words[0], words[0].capitalize())


def look_at_texts(column: Column, tokenizers: Mapping[str, Tokenizer]) -> TextFacts:
    """Reads a column once.

    Args:
        column: its texts.
        tokenizers: level → the tokenizer that training would use.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> tokenizers = {"characters": CharTokenizer.train(["a dog"])}
        >>> facts = look_at_texts(Column(["a dog", "A dog", "ein Hund"]), tokenizers)
        >>> facts.rows, facts.repeated, facts.quantiles("characters")["max"], facts.unknown["characters"]
        (3, 1, 8, 7)
    """
    facts = TextFacts(lengths={level: array("I") for level in tokenizers})
    for text in column.texts:
        facts.rows += 1
        facts.characters.update(text)
        facts.keys.append(text_key(text))
        for kind, excerpt in oddities(text).items():
            count, first, shown = facts.odd.get(kind, (0, facts.rows, excerpt))
            facts.odd[kind] = (count + 1, first, shown)
        prepared = column.prepare(text)
        for level, tokenizer in tokenizers.items():
            token_ids = tokenizer.encode_array(prepared)
            facts.lengths[level].append(len(token_ids))
            facts.unknown[level] += int((token_ids == tokenizer.unk_id).sum())
    facts.lengths = {level: np.array(counts, np.int64) for level, counts in facts.lengths.items()}
    facts.keys = np.array(facts.keys, np.uint64)
    return facts


@dataclass
class PictureFacts:
    """What the pictures of a part are.

    Attributes:
        sides: (N, 2) int, width and height in pixels of those that can be read.
        keys: see `picture_keys`.
        unreadable: one line each; training leaves them out.
    """

    sides: np.ndarray
    keys: np.ndarray
    unreadable: list[str]

    @property
    def repeated(self) -> int:
        """The number of pictures that occur before, perhaps under another name."""
        return len(self.keys) - len(np.unique(self.keys))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        shorter = self.sides.min(1) if len(self.sides) else np.zeros(1, int)
        return {
            "pictures": len(self.keys),
            "repeated": self.repeated,
            "unreadable": self.unreadable,
            "shorter_side": {
                "min": int(shorter.min()),
                "median": int(np.median(shorter)),
                "max": int(shorter.max()),
            },
        }


def look_at_pictures(pictures: Sequence[Path], watch: Callable[[str, int, int], None]) -> PictureFacts:
    """Decodes every picture once, as training does.

    Args:
        pictures: N files.
        watch: shows the progress: what, done, total.
    """
    pictures = list(dict.fromkeys(pictures))

    def size(path: Path) -> tuple[int, int]:
        from PIL import Image

        open_picture(path, wanted=224)
        with Image.open(path) as image:
            return image.size

    sides, unreadable, done = [], [], 0
    for batch in ahead(pictures, size, 64):
        for _, found in batch:
            if isinstance(found, UserError):
                unreadable.append(str(found))
            else:
                sides.append(found)
        done += len(batch)
        watch("looking at pictures", done, len(pictures))
    return PictureFacts(np.array(sides, np.int64).reshape(-1, 2), picture_keys(pictures), unreadable)


@dataclass(frozen=True)
class Leak:
    """Rows of a part that another part has, too.

    Attributes:
        what: the column, "pairs" for all columns together, or "pictures".
        part, other: names of the parts.
        count: how many rows of ``other`` are in ``part``.
        rows: the number of rows of ``other``.
    """

    what: str
    part: str
    other: str
    count: int
    rows: int


def leaks(keys: Mapping[str, Mapping[str, np.ndarray]]) -> list[Leak]:
    """What parts of the data share.

    Args:
        keys: part → column → hashes of its rows.

    Example:
        >>> leaks({"training": {"text": np.array([1, 2])}, "validation": {"text": np.array([2, 2, 3])}})
        [Leak(what='text', part='training', other='validation', count=2, rows=3)]
    """
    found = []
    for part, other in combinations(keys, 2):
        for name in keys[part].keys() & keys[other].keys():
            count = int(np.isin(keys[other][name], keys[part][name]).sum())
            if count:
                found.append(Leak(name, part, other, count, len(keys[other][name])))
    return sorted(found, key=lambda leak: (leak.part, leak.other, leak.what))
