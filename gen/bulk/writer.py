"""A model as a worker: rows in, rows with what the model says of them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

Work = Callable[[list[Any]], Iterable[dict[str, Any]]]
"""Items → a row for each, in order."""

AHEAD = 32
"""Batches that `generate_many` reads ahead."""


class Writer:
    """A model that writes a text for each row of a batch: for `map_batches` of Ray Data, or a call by hand.

    A row that fails has the reason in the column "error", and the others are not affected.

    Args:
        run: what `gen.load` takes.
        column: the column that the model reads.
        options: as for `generate`.

    Use::

        rows = ray.data.read_text("lines.txt")
        rows.map_batches(Writer, fn_constructor_args=["runs/en-de"], concurrency=8, batch_size=2048)

    A model works on 64 rows at a time; with more in a batch, it finds 64 of like length.

    Example:
        >>> class Loud(Writer):
        ...     def __init__(self):
        ...         self.column, self.work = "text", lambda items: [{"output": item.upper()} for item in items]
        >>> Loud()({"text": np.array(["one", 2], dtype=object)})["error"].tolist()
        ['', "AttributeError: 'int' object has no attribute 'upper'"]
    """

    def __init__(self, run: str, column: str = "text", **options: Any) -> None:
        import gen

        model = gen.load(run)
        self.column = column

        def write(items: list[Any]) -> Iterator[dict[str, Any]]:
            for best, *_ in model.generate_many(items, attention=False, **options):
                yield {"output": best.text, "score": best.score}

        self.work: Work = write

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A batch of N rows, column → (N,), with the columns "output", "score" and "error"."""
        rows = list(careful(self.work, batch[self.column].tolist()))
        empty = {"output": "", "score": float("nan"), "error": ""}
        found = {name: np.array([row.get(name, value) for row in rows]) for name, value in empty.items()}
        return {**batch, **found}


def careful(work: Work, items: Iterable[Any], batch_size: int = 64) -> Iterator[dict[str, Any]]:
    """A row for each item. Where some fail, their halves are tried again; an item that fails alone has an "error".

    The work gets `AHEAD` batches at once, among which models look for items of like length.

    Example:
        >>> list(careful(lambda items: [{"half": 1 / n} for n in items], [1, 0]))
        [{'half': 1.0}, {'error': 'ZeroDivisionError: division by zero'}]
    """
    source = iter(items)
    while batch := list(islice(source, batch_size * AHEAD)):
        yield from _careful(work, batch)


def _careful(work: Work, batch: Sequence[Any]) -> list[dict[str, Any]]:
    from gen.base.errors import message_of

    try:
        found = list(work(list(batch)))
        if len(found) != len(batch):
            raise RuntimeError(f"{len(found)} rows for {len(batch)} items")
        return found
    except Exception as error:  # of any item, whatever it is
        if half := len(batch) // 2:
            return [*_careful(work, batch[:half]), *_careful(work, batch[half:])]
        return [{"error": message_of(error)}]
