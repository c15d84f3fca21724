"""What comes from the input as it is: protected spans, and the words behind `<unk>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any
from unicodedata import normalize

import numpy as np
import regex

from gen.base.errors import ConfigError, UserError
from gen.inputs.processors import InputProcessor, SentenceProcessor
from gen.inputs.protected import Gap, find_protected, put_back, take_out
from gen.inputs.tokenizer import Tokenizer, WordTokenizer
from gen.search.output import Hypothesis, Kept
from gen.search.phrases import is_letter, whole_words

_SAID = regex.compile(r"[\p{L}\p{N}]")
_STAND_INS = ("John", "2")
"""In the place of a name or a number that a sentence begins with and needs: small letters follow."""
_WORD = regex.compile(r"[\p{L}\p{M}]+")
_MARK = regex.compile(r"[.,:\p{Pd}]$")
_BEGIN, _END = regex.compile(r"[\p{P}\s]*+"), regex.compile(r"(?r)[\p{P}\s]*+")


class Copying:
    """Takes protected spans out of sentences, and puts them into translations of the rest, where attention says.

    The model reads and writes the rest as if nothing else were there. So spans come through whatever they are,
    once each, and the rest is translated as well as without them.

    Args:
        processors: of the model, which reads a sentence.
        items: as the model takes them.
        kinds: what is protected; see `gen.inputs.protected.KINDS`.
        tokenizer: of the output.
        replaces: whether source words stand for `<unk>`.
        lexicon: source word → what stands for it instead.
        stands: whether something may stand in for a span, which then must be written.
        skips: whether the model reads nothing in the place of what its vocabulary lacks.
        whole: for each item, whether it stays as it is; empty: none does.

    Attributes:
        items: without protected spans, and with ``skips`` without what the vocabulary lacks.
        must: per item, what stands in for a span and has to be written.

    Raises:
        UserError: the model reads no sentence, or writes no words.
    """

    def __init__(
        self,
        processors: Mapping[str, InputProcessor],
        items: Sequence[Any],
        kinds: Sequence[str],
        tokenizer: Tokenizer,
        replaces: bool,
        lexicon: Mapping[str, str],
        stands: bool,
        skips: bool = False,
        whole: Sequence[bool] = (),
    ) -> None:
        named = ((name, p) for name, p in processors.items() if isinstance(p, SentenceProcessor))
        name, processor = next(named, ("", None))
        if processor is None:
            raise UserError(f"--{'protect' if kinds else 'replace-unk'} is for models that read a sentence")
        if replaces and not (
            isinstance(tokenizer, WordTokenizer) and isinstance(processor.tokenizer, WordTokenizer)
        ):
            raise UserError(f"--replace-unk is for models of words, and this is one of {tokenizer.kind}s")
        self._processor, self._tokenizer, self._lexicon = processor, tokenizer, lexicon
        self._sees = name == next(iter(processors))  # its positions are the first of the memory
        self.items: list[Any] = []
        self._sentences: list[str] = []
        self._gaps: list[list[Gap]] = []
        self.must: list[list[str]] = []
        for item, stays in zip_longest(items, whole, fillvalue=False):
            given = item.get(name) if isinstance(item, Mapping) else item
            text, must = given if isinstance(given, str) else "", []
            gaps: list[Gap] = []
            if not stays and (spans := find_protected(text, kinds, processor.tokenizer)):
                text, gaps = take_out(text, spans)
                stand_in = _STAND_INS[any(map(str.isdigit, gaps[0].text))]
                known = all(t.unk_id not in t.encode(stand_in) for t in (processor.tokenizer, tokenizer))
                goes_on = gaps[0].at == 0 and not _MARK.search(gaps[0].text)
                if stands and known and goes_on and _is_mid_sentence(text, processor, stand_in.isdigit()):
                    must = [stand_in]
                    text = f"{must[0]} {text}"
                    gaps = [gaps[0], *(gap._replace(at=gap.at + len(must[0]) + 1) for gap in gaps[1:])]
            if skips and not stays:
                gaps = [gap._replace(at=len(processor.known(text[: gap.at], "skip"))) for gap in gaps]
                text = processor.known(text, "skip")
            if text != given and isinstance(given, str):
                item = {**item, name: text} if isinstance(item, Mapping) else text
            self.items.append(item)
            self.must.append(must)
            self._sentences.append(text)
            self._gaps.append(gaps)

    def finish(self, number: int, hypothesis: Hypothesis) -> None:
        """Fills the gaps in the text of a hypothesis of item ``number``."""
        gaps, text, must = self._gaps[number], hypothesis.text, self.must[number]
        if len(gaps) == 1 and not self._sentences[number]:  # there was nothing to translate
            hypothesis.text, hypothesis.kept, hypothesis.finished = gaps[0].text, [Kept(gaps[0].text, 0, 0)], True
            hypothesis.token_ids, hypothesis.tokens = [], []
        elif gaps:
            places = self._places(number, text, hypothesis)
            if must and (stand_in := whole_words(must[0]).search(text)):
                begin, end = stand_in.span()
                text = text[:begin] + text[end:]
                places = [begin, *(place - (end - begin) * (place >= end) for place in places[1:])]
            hypothesis.text, begins = put_back(text, gaps, places)
            pairs = zip(gaps, begins, strict=True)
            hypothesis.kept = [Kept(gap.text, gap.source, begin) for gap, begin in pairs]

    def replace(self, number: int, hypothesis: Hypothesis) -> None:
        """Writes for `<unk>` among the tokens of a hypothesis of item ``number`` the source word with the most
        attention, or what the lexicon has for it."""
        unk_id, source = self._tokenizer.unk_id, self._processor.tokenizer
        if unk_id not in hypothesis.token_ids:
            return
        if hypothesis.attention is None or not self._sees:
            raise ConfigError(["--replace-unk: this model has no attention"])
        assert isinstance(source, WordTokenizer)
        words = source.words(self._sentences[number])
        for i, token_id in enumerate(hypothesis.token_ids):
            if token_id == unk_id and words:
                word = words[int(hypothesis.attention[i, : len(words)].argmax())]
                bare = word.strip()
                key = normalize("NFC", bare)
                known = self._lexicon.get(key) or self._lexicon.get(key.lower()) or bare
                hypothesis.tokens[i] = word.replace(bare, known)

    def _places(self, number: int, text: str, hypothesis: Hypothesis) -> list[int]:
        """Where in a text the gaps of item ``number`` are."""
        rest = self._sentences[number]
        begin, end = _BEGIN.match(text), _END.match(text)
        first, last = begin.end() if begin else 0, end.start() if end else len(text)
        found = []
        boundaries: list[tuple[int, int]] = []
        for gap in self._gaps[number]:
            before, after = rest[: gap.at], rest[gap.at :]
            if not _SAID.search(before):
                found.append(first if before else 0)
            elif not _SAID.search(after):
                found.append(last if after.strip() or _SAID.match(rest[-1]) else len(text))
            else:
                boundaries = boundaries or self._boundaries(text, hypothesis)
                found.append(self._aligned(rest, gap.at, boundaries, hypothesis))
        return found

    def _boundaries(self, text: str, hypothesis: Hypothesis) -> list[tuple[int, int]]:
        """(number of tokens, position) of every place in a text that is between words."""
        token_ids, tokens = hypothesis.token_ids, hypothesis.tokens
        if self._tokenizer.unk_id in token_ids:  # another word stands there
            parts = ("".join(tokens[:n]).removeprefix(" ") for n in range(len(tokens) + 1))
        else:
            parts = (self._tokenizer.decode(token_ids[:n]) for n in range(len(token_ids) + 1))
        ends = list(enumerate(map(len, parts)))
        return [(n, end) for n, end in ends if end <= len(text) and _between_words(text, end)]

    def _aligned(self, rest: str, at: int, boundaries: list[tuple[int, int]], hypothesis: Hypothesis) -> int:
        """The place that divides a text most as position ``at`` divides its source: what is before it looked at
        what is before that, and the nearest words count most."""
        encode, seen = self._processor.encode, hypothesis.attention
        if seen is None or not self._sees:
            share = at / len(rest) * boundaries[-1][1]
            return min((abs(share - end), end) for _, end in boundaries)[1]
        before, size = len(encode(rest[:at])) - 1, len(encode(rest)) - 1
        far = np.arange(size) - before
        weights = np.where(far < 0, np.exp(far + 1.0), -np.exp(-far.astype(float)))
        sums = np.concatenate([[0.0], np.cumsum(seen[:, :size] @ weights)])
        return max(boundaries, key=lambda each: sums[min(each[0], len(sums) - 1)])[1]


def _is_mid_sentence(text: str, processor: SentenceProcessor, noun: bool) -> bool:
    """Whether the first word of a text is written as in the middle of a sentence: in lower case or, with ``noun``,
    as a German noun: a word that the vocabulary has only, or in fewer tokens, with its capital."""
    word = _WORD.match(text)
    if text[:1].islower() or not word or not noun or processor.lowercase or processor.tokenizer.kind == "char":
        return text[:1].islower()
    tokenizer = processor.tokenizer
    small, large = (tokenizer.encode(each) for each in (word[0].lower(), word[0]))
    return tokenizer.unk_id not in large and (tokenizer.unk_id in small or len(small) > len(large))


def _between_words(text: str, at: int) -> bool:
    """Whether a position of a text is beside a space, before the marks at the end of a word, or between words of a
    script without spaces."""
    left, right = text[:at][-1:], text[at : at + 1]
    if not left.strip() or not right.strip():
        return True
    if is_letter(left):
        return not is_letter(right) and not text[at + 1 : at + 2].strip()
    return not is_letter(right) and bool(_SAID.match(left) or _SAID.match(right))
