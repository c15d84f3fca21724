"""Captions: reading them from all common formats, and storing them as token ids on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from gen.base.cache import cached
from gen.base.errors import UserError
from gen.base.folders import write_text
from gen.base.parts import SPLITS, split_of
from gen.base.tables import is_dataset
from gen.datasets.batches import Sequences, TokenFile
from gen.datasets.caption_files import caption_rows, has_texts, text_rows
from gen.datasets.corpus import Reiterable, TokenizerOptions, digest, read_tokenizer, token_dtype, write_tokenizer
from gen.inputs.picture_names import PictureFolder
from gen.inputs.ptb import plain_caption
from gen.inputs.tokenizer import Tokenizer

IN_FOLDER = (
    *("metadata.jsonl", "metadata.csv", "metadata.parquet"),
    *("captions.jsonl", "captions.json", "captions.csv", "captions.txt"),
)


@dataclass(slots=True)
class Captioned:
    """A picture with its captions, its split ("train", "valid" or "test"), and the label of the captions, such as
    their language, or ""."""

    picture: Path
    captions: list[str] = field(default_factory=list)
    split: str = "train"
    label: str = ""


@dataclass(frozen=True)
class CaptionSet:
    """Pictures with captions.

    Attributes:
        pictures: every picture once, in the order of the file.
        dropped: one message per caption or picture that was left out.
    """

    pictures: list[Captioned]
    dropped: list[str]

    def split(self, name: str) -> list[Captioned]:
        """The pictures of a split: "train", "valid" or "test"."""
        return [c for c in self.pictures if c.split == name]


def read_captions(images: str, captions: str = "") -> CaptionSet:
    """Reads captions and finds their pictures.

    Args:
        images: the folder of the pictures.
        captions: JSON Lines, JSON, CSV or TSV (one row per picture or per caption, or columns ``caption_1``,
            ``caption_2`` …), Flickr's token file (``name#0``, tab, caption; the splits are read from
            ``Flickr_8k.trainImages.txt`` and the like in the same folder), Karpathy's ``dataset_*.json``, COCO's
            annotation JSON, Parquet, or a Hugging Face dataset, ``owner/name[:configuration][:split]``. "" reads
            the captions file in ``images``, or one in each of its folders train, validation and test, as in
            Hugging Face's imagefolder; without any, .txt files with the names of pictures, a caption per line.

    Raises:
        UserError: a file is missing or damaged, or no picture with a caption is left.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.jpg").write_bytes(b"")
        ...     _ = Path(folder, "captions.jsonl").write_text('{"image": "a.jpg", "caption": "a dog  runs"}')
        ...     read_captions(folder).split("train")[0].captions
        ['a dog runs']
    """
    if captions and not is_dataset(captions) and not Path(captions).is_file():
        raise UserError(f"{captions}: no such file")
    if images and not Path(images).is_dir():
        raise UserError(f"--images {images}: no such folder")
    merged: dict[str, Captioned] = {}
    dropped: list[str] = []
    for name, folder in {captions: ""}.items() if captions else _found_in(images).items():
        in_texts = not captions and name == images
        rows = text_rows(Path(images)) if in_texts else caption_rows(name, images)
        for where, picture, texts, split, problem in rows:
            if problem:
                dropped.append(f"{name}: {where}{'' if problem[0] == ':' else ' '}{problem}")
                continue
            picture, part = os.path.join(folder, picture), split_of(split or folder, f"{name}: {where}")
            entry = merged.setdefault(picture, Captioned(Path(images) / picture, [], part))
            if part != entry.split:
                dropped.append(f"{name}: {where}: {picture} belongs to the part {entry.split!r} already")
                continue
            kept = usual_captions(texts)
            dropped += [f"{name}: {where}: an empty caption of {picture}"] * (len(texts) - len(kept))
            entry.captions += kept
    left = _found(images, merged, dropped)
    if not left:
        reasons = "; ".join(dropped[:3]) + ("; …" if len(dropped) > 3 else "")
        raise UserError(
            f"{captions or images}: no picture with a caption is left ({reasons or 'the file has none'})"
            + ("" if images else "; --images names the folder of the pictures")
        )
    return CaptionSet(left, dropped)


def _found(images: str, merged: Mapping[str, Captioned], dropped: list[str]) -> list[Captioned]:
    """The pictures that have captions and are there; ``dropped`` gets the others."""
    folder = PictureFolder(Path(images), search=bool(images))  # not all that is in the current folder
    left: dict[Path, Captioned] = {}
    for name, entry in merged.items():
        if not entry.captions:
            dropped.append(f"{name}: has no caption")
        elif (path := folder.find(name)) is None:
            dropped.append(f"{name}: is not in {images or 'the current folder'}")
        elif (first := left.setdefault(path, replace(entry, picture=path, captions=[]))).split == entry.split:
            first.captions.extend(entry.captions)  # of its other name
        else:
            dropped.append(f"{name}: belongs to the part {first.split!r} already, under another name")
    folder.tell()
    return [*left.values()]


def read_labelled(images: str, captions: Sequence[str]) -> CaptionSet:
    """The captions of several files. A file may be given as ``label=file``, such as ``de=captions.de.jsonl``: then
    its captions have that label; see `read_captions`.

    Raises:
        UserError: as `read_captions` does; or some files have a label and others have none.
    """
    named = [labelled(name) for name in captions] or [("", "")]
    if len({bool(label) for label, _ in named}) > 1:
        raise UserError(
            f"--captions {' '.join(captions)}: give all files a label, as in de=captions.de.jsonl, or none"
        )
    found = [(label, read_captions(images, name)) for label, name in named]
    merged: dict[tuple[str, str, str], Captioned] = {}
    for label, each in found:
        for picture in each.pictures:  # files may describe the same ones
            key = label, picture.split, os.path.abspath(picture.picture)
            merged.setdefault(key, replace(picture, captions=[], label=label)).captions.extend(picture.captions)
    return CaptionSet([*merged.values()], [line for _, each in found for line in each.dropped])


def labelled(name: str) -> tuple[str, str]:
    """A file's label and name, from ``label=file``."""
    label, equals, file = name.partition("=")
    return (label, file) if equals and re.fullmatch(r"[\w-]+", label) and not os.path.exists(name) else ("", name)


def usual_captions(texts: Iterable[str]) -> list[str]:
    """The captions that contain words, each on one line.

    Example:
        >>> usual_captions(["a dog  runs", " . "])
        ['a dog runs']
    """
    lines = (" ".join(text.split()) for text in texts)
    return [line for line in lines if any(map(str.isalnum, line)) or plain_caption(line)]


def _found_in(images: str) -> dict[str, str]:
    """The captions file of a folder of pictures, or those of its folders of splits: file → folder of its pictures,
    relative to ``images``. The folder itself, if pictures have .txt files of their names instead."""
    inner = sorted(path.name for path in Path(images).iterdir() if path.name.lower() in SPLITS)
    places = ((folder, Path(images, folder, name)) for folder in ("", *inner) for name in IN_FOLDER[::-1])
    found = {folder: path for folder, path in places if path.is_file()}
    if not found and has_texts(Path(images)):
        return {images: ""}
    if not found:
        raise UserError(
            f"--captions: name the captions file; {images} contains none ({', '.join(IN_FOLDER)}), and no .txt "
            "with the name of a picture"
        )
    found = {"": found[""]} if "" in found else found
    return {str(path): folder for folder, path in found.items()}


# -- text ------------------------------------------------------------------------------------------------

CAPTION_WORDS = "captions"
"""How to find words in captions, for `WordTokenizer`: clitics ('s, 't) are separate tokens."""


@dataclass(frozen=True)
class CaptionCorpus:
    """Captions as token ids.

    Attributes:
        tokenizer: the captions' tokenizer.
        captions: N captions.
        pictures: (N,) int64, the index of each caption's picture in the training pictures.
        cut: the number of captions cut at the maximum length.
    """

    tokenizer: Tokenizer
    captions: Sequences
    pictures: np.ndarray
    cut: int


def build_captions(
    pictures: Sequence[Captioned],
    options: TokenizerOptions,
    *,
    verbatim: bool = False,
    max_length: int = 50,
    tokenizer: Tokenizer | None = None,
    cache: Path | None = None,
) -> CaptionCorpus:
    """Builds the vocabulary and tokenizes the captions of the training pictures; or loads them from the cache.

    Args:
        pictures: the training pictures.
        options: how to build the vocabulary.
        verbatim: keep case and punctuation; otherwise `plain_caption` is applied.
        max_length: longer captions are cut to this many tokens.
        tokenizer: use this one instead of building one.
        cache: the cache's folder; None means `gen.base.cache.cache_folder`.
    """

    def texts() -> Iterable[str]:
        return (c if verbatim else plain_caption(c) for p in pictures for c in p.captions)

    def fill(folder: Path) -> None:
        """Writes the vocabulary, the token ids, the offsets of the captions and their pictures."""
        made = tokenizer or options.train(Reiterable(texts))
        cut, lengths = 0, [0]
        with (folder / "captions.bin").open("wb") as file:
            for text in texts():
                ids = made.encode_array(text)
                cut += len(ids) > max_length
                file.write(ids[:max_length].astype(token_dtype(made)).tobytes())
                lengths.append(min(len(ids), max_length))
        (folder / "captions.offsets").write_bytes(np.cumsum(lengths, dtype=np.int64).tobytes())
        owners = np.repeat(np.arange(len(pictures)), [len(p.captions) for p in pictures])
        (folder / "captions.pictures").write_bytes(owners.tobytes())
        write_tokenizer(folder / "tokenizer.bin", made)
        write_text(folder / "meta.json", json.dumps({"dtype": token_dtype(made), "cut": cut}))

    content = hashlib.blake2b(digest_size=20)
    for picture in pictures:
        content.update(json.dumps(picture.captions).encode())
    recipe = ["captions", asdict(options), verbatim, max_length, content.hexdigest(), digest(tokenizer)]
    folder = cached(recipe, fill, cache)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    offsets, owners = (np.fromfile(folder / f"captions.{name}", np.int64) for name in ("offsets", "pictures"))
    made = read_tokenizer(folder / "tokenizer.bin")
    tokens = TokenFile(folder / "captions.bin", meta["dtype"])
    return CaptionCorpus(made, Sequences(tokens, offsets), owners, meta["cut"])
