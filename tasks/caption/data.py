"""Pictures with captions, made ready for training: read, looked at, put into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from gen.base.distributed import gather, shard, size
from gen.base.errors import UserError, notify
from gen.datasets.batches import SequenceBatches
from gen.datasets.captions import CaptionCorpus, Captioned, CaptionSet, plain_caption, read_captions
from gen.datasets.features import FeatureStore
from gen.inputs.pictures import PictureError, ahead
from gen.metrics.captions import CaptionScorer
from gen.models.batch import Batch, sequence_batch
from gen.models.encoders.cnn import CNNEncoder
from gen.models.model import Model
from gen.search import Hypothesis
from tasks import display
from tasks.caption.options import CaptionData


@dataclass(frozen=True)
class Split:
    """Training and validation pictures, and what was left out."""

    train: list[Captioned]
    valid: list[Captioned]
    dropped: list[str]

    def check(self, options: CaptionData) -> None:
        """Raises `UserError` where nothing is left of a part; says first what was left out, and why."""
        if not self.train or not self.valid:
            for line in self.dropped:
                notify(f"left out: {line}")
            what = "train" if not self.train else "validate"
            raise UserError(f"{options.captions or options.images}: no pictures are left to {what} on")

    def without(self, failed: Mapping[int, UserError]) -> Split:
        """The pictures that can be used; ``failed`` counts through the training pictures, then the others."""
        parts = self.train, [*([None] * len(self.train)), *self.valid]
        kept = [[c for i, c in enumerate(part) if c is not None and i not in failed] for part in parts]
        return Split(kept[0], kept[1], [*self.dropped, *map(str, failed.values())])


def read_split(options: CaptionData) -> Split:
    """The pictures with their captions. Raises `UserError` where files are missing or damaged."""
    found = read_captions(options.images, options.captions)
    train, dropped = found.split("train"), found.dropped
    if options.valid_captions:
        other: CaptionSet = read_captions(options.valid_images or options.images, options.valid_captions)
        valid, dropped = other.pictures, dropped + other.dropped
    elif not (valid := found.split("valid")):
        order = np.random.default_rng(0).permutation(len(train))
        held_out = set(order[: min(options.valid_size, len(train) // 10)].tolist())
        valid = [c for i, c in enumerate(train) if i in held_out]
        train = [c for i, c in enumerate(train) if i not in held_out]
    split = Split(train, valid, dropped)
    split.check(options)
    return split


Source = Callable[[np.ndarray, np.ndarray], torch.Tensor]
"""(B,) indices of pictures (training ones first) and (B,) views of them → what the encoder takes."""


def cached_source(
    encoder: CNNEncoder, pictures: Sequence[Captioned], views: Sequence[int], dtype: str
) -> tuple[Source, dict[int, PictureError]]:
    """What a frozen CNN sees in so many views of each picture, computed once.

    Returns also which pictures cannot be used, and why.
    """
    store = FeatureStore(encoder, dtype)
    with Progress(console=display.console, transient=True, disable=not display.console.is_terminal) as live:
        line = live.add_task("looking at pictures", total=None)

        def watch(done: int, total: int) -> None:
            if live.tasks[0].total is None:
                display.say(
                    f"The CNN looks at {total:,} pictures, or views of them. That is kept for the next time."
                )
            live.update(line, completed=done, total=total)

        rows, failed = store.fill([c.picture for c in pictures], views, watch=watch)
    rows = rows[[i for i in range(len(pictures)) if i not in failed]]
    return lambda chosen, view: store.read(rows[chosen, view]), failed


def unusable(encoder: CNNEncoder, pictures: Sequence[Captioned]) -> dict[int, PictureError]:
    """Which pictures cannot be used, and why."""

    def look(i: int) -> None:
        encoder.preprocessing.pixels(pictures[i].picture)

    batches = ahead(range(len(pictures)), look, 256)
    return {i: found for batch in batches for i, found in batch if isinstance(found, PictureError)}


def decoded_source(encoder: CNNEncoder, pictures: Sequence[Captioned]) -> Source:
    """The pictures themselves, for a CNN that learns. One that can no longer be used is grey, and named once."""
    named: set[Path] = set()
    preprocessing = encoder.preprocessing

    def pixels(picture: Path, view: int) -> np.ndarray:
        try:
            return preprocessing.pixels(picture, view)
        except PictureError as error:
            if picture not in named:
                named.add(picture)
                notify(str(error))
            return np.full((3, preprocessing.size, preprocessing.size), 127, np.uint8)

    def source(chosen: np.ndarray, view: np.ndarray) -> torch.Tensor:
        each = zip(chosen.tolist(), view.tolist(), strict=True)
        return torch.from_numpy(np.stack([pixels(pictures[i].picture, v) for i, v in each]))

    return source


class PictureBatches:
    """Pictures without captions, in an order of its own every epoch: for learning from the model's captions."""

    def __init__(self, source: Source, pictures: int, views: int, batch_size: int, seed: int) -> None:
        self.source, self.pictures, self.views = source, pictures, views
        self.batch_size, self.seed = batch_size, seed
        self.batches_per_epoch = max(pictures // batch_size, 1)
        if min(pictures, batch_size) < size():
            raise UserError(f"--pictures {batch_size}: {size()} processes need at least a picture each")

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from position ``start`` on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.pictures)
        for position in range(start, self.batches_per_epoch):
            rows = shard(order[position * self.batch_size : (position + 1) * self.batch_size])
            nothing = torch.zeros(len(rows), 0, dtype=torch.int64)
            yield Batch(
                self.source(rows, (rows + epoch) % self.views), nothing, nothing, rows=torch.from_numpy(rows)
            )


def make_batches(corpus: CaptionCorpus, source: Source, options: CaptionData, seed: int) -> SequenceBatches:
    """The training set: captions of like length together, each with its picture, seen anew every epoch."""
    views = (options.augment or 0) + 1
    return SequenceBatches(
        corpus.captions,
        options.batch_tokens,
        corpus.tokenizer,
        source=lambda rows, epoch: source(corpus.pictures[rows], (rows + epoch) % views),
        seed=seed,
    )


class HeldOut:
    """The validation pictures.

    Args:
        pictures: N of them.
        source: of all pictures; see `Source`.
        first: where these begin among them.
        verbatim: whether captions are learned as they stand.
    """

    def __init__(self, pictures: Sequence[Captioned], source: Source, first: int, verbatim: bool) -> None:
        self.pictures, self.source, self.first, self.verbatim = pictures, source, first, verbatim
        self.references = [c.captions for c in pictures]
        self.scorer = CaptionScorer(self.references)

    def blocks(self, count: int, batch_size: int = 64) -> Iterator[tuple[range, torch.Tensor]]:
        """The first ``count`` pictures in blocks, those of this process: which, and what the encoder takes."""
        for begin in shard(range(0, count, batch_size)):
            block = range(begin, min(begin + batch_size, count))
            rows = np.array(block)
            yield block, self.source(rows + self.first, np.zeros_like(rows))

    def batches(self, model: Model, count: int) -> Iterator[Batch]:
        """Each picture with its first reference, as training has them."""
        t = model.tokenizer
        for block, source in self.blocks(count):
            texts = [self.references[i][0] for i in block]
            texts = texts if self.verbatim else [plain_caption(text) for text in texts]
            yield sequence_batch(source, [t.encode_array(x) for x in texts], t.bos_id, t.eos_id, t.pad_id)

    def captions(self, model: Model, count: int, **search: Any) -> list[Hypothesis]:
        """The model's best caption of each; every process writes its share, and gets all."""
        blocks = (model.generate(list(source.numpy()), **search) for _, source in self.blocks(count))
        return [several[0] for block in gather(list(blocks)) for several in block]
