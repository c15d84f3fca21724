"""Training on shards while they are read: each block of texts or pairs is a small training set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np

from gen.base.errors import UserError
from gen.base.files import TextFiles, text_column
from gen.datasets.batches import Batches, SequenceBatches
from gen.datasets.corpus import Corpus, TokenizerOptions, build_corpus, token_dtype
from gen.datasets.examples import InMemory, InMemoryTokens
from gen.datasets.pair_files import PairFiles, one_line
from gen.datasets.pairs import PairOptions, too_long
from gen.datasets.shard_files import Shard, find_shards
from gen.datasets.shard_tables import ShardTable
from gen.datasets.shards import BUFFER, Place, Shards
from gen.datasets.splits import PairKeys, are_labels, text_key
from gen.datasets.streams import StreamBatches
from gen.inputs.tokenizer import Tokenizer
from gen.models.batch import PADDED_TO, Batch, pad

T = TypeVar("T")


class NoBatches:
    """A training set of nothing."""

    batches_per_epoch = 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """No batch."""
        return iter(())


class StreamedBatches(Generic[T]):
    """The blocks of shards as training sets, one after the other: to the trainer, each is an epoch.

    Several processes read and tokenize the same blocks, and each trains on its share of the rows of every batch.

    Args:
        shards: the data.
        make: the training set that a block's items are.
        seed: of the orders of shards and items.

    Attributes:
        batches_per_epoch: of the first block.

    Raises:
        UserError: the blocks of a whole pass have no batch, or a shard cannot be read.
    """

    def __init__(self, shards: Shards[T], make: Callable[[list[T]], Batches], seed: int = 0) -> None:
        self.shards, self.make, self.seed = shards, make, seed
        self._places: dict[int, Place] = {0: (0, 0, 0)}
        self._made: tuple[int, Batches] | None = None
        self._pass_with_batches = 0
        self.batches_per_epoch = self._block(0).batches_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of block number ``epoch`` from position ``start`` on."""
        return self._block(epoch).epoch(epoch, start)

    def _block(self, number: int) -> Batches:
        if self._made is not None and self._made[0] == number:
            return self._made[1]
        known = max(n for n in self._places if n <= number)
        for n in range(known, number + 1):
            items, self._places[n + 1] = self.shards.block(self._places[n], self.seed)
        made = self.make(items) if items else NoBatches()
        if made.batches_per_epoch:
            self._pass_with_batches = self._places[number][0]
        elif self._places[number][0] > self._pass_with_batches + 1:
            raise UserError("--data: a whole pass had no block with a batch: raise --shuffle-buffer")
        self._made = number, made
        return made

    def place(self, epoch: int) -> Place:
        """Where a block begins that `epoch` was asked for: what a training that goes on need not look for."""
        return self._places[epoch]

    def seek(self, epoch: int, place: Sequence[int]) -> None:
        """Tells where a block begins."""
        first, shard, row = map(int, place)
        self._places = {0: (0, 0, 0), epoch: (first, shard, row)}
        self._made, self._pass_with_batches = None, first


# -- text ------------------------------------------------------------------------------------------------


def text_shards(
    names: Sequence[str],
    *,
    column: str = "",
    by_line: bool = False,
    encoding_errors: str = "strict",
    buffer: int = BUFFER,
) -> Shards[str]:
    """Texts of shards; see `find_shards`. Running text comes in runs of lines, what else as whole texts.

    A row without a text in its column is named and left out.

    Raises:
        UserError: a file is missing, or it is not clear which column is the text.
    """
    shards = find_shards(names, encoding_errors, by_line=by_line)
    table = ShardTable(shards[0])
    chosen = text_column(table, column)

    def texts(shard: Shard, skip: int) -> Iterator[str | None]:
        for (text,) in table.cells(shard, skip, chosen):
            text = text if shard.is_running else text.strip()
            yield (" ".join(text.splitlines()) if by_line else text) or None

    return Shards(shards, texts, len, buffer)


def stream_corpus(
    texts: Shards[str], valid: TextFiles | None, options: TokenizerOptions, *, valid_fraction: float, **more: Any
) -> Corpus:
    """The corpus of the texts at the beginning: vocabulary, validation part, and a training part to measure by.

    Texts to validate on are left out of ``texts`` from now on, wherever they occur.

    Args:
        texts: the training texts.
        valid: the validation text; None means a share of those at the beginning.
        options: how to build the vocabulary.
        valid_fraction: the share of their characters.
        more: further arguments of `build_corpus`.
    """
    head = texts.head()
    unit = more.get("unit", "stream")
    held_out: set[int] = set()
    if valid is None:
        held_out = _held_out(head, valid_fraction)
        valid = Head([text for text in head if text_key(text) in held_out], texts.is_running, unit)
        head = [text for text in head if text_key(text) not in held_out]
        texts.left_out = lambda text: text_key(text) in held_out
    corpus = build_corpus(Head(head, texts.is_running, unit), valid, options, **more)
    return replace(corpus, digest=f"{texts.digest()} {corpus.digest}")


def _held_out(texts: Sequence[str], share: float) -> set[int]:
    """The keys of about a share of the texts, chosen by their hashes: equal texts stay on one side."""
    lengths = {text_key(text): len(text) for text in texts}
    if len(lengths) < 2:
        count = "a single" if lengths else "no"
        raise UserError(f"--data: there is {count} text, and none to validate on: name one with --valid")
    left, found = share * sum(lengths.values()), set[int]()
    for key in sorted(lengths)[:-1]:
        if left <= 0:
            break
        found.add(key)
        left -= lengths[key]
    return found


class Head(TextFiles):
    """Texts in memory, as `TextFiles` has them on disk."""

    def __init__(self, texts: Sequence[str], is_running: bool, unit: str) -> None:
        self.texts, self.is_running, self.by_line = texts, is_running, unit == "line"
        self.encoding_errors = "strict"

    def digest(self) -> str:
        return digest_of(self.texts)

    def __iter__(self) -> Iterator[str | None]:
        for number, text in enumerate(self.texts):
            if number and not self.is_running and not self.by_line:
                yield None
            yield text + "\n" if self.by_line else text


def digest_of(texts: Iterable[str]) -> str:
    """A hash of texts."""
    found = hashlib.blake2b(digest_size=20)
    for text in texts:
        found.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return found.hexdigest()


def text_blocks(
    tokenizer: Tokenizer, *, batch_size: int, chunk: int, seed: int, is_running: bool
) -> Callable[[list[str]], Batches]:
    """What makes contiguous streams of the texts of a block; see `StreamBatches`."""

    def make(texts: list[str]) -> Batches:
        """Texts → streams of their tokens."""
        end = [] if is_running else [tokenizer.eos_id]
        pieces = [np.append(tokenizer.encode_array(text), end).astype(dtype) for text in texts]
        tokens = InMemoryTokens(np.concatenate(pieces) if pieces else np.empty(0, dtype))
        return StreamBatches(tokens, batch_size, chunk, tokenizer.bos_id, seed)

    dtype = token_dtype(tokenizer)
    return make


def line_blocks(
    tokenizer: Tokenizer, *, batch_tokens: int, max_line: int, seed: int
) -> Callable[[list[str]], Batches]:
    """What makes batches of the texts of a block, each a sequence of its own; see `SequenceBatches`."""
    dtype = token_dtype(tokenizer)

    def make(texts: list[str]) -> Batches:
        """Texts → batches of texts of like length."""
        rows = [tokenizer.encode_array(text)[:max_line].astype(dtype) for text in texts]
        return SequenceBatches(InMemory(rows), batch_tokens, tokenizer, seed=seed)

    return make


# -- pairs -----------------------------------------------------------------------------------------------

Pair = tuple[str, str]


class PairHead(PairFiles):
    """The pairs at the beginning of shards, as `PairFiles` has them in files.

    Args:
        names: of shards; see `find_shards`.
        source_field, target_field: the columns; see `PairFiles`.
        buffer: of the shards.

    Attributes:
        shards: all pairs; a row that is none is named and left out.

    Raises:
        UserError: a file is missing, or it is not clear which columns are the pair.
    """

    def __init__(
        self, names: Sequence[str], source_field: str = "", target_field: str = "", *, buffer: int = BUFFER
    ) -> None:
        self.fields, self.advice = (source_field, target_field), "with --src and --tgt"
        self.columns, self.file_pairs, self.tables = [], [], []
        shards = find_shards(names, by_line=True)
        table = ShardTable(shards[0], self.wanted)
        chosen = self.choose(table)

        def pairs(shard: Shard, skip: int) -> Iterator[Pair | None]:
            for source, target in table.cells(shard, skip, *chosen):
                pair = one_line(source), one_line(target)
                yield pair if all(pair) else None

        self.shards = Shards(shards, pairs, lambda pair: len(pair[0]) + len(pair[1]), buffer)
        self.pairs = self.shards.head()
        if not self.pairs:
            raise UserError(f"{shards[0].name}: no pair is there")

    def digest(self) -> str:
        return f"{self.shards.digest()} {digest_of(text for pair in self.pairs for text in pair)}"

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)


def leave_out_pairs(shards: Shards[Pair], held_out: Sequence[Pair]) -> None:
    """Leaves out pairs with a source or a target that is validated on; of labels, only with such a source."""
    keys = PairKeys.of(held_out)
    sources = set(keys.source.tolist())
    targets = set[int]() if are_labels(keys) else set(keys.target.tolist())
    shards.left_out = lambda pair: text_key(pair[0]) in sources or bool(targets and text_key(pair[1]) in targets)


def pair_blocks(
    tokenizers: tuple[Tokenizer, Tokenizer], options: PairOptions, *, batch_tokens: int, seed: int
) -> Callable[[list[Pair]], Batches]:
    """What makes batches of the pairs of a block, without those that are too long; see `SequenceBatches`."""
    source_tokenizer, target_tokenizer = tokenizers

    def make(pairs: list[Pair]) -> Batches:
        """Pairs → batches of pairs of like length."""
        sources, targets = [], []
        for pair in pairs:
            source, target = (text.lower() for text in pair) if options.lowercase else pair
            source_ids, target_ids = source_tokenizer.encode_array(source), target_tokenizer.encode_array(target)
            if not too_long(options, len(source_ids), len(target_ids)):
                sources.append(
                    np.append(source_ids, source_tokenizer.eos_id).astype(token_dtype(source_tokenizer))
                )
                targets.append(target_ids.astype(token_dtype(target_tokenizer)))
        if not sources:
            return NoBatches()
        return SequenceBatches(
            InMemory(targets),
            batch_tokens,
            target_tokenizer,
            source=lambda rows, _: {
                "sentence": pad([sources[r] for r in rows], source_tokenizer.pad_id, PADDED_TO)
            },
            source_lengths=np.array([len(ids) for ids in sources]),
            seed=seed,
        )

    return make
