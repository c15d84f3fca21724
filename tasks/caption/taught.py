"""Sequence-level distillation (Kim and Rush, 2016) for captions: pictures that other models described."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gen.base.errors import UserError, notify
from gen.base.lines import read_lines
from gen.datasets.captions import Captioned
from gen.datasets.splits import picture_keys
from gen.training.distill import DistillOptions, Written, check_files
from gen.training.teaching import together
from tasks.caption.data import CaptionSplit
from tasks.caption.pictures import caption_pictures, expand, item_of

if TYPE_CHECKING:
    from tasks.caption.task import Caption


def taught_captions(task: Caption, options: DistillOptions, written: Written | None) -> CaptionSplit:
    """The pictures of the task's data with the teachers' captions; see `Task.taught`."""
    check_files(task.config.data)
    split = task.read(task.config.data)
    if written is None:
        return split
    rows = [json.loads(line) for line in read_lines(str(written(_rows(task, split, options))))]
    if not rows:
        notify(f"{', '.join(options.teachers)}: wrote only empty captions, from which nothing is learned")
    given = {(str(c.picture), c.label): c.captions if options.originals else [] for c in split.train}
    for row in rows:
        about = row["image"], row["label"]
        given[about] = [*given.get(about, ()), row["caption"]]
    train = [Captioned(Path(name), captions, label=label) for (name, label), captions in given.items() if captions]
    taught = replace(split, train=train)
    taught.check(task.config.data)
    return taught


def _rows(task: Caption, split: CaptionSplit, options: DistillOptions) -> Iterator[dict[str, str]]:
    """What the teachers say of the training pictures, and of those in --sources, once for every label."""
    labels = sorted({c.label for c in split.train})
    asked = [(c.picture, c.label) for c in split.train]
    asked += [(picture, label) for picture in _further(split, options.sources) for label in labels]
    items = [item_of(picture, label) for picture, label in asked]
    found = caption_pictures(together(task.teachers, options.teachers), items, beam=options.teacher_beam)
    for done, ((picture, label), each) in enumerate(zip(asked, found, strict=True)):
        task.progress("pictures are described by the teachers", done, len(asked))
        if each.error:
            notify(f"left out: {each.error}")
        elif each.hypotheses[0].text:
            yield {"image": str(picture), "label": label, "caption": each.hypotheses[0].text}


def _further(split: CaptionSplit, names: Sequence[str]) -> list[Path]:
    """The pictures of --sources that are neither trained nor validated on, under whatever name. Raises `UserError`
    if one is not there."""
    further = list(expand(names))
    if missing := [path for path in further if not path.is_file()]:
        raise UserError(f"--sources {missing[0]}: no picture is there")
    known = [c.picture for c in (*split.train, *split.valid)]
    keys = picture_keys([*known, *further])
    new = ~np.isin(keys[len(known) :], keys[: len(known)])
    return [path for path, is_new in zip(further, new, strict=True) if is_new]
