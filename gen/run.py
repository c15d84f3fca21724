"""A run folder: what was asked, what happened, the best and the last model."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from gen import checkpoint
from gen.config import differences
from gen.errors import UserError
from gen.model import Model


class RunFolder:
    """``runs/NAME/{config.yaml, metrics.jsonl, last/, best/, samples.md, plots/}``.

    Args:
        path: the folder; made by `open`.
        config: the configuration as plain values, without the folder's own name: it may move.
    """

    def __init__(self, path: str | Path, config: dict[str, Any]) -> None:
        self.path = Path(path)
        self.config = config

    def open(self) -> dict[str, Any] | None:
        """Makes the folder, or finds it again.

        Returns:
            The training state to go on from, or None at the beginning.

        Raises:
            UserError: the folder holds another run, or something else.
        """
        file = self.path / checkpoint.CONFIG
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path}: is a file; name a folder")
        if file.exists():
            try:
                old = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise UserError(f"{file}: cannot be read; choose another --out") from error
            if not isinstance(old, dict) or "format" in old:
                raise UserError(f"--out {self.path}: holds a model, not a run; choose another --out")
            if changes := differences(old, self.config):
                raise UserError(
                    f"--out {self.path}: holds a run of another configuration ({'; '.join(changes)}); "
                    "choose another --out, or delete the folder"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise UserError(f"--out {self.path}: is not empty and holds no run; choose another --out")
        else:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
                checkpoint.write_text(file, text)
            except OSError as error:
                raise UserError(f"--out {self.path}: cannot be written ({error.strerror})") from error
        last = checkpoint.whole_folder(self.path / "last")
        return checkpoint.read_training(last) if last.exists() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in the folder. The lock dies with its owner.

        Raises:
            UserError: another process has it.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"--out {self.path}: another process is training there; wait for it, or choose another --out"
                ) from error
            yield

    def save_best(self, model: Model) -> None:
        """The model that validated best."""
        checkpoint.write_folder(self.path / "best", model.write)

    def save_last(self, model: Model, training: dict[str, Any]) -> None:
        """The newest model, and beside it all that training needs to go on."""

        def fill(folder: Path) -> None:
            model.write(folder)
            torch.save(training, folder / checkpoint.TRAINING)

        checkpoint.write_folder(self.path / "last", fill)

    def load_last(self, model: Model) -> None:
        """Puts the last weights, and what was known of them, into ``model``."""
        last = Model.load(checkpoint.whole_folder(self.path / "last"))
        model.load_state_dict(last.state_dict())
        model.info.metrics = last.info.metrics

    def log(self, record: dict[str, Any]) -> None:
        """Adds a line to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines of ``metrics.jsonl``."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)

    def forget_after(self, step: int) -> None:
        """Drops records of steps that are about to be done again."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [r for r in self.records() if r["step"] <= step]
            checkpoint.write_text(path, "".join(json.dumps(r) + "\n" for r in kept))

    def add_samples(self, text: str) -> None:
        """Adds a section to ``samples.md``."""
        with (self.path / "samples.md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")
