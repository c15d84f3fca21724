"""Finding pictures by name: tables were often written on another machine, or for another folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from gen.base.errors import notify
from gen.base.files import visible_files
from gen.inputs.pictures import is_picture


class PictureFolder:
    """A folder of pictures, in which they are found by the names that files have for them.

    Args:
        folder: of the pictures.
        search: whether to look into the whole folder for names that are not there as they are.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name, "photos")
        ...     (folder / "cats").mkdir(parents=True)
        ...     _ = (folder / "cats" / "A.JPG").write_bytes(b"")
        ...     found = [PictureFolder(folder).find(n) for n in ("photos/cats/a.jpg", "cats\\\\A.JPG", "a", "b")]
        ...     [path and path.relative_to(folder).as_posix() for path in found]
        ['cats/A.JPG', 'cats/A.JPG', 'cats/A.JPG', None]
    """

    def __init__(self, folder: Path, *, search: bool = True) -> None:
        self.folder, self.search = folder, search
        self._others: dict[str, Path] = {}

    def find(self, name: str) -> Path | None:
        """The picture of a name. Where there is none: the only one whose name is the same but for case, the form
        of accents, backslashes, an ending that the name lacks, and folders that only one of both begins with."""
        exact = self.folder / name
        if os.path.isfile(exact):  # False, not an error, for names that are too long
            return exact
        if name not in self._others and self.search and (found := self._similar(_key(name))):
            self._others[name] = found
        return self._others.get(name)

    def named(self, name: str) -> Path:
        """The picture of a name, or the path where it should be."""
        return self.find(name) or self.folder / name

    def tell(self) -> None:
        """Says how many pictures were found under other names."""
        for name, path in list(self._others.items())[:1]:
            count = f"{len(self._others):,} {'pictures have' if len(self._others) > 1 else 'picture has'}"
            there = path.relative_to(self.folder)
            notify(
                f"{self.folder}: {count} another name there (case, accents, folders, ending): {name} is {there}"
            )

    def _similar(self, key: str) -> Path | None:
        whole, ends, folders = self._index
        for left, asked in _ends(key):
            # A name is cut short, or those in the folder are: cut both, and another folder's picture would do.
            for index in (whole, ends) if asked == key else (whole,):
                if found := index.get(asked):
                    return found[0] if len(found) == 1 else None
            if left in folders:  # its folder is there, and it is not: one of another folder is another picture
                return None
        return None

    @cached_property
    def _index(self) -> tuple[dict[str, list[Path]], dict[str, list[Path]], set[str]]:
        """The pictures by path and by each end of it, also without their endings; and the names of folders."""
        whole: dict[str, list[Path]] = {}
        ends: dict[str, list[Path]] = {}
        folders: set[str] = set()
        for path in visible_files(self.folder) if self.folder.is_dir() else ():
            if not is_picture(path.name):
                continue
            inner = _key(path.relative_to(self.folder).as_posix())
            folders.update(inner.split("/")[:-1])
            for key in (inner, inner.rpartition(".")[0]):
                whole.setdefault(key, []).append(path)
                for _, end in list(_ends(key))[1:]:
                    ends.setdefault(end, []).append(path)
        return whole, ends, folders


def _key(name: str) -> str:
    """A name as it is compared with others."""
    folded = normalize("NFC", normalize("NFC", name).casefold())
    return "/".join(part for part in folded.replace("\\", "/").split("/") if part not in ("", "."))


def _ends(key: str) -> Iterator[tuple[str, str]]:
    """A path and what is left of it without its first folders, each with the folder that goes next."""
    while key:
        first, slash, rest = key.partition("/")
        yield (first if slash else ""), key
        key = rest
