"""Parquet files and datasets of the Hugging Face Hub, read with the `datasets` library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from gen.base.cache import cache_folder
from gen.base.errors import UserError, first_line
from gen.base.lines import suffix


def load_dataset(name: str) -> Any:
    """Loads a dataset with the `datasets` library: a Parquet file, a folder (also one that
    ``save_to_disk`` wrote), or a name on the Hugging Face Hub.

    Raises:
        UserError: the library is missing, or the dataset cannot be loaded.
    """
    try:
        import datasets
    except ImportError as error:
        exists = Path(name).exists()
        problem = "reading it needs" if exists else "no such file; to load a dataset of that name, install"
        raise UserError(f"{name}: {problem} the datasets library: pip install 'gen-toolkit[hub]'") from error
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are reported once, below
    try:
        if suffix(name) == ".parquet":
            return _with_pictures(datasets.load_dataset("parquet", data_files=name, split="train"))
        base, *rest = name.split(":")
        if is_saved(base):
            saved = datasets.load_from_disk(base)
            parts = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
            if (part := rest[-1] if rest else "train") not in parts:
                raise UserError(f"{name}: has no part {part!r}, but {', '.join(parts)}")
            return _with_pictures(parts[part])
        return _with_pictures(datasets.load_dataset(base, *rest[:-1], split=rest[-1] if rest else "train"))
    except UserError:
        raise
    except Exception as error:  # network, pyarrow, missing splits: no common base class
        raise UserError(f"{name}: cannot be loaded ({first_line(error)})") from error


_PICTURES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
"""Usual names of columns with the files of pictures; "content" is Spark's."""


def _with_pictures(data: Any) -> Any:
    """A dataset whose columns of the files of pictures say so: those that pandas or Spark writes do not."""
    import datasets

    for column, kind in data.features.items():
        is_file = getattr(kind, "dtype", "") in ("binary", "large_binary") and column.lower() in _PICTURES
        is_struct = isinstance(kind, dict) and set(kind) == {"bytes", "path"} and column.lower() != "audio"
        if is_file or (is_struct and getattr(kind["bytes"], "dtype", "") in ("binary", "large_binary")):
            data = data.cast_column(column, datasets.Image(decode=False))
    return data


def is_saved(folder: str) -> bool:
    """Whether a folder is what `Dataset.save_to_disk` or that of a `DatasetDict` writes."""
    there = [Path(folder, name).is_file() for name in ("dataset_dict.json", "state.json", "dataset_info.json")]
    return there[0] or all(there[1:])


def dataset_rows(name: str, data: Any) -> Iterator[dict[str, Any]]:
    """The rows of what `load_dataset` returned. A label is its name, and a picture the path of its file; pictures
    that are not files are written to the cache.

    Raises:
        UserError: a row is damaged, which loading does not notice.
    """
    import datasets

    folder = cache_folder() / f"pictures-{data._fingerprint}"
    pictures = {column: folder / str(n or "") for n, column in enumerate(picture_columns(data))}
    labels = {column: kind for column, kind in data.features.items() if isinstance(kind, datasets.ClassLabel)}
    for column in pictures:
        data = data.cast_column(column, datasets.Image(decode=False))
    rows = iter(data)
    for number in count():
        try:
            row = next(rows, None)
        except Exception as error:  # pyarrow, a text that is not UTF-8: no common base class
            raise UserError(f"{name}: row {number + 1} is damaged ({first_line(error)})") from error
        if row is None:
            return
        row |= {column: _label(kind, row[column]) for column, kind in labels.items()}
        yield row | {column: _picture(row[column], files, number) for column, files in pictures.items()}


def picture_columns(data: Any) -> list[str]:
    """The columns that hold pictures."""
    import datasets

    return [column for column, kind in data.features.items() if isinstance(kind, datasets.Image)]


def _label(kind: Any, label: int | None) -> str | None:
    """The name of a label; None where there is none, which some datasets write as -1."""
    return None if label is None or label < 0 else str(kind.int2str(label))


def _picture(picture: dict[str, Any] | None, folder: Path, number: int) -> str | None:
    """The file of a picture, written to ``folder`` if there is only its content."""
    if picture is None:
        return None
    path = Path(picture["path"] or "")
    if picture["bytes"]:
        path = folder / f"{number:07}{path.suffix or '.jpg'}"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            whole = path.with_name(f".{path.name}.{os.getpid()}")  # other processes may write it, too
            whole.write_bytes(picture["bytes"])
            whole.replace(path)
    return str(path.absolute())
