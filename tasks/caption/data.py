"""Pictures with captions: reading, CNN features, batches, validation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gen.base.distributed import gather, shard, size
from gen.base.errors import UserError, few, notify
from gen.datasets.batches import Sequences
from gen.datasets.captions import Captioned, CaptionSet, read_labelled
from gen.datasets.look import Column, DataPart
from gen.datasets.picture_sources import Source
from gen.datasets.shards import Shards
from gen.datasets.splits import connected, hold_out, picture_keys, split_notes
from gen.datasets.streamed_pictures import (
    StreamedPicture,
    hold_out_pictures,
    leave_out_pictures,
    picture_head,
    picture_key,
    picture_shards,
)
from gen.inputs.labels import LabelProcessor
from gen.inputs.ptb import plain_caption
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.captions import CaptionScorer, CiderD, caption_tokenizer
from gen.models.batch import Batch, sequence_batch
from gen.models.encoders import Encoder
from gen.models.model import Model
from gen.search import Hypothesis
from gen.training.self_critical import Reward, items_of
from tasks.caption.options import CaptionData

EntrySource = Callable[[np.ndarray, np.ndarray], dict[str, torch.Tensor]]
"""(B,) indices of pictures (training pictures first) and (B,) numbers of their views → the encoder's source."""


@dataclass(frozen=True)
class Split:
    """Training and validation pictures; see `gen.training.interfaces.Split`.

    Attributes:
        dropped: what was left out and why, one line per picture.
        notes: name → text, further facts about the pictures for the table.
        automatic: whether the validation pictures were chosen here, not by the user or the file.
        unusable: indices of pictures that cannot be read; those of ``valid`` follow those of ``train``.
        stream: the training pictures, if they are streamed; then ``train`` has the captions of the first ones.
        share: how many times as many pictures there are as in ``train``, very roughly.
    """

    train: list[Captioned]
    valid: list[Captioned]
    dropped: list[str]
    notes: dict[str, str] = field(default_factory=dict)
    automatic: bool = False
    unusable: set[int] = field(default_factory=set)
    stream: Shards[StreamedPicture] | None = None
    share: float = 1.0

    @property
    def digest(self) -> str:
        """A hash of the captions, the names of their pictures and their labels."""
        rows = "\0".join("\0".join((c.picture.name, *c.captions, c.label)) for c in (*self.train, *self.valid))
        found = hashlib.blake2b(rows.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
        return found if self.stream is None else f"{self.stream.digest()} {found}"

    @property
    def files(self) -> list[Captioned]:
        """The training pictures that are files."""
        return self.train if self.stream is None else []

    @property
    def num_captions(self) -> int:
        return sum(len(c.captions) for c in self.train)

    @property
    def num_tokens(self) -> int:
        """The number of words and EOS: an estimate, as there is no vocabulary yet."""
        return round(self.share * sum(len(text.split()) + 1 for c in self.train for text in c.captions))

    def table(self) -> dict[str, str]:
        train = [c for i, c in enumerate(self.train) if i not in self.unusable]
        captions = sum(len(c.captions) for c in train)
        seen = f"{len(train):,} pictures, {captions:,} captions"
        valid = len(self.valid) - sum(i >= len(self.train) for i in self.unusable)
        return {
            "training": seen if self.stream is None else f"{self.stream}; vocabulary from {seen}",
            "left out": f"{len(self.dropped):,} (see above)" if self.dropped else "none",
            "validation": f"{valid:,} pictures",
            **self.notes,
        }

    def check(self, options: CaptionData) -> None:
        """Raises `UserError` if a part is empty, after printing what was left out."""
        if not self.train or not self.valid:
            for line in self.dropped:
                notify(f"left out: {line}")
            what = "train" if not self.train else "validate"
            names = " ".join(options.captions or options.data) or options.images
            raise UserError(f"{names}: no pictures are left to {what} on")
        if unknown := {c.label for c in self.valid} - {c.label for c in self.train}:
            raise UserError(f"--valid-captions: the label {few(sorted(map(repr, unknown)))} is not in training")


def read_split(options: CaptionData) -> Split:
    """The pictures with their captions. Raises `UserError` if files are missing or damaged."""
    if options.streams:
        return _stream_split(options)
    found = read_labelled(options.images, options.captions)
    train, dropped = found.split("train"), found.dropped
    if options.valid_captions:
        other: CaptionSet = read_labelled(options.valid_images or options.images, options.valid_captions)
        valid, dropped = other.pictures, dropped + other.dropped
        automatic = False
    elif automatic := not (valid := found.split("valid")):
        keys = picture_keys([c.picture for c in train])
        size = min(options.valid_size, max(len(train) // 10, 1))
        held_out = hold_out(connected(keys), keys, size)
        valid = [c for c, out in zip(train, held_out, strict=True) if out]
        train = [c for c, out in zip(train, held_out, strict=True) if not out]
    split = Split(train, valid, dropped, _notes(train, valid), automatic)
    split.check(options)
    return split


def _stream_split(options: CaptionData) -> Split:
    """Streamed pictures: the captions at the beginning, and the pictures to validate on, which are files."""
    stream = picture_shards(options.data, options.shuffle_buffer)
    head = picture_head(stream)
    dropped: list[str] = []
    if options.valid_captions:
        other = read_labelled(options.valid_images, options.valid_captions)
        valid, dropped = other.pictures, other.dropped
        held_out = {picture_key(c.picture.read_bytes()) for c in valid}
        leave_out_pictures(stream, held_out)
    else:
        valid, held_out = hold_out_pictures(stream, head, options.valid_size)
    train = [Captioned(Path(f"{p.key:016x}"), p.captions) for p in head if p.key not in held_out]
    share = max(stream.size / sum(p.size for p in head), 1.0)
    split = Split(train, valid, dropped, automatic=not options.valid_captions, stream=stream, share=share)
    split.check(options)
    return split


def _notes(train: Sequence[Captioned], valid: Sequence[Captioned]) -> dict[str, str]:
    """What the table says of pictures that occur twice."""
    keys = picture_keys([c.picture for c in (*train, *valid)])
    ours, others = keys[: len(train)], keys[len(train) :]
    return split_notes("pictures", ours, {"pictures": (ours, others)})


def caption_parts(split: Split, options: CaptionData, test: Sequence[str]) -> dict[str, DataPart]:
    """The pictures that are trained on, validated on, and left for a test: those of a split, or of the files
    ``test``."""
    left: list[Captioned] = []
    if test:
        left = read_labelled(options.images, test).pictures
    elif not options.streams:
        left = read_labelled(options.images, options.captions).split("test")
    parts = {"training": split.train, "validation": split.valid, "test": left}
    found = {name: _captions_part(pictures, options.verbatim) for name, pictures in parts.items() if pictures}
    if options.streams:
        found["training"] = replace(found["training"], pictures=())  # they are no files
    return found


def _captions_part(pictures: Sequence[Captioned], verbatim: bool) -> DataPart:
    texts = [text for c in pictures for text in c.captions]
    labels = [c.label for c in pictures for _ in c.captions]
    column = Column(texts, prepare=str if verbatim else plain_caption)
    return DataPart({"caption": column}, {"label": labels} if any(labels) else {}, [c.picture for c in pictures])


def named_source(entries: Sequence[Captioned], pictures: Source, encoder: Encoder) -> EntrySource:
    """The source of an encoder of pictures, or of pictures and the labels of their captions."""
    processor = encoder.processors.get("label")
    if not isinstance(processor, LabelProcessor):
        return lambda chosen, view: {"picture": pictures(chosen, view)}
    labels = torch.from_numpy(processor.read([c.label for c in entries]))
    return lambda chosen, view: {"picture": pictures(chosen, view), "label": labels[chosen]}


class Subset:
    """The sequences in ``rows``, (N,) int64, of others."""

    def __init__(self, sequences: Sequences, rows: np.ndarray) -> None:
        self.sequences, self.rows = sequences, rows
        self.lengths = sequences.lengths[rows]

    def __getitem__(self, row: int) -> np.ndarray:
        return self.sequences[int(self.rows[row])]


class PictureBatches:
    """Batches of pictures without captions, shuffled per epoch, for self-critical training.

    Args:
        source: of all pictures.
        pictures: (N,) int64, indices of the pictures to train on.
        views: number of views per picture.
        batch_size: pictures per batch.
        seed: of the shuffling.
    """

    def __init__(self, source: EntrySource, pictures: np.ndarray, views: int, batch_size: int, seed: int) -> None:
        self.source, self.pictures, self.views = source, pictures, views
        self.batch_size, self.seed = batch_size, seed
        self.batches_per_epoch = max(len(pictures) // batch_size, 1)
        if min(len(pictures), batch_size) < size():
            raise UserError(f"--pictures {batch_size}: {size()} processes need at least one picture each")

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from position ``start`` on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.pictures)
        for position in range(start, self.batches_per_epoch):
            rows = shard(order[position * self.batch_size : (position + 1) * self.batch_size])
            nothing = torch.zeros(len(rows), 0, dtype=torch.int64)
            yield Batch(
                self.source(rows, (rows + epoch) % self.views), nothing, nothing, rows=torch.from_numpy(rows)
            )


class ValidationPictures:
    """The validation pictures with references.

    Args:
        pictures: N of them.
        source: of all pictures; see `EntrySource`.
        rows: (N,) int64, their indices in ``source``.
        verbatim: whether captions keep case and punctuation.
    """

    def __init__(
        self,
        pictures: Sequence[Captioned],
        source: EntrySource,
        rows: np.ndarray,
        verbatim: bool,
        tokenizer: Tokenizer,
    ) -> None:
        self.pictures, self.source, self.rows, self.verbatim = pictures, source, rows, verbatim
        self.references = [list(map(tokenizer.normalize, c.captions)) for c in pictures]
        self.scorer = CaptionScorer(self.references)

    def blocks(self, count: int, batch_size: int = 64) -> Iterator[tuple[range, dict[str, torch.Tensor]]]:
        """This process's share of the first ``count`` pictures in blocks: (indices, encoder source)."""
        for begin in shard(range(0, count, batch_size)):
            block = range(begin, min(begin + batch_size, count))
            rows = self.rows[block.start : block.stop]
            yield block, self.source(rows, np.zeros_like(rows))

    def batches(self, model: Model, count: int) -> Iterator[Batch]:
        """Batches of the pictures with their first references."""
        t = model.tokenizer
        for block, source in self.blocks(count):
            texts = [self.references[i][0] for i in block]
            texts = texts if self.verbatim else [plain_caption(text) for text in texts]
            yield sequence_batch(source, [t.encode_array(x) for x in texts], t.bos_id, t.eos_id, t.pad_id)

    def captions(self, model: Model, count: int, **search: Any) -> list[Hypothesis]:
        """The best caption of each picture. Processes share the work, and all get all captions."""
        blocks = [
            [several[0] for several in model.generate(items_of(source), **search)]
            for _, source in self.blocks(count)
        ]
        return [hypothesis for block in gather(blocks) for hypothesis in block]


_END = "</s>"


def caption_reward(references: Sequence[Sequence[str]]) -> tuple[Reward, str]:
    """CIDEr-D against the references, and its signature. EOS counts as a word: without it, incomplete captions
    would score best."""
    name, tokens = caption_tokenizer(references)
    cider = CiderD([[[*tokens(text), _END] for text in each] for each in references])

    def reward(hypothesis: Hypothesis, picture: int) -> float:
        return cider.score([*tokens(hypothesis.text), *([_END] if hypothesis.finished else [])], picture)

    return reward, f"CIDEr-D, tok:{name}|eos:yes"
