"""A look at the data of a training: it is read as training reads it, and nothing is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from gen.base.errors import UserError
from gen.datasets.look import (
    Column,
    Leak,
    PictureFacts,
    TextFacts,
    leaks,
    look_at_pictures,
    look_at_texts,
)
from gen.inputs.tokenizer import Tokenizer
from gen.training.config import TrainConfig, config_class
from gen.training.resolve import resolve
from gen.training.task import Task

LEVELS = {"char": "characters", "word": "words", "subword": "subwords"}
"""Level of the options → its name in a `DataLook`."""

LEFT_OUT = "left out"
"""The part that training drops."""

Tokenizers = tuple[Tokenizer, dict[str, Tokenizer]]
"""Of the targets, and of the text inputs by name; see `Task.tokenizers`."""


@dataclass
class DataLook:
    """What the data of a training is.

    Attributes:
        task: the name of the task.
        level: that of training, a key of the ``lengths`` of `TextFacts`.
        table: what training prints of the data, name → text.
        dropped: what was left out and why, one line each.
        texts: part → column → facts.
        labels: part → input → label → how many examples have it.
        pictures: part → facts.
        vocabulary: level → column → the size of the vocabulary.
        leaks: what the parts share.
    """

    task: str
    level: str
    table: dict[str, str]
    dropped: list[str] = field(default_factory=list)
    texts: dict[str, dict[str, TextFacts]] = field(default_factory=dict)
    labels: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    pictures: dict[str, PictureFacts] = field(default_factory=dict)
    vocabulary: dict[str, dict[str, int]] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        names = dict.fromkeys([*self.texts, *self.labels, *self.pictures])
        parts = {
            name: {
                "texts": {column: facts.to_dict() for column, facts in self.texts.get(name, {}).items()},
                "labels": {label: dict(counts) for label, counts in self.labels.get(name, {}).items()},
                **(self.pictures[name].to_dict() if name in self.pictures else {}),
            }
            for name in names
        }
        return {
            "task": self.task,
            "level": self.level,
            "table": self.table,
            "dropped": self.dropped,
            "parts": parts,
            "vocabulary": self.vocabulary,
            "leaks": [asdict(leak) for leak in self.leaks],
        }


def look_at_data(
    kind: type[Task], data: Any, test: Sequence[str], watch: Callable[[str, int, int], None]
) -> DataLook:
    """Reads the data of a training.

    Args:
        kind: the class of the task.
        data: its options, an instance of `Task.Data`.
        test: files to test on.
        watch: shows the progress: what, done, total.

    Raises:
        UserError: training would refuse the data, with the same message.
    """
    config = config_class(kind)(data=data)
    task = kind(config)
    task.split = task.read(data)
    task.config = resolve(task, config, task.split).config
    parts = task.parts(test)
    level, levels = _tokenizers(kind, task, task.config)
    found = DataLook(task.name, level, task.split.table(), _dropped(task.split))
    keys: dict[str, dict[str, np.ndarray]] = {}
    for name, part in parts.items():
        facts = {n: look_at_texts(c, _of_column(levels, c)) for n, c in part.columns.items()}
        found.texts[name] = facts
        found.labels[name] = {n: Counter(filter(None, labels)) for n, labels in part.labels.items()}
        keys[name] = {n: each.keys for n, each in facts.items()}
        if {"source", "target"} <= facts.keys() and facts["source"].rows == facts["target"].rows:
            keys[name]["pair"] = facts["source"].keys * np.uint64(3) + facts["target"].keys
        if part.pictures:
            found.pictures[name] = look_at_pictures(part.pictures, watch)
            keys[name]["picture"] = found.pictures[name].keys
    columns = {name: column for part in parts.values() for name, column in part.columns.items()}
    found.vocabulary = {
        each: {name: len(_of_column(levels, column)[each]) for name, column in columns.items()} for each in levels
    }
    found.leaks = leaks({name: each for name, each in keys.items() if name != LEFT_OUT})
    unreadable = [line for facts in found.pictures.values() for line in facts.unreadable]
    found.dropped += [line for line in unreadable if line not in found.dropped]
    return found


def _dropped(split: Any) -> list[str]:
    """What was left out, one line each."""
    pairs = getattr(split, "pairs", None)
    if pairs is not None:
        return [f"{count:,} pairs with {reason}" for reason, count in pairs.dropped.items()]
    return list(getattr(split, "dropped", ()))


def _of_column(levels: Mapping[str, Tokenizers], column: Column) -> dict[str, Tokenizer]:
    return {level: inputs.get(column.input, target) for level, (target, inputs) in levels.items()}


def _tokenizers(kind: type[Task], task: Task, config: TrainConfig) -> tuple[str, dict[str, Tokenizers]]:
    """The level of training, and the tokenizers of each level that training could use."""
    own = task.tokenizers(task.split)
    chosen = getattr(config.data, "level", None)
    if chosen is None:
        return own[0].kind, {own[0].kind: own}
    found: dict[str, Tokenizers] = {}
    for level, name in LEVELS.items():
        if level == chosen:
            found[name] = own
            continue
        plain = {"vocab_size": None, "subword_dropout": 0.0}
        changed = {option: value for option, value in plain.items() if hasattr(config.data, option)}
        other = kind(replace(config, data=replace(config.data, level=level, **changed)))
        try:  # too little text for subwords, or standard input, which was read once
            found[name] = other.tokenizers(other.read(other.config.data))
        except UserError:
            continue
    return LEVELS[chosen], found
