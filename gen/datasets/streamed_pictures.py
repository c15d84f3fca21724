"""Pictures with captions in shards, read while a captioning model is trained.

Nothing but the validation pictures is written to disk. The pixels of a block are in memory, its features are not:
a frozen CNN looks at a picture again for each of its captions, in every pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gen.base.cache import cached
from gen.base.errors import UserError
from gen.base.parts import split_of
from gen.datasets.batches import Batches, SequenceBatches
from gen.datasets.caption_files import sample_row
from gen.datasets.captions import Captioned, usual_captions
from gen.datasets.corpus import token_dtype
from gen.datasets.examples import InMemory
from gen.datasets.shard_files import Shard, find_shards, place, readable
from gen.datasets.shard_tables import tell
from gen.datasets.shards import Shards
from gen.datasets.streamed import NoBatches
from gen.inputs.pictures import Preprocessing, ahead, is_picture
from gen.inputs.ptb import plain_caption
from gen.inputs.tokenizer import Tokenizer

BUFFER = 1000
"""Pictures of a block, if nobody says otherwise: 150 MB of pixels."""

BLOCK = 256 << 20
"""Most bytes of the files of a block's pictures."""

HEAD = 1 << 29
"""Bytes at the beginning whose captions a vocabulary is built from, and validation pictures are taken from."""


class StreamedPicture(NamedTuple):
    """A picture of a shard.

    Attributes:
        name: for messages.
        data: its file.
        captions: at least one.
    """

    name: str
    data: bytes
    captions: list[str]

    @property
    def key(self) -> int:
        """See `picture_key`."""
        return picture_key(self.data)


def picture_key(data: bytes) -> int:
    """A hash of the file of a picture: equal ones are one picture under several names."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Seen(NamedTuple):
    """What is kept of a picture at the beginning: its key, the size of its file, and its captions."""

    key: int
    size: int
    captions: list[str]


def picture_shards(names: Sequence[str], buffer: int = BUFFER) -> Shards[StreamedPicture]:
    """Pictures of shards; see `find_shards`. A row has the file of a picture, under one of the usual extensions or
    as a column of bytes, and captions in a text or in columns with the usual names. One without a caption is
    named and left out; one with a split is left out unless it is "train".

    Raises:
        UserError: a file is missing.
    """
    told: set[str] = set()

    def pictures(shard: Shard, skip: int) -> Iterator[StreamedPicture | None]:
        for number, row in enumerate(shard.rows(skip), skip + 1):
            where = f"{shard.name}: {place(row, number)}"
            try:
                yield _picture(where, readable(row))
            except UserError as error:
                tell(told, str(error))
                yield None

    return Shards(find_shards(names), pictures, lambda picture: len(picture.data), buffer, BLOCK)


def _picture(where: str, row: Mapping[str, Any]) -> StreamedPicture | None:
    """The picture in a row; None if it is not for training. Raises `UserError` if it has none, or no caption."""
    files = {name: data for name, cell in row.items() if (data := _content(cell)) is not None}
    if not files:
        raise UserError(f"{where} has no picture")
    name = next((name for name in files if is_picture(name)), next(iter(files)))
    data = files[name]
    found = sample_row(where, {column: cell for column, cell in row.items() if column != name})
    if found.problem:
        raise UserError(f"{where}{found.problem}")
    captions = usual_captions(found.captions)
    if not captions:
        raise UserError(f"{where} has no caption")
    part = split_of(found.split, where)
    return StreamedPicture(f"{where} ({name})", data, captions) if part == "train" else None


def _content(cell: Any) -> bytes | None:
    """The file of a picture in a cell: bytes, or an object that holds them, as in Parquet files of pictures."""
    cell = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return cell if isinstance(cell, bytes) else None


def picture_head(shards: Shards[StreamedPicture]) -> list[Seen]:
    """The captions at the beginning."""

    def seen(shard: Shard, skip: int) -> Iterator[Seen | None]:
        return (p and Seen(p.key, len(p.data), p.captions) for p in shards.items(shard, skip))

    found = Shards(shards.shards, seen, lambda picture: picture.size).head(HEAD)
    if not found:
        raise UserError(f"{shards.shards[0].name}: no picture with a caption is there")
    return found


def hold_out_pictures(
    shards: Shards[StreamedPicture], head: Sequence[Seen], size: int
) -> tuple[list[Captioned], set[int]]:
    """Pictures to validate on, chosen by their hashes, as files in the cache. They are left out of ``shards`` from
    now on, wherever they occur.

    Args:
        shards: the training pictures.
        head: those at the beginning.
        size: how many, at most a tenth of those.

    Returns:
        The pictures, and their keys.

    Raises:
        UserError: there is a single picture.
    """
    captions: dict[int, list[str]] = {}
    for picture in head:
        captions.setdefault(picture.key, []).extend(picture.captions)
    if len(captions) < 2:
        raise UserError(
            "--data: there is a single picture, and none to validate on: name some with --valid-captions"
        )
    keys = sorted(captions)[: min(size, max(len(captions) // 10, 1))]

    def fill(folder: Path) -> None:
        wanted = set(keys)

        def found(shard: Shard, skip: int) -> Iterator[Seen | None]:
            for picture in shards.items(shard, skip):
                if picture is not None and picture.key in wanted:
                    wanted.remove(picture.key)
                    (folder / f"{picture.key:016x}").write_bytes(picture.data)
                yield picture and Seen(picture.key, len(picture.data), [])

        Shards(shards.shards, found, lambda picture: picture.size).head(HEAD)

    folder = cached(["streamed pictures", shards.digest(), keys], fill)
    leave_out_pictures(shards, set(keys))
    return [Captioned(folder / f"{key:016x}", captions[key]) for key in keys], set(keys)


def leave_out_pictures(shards: Shards[StreamedPicture], keys: set[int]) -> None:
    """Leaves out pictures with these keys."""
    shards.left_out = lambda picture: picture.key in keys


def picture_blocks(
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    *,
    verbatim: bool,
    max_length: int,
    batch_tokens: int,
    views: int,
    seed: int,
) -> Callable[[list[StreamedPicture]], Batches]:
    """What makes batches of the captions of a block, with the pixels of their pictures; see `SequenceBatches`. A
    picture that cannot be read is named and left out; one of ``views`` views of each is used in a pass."""
    told: set[str] = set()
    dtype = token_dtype(tokenizer)

    def make(pictures: list[StreamedPicture]) -> Batches:
        """Pictures → batches of captions of like length."""
        rows: list[np.ndarray] = []
        owners: list[int] = []
        pixels: list[np.ndarray] = []

        def look(i: int) -> np.ndarray:
            return preprocessing.pixels(pictures[i].data, i % views, pictures[i].name)

        for batch in ahead(range(len(pictures)), look, 64):
            for i, found in batch:
                if isinstance(found, UserError):
                    tell(told, str(found))
                    continue
                for text in pictures[i].captions:
                    ids = tokenizer.encode_array(text if verbatim else plain_caption(text))
                    rows.append(ids[:max_length].astype(dtype))
                    owners.append(len(pixels))
                pixels.append(found)
        if not rows:
            return NoBatches()
        return SequenceBatches(
            InMemory(rows),
            batch_tokens,
            tokenizer,
            source=lambda chosen, _: {"picture": torch.from_numpy(np.stack([pixels[owners[r]] for r in chosen]))},
            seed=seed,
        )

    return make
