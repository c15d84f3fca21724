"""Sequence-level distillation (Kim and Rush, 2016): pairs of which other models wrote one side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.base.lines import read_lines
from gen.datasets.splits import text_key
from gen.training.distill import DistillOptions, Written, check_files, together
from tasks.translate.data import TranslateSplit, pair_files
from tasks.translate.lines import translate_lines
from tasks.translate.options import TranslateData

if TYPE_CHECKING:
    from tasks.translate.task import Translate


def taught_pairs(task: Translate, options: DistillOptions, written: Written | None) -> TranslateSplit:
    """The pairs of the task's data with the teachers' translations; see `Task.taught`.

    Raises:
        UserError: the data is streamed, or a file of --sources cannot be read.
    """
    data: TranslateData = task.config.data
    check_files(data)
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
            yield each.hypotheses[0].text if each.hypotheses else ""

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
