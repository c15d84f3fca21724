"""`gen score`: log-probabilities of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated, Any

from gen.base import distributed
from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, UserError, notify
from gen.base.fields import Arg
from gen.base.json_files import json_line
from gen.base.lines import suffix
from gen.bulk.inputs import ROWS
from gen.inputs.pictures import PictureError
from gen.models.adapt import Adapter
from gen.models.device import pick_device
from gen.models.model import Model
from gen.search.generation import Score
from gen.training.registry import find_task
from gen.training.task import Task
from tasks.commands.large import LargeJob
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
    adapt: bool = False
    """Dynamic evaluation: lines are scored one by one, and a copy of the model learns from each afterwards."""
    batch_size: int = 64
    """Lines per batch."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    output: Annotated[str, Arg(aliases=("-o",))] = "-"
    """With --ray: the folder for the shards."""
    large: LargeJob = field(default_factory=LargeJob)
    remember: MemoryOptions = field(default_factory=MemoryOptions)


Pair = tuple[Any, str]
"""An input (None for free text) and the text to score."""


def score_command(argv: list[str], command: str) -> int:
    """`gen score RUN FILE`: log-probability, perplexity and text, one line each. Returns 1 if some pictures could
    not be used and 2 if none could."""
    config = parse_command(ScoreCommand, argv, command)
    errors = range_errors(config, ("batch_size",)) + config.remember.errors()
    errors += config.large.errors(
        config.output,
        config.file,
        {n: getattr(config, n) for n in ("json", "src", "tgt", "adapt")} | {"memory": config.remember.memory},
    )
    if config.output != "-" and not config.large.ray:
        errors.append("--output goes with --ray; without it the scores are printed")
    if not config.file:
        errors.append("name a FILE to score: a text, a table of pairs, or two files line by line")
    if errors:
        raise ConfigError(errors)
    if config.large.ray:
        return _large(config)
    distributed.start()
    if config.adapt:
        distributed.one_process("--adapt")
    model = Model.load(config.run, pick_device(config.device))
    config.remember.give(model)
    task = find_task(model.info.task or "text")()
    pairs = task.pairs(config.file, config)
    work = partial(_scores, model, task, config.batch_size)
    if config.adapt:
        notify("adapted: each score is of a model that learned from the lines before")
        work = partial(_adapting, Adapter(model), task)
    done = failed = 0
    for (source, text), score in distributed.share_out(pairs, work):
        done += 1
        if isinstance(score, PictureError):
            failed += 1
            notify(str(score))
            continue
        perplexity = math.exp(min(-score.log_prob / max(score.num_tokens, 1), 700.0))
        if config.json:
            record = {"log_prob": score.log_prob, "perplexity": perplexity, "num_tokens": score.num_tokens}
            record |= {"adapted": True} if config.adapt else {}
            source_field = {} if source is None else {"source": source}
            print(json_line({**record, **source_field, "text": text}), end="")
        else:
            column = "" if source is None else f"\t{source}"
            print(f"{score.log_prob:.4f}\t{perplexity:.4f}{column}\t{text}")
    return 0 if not failed else 2 if failed == done else 1


def large_work(config: ScoreCommand) -> Callable[[list[Any]], Iterator[dict[str, Any]]]:
    """What a worker of ``--ray`` does with texts, or with pairs of an input and a text."""
    model = Model.load(config.run, pick_device(config.device))
    task = find_task(model.info.task or "text")()

    def work(items: list[Any]) -> Iterator[dict[str, Any]]:
        pairs = [(None, item) if isinstance(item, str) else item for item in items]
        for (source, text), score in _scores(model, task, config.batch_size, pairs):
            if isinstance(score, PictureError):
                yield {"error": str(score)}
                continue
            source_field = {} if source is None else {"source": source}
            yield {"log_prob": score.log_prob, "num_tokens": score.num_tokens, **source_field, "text": text}

    return work


def _large(config: ScoreCommand) -> int:
    needs_input = "prompt" not in Model.load(config.run).processors
    if needs_input and any(suffix(name) not in ROWS for name in config.file):
        raise UserError("--ray: pairs to score are rows of .jsonl or .parquet, with the fields --column")
    return config.large.run(
        partial(large_work, config),
        config.file,
        config.output,
        pictures=False,
        batch_size=config.batch_size,
        record={"run": config.run},
        columns=("source", "target") if needs_input else ("text",),
    )


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


def _adapting(adapter: Adapter, task: Task, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Score | PictureError]]:
    """Each pair with its score by a model that has learned from those before."""
    for pair in pairs:
        (scored,) = _scores(adapter.model, task, 1, [pair])
        if isinstance(scored[1], Score):
            item, text = pair
            batch = adapter.model.batch([task.normalise(adapter.model, text)], None if item is None else [item])
            adapter.evaluate(iter([batch]))
        yield scored
