"""One training from its options to its figures, without a terminal; `gen train` and `gen.train` use it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from os import PathLike, fspath
from typing import Any

from gen.base import distributed
from gen.base.config import to_dict
from gen.base.errors import ConfigError, UserError
from gen.inputs.processors import SentenceProcessor
from gen.metrics.plots import plot_losses
from gen.models.checkpoint import find_model
from gen.models.device import pick_device
from gen.models.model import Model
from gen.models.transfer import DROPOUT, freeze, with_dropout, with_vocabulary
from gen.search.confidence import RAW, save_calibration
from gen.search.info import ModelInfo
from gen.training import machine
from gen.training.config import SPLIT, TrainConfig, config_class, errors_of, make_config
from gen.training.interfaces import Evaluation, Split
from gen.training.look import LEVELS
from gen.training.registry import find_task
from gen.training.resolve import Resolved, measure_speed, resolve
from gen.training.run import Run
from gen.training.run_folder import RunFolder
from gen.training.task import Task
from gen.training.trackers import check_installed, figures_of, tracked
from gen.training.trainer import Trainer
from gen.training.validation import Event

Callbacks = Callable[[Event], Any] | Sequence[Callable[[Event], Any]] | None
"""What is called with an `Event` every 50 steps and after every validation."""


class Session:
    """One training: construct it, call `prepare`, fit its `trainer`, call `finish`.

    Args:
        task: the class of the task.
        config: the options as the user gave them.
        given: names of the options that the user gave.
        command: the command line or call, for the model card.
        writes: whether the training will write into the run folder; False for a dry run.
        errors: further errors in the options, one line each.

    Attributes:
        task: the task; `prepare` reads its data.
        model: the model on its device, after `prepare`.
        resolved: the options with all choices made, after `prepare`.
        folder: the run folder.

    Raises:
        ConfigError: wrong options, all of them.
        UserError: the run folder holds another run, or ``init_from`` a model of another task.
    """

    model: Model
    resolved: Resolved
    goes_on = False
    """Whether the model to start from is what this run has made of it."""
    config_class = staticmethod(config_class)
    """Task → the dataclass of a session's options."""

    def __init__(
        self,
        task: type[Task],
        config: TrainConfig,
        *,
        given: Collection[str] = (),
        command: str = "",
        writes: bool = True,
        errors: Sequence[str] = (),
    ) -> None:
        begun = None
        if writes and not config.out:
            errors = [*errors, f"--out: name a folder for the run, such as runs/{task.name}"]
        errors = [*errors, *machine.determinism_errors(config.train.deterministic)]
        if found := [*errors_of(task(config), config, given), *errors]:
            raise ConfigError(found)
        distributed.start()
        self.command, self.writes = command, writes
        self.device = pick_device(config.train.device)
        self.folder = RunFolder(config.out, to_dict(config))
        if writes:
            check_installed(config.train.track)
            self.folder.check()
        if path := config.train.init_from:
            begun = self._begun(path)
            if begun.info.task != task.name:
                raise UserError(
                    f"--init-from {path}: is a {begun.info.task or 'Python'} model, not a {task.name} one"
                )
            config = _as_begun(config, begun, given)
            dropout = {name: getattr(config.model, name) for name in DROPOUT & {*given}}
            if dropout := {name: share for name, share in dropout.items() if share is not None}:
                with machine.private_rng(config.train.seed):
                    begun = with_dropout(begun, dropout)
        self.config, self.task = config, task(config, begun)

    def prepare(self) -> None:
        """Reads the data, chooses values for options that are None (a resumed run: reads its choices), and makes
        the model and the batches."""
        task = self.task
        with distributed.main_first():
            task.split = self._read()
        recorded = self.folder.resolved() if self.writes else None
        digest = getattr(task.split, "digest", "")
        if recorded:
            if digest and (recorded["measured"].get("data_digest") or digest) != digest:
                raise UserError(
                    f"{self.folder.path}: the data has changed since this run was started: choose another --out, "
                    f"perhaps with --init-from {self.folder.path}"
                )
            where = str(self.folder.path / "resolved.yaml")
            self.resolved = Resolved.read(recorded, self.config, where)
        else:
            self.resolved = resolve(task, self.config, task.split, self._measure)
        if digest:
            self.resolved.measured["data_digest"] = digest
        config = task.config = self.resolved.config
        self.folder.chosen = self.resolved.to_dict()
        with machine.private_rng(config.train.seed):
            self.model = self._make(config)
        task.batches = task.make_batches(self.model, task.split, config)

    def _begun(self, path: str) -> Model:
        """The model to start from. A run that has been saved is resumed from what it has made of it: the other may
        be gone, or have been trained anew."""
        if self.writes:
            with suppress(UserError):  # it is new, or what it has is damaged
                model = Model.load(self.folder.path)
                self.goes_on = True
                return model
        return Model.load(path)

    def _read(self) -> Any:
        """Reads the data."""
        split = self.task.read(self.config.data)
        if isinstance(split, Split) and not (split.train and split.valid):
            part = "validation" if split.train else "training"
            raise UserError(f"{' '.join(self.task.sources(self.config.data))}: the {part} part has no examples")
        return split

    def _measure(self, config: TrainConfig, seconds: float) -> float:
        """Target tokens per second of training with these options on this machine."""
        task = self.task
        task.config = config
        with machine.private_rng(config.train.seed):
            begun = task.begun
            before = {name: weight.clone() for name, weight in begun.state_dict().items()} if begun else {}
            if begun and config.train.new_vocabulary:
                begun, _ = with_vocabulary(begun, *task.tokenizers(task.split))
            if begun:
                task.change(begun, config.model)
            model = (begun or task.build(config.model, task.split)).to(self.device)
            batches = task.make_batches(model, task.split, config)
            speed = measure_speed(task, model, batches, config.train, seconds)
            if task.begun:
                task.begun.load_state_dict(before)
        return speed

    def _make(self, config: TrainConfig) -> Model:
        """The model to train, on the device."""
        task, begun = self.task, self.task.begun
        if begun is None:
            model = task.build(config.model, task.split)
        elif config.train.new_vocabulary:
            model, shared = with_vocabulary(begun, *task.tokenizers(task.split))
            if not self.goes_on:
                task.say(f"Of {len(model.tokenizer):,} tokens {shared:,} were known to {config.train.init_from}.")
        else:
            model = begun
        if begun is not None:
            task.change(model, config.model)
        model.info = ModelInfo(
            task=task.name,
            ends_with_eos=task.ends_with_eos,
            search=task.search_defaults(model),
            training=self._record(),
            data=" ".join(task.sources(config.data)),
        )
        model.calibration = None  # what one to start from says holds no more
        if patterns := config.train.freeze:
            task.say(f"{freeze(model, patterns):,} parameters are frozen.")
        return model.to(self.device)

    def _record(self) -> dict[str, Any]:
        """The record of the training for the model folder."""
        from gen import __version__

        made = self.resolved.to_dict()
        names = {"python": platform.python_version(), "torch": version("torch"), "gen-toolkit": __version__}
        return {
            "command": self.command,
            **made["options"],
            "reasons": made["reasons"],
            "measured": made["measured"],
            "versions": names,
            "split": SPLIT,
            "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }

    def trainer(self, callbacks: Sequence[Callable[[Event], Any]] = ()) -> Trainer:
        """The trainer of the model, with this run folder."""
        options = self.resolved.config.train
        return Trainer(self.model, self.task, options, out=self.folder, callbacks=callbacks)

    @contextmanager
    def tracked(self) -> Iterator[Any]:
        """A function that logs to the trackers named in the options; see `tracked`. The run folder is locked: who
        is refused there must not end the record of a training that goes on."""
        names = self.config.train.track if distributed.is_main() else ()

        def tell(name: str, where: str) -> None:
            self.task.say(f"--track {name}: {where}")
            if where.startswith("http"):  # for the model's card; a command is of this machine only
                self.model.info.training.setdefault("trackers", {})[name] = where

        with self.folder.locked(), tracked(names, self.folder.path, self.resolved.to_dict(), tell) as log:
            yield log

    def finish(self) -> tuple[Model, Evaluation]:
        """Loads, evaluates and calibrates the best model, and plots the loss. Call it in the main process only."""
        model = Model.load(self.folder.path, self.device)
        calibrates = model.calibration is None
        if calibrates:
            model.calibration = RAW
        plots = self.folder.path / "plots"
        plots.mkdir(exist_ok=True)
        first = self.task.metrics[0].name
        plot_losses(list(self.folder.records()), plots / "loss.png", metric="" if first == "loss" else first)
        found = self.task.finish(model, self.folder.path)
        if calibrates:
            model.calibration = None
            with suppress(UserError):  # there is too little to calibrate it on
                model.calibration = self.task.calibrate(found.judged)
                save_calibration(model.calibration, find_model(self.folder.path))
        return model, found


def _as_begun(config: TrainConfig, begun: Model, given: Collection[str]) -> TrainConfig:
    """The options, with the case of what the model to start from reads and, unless a new vocabulary is built, the
    level of its own. Raises `UserError` if another is ``given``."""
    start = f"--init-from {config.train.init_from}"
    level, lowercase = (getattr(config.data, name, None) for name in ("level", "lowercase"))
    sentences = [p for p in begun.processors.values() if isinstance(p, SentenceProcessor)]
    kind = (sentences[0] if sentences else begun).tokenizer.kind
    fixed: dict[str, Any] = {}
    if level in LEVELS and kind in LEVELS and kind != level and not config.train.new_vocabulary:
        fixed["level"] = kind
        if "level" in given:
            raise UserError(
                f"--level {level}: the vocabulary is that of {start}, whose level is {kind}; --new-vocabulary "
                "builds another"
            )
    if sentences and lowercase is not None and lowercase != sentences[0].lowercase:
        fixed["lowercase"] = sentences[0].lowercase
        if "lowercase" in given:
            raise UserError(f"--lowercase: {start} reads {'cased' if lowercase else 'lower-case'} sentences")
    return replace(config, data=replace(config.data, **fixed))


def log_to(log: Callable[[dict[str, float], int], None]) -> Callable[[Event], None]:
    """A trainer callback that passes the figures of events to a tracker."""
    return lambda event: log(figures_of({**event.record(), "validation": event.validation}), event.progress.step)


def train(
    task: str | type[Task],
    *,
    out: str | PathLike[str] = "",
    callbacks: Callbacks = (),
    **options: Any,
) -> Run:
    """Trains a model: `gen train TASK` with its options as keyword arguments.

    Changes no global state and prints nothing, except for a progress bar in notebooks.

    Args:
        task: "text", "translate", "caption", "classify", the name of another registered task, or a task class.
        out: the run folder; an unfinished run with the same options is resumed. "": a temporary folder, deleted
            with the returned object.
        callbacks: functions, or one, called with an `Event` every 50 steps and after every validation.
        options: the options of the command line, with underscores.

    Raises:
        ConfigError: unknown names (with the nearest known one) or wrong values, all at once.
        UserError: unreadable data, a folder that holds another run, and other bad input.

    Example::

        run = gen.train("translate", train="train.{en,de}", out="runs/en-de", budget="25m")
        print(run.metrics["bleu"], run.model("A dog runs."))
    """
    found = find_task(task) if isinstance(task, str) else task
    return run_session(Session, found, f"gen.train({found.name!r}, ", options, out, callbacks)


def run_session(
    kind: type[Session],
    task: type[Task],
    call: str,
    options: Mapping[str, Any],
    out: str | PathLike[str],
    callbacks: Callbacks,
) -> Run:
    """What `train` does, with a session of any kind; ``call`` is the beginning of the call, for the model card."""
    temporary = None
    callbacks = [callbacks] if callable(callbacks) else callbacks or ()
    if not out:
        import tempfile

        temporary = tempfile.TemporaryDirectory(prefix="gen-run-")
        out = temporary.name
    config = make_config(task, {**options, "out": fspath(out)}, kind.config_class(task))
    typed = ", ".join(f"{name}={value!r}" for name, value in options.items())
    session = kind(task, config, given=options.keys(), command=f"{call}{typed})")
    session.prepare()
    from gen.training.display import notebook_progress

    with session.tracked() as log, notebook_progress(config.train, session.task.describe) as shown:
        trainer = session.trainer([*shown, *callbacks, log_to(log)])
        trainer.fit()
    with distributed.main_first():  # the others find the best weights calibrated
        if distributed.is_main() and trainer.done:  # a stopped training is not evaluated
            with distributed.alone():
                session.finish()
    return Run(session.folder.path, temporary)
