"""Sentence pairs → token ids on disk, filtered, cached by content and vocabulary."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from gen.base.cache import cached
from gen.base.errors import UserError
from gen.datasets.batches import Sequences, TokenFile
from gen.datasets.corpus import Again, TokenizerOptions, digest, read_tokenizer, token_dtype, write_tokenizer
from gen.datasets.pair_files import PairFiles
from gen.inputs.sentences import sentence_ends
from gen.inputs.tokenizer import SubwordTokenizer, Tokenizer, seed_sampling


@dataclass(frozen=True)
class PairOptions:
    """How pairs become token ids.

    Attributes:
        tokenizer: the vocabulary, built from the training pairs alone.
        joint: one vocabulary for both sides.
        lowercase: lower-case both sides.
        max_length: training pairs with more tokens on one side are dropped.
        length_ratio: so are those in which one side has this many times the tokens of the other; 0: none.
        valid_size: pairs that are held out where no validation data is given, at most a tenth of all.
        subword_dropout: spell the training pairs anew in every epoch, with this much chance; see
            `SubwordTokenizer.sample`. 0: always the same.
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
        """How many spellings of the training pairs are kept; epochs take turns."""
        return 8 if self.subword_dropout else 1


@dataclass(frozen=True)
class Pairs:
    """Both sides of a parallel corpus.

    Attributes:
        source_tokenizer, target_tokenizer: one and the same where the vocabulary is joint.
        source: the training sources, each with EOS at its end; all of them in one spelling, then in the next.
        target: the training targets, without BOS and EOS, likewise.
        spellings: how many there are.
        valid: held-out pairs as text.
        dropped: why training pairs were left out, and how many.
        longest: how many tokens the longest training source has, plainly spelled; see `SentenceReader`.
        usual: how many nine in ten of those have at most that hold several sentences; 1 where hardly any does.
    """

    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    source: Sequences
    target: Sequences
    valid: list[tuple[str, str]]
    dropped: dict[str, int]
    longest: int = 0
    usual: int = 0
    spellings: int = 1


def build_pairs(
    train: PairFiles,
    valid: PairFiles | None,
    options: PairOptions,
    *,
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None,
    cache: Path | None = None,
) -> Pairs:
    """Reads, splits, builds the vocabulary, tokenizes and filters; or finds all of that in the cache.

    Args:
        train: the pairs to learn from.
        valid: pairs to validate on; None: a random part of ``train``, the same every time.
        options: how.
        tokenizers: use these, of the source and the target, instead of making some.
        cache: where; None: `gen.base.cache.cache_folder`.

    Raises:
        UserError: a file cannot be read, or nothing is left to train or to validate on.
    """
    own = [digest(t) for t in tokenizers or ()]
    recipe = [asdict(options), own, train.digest(), valid.digest() if valid else ""]
    folder = cached(recipe, lambda f: _fill(f, train, valid, options, tokenizers), cache)
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
        meta["dropped"],
        meta["longest"],
        meta["usual"],
        options.spellings,
    )


class _Training:
    """The training pairs: what is neither empty nor held out. A re-iterable that counts as it goes."""

    def __init__(self, files: PairFiles, held_out: set[int], lowercase: bool) -> None:
        self.files, self.held_out, self.lowercase = files, held_out, lowercase
        self.empty = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self.empty = 0
        for row, (source, target) in enumerate(self.files):
            if row in self.held_out:
                continue
            if not source or not target:
                self.empty += 1
                continue
            yield (source.lower(), target.lower()) if self.lowercase else (source, target)


def _fill(
    folder: Path,
    train: PairFiles,
    valid: PairFiles | None,
    options: PairOptions,
    made: tuple[Tokenizer, Tokenizer] | None,
) -> None:
    held_out: set[int] = set()
    if valid is None:
        count = sum(1 for _ in train)
        size = min(options.valid_size, count // 10)
        held_out = set(np.random.default_rng(0).permutation(count)[:size].tolist())
        kept = [pair for row, pair in enumerate(train) if row in held_out]
    else:
        kept = list(valid)
    found = len(kept)
    kept = [(a, b.lower() if options.lowercase else b) for a, b in kept if a and b]
    empty = found - len(kept)
    if not kept:
        raise UserError("no pairs are left to validate on: name some with --valid, or give more than ten pairs")
    pairs = _Training(train, held_out, options.lowercase)
    if made:
        source_tokenizer, target_tokenizer = made
    elif options.joint:
        source_tokenizer = target_tokenizer = options.tokenizer.train(Again(lambda: chain.from_iterable(pairs)))
    else:
        source_tokenizer = _train_side(options, "source", Again(lambda: (a for a, _ in pairs)))
        target_tokenizer = _train_side(options, "target", Again(lambda: (b for _, b in pairs)))
    tokenizers = {"source": source_tokenizer, "target": target_tokenizer}
    dropped, longest, usual = _write(folder, pairs, tokenizers, options)
    if empty:
        dropped["an empty side, to validate on"] = empty
    for side, tokenizer in tokenizers.items():
        write_tokenizer(folder / f"{side}.tokenizer", tokenizer)
    meta = {
        "dtype": {s: token_dtype(t) for s, t in tokenizers.items()},
        "valid": kept,
        "dropped": dropped,
        "longest": longest,
        "usual": usual,
    }
    (folder / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")


def _train_side(options: PairOptions, side: str, texts: Again) -> Tokenizer:
    try:
        return options.tokenizer.train(texts)
    except UserError as error:
        if not error.args[0].startswith("--"):  # about a file, which it names
            raise
        raise UserError(f"the {side} side: {error}") from error


def _write(
    folder: Path, pairs: _Training, tokenizers: dict[str, Tokenizer], options: PairOptions
) -> tuple[dict[str, int], int, int]:
    """Token ids and offsets of both sides. Returns what was dropped, and the lengths that `Pairs` explains."""
    ends: dict[str, list[int]] = {side: [0] for side in tokenizers}
    dropped: Counter[str] = Counter()
    lengths, of_several = array("q"), array("q")
    seed_sampling()
    with ExitStack() as files:
        opened = {side: files.enter_context((folder / f"{side}.bin").open("wb")) for side in tokenizers}
        for spelling in range(options.spellings):
            for pair in pairs:
                plain = [t.encode(text) for t, text in zip(tokenizers.values(), pair, strict=True)]
                if reason := _too_long(options, len(plain[0]), len(plain[1])):
                    dropped[reason] += spelling == 0
                    continue
                if spelling == 0:
                    lengths.append(len(plain[0]) + 1)
                    of_several.extend(lengths[-1:] if sentence_ends(pair[0]) else ())
                for (side, tokenizer), text, ids in zip(tokenizers.items(), pair, plain, strict=True):
                    if options.subword_dropout and isinstance(tokenizer, SubwordTokenizer):
                        ids = tokenizer.sample(text, options.subword_dropout)
                    ids = [*ids, tokenizer.eos_id] if side == "source" else ids
                    np.array(ids, token_dtype(tokenizer)).tofile(opened[side])
                    ends[side].append(ends[side][-1] + len(ids))
    for side in tokenizers:
        np.array(ends[side], np.int64).tofile(folder / f"{side}.offsets")
    found = {"an empty side": pairs.empty, **dropped} if pairs.empty else dict(dropped)
    if len(ends["source"]) == 1:
        said = "; ".join(f"{n:,} with {reason}" for reason, n in found.items())
        raise UserError(f"no training pairs are left ({said or 'the files hold none'})")
    learned = len(of_several) >= _SEVERAL * len(lengths)
    return found, max(lengths), int(np.quantile(of_several, 0.9)) if learned else 1


_SEVERAL = 0.1
"""Lines of several sentences have to be this part of all to be learned from: a network that knows only single ones
leaves out the second."""


def _too_long(options: PairOptions, source: int, target: int) -> str:
    """Why a pair of so many tokens is left out; "" where it is not."""
    short, long = sorted((source, target))
    if long > options.max_length:
        return f"more than {options.max_length} tokens"
    if options.length_ratio and long > options.length_ratio * short:
        return f"a ratio above {options.length_ratio:g}"
    return ""
