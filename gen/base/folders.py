"""Atomic writing: files and folders that are complete or absent."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    temporary = beside(path)
    temporary.mkdir()
    try:
        fill(temporary)
        for file in temporary.rglob("*"):
            _sync(file)
        _sync(temporary)
        old = keep or _old(path)
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
    lock = acquire(path)
    try:
        yield
    finally:
        lock.release()


def acquire(path: Path, *, blocking: bool = True) -> Any:
    """An acquired `filelock` lock. Where the file system has none, the existence of a file ``NAME.soft`` is one.

    Raises:
        filelock.Timeout: not ``blocking``, and another process holds it.
    """
    from filelock import FileLock, SoftFileLock

    try:
        lock: Any = FileLock(path)
        lock.acquire(blocking=blocking)
    except NotImplementedError:  # a network file system without flock
        lock = SoftFileLock(path.with_name(f"{path.name}.soft"))
        lock.acquire(blocking=blocking)
    return lock


def holds(lock: Any) -> bool | None:
    """Whether the file of an acquired lock is still the one at its path; None if there is none: the folder was
    deleted or moved away, and a lock in it keeps nobody out of what is at the path now."""
    try:
        there = os.stat(lock.lock_file)
    except FileNotFoundError:
        return None
    return os.path.samestat(there, os.fstat(lock._context.lock_file_fd))


_OURS = re.compile(r"\..+\.gen-[a-z0-9]{8}")
"""Names of temporary files and folders; nobody else's are deleted."""


def beside(path: Path) -> Path:
    """A new name for a temporary file or folder next to ``path``, to be renamed to it when it is whole."""
    return path.with_name(f".{path.name}.gen-{secrets.token_hex(4)}")


def sweep(folder: Path) -> None:
    """Removes temporary files that killed processes left. Call it only while nobody writes to ``folder``."""
    for path in folder.glob(".*.gen-*"):
        if not _OURS.fullmatch(path.name) or path.is_symlink():
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically. Bytes of names that are no UTF-8 are escaped, as JSON does."""
    temporary = beside(path)
    try:
        with temporary.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
