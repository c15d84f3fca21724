"""THE training loop, for every task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch

from gen.base import distributed
from gen.base.config import Budget
from gen.base.errors import UserError, notify
from gen.datasets.batches import Background
from gen.models.batch import Batch
from gen.models.decoder import DecoderState
from gen.models.model import Model
from gen.training import machine
from gen.training.averages import Averages
from gen.training.options import TrainOptions, learning_rate
from gen.training.run_folder import RunFolder
from gen.training.step import Stepper
from gen.training.validation import Event, Progress, Task, Validator

LOG_EVERY = 50  # steps
VALIDATION_COST = 25  # under a budget of time, train at least this many times as long as validation took
BAD_STEPS = 20  # in a row, gradients not finite: go back (float16's scaler may need a few to find its scale)
RETURNS = 3  # to the last checkpoint, each at half the rate, before giving up


def train(
    model: Model,
    task: Task,
    options: TrainOptions,
    run: RunFolder,
    state: dict[str, Any] | None = None,
    watch: Callable[[Event], None] = lambda event: None,
) -> Progress:
    """Trains until the budget is used up, validation stops improving, or someone stops it.

    Args:
        model: on its device.
        task: data, validation, samples.
        options: how.
        run: where everything is kept.
        state: what `RunFolder.open` returned, to go on from there.
        watch: called every few steps and after every validation.

    Returns:
        Where it stopped.

    Raises:
        KeyboardInterrupt: on Ctrl-C (`Terminated` on SIGTERM), once the step is done and saved; the same command
            goes on from there.
        UserError: gradients stay not finite at ever lower rates, or the end could not be saved.
    """
    try:
        task.validate(model, quick=True)  # a bad path or a full memory shows now, not in an hour
        return _Training(model, task, options, run, state, watch).run()
    except torch.OutOfMemoryError as error:  # beside the micro-batches, which know how to become smaller
        raise UserError(f"the memory of {model.device} is too small: make the model smaller") from error


class _Training:
    """The loop, and what it keeps between steps."""

    def __init__(
        self,
        model: Model,
        task: Task,
        options: TrainOptions,
        run: RunFolder,
        state: dict[str, Any] | None,
        watch: Callable[[Event], None],
    ) -> None:
        self.model, self.options, self.folder, self.watch = model, options, run, watch
        self.batches = Background(task.batches, pin=True) if model.device.type == "cuda" else task.batches
        self.stepper = Stepper(model, task, options)
        self.optimizer, self.scaler = self.stepper.optimizer, self.stepper.scaler
        self.averages = Averages(model, options.ema or 0.0, options.average, options.average_of == "best")
        self.validator = Validator(model, task, self.averages, run, self.stepper.dtype)
        self.budget = Budget.parse(options.budget)
        self.save_every = Budget.parse(options.save_every).amount
        self.now = Progress(next_validation=1 / options.validations)
        self.carried: DecoderState | None = None
        self.window = _Window(model.device)
        if distributed.rank():  # dropout of its own; the first weights are everyone's
            torch.manual_seed(options.seed + distributed.rank())
        if state is None:
            run.forget_after(0)  # of a run that stopped before it had saved anything
        else:
            self._restore(state)
        self.began = self.saved = time.monotonic()
        self.began -= self.now.seconds
        if state is None:
            self._save()  # a full disk shows now, too

    def run(self) -> Progress:
        """Steps, validations and saves in turn, until the end. Every process decides the same."""
        now, groups = self.now, self._groups()
        self.model.train()
        with machine.Interruption() as interruption:
            while True:
                waited = time.monotonic() - self.saved
                used, requested, waited = distributed.all_reduce_max(self._share(), interruption.requested, waited)
                if used >= 1 or requested:
                    now.bad = 0  # those steps were skipped and changed no weight: what there is can be kept
                if used >= min(now.next_validation, 1.0):
                    self._validate(used)
                elif waited > self.save_every:
                    self._save()
                if now.done:
                    return now
                if requested:
                    if not self._save():
                        notify(f"{self.folder.path}: could not be saved; it goes on from the checkpoint before")
                    interruption.stop(int(requested))
                if not self._step(next(groups), used):
                    groups = self._groups()

    def _groups(self) -> Iterator[list[Batch]]:
        """The micro-batches of one step after the other, for ever, from where training stands."""
        while True:
            batches = self.batches.epoch(self.now.epoch, self.now.position)
            while group := list(islice(batches, self.options.accumulate)):
                yield group
            self.now.epoch, self.now.position = self.now.epoch + 1, 0

    def _share(self) -> float:
        """How much of the budget is used up; the main process's clock counts."""
        if not distributed.is_main():
            return 0.0
        now = self.now
        now.seconds = time.monotonic() - self.began
        epochs = now.epoch + now.position / max(self.batches.batches_per_epoch, 1)
        return {"seconds": now.seconds, "epochs": epochs, "steps": now.step}[self.budget.unit] / self.budget.amount

    def _step(self, group: list[Batch], used: float) -> bool:
        """One step. Returns False where training has gone back to an earlier one."""
        now = self.now
        rate = learning_rate(self.options, used, now.rate_factor)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate * parameters["factor"]
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
            self.watch(event)
        return True

    def _event(self, used: float, rate: float) -> Event:
        loss, speed = self.window.close(self.now)
        return Event(self.now, min(used, 1.0), loss, speed, rate, machine.peak_memory(self.model.device))

    def _validate(self, used: float) -> None:
        now, options = self.now, self.options
        now.done = used >= 1
        event = self._event(used, learning_rate(options, min(used, 1.0), now.rate_factor))
        event.validation = self.validator.validate(event)
        (after,) = distributed.all_reduce_max(self._share())
        cost = (after - used) * VALIDATION_COST if self.budget.unit == "seconds" else 0.0
        now.next_validation = _next_validation(used, max(1 / options.validations, cost))
        now.done = now.done or bool(options.patience and now.since_best >= options.patience)
        if now.done:
            now.bad = 0
            self.validator.finish(event)
        elif now.since_best and options.schedule == "plateau":
            now.rate_factor *= 0.5
        if not self._save() and now.done:
            raise UserError(
                f"{self.folder.path}: the trained model could not be saved; make room, and the same command goes "
                "on from the last checkpoint"
            )
        self.watch(event)
        self.window.restart()  # the time spent on validation is not training's

    # -- saving, and going on from there -------------------------------------------------------------------

    def _save(self) -> bool:
        """Keeps all that going on needs, in types that load without running code. Returns whether that worked, or
        had better not be done."""
        if self.now.bad:
            return True  # the last good checkpoint may be needed soon
        layers = self.carried and tuple(tuple(s.cpu() for s in layer) for layer in self.carried.layers)
        own = {"rng": machine.rng_state(), "carried": layers, "window": self.window.state_dict()}
        state = {
            "progress": dict(vars(self.now)),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages.state_dict(),
            "scaler": self.scaler.state_dict(),
            "processes": distributed.all_gather(own),
        }
        self.saved = time.monotonic()
        return self.folder.save_last(self.model, state)

    def _restore(self, state: dict[str, Any]) -> None:
        if state["tokenizer"] != self.model.tokenizer.to_bytes():
            raise UserError(
                f"{self.folder.path}: the data is not what this run was begun with (its vocabulary is another): "
                "choose another --out, perhaps with --init-from"
            )
        self.model.load_state_dict(state["weights"])
        self.model.info.metrics = state["metrics"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.averages.load_state_dict(state["averages"], self.model)
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        vars(self.now).update(state["progress"])
        processes = state["processes"]
        if len(processes) == distributed.size():
            own = processes[distributed.rank()]
            machine.set_rng_state(own["rng"])
            self.window.load_state_dict(own["window"])
            layers, device = own["carried"], self.model.device
            self.carried = layers and DecoderState(tuple(tuple(s.to(device) for s in layer) for layer in layers))
        elif distributed.is_main():
            notify(
                f"{self.folder.path}: trained by {len(processes)} processes so far, and there are "
                f"{distributed.size()} now: dropout and states of streams begin anew"
            )
        self.folder.forget_after(self.now.step)

    def _go_back(self) -> None:
        """To the last good checkpoint, at half the learning rate."""
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


def _next_validation(used: float, interval: float) -> float:
    """The share of the budget at which to validate next; never a moment before the end, which has its own."""
    after = used + interval
    return after if after + interval / 2 < 1 else 1.0


class _Window:
    """Sums over the steps since the last report; tensors, so that no step waits for a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.loss = math.nan  # of the last report, which stands until there are new steps
        self.speed = 0.0
        self.restart()

    def restart(self) -> None:
        self.began = time.monotonic()
        self.loss_sum = torch.zeros((), device=self.device)
        self.num_tokens = 0

    def add(self, loss_sum: torch.Tensor, num_tokens: int) -> None:
        self.loss_sum = self.loss_sum + loss_sum
        self.num_tokens += num_tokens

    def close(self, now: Progress) -> tuple[float, float]:
        """Loss and tokens a second, of all processes, since the last time."""
        loss_sum, num_tokens = distributed.all_reduce_sum(float(self.loss_sum), self.num_tokens)
        if num_tokens:
            self.loss = loss_sum / num_tokens
            self.speed = num_tokens / max(time.monotonic() - self.began, 1e-9)
            now.tokens += int(num_tokens)
        self.restart()
        return self.loss, self.speed

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "loss_sum": self.loss_sum.cpu(), "num_tokens": self.num_tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.restart()
        self.loss, self.num_tokens = state["loss"], state["num_tokens"]
        self.loss_sum = state["loss_sum"].to(self.device)
