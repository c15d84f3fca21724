"""What `generate` does before and after the search: items and options → objects, hypotheses → text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from gen.base.errors import UserError
from gen.inputs.processors import InputProcessor, SentenceProcessor, known_item, sentence_of
from gen.inputs.tokenizer import Tokenizer
from gen.search.beam import Beam
from gen.search.confidence import Calibration
from gen.search.copying import Copying
from gen.search.loop import Events, Step, unroll
from gen.search.must import Goal, Must, goals_of, own_must, without_must
from gen.search.neighbours import Neighbours
from gen.search.ops import Ops
from gen.search.options import SearchOptions
from gen.search.output import Hypothesis
from gen.search.processors import NoRepeatNgram, Processor
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
    calibration: Calibration | None

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
        goals: per item, what its outputs must say; None where there is nothing.
        num_distinct: of hypotheses with the same text only the best is kept, and at most so many; 0: all are kept.
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
    keep_attention: bool
    items: Sequence[Any]
    copying: Copying | None = None
    give_attention: bool = True
    calibration: Calibration | None = None
    known: Mapping[int, Sequence[int]] = field(default_factory=dict)
    read: Sequence[str] = ()

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
                hypotheses[:] = _distinct(hypotheses, tokenizer)[: self.num_distinct]
            if self.calibration:
                for hypothesis in hypotheses:
                    known = [*hypothesis.token_ids, tokenizer.eos_id] == self.known.get(number)
                    self.calibration.rate(hypothesis, tokenizer, known)
        return results


def prepare(
    model: Searches, items: Sequence[Any], options: SearchOptions, given: Mapping[str, Any]
) -> PreparedSearch:
    """Reads and encodes items, and turns options into objects.

    Args:
        model: see `Searches`.
        items: at least one.
        options: checked.
        given: the keywords of `generate`, of which ``strategy``, ``processors`` and ``lexicon`` may be objects.

    Raises:
        UserError: a prompt the vocabulary cannot spell, or an item of the wrong type.
    """
    _refuse_containers(items)
    each_must = [(*options.must, *own_must(item)) for item in items]
    items = asked = [without_must(item) for item in items]
    tokenizer = model.tokenizer
    never = (tokenizer.bos_id, tokenizer.unk_id)
    # None where all that a model does is to continue prompts
    readers: Mapping[str, InputProcessor] | None = getattr(model, "processors", None)
    copying, store = None, getattr(model, "datastore", None)
    whole = [False] * len(items)
    if store and _as_stored(options):  # what it has is right as it is
        targets = map(store.target_ids, map(sentence_of, items))
        whole = [not must and target is not None for must, target in zip(each_must, targets, strict=True)]
    if options.kinds or options.replace_unk:
        copying = _copying(items, options, given, readers or {}, tokenizer, whole)
        items = copying.items
        each_must = [(*must, *own) for must, own in zip(each_must, copying.must, strict=True)]
    if options.unknown and readers:
        items = [
            item if stays else known_item(readers, item, options.unknown)
            for item, stays in zip(items, whole, strict=True)
        ]
    start = model.start_search(items)
    mask = np.zeros((len(items), 0), bool) if start.mask is None else start.mask
    limits = options.limits(mask.sum(1).tolist())
    spell = partial(tokenizer.encode_known, unknown=options.unknown)
    prompts = [[tokenizer.bos_id, *spell(open_end(prompt, tokenizer))] for prompt in start.prompts]
    goals = goals_of(each_must, tokenizer, options.ban)
    must = _must(goals, limits, prompts, options, tokenizer) if any(goals) else None
    wanted = options.build_processors(never=never, eos_id=tokenizer.eos_id, tokenizer=tokenizer, limits=limits)
    remembered: list[Neighbours] = []
    if store:  # first, so that nothing forbidden comes back
        whole = [stays and len(ids) == 1 for stays, ids in zip(whole, prompts, strict=True)]
        remembered = [store.processor(items, whole)]  # a translation that a prompt has begun is continued
        for each in wanted:
            if isinstance(each, NoRepeatNgram):
                each.exempt = [target is not None for target in remembered[0].targets]
    strategy, num_distinct = _strategy(given.get("strategy"), options, must)
    if isinstance(strategy, Beam):
        strategy.mask = mask
    gives_attention = given.get("attention", True)
    return PreparedSearch(
        tokenizer=tokenizer,
        start=start,
        texts=start.prompts,
        prompts=prompts,
        strategy=strategy,
        processors=[*remembered, *([must] if must else []), *wanted, *given.get("processors", ())],
        limits=limits,
        never=never[:1] if options.replace_unk else never,
        mask=mask,
        stops=[tokenizer.normalize(text) for text in options.stop],
        goals=goals,
        num_distinct=num_distinct,
        keep_attention=gives_attention or copying is not None,
        items=items,
        copying=copying,
        give_attention=gives_attention,
        calibration=model.calibration,
        known={i: target for each in remembered for i, target in enumerate(each.targets) if target},
        read=[_read(readers or {}, *both) for both in zip(asked, items, strict=True)],
    )


def _refuse_containers(items: Sequence[Any]) -> None:
    for item in items:
        if isinstance(item, list | tuple | set | Iterator):
            raise UserError(
                f"a {type(item).__name__} is no item: give one item, a list of items, or a mapping "
                "{name: item} to a model that reads several inputs"
            )


def _copying(
    items: Sequence[Any],
    options: SearchOptions,
    given: Mapping[str, Any],
    readers: Mapping[str, InputProcessor],
    tokenizer: Tokenizer,
    whole: Sequence[bool],
) -> Copying:
    """What copies parts of the items, as the options ask for it."""
    plain_beam = options.beam is not None and options.beam_groups is None and "strategy" not in given
    return Copying(
        readers,
        items,
        options.kinds,
        tokenizer,
        replaces=options.replace_unk,
        lexicon=given.get("lexicon", {}),
        stands=plain_beam and not options.ban,
        skips=options.unknown == "skip",
        whole=whole,
    )


def _as_stored(o: SearchOptions) -> bool:
    """Whether what a memory has may be written as it is: nothing is asked for but that no words are repeated."""
    return not (o.ban or o.prefix or o.min_new_tokens or o.stop or o.repetition_penalty != 1)


def _read(readers: Mapping[str, InputProcessor], asked: Any, read: Any) -> str:
    """The sentence that is read instead of the one that was asked for; "" where its tokens are the same."""
    asked, read, processor = sentence_of(asked), sentence_of(read), readers.get("sentence")
    if not isinstance(asked, str) or asked == read or not isinstance(processor, SentenceProcessor):
        return ""
    return "" if np.array_equal(processor.encode(asked), processor.encode(read)) else read


def _must(
    goals: Sequence[Goal | None],
    limits: Sequence[int],
    prompts: Sequence[Sequence[int]],
    options: SearchOptions,
    tokenizer: Tokenizer,
) -> Must:
    """The processor of what has to come, within what the prefix leaves of each limit."""
    first = len(tokenizer.encode(options.prefix)) if options.prefix else 0
    fitting = [goal and goal.within(n - first, ids) for goal, n, ids in zip(goals, limits, prompts, strict=True)]
    return Must(fitting, limits, tokenizer.eos_id)


def _strategy(own: Any, options: SearchOptions, must: Must | None) -> tuple[Strategy, int]:
    """The strategy: ``own`` if it is an object, or else as the options ask for it; and `PreparedSearch`'s
    ``num_distinct``."""
    if must and own is None and (options.beam is None or options.beam_groups is not None):
        advice = "add --beam 5" if options.beam is None else "leave out --beam-groups"
        raise UserError(f"what an output must say is searched by a beam: {advice}")
    if isinstance(own, Strategy):
        return own, 0
    strategy = options.build_strategy(must)
    if options.beam is not None and (options.num_outputs > 1 or must is not None):
        strategy.num_return = strategy.width  # several may have the same text
        return strategy, options.num_outputs
    return strategy, 0


def _distinct(hypotheses: list[Hypothesis], tokenizer: Tokenizer) -> list[Hypothesis]:
    """Of hypotheses with the same text, in its normal form, the first: the best."""
    best: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        best.setdefault(tokenizer.normalize(hypothesis.text).strip(), hypothesis)
    return list(best.values())


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
