"""Pictures that somebody has made by hand: bombs, wrong sizes, wrong endings, odd modes."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

from PIL import Image

_SIZES = (0, 1, 7, 65_535, 2**31 - 1, 2**32 - 1)


def other_picture(data: bytes, rng: random.Random) -> bytes:
    """Another picture instead of one; its name may say another format."""
    way = rng.randrange(5)
    if way == 0:
        return _png(rng)
    if way == 1:
        return _other_size(rng)
    if way == 2:
        made = _odd(rng)
        return made[: rng.randrange(len(made))] if rng.random() < 0.3 else made
    if way == 3:
        made = bytearray(_odd(rng))
        for _ in range(rng.choice((1, 3, 20))):
            made[rng.randrange(len(made))] = rng.randrange(256)
        return bytes(made)
    others = (b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", data * 2)
    return rng.choice((_tiff(rng), *others))


def _png(rng: random.Random) -> bytes:
    """A PNG from its chunks: of any size, a bomb of text, colours without a palette."""
    width, height = (rng.choice((*_SIZES, 8_000, 30_000)) for _ in range(2))
    depth, colour = rng.choice((1, 2, 4, 8, 16)), rng.choice((0, 2, 3, 4, 6))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, rng.choice((0, 1, 9)))
    rows = zlib.compress(bytes(min(width * height, rng.choice((100, 20_000_000)))))
    bomb = zlib.compress(bytes(100_000_000))
    texts = ((b"zTXt", b"a\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb), (b"tEXt", b"a" * 9999))
    notes = ((b"PLTE", bytes(5)), (b"tRNS", bytes(300)), (b"eXIf", b"II*\0\xff\xff\xff\xff"))
    chunks = [(b"IHDR", head), *rng.sample(texts, rng.randint(0, 1)), *rng.sample(notes, rng.randint(0, 1))]
    chunks += [(b"acTL", struct.pack(">II", 2**31, 0))] * (rng.random() < 0.2)
    chunks += [(b"IDAT", rows)] * rng.randint(0, 2)
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, [*chunks, (b"IEND", b"")]))


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    name, data = part
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _other_size(rng: random.Random) -> bytes:
    """A small picture whose header says another size."""
    kind, wide = rng.choice((("BMP", "<i"), ("GIF", "<H"), ("JPEG", ">H"), ("WEBP", "<H"), ("PNG", ">I")))
    data = bytearray(_saved(Image.new("RGB", (33, 35), "red"), kind))
    small = [struct.pack(wide, n) for n in (33, 35, 32, 34)]
    limit = (1 << 8 * struct.calcsize(wide) - (wide[1] == "i")) - 1
    for number in small:
        at = data.find(number)
        if at >= 0:
            data[at : at + len(number)] = struct.pack(wide, min(rng.choice(_SIZES), limit))
    return bytes(data)


def _odd(rng: random.Random) -> bytes:
    """A whole picture of some mode, size and format."""
    mode = rng.choice(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"))
    size = rng.choice(((1, 1), (1, 3000), (3000, 1), (50, 40), (500, 400), (7000, 7000), (60_000, 2)))
    image = Image.new("RGBA", size).convert("PA") if mode == "PA" else Image.new(mode, size)
    exif = Image.Exif()
    exif[0x0112] = rng.choice((0, 3, 6, 8, 9, 2**15))
    for kind in rng.sample(("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "PPM", "JPEG2000"), 9):
        more: dict[str, Any] = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
        if kind == "JPEG":
            more["progressive"] = rng.random() < 0.5
        if kind in ("GIF", "WEBP", "TIFF") and image.width < 1000:
            more |= {"save_all": True, "append_images": [image] * rng.choice((0, 3, 50))}
        try:
            return _saved(image, kind, **more)
        except (OSError, ValueError, KeyError):  # no such mode in this format
            continue
    return b""


def _saved(image: Any, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def _tiff(rng: random.Random) -> bytes:
    """A TIFF from its tags, with numbers that make no sense."""
    odd = (0, 1, 2, 8, 255, 65_535, 2**31, 2**32 - 1)
    tags = {256: 40, 257: 30, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 30, 279: 1200, 322: 16, 323: 16}
    for tag in rng.sample(sorted(tags), rng.randint(1, 4)):
        tags[tag] = rng.choice(odd)
    if rng.random() < 0.5:
        del tags[322], tags[323]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    count = rng.choice((len(tags), len(tags), 65_535))
    following = rng.choice((0, 0, 8, 2**32 - 1))  # 8: the same page again, for ever
    head = b"II*\0" + struct.pack("<IH", 8, count) + entries + struct.pack("<I", following)
    return head.ljust(200) + bytes(1200)
