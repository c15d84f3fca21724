"""Sequences to copy, reverse or sort: the smallest tasks that need an encoder and attention."""

from __future__ import annotations

import random
from collections.abc import Callable

TASKS: dict[str, Callable[[list[str]], list[str]]] = {
    "copy": list,
    "reverse": lambda letters: letters[::-1],
    "sort": sorted,
}


def sequence_pairs(
    task: str, size: int, seed: int = 0, *, letters: str = "abcdefgh", lengths: tuple[int, int] = (3, 8)
) -> list[tuple[str, str]]:
    """Pairs of a random word and what the task makes of it.

    Args:
        task: "copy", "reverse" or "sort".
        size: how many.
        seed: of the words.
        letters: what they are made of.
        lengths: shortest and longest.

    Example:
        >>> sequence_pairs("reverse", 1, letters="ab", lengths=(3, 3))
        [('bba', 'abb')]
    """
    rng = random.Random(seed)
    words = ([rng.choice(letters) for _ in range(rng.randint(*lengths))] for _ in range(size))
    return [("".join(word), "".join(TASKS[task](word))) for word in words]
