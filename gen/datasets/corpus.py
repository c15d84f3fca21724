"""Text corpora: text files → token ids on disk, in constant memory, cached by content and tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np

from gen.base.cache import cached
from gen.base.files import TextFiles
from gen.datasets.batches import TokenFile
from gen.datasets.splits import ChosenLines, held_out_lines, line_keys, lines_in, split_notes
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import TOKENIZERS, CharTokenizer, Normalization, Tokenizer, WordTokenizer

MAX_LINE = 1000
"""Tokens after which a line is cut, unless told otherwise."""


class Reiterable:
    """An iterable that calls ``make`` for a new iterator each time: texts to build a vocabulary from.

    Example:
        >>> texts = Reiterable(lambda: (line.lower() for line in ["One", "Two"]))
        >>> list(texts), list(texts)
        (['one', 'two'], ['one', 'two'])
    """

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())


@dataclass(frozen=True)
class TokenizerOptions:
    """How to build the vocabulary, from the training data only.

    Example:
        >>> len(TokenizerOptions(level="char").train(["abba"]))  # a, b and the special tokens
        6
    """

    level: str = "char"
    min_frequency: int = 2
    vocab_size: int | None = None
    model_type: str = "bpe"
    byte_fallback: bool = True
    dummy_prefix: bool = False
    pattern: str = WordTokenizer.PATTERN
    """For words: how to find them, a name of `gen.inputs.words.PATTERNS`."""
    subwords: int = 2000
    """For subwords: the vocabulary size if ``vocab_size`` is None, or the nearest that the text supports."""
    normalization: Normalization = "nfc"

    def train(self, texts: Any) -> Tokenizer:
        """Builds the tokenizer from ``texts``, a re-iterable of pieces."""
        if self.level == "char":
            return CharTokenizer.train(texts, normalization=self.normalization)
        if self.level == "word":
            return WordTokenizer.train(
                texts,
                min_frequency=self.min_frequency,
                max_size=self.vocab_size,
                pattern=self.pattern,
                dummy_prefix=self.dummy_prefix,
                normalization=self.normalization,
            )
        return SubwordTokenizer.train(
            texts,
            vocab_size=self.vocab_size or self.subwords,
            at_most=self.vocab_size is None,
            model_type=self.model_type,
            byte_fallback=self.byte_fallback,
            dummy_prefix=self.dummy_prefix,
            normalization=self.normalization,
        )


@dataclass(frozen=True)
class Part:
    """The training or the validation part of a corpus.

    Attributes:
        tokens: the token ids.
        offsets: (N + 1,) int64, where its lines begin and the last one ends; None for a stream.
        characters: the length of its text.
        unknown: the number of `<unk>` tokens.
        cut: the number of lines cut at the maximum length.
        given: the labels of its lines: input name → (N, 1) int64 ids.
    """

    tokens: TokenFile
    offsets: np.ndarray | None
    characters: int
    unknown: int
    cut: int
    given: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Corpus:
    """A tokenizer, the training part it was built from, and the validation part.

    Attributes:
        notes: name → text, for a table: repeated lines, and lines that both parts share.
        held_out: a file with the validation part, if that is lines of the training data; and which of its lines
            those are, (N,) bool.
        digest: a hash of the texts.
        texts: "train" and "valid" → the text of the part, a re-iterable of pieces.
    """

    tokenizer: Tokenizer
    train: Part
    valid: Part
    notes: dict[str, str] = field(default_factory=dict)
    held_out: tuple[Path, np.ndarray] | None = None
    digest: str = ""
    texts: Mapping[str, Iterable[str | None]] = field(default_factory=dict)


class _SplitText:
    """The text before or after a split at a character position: a re-iterable of pieces, like `TextFiles`."""

    def __init__(self, texts: TextFiles, split: Callable[[], int], first: bool) -> None:
        self.texts, self.split, self.first = texts, split, first

    def __iter__(self) -> Iterator[str | None]:
        at, split = 0, self.split()
        for piece in self.texts:
            if piece is None:
                if (at < split) == self.first:
                    yield piece
                continue
            cut = max(split - at, 0)
            part = piece[:cut] if self.first else piece[cut:]
            at += len(piece)
            if part:
                yield part
            if self.first and at >= split:
                return


def _halves(
    train: TextFiles, valid: TextFiles | None, share: float, held_out: np.ndarray | None
) -> dict[str, Iterable[str | None]]:
    """The text to train and to validate on.

    Args:
        train, valid, share: as `build_corpus` has them.
        held_out: which lines of ``train`` are held out; None for a stream.
    """
    if held_out is not None:
        first = ChosenLines(train, ~held_out)
        return {"train": first, "valid": valid or ChosenLines(train, held_out)}
    if valid is not None:
        return {"train": train, "valid": valid}
    split = once(lambda: int(sum(len(piece) for piece in train if piece is not None) * (1 - share)))
    return {name: _SplitText(train, split, name == "train") for name in ("train", "valid")}


def build_corpus(
    train: TextFiles,
    valid: TextFiles | None,
    options: TokenizerOptions,
    *,
    valid_fraction: float = 0.1,
    unit: str = "stream",
    max_line: int = MAX_LINE,
    tokenizer: Tokenizer | None = None,
    cache: Path | None = None,
) -> Corpus:
    """Reads and splits text, builds the vocabulary and tokenizes; or loads the result from the cache.

    Args:
        train: the training text.
        valid: the validation text; None means the last ``valid_fraction`` of ``train``. Lines that occur on both
            sides would be trained on: then it means as many lines that occur nowhere else.
        options: how to build the vocabulary.
        valid_fraction: a share of the characters, 0 to 1.
        unit: "stream", or "line" if every line is a sequence.
        max_line: longer lines are cut to this many tokens.
        tokenizer: use this one instead of building one.
        cache: the cache's folder; None means `cache_folder`.

    Raises:
        UserError: a file cannot be read or is not UTF-8, or a part is empty.
    """

    def fill(folder: Path) -> None:
        """Writes the vocabulary and the token ids of both parts."""
        notes: dict[str, str] = {}
        held_out = None
        if unit == "line":
            keys = line_keys(train)
            held_out = np.zeros(len(keys), bool) if valid else held_out_lines(train, keys, valid_fraction)
            others = line_keys(valid) if valid else keys[held_out]
            notes = split_notes("lines", keys[~held_out], {"lines": (keys[~held_out], others)})
        halves = _halves(train, valid, valid_fraction, held_out)
        if held_out is not None and not valid:
            (folder / "held_out.bin").write_bytes(held_out.tobytes())
            with (folder / "valid.txt").open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(piece for piece in halves["valid"] if piece)
        texts = Reiterable(lambda: (piece for piece in halves["train"] if piece is not None))
        made = tokenizer or options.train(texts)
        parts = {n: _write_part(folder, n, half, made, unit, max_line) for n, half in halves.items()}
        write_tokenizer(folder / "tokenizer.bin", made)
        (folder / "meta.json").write_text(json.dumps({"dtype": token_dtype(made), "parts": parts, "notes": notes}))

    content = [train.digest(), valid.digest() if valid else ""]
    recipe = [asdict(options), digest(tokenizer), unit, max_line, train.encoding_errors, *content]
    folder = cached([*recipe, None if valid else valid_fraction], fill, cache)
    meta = json.loads((folder / "meta.json").read_text())
    made = read_tokenizer(folder / "tokenizer.bin")
    train_part, valid_part = (_open_part(folder, name, meta) for name in ("train", "valid"))
    path = folder / "valid.txt"
    held_out = (path, np.fromfile(folder / "held_out.bin", bool)) if path.exists() else None
    halves = _halves(train, valid, valid_fraction, held_out and held_out[1])
    return Corpus(made, train_part, valid_part, meta["notes"], held_out, " ".join(content).strip(), halves)


def tokenize(
    texts: Iterable[str | None], tokenizer: Tokenizer, unit: str, folder: Path, max_line: int = MAX_LINE
) -> Part:
    """Tokenizes text with a given vocabulary into ``folder``, to evaluate a model on it."""
    counts = _write_part(folder, "text", texts, tokenizer, unit, max_line)
    return _open_part(folder, "text", {"dtype": token_dtype(tokenizer), "parts": {"text": counts}})


def digest(tokenizer: Tokenizer | None) -> str:
    """A hash of a tokenizer, for the recipe of a cached folder; "" for None."""
    return hashlib.blake2b(tokenizer.to_bytes(), digest_size=20).hexdigest() if tokenizer else ""


def write_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Writes a tokenizer to a file of the cache: its kind, then its serialized form."""
    path.write_bytes(tokenizer.kind.encode() + b"\n" + tokenizer.to_bytes())


def read_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer that `write_tokenizer` wrote."""
    kind, _, data = path.read_bytes().partition(b"\n")
    return TOKENIZERS[kind.decode()].from_bytes(data)


def token_dtype(tokenizer: Tokenizer) -> str:
    """The smallest dtype on disk that holds all token ids: "uint16" or "uint32"."""
    return "uint16" if len(tokenizer) <= 1 << 16 else "uint32"


def _write_part(
    folder: Path, name: str, half: Iterable[str | None], tokenizer: Tokenizer, unit: str, max_line: int
) -> dict[str, int]:
    counts = {"characters": 0, "unknown": 0, "cut": 0}
    dtype = token_dtype(tokenizer)
    with (folder / f"{name}.bin").open("wb") as tokens, (folder / f"{name}.offsets").open("wb") as offsets:
        position = 0
        if unit == "line":
            offsets.write(np.zeros(1, np.int64).tobytes())
        for piece in half:
            if piece is None:
                if unit == "stream":  # between two files
                    tokens.write(np.array([tokenizer.eos_id], dtype).tobytes())
                continue
            piece = tokenizer.normalize(piece)  # so that its characters are counted as the model sees them
            if unit == "stream":
                ids = tokenizer.encode_array(piece)
                counts["characters"] += len(piece)
            else:
                lines = lines_in(piece)
                encoded = [tokenizer.encode_array(line) for line in lines]
                cut = [len(e) > max_line for e in encoded]
                kept = (
                    len(tokenizer.decode(ids[:max_line].tolist())) if is_cut else len(line)
                    for line, ids, is_cut in zip(lines, encoded, cut, strict=True)
                )
                counts["characters"] += sum(kept) + len(lines)
                counts["cut"] += sum(cut)
                encoded = [e[:max_line] for e in encoded]
                ids = np.concatenate(encoded) if encoded else np.empty(0, np.int64)
                ends = position + np.cumsum([len(e) for e in encoded], dtype=np.int64)
                offsets.write(ends.tobytes())
                position += len(ids)
            counts["unknown"] += int((ids == tokenizer.unk_id).sum())
            tokens.write(ids.astype(dtype).tobytes())
    if unit != "line":
        (folder / f"{name}.offsets").unlink()
    return counts


def _open_part(folder: Path, name: str, meta: dict[str, Any]) -> Part:
    offsets = folder / f"{name}.offsets"
    lines = np.memmap(offsets, dtype=np.int64, mode="r") if offsets.exists() else None
    return Part(TokenFile(folder / f"{name}.bin", meta["dtype"]), lines, **meta["parts"][name])
