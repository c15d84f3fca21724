"""What outputs must say, from a file in step with the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gen.base.errors import UserError
from gen.base.lines import read_lines
from gen.inputs.tokenizer import Tokenizer
from gen.search.must import MUST, Goal
from gen.search.option_checks import empty_in


def with_must(items: Iterable[Any], name: str, named: str, tokenizer: Tokenizer) -> Iterator[Any]:
    """Items, each with what its output must say.

    Args:
        items: of a model.
        name: a file with a line per item: texts divided by tabs, or nothing.
        named: what the model calls an item that is no mapping.
        tokenizer: of the outputs.

    Raises:
        UserError: there are more or fewer lines than items, or a text is empty or cannot be written.
    """
    lines, number = read_lines(name), 0
    for number, item in enumerate(items, 1):
        line = next(lines, None)
        if line is None:
            raise UserError(f"--must-each {name}: has {number - 1:,} lines, and there are more inputs")
        wanted = line.split("\t") if line.strip() else []
        if empty_in(wanted):
            raise UserError(f"{name}: line {number}: a text, or an alternative of one, is empty")
        try:
            Goal(wanted, tokenizer)
        except UserError as error:
            raise UserError(f"{name}: line {number}: {error}") from error
        yield {**(item if isinstance(item, Mapping) else {named: item}), MUST: wanted} if wanted else item
    if any(map(str.strip, lines)):
        raise UserError(f"--must-each {name}: has more lines than the {number:,} inputs")


def unsaid(where: str, text: str) -> UserError:
    """The error of an output that does not say what it must."""
    return UserError(
        f"{where}: {text!r} must come, and has no room within --max-new-tokens or --max-ratio, or goes against "
        "other options"
    )
