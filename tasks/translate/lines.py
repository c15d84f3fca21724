"""Translating lines of text: splitting long lines, translating the pieces, joining the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gen.inputs.protected import split_protected
from gen.inputs.sentences import Pieces, continued
from gen.inputs.tokenizer import Tokenizer
from gen.runtime import Runtime
from gen.search import Hypothesis
from gen.search.confidence import mean_confidence
from gen.search.ensemble import Ensemble
from gen.search.must import MUST
from tasks.translate.terms import Terms

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model


@dataclass
class Translation:
    """The translation of a line.

    Attributes:
        source: the line.
        hypotheses: best first; none for an empty line.
        alignments: per hypothesis a list of (source word, target word) from 0; empty lists without attention.
        cut: whether a sentence was cut into pieces.
        pieces: the pieces of the line, and the best hypothesis of each.
    """

    source: str
    hypotheses: list[Hypothesis]
    alignments: list[list[tuple[int, int]]]
    cut: bool = False
    pieces: list[tuple[str, Hypothesis]] = field(default_factory=list)


def translate_lines(
    model: Model | Ensemble | Runtime,
    lines: Iterable[Any],
    *,
    batch_size: int = 64,
    attention: bool = False,
    terms: Terms | None = None,
    **options: Any,
) -> Iterator[Translation]:
    """Translates any number of lines; yields the translations in order, each as soon as it is ready.

    A line of several sentences is translated in pieces, unless training had many such lines; see `split_line`. A
    forced prefix applies to the first piece only. A line that must say something is not split, since nobody knows
    in which of its sentences, and neither is one that the model's memory has.

    Args:
        model: of translation: torch, exported, or an ensemble.
        lines: lines; for a model of several inputs, mappings with a line under "sentence", and each piece gets
            what else they hold.
        batch_size: pieces at once.
        attention: whether alignments are wanted.
        terms: how terms of the source are to be translated.
        options: as for `generate`.
    """
    waiting: deque[tuple[Any, Pieces, int]] = deque()
    many = partial(model.generate_many, batch_size=batch_size, attention=attention)
    alone = {name: value for name, value in options.items() if name != "prefix"}
    kinds = model.search_options(options).kinds  # type: ignore[arg-type]

    def at_first() -> Iterator[str]:
        for item in lines:
            line, must = _line(item).strip(), options.get("must") or (isinstance(item, Mapping) and item.get(MUST))
            whole = must or (model.datastore and model.datastore.target_ids(line) is not None)
            split = partial(split_protected, model.processors["sentence"], kinds=kinds)
            pieces = Pieces([line], False) if line and whole else split(line)
            texts = pieces.texts[:1] if alone != options else pieces.texts
            waiting.append((item, pieces, len(texts)))
            yield from _items(item, texts, terms)

    done: list[Sequence[Hypothesis]] = []
    for hypotheses in many(at_first(), **options):
        done.append(hypotheses)
        while waiting and len(done) >= waiting[0][2]:
            item, pieces, count = waiting.popleft()
            rest = many(_items(item, pieces.texts[count:], terms), **alone)
            yield _join(model, _line(item), pieces, [*done[:count], *rest])
            del done[:count]
    for item, *_ in waiting:  # empty ones at the end
        yield Translation(_line(item), [], [])


def _line(item: Any) -> str:
    return str(item["sentence"] if isinstance(item, Mapping) else item)


def _items(item: Any, texts: Sequence[str], terms: Terms | None) -> list[Any]:
    """Each piece of a line as the model takes it."""
    found: list[Any] = []
    for text in texts:
        named = {**item, "sentence": text} if isinstance(item, Mapping) else {"sentence": text}
        if terms and (wanted := terms.constraints(text)):
            named[MUST] = [*named.get(MUST, ()), *wanted]
        found.append(named if len(named) > 1 else text)
    return found


def _join(
    model: Model | Ensemble | Runtime, line: str, pieces: Pieces, found: Sequence[Sequence[Hypothesis]]
) -> Translation:
    """Joins the n-th best hypotheses of the pieces to the n-th best of the line, for each n."""
    begins, at = [], 0
    for text in pieces.texts:
        at = line.index(text, at)
        begins.append(_words_before(line, at))
        at += len(text)
    hypotheses, alignments = [], []
    for several in zip(*found, strict=False):
        links: list[tuple[int, int]] = []
        written = ""
        for text, source_words, hypothesis in zip(pieces.texts, begins, several, strict=True):
            written = continued(written, hypothesis.text)
            if hypothesis.attention is not None:
                target_words = _words_before(written, len(written) - len(hypothesis.text))
                pairs = align_words(model, text, hypothesis)
                links += [(s + source_words, t + target_words) for s, t in pairs]
        joined = (
            several[0]
            if len(several) == 1
            else Hypothesis(
                [i for h in several for i in h.token_ids],
                sum(h.score for h in several),
                [p for h in several for p in h.log_probs],
                all(h.finished for h in several),
                text=written,
                tokens=[token for h in several for token in h.tokens],
                missing=[text for h in several for text in h.missing],
                seed=several[0].seed,
                temperature=several[0].temperature,
                confidence=mean_confidence(several),
                words=[word for h in several for word in h.words],
            )
        )
        hypotheses.append(joined)
        alignments.append(links)
    best = [(text, several[0]) for text, several in zip(pieces.texts, found, strict=True)]
    return Translation(line, hypotheses, alignments, pieces.cut, best)


def _words_before(text: str, at: int) -> int:
    """The index of the word at position ``at`` of a text."""
    inside = at > 0 and not text[at - 1].isspace()
    return len(text[:at].split()) - inside


def align_words(model: Model | Ensemble | Runtime, source: str, hypothesis: Hypothesis) -> list[tuple[int, int]]:
    """Links each word of a hypothesis to the source word with the most attention: (source, target) from 0. A word
    whose attention is mostly on EOS has no link."""
    if hypothesis.attention is None or not hypothesis.token_ids:
        return []
    processor: Any = model.processors["sentence"]
    source_ids = processor.encode(source if hypothesis.read is None else hypothesis.read)[:-1]
    rows = _words(model.tokenizer, hypothesis.token_ids)
    columns = _words(processor.tokenizer, source_ids)
    end = max(columns, default=-1) + 1
    weights = np.zeros((max(rows) + 1, end + 1))
    seen = hypothesis.attention[:, : len(columns) + 1]  # those of further inputs come after
    np.add.at(weights, (np.array(rows)[:, None], np.array([*columns, end])[None]), seen)
    links = [(s, t) for t, s in enumerate(weights.argmax(1).tolist()) if s != end]
    if hypothesis.read is None:
        return links
    sources = _same_words(hypothesis.read, source)
    targets = _same_words(model.tokenizer.decode(hypothesis.token_ids), hypothesis.text)
    links = [(sources[s], targets[t]) for s, t in links if s in sources and t in targets]
    for kept in hypothesis.kept:
        first = _words_before(source, kept.source), _words_before(hypothesis.text, kept.target)
        links += [(first[0] + n, first[1] + n) for n in range(len(kept.text.split()))]
    return sorted(set(links), key=lambda link: link[::-1])


def _same_words(text: str, longer: str) -> dict[int, int]:
    """Which words of a text are which of one that holds more, whatever their case."""
    words, others = text.casefold().split(), longer.casefold().split()
    blocks = SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks()
    return {block.a + n: block.b + n for block in blocks for n in range(block.size)}


def _words(tokenizer: Tokenizer, token_ids: list[int]) -> list[int]:
    """The index of the whitespace-separated word of the decoded text that each token belongs to."""
    found, text, word = [], "", -1
    for i, token_id in enumerate(token_ids):
        longer = tokenizer.decode(token_ids[: i + 1])
        new = longer[len(text) :]
        # <unk> of a word vocabulary decodes without its space.
        lost = tokenizer.kind == "word" and token_id == tokenizer.unk_id
        word += bool(new.strip()) and (lost or new[0].isspace() or not text or text[-1].isspace())
        found.append(max(word, 0))
        text = longer
    return found
