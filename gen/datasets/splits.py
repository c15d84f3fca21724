"""Splits without leaks: what is equal stays on one side, whatever the order of the rows."""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gen.base.files import TextFiles


def text_key(text: str) -> int:
    """A hash of a text, 64 bits, that does not depend on case, spaces or the form of accents.

    Example:
        >>> text_key(" A  dog") == text_key("a dog") != text_key("a cat")
        True
    """
    plain = " ".join(unicodedata.normalize("NFC", text.casefold()).split())
    return int.from_bytes(hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest(), "little")


_SAME = 1 << 16
"""Bytes at the beginning that are equal in two pictures only if they are the same, given the same length."""


def picture_keys(pictures: Sequence[Path]) -> np.ndarray:
    """Hashes, (N,) uint64, that are equal for one picture under several names. Reads only what might be equal."""
    sizes = [picture.stat().st_size for picture in pictures]
    times = Counter(sizes)

    def key(picture: Path, size: int) -> int:
        content = b""
        if times[size] > 1:
            with suppress(OSError), picture.open("rb") as file:
                content = file.read(_SAME)
        return int.from_bytes(hashlib.blake2b(b"%d %s" % (size, content), digest_size=8).digest(), "little")

    return np.array([key(picture, size) for picture, size in zip(pictures, sizes, strict=True)], np.uint64)


def connected(*keys: np.ndarray) -> np.ndarray:
    """Groups of rows that are connected by equal keys, directly or through other rows.

    Args:
        keys: each (N,), for example hashes of the sources and of the targets.

    Returns:
        (N,) int64: the same number for all rows of a group, the index of its first row.

    Example:
        >>> connected(np.array([5, 5, 6, 7]), np.array([1, 2, 2, 3])).tolist()
        [0, 0, 0, 3]
    """
    members = [np.unique(each, return_inverse=True)[1].reshape(-1) for each in keys]
    label = np.arange(len(keys[0]))
    while True:
        before = label
        for member in members:
            least = np.full(int(member.max(initial=-1)) + 1, len(label))
            np.minimum.at(least, member, label)
            joined = np.minimum(label, least[member])
            np.minimum.at(joined, label, least[member])  # all that had a row's label follow it
            while not np.array_equal(joined, joined[joined]):
                joined = joined[joined]
            label = joined
        if np.array_equal(label, before):
            return label


def hold_out(groups: np.ndarray, keys: np.ndarray, size: int) -> np.ndarray:
    """Chooses whole groups of rows to validate on, by their content alone.

    Args:
        groups: (N,), see `connected`.
        keys: (N,) uint64, hashes of the rows. They give the order in which groups are chosen.
        size: the number of rows. Groups that would exceed it are passed over; if all would, the smallest is
            chosen.

    Returns:
        (N,) bool: the rows to hold out; none where all rows are one group.

    Example:
        >>> hold_out(np.array([0, 0, 2, 3]), np.array([9, 4, 5, 1], np.uint64), 2).tolist()
        [False, False, True, True]
    """
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    member = member.reshape(-1)
    if len(names) < 2 or size < 1:
        return np.zeros(len(groups), bool)
    first = np.full(len(names), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(first, member, keys.astype(np.uint64))
    # The order must not be that of the hashes as they are: sorted by target, say, it would favour one.
    order = np.argsort(first * np.uint64(0x9E3779B97F4A7C15), kind="stable")
    chosen = np.zeros(len(names), bool)
    left = size
    for group in order.tolist():
        if sizes[group] <= left:
            chosen[group] = True
            left -= int(sizes[group])
            if not left:
                break
    if not chosen.any():
        chosen[min(order.tolist(), key=lambda group: sizes[group])] = True
    return chosen[member]


def split_notes(
    what: str, train: np.ndarray, sides: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, str]:
    """What a table says of data that occur twice.

    Args:
        what: the training data are.
        train: their hashes.
        sides: name → hashes of the training and of the validation data.

    Example:
        >>> split_notes("lines", np.array([1, 1, 2]), {"lines": (np.array([1, 1, 2]), np.array([2, 3]))})
        {'repeated': '1 training lines occur before', 'trained on': '1 of 2 lines to validate on'}
    """
    repeated = len(train) - len(np.unique(train))
    found = {"repeated": f"{repeated:,} training {what} occur before"} if repeated else {}
    counts = {side: (int(np.isin(b, a).sum()), len(b)) for side, (a, b) in sides.items()}
    shared = [f"{count:,} of {of:,} {side}" for side, (count, of) in counts.items() if count]
    return found | ({"trained on": f"{' and '.join(shared)} to validate on"} if shared else {})


# -- pairs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairKeys:
    """Hashes of pairs, see `text_key`: of the sources, the targets, and both, (N,) uint64 each."""

    source: np.ndarray
    target: np.ndarray

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> PairKeys:
        """The hashes of pairs, 0 for an empty text."""
        found = array("Q")
        for pair in pairs:
            found.extend(text_key(text) if text else 0 for text in pair)
        both = np.frombuffer(found, np.uint64).reshape(-1, 2) if found else np.zeros((0, 2), np.uint64)
        return cls(both[:, 0], both[:, 1])

    @property
    def pair(self) -> np.ndarray:
        return self.source * np.uint64(3) + self.target

    @property
    def whole(self) -> np.ndarray:
        """(N,) bool: the pairs without an empty side."""
        return (self.source != 0) & (self.target != 0)

    def __getitem__(self, rows: np.ndarray) -> PairKeys:
        return PairKeys(self.source[rows], self.target[rows])


_LABELS = 5
"""Where as many sources share a target on average, targets are labels: any held-out pair shares its target."""


def are_labels(keys: PairKeys) -> bool:
    """Whether targets are labels: so few that any held-out pair shares its target."""
    return len(np.unique(keys.source)) >= _LABELS * len(np.unique(keys.target))


def hold_out_pairs(keys: PairKeys, size: int) -> np.ndarray:
    """The rows to validate on, (N,) bool."""
    rows = np.flatnonzero(keys.whole)
    kept = keys[rows]
    groups = connected(kept.source) if are_labels(kept) else connected(kept.source, kept.target)
    held_out = np.zeros(len(keys.source), bool)
    held_out[rows[hold_out(groups, kept.pair, min(size, len(rows) // 10))]] = True
    return held_out


def pair_notes(train: PairKeys, valid: PairKeys) -> dict[str, str]:
    """`split_notes` of pairs, without those that have an empty side."""
    train, valid = train[train.whole], valid[valid.whole]
    sides = {"sources": (train.source, valid.source), "targets": (train.target, valid.target)}
    return split_notes("pairs", train.pair, sides)


# -- lines -----------------------------------------------------------------------------------------------


class ChosenLines:
    """Some of the lines of a text: a re-iterable of pieces.

    Args:
        texts: the text.
        chosen: (N,) bool, for each line that is not empty.
    """

    def __init__(self, texts: TextFiles, chosen: np.ndarray) -> None:
        self.texts, self.chosen = texts, chosen

    def __iter__(self) -> Iterator[str]:
        at = 0
        for piece in self.texts:
            lines = lines_in(piece)
            taken = self.chosen[at : at + len(lines)].tolist()
            at += len(lines)
            if any(taken):
                yield "".join(line + "\n" for line, take in zip(lines, taken, strict=True) if take)


def lines_in(piece: str | None) -> list[str]:
    """The lines of a piece that are not empty."""
    return [line for line in (piece or "").split("\n") if line]


def line_keys(texts: TextFiles) -> np.ndarray:
    """Hashes of the lines that are not empty, (N,) uint64; see `text_key`."""
    found = array("Q")
    for piece in texts:
        found.extend(map(text_key, lines_in(piece)))
    return np.frombuffer(found, np.uint64) if found else np.zeros(0, np.uint64)


def _lines_after(texts: TextFiles, share: float) -> np.ndarray:
    """Which lines begin after a share of the characters, (N,) bool."""
    starts, at = array("q"), 0
    for piece in texts:
        for line in [] if piece is None else piece.split("\n"):
            if line:
                starts.append(at)
            at += len(line) + 1
        at -= piece is not None  # the last one has no line end of its own
    return np.frombuffer(starts, np.int64) >= int(at * share) if starts else np.zeros(0, bool)


def held_out_lines(texts: TextFiles, keys: np.ndarray, share: float) -> np.ndarray:
    """The lines to validate on, (N,) bool: the last ones, unless some of them occur before, too."""
    held_out = _lines_after(texts, 1 - share)
    if np.isin(keys[held_out], keys[~held_out]).any():
        return hold_out(connected(keys), keys, int(len(keys) * share))
    return held_out
