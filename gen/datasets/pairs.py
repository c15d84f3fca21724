"""Parallel corpora: sentence pairs → token ids on disk, filtered, cached by content and vocabulary."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from gen.base.cache import cached
from gen.base.errors import UserError
from gen.datasets.batches import Sequences, TokenFile
from gen.datasets.corpus import Reiterable, TokenizerOptions, digest, read_tokenizer, token_dtype, write_tokenizer
from gen.datasets.pair_files import PairFiles
from gen.datasets.splits import PairKeys, hold_out_pairs, pair_notes
from gen.inputs.sentences import sentence_ends
from gen.inputs.subword import SubwordTokenizer, seed_sampling
from gen.inputs.tokenizer import Tokenizer


@dataclass(frozen=True)
class PairOptions:
    """Options of a parallel corpus: vocabulary, filters and split.

    Attributes:
        tokenizer: how to build the vocabulary, from the training pairs only.
        joint: one vocabulary for both sides.
        lowercase: lower-case both sides.
        max_length: drop training pairs with more tokens on one side.
        length_ratio: drop training pairs in which one side has more than this many times the tokens of the other;
            0 drops none.
        valid_size: pairs to hold out if no validation data is given; at most a tenth of all pairs.
        subword_dropout: segment the training pairs randomly, with this parameter of `SubwordTokenizer.sample`;
            0 segments them always the same way.
    """

    tokenizer: TokenizerOptions
    joint: bool = True
    lowercase: bool = False
    max_length: int = 256
    length_ratio: float = 0.0
    valid_size: int = 1000
    subword_dropout: float = 0.0

    @property
    def spellings(self) -> int:
        """The number of segmentations per training pair that are stored; epochs use them in turn."""
        return 8 if self.subword_dropout else 1

    def suited(self, num_pairs: int) -> PairOptions:
        """With at most 5000 subwords for fewer than 20,000 training pairs, unless the user chose a size."""
        # All 29,000 pairs of Multi30k, 8,000 steps: 8000 subwords 40.1 BLEU, 5000 38.7. Not tried with fewer.
        if num_pairs >= 20_000:
            return self
        return replace(self, tokenizer=replace(self.tokenizer, subwords=min(self.tokenizer.subwords, 5000)))


@dataclass(frozen=True)
class Pairs:
    """A parallel corpus as token ids.

    Attributes:
        source_tokenizer, target_tokenizer: the same object if the vocabulary is joint.
        source: the training sources, each ending with EOS: all in the first segmentation, then all in the next.
        target: the training targets in the same order, without BOS and EOS.
        valid: the held-out pairs as text.
        rows, valid_rows: which rows of the files the training pairs (in one segmentation) and the held-out ones
            are, (N,) int64.
        dropped: reason → the number of pairs dropped for it.
        notes: name → text, for a table: columns, repeated pairs, what both parts share.
        max_source_length: the length of the longest training source in tokens, without subword dropout.
        multi_sentence_p90: the 90th percentile of the length of training sources with several sentences; 1 if they
            are rare.
        spellings: the number of segmentations.
        digest: a hash of the files.
    """

    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    source: Sequences
    target: Sequences
    valid: list[tuple[str, str]]
    rows: np.ndarray
    valid_rows: np.ndarray
    dropped: dict[str, int]
    notes: dict[str, str] = field(default_factory=dict)
    max_source_length: int = 0
    multi_sentence_p90: int = 0
    spellings: int = 1
    digest: str = ""


def build_pairs(
    train: PairFiles,
    valid: PairFiles | None,
    options: PairOptions,
    *,
    context: Sequence[str] = (),
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None,
    cache: Path | None = None,
) -> Pairs:
    """Reads and splits pairs, builds the vocabulary, tokenizes and filters; or loads the result from the cache.

    Args:
        train: the training pairs.
        valid: the validation pairs; None means those that a column "split" names, or else a part of ``train`` that
            shares no source and no target with the rest (only no source if there are few targets, as with labels).
            It depends on the pairs alone.
        options: vocabulary, filters and split.
        context: columns of further source sentences, for the vocabulary.
        tokenizers: use these, for source and target, instead of building any.
        cache: the cache's folder; None means `gen.base.cache.cache_folder`.

    Raises:
        UserError: a file cannot be read, or no pairs are left for training or validation.
    """
    own = [digest(t) for t in tokenizers or ()]
    content = [train.digest(), valid.digest() if valid else ""]
    recipe = [asdict(options), list(context), own, *content]
    folder = cached(recipe, lambda f: _fill(f, train, valid, options, context, tokenizers), cache)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    source_tokenizer, target_tokenizer = (
        read_tokenizer(folder / f"{side}.tokenizer") for side in ("source", "target")
    )
    source, target = (
        Sequences(
            TokenFile(folder / f"{side}.bin", meta["dtype"][side]),
            np.memmap(folder / f"{side}.offsets", dtype=np.int64, mode="r"),
        )
        for side in ("source", "target")
    )
    held_out = [(a, b) for a, b in meta["valid"]]
    same = digest(source_tokenizer) == digest(target_tokenizer)
    return Pairs(
        source_tokenizer,
        source_tokenizer if same else target_tokenizer,
        source,
        target,
        held_out,
        np.fromfile(folder / "train.rows", np.int64),
        np.array(meta["valid_rows"], np.int64),
        meta["dropped"],
        meta["notes"],
        meta["max_source_length"],
        meta["multi_sentence_p90"],
        options.spellings,
        " ".join(content).strip(),
    )


class _TrainingPairs:
    """The training pairs that are neither left out nor empty on a side: a re-iterable that counts the latter."""

    def __init__(self, files: PairFiles, left_out: np.ndarray, lowercase: bool) -> None:
        self.files, self.left_out, self.lowercase = files, left_out, lowercase
        self.empty = 0
        self.row = -1  # of the files, of the pair that was returned last

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self.empty = 0
        for row, (source, target) in enumerate(self.files):
            if self.left_out[row]:
                continue
            self.row = row
            if not source or not target:
                self.empty += 1
                continue
            yield (source.lower(), target.lower()) if self.lowercase else (source, target)


def _fill(
    folder: Path,
    train: PairFiles,
    valid: PairFiles | None,
    options: PairOptions,
    context: Sequence[str],
    made: tuple[Tokenizer, Tokenizer] | None,
) -> None:
    keys, parts = PairKeys.of(train), train.parts
    usable = np.ones(len(keys.source), bool) if parts is None else parts != "test"
    held_out = np.zeros(len(usable), bool) if parts is None else parts == "valid"
    if valid is None:
        if not held_out.any():
            held_out[usable] = hold_out_pairs(keys[usable], options.valid_size)
        kept = [(row, *pair) for row, pair in enumerate(train) if held_out[row]]
    else:
        kept = [(row, *pair) for row, pair in enumerate(valid)]
    notes = pair_notes(keys[usable & ~held_out], PairKeys.of((a, b) for _, a, b in kept))
    aside = {"to test on": int((~usable).sum()), "to validate on": int(held_out.sum()) if valid is not None else 0}
    if unused := [f"{count:,} pairs {what}" for what, count in aside.items() if count]:
        notes["not used"] = ", ".join(unused)
    columns = list(dict.fromkeys(train.columns + (valid.columns if valid else [])))
    notes |= {"columns": "; ".join(columns)} if columns else {}
    found = len(kept)
    kept = [(row, a, b.lower() if options.lowercase else b) for row, a, b in kept if a and b]
    empty = found - len(kept)
    if not kept:
        enough = int(keys.whole.sum()) > 10
        problem = "; all are connected by equal sources or targets" if enough else ", or give more than ten pairs"
        raise UserError(f"no pairs are left for validation: name a file with --valid{problem}")
    options = options.suited(int((usable & ~held_out).sum()))
    pairs = _TrainingPairs(train, held_out | ~usable, options.lowercase)
    further = train.cells([("--context", column) for column in context]) if context else []
    more = [str(c) for cells in further for c, out in zip(cells, pairs.left_out, strict=True) if c and not out]
    more = [text.lower() for text in more] if options.lowercase else more
    tokenizers = dict(zip(("source", "target"), made or _train_tokenizers(options, pairs, more), strict=True))
    dropped, max_source_length, multi_sentence_p90 = _write(folder, pairs, tokenizers, options)
    if empty:
        dropped["an empty side, for validation"] = empty
    for side, tokenizer in tokenizers.items():
        write_tokenizer(folder / f"{side}.tokenizer", tokenizer)
    meta = {
        "dtype": {s: token_dtype(t) for s, t in tokenizers.items()},
        "valid": [(a, b) for _, a, b in kept],
        "valid_rows": [row for row, *_ in kept],
        "dropped": dropped,
        "notes": notes,
        "max_source_length": max_source_length,
        "multi_sentence_p90": multi_sentence_p90,
    }
    (folder / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")


def _train_tokenizers(
    options: PairOptions, pairs: _TrainingPairs, more: Sequence[str]
) -> tuple[Tokenizer, Tokenizer]:
    """The vocabularies of the sources and the targets; ``more`` texts are sources, too."""
    if options.joint:
        both = options.tokenizer.train(Reiterable(lambda: chain(chain.from_iterable(pairs), more)))
        return both, both
    sources = Reiterable(lambda: chain((a for a, _ in pairs), more))
    targets = Reiterable(lambda: (b for _, b in pairs))
    return _train_side(options, "source", sources), _train_side(options, "target", targets)


def _train_side(options: PairOptions, side: str, texts: Reiterable) -> Tokenizer:
    try:
        return options.tokenizer.train(texts)
    except UserError as error:
        if not error.args[0].startswith("--"):  # about a file, which the message names
            raise
        raise UserError(f"the {side} side: {error}") from error


def _write(
    folder: Path, pairs: _TrainingPairs, tokenizers: dict[str, Tokenizer], options: PairOptions
) -> tuple[dict[str, int], int, int]:
    """Writes token ids and offsets of both sides, and the rows of the pairs.

    Returns:
        ``dropped``, ``max_source_length`` and ``multi_sentence_p90`` of `Pairs`.
    """
    ends: dict[str, list[int]] = {side: [0] for side in tokenizers}
    dropped: Counter[str] = Counter()
    lengths, multi_sentence, rows = array("q"), array("q"), array("q")
    seed_sampling()
    with ExitStack() as files:
        opened = {side: files.enter_context((folder / f"{side}.bin").open("wb")) for side in tokenizers}
        for spelling in range(options.spellings):
            for pair in pairs:
                plain = [t.encode(text) for t, text in zip(tokenizers.values(), pair, strict=True)]
                if reason := too_long(options, len(plain[0]), len(plain[1])):
                    dropped[reason] += spelling == 0
                    continue
                if spelling == 0:
                    rows.append(pairs.row)
                    lengths.append(len(plain[0]) + 1)
                    multi_sentence.extend(lengths[-1:] if sentence_ends(pair[0]) else ())
                for (side, tokenizer), text, ids in zip(tokenizers.items(), pair, plain, strict=True):
                    if options.subword_dropout and isinstance(tokenizer, SubwordTokenizer):
                        ids = tokenizer.sample(text, options.subword_dropout)
                    ids = [*ids, tokenizer.eos_id] if side == "source" else ids
                    opened[side].write(np.array(ids, token_dtype(tokenizer)).tobytes())
                    ends[side].append(ends[side][-1] + len(ids))
    for side in tokenizers:
        (folder / f"{side}.offsets").write_bytes(np.array(ends[side], np.int64).tobytes())
    (folder / "train.rows").write_bytes(np.array(rows, np.int64).tobytes())
    found = {"an empty side": pairs.empty, **dropped} if pairs.empty else dict(dropped)
    if len(ends["source"]) == 1:
        reasons = "; ".join(f"{n:,} with {reason}" for reason, n in found.items())
        raise UserError(f"no training pairs are left ({reasons or 'the files have none'})")
    enough = len(multi_sentence) >= _MIN_MULTI_SENTENCE * len(lengths)
    return found, max(lengths), int(np.quantile(multi_sentence, 0.9)) if enough else 1


_MIN_MULTI_SENTENCE = 0.1
"""The share of training sources with several sentences that is enough to learn to translate them. A model trained
on single sentences omits the second one."""


def too_long(options: PairOptions, source: int, target: int) -> str:
    """The reason to drop a pair with these numbers of tokens; "" to keep it."""
    short, long = sorted((source, target))
    if long > options.max_length:
        return f"more than {options.max_length} tokens"
    if options.length_ratio and long > options.length_ratio * short:
        return f"a ratio above {options.length_ratio:g}"
    return ""
