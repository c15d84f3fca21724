"""Labels of examples: checks, and batches of items that have a label each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gen.base.distributed import shard
from gen.base.errors import UserError, few
from gen.datasets.batches import mask_targets
from gen.models.batch import Batch


def check_labels(where: str, option: str, train: Sequence[str], valid: Sequence[str], *, automatic: bool) -> None:
    """Raises `UserError` for labels that cannot be learned or validated.

    Args:
        where: the file, for the message.
        option: names the column of the labels, for the message.
        train, valid: the label of each example.
        automatic: whether the validation part was chosen from the same file.
    """
    counts = Counter(train)
    if not counts:
        raise UserError(f"{where}: no example has a label: name another column with {option}")
    if len(counts) == 1:
        raise UserError(f"{where}: all labels are {next(iter(counts))!r}: there is nothing to learn")
    if len(counts) > 3 and len(counts) > 0.5 * len(train):
        raise UserError(
            f"{where}: {len(counts):,} different labels for {len(train):,} examples: that is no column of labels; "
            f"name another with {option}"
        )
    if unknown := sorted(set(valid) - counts.keys()):
        alone = "has too few examples" if automatic else "is only in the validation part"
        raise UserError(
            f"{where}: the label {few(list(map(repr, unknown)))} {alone}: give examples, or leave it out"
        )
    if single := sorted(name for name, count in counts.items() if count == 1):
        raise UserError(
            f"{where}: the label {few(list(map(repr, single)))} has a single example: give more, or leave it out"
        )


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
