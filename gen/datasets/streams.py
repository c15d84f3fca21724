"""Contiguous streams of a long text: truncated back-propagation, and evaluation with the state carried along."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from gen.base.distributed import shard, size
from gen.base.errors import UserError
from gen.datasets.batches import TokenFile
from gen.datasets.examples import InMemoryTokens
from gen.models.batch import Batch


class StreamBatches:
    """B contiguous streams of a long text, in chunks of T tokens: truncated back-propagation.

    A stream begins an epoch with BOS and the learned first state, wherever in the text it stands; so a model
    knows how to begin. The text is a ring that every epoch enters at another point, which moves the borders
    of the chunks.

    Args:
        tokens: the text.
        batch_size: B.
        chunk: T.
        bos_id: the first input of a stream.
        seed: of the points of entry.
    """

    def __init__(
        self, tokens: TokenFile | InMemoryTokens, batch_size: int, chunk: int, bos_id: int, seed: int = 0
    ) -> None:
        self.tokens = tokens
        self.batch_size = batch_size
        self.chunk = chunk
        self.bos_id = bos_id
        self.seed = seed
        self.batches_per_epoch = len(tokens) // batch_size // chunk
        if batch_size < size():
            raise UserError(f"--batch-size {batch_size}: {size()} processes need at least a stream each")

    def _ring(self, start: int, length: int) -> np.ndarray:
        start %= len(self.tokens)
        piece = self.tokens.read(start, length)
        missing = length - len(piece)
        return np.concatenate([piece, self.tokens.read(0, missing)]) if missing else piece

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from position ``start`` on."""
        stride = len(self.tokens) // self.batch_size
        entry = int(np.random.default_rng((self.seed, epoch)).integers(len(self.tokens)))
        for position in range(start, self.batches_per_epoch):
            offset = entry + position * self.chunk
            pieces = [self._ring(offset + b * stride - 1, self.chunk + 1) for b in shard(range(self.batch_size))]
            ids = torch.from_numpy(np.stack(pieces))
            inputs = ids[:, :-1].clone()
            if position == 0:
                inputs[:, 0] = self.bos_id
            yield Batch({}, inputs, ids[:, 1:].contiguous(), continues=position > 0)


def stream_evaluation(
    tokens: TokenFile,
    bos_id: int,
    pad_id: int,
    *,
    limit: int | None = None,
    chunk: int = 256,
    lead: int = 512,
    in_order: bool = False,
) -> Iterator[Batch]:
    """A text once, every token counted once, with the state carried from its beginning to its end.

    One row would be exact and slow. So the text is cut into rows that run side by side, and each begins
    ``lead`` tokens early, uncounted, to arrive at its own part in the state that a single row would carry.
    Several processes share the rows.

    Args:
        tokens: the text.
        bos_id, pad_id: the first input; what an uncounted target is.
        limit: only the first ``limit`` tokens.
        chunk: tokens a batch.
        lead: tokens read before a row counts.
        in_order: one row.
    """
    n = len(tokens) if limit is None else min(limit, len(tokens))
    rows = 1 if in_order else max(1, min(64, n // (8 * lead)))
    if n == 0 or not shard(range(rows)):
        return
    steps = -(-(n + (rows - 1) * lead) // rows)  # each row reads this many, the first counts all of them
    for begin in range(0, steps, chunk):
        length = min(chunk, steps - begin)
        own = shard(range(rows))
        inputs = np.full((len(own), length), pad_id)
        targets = np.full((len(own), length), pad_id)
        for i, row in enumerate(own):
            position = row * (steps - lead) + begin
            piece = tokens.read(max(position - 1, 0), max(min(length + 1, n - position + 1), 0))
            if position == 0:
                piece = np.concatenate([[bos_id], piece[:length]])
            known = len(piece) - 1
            if known < 1:
                continue
            inputs[i, :known] = piece[:-1]
            uncounted = max(lead - begin, 0) if row else 0
            targets[i, uncounted:known] = piece[1 + uncounted :]
        yield Batch({}, torch.from_numpy(inputs), torch.from_numpy(targets), continues=begin > 0)
