"""Pictures as people have them → RGB pixels of the size that a network wants."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gen.base.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What is opened at all, as far as this Pillow can. It knows many more, some through code that few people test."""

MOST_PIXELS = 64_000_000
"""Of a picture that is decoded: some modes need a dozen bytes a pixel on their way to RGB."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""Endings of the files that count as pictures in a folder."""

T = TypeVar("T")
R = TypeVar("R")


class PictureError(UserError):
    """A picture that cannot be used; the message names it and says why."""


def open_picture(item: Any, wanted: int = 0, name: Any = None) -> Any:
    """A picture as one would look at it: turned as the camera was held, its first frame, on white, in RGB.

    Args:
        item: a path, the bytes of a file, or a `PIL.Image.Image`.
        wanted: JPEGs may be decoded at a fraction of their size, but not below this many pixels a side.
        name: what to call it in messages; None: its path.

    Returns:
        A `PIL.Image.Image` of mode RGB, its pixels loaded.

    Raises:
        PictureError: there is no such file, it is no picture of a format in `FORMATS`, it is damaged, or it has
            more pixels than anything sensible.

    Example:
        >>> open_picture("photo.jpg").mode
        'RGB'
    """
    from PIL import Image, UnidentifiedImageError

    name = name or (item if isinstance(item, str | os.PathLike) else "picture")
    source = io.BytesIO(item) if isinstance(item, bytes | bytearray | memoryview) else item
    if not isinstance(source, io.BytesIO | str | os.PathLike | Image.Image):
        raise PictureError(f"a picture is a path, bytes or a PIL.Image, not {type(item).__name__}")
    try:
        if isinstance(source, Image.Image):
            return _rgb(_turned(source.copy()))
        with Image.open(source, formats=_formats()) as image:
            if wanted:
                image.draft("RGB", (wanted, wanted))
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{image.width:,} × {image.height:,}")
            return _rgb(_turned(image))
    except FileNotFoundError:
        raise PictureError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise PictureError(f"{name}: is a folder, and holds no picture ({', '.join(SUFFIXES)})") from None
    except UnidentifiedImageError:
        empty = isinstance(source, str | os.PathLike) and Path(source).stat().st_size == 0
        what = "is empty" if empty else f"is no picture of a known format ({', '.join(FORMATS)})"
        raise PictureError(f"{name}: {what}") from None
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name}: has too many pixels ({error})") from None
    except MemoryError:
        raise PictureError(f"{name}: needs more memory than there is") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise PictureError(f"{name}: cannot be decoded ({reason})") from None


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the Pillow that is installed has."""
    from PIL import Image

    # Of large pictures, which are errors here, and of odd metadata. Once and for all: pictures are opened in
    # threads, and the filters are the whole process's.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _turned(image: Any) -> Any:
    """A picture with its pixels loaded, turned as the camera was held. Damaged metadata turn nothing."""
    from PIL import Image

    image.load()
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # nearly anything, and no reason to leave a picture out
        return image
    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _rgb(image: Any) -> Any:
    """Any mode → RGB; what is transparent stands on white."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
        top = 65535.0 if image.mode != "F" and values.max(initial=0) > 255 else max(values.max(initial=0), 1.0)
        image = Image.fromarray((np.clip(values / top, 0, 1) * 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


@dataclass(frozen=True)
class Preprocessing:
    """From a picture to what a network takes. Belongs to the encoder and is saved with it.

    Attributes:
        size: pixels a side of the result.
        resize: the shorter side before the middle is cut out; 0 makes the whole picture a square instead,
            whatever its shape, so that nothing at its edges is lost.
        mean, std: of the three channels, 0 to 255: what `normalise` subtracts and divides by.
        bicubic: how to resample; bilinear otherwise.
    """

    size: int = 224
    resize: int = 0
    mean: tuple[float, ...] = (127.0, 127.0, 127.0)
    std: tuple[float, ...] = (128.0, 128.0, 128.0)
    bicubic: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which the same can be made again."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """What `to_dict` gave. Raises TypeError or ValueError for anything else."""
        plain: dict[str, Any] = {k: tuple(map(float, v)) if isinstance(v, list) else v for k, v in values.items()}
        made = cls(**plain)
        sizes_fit = all(isinstance(n, int) and 0 <= n <= 1 << 14 for n in (made.size, made.resize)) and made.size
        if not sizes_fit or not len(made.mean) == len(made.std) == 3 or not all(made.std):
            raise ValueError(f"no preprocessing: {values}")
        return made

    def pixels(self, item: Any, view: int = 0, name: Any = None) -> np.ndarray:
        """A picture → (3, size, size) uint8.

        Args:
            item: whatever `open_picture` takes.
            view: 0 is the picture as it is; odd ones are mirrored, and those from 2 on are random parts of it,
                the same for the same picture and number.
            name: what to call it in messages.

        Raises:
            PictureError: it cannot be used.
        """
        from PIL import Image

        image = open_picture(item, 2 * max(self.size, self.resize), name)
        resample = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR
        box = self.box(image.size)
        if view > 1:
            box = _part(box, np.random.default_rng((view, zlib.crc32(image.tobytes()))))
        square = image.resize((self.size, self.size), resample, box=box)
        array = np.asarray(square).transpose(2, 0, 1)
        return np.ascontiguousarray(array[..., ::-1] if view % 2 else array)

    def box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Which part of a picture of (width, height) the network sees: left, top, right, bottom."""
        width, height = size
        if not self.resize:
            return 0, 0, width, height
        side = min(width, height) * min(self.size / self.resize, 1.0)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def normalise(self, pixels: Any) -> Any:
        """(B, 3, size, size) uint8 tensor → float32, as the network was trained."""
        import torch

        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (self.mean, self.std))
        return (pixels.float() - mean) / std


def _part(box: tuple[float, float, float, float], rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A random part of a box, at least six tenths of its area."""
    left, top, right, bottom = box
    across, down = (right - left) * rng.uniform(0.78, 1), (bottom - top) * rng.uniform(0.78, 1)
    left += rng.uniform(0, right - left - across)
    top += rng.uniform(0, bottom - top - down)
    return left, top, left + across, top + down


def find_pictures(folder: Path) -> list[Path]:
    """Every picture in a folder and those below it, in order."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def ahead(
    items: Iterable[T], work: Callable[[T], R], batch_size: int, workers: int = 2
) -> Iterator[list[tuple[T, R | UserError]]]:
    """Does ``work`` for items in threads, two batches ahead of whoever takes the results.

    Decoding a picture lets other threads run, so a network can look at one batch while the next is decoded.

    Args:
        items: read as they are needed.
        work: what to do; a `UserError` that it raises becomes the item's result.
        batch_size: items a batch; the last may have fewer.
        workers: threads.

    Example:
        >>> for batch in ahead(paths, Preprocessing().pixels, 32): ...
    """

    def safe(item: T) -> R | UserError:
        try:
            return work(item)
        except UserError as error:
            return error

    iterator = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[T, Future[R | UserError]]] = deque()
        try:
            while True:
                for item in islice(iterator, 3 * batch_size - len(waiting)):
                    waiting.append((item, pool.submit(safe, item)))
                if not waiting:
                    return
                count = min(batch_size, len(waiting))
                taken = [waiting.popleft() for _ in range(count)]
                yield [(item, future.result()) for item, future in taken]
        finally:
            for _, future in waiting:
                future.cancel()
