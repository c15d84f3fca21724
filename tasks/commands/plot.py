"""`gen plot attention`: a plot of the attention weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from gen.base.config import parse_command
from gen.base.errors import ConfigError, UserError
from gen.base.fields import Arg
from gen.inputs.labels import LabelProcessor
from gen.models.device import pick_device
from gen.models.model import Model
from gen.search import SearchOptions
from gen.training.registry import find_task
from tasks.commands.models import further_inputs


@dataclass(frozen=True)
class AttentionCommand:
    """Plot the attention for each generated token, over the tokens of a sentence or the cells of a picture."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run or model, or hf:USER/NAME."""
    item: Annotated[str, Arg("ITEM", positional=True)] = ""
    """Input of the model, such as a picture."""
    text: str = ""
    """Input of the model as an option: a sentence to translate."""
    image: tuple[str, ...] = ()
    """Pictures that a translation model looks at besides the sentence."""
    context: tuple[str, ...] = ()
    """Further sentences that it reads."""
    given: tuple[str, ...] = ()
    """Labels, for a model trained with labels."""
    output: Annotated[str, Arg(aliases=("-o",))] = "attention.png"
    """The plot: a .png, .svg or .pdf file."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def check(self) -> None:
        """Raises `ConfigError` with all errors."""
        errors = []
        if bool(self.item) == bool(self.text.strip()):
            errors.append("name one input: ITEM (a picture) or --text (a sentence)")
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
        raise UserError(f"{config.run}: is a {task.name} model, which has no input to attend to")
    item = next(iter(task.parse([config.text or config.item])))
    main = next((name for name, p in model.processors.items() if not isinstance(p, LabelProcessor)), "")
    if further := further_inputs(model, config.image, config.context, config.given, main):
        item = {main: item, **further}
    hypothesis = model.generate(item, **config.search.given())[0]
    if hypothesis.attention is None:
        raise UserError(f"{config.run}: was trained with --attention none: there is nothing to plot")
    if hypothesis.read is not None:  # of that the attention is
        item = {**item, "sentence": hypothesis.read} if isinstance(item, Mapping) else hypothesis.read
    task.plot(model, item, hypothesis, Path(config.output))
    print(f"{hypothesis.text}\n{config.output}")
