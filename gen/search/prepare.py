"""What `generate` does before and after the search: items and options → objects, hypotheses → text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from gen.base.errors import UserError
from gen.inputs.processors import InputProcessor, known_item
from gen.inputs.tokenizer import Tokenizer
from gen.search.loop import Events, Step, unroll
from gen.search.ops import Ops
from gen.search.options import SearchOptions
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


class Searches(Protocol):
    """The part of a model that `prepare` needs."""

    tokenizer: Tokenizer

    def start_search(self, items: Sequence[Any]) -> SearchInput: ...


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
        num_distinct: of hypotheses with the same text only the best is kept, and at most so many; 0: all are kept.
        keep_attention: record the weights behind each token.
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
    num_distinct: int
    keep_attention: bool

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
        for real, prompt, hypotheses in zip(self.mask, self.texts, results, strict=True):
            space = prompt[len(open_end(prompt, tokenizer)) :]
            for hypothesis in hypotheses:
                if hypothesis.attention is not None:
                    hypothesis.attention = hypothesis.attention[:, real]
                text = tokenizer.decode(hypothesis.token_ids).removeprefix(space)
                hypothesis.text = cut(text, self.stops)
                hypothesis.tokens = [spelled[i] for i in hypothesis.token_ids]
            if self.num_distinct:
                hypotheses[:] = _distinct(hypotheses, tokenizer)[: self.num_distinct]
        return results


def prepare(
    model: Searches, items: Sequence[Any], options: SearchOptions, given: Mapping[str, Any]
) -> PreparedSearch:
    """Reads and encodes items, and turns options into objects.

    Args:
        model: see `Searches`.
        items: at least one.
        options: checked.
        given: the keywords of `generate`, of which ``strategy``, ``processors`` and ``attention`` may be objects.

    Raises:
        UserError: a prompt the vocabulary cannot spell, or an item of the wrong type.
    """
    for item in items:
        if isinstance(item, list | tuple | set | Iterator):
            raise UserError(
                f"a {type(item).__name__} is no item: give one item, a list of items, or a mapping "
                "{name: item} to a model that reads several inputs"
            )
    tokenizer = model.tokenizer
    never = (tokenizer.bos_id, tokenizer.unk_id)
    # None where all that a model does is to continue prompts
    readers: Mapping[str, InputProcessor] | None = getattr(model, "processors", None)
    if options.unknown and readers:
        items = [known_item(readers, item, options.unknown) for item in items]
    start = model.start_search(items)
    mask = np.zeros((len(items), 0), bool) if start.mask is None else start.mask
    limits = options.limits(mask.sum(1).tolist())
    wanted = options.build_processors(never=never, eos_id=tokenizer.eos_id, tokenizer=tokenizer, limits=limits)
    own = given.get("strategy")
    strategy = own if isinstance(own, Strategy) else options.build_strategy()
    several = strategy is not own and options.beam is not None and options.num_outputs > 1
    if several:
        strategy.num_return = strategy.width  # several may have the same text
    spell = partial(tokenizer.encode_known, unknown=options.unknown)
    return PreparedSearch(
        tokenizer=tokenizer,
        start=start,
        texts=start.prompts,
        prompts=[[tokenizer.bos_id, *spell(open_end(prompt, tokenizer))] for prompt in start.prompts],
        strategy=strategy,
        processors=[*wanted, *given.get("processors", ())],
        limits=limits,
        never=never,
        mask=mask,
        stops=[tokenizer.normalize(text) for text in options.stop],
        num_distinct=options.num_outputs if several else 0,
        keep_attention=given.get("attention", True),
    )


def _distinct(hypotheses: list[Hypothesis], tokenizer: Tokenizer) -> list[Hypothesis]:
    """Of hypotheses with the same text, in its normal form, the first: the best."""
    best: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        best.setdefault(tokenizer.normalize(hypothesis.text).strip(), hypothesis)
    return list(best.values())


def open_end(prompt: str, tokenizer: Tokenizer) -> str:
    """A prompt without the space at its end, where the next word brings its own: where tokens are words."""
    return prompt.removesuffix(" ") if tokenizer.kind == "word" else prompt


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
