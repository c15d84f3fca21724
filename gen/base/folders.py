"""Atomic writing: files and folders that are complete or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_folder(path: Path, fill: Callable[[Path], None], keep: Path | None = None) -> None:
    """Writes a folder atomically: ``path`` holds the old content or the new, never a part of it.

    The new folder is written in the same parent folder, synced, and renamed. Replacing a folder takes two
    renames; if the process dies between them, `whole_folder` finds the old folder under its temporary name.

    Args:
        path: the folder to write.
        fill: writes the content into the empty folder it is given.
        keep: where to move the folder that is replaced; None deletes it.

    Raises:
        OSError: the folder could not be written; the old one is still in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        fill(temporary)
        for file in temporary.rglob("*"):
            _sync(file)
        _sync(temporary)
        old = keep or _old(path)
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        try:
            temporary.rename(path)
        except BaseException:
            if not path.exists() and old.exists():  # interrupted between the two renames
                old.rename(path)
            raise
        _sync(path.parent)
        shutil.rmtree(_old(path), ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock between processes. The system releases it when the process ends; the file stays."""
    from filelock import FileLock

    with FileLock(path):
        yield


def sweep(folder: Path) -> None:
    """Removes temporary files that killed processes left. Call it only while nobody writes to ``folder``."""
    for path in folder.glob(".*.*"):
        if path != _old(path.with_name(path.name[1:].rpartition(".")[0])):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def whole_folder(path: Path) -> Path:
    """``path``; or the folder it was to replace, if `write_folder` was interrupted between its two renames."""
    return _old(path) if not path.exists() and _old(path).exists() else path


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
