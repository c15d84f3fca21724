"""`gen push`: upload a model to the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gen import runtime
from gen.base import hub
from gen.base.config import parse_command
from gen.base.fields import Arg
from gen.models.checkpoint import find_model
from gen.models.model import Model


@dataclass(frozen=True)
class PushCommand:
    """Upload a model, of a run the best one, with its card to the Hugging Face Hub. `hf auth login` logs in."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run, model or exported model, or hf:USER/NAME."""
    name: Annotated[str, Arg("USER/NAME", positional=True)]
    """Name of the repository on the Hub."""
    private: bool = False
    """Make the repository private."""
    message: str = "Upload a model"
    """Commit message."""


def push_command(argv: list[str], command: str) -> None:
    """`gen push RUN USER/NAME`."""
    config = parse_command(PushCommand, argv, command)
    exported = runtime.is_exported(config.run)
    (runtime.load if exported else Model.load)(config.run)  # do not upload a damaged model
    folder = runtime.located(config.run) if exported else find_model(config.run)
    address = hub.push(folder, config.name, private=config.private, message=config.message)
    print(f'{address}\n\nUse it: gen.load("{hub.PREFIX}{config.name}")')
