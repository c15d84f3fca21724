"""A text corpus: reading it, and batches to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.base.distributed import is_main
from gen.base.errors import few, notify
from gen.base.files import TextFiles
from gen.datasets.batches import SequenceBatches, Sequences
from gen.datasets.corpus import Corpus, Part, Reiterable, TokenizerOptions, build_corpus
from gen.datasets.examples import NamedSources
from gen.datasets.labelled import check_labels
from gen.datasets.look import Column, DataPart
from gen.datasets.shard_files import is_streamed
from gen.datasets.shards import BUFFER, Shards
from gen.datasets.splits import lines_in
from gen.datasets.streamed import Head, StreamedBatches, line_blocks, stream_corpus, text_blocks, text_shards
from gen.inputs.labels import LabelProcessor, LabelTokenizer
from gen.inputs.tokenizer import Tokenizer
from tasks.options import input_name
from tasks.text.options import TextData, TextHeldOut


@dataclass(frozen=True)
class TextSplit:
    """A corpus; see `gen.training.interfaces.Split`.

    Attributes:
        labels: of each column of ``--given``, by input name.
        stream: the shards of the training text, if it is streamed.
    """

    corpus: Corpus
    labels: dict[str, LabelTokenizer] = field(default_factory=dict)
    stream: Shards[str] | None = None

    @property
    def valid(self) -> Part:
        return self.corpus.valid

    @property
    def tokenizer(self) -> Tokenizer:
        return self.corpus.tokenizer

    @property
    def num_tokens(self) -> int:
        """Of streamed text, very roughly."""
        part = self.corpus.train
        if self.stream is None:
            return len(part.tokens)
        return max(round(self.stream.size * len(part.tokens) / max(part.characters, 1)), len(part.tokens))

    @property
    def digest(self) -> str:
        return self.corpus.digest

    def table(self) -> dict[str, str]:
        t = self.tokenizer
        parts = {"training": self.corpus.train, "validation": self.corpus.valid}
        described = {name: _described(part) for name, part in parts.items()}
        if self.stream is not None:
            described["training"] = f"{self.stream}; vocabulary from {described['training']}"
        return described | self.corpus.notes | {"vocabulary": f"{len(t):,} ({t.kind})"}


def _described(part: Part) -> str:
    lines = "" if part.offsets is None else f", {len(part.offsets) - 1:,} lines"
    cut = f", {part.cut:,} lines cut" if part.cut else ""
    return f"{part.characters:,} characters, {len(part.tokens):,} tokens{lines}{cut}"


def text_files(
    options: TextData | TextHeldOut,
    names: Sequence[str],
    by_line: bool,
    column: str,
    given: Sequence[str] = (),
    part: str = "",
) -> TextFiles:
    """The files of these names; tells what is skipped in folders."""
    files = TextFiles(names, options.encoding_errors, column, one_line=by_line, given=given, part=part)
    if files.skipped and is_main():
        notify(
            f"{len(files.skipped):,} files that do not end in .txt or .txt.gz are skipped: {few(files.skipped)}"
        )
    return files


def read_corpus(
    options: TextData, vocabulary: Tokenizer | None = None, labels: Mapping[str, LabelTokenizer] | None = None
) -> TextSplit:
    """Reads and tokenizes the text, with a new vocabulary and new labels if none are given."""

    def files_of(names: Sequence[str], part: str = "") -> TextFiles | None:
        if any(map(is_streamed, names)):
            shards = _shards(options, names)
            return Head(shards.head(), shards.is_running, unit)
        return text_files(options, names, options.by_line, options.column, options.given, part) if names else None

    unit = "line" if options.by_line else "stream"
    files, valid = files_of(() if options.streams else options.data, "train"), files_of(options.valid)
    tokenizer = TokenizerOptions(
        options.level,
        options.min_frequency,
        options.vocab_size,
        options.model_type,
        normalization=options.normalize,
    )
    more: dict[str, Any] = {
        "valid_fraction": options.valid_fraction,
        "unit": unit,
        "max_line": options.max_line,
        "tokenizer": vocabulary,
    }
    if files is None:
        shards = _shards(options, options.data)
        return TextSplit(stream_corpus(shards, valid, tokenizer, **more), stream=shards)
    parts = files.parts()
    if valid is None and parts["valid"]:
        valid = files_of(options.data, "valid")
    corpus = build_corpus(files, valid, tokenizer, **more)
    if unused := parts["test"] + (parts["valid"] if options.valid else 0):
        corpus = replace(corpus, notes=corpus.notes | {"not used": f"{unused:,} rows of other parts"})
    return _with_labels(corpus, files, valid, labels) if options.given else TextSplit(corpus)


def _shards(options: TextData, names: Sequence[str]) -> Shards[str]:
    return text_shards(
        names,
        column=options.column,
        by_line=options.by_line,
        encoding_errors=options.encoding_errors,
        buffer=options.shuffle_buffer or BUFFER,
    )


def _with_labels(
    corpus: Corpus, files: TextFiles, valid: TextFiles | None, known: Mapping[str, LabelTokenizer] | None
) -> TextSplit:
    """The corpus with the labels of its lines. Raises `UserError` if they cannot be learned."""
    train = files.given_cells()
    if corpus.held_out is None:
        other = valid.given_cells() if valid else []
    else:
        held_out = corpus.held_out[1]
        other = [cells for cells, out in zip(train, held_out, strict=True) if out]
        train = [cells for cells, out in zip(train, held_out, strict=True) if not out]
    names = list(map(input_name, files.given))
    for i, column in enumerate(files.given):
        labels = [[cells[i] for cells in part if cells[i]] for part in (train, other)]
        check_labels(str(files.paths[0]), f"--given (not {column})", *labels, automatic=valid is None)
    made = known or {name: LabelTokenizer(c[i] for c in train if c[i]) for i, name in enumerate(names)}
    parts = [
        replace(part, given=label_ids(made, cells))
        for part, cells in ((corpus.train, train), (corpus.valid, other))
    ]
    return TextSplit(replace(corpus, train=parts[0], valid=parts[1]), dict(made))


def given_labels(model: Any) -> dict[str, LabelTokenizer]:
    """The labels that a model can be told to write about, by input name."""
    return {n: p.tokenizer for n, p in model.processors.items() if isinstance(p, LabelProcessor)}


def label_ids(labels: Mapping[str, LabelTokenizer], cells: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """The ids of N rows of labels: input name → (N, 1) int64, 0 where there is none."""
    return {n: LabelProcessor(t).read([row[i] for row in cells]) for i, (n, t) in enumerate(labels.items())}


def lines_part(texts: Iterable[str | None], labels: Mapping[str, Sequence[str]] | None = None) -> DataPart:
    """The lines of a text that are not empty, and their labels."""
    lines = Reiterable(lambda: (line for piece in texts for line in lines_in(piece)))
    return DataPart({"text": Column(lines)}, labels or {})


def labels_of(part: Part, known: Mapping[str, LabelTokenizer]) -> dict[str, list[str]]:
    """The labels of the lines of a part, "" for none, by input name."""
    return {name: [known[name].decode([i]) for i in ids[:, 0].tolist()] for name, ids in part.given.items()}


def label_source(part: Part, dropout: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """The argument ``source`` of `SequenceBatches`, for a part whose lines have labels."""

    def label(name: str) -> Callable[[np.ndarray, int], Tensor]:
        return lambda rows, epoch: torch.from_numpy(part.given[name][rows])

    if not part.given:
        return {}
    sources = {name: label(name) for name in part.given}
    return {"source": NamedSources(sources, len(np.asarray(part.offsets)) - 1, list(sources), dropout, seed)}


def line_batches(part: Part, tokenizer: Tokenizer, data: TextData, seed: int) -> SequenceBatches:
    """The lines of a part to train on, with their labels."""
    offsets = np.asarray(part.offsets)
    source = label_source(part, data.input_dropout, seed)
    return SequenceBatches(Sequences(part.tokens, offsets), data.batch_tokens, tokenizer, seed=seed, **source)


def streamed_batches(shards: Shards[str], tokenizer: Tokenizer, data: TextData, seed: int) -> StreamedBatches[str]:
    """The texts of shards to train on."""
    make = (
        line_blocks(tokenizer, batch_tokens=data.batch_tokens, max_line=data.max_line, seed=seed)
        if data.by_line
        else text_blocks(
            tokenizer,
            batch_size=data.batch_size,
            chunk=data.chunk or 64,
            seed=seed,
            is_running=shards.is_running,
        )
    )
    return StreamedBatches(shards, make, seed)
