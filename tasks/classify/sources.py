"""What the encoder of a classifier reads in training: token ids of texts, or features of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen.base.errors import UserError
from gen.datasets.features import FeatureStore
from gen.inputs.processors import SentenceProcessor
from gen.models.batch import pad
from gen.models.encoders.cnn import CNNEncoder
from gen.models.model import Model
from gen.training.interfaces import Example
from tasks.classify.data import LabelSplit

Source = Callable[[np.ndarray, int], dict[str, Tensor]]
"""(indices of examples, number of the epoch) → `Batch.source`."""


def text_source(
    model: Model, examples: Sequence[Example], max_length: int, word_dropout: float, seed: int
) -> tuple[Source, np.ndarray]:
    """Token ids of texts, some of them hidden as <unk>, others in every epoch.

    Args:
        model: its encoder reads sentences.
        examples: N texts.
        max_length: texts are cut after this many tokens.
        word_dropout: the probability of hiding a token: no single word should decide.
        seed: of what is hidden.

    Returns:
        The source, and the lengths in tokens, (N,) int64.
    """
    processor = model.processors["sentence"]
    assert isinstance(processor, SentenceProcessor)
    t = processor.tokenizer
    ids = [np.asarray(processor.encode(e.item), np.int64) for e in examples]
    ids = [row if len(row) <= max_length else np.append(row[:max_length], row[-1]) for row in ids]

    def source(rows: np.ndarray, epoch: int) -> dict[str, Tensor]:
        token_ids = pad([ids[r] for r in rows], t.pad_id)
        draw = np.random.default_rng((seed, epoch, int(rows[0]))).random(token_ids.shape)
        hidden = torch.from_numpy(draw < word_dropout) & (token_ids > t.unk_id)
        return {"sentence": token_ids.masked_fill(hidden, t.unk_id)}

    return source, np.array([len(row) for row in ids], np.int64)


class Features:
    """Features of all pictures of a split, computed once. Examples whose pictures cannot be read leave the split.

    Args:
        model: its encoder has a frozen CNN.
        split: the examples.
        progress: called with (what, done, total).

    Raises:
        UserError: no picture of a part can be read.
    """

    def __init__(self, model: Model, split: LabelSplit, progress: Callable[[str, int, int], None]) -> None:
        encoder = model.encoder
        assert isinstance(encoder, CNNEncoder)
        self.store = FeatureStore(encoder)
        paths = list(dict.fromkeys(e.item for e in [*split.train, *split.valid]))
        what = "computing picture features (cached for later runs)"
        rows, failed = self.store.fill(paths, watch=lambda done, total: progress(what, done, total))
        self.rows = {path: row for path, row in zip(paths, rows[:, 0].tolist(), strict=True) if row >= 0}
        split.dropped.extend(line for line in map(str, failed.values()) if line not in split.dropped)
        for part in (split.train, split.valid):
            part[:] = [e for e in part if e.item in self.rows]
            if not part:
                raise UserError(f"no pictures are left to train and to validate on ({split.dropped[0]})")

    def source(self, examples: Sequence[Example]) -> Source:
        """The source of examples."""
        return lambda rows, epoch: {"picture": self.store.read(self._rows([examples[r].item for r in rows]))}

    def __call__(self, pictures: Sequence[Path]) -> list[np.ndarray]:
        """The features of pictures, (S, C) each, which the encoder takes instead of their pixels."""
        return list(self.store.read(self._rows(pictures)).numpy())

    def _rows(self, pictures: Sequence[Path]) -> np.ndarray:
        return np.array([self.rows[picture] for picture in pictures])
