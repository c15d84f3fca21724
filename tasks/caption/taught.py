"""Sequence-level distillation (Kim and Rush, 2016) for captions: pictures that other models described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gen.base.lines import read_lines
from gen.datasets.captions import Captioned
from gen.training.distill import DistillOptions, Written, together
from tasks.caption.data import Split
from tasks.caption.pictures import caption_pictures, expand, item_of

if TYPE_CHECKING:
    from tasks.caption.task import Caption


def taught_captions(task: Caption, options: DistillOptions, written: Written | None) -> Split:
    """The pictures of the task's data with the teachers' captions; see `Task.taught`."""
    split = task.read(task.config.data)
    if written is None:
        return split
    file = written(_rows(task, split, options))
    given = {(str(c.picture), c.label): c.captions if options.originals else [] for c in split.train}
    for row in map(json.loads, read_lines(str(file))):
        about = row["image"], row["label"]
        given[about] = [*given.get(about, ()), row["caption"]]
    train = [Captioned(Path(name), captions, label=label) for (name, label), captions in given.items() if captions]
    taught = replace(split, train=train)
    taught.check(task.config.data)
    return taught


def _rows(task: Caption, split: Split, options: DistillOptions) -> Iterator[dict[str, str]]:
    """What the teachers say of the training pictures, and of those in --sources, once for every label."""
    labels = sorted({c.label for c in split.train})
    asked = [(c.picture, c.label) for c in split.train]
    asked += [(picture, label) for picture in expand(options.sources) for label in labels]
    items = [item_of(picture, label) for picture, label in asked]
    found = caption_pictures(together(task.teachers, options.teachers), items, beam=options.teacher_beam)
    for done, ((picture, label), each) in enumerate(zip(asked, found, strict=True)):
        task.progress("pictures are described by the teachers", done, len(asked))
        if each.hypotheses and each.hypotheses[0].text:
            yield {"image": str(picture), "label": label, "caption": each.hypotheses[0].text}
