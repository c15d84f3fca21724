"""A cache of folders, each named by a hash of the recipe of its content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gen.base.errors import UserError, notify
from gen.base.folders import locked, write_folder

_VERSION = 10  # of the cache; part of its key

_CHECKSUMS = "checksums.json"


class CacheError(UserError):
    """The cache cannot be written, whatever the data."""


def cache_folder() -> Path:
    """The folder for corpora and features: ``$GEN_CACHE``, or ``gen-toolkit`` in the user's cache folder.

    Raises:
        CacheError: there is neither: this user has no home.
    """
    if named := os.environ.get("GEN_CACHE"):
        return Path(named)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # in a container, for a user whom nobody entered there
        raise CacheError("there is no home folder to cache data in: set GEN_CACHE to another folder") from error
    return Path(base) / "gen-toolkit"


def cached(recipe: Sequence[Any], fill: Callable[[Path], None], cache: Path | None = None) -> Path:
    """Returns the folder for a recipe; calls ``fill`` only if the cache has none or a damaged one.

    Args:
        recipe: JSON values that the content depends on.
        fill: writes the files into the empty folder it is given; not with ``ndarray.tofile``, which may not notice
            that the disk is full.
        cache: the cache's folder; None means `cache_folder`.

    Raises:
        CacheError: it cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as cache:
        ...     folder = cached(["greeting", 1], lambda f: (f / "text").write_text("hello"), Path(cache))
        ...     (folder / "text").read_text()
        'hello'
    """
    key = hashlib.blake2b(json.dumps([_VERSION, *recipe], sort_keys=True).encode(), digest_size=12)
    base = cache or cache_folder()
    folder = base / key.hexdigest()

    def fill_and_sum(made: Path) -> None:
        fill(made)
        sums = {file.name: _checksum(file) for file in made.iterdir()}
        (made / _CHECKSUMS).write_text(json.dumps(sums))

    if not _whole(folder):
        try:
            base.mkdir(parents=True, exist_ok=True)
            with locked(base / f".{folder.name}.lock"):
                if not _whole(folder):  # checked again: another process may have made it meanwhile
                    for left in base.glob(f".{folder.name}.gen-*/"):  # by a process that was killed
                        shutil.rmtree(left)
                    if folder.exists():
                        notify(f"{folder}: the cache was changed or damaged, and is made again")
                    write_folder(folder, fill_and_sum)
        except OSError as error:
            raise CacheError(
                f"{error.filename or folder}: the cache cannot be written ({error.strerror or error}); "
                "set GEN_CACHE to another folder"
            ) from error
    return folder


def _whole(folder: Path) -> bool:
    """Whether the files of a cached folder are those that were written."""
    try:
        sums = json.loads((folder / _CHECKSUMS).read_text())
        return all(_checksum(folder / name) == known for name, known in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _checksum(path: Path) -> int:
    """CRC-32 of a file, at 3 GB/s."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found = zlib.crc32(block, found)
    return found
