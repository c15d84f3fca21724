"""Texts in the rows of shards: which columns there are, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import islice

from gen.base.errors import UserError, notify
from gen.base.tables import Table
from gen.datasets.shard_files import Row, Shard, place, readable

TOLD = 100
"""Rows whose reasons for being left out are told."""


def tell(told: set[str], text: str) -> None:
    """Says what is left out, once; of very many only the first, so that neither memory nor console fills up."""
    if text in told or len(told) > TOLD:
        return
    told.add(text)
    notify(f"left out: {text if len(told) <= TOLD else f'further ones; only the first {TOLD} are named'}")


class ShardTable(Table):
    """The first rows of a shard as a table, to choose columns from. Raises `UserError` if none can be read."""

    def __init__(self, shard: Shard, wanted: Sequence[str] = ()) -> None:
        self._rows = list(islice(shard.rows(0), 100))
        self._told: set[str] = set()
        super().__init__(shard.name, wanted)

    _dialect = None

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        errors: list[UserError] = []
        for number, row in enumerate(self._rows, 1):
            try:
                found = place(row, number), self._flat(readable(row))
            except UserError as error:  # of this row: training leaves it out
                errors.append(error)
                continue
            yield found
        if errors and len(errors) == len(self._rows):
            raise errors[0]

    def cells(self, shard: Shard, skip: int, *columns: str) -> Iterator[tuple[str, ...]]:
        """The texts in these columns of each row of a shard, "" if its part is not "train". A row without them is
        named, and has "", too: a training does not end because of one of millions."""
        table = copy(self)  # and what was told with it
        table.name = shard.name
        for number, row in enumerate(shard.rows(skip), skip + 1):
            try:
                found = table._cells(place(row, number), row, columns)
            except UserError as error:
                tell(self._told, str(error))
                found = ("",) * len(columns)
            yield found

    def _cells(self, where: str, row: Row, columns: Sequence[str]) -> tuple[str, ...]:
        fields = self._flat(readable(row))
        if self.part(where, fields) != "train":
            return ("",) * len(columns)
        if missing := [column for column in columns if column not in fields]:
            raise UserError(f"{self.name}: {where} has no field {missing[0]!r}")
        return tuple(self.text(where, fields, column) for column in columns)

    @property
    def texts(self) -> list[str]:
        held = {column for _, row in self.head for column, cell in row.items() if isinstance(cell, str)}
        return [column for column in super().texts if column in held]
