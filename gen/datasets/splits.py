"""Splits without leaks: what is equal stays on one side, whatever the order of the rows."""

from __future__ import annotations

import hashlib
import unicodedata

import numpy as np


def text_key(text: str) -> int:
    """A hash of a text, 64 bits, that does not depend on case, spaces or the form of accents.

    Example:
        >>> text_key(" A  dog") == text_key("a dog") != text_key("a cat")
        True
    """
    plain = " ".join(unicodedata.normalize("NFC", text.casefold()).split())
    return int.from_bytes(hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest(), "little")


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
            label = least[member]
        label = label[label]
        if (label == before).all():
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
