"""Lines of text through a translation model: taken apart where they are long, put together again."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gen.ensemble import Ensemble
from gen.runtime import Runtime
from gen.search import Hypothesis

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.model import Model


class Pieces(NamedTuple):
    """A line as it is translated: its texts, none for an empty line, and whether a sentence had to be cut."""

    texts: list[str]
    cut: bool


@dataclass
class Translation:
    """What became of a line.

    Attributes:
        source: the line.
        hypotheses: best first; none for an empty line.
        alignments: a list of (source word, target word) a hypothesis, where attention was asked for.
        cut: a sentence of it had to be cut.
    """

    source: str
    hypotheses: list[Hypothesis]
    alignments: list[list[tuple[int, int]]]
    cut: bool = False


def translate_lines(
    model: Model | Ensemble | Runtime,
    lines: Iterable[str],
    *,
    batch_size: int = 64,
    attention: bool = False,
    **options: Any,
) -> Iterator[Translation]:
    """Translates any number of lines; yields in their order, as soon as it is ready.

    A line that is longer than what the encoder was usually trained on is translated in pieces; see `split_line`.
    A forced prefix is that of the line, not of its pieces.
    """
    waiting: deque[tuple[str, Pieces, int]] = deque()
    many = partial(model.generate_many, batch_size=batch_size, attention=attention)
    alone = {name: value for name, value in options.items() if name != "prefix"}

    def at_first() -> Iterator[str]:
        for line in lines:
            pieces = split_line(model.reader, line.strip())
            texts = pieces.texts[:1] if alone != options else pieces.texts
            waiting.append((line, pieces, len(texts)))
            yield from texts

    done: list[list[Hypothesis]] = []
    for hypotheses in many(at_first(), **options):
        done.append(hypotheses)
        while waiting and len(done) >= waiting[0][2]:
            line, pieces, count = waiting.popleft()
            yield _join(model, line, pieces, [*done[:count], *many(pieces.texts[count:], **alone)])
            del done[:count]
    for line, *_ in waiting:  # empty ones at the end
        yield Translation(line, [], [])


_SENTENCE_ENDS = r"(?<=[.!?…])\s+|(?<=[。！？])"
_PAUSES = r"(?<=[,;:—])\s+|(?<=[，；：、])"


def split_line(reader: Any, line: str) -> Pieces:
    """The pieces in which a line is translated.

    A network that has learned from single sentences skips some where there are several. So a line longer than
    nine in ten of the training is taken apart at its sentence ends, and neighbours are put together while they are
    no longer than that. A sentence more than twice as long as all of the training is cut: at pauses, between
    words, or anywhere.
    """
    most = 2 * reader.longest or sys.maxsize

    def split(text: str, boundary: str, limit: int) -> list[str]:
        def fits(part: str) -> bool:
            # A character is four tokens at most (bytes); only long texts have to be counted.
            return 4 * len(part) + 2 <= limit or len(reader.encode(part)) <= limit

        return [text] if fits(text) else _cut(text, boundary, fits)

    sentences = split(line, _SENTENCE_ENDS, reader.usual or most) if line else []
    texts = sentences
    for boundary in (_PAUSES, r"\s+", ""):
        texts = [part for text in texts for part in split(text, boundary, most)]
    return Pieces(texts, len(texts) > len(sentences))


def _cut(text: str, boundary: str, fits: Callable[[str], bool]) -> list[str]:
    """A text cut at boundaries, but only where the next part would no longer fit."""
    cuts = sorted({*(match.end() for match in re.finditer(boundary, text)), len(text)})
    parts, begin = [], 0
    for cut, following in pairwise([*cuts, None]):
        if following is None or not fits(text[begin:following].strip()):
            parts.append(text[begin:cut].strip())
            begin = cut
    return [part for part in parts if part]


def _join(
    model: Model | Ensemble | Runtime, line: str, pieces: Pieces, found: list[list[Hypothesis]]
) -> Translation:
    """The pieces' hypotheses as the line's: the best with the best, the second with the second."""
    hypotheses, alignments = [], []
    for several in zip(*found, strict=False):
        links: list[tuple[int, int]] = []
        source_words = target_words = 0
        for text, hypothesis in zip(pieces.texts, several, strict=True):
            if hypothesis.attention is not None:
                pairs = align_words(model, text, hypothesis)
                links += [(s + source_words, t + target_words) for s, t in pairs]
            source_words += len(text.split())
            target_words += len(hypothesis.text.split())
        joined = (
            several[0]
            if len(several) == 1
            else Hypothesis(
                [i for h in several for i in h.token_ids],
                sum(h.score for h in several),
                [p for h in several for p in h.log_probs],
                all(h.finished for h in several),
                text=" ".join(h.text for h in several),
            )
        )
        hypotheses.append(joined)
        alignments.append(links)
    return Translation(line, hypotheses, alignments, pieces.cut)


def align_words(model: Model | Ensemble | Runtime, source: str, hypothesis: Hypothesis) -> list[tuple[int, int]]:
    """For every word of a hypothesis the source word that had the most attention: (source, target), from 0."""
    if hypothesis.attention is None or not hypothesis.token_ids:
        return []
    source_ids = model.reader.encode(source)[:-1]
    rows = _words(model.tokenizer, hypothesis.token_ids)
    columns = _words(model.reader.tokenizer, source_ids)
    weights = np.zeros((max(rows) + 1, max(columns, default=0) + 1))
    np.add.at(weights, (np.array(rows)[:, None], np.array(columns)[None]), hypothesis.attention[:, : len(columns)])
    return [(int(weights[t].argmax()), t) for t in range(len(weights))]


def _words(tokenizer: Any, token_ids: list[int]) -> list[int]:
    """Which word (whitespace between them) of the decoded text each token belongs to, from 0."""
    found, text = [], ""
    for i in range(len(token_ids)):
        longer = tokenizer.decode(token_ids[: i + 1])
        new = longer[len(text) :]
        begins = bool(new.strip()) and (new[0].isspace() or not text or text[-1].isspace())
        found.append(max(len(text.split()) - (0 if begins else 1), 0))
        text = longer
    return found
