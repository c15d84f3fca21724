"""Picture files in the formats people use → RGB pixels of the size that a network takes."""

from __future__ import annotations

import contextlib
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

from gen.base.errors import UserError, few, first_line, notify
from gen.base.files import check_regular, read_whole, visible_files

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "HEIF", "PPM")
"""The formats that are opened, if the installed Pillow has them (HEIF: with pillow-heif). It has many more, some
little tested."""

MOST_PIXELS = 64_000_000
"""Most pixels of a picture that is decoded: some modes need a dozen bytes per pixel on their way to RGB."""

MOST_BYTES = 1 << 28
"""Most bytes of the file of a picture."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".jp2", ".j2k", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Suffixes, in lower case, of the files that count as pictures in a folder."""


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name.

    Example:
        >>> is_picture("a.JPG"), is_picture("jpg"), is_picture("a.txt")
        (True, True, False)
    """
    return f".{name.rpartition('.')[2].lower()}" in SUFFIXES


_HEIC = (".heic", ".heif")
_OTHER_FILES = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".html", ".xml", ".yaml", ".yml", ".parquet")

T = TypeVar("T")
R = TypeVar("R")


class PictureError(UserError):
    """A picture that cannot be used; the message has its name and the reason."""


def open_picture(item: Any, wanted: int = 0, name: Any = None) -> Any:
    """A picture as a viewer shows it: upright by its EXIF orientation, the first frame, on white, in RGB.

    Args:
        item: a path, the bytes of a file, a `PIL.Image.Image`, or its pixels: uint8, (height, width) or (height,
            width, 3 or 4).
        wanted: JPEGs may be decoded at a fraction of their size, but not below this many pixels per side;
            0 decodes them whole.
        name: its name in messages; None: its path.

    Returns:
        A `PIL.Image.Image` of mode RGB, its pixels loaded.

    Raises:
        PictureError: there is no such file, it is no picture of a format in `FORMATS`, it is damaged, or it has
            more than `MOST_PIXELS` pixels.

    Example:
        >>> from PIL import Image
        >>> from gen.inputs.pictures import open_picture
        >>> picture = open_picture(Image.new("LA", (4, 3)))  # transparent black
        >>> picture.mode, picture.size, picture.getpixel((0, 0))
        ('RGB', (4, 3), (255, 255, 255))
    """
    from PIL import Image, UnidentifiedImageError

    name = name or (item if isinstance(item, str | os.PathLike) else "picture")
    if isinstance(item, np.ndarray):
        item = _from_pixels(item)
    source = io.BytesIO(item) if isinstance(item, bytes | bytearray | memoryview) else item
    if not isinstance(source, io.BytesIO | str | os.PathLike | Image.Image):
        raise PictureError(f"a picture is a path, bytes, a PIL.Image or an array, not {type(item).__name__}")
    try:
        if isinstance(source, Image.Image):
            return _rgb(_upright(source.copy()))
        if not isinstance(source, io.BytesIO) and not Path(source).is_dir():
            check_regular(source, MOST_BYTES)
        with Image.open(source, formats=formats()) as image:
            whole = image.size
            if wanted:
                image.draft("RGB", (wanted, wanted))
            # Of a progressive JPEG all coefficients are kept in memory, whatever size it is decoded at.
            width, height = whole if image.info.get("progressive") else image.size
            if width * height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{width:,} × {height:,}")
            return _rgb(_upright(image))
    except FileNotFoundError:
        raise PictureError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise PictureError(f"{name}: is a folder, and holds no picture ({', '.join(SUFFIXES)})") from None
    except UnidentifiedImageError:
        empty = isinstance(source, str | os.PathLike) and Path(source).stat().st_size == 0
        what = "is empty" if empty else f"is no picture of a known format ({', '.join(formats())})"
        if "HEIF" not in formats() and str(name).lower().endswith(_HEIC):
            what = "is opened only with pillow-heif: pip install pillow-heif"
        raise PictureError(f"{name}: {what}") from None
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name}: has too many pixels ({error})") from None
    except MemoryError:
        raise PictureError(f"{name}: needs more memory than there is") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise PictureError(f"{name}: cannot be decoded ({first_line(error)})") from None


def _from_pixels(array: np.ndarray) -> Any:
    from PIL import Image

    grey = array.ndim == 2
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] in (3, 4))) or not array.size:
        raise PictureError(
            "an array of pixels is uint8, (height, width), (height, width, 3) or (height, width, 4), not "
            f"{array.dtype}, {array.shape}"
        )
    return Image.fromarray(array)


@cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow has."""
    from PIL import Image

    # No warnings about large pictures, which are errors here, or about odd metadata. Set once: filters belong to
    # the whole process, and pictures are opened in threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _upright(image: Any) -> Any:
    """The picture, changed in place: pixels loaded, and turned by its EXIF orientation if that can be read."""
    from PIL import ImageOps

    image.load()
    with contextlib.suppress(Exception):  # damaged metadata raise nearly anything, and are no reason to refuse it
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _rgb(image: Any) -> Any:
    """Any mode → RGB, on a white background."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
        top = max(values.max(initial=0), 1.0)
        if image.mode != "F":
            # Cameras and scanners keep 10, 12 or 14 bits in 16: of 65535 their greys would be nearly black. A dark
            # picture of true 16 bits gets brighter so, by powers of two: better than to see nothing in it.
            top = max(2.0 ** int(top).bit_length() - 1, 255.0)
        image = Image.fromarray((np.clip(values / top, 0, 1) * 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input. Part of the encoder and saved with it.

    Attributes:
        size: pixels per side of the result.
        resize: length of the shorter side before the central square is cut out; 0 stretches the whole picture to a
            square instead, so that nothing at its edges is lost.
        mean, std: of the three channels, in units of 0 to 255: what `normalise` subtracts and divides by.
        bicubic: resample with a bicubic filter instead of a bilinear one.

    Example:
        >>> from PIL import Image
        >>> from gen.inputs.pictures import Preprocessing
        >>> Preprocessing(size=32).pixels(Image.new("RGB", (80, 60))).shape
        (3, 32, 32)
    """

    size: int = 224
    resize: int = 0
    mean: tuple[float, ...] = (127.0, 127.0, 127.0)
    std: tuple[float, ...] = (128.0, 128.0, 128.0)
    bicubic: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` takes them back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises:
            TypeError, ValueError: these are no values of `to_dict`.
        """
        plain: dict[str, Any] = {k: tuple(map(float, v)) if isinstance(v, list) else v for k, v in values.items()}
        made = cls(**plain)
        sizes_fit = all(isinstance(n, int) and 0 <= n <= 1 << 11 for n in (made.size, made.resize)) and made.size
        if not sizes_fit or not len(made.mean) == len(made.std) == 3 or not all(made.std):
            raise ValueError(f"no preprocessing: {values}")
        return made

    def pixels(self, item: Any, view: int = 0, name: Any = None) -> np.ndarray:
        """A picture → (3, size, size) uint8.

        Args:
            item: as for `open_picture`.
            view: 0 is the picture as it is; odd views are mirrored; views from 2 on are random crops, which depend
                on the picture and the number alone.
            name: its name in messages.

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
        """The part of a picture of ``size`` (width, height) that is used: left, top, right, bottom, in pixels."""
        width, height = size
        if not self.resize:
            return 0, 0, width, height
        side = min(width, height) * min(self.size / self.resize, 1.0)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def normalise(self, pixels: Any) -> Any:
        """(B, 3, size, size) uint8 tensor → float32 with the mean and scale that the network was trained with."""
        import torch

        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (self.mean, self.std))
        return (pixels.float() - mean) / std


def _part(box: tuple[float, float, float, float], rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A random crop of a box, at least 60% of its area."""
    left, top, right, bottom = box
    across, down = (right - left) * rng.uniform(0.78, 1), (bottom - top) * rng.uniform(0.78, 1)
    left += rng.uniform(0, right - left - across)
    top += rng.uniform(0, bottom - top - down)
    return left, top, left + across, top + down


def read_picture(path: Path) -> bytes:
    """The content of the file of a picture. Raises `PictureError` where it cannot be read or is too large."""
    try:
        return read_whole(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise PictureError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def find_pictures(folder: Path) -> list[Path]:
    """All pictures in a folder and its subfolders, sorted by path. Says what it skips: files that are neither
    pictures nor text. Hidden files and folders, and what macOS adds to archives, count for nothing."""
    files = visible_files(folder)
    skipped = [p.name for p in files if p.suffix.lower() not in (*SUFFIXES, *_OTHER_FILES)]
    if skipped:
        notify(f"{folder}: {len(skipped):,} files without a picture's ending are skipped: {few(skipped)}")
    return [p for p in files if p.suffix.lower() in SUFFIXES]


def ahead(
    items: Iterable[T], work: Callable[[T], R], batch_size: int, workers: int = 2
) -> Iterator[list[tuple[T, R | UserError]]]:
    """Applies ``work`` to items in threads, two batches ahead of the consumer.

    Decoding a picture releases the interpreter lock, so a network can run on one batch while the next is decoded.

    Args:
        items: read as they are needed.
        work: a `UserError` that it raises becomes the item's result.
        batch_size: items per batch; the last may have fewer.
        workers: threads.

    Yields:
        Batches of (item, result), in the order of ``items``.

    Example:
        >>> from gen.inputs.pictures import ahead
        >>> list(ahead([1, 2, 3], lambda n: n * n, batch_size=2))
        [[(1, 1), (2, 4)], [(3, 9)]]
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
