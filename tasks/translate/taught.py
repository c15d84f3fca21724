"""Sequence-level distillation (Kim and Rush, 2016): pairs of which other models wrote one side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.base.errors import UserError
from gen.base.lines import expand_braces, read_lines, suffix
from gen.base.tables import TABLES
from gen.datasets.pair_files import PAIR_NAMES
from gen.datasets.splits import text_key
from gen.training.config import recorded
from gen.training.distill import DistillOptions, Written, check_files
from gen.training.teaching import together
from tasks.translate.data import TranslateSplit, pair_files
from tasks.translate.lines import translate_lines
from tasks.translate.options import TranslateData

if TYPE_CHECKING:
    from tasks.translate.task import Translate


def taught_pairs(task: Translate, options: DistillOptions, written: Written | None) -> TranslateSplit:
    """The pairs of the task's data with the teachers' translations; see `Task.taught`.

    Raises:
        UserError: the data is streamed, a file of --sources cannot be read, or --backward is of the teachers' own
            direction.
    """
    data: TranslateData = task.config.data
    check_files(data)
    if task.backward is not None:
        _check_direction(task, options)
    if written is None:
        return task.read(data)
    file = written(_rows(task, options))
    kinds = data.further.kinds.items()
    columns: dict[str, Any] = {
        option: tuple(name for name, kind in kinds if kind == option) for option in ("image", "context", "given")
    }
    further = replace(data.further, **columns, images="")
    table = replace(data, train=(), data=(str(file),), src="source", tgt="target", valid=(), further=further)
    return task.read(table)


def _check_direction(task: Translate, options: DistillOptions) -> None:
    """Raises `UserError` if --backward learned a teacher's own direction, by the names in both records. Records
    that name nothing in common, or both directions, say nothing."""
    sources, targets = _sides(task, task.backward)
    for name, teacher in zip(options.teachers, task.teachers, strict=True):
        taught_from, taught_to = _sides(task, teacher)
        same_source, same_target = sources & taught_from, targets & taught_to
        if same_source and same_target and not (sources & taught_to or targets & taught_from):
            raise UserError(
                f"--backward {options.backward}: was trained from {min(same_source)} to {min(same_target)}, as "
                f"the teacher {name}; name a model of the other direction"
            )


def _sides(task: Translate, model: Any) -> tuple[set[str], set[str]]:
    """What a model's record names as its sources, and as its targets: text files, columns of tables; and columns
    alone, unless they have numbers or are called source and target, which may mean other languages elsewhere."""
    try:
        data: TranslateData = recorded(type(task), model).data
    except UserError:
        return set(), set()
    files = [each for name in data.train or data.data for each in expand_braces(name)]
    if not data.data and len(files) > 1 and suffix(files[0]) not in TABLES:
        return set(files[::2]), set(files[1::2])
    roles = {role for names in PAIR_NAMES for role in names}

    def named(column: str) -> set[str]:
        alone = set() if column.isdecimal() or column in roles else {column}
        return {*(f"{column} of {file}" for file in files), *alone}

    return named(data.src or "source"), named(data.tgt or "target")


def _rows(task: Translate, options: DistillOptions) -> Iterator[dict[str, Any]]:
    """The rows of a table of pairs for training and validation."""
    split = task.read(task.config.data)
    further, teacher = split.further, together(task.teachers, options.teachers)
    used = set(split.pairs.rows.tolist())
    pairs = [pair for row, pair in enumerate(pair_files(task.config.data)[0]) if row in used]
    sources, targets = map(list, zip(*pairs, strict=True))
    items = further.items(sources, further.train)
    known = set(map(text_key, [*sources, *(source for source, _ in split.pairs.valid)]))
    lines = (line.strip() for name in options.sources for line in read_lines(name))
    more = [line for line in lines if line and text_key(line) not in known]

    def translated(model: Any, asked: list[Any], what: str) -> Iterator[str]:
        for done, each in enumerate(translate_lines(model, asked, beam=options.teacher_beam)):
            task.progress(what, done, len(asked))
            # What has no end goes round in circles: a model that learns from it does so more often.
            yield each.hypotheses[0].text if each.hypotheses and each.hypotheses[0].finished else ""

    for example in split.valid:
        yield {**_named(example.item), "target": example.target, "split": "valid"}
    if options.originals:
        for item, target in zip(items, targets, strict=True):
            yield {**_named(item), "target": target, "split": "train"}
    found = translated(teacher, [*items, *more], "sources are translated by the teachers")
    for item, text in zip([*items, *more], found, strict=True):
        yield {**_named(item), "target": text, "split": "train"}  # a pair with an empty side is left out
    if task.backward is not None:
        found = translated(task.backward, targets, "targets are translated by --backward")
        for item, target, text in zip(items, targets, found, strict=True):
            yield {**_named(item), "source": text, "target": target, "split": "train"}


def _named(item: Any) -> dict[str, Any]:
    """An item as cells of a row: the sentence is the source, and a picture is found from anywhere."""
    parts = item if isinstance(item, Mapping) else {"sentence": item}
    cells = {name: str(part.absolute()) if isinstance(part, Path) else part for name, part in parts.items()}
    return {"source": cells.pop("sentence"), **cells}
