"""Pictures of every kind a user has, and those that cannot be used."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gen.base.errors import UserError
from gen.inputs.pictures import PictureError, Preprocessing, ahead, find_pictures, open_picture
from gen.inputs.processors import PictureProcessor


def gradient(width=40, height=30):
    """Red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corner(image, where):
    return np.asarray(image)[where]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats(kind):
    image = open_picture(encoded(gradient(), kind))
    assert image.mode == "RGB"
    assert image.size == (40, 30)
    assert np.abs(np.asarray(image, int) - np.asarray(gradient(), int)).mean() < 12


def test_paths_bytes_and_images_are_the_same_picture(tmp_path):
    path = tmp_path / "a.png"
    gradient().save(path)
    pixels = np.asarray(gradient())
    items = (
        path,
        str(path),
        path.read_bytes(),
        gradient(),
        pixels,
        np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
    )
    arrays = [np.asarray(open_picture(item)) for item in items]
    for array in arrays[1:]:
        np.testing.assert_array_equal(array, arrays[0])


@pytest.mark.parametrize("array", [np.zeros((4, 3, 2), np.uint8), np.zeros((4, 3, 3)), np.zeros((0, 3), np.uint8)])
def test_an_array_that_is_no_picture(array):
    with pytest.raises(PictureError, match="an array of pixels is uint8"):
        open_picture(array)


def test_a_processor_takes_arrays_and_what_it_made():
    processor = PictureProcessor(Preprocessing(size=32), 1)
    picture = gradient()
    (made,) = processor.read([picture])
    for items in ([np.asarray(picture)], [made], [np.asarray(picture), picture, made]):
        assert (processor.read(items) == made).all()
    features = [np.ones((4, 8), np.float32)] * 2
    np.testing.assert_array_equal(processor.read(features), features)
    with pytest.raises(PictureError, match="float32"):
        processor.read([features[0], picture])


def test_a_picture_is_turned_as_the_camera_was_held():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to look at it
    turned = open_picture(encoded(gradient(), "JPEG", exif=exif, quality=95))
    assert turned.size == (30, 40)
    wanted = np.asarray(gradient().transpose(Image.Transpose.ROTATE_270), int)
    assert np.abs(np.asarray(turned, int) - wanted).mean() < 5


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert corner(open_picture(data), (0, 0)).tolist() == [255, 0, 0]


def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 4, 8))
    for picture in (image, image.convert("P"), Image.merge("LA", (image.getchannel("R"), image.getchannel("A")))):
        assert corner(open_picture(encoded(picture, "PNG")), (0, 7)).tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.paste(1, (0, 0, 4, 8))
    opened = open_picture(encoded(image, "PNG", transparency=0))
    assert corner(opened, (0, 0)).tolist() == [200, 0, 0]
    assert corner(opened, (0, 7)).tolist() == [255, 255, 255]


def test_sixteen_bits_keep_their_greys():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(4, 0)
    opened = np.asarray(open_picture(encoded(Image.fromarray(ramp), "PNG")), int)
    assert np.abs(opened[0, :, 0] - np.linspace(0, 255, 64)).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_in_sixteen_keep_their_greys(bits):
    top = 2**bits - 1
    ramp = np.linspace(0, top, 64).astype(np.uint16)[None].repeat(4, 0)
    for kind in ("PNG", "TIFF"):
        opened = np.asarray(open_picture(encoded(Image.fromarray(ramp), kind)), int)
        assert np.abs(opened[0, :, 0] - np.linspace(0, 255, 64)).max() < 2
    dark = np.asarray(open_picture(encoded(Image.fromarray(ramp // top), "PNG")), int)
    assert dark.max() == 1  # of 255: what is black stays so


def test_cmyk_and_grey():
    cmyk = Image.new("RGB", (8, 8), (200, 30, 30)).convert("CMYK")
    red, green, _ = corner(open_picture(encoded(cmyk, "JPEG")), (4, 4)).tolist()
    assert red > 150 > 80 > green
    assert corner(open_picture(encoded(Image.new("L", (8, 8), 77), "PNG")), (0, 0)).tolist() == [77] * 3


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
@pytest.mark.parametrize("resize", [0, 64])
def test_odd_shapes(size, resize):
    pixels = Preprocessing(size=56, resize=resize).pixels(Image.new("RGB", size, (9, 99, 199)))
    assert pixels.shape == (3, 56, 56)
    assert (pixels == np.array([9, 99, 199])[:, None, None]).all()


def bomb():
    """A PNG that says it has 40,000 × 40,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_what_cannot_be_used_is_named(tmp_path):
    whole = encoded(gradient(400, 300), "JPEG")
    contents = {
        "cut.jpg": (whole[: len(whole) // 2], "cannot be decoded"),
        "empty.jpg": (b"", "is empty"),
        "text.png": (b"this is no picture", "no picture of a known format"),
        "bomb.png": (bomb(), "too many pixels"),
        "vector.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no picture of a known format"),
    }
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PictureError, match=reason) as caught:
            open_picture(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(PictureError, match=r"gone\.jpg: no such file"):
        open_picture(tmp_path / "gone.jpg")
    with pytest.raises(PictureError, match="is a folder"):
        open_picture(tmp_path)
    with pytest.raises(PictureError, match="not int"):
        open_picture(3)


def test_damaged_metadata_are_no_reason():
    """Scrubbers leave an EXIF block of zeros behind."""
    whole = encoded(gradient(40, 30), "JPEG", dpi=(72, 72))
    block = b"Exif\0\0" + bytes(40)
    scrubbed = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + whole[2:]
    np.testing.assert_array_equal(np.asarray(open_picture(scrubbed)), np.asarray(open_picture(whole)))


def test_more_pixels_than_anyone_needs():
    """A few kilobytes that would be gigabytes on their way to RGB."""
    data = encoded(Image.new("1", (9000, 9000)), "PNG")
    assert len(data) < 50_000
    with pytest.raises(PictureError, match=r"too many pixels \(9,000 × 9,000\)"):
        open_picture(data)


def test_the_users_image_stays_as_it_is():
    image = gradient(8, 8)
    opened = open_picture(image)
    opened.paste((0, 0, 0), (0, 0, 8, 8))
    assert np.asarray(image).any()
    with pytest.raises(PictureError, match="cannot be decoded"):
        open_picture(Image.open(io.BytesIO(encoded(gradient(400, 300), "JPEG")[:2000])))


def test_large_jpegs_are_decoded_small():
    large = encoded(gradient(1600, 1200), "JPEG")
    assert open_picture(large, wanted=224).size == (400, 300)
    exact, fast = (Preprocessing(112).pixels(item) for item in (open_picture(large), large))
    assert np.abs(exact.astype(int) - fast.astype(int)).mean() < 2


def test_the_middle_is_what_torchvision_cuts_out():
    from torchvision.transforms import v2

    image = gradient(300, 200)
    wanted = v2.CenterCrop(96)(v2.Resize(128)(image))
    got = Preprocessing(96, resize=128).pixels(image)
    assert np.abs(got.transpose(1, 2, 0).astype(int) - np.asarray(wanted, int)).max() <= 2


def test_views():
    preprocessing = Preprocessing(64)
    plain, mirrored, part, other = (preprocessing.pixels(gradient(), view) for view in range(4))
    np.testing.assert_array_equal(mirrored, plain[..., ::-1])
    assert not np.array_equal(part, plain)
    assert not np.array_equal(part, other)
    np.testing.assert_array_equal(part, preprocessing.pixels(gradient(), 2))
    assert part[0].max() - part[0].min() > 0.7 * 255  # most of it is still there


def test_normalise():
    import torch

    x = Preprocessing(2, mean=(127.0, 0.0, 10.0), std=(128.0, 1.0, 2.0)).normalise(
        torch.full((1, 3, 2, 2), 255).byte()
    )
    assert x[0, :, 0, 0].tolist() == [1.0, 255.0, 122.5]


def test_ahead_keeps_order_and_errors():
    def work(i):
        if i % 7 == 3:
            raise UserError(f"no {i}")
        return i * i

    batches = list(ahead(range(50), work, 8))
    assert [len(b) for b in batches] == [8] * 6 + [2]
    flat = [pair for batch in batches for pair in batch]
    assert [i for i, _ in flat] == list(range(50))
    assert all(str(r) == f"no {i}" if i % 7 == 3 else r == i * i for i, r in flat)


def test_ahead_reads_no_further_than_it_must():
    read = []
    batches = ahead((read.append(i) or i for i in range(10_000)), lambda i: i, 4)
    next(batches)
    batches.close()
    assert len(read) <= 12


def test_find_pictures(tmp_path, capsys):
    for folder in ("b", "__MACOSX"):
        (tmp_path / folder).mkdir()
    for name in ("z.JPG", "b/a.png", "b/.a.png", "._z.JPG", "__MACOSX/z.jpg", "y.JFIF", "x.HEIC", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in find_pictures(tmp_path)] == ["a.png", "x.HEIC", "y.JFIF", "z.JPG"]
    assert capsys.readouterr().err == ""
    for i in range(5):
        (tmp_path / f"raw{i}.NEF").touch()
    assert len(find_pictures(tmp_path)) == 4
    said = "5 files without a picture's ending are skipped: raw0.NEF, raw1.NEF, raw2.NEF and 2 more"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jfif", "JPEG"), ("a.JP2", "JPEG2000"), ("a.HEIC", "HEIF"), ("a.ppm", "PPM")]
)
def test_less_usual_formats(tmp_path, name, kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="needs the [heic] extra").register_heif_opener()
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / name, format=kind)
    assert find_pictures(tmp_path) == [tmp_path / name]
    found = open_picture(tmp_path / name)
    assert (found.mode, found.size) == ("RGB", (64, 48))
    assert np.abs(np.asarray(found, int) - (200, 30, 30)).max() < 12


def test_heic_without_the_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("gen.inputs.pictures.formats", lambda: ("JPEG", "PNG"))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(PictureError, match="only with pillow-heif: pip install pillow-heif"):
        open_picture(tmp_path / "a.heic")
