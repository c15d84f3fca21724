"""`gen NAME`: the default command that uses the models of a task."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from gen.base import distributed
from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError
from gen.base.fields import Arg
from gen.base.json_files import json_line
from gen.base.lines import output, read_lines
from gen.search import SearchOptions
from gen.search.confidence import confidence_record
from gen.training.registry import find_task
from tasks.commands.confidence import check_calibrated, rated
from tasks.commands.models import load_model, record


@dataclass(frozen=True)
class UseCommand:
    """Generate text for items with a trained model."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run, model or exported model, or hf:USER/NAME."""
    item: Annotated[tuple[str, ...], Arg("ITEM", positional=True)] = ()
    """Inputs of the model. Without any: the lines of --input."""
    input: Annotated[str, Arg(aliases=("-i",))] = "-"
    """File with one item per line; - for standard input."""
    output: Annotated[str, Arg(aliases=("-o",))] = "-"
    """Output file; - for standard output."""
    scores: bool = False
    """Print the log-probability and a tab before each text."""
    confidence: bool = False
    """Print how good each text probably is, 0 to 1, and a tab before it; colour doubtful words on a terminal. With
    --json also the probability of each word to be right."""
    json: bool = False
    """Print one JSON object per item: input, outputs with text, score (log-probability), finished."""
    batch_size: int = 64
    """Items per batch."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    search: SearchOptions = field(default_factory=SearchOptions)


def use_command(argv: list[str], command: str, name: str) -> None:
    """`gen NAME RUN ITEM…`."""
    config = parse_command(UseCommand, argv, command)
    errors = range_errors(config, ("batch_size",))
    if config.item and config.input != "-":
        errors.append("ITEM and --input exclude each other")
    if config.scores and config.json:
        errors.append("--json includes scores: leave out --scores")
    if errors:
        raise ConfigError(errors)
    distributed.start()
    model = load_model(config.run, config.device, name)
    if config.confidence:
        check_calibrated(model, config.run)
    task = find_task(name)()
    shown: list[str] = []

    def items() -> Iterator[Any]:
        for word in config.item or read_lines(config.input):
            for item in task.parse([word]):
                shown.append(task.shown(item))
                yield item

    options = {"batch_size": config.batch_size, "attention": False, **config.search.given()}
    work = partial(model.generate_many, **options)
    with output(config.output) as file:
        for number, hypotheses in enumerate(distributed.share_out(items(), work)):
            if config.json:
                outputs = [record(h, **(confidence_record(h) if config.confidence else {})) for h in hypotheses]
                found_here = {"input": shown[number], "outputs": outputs}
                lines = [json_line(found_here)]
            else:
                texts = [rated(h, config.confidence, config.output) for h in hypotheses]
                pairs = zip(hypotheses, texts, strict=True)
                lines = [f"{h.score:.4f}\t{text}\n" if config.scores else f"{text}\n" for h, text in pairs]
            file.writelines(lines)
            file.flush()
    sys.stdout.flush()
