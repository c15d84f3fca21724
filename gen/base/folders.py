"""Atomic writing: files and folders that are complete or absent."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from gen.base.errors import UserError

T = TypeVar("T")


def write_folder(path: Path, fill: Callable[[Path], None], keep: Path | None = None) -> None:
    """Writes a folder atomically: ``path`` holds the old content or the new, never a part of it.

    The new folder is written in the same parent folder, synced, and exchanged with the old one in one step. Where
    the system has none, that takes two renames; if the process dies between them, `whole_folder` finds the old
    folder under its temporary name. Of several processes that write one folder, the last one wins.

    Args:
        path: the folder to write.
        fill: writes the content into the empty folder it is given.
        keep: where to move the folder that is replaced; None deletes it.

    Raises:
        OSError: the folder could not be written; the old one is still in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    with named(path):
        temporary.mkdir()
    try:
        with named(path):
            fill(temporary)
            for file in temporary.rglob("*"):
                _sync(file)
            _sync(temporary)
        if path.is_dir() and _exchange(temporary, path):
            if keep:
                _delete(keep)
                temporary.rename(keep)
        else:
            _replace(temporary, path, keep or _old(path))
        _sync(path.parent)
        _delete(_old(path))
    finally:
        _delete(temporary)


_HERE, _SWAP = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step. False where that cannot be done."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or another C library
        return False
    return rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _SWAP) == 0


def _replace(new: Path, path: Path, old: Path) -> None:
    """Moves a folder to ``path``, and what is there to ``old``."""
    for left in reversed(range(100)):
        try:
            if path.exists():
                _delete(old)
                path.rename(old)
            new.rename(path)
            return
        except BaseException as error:
            if not path.exists() and old.exists():  # interrupted between the two renames
                with suppress(OSError):  # another process has put its own there
                    old.rename(path)
            another = getattr(error, "errno", 0) in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
            if not (another and left and new.exists()):  # a process that writes the same folder
                raise


def _delete(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def read_folder(find: Callable[[], Path], read: Callable[[Path], T]) -> T:
    """What ``read`` makes of the folder that ``find`` finds; again, if `write_folder` replaced that meanwhile, as
    it may have seen files of both then."""
    for attempt in range(100):
        folder = find()
        with _kept(folder) as before:
            try:
                made = read(folder)
            except UserError as error:
                found = find()
                same = found == folder and _identity(found) == before  # else it was moved
                away = not before or isinstance(error.__cause__, FileNotFoundError)  # it may be on its way back
                if same and (attempt > 9 or not away):
                    raise
                time.sleep(0.001)
            else:
                if _identity(folder) == before:
                    return made
    raise UserError(f"{folder}: is replaced again and again; copy it, and use the copy")


@contextmanager
def _kept(folder: Path) -> Iterator[tuple[int, int] | None]:
    """The identity of a folder, which no other one gets within the context: it is open."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    except OSError:  # Windows opens no folders
        yield _identity(folder)
        return
    try:
        found = os.fstat(descriptor)
        yield found.st_dev, found.st_ino
    finally:
        os.close(descriptor)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Within it, errors of writing name ``path`` instead of nothing, as where a disk is full, or of a temporary
    file."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or any(map(_OURS.fullmatch, Path(error.filename).parts))):
            error.filename = str(path)
        raise


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


_OURS = re.compile(r"\..+\.gen-[a-z0-9_]{8}")
"""Names of temporary files and folders; nobody else's are deleted."""


def beside(path: Path) -> Path:
    """A new name for a temporary file or folder next to ``path``, to be renamed to it when it is whole."""
    return path.with_name(f".{path.name}.gen-{secrets.token_hex(4)}")


def is_ours(path: Path) -> bool:
    """Whether it is a temporary file or folder that a killed process left."""
    return bool(_OURS.fullmatch(path.name)) and not path.is_symlink()


def sweep(folder: Path) -> None:
    """Removes temporary files that killed processes left. Call it only while nobody writes to ``folder``."""
    for path in folder.glob(".*.gen-*"):
        if not is_ours(path):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically. Bytes of names that are no UTF-8 are escaped, as JSON does."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically."""
    temporary = beside(path)
    try:
        with named(path):
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_folder(source: Path, to: Path) -> None:
    """Copies what a folder holds into another one.

    Raises:
        OSError: of the first file that cannot be copied. `shutil.copytree` makes one text of all of them, and
            `shutil.copyfile` names the source where it is the copy that has no space.
    """
    for file in sorted(source.rglob("*")):
        copy = to / file.relative_to(source)
        if file.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        else:
            with file.open("rb") as read, copy.open("wb") as written:
                shutil.copyfileobj(read, written)


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
