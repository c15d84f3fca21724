"""Items from the texts and pictures of a request."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from gen.inputs.items import named_item
from gen.inputs.pictures import formats
from gen.serve.errors import Refusal
from gen.serve.limits import Limits
from gen.serve.models import Models, Served
from gen.serve.work import apart, refused


async def read_item(
    models: Models,
    served: Served,
    given: str | Mapping[str, str | None],
    further: Mapping[str, str | None] | None = None,
) -> Any:
    """`item_of`; where there may be a picture to unpack, in a thread of its own."""
    do = partial(item_of, served, given, models.limits, further)
    if any(processor.kind == "pictures" for processor in served.inputs.values()):
        return await apart(models, do)
    return do()


def item_of(
    served: Served,
    given: str | Mapping[str, str | None],
    limits: Limits,
    further: Mapping[str, str | None] | None = None,
) -> Any:
    """What a model reads, from the texts and ``data:`` URLs of a request.

    Args:
        served: the model.
        given: one text or ``data:`` URL, or one per input name.
        limits: of pixels and characters.
        further: what other inputs get.

    Raises:
        Refusal: a picture where a text should be, or the reverse; unknown names; too much of it.
    """
    inputs = served.inputs
    if further:
        if isinstance(given, str):
            reading = {name: processor for name, processor in inputs.items() if processor.kind != "labels"}
            needed = {n: p for n, p in reading.items() if not p.optional and n not in further}
            own = refused(named_item, needed or reading, given) if reading else {}
            given = {name: part for name, part in own.items() if part is not None}
        if twice := given.keys() & further.keys():
            raise Refusal(f"given: {min(twice)!r} is there already: name further inputs", param="given")
        given = {**given, **further}
    named = refused(named_item, inputs, given)
    item: dict[str, Any] = {}
    for name, value in named.items():
        if value is None:
            item[name] = None  # an optional input
        elif inputs[name].kind == "pictures":
            item[name] = picture_bytes(value, limits)
        else:
            if len(value) > limits.characters:
                raise Refusal(
                    f"{name}: {len(value):,} characters, and at most {limits.input_tokens:,} tokens are read"
                )
            item[name] = " ".join(value.split()) if served.labels else value
    return item


def picture_bytes(url: str, limits: Limits) -> bytes:
    """The file in a ``data:`` URL. Nothing is ever fetched.

    Raises:
        Refusal: another kind of address, no base64, no picture, or too many pixels.
    """
    head, comma, rest = url.partition(",")
    if not comma or not head[:5].lower() == "data:":
        raise Refusal(
            "a picture comes as a data: URL (data:image/jpeg;base64,…); this server fetches nothing",
            code="invalid_image_url",
        )
    data = unquote_to_bytes(rest)
    try:
        if head.lower().endswith(";base64"):
            data = base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise Refusal("the data: URL of the picture is no base64", code="invalid_image") from None
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            width, height = image.size
    except Exception:  # what is no picture is refused where it is decoded, with the reason
        return data
    if width * height > limits.pixels:
        raise Refusal(
            f"the picture has {width:,} × {height:,} pixels, and at most {limits.pixels:,} are read",
            code="image_too_large",
        )
    return data
