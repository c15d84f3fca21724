"""Batches of items that have a label each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from gen.base.distributed import shard
from gen.datasets.batches import mask_targets
from gen.models.batch import Batch


class LabelBatches:
    """Batches of items of similar length, each with its label; a different order in every epoch.

    Args:
        targets: (N,) int64, token ids of the labels.
        lengths: (N,) int, lengths of the items.
        source: (indices of rows, number of the epoch) → `Batch.source`.
        batch_size: rows per batch.
        bos_id, pad_id: of the labels' tokenizer.
        seed: of the order.
    """

    def __init__(
        self,
        targets: np.ndarray,
        lengths: np.ndarray,
        source: Callable[[np.ndarray, int], dict[str, Tensor]],
        batch_size: int,
        bos_id: int,
        pad_id: int,
        seed: int,
    ) -> None:
        self.targets, self.lengths, self.source = targets, lengths, source
        self.batch_size, self.bos_id, self.pad_id, self.seed = batch_size, bos_id, pad_id, seed
        self.batches_per_epoch = -(-len(targets) // batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from position ``start`` on."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.targets))
        together = 32 * self.batch_size  # rows among which those of similar length are found
        blocks = [order[i : i + together] for i in range(0, len(order), together)]
        order = np.concatenate([block[np.argsort(self.lengths[block], kind="stable")] for block in blocks])
        for position in rng.permutation(self.batches_per_epoch)[start:]:
            whole = order[position * self.batch_size : (position + 1) * self.batch_size]
            share = shard(whole)
            rows = share if len(share) else whole[:1]
            begin = torch.full((len(rows), 1), self.bos_id)
            targets = torch.from_numpy(self.targets[rows, None])
            batch = Batch(self.source(rows, epoch), begin, targets, rows=torch.from_numpy(rows))
            yield batch if len(share) else mask_targets(batch, self.pad_id)
