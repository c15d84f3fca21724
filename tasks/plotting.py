"""`gen plot`: pictures of what a model does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from gen.config import parse_command
from gen.errors import ConfigError, UserError
from gen.plots import plot_attention
from gen.search import SearchOptions
from tasks.generate import load_model
from tasks.translate import attention_of


@dataclass(frozen=True)
class AttentionConfig:
    """Draw which source token was looked at while each target token was written."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run or of a model."""
    text: str = ""
    """What to translate."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = "attention.png"
    """The picture: .png, .svg or .pdf."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def check(self) -> None:
        """Raises `ConfigError` with every error at once."""
        errors = [] if self.text.strip() else ["--text: what shall be translated?"]
        if Path(self.output).suffix not in (".png", ".svg", ".pdf"):
            errors.append(f"--output {self.output}: name a .png, .svg or .pdf file")
        if errors:
            raise ConfigError(errors)


def attention_command(argv: list[str], command: str) -> None:
    """`gen plot attention RUN --text …`."""
    config = parse_command(AttentionConfig, argv, command, repeat=True)
    config.check()
    model = load_model(config.run, config.device, task="translate")
    hypothesis = model.generate(config.text, attention=True, **config.search.given())[0]
    if hypothesis.attention is None:
        raise UserError(f"{config.run}: was trained with --attention none: there is nothing to draw")
    plot_attention(*attention_of(model, config.text, hypothesis), Path(config.output))
    print(f"{hypothesis.text}\n{config.output}")
