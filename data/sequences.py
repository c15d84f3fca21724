"""Synthetic sequence tasks, to copy, reverse or sort letters: the smallest that need an encoder and attention."""

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
    """Pairs of a random string and the result of the task.

    Args:
        task: "copy", "reverse" or "sort".
        size: the number of pairs.
        seed: of the random generator.
        letters: the alphabet.
        lengths: the smallest and the largest length.

    Example:
        >>> sequence_pairs("reverse", 1, lengths=(3, 3))
        [('gae', 'eag')]
    """
    rng = random.Random(seed)
    words = ([rng.choice(letters) for _ in range(rng.randint(*lengths))] for _ in range(size))
    return [("".join(word), "".join(TASKS[task](word))) for word in words]
