"""The command that uses a model of any task: items in, texts out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from gen.base.config import parse_command
from gen.base.errors import ConfigError
from gen.base.fields import Arg
from gen.base.lines import output, read_lines
from gen.search import SearchOptions
from gen.training.registry import find_task
from tasks.commands.models import load_model


@dataclass(frozen=True)
class UseCommand:
    """Give a model something to read or look at, and print what it writes."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run, of a model, or of an exported model."""
    item: Annotated[tuple[str, ...], Arg("ITEM", positional=True)] = ()
    """What to give the model. Without any: one per line of --input."""
    input: Annotated[str, Arg(aliases=("-i",))] = "-"
    """Items to read, one per line; - for standard input."""
    output: Annotated[str, Arg(aliases=("-o",))] = "-"
    """Where to write; - for standard output."""
    scores: bool = False
    """The log-probability before each text, and a tab."""
    json: bool = False
    """One JSON object per item: input, outputs with text, score and finished."""
    batch_size: int = 64
    """Items per batch."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    search: SearchOptions = field(default_factory=SearchOptions)


def use_command(argv: list[str], command: str, name: str) -> None:
    """`gen NAME RUN ITEM…`."""
    config = parse_command(UseCommand, argv, command)
    if config.batch_size < 1:
        raise ConfigError([f"--batch-size must be at least 1, not {config.batch_size}"])
    model = load_model(config.run, config.device, name)
    task = find_task(name)()
    shown: list[str] = []

    def items() -> Iterator[Any]:
        for word in config.item or read_lines(config.input):
            for item in task.parse([word]):
                shown.append(task.shown(item))
                yield item

    found = model.generate_many(items(), batch_size=config.batch_size, attention=False, **config.search.given())
    with output(config.output) as file:
        for number, hypotheses in enumerate(found):
            if config.json:
                outputs = [{"text": h.text, "score": h.score, "finished": h.finished} for h in hypotheses]
                lines = [json.dumps({"input": shown[number], "outputs": outputs}, ensure_ascii=False)]
            else:
                lines = [f"{h.score:.4f}\t{h.text}" if config.scores else h.text for h in hypotheses]
            file.write("".join(line + "\n" for line in lines))
            file.flush()
    sys.stdout.flush()
