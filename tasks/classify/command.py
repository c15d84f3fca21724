"""`gen classify`: labels of texts or pictures, with their probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from gen.base import distributed
from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, UserError, notify, one_line
from gen.base.fields import Arg
from gen.base.json_files import json_line
from gen.base.lines import output, read_lines
from gen.inputs.labels import LabelTokenizer
from gen.inputs.pictures import PictureError, find_pictures
from gen.runtime import Runtime
from gen.search.labels import label_log_probs
from tasks.commands.large import LargeJob
from tasks.commands.models import encoding_errors, load_model

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model


@dataclass(frozen=True)
class ClassifyCommand:
    """Say which label texts or pictures have, with a trained model."""

    COMMON: ClassVar = ("input", "output", "top", "json")

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run, model or exported model, or hf:USER/NAME."""
    item: Annotated[tuple[str, ...], Arg("ITEM", positional=True)] = ()
    """Texts; for a model of pictures, files or folders of them. Without any: the lines of --input."""
    input: Annotated[str, Arg(aliases=("-i",))] = "-"
    """File with one text, or name of a picture, per line; - for standard input."""
    output: Annotated[str, Arg(aliases=("-o",))] = "-"
    """Output file; - for standard output."""
    top: int = 1
    """Print this many labels, likeliest first."""
    json: bool = False
    """Print one JSON object per item: item, labels with probability, and the attention on each token."""
    batch_size: int = 64
    """Items per batch."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    large: LargeJob = field(default_factory=LargeJob)

    def check(self) -> None:
        """Raises `ConfigError` with all errors."""
        errors = range_errors(self, ("top", "batch_size"))
        inputs = self.item or [self.input]
        errors += self.large.errors(self.output, inputs, {"json": self.json})
        if self.item and self.input != "-":
            errors.append("ITEM and --input exclude each other")
        if errors:
            raise ConfigError(errors)


@dataclass(frozen=True)
class Labelled:
    """An item with its labels.

    Attributes:
        item: the text, or the name of the picture.
        labels: (label, probability), likeliest first; empty if the picture cannot be read.
        attention: (S,) weights over the item's tokens, or over the picture's grid; empty without attention.
        error: why the picture cannot be read.
    """

    item: str
    labels: Sequence[tuple[str, float]]
    attention: np.ndarray
    error: str = ""


def label_items(model: Model | Runtime, items: Sequence[Any]) -> list[Any]:
    """Items as the model takes them: texts on one line, without the spaces that training did not see, either."""
    return [" ".join(item.split()) if isinstance(item, str) else item for item in items]


def classify(
    model: Model | Runtime, items: Iterable[str], *, top: int = 1, batch_size: int = 64
) -> Iterator[Labelled]:
    """Labels any number of items; yields in order. A picture that cannot be read gets an error.

    Args:
        model: a classifier, of torch or exported.
        items: texts, or names of pictures.
        top: the number of labels per item.
        batch_size: items at once.
    """
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, LabelTokenizer):
        raise UserError(f"a {model.info.task} model does not choose among labels")
    source = iter(items)
    while batch := list(islice(source, batch_size)):
        ready: dict[int, Any] = {}
        errors: dict[int, str] = {}
        for i, item in enumerate(label_items(model, batch)):
            try:
                ready[i] = model.processors["picture"].read([item])[0] if "picture" in model.processors else item
            except PictureError as error:
                errors[i] = str(error)
        log_probs, looks = label_log_probs(model, list(ready.values())) if ready else (np.empty((0, 0)), [])
        found = dict(zip(ready, zip(log_probs, looks, strict=True), strict=True))
        for i, item in enumerate(batch):
            if i in errors:
                yield Labelled(item, [], np.empty(0), errors[i])
                continue
            row, look = found[i]
            best = np.argsort(-row, kind="stable")[:top].tolist()
            yield Labelled(item, [(tokenizer.labels[k], float(np.exp(row[k]))) for k in best], look)


def large_work(config: ClassifyCommand) -> Callable[[list[str]], Iterator[dict[str, Any]]]:
    """What a worker of ``--ray`` does with texts, or paths of pictures."""
    model = load_model(config.run, config.device, "classify", threads=1)

    def work(items: list[str]) -> Iterator[dict[str, Any]]:
        for found in classify(model, items, top=config.top, batch_size=config.batch_size):
            error = {"error": found.error} if found.error else {}
            labels = [{"label": label, "probability": p} for label, p in found.labels]
            yield {"item": found.item, **error, "labels": labels}

    return work


def _large(config: ClassifyCommand) -> int:
    pictures = "picture" in load_model(config.run, config.device, "classify").processors
    named = [config.input]
    if pictures and not config.item:
        named = [line for line in map(str.strip, read_lines(config.input)) if line]
    return config.large.run(
        partial(large_work, config),
        config.item or named,  # with --ray, words are files
        config.output,
        pictures=pictures,
        batch_size=config.batch_size,
        record={"run": config.run, "top": config.top},
    )


def classify_command(argv: list[str], command: str) -> int:
    """`gen classify RUN ITEM…`. Returns 1 if some pictures could not be read and 2 if none could."""
    config = parse_command(ClassifyCommand, argv, command)
    config.check()
    if config.large.ray:
        return _large(config)
    distributed.start()
    model = load_model(config.run, config.device, "classify")
    pictures = "picture" in model.processors
    if not pictures and (errors := encoding_errors("ITEM", config.item)):
        raise ConfigError(errors)
    items: Iterable[str] = config.item or read_lines(config.input)
    if pictures:
        items = (path for name in items if name.strip() for path in _pictures(name))
    done = failed = 0
    with output(config.output) as file:
        for found in classify(model, items, top=config.top, batch_size=config.batch_size):
            done += 1
            if found.error:
                failed += 1
                notify(found.error)
            file.write(_line(model, found, config))
            file.flush()
    return 0 if not failed else 2 if failed == done else 1


def _pictures(name: str) -> list[str]:
    """The pictures of a folder, or the name itself."""
    return list(map(str, find_pictures(Path(name)))) if os.path.isdir(name) else [name]


def _line(model: Model | Runtime, found: Labelled, config: ClassifyCommand) -> str:
    if not config.json:
        return "\t".join(f"{one_line(label)}\t{p:.4f}" for label, p in found.labels) + "\n"
    labels = [{"label": label, "probability": p} for label, p in found.labels]
    record: dict[str, Any] = {"item": found.item, "labels": labels}
    if found.error:
        record["error"] = found.error
    elif len(found.attention):
        (processor,) = model.processors.values()
        seen = processor.labels(label_items(model, [found.item])[0])
        record["attention"] = [[text, round(float(w), 4)] for text, w in zip(seen, found.attention, strict=True)]
    return json_line(record)
