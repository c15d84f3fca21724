"""LibreTranslate's interface."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from gen.serve.errors import Refusal
from gen.serve.items import item_of
from gen.serve.models import Models, Served
from gen.serve.translation import Translating
from gen.serve.wire import answer, body, parse, wrong_type
from gen.serve.work import Work, check, several

_NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French", "he": "Hebrew",
    "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "lt": "Lithuanian", "lv": "Latvian", "nb": "Norwegian", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
UNKNOWN = "und"
"""The code of a language that nobody named."""


class Translate(Struct, kw_only=True):
    """`POST /translate`, as JSON or as a form."""

    q: str | list[str]
    target: str
    source: str = "auto"
    format: str = "text"
    alternatives: Annotated[int, Meta(ge=0, le=10)] = 0
    api_key: str | None = None


async def translate(request: Request) -> Response:
    """Translates a text, or several."""
    asked = await _read(request)
    if asked.format != "text":
        raise Refusal(f"format {asked.format[:20]!r} is not supported: send plain text, and format 'text'")
    models: Models = request.app.state.models
    request.app.state.key.check(request.headers.get("authorization", ""), asked.api_key or "")
    served = _find(models, asked.source, asked.target)
    texts = [asked.q] if isinstance(asked.q, str) else asked.q
    if len(texts) > models.limits.queue:
        raise Refusal(f"{len(texts):,} texts: at most {models.limits.queue:,} are translated at once; send fewer")
    options = several(served, {}, asked.alternatives + 1)
    chosen = check(served, options, models.limits)
    async with Work(request, served) as work:
        parts = []
        for text in texts:
            translating = await work.apart(partial(Translating, served, text, chosen, models.limits))
            if len(work.jobs) + len(translating.texts) > models.limits.queue:
                raise Refusal("too much text at once: send it in parts")
            jobs = [
                await work.begin(item_of(served, piece, models.limits), options) for piece in translating.texts
            ]
            parts.append((translating, jobs))
        await work.results()
        found = [[h.text for _, h in t.joined([job.hypotheses for job in jobs])] for t, jobs in parts]
    best = [each[0] for each in found]
    content: dict[str, Any] = {"translatedText": best[0] if isinstance(asked.q, str) else best}
    if asked.alternatives:
        others = [each[1:] for each in found]
        content["alternatives"] = others[0] if isinstance(asked.q, str) else others
    if asked.source == "auto":
        detected = {"confidence": 0.0, "language": (served.languages or (UNKNOWN, ""))[0]}
        content["detectedLanguage"] = detected if isinstance(asked.q, str) else [detected] * len(texts)
    return answer(content)


async def _read(request: Request) -> Translate:
    if not request.headers.get("content-type", "").startswith(("application/x-www-form-urlencoded", "multipart/")):
        return parse(await body(request), Translate)
    await body(request)  # within the limits
    async with request.form() as form:
        given = {name: value for name, value in form.items() if isinstance(value, str)}
    try:
        return msgspec.convert(given, Translate, strict=False)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from error


def _find(models: Models, source: str, target: str) -> Served:
    """The model of a pair of languages; one whose languages nobody named takes any."""
    known = [served for served in models.served.values() if Translating.does(served)]
    pairs = [served.languages for served in known if served.languages]
    found = [pair for pair in pairs if pair[1] == target and source in ("auto", pair[0])]
    if len({*found}) > 1:
        raise Refusal(f"source 'auto': languages are not detected; name one of {_listed(found)}")
    for served in known:
        if served.languages == (found[0] if found else None):
            return served
    raise Refusal(f"{source[:20]} to {target[:20]} is not supported: there is {_listed(pairs) or 'none'}")


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{a} to {b}" for a, b in dict.fromkeys(pairs))


async def languages(request: Request) -> Response:
    """The languages, and what each is translated into."""
    models: Models = request.app.state.models
    pairs = [s.languages or (UNKNOWN, UNKNOWN) for s in models.served.values() if Translating.does(s)]
    codes = sorted({code for pair in pairs for code in pair})
    return answer(
        [{"code": c, "name": _NAMES.get(c, c), "targets": sorted({b for a, b in pairs if a == c})} for c in codes]
    )


async def health(request: Request) -> Response:
    """Whether the server runs."""
    return answer({"status": "ok"})
