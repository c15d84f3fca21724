"""Sentence pairs: reading, and what the tables of a training say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gen.base.errors import UserError
from gen.datasets.batches import Sequences
from gen.datasets.corpus import Reiterable
from gen.datasets.look import Column, DataPart
from gen.datasets.pair_files import PairFiles
from gen.datasets.pairs import Pairs, build_pairs
from gen.datasets.shard_files import is_streamed
from gen.datasets.shards import BUFFER, Shards
from gen.datasets.streamed import Pair, PairHead, StreamedBatches, leave_out_pairs, pair_blocks
from gen.inputs.tokenizer import Tokenizer
from gen.models.model import Model
from gen.training.config import check_split
from gen.training.interfaces import Example
from gen.training.self_critical import SelfCritical
from tasks.translate.inputs import Further, Rows, leave_out, read_further, read_rows
from tasks.translate.options import TranslateData, TranslateHeldOut, TranslateReward


def repeated_share(sequences: Sequences, n: int, most: int = 20_000) -> float:
    """The share of the first ``most`` sequences that hold the same ``n`` tokens in a row more than once."""
    count = min(len(sequences), most)
    found = 0
    for row in range(count):
        ids = sequences[row].tolist()
        windows = list(zip(*(ids[i:] for i in range(n)), strict=False))
        found += len({*windows}) < len(windows)
    return found / max(count, 1)


@dataclass(frozen=True)
class TranslateSplit:
    """The sentence pairs; see `gen.training.interfaces.Split`."""

    pairs: Pairs
    further: Further = field(default_factory=Further)
    stream: Shards[Pair] | None = None

    @cached_property
    def valid(self) -> list[Example]:
        return self.examples(self.further.valid)

    def examples(self, further: Rows) -> list[Example]:
        """The validation pairs with their further inputs."""
        sources, targets = zip(*self.pairs.valid, strict=True)
        items = self.further.items(sources, further)
        return [Example(item, target) for item, target in zip(items, targets, strict=True)]

    @property
    def tokenizer(self) -> Tokenizer:
        return self.pairs.target_tokenizer

    @property
    def digest(self) -> str:
        return self.pairs.digest

    @property
    def num_tokens(self) -> int:
        """Of streamed pairs, very roughly."""
        found = len(self.pairs.target.tokens) // self.pairs.spellings
        # Half of the characters are the target's, and about four of them are a token.
        return found if self.stream is None else max(self.stream.size // 8, found)

    def table(self) -> dict[str, str]:
        """What the table of the data says: name → text."""
        pairs = self.pairs
        dropped = "; ".join(f"{n:,} with {reason}" for reason, n in pairs.dropped.items())
        one = pairs.source_tokenizer is pairs.target_tokenizer
        sizes = f"{len(pairs.source_tokenizer):,}" + ("" if one else f" and {len(pairs.target_tokenizer):,}")
        training = f"{len(pairs.rows):,} pairs, {len(pairs.target.tokens) // pairs.spellings:,} target tokens"
        return {
            "training": training if self.stream is None else f"{self.stream}; vocabulary from {training}",
            "dropped": (dropped or "none") + ("" if self.stream is None else " at the beginning"),
            "validation": f"{len(pairs.valid):,} pairs",
            **pairs.notes,
            **self.further.table(),
            "vocabulary": f"{sizes} ({pairs.target_tokenizer.kind}{', joint' if one else ''})",
        }


def read_table(options: TranslateHeldOut, trained: TranslateData) -> list[Example]:
    """The pairs of tables, with the columns that a model was trained with.

    Raises:
        UserError: no pairs are there, or a column is missing.
    """
    files = PairFiles(options.data, trained.src, trained.tgt, tables=True)
    further = replace(trained.further, images=options.images)
    rows, parts = read_rows(files, further), files.parts
    pairs = list(files)
    items = Further(further.kinds).items([source for source, _ in pairs], rows)
    chosen = [
        options.split == "all" or (parts is not None and parts[i] == options.split) for i in range(len(pairs))
    ]
    found = [Example(item, t) for item, (s, t), use in zip(items, pairs, chosen, strict=True) if use and s and t]
    if not found:
        raise UserError(f"{options.data[0]}: holds no pairs of the split {options.split!r}")
    return found


def streamed_batches(split: TranslateSplit, data: TranslateData, seed: int) -> StreamedBatches[Pair]:
    """The pairs of the shards to train on."""
    assert split.stream is not None
    pairs = split.pairs
    tokenizers = (pairs.source_tokenizer, pairs.target_tokenizer)
    make = pair_blocks(tokenizers, data.pairs, batch_tokens=data.batch_tokens, seed=seed)
    return StreamedBatches(split.stream, make, seed)


def minimum_risk(pairs: Pairs, score: Callable[[str, str], float], options: TranslateReward) -> SelfCritical:
    """Training by the score of translations against the targets of their training pairs."""
    count = len(pairs.rows)
    targets = [pairs.target_tokenizer.decode(pairs.target[row].tolist()) for row in range(count)]
    longest = int(pairs.target.lengths.max()) + 1  # with EOS
    return SelfCritical(
        lambda hypothesis, row: score(hypothesis.text, targets[row % count]),
        samples=options.samples,
        baseline=options.baseline,
        max_new_tokens=longest,
    )


def known_vocabularies(
    begun: Model | None, vocabulary: Tokenizer | None, options: TranslateData
) -> tuple[Tokenizer, Tokenizer] | None:
    """The vocabularies of both sides of a model to start from; None without one, or for new ones.

    Raises:
        UserError: the model has other further inputs.
    """
    if begun is None:
        return None
    processors = dict(begun.processors)
    sentence: Any = processors.pop("sentence", None)
    if sentence is None or set(processors) != set(options.further.kinds):
        reads = f"reads {', '.join(begun.processors)}" if processors else "reads sentences alone"
        raise UserError(f"--init-from: that model {reads}")
    return (sentence.tokenizer, vocabulary) if vocabulary else None


def held_out_pairs(options: TranslateHeldOut, model: Any, trained: TranslateData) -> list[Example]:
    """Pairs to evaluate a model on: those of the options, else the validation part of its training.

    Raises:
        UserError: there are none, or the model lacks an input that is to be left out.
    """
    if options.src:
        pairs = list(PairFiles([options.src, options.ref]))
        if not any(target.strip() for _, target in pairs):
            raise UserError(f"{options.ref}: has only empty lines")
        return [Example(source, target) for source, target in pairs]
    if options.data:
        found = read_table(options, trained)
    else:
        if not (trained.train or trained.data):
            raise UserError("the model has no record of its training pairs: name some with --src and --ref")
        if not trained.valid:
            check_split(model, "--src and --ref")
        found = read_pairs(trained).valid
    return [replace(e, item=leave_out(e.item, model, options.without)) for e in found]


def pair_parts(split: TranslateSplit, options: TranslateData, test: Sequence[str]) -> dict[str, DataPart]:
    """The pairs that are trained on, validated on, left for a test, and left out.

    Args:
        split: what `read_pairs` read with the options.
        options: of the data.
        test: files of pairs to test on.
    """
    train, valid = pair_files(options)
    others = train.parts
    held_out = np.zeros(0, np.int64) if valid else split.pairs.valid_rows
    left = np.ones(len(others) if others is not None else sum(1 for _ in train), bool)
    left[split.pairs.rows] = left[held_out] = False
    for_test = np.flatnonzero(left & (others == "test")) if others is not None else held_out[:0]
    left[for_test] = False
    chosen = {
        "training": (train, split.pairs.rows),
        "validation": (valid or train, split.pairs.valid_rows),
        "test": (PairFiles(test, options.src, options.tgt), None) if test else (train, for_test),
        "left out": (train, np.flatnonzero(left)),
    }
    parts = {
        name: DataPart(_sides(files, rows, options.lowercase))
        for name, (files, rows) in chosen.items()
        if rows is None or len(rows)
    }
    for name, rows in (("training", split.further.train), ("validation", split.further.valid)):
        parts[name] = _with_further(parts[name], split.further.kinds, rows, options.lowercase)
    return parts


def _sides(files: PairFiles, rows: np.ndarray | None, lowercase: bool) -> dict[str, Column]:
    """The sources and targets of some rows, or of all."""
    chosen = None if rows is None else set(rows.tolist())

    def side(number: int) -> Reiterable:
        return Reiterable(
            lambda: (pair[number] for row, pair in enumerate(files) if chosen is None or row in chosen)
        )

    prepare = str.lower if lowercase else str
    return {"source": Column(side(0), "sentence", prepare), "target": Column(side(1), "", prepare)}


def _with_further(part: DataPart, kinds: dict[str, str], rows: Rows, lowercase: bool) -> DataPart:
    """A part with its further inputs."""
    prepare = str.lower if lowercase else str
    texts = {n: Column([c for c in rows[n] if c], n, prepare) for n, kind in kinds.items() if kind == "context"}
    labels = {n: [c or "" for c in rows[n]] for n, kind in kinds.items() if kind == "given"}
    pictures = [c for n, kind in kinds.items() if kind == "image" for c in rows[n] if c]
    return DataPart({**part.columns, **texts}, labels, pictures)


def pair_files(options: TranslateData) -> tuple[PairFiles, PairFiles | None]:
    """The files to train and to validate on; None for a part of those to train on."""
    columns, tables = (options.src, options.tgt), not options.train
    valid: PairFiles | None = None
    if options.valid:
        kind = PairHead if any(map(is_streamed, options.valid)) else PairFiles
        valid = kind(options.valid, *columns)
    if options.streams:
        return PairHead(options.data, *columns, buffer=options.shuffle_buffer or BUFFER), valid
    return PairFiles(options.train or options.data, *columns, tables=tables), valid


def read_pairs(options: TranslateData, vocabularies: tuple[Tokenizer, Tokenizer] | None = None) -> TranslateSplit:
    """Reads and tokenizes the pairs, with new vocabularies if none are given; and their further inputs."""
    train, valid = pair_files(options)
    if isinstance(train, PairHead):
        pairs = build_pairs(train, valid, options.pairs, tokenizers=vocabularies)
        leave_out_pairs(train.shards, pairs.valid)
        return TranslateSplit(pairs, stream=train.shards)
    pairs = build_pairs(train, valid, options.pairs, context=options.further.context, tokenizers=vocabularies)
    return TranslateSplit(pairs, read_further(options.further, pairs, train, valid))
