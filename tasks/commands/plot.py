"""`gen plot`: pictures of what a model does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from gen.base.config import parse_command
from gen.base.errors import ConfigError, UserError
from gen.base.fields import Arg
from gen.models.device import pick_device
from gen.models.model import Model
from gen.search import SearchOptions
from gen.training.registry import find_task


@dataclass(frozen=True)
class AttentionCommand:
    """Draw what the decoder looked at while it wrote each token: a sentence's tokens, or cells of a picture."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run or of a model."""
    item: Annotated[str, Arg("ITEM", positional=True)] = ""
    """What to give the model: a picture to describe, for instance."""
    text: str = ""
    """The same, for what is easier to type as an option: a sentence to translate."""
    output: Annotated[str, Arg(aliases=("-o",))] = "attention.png"
    """The picture: .png, .svg or .pdf."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def check(self) -> None:
        """Raises `ConfigError` with every error at once."""
        errors = []
        if bool(self.item) == bool(self.text.strip()):
            errors.append("name one thing to look at: ITEM (a picture) or --text (a sentence)")
        if Path(self.output).suffix not in (".png", ".svg", ".pdf"):
            errors.append(f"--output {self.output}: name a .png, .svg or .pdf file")
        if errors:
            raise ConfigError(errors)


def attention_command(argv: list[str], command: str) -> None:
    """`gen plot attention RUN --text …`, or a picture."""
    config = parse_command(AttentionCommand, argv, command, repeat=True)
    config.check()
    model = Model.load(config.run, pick_device(config.device))
    task = find_task(model.info.task or "text")()
    if model.encoder.memory_size == 0:
        raise UserError(f"{config.run}: is a {task.name} model, whose decoder has nothing to look at")
    item = next(iter(task.parse([config.text or config.item])))
    hypothesis = model.generate(item, **config.search.given())[0]
    if hypothesis.attention is None:
        raise UserError(f"{config.run}: was trained with --attention none: there is nothing to draw")
    task.plot(model, item, hypothesis, Path(config.output))
    print(f"{hypothesis.text}\n{config.output}")
