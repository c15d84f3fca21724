"""Captions as XMP and IPTC: what is written is what others read, and nothing of theirs is lost."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageCms, IptcImagePlugin

from gen.base.errors import UserError
from tasks.caption.xmp import in_picture, in_sidecar

exiv2 = pytest.importorskip("exiv2")

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LANG = "{http://www.w3.org/XML/1998/namespace}lang"
ITEMS = ".//{http://purl.org/dc/elements/1.1/}description/{*}Alt/{*}li"
DARKTABLE = b"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:darktable="http://darktable.sf.net/"
 xmlns:own="http://own.example/" xmp:Rating="4" own:note="&lt;mine&gt;" darktable:history_end="1">
<darktable:history><rdf:Seq><rdf:li darktable:num="0" darktable:operation="exposure" darktable:params="00ff"/>
</rdf:Seq></darktable:history></rdf:Description></rdf:RDF></x:xmpmeta>"""
ODD = 'a <b>dog</b> & "cat", lang="fr" नमस्ते 😀'


def captions(xmp):
    return {item.get(LANG): item.text for item in ElementTree.fromstring(xmp).iterfind(ITEMS)}


def attributes(xmp):
    found = {}
    for element in ElementTree.fromstring(xmp).iter():
        found |= {name.partition("}")[2]: value for name, value in element.attrib.items()}
    return found


def picture(form, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def opened(content):
    return Image.open(io.BytesIO(content))


def in_iptc(content):
    return IptcImagePlugin.getiptcinfo(opened(content)).get((2, 120), b"").decode()


# -- sidecars ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a dog", ODD, 'lang="fr" chien', "two\nlines"])
def test_a_sidecar(text):
    assert captions(in_sidecar(None, text)) == {"x-default": text}
    assert captions(in_sidecar(None, text, "de")) == {"x-default": text, "de": text}


def test_what_is_no_text_is_replaced():
    assert captions(in_sidecar(None, "a\ud800b")) == {"x-default": "a?b"}


def test_what_others_wrote_stays():
    made = in_sidecar(DARKTABLE, ODD)
    assert captions(made) == {"x-default": ODD}
    assert attributes(made).items() >= attributes(DARKTABLE).items()
    assert ElementTree.fromstring(made).find(".//{http://darktable.sf.net/}history/{*}Seq/{*}li") is not None


def test_languages_stand_beside_each_other():
    english = in_sidecar(None, "a dog", "en")
    both = in_sidecar(english, "ein Hund", "de")
    assert captions(both) == {"x-default": "a dog", "en": "a dog", "de": "ein Hund"}
    later = in_sidecar(both, "a black dog", "en", overwrite=True)
    assert captions(later) == {"x-default": "a black dog", "en": "a black dog", "de": "ein Hund"}


def test_captions_of_others_stay():
    mine = in_sidecar(None, "Bella, 2019")
    with pytest.raises(UserError, match="has a caption; "):
        in_sidecar(mine, "a dog")
    assert in_sidecar(mine, "Bella, 2019") == mine
    assert captions(in_sidecar(mine, "a dog", "en")) == {"x-default": "Bella, 2019", "en": "a dog"}
    assert captions(in_sidecar(mine, "a dog", overwrite=True)) == {"x-default": "a dog"}


@pytest.mark.parametrize(
    "content",
    [b"", b"no XMP", DARKTABLE[:500], b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0" * 99,
     b"<!DOCTYPE x><x:xmpmeta xmlns:x='adobe:ns:meta/'/>", DARKTABLE.replace(b"rdf:Seq", b"rdf:Foo")],
)  # fmt: skip
def test_what_is_no_whole_xmp_is_refused(content):
    """Exiv2 alone would take some for empty sidecars, and what they hold would be lost."""
    with pytest.raises(UserError):
        in_sidecar(content, "a dog")


# -- pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture(form):
    content = picture(form)
    made = in_picture(content, ODD, "de")
    image = opened(made)
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or image.tag_v2[700]
    assert captions(xmp) == {"x-default": ODD, "de": ODD}
    assert np.array_equal(np.asarray(image), np.asarray(opened(content)))
    if form in ("JPEG", "TIFF"):
        assert in_iptc(made) == ODD
        assert IptcImagePlugin.getiptcinfo(image)[1, 90] == b"\x1b%G"  # UTF-8


def test_what_a_picture_has_stays():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    content = picture("JPEG", exif=exif, comment="own", icc_profile=PROFILE)
    image = opened(in_picture(content, "a dog"))
    assert dict(image.getexif()) == dict(exif)
    assert image.info["icc_profile"] == PROFILE
    assert image.info["comment"].rstrip(b"\0") == b"own"


def test_captions_of_others_in_pictures_stay():
    mine = in_picture(picture("JPEG"), "Bella, 2019")
    with pytest.raises(UserError, match="has a caption; "):
        in_picture(mine, "a dog")
    with pytest.raises(UserError, match="has a caption; "):
        in_picture(mine, "a dog", "en")  # IPTC has one for all languages
    assert in_iptc(in_picture(mine, "a dog", overwrite=True)) == "a dog"


def test_a_long_caption_is_cut_for_iptc_between_characters():
    text = "ü" * 1500
    made = in_picture(picture("JPEG"), text)
    assert in_iptc(made) == "ü" * 1000
    assert captions(opened(made).info["xmp"])["x-default"] == text


def test_iptc_in_an_unnamed_encoding_stays():
    image = exiv2.ImageFactory.open(picture("JPEG"))
    image.readMetadata()
    image.iptcData()["Iptc.Application2.City"] = "Zurich"
    image.writeMetadata()
    content = bytes(image.io().mmap()).replace(b"Zurich", b"Z\xfcrich")
    made = in_picture(content, "ein Hund")
    assert in_iptc(made) == ""
    assert IptcImagePlugin.getiptcinfo(opened(made))[2, 90] == b"Z\xfcrich"
    assert captions(opened(made).info["xmp"]) == {"x-default": "ein Hund"}


@pytest.mark.parametrize("content", [picture("GIF"), picture("BMP"), b"no picture", picture("JPEG")[:100]])
def test_what_takes_no_caption(content):
    with pytest.raises(UserError, match="takes no caption"):
        in_picture(content, "a dog")
