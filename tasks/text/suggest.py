"""`gen suggest`: the likeliest completions of the word being typed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

from gen.base.config import parse_command
from gen.base.errors import ConfigError
from gen.base.fields import Arg
from tasks.commands.models import load_model


@dataclass(frozen=True)
class SuggestConfig:
    """Complete the word being typed."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run or of a model."""
    prompt: str = ""
    """What has been typed so far."""
    n_best: int = 5
    """How many completions."""
    json: bool = False
    """Print JSON."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""


def suggest_command(argv: list[str], command: str) -> None:
    """`gen suggest RUN --prompt …`."""
    config = parse_command(SuggestConfig, argv, command)
    if config.n_best < 1:
        raise ConfigError([f"--n-best must be at least 1, not {config.n_best}"])
    model = load_model(config.run, config.device, "text")
    words = model.suggest(config.prompt, config.n_best)
    if config.json:
        print(json.dumps([{"word": word, "probability": p} for word, p in words], ensure_ascii=False))
        return
    for word, probability in words:
        print(f"{probability:7.2%}  {word}")
