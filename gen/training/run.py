"""A finished or unfinished training, read from its run folder."""

from __future__ import annotations

from functools import cached_property
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from gen.base.config import flat
from gen.base.errors import UserError, first_line
from gen.base.yaml_files import read_yaml
from gen.models import checkpoint
from gen.models.model import Model
from gen.training.config import upgraded
from gen.training.run_folder import RESOLVED, RunFolder


class Run:
    """A training: its model, figures, history and options.

    Args:
        path: the run folder.
        temporary: a `TemporaryDirectory` to keep as long as this object lives.

    Raises:
        UserError: the folder holds no run.

    Example::

        run = gen.train("text", data="book.txt", out="runs/book", budget="2m")
        run.metrics["loss"], run.history[-1]["step"], run.config["hidden_size"]
        run.model.generate("It was")
    """

    def __init__(self, path: str | PathLike[str], temporary: Any = None) -> None:
        self.path = Path(path)
        self._temporary = temporary
        if not (self.path / checkpoint.CONFIG).is_file():
            raise UserError(f"{self.path}: is not the folder of a run")

    @cached_property
    def model(self) -> Model:
        """The model with the best weights, on the CPU."""
        return Model.load(self.path)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Validation figures of the best weights; empty before the first validation."""
        try:
            return dict(checkpoint.read_config(checkpoint.find_model(self.path)).get("metrics") or {})
        except UserError:
            return {}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of ``metrics.jsonl``; those of a validation have a key "validation"."""
        return list(RunFolder(self.path, {}).records())

    @cached_property
    def config(self) -> dict[str, Any]:
        """All options by name, with the chosen values."""
        return upgraded(flat(self.resolved.get("options") or self._read(checkpoint.CONFIG)))

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Option name → the reason for its value, for options that were chosen automatically."""
        return dict(self.resolved.get("reasons") or {})

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The content of ``resolved.yaml``; empty for runs of older versions."""
        return self._read(RESOLVED) if (self.path / RESOLVED).is_file() else {}

    def _read(self, name: str) -> dict[str, Any]:
        file = self.path / name
        try:
            found = read_yaml(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read ({first_line(error)})") from error
        if not isinstance(found, dict):
            raise UserError(f"{file}: cannot be read (it is no mapping)")
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_temporary": None}

    def __repr__(self) -> str:
        records = self.history
        steps = f", step {records[-1]['step']:,}" if records else ""
        figures = [f"{n} {v:.4g}" for n, v in self.metrics.items() if isinstance(v, float)][:3]
        return f"Run({str(self.path)!r}{steps}{''.join(', ' + f for f in figures)})"

    def _repr_html_(self) -> str:
        """The validations as a table, for notebooks."""
        records = [r for r in self.history if "validation" in r]
        names = [n for n, v in records[-1]["validation"].items() if isinstance(v, float)] if records else []
        head = "".join(f"<th>{escape(n)}</th>" for n in ("step", "seconds", "weights", *names))
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{escape(str(r[n]))}</td>" for n in ("step", "seconds", "weights"))
            + "".join(f"<td>{r['validation'].get(n, float('nan')):.4g}</td>" for n in names)
            + "</tr>"
            for r in records
        )
        return f"<p>{escape(repr(self))}</p><table><tr>{head}</tr>{rows}</table>"
