"""Pictures with captions: reading, and the split into training and validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gen.base.errors import UserError, few, notify
from gen.base.json_files import json_line
from gen.datasets.captions import Captioned, CaptionSet, read_labelled
from gen.datasets.look import Column, DataPart
from gen.datasets.shards import Shards
from gen.datasets.splits import connected, hold_out, picture_keys, split_notes
from gen.datasets.streamed_pictures import (
    StreamedPicture,
    hold_out_pictures,
    leave_out_pictures,
    picture_head,
    picture_key,
    picture_shards,
)
from gen.inputs.ptb import plain_caption
from tasks.caption.options import CaptionData


@dataclass(frozen=True)
class CaptionSplit:
    """Training and validation pictures; see `gen.training.interfaces.Split`.

    Attributes:
        dropped: what was left out and why, one line per picture.
        notes: name → text, further facts about the pictures for the table.
        automatic: whether the validation pictures were chosen here, not by the user or the file.
        unusable: indices of pictures that cannot be read; those of ``valid`` follow those of ``train``.
        stream: the training pictures, if they are streamed; then ``train`` has the captions of the first ones.
        share: how many times as many pictures there are as in ``train``, very roughly.
    """

    train: list[Captioned]
    valid: list[Captioned]
    dropped: list[str]
    notes: dict[str, str] = field(default_factory=dict)
    automatic: bool = False
    unusable: set[int] = field(default_factory=set)
    stream: Shards[StreamedPicture] | None = None
    share: float = 1.0
    level: str = "word"

    @property
    def digest(self) -> str:
        """A hash of the captions, the names of their pictures and their labels."""
        rows = "\0".join("\0".join((c.picture.name, *c.captions, c.label)) for c in (*self.train, *self.valid))
        found = hashlib.blake2b(rows.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
        return found if self.stream is None else f"{self.stream.digest()} {found}"

    @property
    def files(self) -> list[Captioned]:
        """The training pictures that are files."""
        return self.train if self.stream is None else []

    @property
    def num_captions(self) -> int:
        return sum(len(c.captions) for c in self.train)

    @property
    def num_tokens(self) -> int:
        """The number of tokens with EOS. There is no vocabulary yet: of subwords an estimate."""

        def size(text: str) -> int:
            words, characters = len(text.split()), len(text)
            return {"word": words, "char": characters}.get(self.level, max(words, characters // 4))

        return round(self.share * sum(size(text) + 1 for c in self.train for text in c.captions))

    def table(self) -> dict[str, str]:
        """What is in the data, for people: name → value."""
        train = [c for i, c in enumerate(self.train) if i not in self.unusable]
        captions = sum(len(c.captions) for c in train)
        seen = f"{len(train):,} pictures, {captions:,} captions"
        valid = len(self.valid) - sum(i >= len(self.train) for i in self.unusable)
        left_out = [f"{len(self.dropped):,} (see above)"] if self.dropped else []
        left_out += [] if self.stream is None else ["named when they are read"]
        return {
            "training": seen if self.stream is None else f"{self.stream}; vocabulary from {seen}",
            "left out": "; others are ".join(left_out) or "none",
            "validation": f"{valid:,} pictures",
            **self.notes,
        }

    def check(self, options: CaptionData) -> None:
        """Raises `UserError` if a part is empty, after printing what was left out."""
        if not self.train or not self.valid:
            for line in self.dropped:
                notify(f"left out: {line}")
            what = "train" if not self.train else "validate"
            names = " ".join(options.captions or options.data) or options.images
            raise UserError(f"{names}: no pictures are left to {what} on")
        if unknown := {c.label for c in self.valid} - {c.label for c in self.train}:
            raise UserError(f"--valid-captions: the label {few(sorted(map(repr, unknown)))} is not in training")


def read_split(options: CaptionData) -> CaptionSplit:
    """The pictures with their captions. Raises `UserError` if files are missing or damaged."""
    if options.streams:
        return _stream_split(options)
    found = read_labelled(options.images, options.captions)
    train, dropped = found.split("train"), found.dropped
    if options.valid_captions:
        other: CaptionSet = read_labelled(options.valid_images or options.images, options.valid_captions)
        valid, dropped = other.pictures, dropped + other.dropped
        automatic = False
    elif automatic := not (valid := found.split("valid")):
        keys = picture_keys([c.picture for c in train])
        size = min(options.valid_size, max(len(train) // 10, 1))
        held_out = hold_out(connected(keys), keys, size)
        valid = [c for c, out in zip(train, held_out, strict=True) if out]
        train = [c for c, out in zip(train, held_out, strict=True) if not out]
    split = CaptionSplit(train, valid, dropped, _notes(train, valid), automatic, level=options.level)
    split.check(options)
    return split


def _stream_split(options: CaptionData) -> CaptionSplit:
    """Streamed pictures: the captions at the beginning, and the pictures to validate on, which are files."""
    stream = picture_shards(options.data, options.shuffle_buffer)
    head = picture_head(stream)
    dropped: list[str] = []
    if options.valid_captions:
        other = read_labelled(options.valid_images, options.valid_captions)
        valid, dropped = other.pictures, other.dropped
        held_out = {picture_key(c.picture.read_bytes()) for c in valid}
        leave_out_pictures(stream, held_out)
    else:
        valid, held_out = hold_out_pictures(stream, head, options.valid_size)
    train = [Captioned(Path(f"{p.key:016x}"), p.captions) for p in head if p.key not in held_out]
    share = max(stream.size / sum(p.size for p in head), 1.0)
    automatic = not options.valid_captions
    split = CaptionSplit(
        train, valid, dropped, automatic=automatic, stream=stream, share=share, level=options.level
    )
    split.check(options)
    return split


def _notes(train: Sequence[Captioned], valid: Sequence[Captioned]) -> dict[str, str]:
    """What the table says of pictures that occur twice."""
    keys = picture_keys([c.picture for c in (*train, *valid)])
    ours, others = keys[: len(train)], keys[len(train) :]
    return split_notes("pictures", ours, {"pictures": (ours, others)})


def held_out_files(pictures: Sequence[Captioned], captions: Sequence[str]) -> dict[str, str]:
    """What a run keeps of its validation pictures: the name and the content of each file.

    Args:
        pictures: N with their references, for ``valid.jsonl``, or a file per label, as --captions takes them.
        captions: N that the model wrote, for ``captions.jsonl``.

    Example:
        >>> files = held_out_files([Captioned(Path("a.jpg"), ["Ein Hund."], label="de")], ["ein hund"])
        >>> for name, text in files.items():
        ...     print(name, text, end="")
        captions.jsonl {"image": "a.jpg", "label": "de", "caption": "ein hund"}
        valid.de.jsonl {"image": "a.jpg", "captions": ["Ein Hund."]}
    """
    files: dict[str, list[dict[str, Any]]] = {"captions.jsonl": []}
    for c, text in zip(pictures, captions, strict=True):
        label, image = {"label": c.label} if c.label else {}, str(c.picture)
        files["captions.jsonl"].append({"image": image, **label, "caption": text})
        held_out = files.setdefault(f"valid.{c.label}.jsonl" if c.label else "valid.jsonl", [])
        held_out.append({"image": image, "captions": c.captions})
    return {name: "".join(map(json_line, rows)) for name, rows in files.items()}


def caption_parts(split: CaptionSplit, options: CaptionData, test: Sequence[str]) -> dict[str, DataPart]:
    """The pictures that are trained on, validated on, and left for a test: those of a split, or of the files
    ``test``."""
    left: list[Captioned] = []
    if test:
        left = read_labelled(options.images, test).pictures
    elif not options.streams:
        left = read_labelled(options.images, options.captions).split("test")
    parts = {"training": split.train, "validation": split.valid, "test": left}
    found = {name: _captions_part(pictures, options.verbatim) for name, pictures in parts.items() if pictures}
    if options.streams:
        found["training"] = replace(found["training"], pictures=())  # they are no files
    return found


def _captions_part(pictures: Sequence[Captioned], verbatim: bool) -> DataPart:
    texts = [text for c in pictures for text in c.captions]
    labels = [c.label for c in pictures for _ in c.captions]
    column = Column(texts, prepare=str if verbatim else plain_caption)
    return DataPart({"caption": column}, {"label": labels} if any(labels) else {}, [c.picture for c in pictures])
