"""What `generate` does before and after the search: items and options → objects, hypotheses → text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from gen.base.errors import UserError
from gen.inputs.items import known_item, sentence_of
from gen.inputs.processors import InputProcessor, SentenceProcessor
from gen.inputs.tokenizer import Tokenizer
from gen.search.beam import Beam
from gen.search.confidence import Calibration
from gen.search.copying import Copying
from gen.search.datastore import Datastore
from gen.search.must import Goal, Must, goals_of, own_must, without_must
from gen.search.neighbours import Neighbours
from gen.search.options import SearchOptions
from gen.search.prepared import PreparedSearch, SearchInput, open_end
from gen.search.processors import NoRepeatNgram, Processor
from gen.search.strategy import Strategy


class Searches(Protocol):
    """The part of a model that `prepare` needs."""

    tokenizer: Tokenizer
    calibration: Calibration | None

    def start_search(self, items: Sequence[Any]) -> SearchInput: ...


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
    readers: Mapping[str, InputProcessor] = getattr(model, "processors", {})  # a Markov chain has none
    items = asked = [without_must(item, named=bool(readers)) for item in items]
    tokenizer, store = model.tokenizer, getattr(model, "datastore", None)
    never = (tokenizer.bos_id, tokenizer.unk_id)
    whole = _as_stored(store, items, each_must, options)
    copying = None
    if options.kinds or options.replace_unk:
        copying = _copying(items, options, given, readers, tokenizer, whole)
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
    remembered = _remembered(store, items, whole, prompts, wanted)
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
        processors=[*remembered, *([must] if must else []), *wanted, *(given.get("processors") or ())],
        limits=limits,
        never=never[:1] if options.replace_unk else never,
        mask=mask,
        stops=[tokenizer.normalize(text) for text in options.stop],
        goals=goals,
        num_distinct=num_distinct,
        mbr=bool(options.mbr) and not store,  # a memory's votes are in the beam's order, and not in any score
        keep_attention=gives_attention or copying is not None,
        items=items,
        copying=copying,
        give_attention=gives_attention,
        calibration=model.calibration,
        known={i: target for each in remembered for i, target in enumerate(each.targets) if target},
        read=[_read(readers, *both) for both in zip(asked, items, strict=True)],
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
        lexicon=given.get("lexicon") or {},
        stands=plain_beam and not options.ban,
        skips=options.unknown == "skip",
        whole=whole,
    )


def _as_stored(
    store: Datastore | None, items: Sequence[Any], each_must: Sequence[Sequence[str]], o: SearchOptions
) -> list[bool]:
    """For which items what a memory has is written as it is: no more is asked for than that no words repeat."""
    if not store or o.ban or o.prefix or o.min_new_tokens or o.stop or o.repetition_penalty != 1:
        return [False] * len(items)
    targets = map(store.target_ids, map(sentence_of, items))
    return [not must and target is not None for must, target in zip(each_must, targets, strict=True)]


def _remembered(
    store: Datastore | None,
    items: Sequence[Any],
    whole: Sequence[bool],
    prompts: Sequence[Sequence[int]],
    wanted: Sequence[Processor],
) -> list[Neighbours]:
    """The processor with which a memory votes. It precedes ``wanted``, so that nothing forbidden comes back."""
    if not store:
        return []
    # A translation that a prompt has begun is continued.
    found = store.processor(items, [stays and len(ids) == 1 for stays, ids in zip(whole, prompts, strict=True)])
    for each in wanted:
        if isinstance(each, NoRepeatNgram):
            each.exempt = [target is not None for target in found.targets]
    return [found]


def _read(readers: Mapping[str, InputProcessor], asked: Any, read: Any) -> str | None:
    """The sentence that is read instead of the one that was asked for; None where its tokens are the same."""
    asked, read, processor = sentence_of(asked), sentence_of(read), readers.get("sentence")
    if not isinstance(asked, str) or asked == read or not isinstance(processor, SentenceProcessor):
        return None
    return None if np.array_equal(processor.encode(asked), processor.encode(read)) else read


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
    if options.beam is not None and (options.num_outputs > 1 or options.mbr or must is not None):
        strategy.num_return = strategy.width  # several may have the same text
        return strategy, options.num_outputs
    return strategy, 0
