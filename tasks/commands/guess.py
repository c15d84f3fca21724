"""Which task is meant by files that are named without one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from gen import runtime
from gen.base.dialects import LANGUAGES
from gen.base.errors import UserError, printable
from gen.base.files import visible_files
from gen.base.json_files import json_document
from gen.base.lines import is_markup, read_lines, suffix
from gen.base.parts import SPLITS
from gen.base.tables import TABLES, Table, is_dataset
from gen.datasets.caption_files import CAPTIONS, PICTURES, has_texts
from gen.datasets.captions import IN_FOLDER
from gen.datasets.pair_files import MARKUP, PAIR_NAMES
from gen.inputs.pictures import SUFFIXES, is_picture
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
        found = _of_table(first)
    elif "{" in first or (len(files) == 2 and (len({Path(name).stem for name in files}) == 1 or _aligned(*files))):
        return "translate"
    else:
        found = _of_lines(first)
    folder = next((name for name in files if Path(name).is_dir()), "")
    has_pictures = found == "text" and folder and any(is_picture(p.name) for p in visible_files(Path(folder)))
    return "caption" if has_pictures else found


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


def _aligned(*names: str) -> bool:
    """Whether files have the same number of lines, at least two: line n of one translates line n of the other."""
    try:
        counts = {sum(1 for _ in read_lines(name)) for name in names if Path(name).is_file()}
    except UserError:
        return False
    return len(counts) == 1 and min(counts) > 1 and all(Path(name).is_file() for name in names)


def _of_lines(name: str) -> str:
    """The task of a file that is not called a table: of captions, if lines are the name of a picture, #, number,
    tab, caption; that of a table, if each has a tab."""
    try:
        lines = [line for line in islice(read_lines(name), 100) if line.strip()] if Path(name).is_file() else []
    except UserError:  # what reads it as text may be told to replace what is not UTF-8
        return "text"
    if not lines or not all("\t" in line for line in lines):
        return "text"
    return "caption" if all("#" in line.partition("\t")[0] for line in lines) else _of_table(name)


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
    texts = [column for column in table.texts if column != table.split]
    if len(texts) != 2:
        return "text"
    if table.named:
        languages = {re.split("[-_]", column.strip().lower())[0] for column in texts}
        return "translate" if languages <= LANGUAGES else "text"
    return "classify" if any(_repeats(table, column) for column in texts) else "translate"


def _repeats(table: Table, column: str) -> bool:
    """Whether a column has few values, as labels do."""
    cells = [str(row.get(column)) for _, row in table.head]
    return len(cells) >= 10 and 1 < len(set(cells)) <= max(len(cells) // 5, 2)
