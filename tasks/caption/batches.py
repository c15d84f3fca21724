"""Pictures as batches: the source of the encoder, training with and without captions, validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from gen.base.distributed import gather, shard, size
from gen.base.errors import UserError
from gen.datasets.batches import Sequences
from gen.datasets.captions import Captioned
from gen.datasets.picture_sources import Source, cached_source, decoded_source, unusable
from gen.inputs.labels import LabelProcessor
from gen.inputs.ptb import plain_caption
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.captions import CaptionScorer, CiderD, caption_tokenizer
from gen.models.batch import Batch, sequence_batch
from gen.models.encoders import CNNEncoder, Encoder, JoinedEncoder
from gen.models.model import Model
from gen.search import Hypothesis
from gen.training.self_critical import Reward, items_of
from tasks.caption.data import CaptionSplit
from tasks.caption.options import CaptionData

EntrySource = Callable[[np.ndarray, np.ndarray], dict[str, torch.Tensor]]
"""(B,) indices of pictures (training pictures first) and (B,) numbers of their views → the encoder's source."""


def cnn_of(model: Model) -> CNNEncoder:
    """The part of the encoder that reads pictures."""
    encoder = model.encoder
    found = encoder.parts["picture"] if isinstance(encoder, JoinedEncoder) else encoder
    assert isinstance(found, CNNEncoder)  # checked where the model was read
    return found


def usable_pictures(
    encoder: CNNEncoder,
    split: CaptionSplit,
    data: CaptionData,
    learns: bool,
    views: int,
    progress: Callable[[str, int, int], None],
) -> tuple[Source, np.ndarray]:
    """What the encoder reads of a split's files, training pictures first, and the indices of the pictures that can
    be read. The others are recorded in the split.

    Args:
        encoder: reads pictures.
        split: of the data.
        data: the options.
        learns: whether the encoder is trained, too, so that its features cannot be kept.
        views: of each training picture.
        progress: see `Task.progress`.
    """
    pictures = [c.picture for c in split.files + split.valid]
    if learns:
        failed, source = unusable(encoder, pictures), decoded_source(encoder, pictures)
    else:
        each = [views] * len(split.files) + [1] * len(split.valid)
        source, failed = cached_source(encoder, pictures, each, data.feature_dtype, progress)
    split.unusable.update(i + len(split.train) - len(split.files) for i in failed)
    for error in failed.values():
        if str(error) not in split.dropped:
            split.dropped.append(str(error))
    return source, np.array([i for i in range(len(pictures)) if i not in failed], np.int64)


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
