"""`gen score`: log-probabilities of texts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated, Any

from gen.base import distributed
from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, notify
from gen.base.fields import Arg
from gen.inputs.pictures import PictureError
from gen.models.device import pick_device
from gen.models.model import Model
from gen.search.generation import Score
from gen.training.registry import find_task
from gen.training.task import Task
from tasks.commands.memory import MemoryOptions


@dataclass(frozen=True)
class ScoreCommand:
    """Log-probability and perplexity of every line of a file, or of the targets in a table of pairs."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run or model, or hf:USER/NAME."""
    file: Annotated[tuple[str, ...], Arg("FILE", positional=True)] = ()
    """UTF-8 text; - for standard input. For models with an input: a table of pairs, or two files with one item per
    line: inputs (sentences, picture paths) and texts."""
    src: str = ""
    """Table of pairs: the input column."""
    tgt: str = ""
    """Table of pairs: the text column."""
    json: bool = False
    """Print one JSON object per line."""
    batch_size: int = 64
    """Lines per batch."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    remember: MemoryOptions = field(default_factory=MemoryOptions)


Pair = tuple[Any, str]
"""An input (None for free text) and the text to score."""


def score_command(argv: list[str], command: str) -> int:
    """`gen score RUN FILE`: log-probability, perplexity and text, one line each. Returns 1 if some pictures could
    not be used and 2 if none could."""
    config = parse_command(ScoreCommand, argv, command)
    errors = range_errors(config, ("batch_size",)) + config.remember.errors()
    if not config.file:
        errors.append("name a FILE to score: a text, a table of pairs, or two files line by line")
    if errors:
        raise ConfigError(errors)
    distributed.start()
    model = Model.load(config.run, pick_device(config.device))
    config.remember.give(model)
    task = find_task(model.info.task or "text")()
    pairs = task.pairs(config.file, config)
    done = failed = 0
    for (source, text), score in distributed.share_out(pairs, partial(_scores, model, task, config.batch_size)):
        done += 1
        if isinstance(score, PictureError):
            failed += 1
            notify(str(score))
            continue
        perplexity = math.exp(min(-score.log_prob / max(score.num_tokens, 1), 700.0))
        if config.json:
            record = {"log_prob": score.log_prob, "perplexity": perplexity, "num_tokens": score.num_tokens}
            source_field = {} if source is None else {"source": source}
            print(json.dumps({**record, **source_field, "text": text}, ensure_ascii=False))
        else:
            column = "" if source is None else f"\t{source}"
            print(f"{score.log_prob:.4f}\t{perplexity:.4f}{column}\t{text}")
    return 0 if not failed else 2 if failed == done else 1


def _scores(
    model: Model, task: Task, batch_size: int, pairs: Iterable[Pair]
) -> Iterator[tuple[Pair, Score | PictureError]]:
    """Each pair with its score, or the error of its picture."""
    source = iter(pairs)
    while batch := list(islice(source, batch_size)):
        items = None if batch[0][0] is None else [item for item, _ in batch]
        try:
            scores = model.score([task.normalise(model, text) for _, text in batch], items)
        except PictureError as error:
            if len(batch) == 1:
                yield batch[0], error
            else:  # one by one, so that the others get their scores
                yield from _scores(model, task, 1, batch)
            continue
        yield from zip(batch, scores, strict=True)
