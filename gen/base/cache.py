"""What is made once and found again: folders named by the recipe of what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gen.base.errors import UserError
from gen.base.folders import locked, write_folder

_VERSION = 7  # of the cache; part of its key

_SIZES = "sizes.json"


def cache_folder() -> Path:
    """Where tokenized corpora are kept: ``$GEN_CACHE``, or ``gen-toolkit`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GEN_CACHE") or Path(base) / "gen-toolkit")


def cached(recipe: Sequence[Any], fill: Callable[[Path], None], cache: Path | None = None) -> Path:
    """The folder that ``fill`` makes, made only if there is none yet for this recipe, or a damaged one.

    Args:
        recipe: plain values on which the content depends.
        fill: writes whatever files into an empty folder.
        cache: where; None: `cache_folder`.

    Raises:
        UserError: the cache cannot be written.
    """
    key = hashlib.blake2b(json.dumps([_VERSION, *recipe], sort_keys=True).encode(), digest_size=12)
    base = cache or cache_folder()
    folder = base / key.hexdigest()

    def fill_and_count(made: Path) -> None:
        fill(made)
        sizes = {file.name: file.stat().st_size for file in made.iterdir()}
        (made / _SIZES).write_text(json.dumps(sizes))

    if not _whole(folder):
        try:
            base.mkdir(parents=True, exist_ok=True)
            with locked(base / f".{folder.name}.lock"):
                if not _whole(folder):  # still; another process may have been at it
                    for left in base.glob(f".{folder.name}.*/"):  # by one that was killed
                        shutil.rmtree(left)
                    write_folder(folder, fill_and_count)
        except OSError as error:
            raise UserError(
                f"{error.filename or folder}: {error.strerror or error}; is there space for the token cache? "
                "GEN_CACHE names another folder for it"
            ) from error
    return folder


def _whole(folder: Path) -> bool:
    """Whether a folder of the cache has all its files, none of them cut short."""
    try:
        sizes = json.loads((folder / _SIZES).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
