"""`gen suggest`: completions of a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError
from gen.base.fields import Arg
from gen.base.json_files import json_line
from tasks.commands.models import load_model


@dataclass(frozen=True)
class SuggestConfig:
    """Suggest likely completions of the word being typed."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run or model, or hf:USER/NAME."""
    prompt: str = ""
    """The text typed so far."""
    n_best: int = 5
    """Number of completions."""
    json: bool = False
    """Print JSON."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""


def suggest_command(argv: list[str], command: str) -> None:
    """`gen suggest RUN --prompt …`."""
    config = parse_command(SuggestConfig, argv, command)
    if errors := range_errors(config, ("n_best",)):
        raise ConfigError(errors)
    model = load_model(config.run, config.device, "text")
    words = model.suggest(config.prompt, config.n_best)
    if config.json:
        print(json_line([{"word": word, "probability": p} for word, p in words]), end="")
        return
    for word, probability in words:
        print(f"{probability:7.2%}  {word}")
