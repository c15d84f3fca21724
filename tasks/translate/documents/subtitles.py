"""SubRip (.srt), WebVTT (.vtt) and SubStation Alpha (.ass, .ssa): a segment is the text of a cue.

A sentence that goes on in the next cue is translated in parts, so that each cue keeps its timing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from functools import partial

from tasks.translate.documents.segments import MARKUP, BadDocument, Parts, Segment, Tag, as_it_is, line_of, tagged

_TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}[.,]\d{1,3}"
_TIMING = re.compile(rf"^[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}(?:[ \t][^\n]*)?\r?(?:\n|\Z)", re.MULTILINE)
_ANY_TIME = r"\d+:\d+[:.,]\d[\d:.,]*"  # with seconds: "10:30 - 11:45" may be the text of a cue
_TIMES = re.compile(rf"^(?:.*-->.*|[ \t]*{_ANY_TIME}[ \t]*\S{{1,3}}[ \t]*{_ANY_TIME}[ \t\r]*)$", re.MULTILINE)
_EXAMPLE = "it is like 00:01:02,500 --> 00:01:04,000"
_LINE_END = re.compile(r"\r?\n")
_BLANK = re.compile(r"^[ \t\r]*$", re.MULTILINE)
_NUMBER = re.compile(r"(?:\A|\n)[ \t]*\d+\Z")
_TAGS = re.compile(rf"{MARKUP}|<\d[\d:.]*>|\{{\\[^}}]*\}}|[♪♫]+")
_SPEAKER = re.compile(r"((?:<[^<>]*>|\{\\[^}]*\})*)([-–—]\s*)(?=\D)|(?=[♪♫])")
"""What begins a line of its own: a dash where two people talk, the note of a song."""
_SWITCH = re.compile(r"\{\\([bius])([01])\}")
_CLOCK = r"\s*\d+:\d+:\d+[.:]\d+\s*"
_DRAWING = re.compile(r"\\p[1-9]")


def segments(text: str, again: bool) -> Iterator[Segment]:
    """The texts of the cues. Raises `BadDocument` for a broken timing, and where there are no cues."""
    if re.search(r"^\[Events\]\s*$", text, re.MULTILINE | re.IGNORECASE):
        yield from _dialogues(text)
        return
    web = text.removeprefix("\ufeff").startswith("WEBVTT")
    new_line = "\r\n" if "\r\n" in text else "\n"
    timings = list(_TIMING.finditer(text))
    begins = {match.start() for match in timings}
    for times in _TIMES.finditer(text):
        if times.start() not in begins:
            raise BadDocument(line_of(text, times.start()), f"a broken timing; {_EXAMPLE}")
    if text.strip("\ufeff \t\r\n") and not timings and not web:
        raise BadDocument(1, f"no subtitles: there is no timing; {_EXAMPLE}")
    for timing, following in zip(timings, [*timings[1:], None], strict=False):
        raw = text[timing.end() : following.start() if following else len(text)]
        if web:
            blank = _BLANK.search(raw)
            raw = raw[: blank.start()] if blank else raw
            yield from _cue(
                raw, timing.end(), _LINE_END, new_line, partial(html.escape, quote=False), html.unescape
            )
        else:
            yield from _cue(_NUMBER.sub("", raw.rstrip()) if following else raw, timing.end(), _LINE_END, new_line)


def _cue(
    raw: str,
    begin: int,
    line_end: re.Pattern[str],
    new_line: str,
    escape: Callable[[str], str] = as_it_is,
    unescape: Callable[[str], str] = as_it_is,
) -> Iterator[Segment]:
    """The segment of a cue's text, if there is any."""
    raw = raw.rstrip()
    begin, raw = begin + len(raw) - len(raw.lstrip()), raw.lstrip()
    ends = line_end.findall(raw)
    lines = line_end.split(raw)
    parts: Parts = []
    for i, line in enumerate(lines):
        speaker = _SPEAKER.match(line)
        if i:
            parts.append(Tag(ends[i - 1], breaks=True) if speaker else " ")
        if speaker and speaker[2]:
            parts += [*_tagged(speaker[1], unescape), Tag(speaker[2])]
        parts += _tagged(line[speaker.end() if speaker else 0 :], unescape)
    width = max(len(_TAGS.sub("", line)) for line in lines)
    new_line = ends[0] if ends else new_line

    def finish(written: str) -> str:
        return re.sub(r"\r?\n", lambda match: new_line, written)

    yield Segment(begin, begin + len(raw), parts, escape, finish, width, len(lines))


def _tagged(line: str, unescape: Callable[[str], str]) -> Parts:
    """Text and tags of a line; a switch such as {\\i1} opens an element, {\\i0} closes it."""
    parts = tagged(line, _TAGS)
    for i, part in enumerate(parts):
        if isinstance(part, str):
            parts[i] = unescape(part.replace(r"\h", " "))
        elif switch := _SWITCH.fullmatch(part.raw):
            parts[i] = Tag(part.raw, "open" if switch[2] == "1" else "close", switch[1])
        elif part.name == "v":  # WebVTT's speaker need not be closed
            part.kind = "alone" if f"</{part.name}>" not in line else part.kind
    return parts


def _dialogues(text: str) -> Iterator[Segment]:
    """The texts of the lines "Dialogue:" of .ass and .ssa."""
    commas, times = 9, [1, 2]
    in_events, at = False, 0
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        key, _, rest = line.partition(":")
        key = key.strip().lower()
        if line.startswith("["):
            in_events = line.strip().lower() == "[events]"
        elif in_events and key == "format":
            fields = [field.strip().lower() for field in rest.split(",")]
            if fields[-1] != "text":
                raise BadDocument(line_of(text, at), "the last field of Format: must be Text")
            commas = len(fields) - 1
            times = [i for i, field in enumerate(fields) if field in ("start", "end")]
        elif in_events and key == "dialogue":
            fields = rest.split(",", commas)
            if len(fields) <= commas or not all(re.fullmatch(_CLOCK, fields[i]) for i in times):
                raise BadDocument(
                    line_of(text, at), "a broken line; it is like Dialogue: 0,0:01:02.50,0:01:04.00,…"
                )
            if not _DRAWING.search(fields[-1]):
                yield from _cue(fields[-1], at + len(line) - len(fields[-1]), re.compile(r"\\[Nn]"), r"\N")
        at += len(line)
