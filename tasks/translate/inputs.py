"""What a translation may read besides the sentence: pictures, further sentences and labels, columns of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.base.errors import UserError, few, notify
from gen.datasets.examples import NamedSources
from gen.datasets.labelled import check_labels
from gen.datasets.pair_files import PairFiles
from gen.datasets.pairs import Pairs
from gen.datasets.picture_sources import Watch, cached_source
from gen.inputs.picture_names import PictureFolder
from gen.inputs.processors import SentenceProcessor
from gen.models.batch import PADDED_TO, pad
from gen.models.encoders import CNNEncoder, Encoder, JoinedEncoder
from tasks.options import input_name
from tasks.translate.options import FurtherInputs

Rows = dict[str, list[Any]]
"""Input name → what each of N pairs has: a path, a text, or None."""


@dataclass(frozen=True)
class Further:
    """The further inputs of the pairs.

    Attributes:
        kinds: input name → the option that named its column: "image", "context" or "given".
        train, valid: what the training and the validation pairs have.
        missing: the pictures that are not there.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    train: Rows = field(default_factory=dict)
    valid: Rows = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def named(self, kind: str) -> list[str]:
        """The inputs of a kind."""
        return [name for name, each in self.kinds.items() if each == kind]

    def table(self) -> dict[str, str]:
        """What the table of the data says of them."""
        count = {n: f"{n} ({sum(cell is not None for cell in cells):,})" for n, cells in self.train.items()}
        missing = f"{len(self.missing):,} pictures, such as {self.missing[0]}" if self.missing else ""
        return {
            **({"with": ", ".join(count.values())} if count else {}),
            **({"not there": missing} if missing else {}),
        }

    def items(self, sentences: Sequence[str], rows: Rows) -> list[Any]:
        """Sentences with their further inputs, as a model takes them."""
        if not self.kinds:
            return list(sentences)
        columns = zip(*(rows[name] for name in self.kinds), strict=True)
        pairs = zip(sentences, columns, strict=True)
        return [{"sentence": s, **dict(zip(self.kinds, cells, strict=True))} for s, cells in pairs]


def read_rows(files: PairFiles, options: FurtherInputs) -> Rows:
    """What all pairs of the files have in the columns of the options.

    Raises:
        UserError: a column is missing.
    """
    if not options.columns:
        return {}
    found = files.cells([(f"--{kind}", column) for kind, column in options.columns])
    folders = [Path(options.images)] * len(found[0]) if options.images else files.folders
    known = {folder: PictureFolder(folder, search=bool(options.images)) for folder in {*folders}}
    made: Rows = {}
    for (name, kind), cells in zip(options.kinds.items(), found, strict=True):
        if kind == "image":
            made[name] = [c and known[f].named(str(c).strip()) for f, c in zip(folders, cells, strict=True)]
        else:
            made[name] = [None if cell is None else " ".join(str(cell).split()) for cell in cells]
    for folder in known.values():
        folder.tell()
    return made


def read_further(options: FurtherInputs, pairs: Pairs, train: PairFiles, valid: PairFiles | None) -> Further:
    """The further inputs of the pairs that are trained and validated on.

    Raises:
        UserError: a column is missing, no picture is there, or labels cannot be learned.
    """
    kinds, rows = options.kinds, read_rows(train, options)
    others = read_rows(valid, options) if valid else rows
    used = {n: [cells[r] for r in pairs.rows] for n, cells in rows.items()}
    held_out = {n: [cells[r] for r in pairs.valid_rows] for n, cells in others.items()}
    further = Further(kinds, used, held_out)
    for column, name in zip(options.given, map(input_name, options.given), strict=True):
        labels = [[label for label in part[name] if label] for part in (used, held_out)]
        check_labels(train.tables[0], f"--given (not {column})", *labels, automatic=valid is None)
    for name in further.named("image"):
        for cells in (used[name], held_out[name]):
            gone = {i for i, path in enumerate(cells) if path and not path.is_file()}
            further.missing.extend(str(cells[i]) for i in sorted(gone))
            cells[:] = [None if i in gone else path for i, path in enumerate(cells)]
        if not any(used[name]):
            some = f" ({few(further.missing[:3])})" if further.missing else ""
            raise UserError(
                f"--image {name}: none of the pictures is there{some}; name their folder with --images"
            )
    return further


# -- batches ---------------------------------------------------------------------------------------------


Source = Callable[[np.ndarray, int], Tensor]
"""(B,) rows of the training pairs and the number of the epoch → what a part of the encoder reads."""


def further_sources(
    encoder: Encoder, further: Further, views: int, watch: Watch
) -> tuple[dict[str, Source], Rows]:
    """The source of each further input, and what the validation pairs have, with features in place of pictures:
    these are computed once, for ``views`` views of a picture to train on."""
    sources: dict[str, Source] = {}
    valid: Rows = dict(further.valid)
    parts = encoder.encoders if isinstance(encoder, JoinedEncoder) else {}
    for name in further.kinds:
        part, (processor,) = parts[name], parts[name].processors.values()
        if isinstance(part, CNNEncoder):
            sources[name], valid[name] = _features(part, further, name, views, watch)
        elif isinstance(processor, SentenceProcessor):
            sources[name] = _sentences(processor, further.train[name])
        else:
            labels = torch.from_numpy(processor.read(further.train[name]))
            sources[name] = lambda rows, epoch, labels=labels: labels[rows]  # type: ignore[misc]
    return sources, valid


def _sentences(processor: SentenceProcessor, texts: Sequence[str | None]) -> Source:
    ids = [np.array(processor.encode(text), np.int64) for text in texts]
    nothing = [np.zeros(1, np.int64)]

    def source(rows: np.ndarray, epoch: int) -> Tensor:
        return pad([*(ids[r] for r in rows), *nothing], processor.tokenizer.pad_id, PADDED_TO)[:-1]

    return source


def _features(
    encoder: CNNEncoder, further: Further, name: str, views: int, watch: Watch
) -> tuple[Source, list[Any]]:
    """Features of the training pairs' pictures, of another view in every epoch and zeros where there is none; and
    those of the validation pairs."""
    both, trained = [*further.train[name], *further.valid[name]], {*further.train[name]}
    paths = list(dict.fromkeys(filter(None, both)))
    each = [views if path in trained else 1 for path in paths]
    read, failed = cached_source(encoder, paths, each, "float16", watch)
    for error in failed.values():
        notify(str(error))
    index = {path: i for i, path in enumerate(paths) if i not in failed}
    if not index:
        raise UserError(f"--image {name}: no picture can be read: {few([str(e) for e in failed.values()][:3])}")
    where = np.array([index.get(path, -1) for path in both], np.int64)

    def features(chosen: np.ndarray, view: np.ndarray) -> Tensor:
        found = read(np.maximum(chosen, min(index.values())), view)
        return found * torch.from_numpy(chosen >= 0).reshape(-1, *[1] * (found.ndim - 1))

    def source(rows: np.ndarray, epoch: int) -> Tensor:
        return features(where[rows], (rows + epoch) % views)

    valid, first = where[len(further.train[name]) :], np.zeros(1, np.int64)
    held_out = [None if i < 0 else features(np.array([i]), first)[0].numpy() for i in valid]
    return source, held_out


def pair_sources(pairs: Pairs, sources: Mapping[str, Source], options: FurtherInputs, seed: int) -> NamedSources:
    """The sources of batches of pairs: the sentences, and what else belongs to them."""
    count, pad_id = len(pairs.rows), pairs.source_tokenizer.pad_id

    def sentence(rows: np.ndarray, epoch: int) -> Tensor:
        return pad([pairs.source[r] for r in rows], pad_id, PADDED_TO)

    def other(source: Source) -> Source:
        return lambda rows, epoch: source(rows % count, epoch)  # further segmentations of the same pairs follow

    named = {"sentence": sentence, **{name: other(source) for name, source in sources.items()}}
    return NamedSources(named, len(pairs.source), list(sources), options.input_dropout, seed)


# -- a trained model -------------------------------------------------------------------------------------


def leave_out(item: Any, model: Any, names: Sequence[str]) -> Any:
    """An item without some of its further inputs. Raises `UserError` if the model has no such input."""
    for name in names:
        if name not in model.processors or not model.processors[name].optional:
            optional = [n for n, p in model.processors.items() if p.optional]
            has = f"it has {', '.join(optional)}" if optional else "it reads sentences alone"
            raise UserError(f"--without {name}: the model has no such further input; {has}")
    return {n: part for n, part in item.items() if n not in names} if isinstance(item, Mapping) else item
