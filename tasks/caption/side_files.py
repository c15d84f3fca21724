"""What `gen caption` writes beside pictures: texts, XMP sidecars, and copies in another folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gen.base.errors import UserError, notify
from gen.base.files import read_whole
from gen.base.folders import write_bytes
from gen.inputs.pictures import read_picture
from tasks.caption import xmp
from tasks.caption.pictures import PictureCaptions, expand


class SideFiles:
    """Writes captions into files: each whole or not at all, never through a link, and none twice.

    Args:
        overwrite: replace what was there before: files, and captions in them.
        language: of the captions, as in ``xml:lang``; "" if nobody knows.
        copies: the folder of copies.
    """

    def __init__(self, overwrite: bool = False, language: str = "", copies: Path = Path()) -> None:
        self.overwrite, self.language, self.copies = overwrite, language, copies
        self._written: set[Path] = set()
        self._places: dict[Path, Path] = {}

    def noting(self, names: Iterable[str]) -> Iterator[Path]:
        """The pictures of `expand`, noting where in the folder of copies each belongs: as in the folder named."""
        for name in names:
            for path in expand([name]):
                self._places[path] = path.relative_to(name) if path != Path(name) else Path(path.name)
                yield path

    def text(self, caption: PictureCaptions) -> bool:
        """The caption as text, ``photo.txt``. Returns whether that worked."""
        return self._write(caption, caption.path.with_suffix(".txt"), lambda _: f"{_text(caption)}\n".encode())

    def sidecar(self, caption: PictureCaptions) -> bool:
        """The caption in an XMP sidecar. Returns whether that worked."""

        def filled(path: Path) -> bytes:
            old = read_whole(path, xmp.MOST_BYTES) if path.exists() else None
            return xmp.in_sidecar(old, _text(caption), self.language, overwrite=self.overwrite)

        path = caption.path.with_name(xmp.NAME.format(name=caption.path.name))
        return self._write(caption, path, filled, changes=True)

    def copy(self, caption: PictureCaptions) -> bool:
        """A copy of the picture with the caption in it. Returns whether that worked."""
        place = self._places.pop(caption.path, Path(caption.path.name))

        def filled(path: Path) -> bytes:
            if any((self.copies / each).is_symlink() for each in place.parents if each.name):
                raise UserError("is behind a link; nothing is written there")
            content = read_picture(caption.path)
            made = xmp.in_picture(content, _text(caption), self.language, overwrite=self.overwrite)
            path.parent.mkdir(parents=True, exist_ok=True)
            return made

        return self._write(caption, self.copies / place, filled)

    def _write(
        self, caption: PictureCaptions, path: Path, filled: Callable[[Path], bytes], changes: bool = False
    ) -> bool:
        """Writes a file. ``changes``: it may be there, and ``filled`` keeps what others wrote into it."""
        try:
            if path in self._written:
                notify(f"{caption.path}: {path.name} already has the caption of another picture")
                return False
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise UserError("is no file of its own; nothing is written there")
            if path.exists() and path.samefile(caption.path):
                raise UserError("is the picture itself, which is never changed; name another folder for copies")
            if path.exists() and not (changes or self.overwrite):
                raise UserError("exists; --overwrite replaces it")
            write_bytes(path, filled(path))
        except (UserError, OSError, ValueError) as error:
            notify(f"{path}: {_reason(error)}")
            return False
        self._written.add(path)
        return True


def _reason(error: Exception) -> str:
    return f"cannot be written ({error.strerror or error})" if isinstance(error, OSError) else str(error)


def _text(caption: PictureCaptions) -> str:
    return caption.hypotheses[0].text
