"""Loggers for TensorBoard, Weights & Biases and MLflow, with the figures of `metrics.jsonl`."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gen.base.errors import UserError, notify

Log = Callable[[Mapping[str, float], int], None]
"""Logs figures, name → value, at a step."""

Tracked = tuple[Log, str]
"""A logger, and where to look at what it logs: an address, or a command."""


@contextmanager
def tensorboard(folder: Path, config: Mapping[str, Any]) -> Iterator[Tracked]:
    """TensorBoard event files in ``tensorboard/``."""
    _need("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    with writer:
        writer.add_text("config", str(config))

        def log(figures: Mapping[str, float], step: int) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

        yield log, f"tensorboard --logdir {shlex.quote(str(folder))}"


@contextmanager
def wandb(folder: Path, config: Mapping[str, Any]) -> Iterator[Tracked]:
    """Weights & Biases: offline, in ``wandb/``, unless WANDB_MODE is set."""
    library = _need("wandb")
    mode = os.environ.get("WANDB_MODE", "offline")
    # One id per run folder, so that a resumed training continues the same W&B run.
    run = library.init(
        project="gen",
        name=folder.name,
        dir=str(folder),
        config=dict(config),
        mode=mode,
        id=_id(folder),
        resume="allow",
        settings=library.Settings(quiet=True),
    )
    address = run.url if mode == "online" else None
    where = address or f"wandb sync {shlex.quote(str(Path(run.dir).parent))}"
    try:
        yield lambda figures, step: run.log(dict(figures), step=step), where
    finally:
        run.finish()


@contextmanager
def mlflow(folder: Path, config: Mapping[str, Any]) -> Iterator[Tracked]:
    """MLflow: in ``mlflow.db``, unless MLFLOW_TRACKING_URI is set."""
    library = _need("mlflow")
    library.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.absolute() / 'mlflow.db'}"))
    if library.get_experiment_by_name("gen") is None:  # otherwise MLflow puts artifacts in the working directory
        library.create_experiment("gen", artifact_location=(folder / "mlartifacts").absolute().as_uri())
    library.set_experiment("gen")
    same = f"tags.folder = '{_id(folder)}'"
    known = library.search_runs(filter_string=same, output_format="list", max_results=1)
    with library.start_run(run_id=known[0].info.run_id if known else None, run_name=folder.name) as run:
        library.set_tag("folder", _id(folder))
        library.log_dict(dict(config), "config.yaml")
        server, about = library.get_tracking_uri(), run.info
        where = f"{server}/#/experiments/{about.experiment_id}/runs/{about.run_id}"
        if not server.startswith("http"):
            where = f"mlflow ui --backend-store-uri {shlex.quote(server)}"
        yield lambda figures, step: library.log_metrics(dict(figures), step=step), where


TRACKERS = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}


@contextmanager
def tracked(
    names: Sequence[str],
    folder: Path,
    config: Mapping[str, Any],
    tell: Callable[[str, str], None] = lambda name, where: None,
) -> Iterator[Log]:
    """Logs to several trackers within the context.

    Args:
        names: keys of `TRACKERS`.
        folder: the run folder; trackers store their files in it.
        config: the configuration of the run, plain values.
        tell: called with the name of each, and where to look at it.

    Raises:
        UserError: a tracker cannot start, or is not installed (the message gives the command).

    Use::

        with tracked(["tensorboard"], Path("runs/book"), {}) as log:
            log({"loss": 1.4}, 100)
    """
    logs: dict[str, Log] = {}
    with ExitStack() as stack:
        for name in names:
            manager = TRACKERS[name](folder, config)
            try:
                logs[name], where = manager.__enter__()
            except UserError:
                raise
            except Exception as error:
                raise UserError(f"--track {name}: cannot start ({type(error).__name__}: {error})") from error
            stack.callback(_close, name, manager)
            tell(name, where)

        def log_to_all(figures: Mapping[str, float], step: int) -> None:
            for name, log in list(logs.items()):
                try:
                    log(figures, step)
                except Exception as error:  # a full disk or a lost server must not end the training
                    notify(f"--track {name}: stopped ({type(error).__name__}: {error})")
                    del logs[name]

        yield log_to_all


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a record of ``metrics.jsonl``; those of a validation are named ``valid/…``.

    Example:
        >>> figures_of({"step": 5, "loss": 2.0, "validation": {"bleu": 30.1, "bleu_signature": "…"}})
        {'loss': 2.0, 'valid/bleu': 30.1}
    """
    found = {name: value for name, value in record.items() if name != "step"}
    found |= {f"valid/{name}": value for name, value in found.pop("validation", {}).items()}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _close(name: str, manager: AbstractContextManager[Tracked]) -> None:
    try:
        manager.__exit__(None, None, None)
    except Exception as error:
        notify(f"--track {name}: not closed ({type(error).__name__}: {error})")


def _id(folder: Path) -> str:
    """An id of the run folder, in characters that every tracker accepts."""
    return hashlib.blake2b(str(folder.absolute()).encode(errors="replace"), digest_size=8).hexdigest()


def check_installed(names: Sequence[str]) -> None:
    """Raises `UserError` if the library of a tracker is not there; imports none."""
    for name in names:
        if name in sys.modules:
            continue
        spec = find_spec(name)
        if spec is None or spec.loader is None:  # without a loader: a folder of that name, such as W&B's own
            raise _missing(name)


def _missing(name: str) -> UserError:
    return UserError(f"--track {name}: not installed; pip install 'gen-toolkit[{name}]'")


def _need(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise _missing(name) from error
