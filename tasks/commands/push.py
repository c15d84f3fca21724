"""`gen push`: a model on the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gen.base import hub
from gen.base.config import parse_command
from gen.base.fields import Arg
from gen.models.checkpoint import find_model
from gen.models.model import Model


@dataclass(frozen=True)
class PushCommand:
    """Share a model on the Hugging Face Hub: the best one of a run, with its card. `hf auth login` logs in."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run or of a model."""
    name: Annotated[str, Arg("USER/NAME", positional=True)]
    """What to call it there."""
    private: bool = False
    """Only for those who are let in."""
    message: str = "Upload a model"
    """Of the commit."""


def push_command(argv: list[str], command: str) -> None:
    """`gen push RUN USER/NAME`."""
    config = parse_command(PushCommand, argv, command)
    Model.load(config.run)  # nobody should have to download a damaged one
    address = hub.push(find_model(config.run), config.name, private=config.private, message=config.message)
    print(f'{address}\n\nUse it: gen.load("{hub.PREFIX}{config.name}")')
