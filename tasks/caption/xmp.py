"""Captions where photo managers read them: XMP in sidecars, XMP and IPTC in pictures. Bytes in, bytes out.

Exiv2 does it, the library that darktable, digiKam and others read and write metadata with. It is under the GPL, so
it is an extra.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any
from xml.etree import ElementTree

from gen.base.errors import UserError

NAME = "{name}.xmp"
"""Of a sidecar: ``photo.jpg.xmp``. darktable and digiKam look for that one, and a picture of the same stem has its
own; Lightroom looks for ``photo.xmp``, but beside raw files only, and reads a JPEG's caption from within it."""

MOST_BYTES = 16 << 20
"""Largest sidecar that is read."""

DESCRIPTION = "Xmp.dc.description"
IPTC_CAPTION, IPTC_CHARACTERS = "Iptc.Application2.Caption", "Iptc.Envelope.CharacterSet"
IPTC_BYTES = 2000
UTF8 = "\x1b%G"
ANY_LANGUAGE = "x-default"

_EMPTY = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta><?xpacket end="w"?>'
)
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def library() -> ModuleType:
    """Exiv2, silent. Raises `UserError` if it is not installed."""
    try:
        import exiv2
    except ImportError as error:
        raise UserError("--xmp and --xmp-copies need exiv2: pip install exiv2") from error
    exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)
    return exiv2


def in_sidecar(sidecar: bytes | None, caption: str, language: str = "", *, overwrite: bool = False) -> bytes:
    """A sidecar with a caption; all else in it stays, such as ratings and what darktable did to the picture.

    Args:
        sidecar: its content; None: there is none yet.
        caption: any text.
        language: of the caption, as in ``xml:lang``; "" if nobody knows.
        overwrite: replace a caption in this language.

    Raises:
        UserError: ``sidecar`` is no XMP, or has a caption.
    """
    if sidecar is not None:
        _check(sidecar)
    return _described(sidecar or _EMPTY, caption, language, overwrite, sidecar=True)


def in_picture(picture: bytes, caption: str, language: str = "", *, overwrite: bool = False) -> bytes:
    """A picture with a caption as XMP and, in formats that have it, IPTC. No pixel changes.

    Args:
        picture: the content of its file.
        caption, language, overwrite: as for `in_sidecar`.

    Raises:
        UserError: its format has no place for captions, or it has one.
    """
    return _described(picture, caption, language, overwrite, sidecar=False)


def _described(data: bytes, caption: str, language: str, overwrite: bool, sidecar: bool) -> bytes:
    exiv2 = library()
    caption = caption.encode(errors="replace").decode()  # no lone surrogates
    try:
        image = exiv2.ImageFactory.open(data)
        image.readMetadata()
        xmp, iptc = image.xmpData(), image.iptcData()
        if sidecar and xmp.empty() and data != _EMPTY and _says_something(data):
            raise UserError("is no XMP that can be read")
        before = dict(xmp[DESCRIPTION].value()) if DESCRIPTION in xmp else {}
        _describe(exiv2, xmp, before, caption, language or ANY_LANGUAGE, overwrite)
        if not sidecar:
            _caption(iptc, caption, overwrite)
        image.writeMetadata()
        written = bytes(image.io().mmap())
        image.io().munmap()
        return written
    except exiv2.Exiv2Error as error:
        reason = " ".join(str(error.args[-1]).split())[:160]
        raise UserError(f"takes no caption ({reason})") from error


def _describe(exiv2: Any, xmp: Any, before: dict[str, str], caption: str, language: str, overwrite: bool) -> None:
    old = before.get(language)
    if old not in (None, caption) and not overwrite:
        raise UserError("has a caption; --overwrite replaces it")
    languages = {**before, language: caption}
    if before.get(ANY_LANGUAGE) in (None, old):  # what is shown to readers of all other languages
        languages[ANY_LANGUAGE] = caption
    value = exiv2.LangAltValue()
    for name, text in languages.items():
        value[name] = text
    xmp[DESCRIPTION] = value


def _caption(iptc: Any, caption: str, overwrite: bool) -> None:
    """The caption in IPTC, which has one for all languages."""
    old = [bytes(entry.value().data()) for entry in iptc]
    if IPTC_CAPTION in iptc and not overwrite and iptc[IPTC_CAPTION].toString() != caption:
        raise UserError("has a caption; --overwrite replaces it")
    if not all(map(bytes.isascii, old)) and (IPTC_CHARACTERS not in iptc):
        return  # in some encoding: in another one the rest would be misread
    iptc[IPTC_CHARACTERS] = UTF8
    iptc[IPTC_CAPTION] = caption.encode()[:IPTC_BYTES].decode(errors="ignore")


def _check(sidecar: bytes) -> None:
    """Raises `UserError` for what is no whole XML: Exiv2 would take it for an empty sidecar."""
    try:
        root = ElementTree.fromstring(sidecar)
    except ElementTree.ParseError as error:
        raise UserError(f"is damaged ({error})") from error
    known = root.tag in ("{adobe:ns:meta/}xmpmeta", "{adobe:ns:meta/}xapmeta", f"{_RDF}RDF")
    if not known or b"<!DOCTYPE" in sidecar:
        raise UserError("is no XMP")


def _says_something(sidecar: bytes) -> bool:
    found = ElementTree.fromstring(sidecar).iter(f"{_RDF}Description")
    return any(len(each) or set(each.attrib) - {f"{_RDF}about", "about"} for each in found)
