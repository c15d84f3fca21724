"""Which task is meant by files that are named without one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from gen import runtime
from gen.base.errors import UserError, printable
from gen.base.files import visible_files
from gen.base.json_files import json_document
from gen.base.lines import is_markup, read_lines, suffix
from gen.base.parts import SPLITS
from gen.base.tables import TABLES, Table, is_dataset
from gen.datasets.caption_files import CAPTIONS, PICTURES, has_texts
from gen.datasets.captions import IN_FOLDER
from gen.datasets.pair_files import MARKUP, PAIR_NAMES
from gen.inputs.pictures import SUFFIXES
from gen.models import checkpoint
from tasks.classify.data import LABEL_NAMES
from tasks.translate.documents import FORMATS

_OPTIONS = {
    "translate": ("--src", "--tgt", "--train"),
    "caption": ("--images", "--captions"),
    "classify": ("--label", "--image"),
}
"""Task → options that only it has."""


def task_for(files: Sequence[str], options: Sequence[str] = ()) -> str:
    """The task that trains on such files: "text" unless they are something else.

    Args:
        files: names of files and folders; may be empty if there are options.
        options: what else was typed.

    Raises:
        UserError: they are a model, a document, or pictures without captions, which no task trains on.

    Example:
        >>> task_for(["train.en", "train.de"]), task_for(["book.txt"])
        ('translate', 'text')
    """
    for task, own in _OPTIONS.items():
        if {word.partition("=")[0] for word in options} & set(own):
            return task
    first = next((name for name in files if not Path(name).is_dir()), files[0])
    if instead := _instead(first):
        raise UserError(f"{printable(first)}: {instead}")
    if Path(first).is_dir():
        return _of_folder(Path(first))
    if suffix(first) in TABLES or (is_dataset(first) and "/" in first and not Path(first).exists()):
        return _of_table(first)
    if "{" in first or (len(files) == 2 and len({Path(name).stem for name in files}) == 1):
        return "translate"
    return "caption" if suffix(first) == ".txt" and _holds_flickr_tokens(first) else "text"


def _instead(name: str) -> str:
    """What to do with a file or folder that is not training data; "" if it may be."""
    path, typed = Path(name), shlex.quote(printable(name))
    if path.is_dir():
        if _is_model(path):
            return f"is a model; `gen info {typed}` tells what it is and what it was trained on"
        found = visible_files(path) if _of_folder(path) == "text" else []
        if found and all(file.suffix.lower() in SUFFIXES for file in found):
            return (
                "holds pictures and no captions; name both, `gen data FOLDER captions.jsonl`, or sort the "
                "pictures into a folder per label"
            )
    elif suffix(name) not in (*FORMATS, *TABLES) and is_markup(name):
        return MARKUP
    elif path.suffix.lower() in SUFFIXES:
        return "is a picture; name the folder of the pictures and their captions: `gen data FOLDER captions.jsonl`"
    elif FORMATS.get(path.suffix.lower()) in ("subtitles", "po", "xliff"):
        return (
            f"is a document, which `gen translate RUN -i {typed}` translates; "
            f"`gen data text {typed}` looks at it as plain text"
        )
    return ""


def _is_model(folder: Path) -> bool:
    """Whether a folder is a run, a model or an exported model."""
    try:
        checkpoint.find_model(folder)
    except UserError:
        return runtime.is_exported(folder)
    return True


def _holds_flickr_tokens(name: str) -> bool:
    """Whether lines are the name of a picture, #, number, tab, caption."""
    try:
        lines = [line for line in islice(read_lines(name), 100) if line.strip()]
    except UserError:  # what reads it as text may be told to replace what is not UTF-8
        return False
    return bool(lines) and all("\t" in line and "#" in line.partition("\t")[0] for line in lines)


def _of_folder(folder: Path) -> str:
    inside = [path for path in folder.iterdir() if path.name[0] not in "._"]
    folders = [path for path in inside if path.is_dir()]
    parts = [path for path in folders if path.name.lower() in SPLITS]
    if any((path / name).is_file() for path in (folder, *parts) for name in IN_FOLDER):
        return "caption"
    if len(folders) > 1 and folders == inside and not (parts == folders and has_texts(folder)):
        return "classify"
    return "caption" if has_texts(folder) else "text"


def _of_table(name: str) -> str:
    if suffix(name) == ".tmx":
        return "translate"
    document = json_document(name) if suffix(name) == ".json" else None
    if isinstance(document, dict) and isinstance(document.get("images"), list):
        return "caption"
    table = Table(name, [*PICTURES, *CAPTIONS, *LABEL_NAMES, *(n for pair in PAIR_NAMES for n in pair)])
    columns = {column.strip().lower() for column in table.columns}
    if columns & set(PICTURES) and any(column.startswith(CAPTIONS) for column in columns):
        return "caption"
    if any(columns >= set(pair) for pair in PAIR_NAMES):
        return "translate"
    if columns & set(LABEL_NAMES):
        return "classify"
    return "translate" if not table.named and len(table.texts) == 2 else "text"
