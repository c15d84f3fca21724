"""Files and folders that are whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_folder(path: Path, fill: Callable[[Path], None], keep: Path | None = None) -> None:
    """Fills a folder so that ``path`` holds the old one or the new one, never a half-written one.

    The new folder is written beside the old one, synced, and renamed. Two renames are needed to replace a
    folder; should the process die between them, `whole_folder` finds the old one under its other name.

    Args:
        path: the folder.
        fill: writes into an empty one.
        keep: where to leave the folder that is replaced; None: nowhere.

    Raises:
        OSError: nothing was replaced.
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
            if not path.exists() and old.exists():  # interrupted between the two
                old.rename(path)
            raise
        _sync(path.parent)
        shutil.rmtree(_old(path), ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process in at a time. The lock dies with its owner; the file stays."""
    from filelock import FileLock

    with FileLock(path):
        yield


def sweep(folder: Path) -> None:
    """Removes what a process that was killed while it wrote has left in a folder that nobody writes to now."""
    for path in folder.glob(".*.*"):
        if path != _old(path.with_name(path.name[1:].rpartition(".")[0])):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Replaces a text file at once."""
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
    """``path``, or the folder it replaces if a replacement was cut short between its two renames."""
    return _old(path) if not path.exists() and _old(path).exists() else path


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
