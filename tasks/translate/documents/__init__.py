"""Documents: what a translation may replace in subtitles, message catalogues and pages, and all else as it was.

Each format has a module with one function, ``segments(text, again)``: the stretches of a document to translate;
``again`` those, too, that have a translation. What is between them is never touched, so a document without any
comes out byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from gen.base.errors import UserError, few, notify
from gen.base.lines import read_lines, suffix
from tasks.translate.documents.alignment import Translated, translated
from tasks.translate.documents.carry import carry
from tasks.translate.documents.layout import lay_out, left_over
from tasks.translate.documents.segments import BadDocument, Spans, has_letters, kept, line_of, lines_of
from tasks.translate.lines import Translation

FORMATS = {
    ".srt": "subtitles",
    ".vtt": "subtitles",
    ".ass": "subtitles",
    ".ssa": "subtitles",
    ".po": "po",
    ".pot": "po",
    ".xliff": "xliff",
    ".xlf": "xliff",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
}
"""Extension → the module of its format."""


class Document:
    """A document of one of the `FORMATS`.

    Args:
        name: its file.
        again: whether what has a translation is translated, too.
        spans: text → the spans in it that are carried along as tags are.

    Attributes:
        texts: what to translate.
        lines: per text the line of the file where its segment begins.

    Raises:
        UserError: the file cannot be read, or is broken (names the line), or a library is missing.
    """

    def __init__(self, name: str, again: bool = False, spans: Spans = lambda _: []) -> None:
        kind = suffix(name)
        text = "".join(read_lines(name, ends=True))
        try:
            module = import_module(f"tasks.translate.documents.{FORMATS[kind]}")
        except ModuleNotFoundError as error:
            raise UserError(f"{name}: {kind} needs {error.name}: pip install 'gen-toolkit[documents]'") from error
        try:
            found = sorted(module.segments(text, again), key=lambda segment: segment.begin)
        except BadDocument as error:
            raise UserError(f"{name}: line {error.line}: {error.message}") from error
        laid_out = ((segment, lay_out(kept(segment, spans))) for segment in found)
        self._name, self._text = name, text
        self._segments = [(s, layout) for s, layout in laid_out if has_letters(layout.text)]
        self.texts, self.lines = [], []
        numbers = lines_of(text, (segment.begin for segment, _ in self._segments))
        for number, (_, layout) in zip(numbers, self._segments, strict=True):
            chunks = [chunk for chunk in layout.chunks if has_letters(chunk)]
            self.texts += chunks
            self.lines += [number] * len(chunks)
        self._warn()

    def _warn(self) -> None:
        """Says which tags are not paired."""
        tags = left_over(tag for _, layout in self._segments for tag in layout.unpaired)
        if tags:
            where = next(segment for segment, layout in self._segments if tags[0] in layout.unpaired)
            some = few(list(dict.fromkeys(tag.raw for tag in tags)))
            notify(
                f"{self._name}: line {line_of(self._text, where.begin)}: tags that are not closed, or not opened, "
                f"stay about where they are: {some}"
            )

    @property
    def numbered(self) -> list[tuple[int, str]]:
        """The texts with their lines."""
        return list(zip(self.lines, self.texts, strict=True))

    def translated(self, model: Any, found: Iterable[Translation]) -> Iterator[str]:
        """The document in pieces, with the translations of `texts` in it."""
        translations, at = iter(found), 0
        for segment, layout in self._segments:
            chunks = [
                translated(model, next(translations)) if has_letters(chunk) else Translated(chunk)
                for chunk in layout.chunks
            ]
            tried = (carry(segment, layout, chunks, apart=apart) for apart in (False, True))
            written = next(filter(segment.valid, tried), "")
            if not written:
                written, line = self._text[segment.begin : segment.end], line_of(self._text, segment.begin)
                notify(
                    f"{self._name}: line {line}: stays as it is: its markup could not be kept in the translation"
                )
            yield self._text[at : segment.begin] + written
            at = segment.end
        yield self._text[at:]
