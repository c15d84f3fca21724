"""What a model looked at while it translated a text: its attention, by characters of both texts."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

from gen.inputs.sentences import continued
from gen.inputs.tokenizer import Tokenizer
from tasks.translate.documents.carry import Links, Span, Translated
from tasks.translate.lines import Translation


def translated(model: Any, found: Translation) -> Translated:
    """A translation, and what was looked at for it."""
    links: list[Links] = []
    processor, written, at = model.processors["sentence"], "", 0
    for source, hypothesis in found.pieces:
        text = " ".join(hypothesis.text.split())
        written = continued(written, text)
        at = found.source.index(source, at)
        if hypothesis.attention is not None and hypothesis.token_ids:
            ids = processor.encode(source)[:-1]
            sources = _spans(processor.tokenizer, ids, source, at)
            targets = _spans(model.tokenizer, hypothesis.token_ids, text, len(written) - len(text))
            # The columns of EOS and of further inputs come after.
            links.append(Links(sources, targets, hypothesis.attention[: len(targets), : len(ids)]))
        at += len(source)
    return Translated(written, links)


def _spans(tokenizer: Tokenizer, ids: list[int], text: str, at: int) -> list[Span]:
    """Where each token stands in a text that begins at ``at``; a tokenizer may have changed some characters."""
    decoded, ends = "", []
    for i in range(len(ids)):
        decoded = tokenizer.decode(ids[: i + 1])
        ends.append(len(decoded))
    where = list(range(len(text) + 1))
    if decoded != text:
        matcher = SequenceMatcher(None, decoded, text, autojunk=False)
        where = [0] * (len(decoded) + 1)
        for _, a, b, c, d in matcher.get_opcodes():
            where[a : b + 1] = [min(c + i, d) for i in range(b - a)] + [d]
    spans = []
    for begin, end in zip([0, *ends], ends, strict=False):
        begin, end = where[min(begin, len(where) - 1)], where[min(end, len(where) - 1)]
        begin += len(text[begin:end]) - len(text[begin:end].lstrip())  # a token may begin with a space
        spans.append((begin + at, end + at))
    return spans
