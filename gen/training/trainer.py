"""The training loop, for every task."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from os import PathLike
from typing import Any

import torch

from gen.base import distributed
from gen.base.config import Budget, to_dict
from gen.base.errors import ConfigError, UserError, notify
from gen.datasets.batches import Background
from gen.datasets.streamed import StreamedBatches
from gen.models import checkpoint
from gen.models.batch import Batch
from gen.models.checkpoint import not_finite
from gen.models.decoder import DecoderState
from gen.models.device import pick_device
from gen.models.model import Model
from gen.training import machine
from gen.training.averages import Averages
from gen.training.options import TrainOptions, learning_rate
from gen.training.run import Run
from gen.training.run_folder import RunFolder
from gen.training.step import Stepper
from gen.training.task import Task
from gen.training.validation import Event, Progress, Validator, Window, next_validation, read_progress

LOG_EVERY = 50  # steps
VALIDATION_COST = 25  # with a budget of time: train at least this many times as long as validation takes
BAD_STEPS = 20  # consecutive NaN gradients before going back (float16's scaler needs a few to find its scale)
RETURNS = 3  # to the last checkpoint, each at half the learning rate, before giving up


class Trainer:
    """Trains a model on a task until the budget is used up, validation stops improving, or `stop` is called.

    Changes no global state: no signal handlers, no random generators, no console. At the end the model has its
    last weights; the best ones are in the run folder.

    Args:
        model: the model; moved to the device of the options.
        task: with ``batches``, or with ``split`` and ``config``, from which they are made; its `loss`, `validate`
            and `sample` are called.
        options: of the training.
        out: the run folder; an unfinished run in it is resumed. "": a temporary folder, deleted with the `Run`.
        callbacks: called with an `Event` every 50 steps and after every validation.
        config: plain values that must be equal for the run to be resumed; default: the options.

    Raises:
        ConfigError: options that are wrong, all at once.
        UserError: gradients are not finite even at lower rates, too little memory, a folder that holds another
            run, or the last state could not be saved.

    Example::

        from tasks.text.task import Text

        task = Text.from_options(data="book.txt", budget="2m")
        model = task.build(task.config.model, task.split)
        run = gen.Trainer(model, task, task.config.train, out="runs/mine", callbacks=[print]).fit()
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        options: TrainOptions,
        *,
        out: str | PathLike[str] | RunFolder = "",
        callbacks: Sequence[Callable[[Event], Any]] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if found := options.errors() + machine.determinism_errors(options.deterministic):
            raise ConfigError(found)
        self.model, self.task, self.options, self.callbacks = model, task, options, callbacks
        if not hasattr(task, "batches"):
            task.batches = task.make_batches(model, task.split, task.config)
        self.temporary = None if out else tempfile.TemporaryDirectory(prefix="gen-run-")
        if isinstance(out, RunFolder):
            self.folder = out
        else:
            path = self.temporary.name if self.temporary else out
            self.folder = RunFolder(path, dict(config or {"train": to_dict(options)}))
        self.budget = Budget.parse(options.budget)
        self.save_every = Budget.parse(options.save_every).amount
        self.stopping = False
        self.now = Progress()

    def stop(self) -> None:
        """Ends the training after the current step; its state is saved, and `fit` returns."""
        self.stopping = True

    @property
    def done(self) -> bool:
        """Whether the training has reached its end."""
        return self.now.done

    def fit(self) -> Run:
        """Trains, or resumes from the run folder's last checkpoint. Returns the run."""
        self.model.to(pick_device(self.options.device))
        with self.folder.locked(), machine.private_rng(self.options.seed):
            state = self.folder.open()
            if state:
                self._check_vocabulary(state)
                with checkpoint.checked(self.folder.path / "last"):
                    vars(self.now).update(read_progress(state["progress"]))
            again = self.now.done and Budget.parse(self.now.budget or self.options.budget) != self.budget
            if state and self.now.done and not again:
                with checkpoint.checked(self.folder.path / "last"):
                    self.model.load_state_dict(state["weights"])
            if not self.now.done or again:
                try:
                    self.task.validate(self.model, quick=True)  # finds bad paths and too little memory at once
                    self._begin(state, again)
                    self._run()
                except torch.OutOfMemoryError as error:  # outside of the micro-batches, which can be split
                    raise UserError(
                        f"the memory of {self.model.device} is too small: make the model smaller"
                    ) from error
        self.model.eval()
        return Run(self.folder.path, self.temporary)

    def _begin(self, state: dict[str, Any] | None, again: bool = False) -> None:
        """Prepares for the first step: of a new run, of a resumed one, or ``again`` of one that was done and whose
        budget has grown: then the schedule begins anew, from the best weights."""
        model, options = self.model, self.options
        pinned = model.device.type == "cuda"
        self.batches = Background(self.task.batches, pin=True) if pinned else self.task.batches
        schedule: dict[str, Any] = {"next_validation": 1 / options.validations, "budget": str(options.budget)}
        if again:
            model.load_state_dict(Model.load(self.folder.path).state_dict())
            anew: dict[str, Any] = {"done": False, "since_best": 0, "rate_factor": 1.0, "bad": 0, "returns": 0}
            self.now = replace(self.now, offset=self._used(), **schedule, **anew)
        else:
            self.now = Progress(**schedule)
        self.stepper = Stepper(model, self.task, options)
        self.optimizer, self.scaler = self.stepper.optimizer, self.stepper.scaler
        self.averages = Averages(model, options.ema or 0.0, options.average, options.average_of == "best")
        self.validator = Validator(model, self.task, self.averages, self.folder, self.stepper.dtype)
        self.carried: DecoderState | None = None
        self.window = Window(model.device)
        if distributed.rank():  # different dropout per process; the initial weights are broadcast
            torch.manual_seed(options.seed + distributed.rank())
        if state is None:
            self.folder.forget_after(0)  # of a run that stopped before its first save
        else:
            with checkpoint.checked(self.folder.path / "last"):
                self._seek(state) if again else self._restore(state)
        self.began = self.saved = time.monotonic()
        self.began -= self.now.seconds
        if state is None or again:
            self._save()  # finds a full disk at once

    def _run(self) -> None:
        """Alternates steps, validations and saves until the end. All processes take the same decisions."""
        now, groups = self.now, self._groups()
        self.model.train()
        while True:
            waited = time.monotonic() - self.saved
            used, stopping, waited = distributed.all_reduce_max(self._share(), self.stopping, waited)
            if used >= 1 or stopping:
                now.bad = 0  # skipped steps changed no weight, so the state can be saved
            if stopping and used < 1:  # a validation that is due waits for who goes on
                if not self._save():
                    notify(f"{self.folder.path}: could not be saved; it will resume from the checkpoint before")
                return
            if used >= min(now.next_validation, 1.0):
                if not_finite(self.model.state_dict()):
                    self._go_back()
                    groups = self._groups()
                    continue
                self._validate(used)
            elif waited > self.save_every:
                self._save()
            if now.done:
                return
            if not self._step(next(groups), used):
                groups = self._groups()

    def _groups(self) -> Iterator[list[Batch]]:
        """The micro-batches of each next step, endlessly, from the current position."""
        while True:
            batches = self.batches.epoch(self.now.epoch, self.now.position)
            while group := list(islice(batches, self.options.accumulate)):
                yield group
            self.now.epoch, self.now.position = self.now.epoch + 1, 0

    def _share(self) -> float:
        """The share of the budget that is used up, by the main process's clock; 0 in other processes."""
        if not distributed.is_main():
            return 0.0
        self.now.seconds = time.monotonic() - self.began
        offset = self.now.offset
        return (self._used() - offset) / max(self.budget.amount - offset, 1e-9)

    def _used(self) -> float:
        """What is used up, in the budget's unit."""
        now = self.now
        epochs = now.epoch + now.position / max(self.batches.batches_per_epoch, 1)
        return {"seconds": now.seconds, "epochs": epochs, "steps": float(now.step)}[self.budget.unit]

    def _step(self, group: list[Batch], used: float) -> bool:
        """One step. Returns False if training went back to an earlier checkpoint."""
        now = self.now
        rate = learning_rate(self.options, used, now.rate_factor)
        self.stepper.set_rate(rate)
        result = self.stepper(group, self.carried, used)
        now.step += 1
        now.position += len(group)
        if result.finite:
            now.bad = 0
            self.carried = result.carried
            self.averages.step(self.model, now.step)
            self.window.add(result.loss_sum, result.num_tokens)
        else:
            now.skipped, now.bad = now.skipped + 1, now.bad + 1
            if now.bad == BAD_STEPS:
                self._go_back()
                return False
        if now.step % LOG_EVERY == 0 or now.step == 1:
            event = self._event(used, rate)
            self.folder.log(event.record())
            self._tell(event)
        return True

    def _event(self, used: float, rate: float) -> Event:
        loss, speed = self.window.close(self.now)
        memory = machine.peak_memory(self.model.device)
        return Event(self.now, min(used, 1.0), loss, speed, rate, memory, stop=self.stop)

    def _tell(self, event: Event) -> None:
        for callback in self.callbacks:
            callback(event)

    def _validate(self, used: float) -> None:
        now, options = self.now, self.options
        now.done = used >= 1
        event = self._event(used, learning_rate(options, min(used, 1.0), now.rate_factor))
        event.validation = self.validator.validate(event)
        (after,) = distributed.all_reduce_max(self._share())
        cost = (after - used) * VALIDATION_COST if self.budget.unit == "seconds" else 0.0
        now.next_validation = next_validation(used, max(1 / options.validations, cost))
        now.done = now.done or bool(options.patience and now.since_best >= options.patience)
        if now.done:
            now.bad = 0
            self.validator.finish(event)
        elif now.since_best and options.schedule == "plateau":
            now.rate_factor *= 0.5
        if not self._save() and now.done:
            raise UserError(
                f"{self.folder.path}: the trained model could not be saved; make room, and repeat the command to "
                "resume from the last checkpoint"
            )
        self._tell(event)
        self.window.restart()  # do not count the time of the validation

    # -- saving and resuming ------------------------------------------------------------------------------

    def _save(self) -> bool:
        """Saves the state to resume from, in types that load without running code. False only if a needed save
        failed."""
        if self.now.bad:
            return True  # the last good checkpoint may be needed soon
        layers = self.carried and tuple(tuple(s.cpu() for s in layer) for layer in self.carried.layers)
        own = {"rng": machine.rng_state(), "carried": layers, "window": self.window.state_dict()}
        state: dict[str, Any] = {
            "progress": dict(vars(self.now)),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages.state_dict(),
            "scaler": self.scaler.state_dict(),
            "processes": distributed.all_gather(own),
        }
        if isinstance(self.task.batches, StreamedBatches):
            state["place"] = self.task.batches.place(self.now.epoch)
        self.saved = time.monotonic()
        return self.folder.save_last(self.model, state)

    def _check_vocabulary(self, state: dict[str, Any]) -> None:
        """Raises `UserError` if a run that is resumed, or done, had other data."""
        if state["tokenizer"] != self.model.tokenizer.to_bytes():
            raise UserError(
                f"{self.folder.path}: the data has changed since this run was started (its vocabulary differs): "
                "choose another --out, perhaps with --init-from"
            )

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["weights"])
        checkpoint.load_moments(self.optimizer, state["optimizer"])
        self.averages.load_state_dict(state["averages"], self.model)
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        vars(self.now).update(read_progress(state["progress"]))
        self._seek(state)
        processes = state["processes"]
        if len(processes) == distributed.size():
            own = processes[distributed.rank()]
            machine.set_rng_state(own["rng"])
            self.window.load_state_dict(own["window"])
            self.carried = self.stepper.read_carried(own["carried"])
        elif distributed.is_main():
            notify(
                f"{self.folder.path}: trained by {len(processes)} processes so far, now by {distributed.size()}: "
                "random numbers and stream states are reset"
            )
        self.folder.forget_after(self.now.step)

    def _seek(self, state: dict[str, Any]) -> None:
        """Tells streamed data where a saved state had arrived."""
        if isinstance(self.task.batches, StreamedBatches) and "place" in state:
            self.task.batches.seek(self.now.epoch, state["place"])

    def _go_back(self) -> None:
        """Returns to the last good checkpoint, at half the learning rate."""
        bad, returns, factor = self.now.step, self.now.returns + 1, self.now.rate_factor / 2
        seconds, skipped = self.now.seconds, self.now.skipped
        state = self.folder.read_last()
        if returns > RETURNS or state is None:
            raise UserError(
                f"the loss or its gradient is not finite at step {bad:,}, also after going back {RETURNS} times, "
                "each at half the learning rate: lower --learning-rate or --clip"
            )
        self._restore(state)
        now = self.now
        now.returns, now.rate_factor, now.seconds, now.skipped, now.bad = returns, factor, seconds, skipped, 0
        if distributed.is_main():
            notify(
                f"the loss or its gradient was not finite for some steps before step {bad:,}: going back to step "
                f"{now.step:,} with {factor:g} of the learning rate"
            )
