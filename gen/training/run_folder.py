"""The run folder: options, records, samples, the best and the last model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import Timeout
from safetensors import SafetensorError

from gen.base import folders
from gen.base.config import Budget, differences
from gen.base.distributed import all_gather, is_main, main_first
from gen.base.errors import ConfigError, UserError, few, first_line, notify
from gen.base.yaml_files import read_yaml
from gen.models import checkpoint
from gen.models.model import Model
from gen.training.config import PASSING, identity

RESOLVED = "resolved.yaml"

_MOST_SAMPLES = 4000
"""Characters of samples that a model keeps."""


class RunFolder:
    """``runs/NAME/{config.yaml, resolved.yaml, metrics.jsonl, last/, previous/, best/, samples.md, plots/}``.

    Several processes share the folder, and the main one writes. A write that fails does not end the training: the
    files from before stay complete, the user is told, and the next write tries again.

    Args:
        path: the folder; made by `open`.
        config: the options as plain values; those in `PASSING` are dropped.

    Attributes:
        chosen: the content of ``resolved.yaml``; None: not written.
        grown: the run there is done, and its budget has grown since.
    """

    def __init__(self, path: str | PathLike[str], config: dict[str, Any]) -> None:
        self.path = Path(path)
        self.config = _lasting(config)
        self.chosen: dict[str, Any] | None = None
        self.grown = False
        self._failing: set[str] = set()
        self._lock: Any = None
        self._is_locked = False  # in all processes

    # -- opening -------------------------------------------------------------------------------------------

    def open(self) -> dict[str, Any] | None:
        """Creates the folder, or opens an existing run.

        Returns:
            The training state to resume from (see `read_last`); None for a new run.

        Raises:
            UserError: the folder holds another run or other files.
        """
        with main_first():
            self.make()
        return self.read_last()

    def make(self) -> None:
        """Creates the folder with its options, if it is not there. Raises `UserError` as `open` does."""
        self.check()
        try:
            self._write_config()
        except OSError as error:
            raise UserError(f"--out {self.path}: cannot be written ({error.strerror})") from error

    def check(self) -> None:
        """Raises `UserError` if the folder holds another run or other files. Writes nothing."""
        file = self.path / checkpoint.CONFIG
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path}: is a file; name a folder")
        if not file.exists():
            _check_place(self.path)
            there = self.path.iterdir() if self.path.exists() else ()
            # A kill at the very beginning leaves a lock or a temporary file, which `folders.sweep` removes.
            if any(p.name != ".lock" and not folders.is_ours(p) for p in there):
                raise UserError(f"--out {self.path}: is not empty and holds no run; choose another --out")
            return
        try:
            old = read_yaml(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read; choose another --out") from error
        if not isinstance(old, dict) or "format" in old:
            raise UserError(f"--out {self.path}: holds a model, not a run; choose another --out")
        by_session = "model" in old
        old, new = identity(old), identity(self.config)
        before, after = (_budget(each.get("budget")) for each in (old, new))
        both = old.keys() & new.keys()  # options that only one version has are ignored
        both -= {"budget"} if before == after else set()  # 300s is 5m
        changes = differences({n: old[n] for n in both}, {n: new[n] for n in both})
        if len(changes) == 1 and self._grows(before, after):
            return
        if changes and by_session:
            self.resolved()  # an older version recorded none, and that is what is wrong
        if changes:
            raise UserError(
                f"--out {self.path}: holds a run of another configuration ({few(changes)}); "
                f"choose another --out, or resume it with --config {file} instead of other options"
            )

    def _grows(self, before: Budget | None, after: Budget | None) -> bool:
        """Whether this run is done, and its budget is larger now: then it goes on."""
        larger = before and after and before.unit == after.unit and after.amount > before.amount
        self.grown = bool(larger and (self.progress() or {}).get("done"))
        return self.grown

    def _write_config(self) -> None:
        file = self.path / checkpoint.CONFIG
        if is_main() and (self.grown or not file.exists()):
            self.path.mkdir(parents=True, exist_ok=True)
            folders.write_text(file, _yaml(self.config))
        if is_main() and self.chosen and (self.grown or not (self.path / RESOLVED).exists()):
            folders.write_text(self.path / RESOLVED, _yaml(self.chosen))
        self.grown = False

    def resolved(self) -> dict[str, Any] | None:
        """The content of ``resolved.yaml``; None for a new run.

        Raises:
            UserError: it cannot be read, or an older version started the run without recording its choices.
        """
        file = self.path / RESOLVED
        if not file.exists():
            if (self.path / "last").exists():
                raise UserError(
                    f"--out {self.path}: was started by a version that did not record its choices, so it cannot "
                    f"be resumed; start from its model: --init-from {self.path} and another --out"
                )
            return None
        try:
            found = read_yaml(file)
            if not all(isinstance(found[name], dict) for name in ("options", "reasons", "measured")):
                raise ValueError("it has no options, reasons and measurements")
            return found
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: cannot be read ({first_line(error)}); delete the run") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder, which is created if needed, against other trainings. The lock ends with the process.
        Where it is locked by this object already, nothing happens.

        Raises:
            UserError: another process holds the lock, or the folder is not this run's.
        """
        if self._is_locked:
            yield
            return
        with main_first():
            self.make()
        taken = is_main() and not self._take_lock()
        try:
            if any(all_gather(taken)):
                raise UserError(
                    f"--out {self.path}: another process is training there; wait for it, or choose another --out"
                )
            if is_main():
                folders.sweep(self.path)
            self._is_locked = True
            yield
        finally:
            self._is_locked = False
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _take_lock(self) -> bool:
        try:
            self._lock = folders.acquire(self.path / ".lock", blocking=False)
        except Timeout:
            return False
        return True

    def _check_lock(self) -> None:
        """Raises `UserError` if the folder at the path is no longer the one that was locked; one that has vanished
        is made and locked again."""
        held = None if self._lock is None else folders.holds(self._lock)
        if self._lock is None or held:
            return
        if held is None:
            self.path.mkdir(parents=True, exist_ok=True)
        if held is False or not self._take_lock():
            raise UserError(
                f"--out {self.path}: the folder was moved away or deleted, and another training has begun there: "
                "this one stops, and writes no more"
            )

    # -- models --------------------------------------------------------------------------------------------

    def save_best(self, model: Model, metrics: dict[str, Any], samples: str = "") -> bool:
        """Saves the model as ``best/`` with its figures and samples. Returns whether that worked."""
        info = replace(model.info, metrics=metrics, samples=samples[:_MOST_SAMPLES])
        return self._write(
            "best", lambda: folders.write_folder(self.path / "best", lambda folder: model.write(folder, info))
        )

    def save_last(self, model: Model, training: dict[str, Any]) -> bool:
        """Saves the model and the training state as ``last/``; the one before becomes ``previous/``. Returns
        whether that worked."""

        def fill(folder: Path) -> None:
            model.write(folder)
            torch.save(training, folder / checkpoint.TRAINING)

        return self._write(
            "last", lambda: folders.write_folder(self.path / "last", fill, keep=self.path / "previous")
        )

    def read_last(self) -> dict[str, Any] | None:
        """The training state in ``last/``, or in ``previous/`` if that is damaged, with the model's "weights" and
        "tokenizer". None if there is neither.

        Raises:
            UserError: neither can be read.
        """
        damage: UserError | None = None
        for folder in (self.path / "last", self.path / "previous"):
            if not folder.exists():
                continue
            try:
                training = checkpoint.read_training(folder)
                model = Model.load(folder)
            except UserError as error:
                damage = damage or error
                continue
            if damage and is_main():
                step = training["progress"].get("step")
                notify(f"{damage}; resuming from the one before, of step {step}")
            return {**training, "weights": model.state_dict(), "tokenizer": model.tokenizer.to_bytes()}
        if damage:
            raise damage
        return None

    def progress(self) -> dict[str, Any] | None:
        """The saved fields of `Progress`; None for a new run."""
        for folder in (self.path / "last", self.path / "previous"):
            try:
                with checkpoint.checked(folder):
                    return dict(checkpoint.read_training(folder)["progress"])
            except UserError:
                continue
        return None

    # -- records ------------------------------------------------------------------------------------------

    def log(self, record: dict[str, Any]) -> None:
        """Adds a line to ``metrics.jsonl``."""
        self._append("metrics.jsonl", json.dumps(record) + "\n")

    def add_samples(self, step: int, title: str, text: str) -> int:
        """Adds a section to ``samples.md``. Returns the file's length then, for the record of the validation: what
        the model wrote is never searched for the beginnings of sections."""
        self._append("samples.md", f"## Step {step:,}, {title}\n\n{text}\n")
        file = self.path / "samples.md"
        return file.stat().st_size if file.exists() else 0

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of ``metrics.jsonl``, without incomplete lines."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    try:
                        record = json.loads(line)
                    except (ValueError, RecursionError):  # the process was killed while writing
                        continue
                    if isinstance(record, dict) and all(_is_number(record.get(n)) for n in ("step", "seconds")):
                        yield record

    def forget_after(self, step: int) -> None:
        """Drops the records and samples of later steps, which are about to be repeated."""
        if not is_main():
            return
        records, samples = self.path / "metrics.jsonl", self.path / "samples.md"
        if not records.exists():
            return
        kept = [r for r in self.records() if r["step"] <= step]
        text = "".join(json.dumps(r) + "\n" for r in kept)
        self._write(records.name, lambda: folders.write_text(records, text))
        length = next((r["samples"] for r in reversed(kept) if isinstance(r.get("samples"), int)), 0)
        if samples.exists() and samples.stat().st_size > length:
            self._write(samples.name, lambda: os.truncate(samples, length))

    def _append(self, name: str, text: str) -> None:
        def write() -> None:
            with (self.path / name).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)

        self._write(name, write)

    def _write(self, name: str, write: Callable[[], None]) -> bool:
        """Calls ``write`` in the main process. Returns False if it failed, after telling the user."""
        if not is_main():
            return True
        try:
            self._check_lock()
            self._write_config()  # the folder may have vanished
            write()
        except (OSError, RuntimeError, SafetensorError) as error:  # each library's own, for a full disk
            if name not in self._failing:
                why = getattr(error, "strerror", None) or first_line(error)
                notify(f"{self.path / name}: cannot be written ({why}); training goes on and will try again")
            self._failing.add(name)
            return False
        if name in self._failing:
            self._failing.discard(name)
            notify(f"{self.path / name}: could be written again")
        return True


def _check_place(path: Path) -> None:
    """Raises `UserError` if a folder cannot be there, or be written: better now than after the data are read."""
    there = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
    if not os.path.isdir(there):
        raise UserError(f"--out {path}: cannot be made: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {path}: cannot be written: you may make no file in {there}")


def _budget(text: Any) -> Budget | None:
    """A recorded budget; None if there is none."""
    try:
        return Budget.parse(str(text))
    except ConfigError:
        return None


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _lasting(config: dict[str, Any]) -> dict[str, Any]:
    """Nested options without those in `PASSING`."""
    return {
        name: _lasting(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in PASSING and value != {}
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
