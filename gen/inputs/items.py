"""Items: what one input of a model is, by the names of its processors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from gen.base.errors import UserError
from gen.inputs.processors import InputProcessor


def prepare_items(
    processors: Mapping[str, InputProcessor], items: Sequence[Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Items → what an encoder reads, and where their outputs begin.

    Args:
        processors: one per input name.
        items: B items. An item is a mapping {name: item of that processor}, where optional ones may be missing. If
            at most one is not optional, an item may also be what that processor (or else the first) takes.

    Returns:
        One array with B rows per name, and B prompts.

    Raises:
        UserError: an item lacks a name, or has one that no processor has.

    Example:
        >>> from gen.inputs.processors import PromptProcessor
        >>> source, prompts = prepare_items({"prompt": PromptProcessor()}, ["The ", {"prompt": "A "}])
        >>> source["prompt"].shape, prompts
        ((2,), ['The ', 'A '])
    """
    named = [named_item(processors, item) for item in items]
    source, begins = {}, [""] * len(named)
    for name, processor in processors.items():
        column = [item[name] for item in named]
        source[name] = processor.read(column)
        begins = [a + b for a, b in zip(begins, processor.prompts(column), strict=True)]
    return source, begins


def known_item(processors: Mapping[str, InputProcessor], item: Any, unknown: str) -> Mapping[str, Any]:
    """An item without what the vocabularies lack; see `InputProcessor.known`."""
    named = named_item(processors, item)
    return {n: part if part is None else processors[n].known(part, unknown) for n, part in named.items()}


def sentence_of(item: Any) -> Any:
    """The sentence of an item of a translation model; None without one."""
    return item.get("sentence") if isinstance(item, Mapping) else item


def named_item(processors: Mapping[str, InputProcessor], item: Any) -> Mapping[str, Any]:
    """An item as a mapping with exactly the names of the processors; see `prepare_items`."""
    wanted = " and ".join(map(repr, processors))
    needed = [name for name, processor in processors.items() if not processor.optional]
    if not isinstance(item, Mapping):
        if len(needed) <= 1:
            return {**dict.fromkeys(processors), (needed or list(processors))[0]: item}
        raise UserError(f"an input must be a mapping with {wanted}, not {type(item).__name__}")
    for name in item:
        if name not in processors:
            near = get_close_matches(str(name)[:200], processors, 1, 0.5)
            hint = f": did you mean {near[0]!r}?" if near else f": this model takes {wanted}"
            raise UserError(f"unknown input {name!r:.200}{hint}")
    for name in needed:
        if name not in item:
            raise UserError(f"the input {name!r} is missing: this model takes {wanted}")
    return {name: item.get(name) for name in processors}


def memory_inputs(processors: Mapping[str, InputProcessor]) -> list[str]:
    """The names of the inputs that have positions in the memory. Labels have none if there are other inputs: the
    encoder adds their vectors to those of the others."""
    others = [name for name, processor in processors.items() if processor.kind not in ("labels", "prompts")]
    return others or list(processors)


def item_labels(processors: Mapping[str, InputProcessor], item: Any) -> list[str]:
    """A label for each of the S memory positions of an item: those of the first name, then those of the next."""
    named = named_item(processors, item) if processors else {}
    return [label for name in memory_inputs(processors) for label in processors[name].labels(named[name])]


def memory_slices(processors: Mapping[str, InputProcessor], item: Any) -> dict[str, slice]:
    """Input name → which of the S memory positions of an item belong to it; without inputs that have none."""
    found, begin, named = {}, 0, named_item(processors, item)
    for name in memory_inputs(processors):
        end = begin + len(processors[name].labels(named[name]))
        found[name], begin = slice(begin, end), end
    return {name: each for name, each in found.items() if each.start < each.stop}
