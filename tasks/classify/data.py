"""Texts or pictures with labels: reading, splitting, batches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gen.base.errors import UserError, few, printable
from gen.base.files import texts_in
from gen.base.hub_data import is_saved
from gen.base.lines import read_lines
from gen.base.parts import SPLITS
from gen.base.tables import Table, is_dataset, listed
from gen.datasets.labelled import check_labels
from gen.datasets.look import Column, DataPart
from gen.datasets.splits import connected, hold_out, picture_keys, split_notes, text_key
from gen.inputs.labels import LabelTokenizer, unknown_label
from gen.inputs.picture_names import PictureFolder
from gen.inputs.pictures import find_pictures
from gen.inputs.tokenizer import Tokenizer
from gen.training.interfaces import Example, digest_of
from tasks.classify.options import ClassifyData

LABEL_NAMES = ("label", "labels", "class", "category", "topic", "sentiment", "target")


@dataclass(frozen=True)
class LabelSplit:
    """Training and validation examples, items with their labels; see `gen.training.interfaces.Split`.

    Attributes:
        pictures: whether items are paths of pictures, not texts.
        dropped: what was left out and why, one line per example.
        notes: what the table says of examples that occur twice.
        columns: names of options → the columns that were chosen for them, if the data is a table.
    """

    train: list[Example]
    valid: list[Example]
    tokenizer: LabelTokenizer
    pictures: bool
    dropped: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """A label is one token."""
        return len(self.train)

    @property
    def digest(self) -> str:
        """A hash of the examples, of a picture its name: its folder may have moved."""
        both = (*self.train, *self.valid)
        return digest_of(replace(e, item=e.item.name) if isinstance(e.item, Path) else e for e in both)

    def table(self) -> dict[str, str]:
        counts = Counter(e.target for e in self.train)
        rare, common = min(counts.values()), max(counts.values())
        return {
            "training": f"{len(self.train):,} {'pictures' if self.pictures else 'texts'}",
            "labels": f"{len(counts):,}, with {rare:,} to {common:,} examples each",
            **({"left out": f"{len(self.dropped):,} (see above)"} if self.dropped else {}),
            "validation": f"{len(self.valid):,}",
            **self.notes,
        }


def read_split(options: ClassifyData, vocabulary: Tokenizer | None = None) -> LabelSplit:
    """The examples, split by content.

    Args:
        options: of the data.
        vocabulary: labels that a model knows already; None: those of the training part.

    Raises:
        UserError: files are missing, or labels cannot be learned.
    """
    options = with_columns(options)
    rows, parts, dropped = _read(options.data, options)
    train = [e for e, part in zip(rows, parts, strict=True) if part in ("", "train")]
    valid = [e for e, part in zip(rows, parts, strict=True) if part == "valid"]
    automatic = not (options.valid or valid)
    if options.valid:
        valid, _, more = _read(options.valid, options)
        dropped += more
    elif automatic:
        keys = _keys(train)
        held_out = hold_out(connected(keys), keys, min(options.valid_size, len(train) // 10))
        valid = [e for e, out in zip(train, held_out, strict=True) if out]
        train = [e for e, out in zip(train, held_out, strict=True) if not out]
    if not train or not valid:
        counts = f"{len(train):,} to train and {len(valid):,} to validate on"
        why = f" ({dropped[0]})" if dropped else ""
        raise UserError(f"{options.data[0]}: there are too few examples: {counts}{why}")
    labels = [[e.target for e in part] for part in (train, valid)]
    check_labels(options.data[0], "--label", *labels, automatic=automatic)
    notes = split_notes("examples", _keys(train), {"examples": (_keys(train), _keys(valid))})
    if unused := parts.count("test") + (parts.count("valid") if options.valid else 0):
        notes["not used"] = f"{unused:,} examples of other parts"
    pictures = isinstance(rows[0].item, Path)
    tokenizer = vocabulary if isinstance(vocabulary, LabelTokenizer) else LabelTokenizer(labels[0])
    for label in set(labels[0]) - set(tokenizer.labels):
        raise unknown_label(label, tokenizer.labels, "; --new-vocabulary learns new ones")
    columns = {name: chosen for name in ("column", "label", "image") if (chosen := getattr(options, name))}
    return LabelSplit(train, valid, tokenizer, pictures, dropped, notes, columns)


def with_columns(options: ClassifyData) -> ClassifyData:
    """The options with the columns of the first table, if it is one: all files are read alike, whatever the cells
    of the others look like."""
    if options.label and (options.column or options.image):
        return options
    there = (name for name in options.data if Path(name).exists() or is_dataset(name))
    name = next((name for name in there if not _label_folders(name, [])), None)
    if name is None:
        return options
    table = Table(name, _wanted(options))
    label = _label_column(table, options)
    if options.column or options.image:
        return replace(options, label=label)
    found = tuple(c for c in table.texts if c not in (label, table.split) and not _one_per_label(table, c, label))
    pictures = [column for column, kind in table.kinds.items() if kind == "pictures"]
    if found:
        return replace(options, label=label, column=found)
    if len(pictures) == 1:
        return replace(options, label=label, image=pictures[0])
    raise UserError(f"{name}: no column holds text; name the picture's with --image, or the text's with --column")


def _one_per_label(table: Table, column: str, label: str) -> bool:
    """Whether a column has one value per label: where labels are numbers, such a column holds their names."""
    pairs = {(str(row.get(label)), str(row.get(column))) for _, row in table.head}
    return len(pairs) == len({of for of, _ in pairs}) < len(table.head)


def label_parts(split: LabelSplit, options: ClassifyData, test: Sequence[str]) -> dict[str, DataPart]:
    """The examples that are trained on, validated on, and those of the files ``test``."""
    parts = {"training": split.train, "validation": split.valid}
    parts |= {"test": read_examples(test, with_columns(options))[0]} if test else {}
    return {name: _part(examples, options.lowercase) for name, examples in parts.items()}


def _part(examples: Sequence[Example], lowercase: bool) -> DataPart:
    texts = [e.item for e in examples if isinstance(e.item, str)]
    columns = {"text": Column(texts, "sentence", str.lower if lowercase else str)} if texts else {}
    pictures = [e.item for e in examples if isinstance(e.item, Path)]
    return DataPart(columns, {"label": [e.target for e in examples]}, pictures)


def read_examples(names: Sequence[str], options: ClassifyData) -> tuple[list[Example], list[str]]:
    """The examples of files and folders, and what was left out. Raises `UserError` if there are none."""
    found, _, dropped = _read(names, options)
    if not found:
        raise UserError(f"{names[0]}: holds no example with a label" + (f" ({dropped[0]})" if dropped else ""))
    return found, dropped


def check_kind(model: Any, examples: Sequence[Example], whose: str) -> None:
    """Raises `UserError` if examples are pictures for a model of texts, or the reverse."""
    reads, found = "picture" in model.processors, isinstance(examples[0].item, Path)
    if reads != found:
        kinds = {True: "pictures", False: "texts"}
        raise UserError(f"{whose} reads {kinds[reads]}, and the data has {kinds[found]}")


def _keys(examples: Sequence[Example]) -> np.ndarray:
    """Hashes of items, (N,) uint64: equal for equal texts, and for equal pictures whatever they are called."""
    pictures = [e.item for e in examples if isinstance(e.item, Path)]
    if pictures:  # then all are
        return picture_keys(pictures)
    return np.array([text_key(str(e.item)) for e in examples], np.uint64)


# -- files -----------------------------------------------------------------------------------------------


def _read(names: Sequence[str], options: ClassifyData) -> tuple[list[Example], list[str], list[str]]:
    """The examples of all files, the part that each belongs to ("" where none is named), and what was left out."""
    found: list[tuple[Example, str]] = []
    dropped: list[str] = []
    for name in names:
        if labels := _label_folders(name, dropped):
            for folder, part in labels:
                if printable(folder.name) != folder.name:
                    raise UserError(f"{folder}: its name is the label, and has odd bytes in it: rename it")
                found += [(Example(item, folder.name), part) for item in _in_folder(folder, dropped)]
        elif not Path(name).exists() and not is_dataset(name):
            raise UserError(f"{name}: no such file")
        else:
            found += _rows(name, options, dropped)
    if len({isinstance(e.item, Path) for e, _ in found}) > 1:
        raise UserError(f"{names[0]}: holds pictures and texts: a model reads one of the two")
    return [e for e, _ in found], [part for _, part in found], dropped


def _label_folders(name: str, dropped: list[str]) -> list[tuple[Path, str]]:
    """The folders that are named by label, in a folder or in its folders "train", "test" and so on, each with the
    part that its examples belong to, "" where none is named; nothing if it is a dataset, or no folder. ``dropped``
    gets the parts without such folders."""
    folders = _folders_in(Path(name))
    if not folders or is_saved(name) or any(path.suffix == ".parquet" for path in Path(name).rglob("*")):
        return []
    inner = [(SPLITS.get(folder.name.lower()), _folders_in(folder)) for folder in folders]
    if all(part for part, _ in inner) and any(found for _, found in inner):
        # What is unpacked into a folder of its own name is twice as deep: seg_train/seg_train/street.
        inner = [(part, _folders_in(found[0]) if _is_part(found) else found) for part, found in inner]
        plain = [folder for folder, (_, found) in zip(folders, inner, strict=True) if not found]
        dropped += [f"{folder}: holds no folders named by label" for folder in plain]
        return [(folder, part or "") for part, found in inner for folder in found]
    _refuse_parts(name, folders)
    return [(folder, "") for folder in folders]


def _is_part(folders: Sequence[Path]) -> bool:
    """Whether there is a single folder, and it is called as a part of the data is."""
    return len(folders) == 1 and folders[0].name.lower() in SPLITS


def _refuse_parts(name: str, folders: Sequence[Path]) -> None:
    """Raises `UserError` if several folders have the same folders in them and no files: they are called by parts
    of the data that nobody knows, and would become the labels."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for folder in folders:
        inner = [path.name for path in _folders_in(folder)]
        has_files = any(path.is_file() and path.name[0] not in "._" for path in folder.iterdir())
        if len(inner) > 1 and not has_files and not all(each.lower() in SPLITS for each in inner):
            alike.setdefault(tuple(inner), []).append(folder.name)
    for labels, outer in alike.items():
        if len(outer) > 1:
            raise UserError(
                f"{name}: {few(outer)} hold the same folders ({few(labels)}): these look like parts of the "
                "data; name the one whose folders are the labels, or a table with --label"
            )


def _folders_in(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and p.name[0] not in "._") if path.is_dir() else []


def _in_folder(folder: Path, dropped: list[str]) -> Iterator[str | Path]:
    """The pictures of a folder, or else its texts; ``dropped`` gets those that are empty, or the folder itself."""
    pictures = list(find_pictures(folder))
    yield from pictures
    try:
        texts = [] if pictures else texts_in(folder)
    except UserError as error:  # one that is empty, or holds something else, costs no training
        dropped.append(f"{error}, and no picture")
        return
    for path in texts:
        if text := " ".join(" ".join(read_lines(str(path))).split()):
            yield text
        else:
            dropped.append(f"{path}: has no text")


def _rows(name: str, options: ClassifyData, dropped: list[str]) -> Iterator[tuple[Example, str]]:
    """The examples of a table, and the part of each; ``dropped`` gets what is left out."""
    table = Table(name, _wanted(options))
    if not (options.label and (options.column or options.image)):  # the data they would be chosen from is gone
        options = with_columns(replace(options, data=(name,)))
    label = table.column("--label", options.label or "")
    picture = table.column("--image", options.image) if options.image else ""
    columns = [picture] if picture else [table.column("--column", each) for each in options.column or ()]
    if odd := next((column for column in (label, *columns) if table.kinds[column] == "lists"), None):
        raise UserError(f"{name}: column {odd!r} holds lists: a text has one label, and is no list of words")
    folder = PictureFolder(Path(options.images or Path(name).parent), search=bool(options.images))
    for where, row in table:
        target = row.get(label)
        words = [str(row.get(column) or "").strip() for column in columns]
        item: Any = folder.named(words[0]) if picture and words[0] else " ".join(" ".join(words).split())
        if target is None or not str(target).strip():
            dropped.append(f"{name}: {where} has no label")
        elif not item or (picture and not os.path.isfile(item)):
            missing = f"{item}: no such picture" if item else f"has no {'picture' if picture else 'text'}"
            dropped.append(f"{name}: {where}: {missing}")
        else:
            yield Example(item, " ".join(str(target).split())), table.part(where, row) if table.split else ""
    folder.tell()


def _wanted(options: ClassifyData) -> list[str]:
    """Names that tell a header from a first row."""
    return [*(options.column or ()), options.label or "", options.image, *LABEL_NAMES]


def _label_column(table: Table, options: ClassifyData) -> str:
    """The column of the labels: the named one, one with a usual name, or the only one whose values repeat."""
    if options.label:
        return table.column("--label", options.label)
    usual = [name for name in table.columns if name.lower() in LABEL_NAMES]
    if len(usual) == 1:
        return usual[0]
    others = [table.column("--column", each) for each in options.column or ()]
    others += [column for column in (table.find(options.image), table.split) if column]

    def repeats(column: str) -> bool:
        cells = [str(row[column]) for _, row in table.head if row.get(column) not in (None, "")]
        filled = 2 * len(cells) > len(table.head)
        return filled and column not in others and 1 < len(set(cells)) <= max(len(cells) // 5, 2)

    if len(found := usual or [column for column in table.columns if repeats(column)]) != 1:
        raise UserError(
            f"{table.name}: name the column of the labels with --label; there are {listed(table.columns)}"
        )
    return found[0]
