"""A search that can begin, and the text of what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from gen.inputs.tokenizer import Tokenizer
from gen.search.confidence import Calibration
from gen.search.copying import Copying
from gen.search.loop import Events, Step, unroll
from gen.search.mbr import MOST, expected_bleu
from gen.search.must import Goal
from gen.search.ops import Ops
from gen.search.output import Hypothesis
from gen.search.processors import Processor
from gen.search.strategy import Strategy


@dataclass(frozen=True)
class SearchInput:
    """What a search starts from.

    Attributes:
        step: the model; see `gen.search.loop.Step`.
        state: its first state, one row per item.
        prompts: the beginning of each output, as text.
        ops: array operations of the library that the model uses.
        mask: (B, S) bool, the real positions of each item's memory; None without a memory.
    """

    step: Step
    state: Any
    prompts: list[str]
    ops: Ops
    mask: np.ndarray | None = None


@dataclass
class PreparedSearch:
    """A search over B items that can begin.

    Attributes:
        tokenizer: of the output.
        start: what it starts from.
        texts: the prompt of each item.
        prompts: the same as token ids, BOS first.
        strategy: chooses the tokens.
        processors: applied in their order.
        limits: per item, the most tokens of an output.
        never: token ids that are never picked, in addition to PAD.
        mask: (B, S) bool, the real positions of each item's memory.
        stops: the stop strings, normalised.
        goals: per item, what its outputs must say; None where there is nothing.
        num_distinct: of hypotheses with the same text only the best is kept, and at most so many; 0: all are kept.
        mbr: order hypotheses by `expected_bleu`.
        keep_attention: record the weights behind each token.
        calibration: says how sure the model is of what it wrote; None: nobody knows.
        known: index of an item → the token ids, with EOS, that a memory has for it.
        items: what the model reads.
        copying: what comes from the items as it is, so that no text is known before its end; None where nothing
            does.
        give_attention: leave the recorded weights in hypotheses.
        read: per item, `Hypothesis.read`.
    """

    tokenizer: Tokenizer
    start: SearchInput
    texts: list[str]
    prompts: list[list[int]]
    strategy: Strategy
    processors: list[Processor]
    limits: list[int]
    never: tuple[int, ...]
    mask: np.ndarray
    stops: list[str]
    goals: list[Goal | None]
    num_distinct: int
    mbr: bool
    keep_attention: bool
    items: Sequence[Any]
    copying: Copying | None = None
    give_attention: bool = True
    calibration: Calibration | None = None
    known: Mapping[int, Sequence[int]] = field(default_factory=dict)
    read: Sequence[str | None] = ()

    def unroll(self) -> Events:
        """`gen.search.loop.unroll`, and the text of what it found."""
        results = yield from unroll(
            self.start.state,
            self.prompts,
            self.strategy,
            ops=self.start.ops,
            eos_id=self.tokenizer.eos_id,
            pad_id=self.tokenizer.pad_id,
            max_new_tokens=self.limits,
            never=self.never,
            processors=self.processors,
            keep_attention=self.keep_attention,
        )
        return self.finish(results)

    def finish(self, results: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        """Fills in the text and the tokens of every item's hypotheses, and cuts attention to its own memory."""
        tokenizer, spelled = self.tokenizer, token_texts(self.tokenizer)
        copying = self.copying
        columns = zip(self.mask, self.texts, self.goals, results, strict=True)
        for number, (real, prompt, goal, hypotheses) in enumerate(columns):
            space = end_space(prompt, tokenizer)
            for hypothesis in hypotheses:
                if hypothesis.attention is not None:
                    hypothesis.attention = hypothesis.attention[:, real]
                token_ids = hypothesis.token_ids
                hypothesis.tokens = [spelled[i] for i in token_ids]
                if copying:
                    copying.replace(number, hypothesis)
                unknown = tokenizer.unk_id in token_ids  # and replaced, or it could not be there
                text = "".join(hypothesis.tokens).removeprefix(" ") if unknown else tokenizer.decode(token_ids)
                hypothesis.text = cut(text.removeprefix(space), self.stops)
                hypothesis.read = self.read[number]
                if copying:
                    copying.finish(number, hypothesis)
                if not self.give_attention:
                    hypothesis.attention = None
                if goal:
                    missing = goal.missing(prompt + hypothesis.text, len(prompt))
                    hypothesis.missing = [m for m in missing if not copying or m not in copying.must[number]]
            hypotheses.sort(key=lambda found: len(found.missing))
            if self.num_distinct:
                several = _distinct(hypotheses, tokenizer)
                hypotheses[:] = (_agreeing(several) if self.mbr else several)[: self.num_distinct]
            if self.calibration:
                for hypothesis in hypotheses:
                    known = [*hypothesis.token_ids, tokenizer.eos_id] == self.known.get(number)
                    self.calibration.rate(hypothesis, tokenizer, known)
        return results


def _distinct(hypotheses: list[Hypothesis], tokenizer: Tokenizer) -> list[Hypothesis]:
    """Of hypotheses with the same text, in its normal form, the first: the best."""
    best: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        best.setdefault(tokenizer.normalize(hypothesis.text).strip(), hypothesis)
    return list(best.values())


def _agreeing(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    """Those that lack nothing they had to say, or else all, the one first that the others agree with most."""
    least = len(hypotheses[0].missing)
    among = [found for found in hypotheses[:MOST] if len(found.missing) == least]
    expected = expected_bleu([found.token_ids for found in among], [found.score for found in among])
    return [among[i] for i in np.argsort(-expected, kind="stable")] + hypotheses[len(among) :]


def end_space(prompt: str, tokenizer: Tokenizer) -> str:
    """The space at a prompt's end, where the next word brings its own: where tokens are words."""
    return " " if tokenizer.kind == "word" and prompt.endswith(" ") else ""


def open_end(prompt: str, tokenizer: Tokenizer) -> str:
    """A prompt without its `end_space`."""
    return prompt.removesuffix(end_space(prompt, tokenizer))


_texts: WeakKeyDictionary[Tokenizer, list[str]] = WeakKeyDictionary()


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """The text of each token id, computed once per tokenizer."""
    texts = _texts.get(tokenizer)
    if texts is None:
        texts = _texts[tokenizer] = tokenizer.tokens()
    return texts


def cut(text: str, stops: Sequence[str]) -> str:
    """``text`` up to the first of the stop strings."""
    ends = [at for s in stops if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text
