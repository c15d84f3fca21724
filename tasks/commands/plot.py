"""`gen plot`: pictures of what a model does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from gen.base.config import parse_command
from gen.base.errors import ConfigError, UserError
from gen.base.fields import Arg
from gen.metrics.plots import plot_attention, plot_looks
from gen.models.device import pick_device
from gen.models.model import Model
from gen.search import SearchOptions
from tasks.caption.task import looks_of
from tasks.translate.task import attention_of


@dataclass(frozen=True)
class AttentionConfig:
    """Draw what was looked at while each token was written: a source sentence's tokens, or places in a picture."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run or of a model."""
    picture: Annotated[str, Arg("PICTURE", positional=True)] = ""
    """What to describe, for a caption model."""
    text: str = ""
    """What to translate, for a translation model."""
    output: Annotated[str, Arg(aliases=("-o",))] = "attention.png"
    """The picture: .png, .svg or .pdf."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def check(self, task: str) -> None:
        """Raises `ConfigError` with every error at once."""
        errors = []
        if task == "caption" and (self.text or not self.picture):
            errors.append("name one picture to describe, and no --text")
        if task == "translate" and (self.picture or not self.text.strip()):
            errors.append("--text: what shall be translated?")
        if Path(self.output).suffix not in (".png", ".svg", ".pdf"):
            errors.append(f"--output {self.output}: name a .png, .svg or .pdf file")
        if errors:
            raise ConfigError(errors)


def attention_command(argv: list[str], command: str) -> None:
    """`gen plot attention RUN --text …`, or a picture."""
    config = parse_command(AttentionConfig, argv, command, repeat=True)
    model = Model.load(config.run, pick_device(config.device))
    if model.info.task not in ("translate", "caption"):
        raise UserError(f"{config.run}: is a {model.info.task} model, which looks at nothing")
    config.check(model.info.task)
    item = config.text or config.picture
    hypothesis = model.generate(item, **config.search.given())[0]
    if hypothesis.attention is None:
        raise UserError(f"{config.run}: was trained with --attention none: there is nothing to draw")
    if config.text:
        plot_attention(*attention_of(model, item, hypothesis), Path(config.output))
    else:
        plot_looks(*looks_of(model, item, hypothesis), Path(config.output))
    print(f"{hypothesis.text}\n{config.output}")
