"""Files of captions in the formats people use: the pictures they name, with captions and splits."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gen.base.errors import UserError
from gen.base.files import visible_files
from gen.base.hub_data import dataset_rows, load_dataset, picture_columns
from gen.base.json_files import json_document, records
from gen.base.lines import read_lines, suffix
from gen.base.parts import SPLITS
from gen.base.tables import Table, is_dataset, listed
from gen.inputs.pictures import SUFFIXES, is_picture

PICTURES = (
    *("image", "image_name", "image_path", "image_file", "file_name", "filename", "filepath", "file"),
    *("img", "img_path", "img_name", "picture", "photo", "path"),
)
CAPTIONS = (
    *("captions", "caption", "text", "sentences", "comment", "sentence", "comments"),
    *("description", "texts", "txt", "raw"),
)
_NUMBERED = re.compile(rf"({'|'.join(CAPTIONS)})[ _.-]?\d+")
_LISTED = re.compile(r"""\[\s*((?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")[\s,]*)*\]""", re.DOTALL)
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


class Row(NamedTuple):
    """Captions of a picture.

    Attributes:
        where: the place in the file, for messages.
        picture: its name.
        captions: as the file has them.
        split: as the file has it; "" if it has none.
        problem: why the row is left out; "" if it is not.
    """

    where: str
    picture: str
    captions: Sequence[str] = ()
    split: str = ""
    problem: str = ""


def caption_rows(name: str, images: str) -> Iterator[Row]:
    """The rows of a file of captions; see `gen.datasets.captions.read_captions` for formats."""
    splits = _split_files(name) if suffix(name) in (".txt", ".csv", ".tsv") else {}
    homeless: set[str] = set()
    for row in _rows(name):
        picture = row.picture
        if "#" in picture and not os.path.exists(
            os.path.join(images, picture)
        ):  # the number of a caption, as in Flickr's files
            picture = re.sub(r"#[^#]*$", "", picture)
        row = row._replace(picture=picture)
        if not splits or row.split or row.problem:
            yield row
        elif picture in splits:
            yield row._replace(split=splits[picture])
        elif picture not in homeless:
            homeless.add(picture)
            yield row._replace(problem=f"names {picture}, which is in no file of a split")


def text_rows(images: Path) -> Iterator[Row]:
    """The captions in .txt files with the names of pictures, a line each, as ``gen caption --sidecar`` writes. A
    first folder called train, validation or test is their part."""
    for path in visible_files(images):
        if not is_picture(path.name):
            continue
        place = path.relative_to(images)
        part = place.parts[0].lower() if len(place.parts) > 1 else ""
        text = path.with_suffix(".txt")
        row = Row(text.name, str(place), split=part if part in SPLITS else "")
        try:
            lines = [line for line in read_lines(str(text)) if line.strip()] if text.is_file() else None
        except UserError as error:
            yield row._replace(problem=f": {error}")
            continue
        yield row if lines is None else row._replace(captions=lines or [""])


def has_texts(images: Path) -> bool:
    """Whether a folder has a picture and a .txt file of the same name."""
    return any(is_picture(p.name) and p.with_suffix(".txt").is_file() for p in visible_files(images))


def sample_row(where: str, fields: Mapping[str, Any]) -> Row:
    """The captions in the columns of a sample, whose picture comes with it."""
    return _Fields(["image", *fields]).row(where, {**fields, "image": where})


def _rows(name: str) -> Iterator[Row]:
    if suffix(name) == ".parquet" or is_dataset(name):
        yield from _dataset(name)
        return
    document = json_document(name)
    if isinstance(document, dict) and isinstance(document.get("images"), list):
        yield from _coco(document) if isinstance(document.get("annotations"), list) else _karpathy(document)
        return
    if document is not None and not isinstance(next(records(document), None), dict | list):
        raise UserError(
            f"{name}: has no list of images; it must be a list of pictures with captions, COCO's annotations, "
            "or Karpathy's dataset_*.json"
        )
    table = _Captions(name)
    yield from (table.row(where, row) for where, row in table)


class _Fields:
    """Which columns hold pictures, captions and splits."""

    def __init__(self, columns: Sequence[str]) -> None:
        known = {column.strip().lower(): column for column in reversed(columns)}
        self.pictures = [known[name] for name in PICTURES if name in known]
        self.texts = [known[name] for name in CAPTIONS if name in known]
        self.numbered = [column for column in columns if _NUMBERED.fullmatch(column.strip().lower())]
        self.split = known.get("split")

    def row(self, where: str, row: Mapping[str, Any]) -> Row:
        """A row of a table."""
        picture = next(
            (row[f] for f in self.pictures if isinstance(row.get(f), str) and row[f].strip()), ""
        ).strip()
        if not picture:
            return Row(where, "", problem=f"names no picture; it needs one of the fields {', '.join(PICTURES)}")
        first = next(([row[f]] for f in self.texts if row.get(f)), [])
        more = [row[f] for f in self.numbered if row.get(f) not in (None, "")]  # a picture may have fewer of them
        texts = [text for value in first + more for text in _captions(value)]
        if not texts and not any(isinstance(row.get(f), list) for f in self.texts):
            texts = [""]  # a null, or a line that ends early: an empty caption
        if texts and not any(isinstance(text, str) for text in texts):
            return Row(where, picture, problem=": captions must be a text or a list of texts")
        texts = [text if isinstance(text, str) else "" for text in texts]  # what is none counts as an empty one
        return Row(where, picture, texts, str((self.split and row.get(self.split)) or "").strip())


def _captions(value: Any) -> list[Any]:
    """The captions in a field: a text, a list of texts, the text of a list, or what Karpathy's files have."""
    if isinstance(value, str) and value.strip()[:1] == "[" and value.strip()[-1:] == "]":
        value = _parsed(value.strip())
    if isinstance(value, dict):
        tokens = value.get("tokens")
        joined = " ".join(map(str, tokens)) if isinstance(tokens, list) else None
        value = next((v for v in (value.get("raw"), value.get("caption"), joined) if v), "")
    if isinstance(value, list):
        return [text for each in value for text in (_captions(each) if isinstance(each, dict) else [_text(each)])]
    return [] if value is None or value != value else [_text(value)]  # NaN is null


def _text(value: Any) -> Any:
    """A number in JSON as its text, and null as an empty one; anything else as it is."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _parsed(text: str) -> Any:
    """The list that a text is, written as by JSON, Python or numpy; the text where it is none."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    if _LISTED.fullmatch(text):
        with suppress(ValueError, SyntaxError):
            return [ast.literal_eval(quoted) for quoted in _QUOTED.findall(text)]
    return text


class _Captions(Table):
    """A table of captions. Columns without a usual name are known by what they hold."""

    def __init__(self, name: str) -> None:
        super().__init__(name, [*PICTURES, *(column for text in CAPTIONS for column in (text, f"{text}_1"))])
        self.fields = fields = _Fields(self.columns)
        if not self.head:
            return
        where = self.head[0][0]
        if len(self.columns) == 1 and not self.named:
            raise UserError(
                f"{name}: {where} has no tab; the format is: name of the picture, #, number, tab, caption"
            )
        like_pictures = [column for column in self.columns if self._holds_pictures(column)]
        fields.pictures = fields.pictures or like_pictures[:1]
        fields.pictures.sort(key=lambda column: column not in like_pictures)  # before web addresses and ids
        if not fields.pictures:
            raise UserError(f"{name}: {where} names no picture; it needs one of the fields {', '.join(PICTURES)}")
        if not fields.texts and not fields.numbered:
            texts = [column for column, kind in self.kinds.items() if kind in ("", "lists", "one value")]
            others = [c for c in texts if c not in (*fields.pictures, *like_pictures, fields.split)]
            if self.named and len(others) > 1:
                raise _which(name, self.columns)
            fields.numbered = others

    def _holds_pictures(self, column: str) -> bool:
        cells = [re.sub(r"#[^#]*$", "", str(row[column])).strip() for _, row in self.head if row.get(column)]
        names = [cell for cell in cells if cell.lower().endswith(SUFFIXES) and "://" not in cell]
        return bool(cells) and len(names) >= 0.9 * len(cells)

    def row(self, where: str, row: Mapping[str, Any]) -> Row:
        return self.fields.row(where, row)


def _coco(document: dict[str, Any]) -> Iterator[Row]:
    """COCO's annotations. Entries that lack something are rows with a problem."""
    names: dict[Any, str] = {}
    for i, image in enumerate(document["images"]):
        lacks = _lacks(image, "id", "file_name")
        if not lacks:
            names[image["id"]] = str(image["file_name"])
        yield Row(f"image {i}", "" if lacks else str(image["file_name"]), problem=lacks)
    for i, entry in enumerate(document["annotations"]):
        lacks = _lacks(entry, "image_id", "caption")
        if not lacks and entry["image_id"] not in names:
            lacks = f"is about image {entry['image_id']!r}, which is not in the list of images"
        elif not lacks and not isinstance(entry["caption"], str):
            lacks = "has a caption that is no text"
        if lacks:
            yield Row(f"annotation {i}", "", problem=lacks)
        else:
            yield Row(f"annotation {i}", names[entry["image_id"]], [entry["caption"]])


def _lacks(entry: Any, *names: str) -> str:
    """What is wrong with an entry of COCO's that must have these fields; "" if nothing."""
    if not isinstance(entry, dict):
        return "is no object"
    lacking = [repr(name) for name in names if isinstance(entry.get(name), list | dict | None)]
    return f"lacks {' and '.join(lacking)}" if lacking else ""


def _karpathy(document: dict[str, Any]) -> Iterator[Row]:
    """Karpathy's ``dataset_*.json``."""
    for i, image in enumerate(document["images"]):
        if not isinstance(image, dict):
            yield Row(f"image {i}", "", problem="is no object")
            continue
        row = _Fields(list(image)).row(f"image {i}", {**image, "filepath": None})
        folder = image.get("filepath")
        inside = isinstance(folder, str) and folder and row.picture
        yield row._replace(picture=f"{folder}/{row.picture}") if inside else row


def _split_files(name: str) -> dict[str, str]:
    """Picture → split, from files such as ``Flickr_8k.trainImages.txt`` next to the captions."""
    kinds = {"train": "train", "dev": "valid", "val": "valid", "test": "test"}
    found: dict[str, str] = {}
    for path in sorted(Path(name).parent.iterdir()):
        match = re.search(r"[._](train|dev|val|test)_?images\.txt$", path.name, re.IGNORECASE)
        if match and path.is_file():
            found |= {line.strip(): kinds[match[1].lower()] for line in read_lines(str(path)) if line.strip()}
    return found


def _dataset(name: str) -> Iterator[Row]:
    """Reads a dataset with a column of pictures, or of their names."""
    data = load_dataset(name)  # raises an error if the library is missing
    pictures, columns = picture_columns(data), list(data.features)
    if not pictures:
        if not any(column.lower() in PICTURES for column in columns):
            raise UserError(f"{name}: has no column of pictures; there are {listed(columns)}")
        table = _Captions(name)
        yield from (table.row(where, row) for where, row in table)
        return
    fields = _Fields([column for column in columns if column != pictures[0]])
    fields.pictures = pictures[:1]
    if not fields.texts and not fields.numbered:
        texts = [column for column in columns if column != fields.split and _is_text(data.features[column])]
        if len(texts) != 1:
            raise _which(name, columns)
        fields.texts = texts
    for number, row in enumerate(dataset_rows(name, data)):
        yield fields.row(f"row {number}", row)


def _is_text(feature: Any) -> bool:
    """Whether a column of a dataset holds texts, or lists of texts."""
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "dtype", "") in ("string", "large_string")


def _which(name: str, columns: Sequence[str]) -> UserError:
    return UserError(f"{name}: which field has the captions? Call it caption; there are {listed(columns)}")
