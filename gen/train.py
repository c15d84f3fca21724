"""THE training loop, for every task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch

from gen import device as machine
from gen.average import Averages
from gen.config import Budget
from gen.data import Batch
from gen.decoder import DecoderState
from gen.errors import UserError
from gen.model import LossOutput, Model
from gen.optim import TrainOptions, learning_rate, make_optimizer
from gen.run import RunFolder
from gen.validation import Event, Judge, Progress, Task

LOG_EVERY = 50  # steps
VALIDATION_COST = 25  # under a budget of time, train at least this many times as long as validation took


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
        UserError: the loss is no longer finite.
    """
    task.validate(model, quick=True)  # a bad path or a full memory shows now, not in an hour
    optimizer = make_optimizer(model, options)
    averages = Averages(model, options.ema or 0.0, options.average, options.average_of == "best")
    dtype = machine.compute_dtype(options.precision, model.device)
    scaler = torch.amp.GradScaler(model.device.type, enabled=dtype == torch.float16)
    now, carried = Progress(next_validation=1 / options.validations), None
    if state is None:
        run.forget_after(0)  # of a run that stopped before it had saved anything
    else:
        now, carried = _restore(model, optimizer, averages, scaler, run, state)
    judge = Judge(model, task, averages, run, dtype)
    budget = Budget.parse(options.budget)
    began = time.monotonic() - now.seconds
    window = _Window()

    def share() -> float:
        now.seconds = time.monotonic() - began
        epochs = now.epoch + now.position / max(task.batches.batches_per_epoch, 1)
        return {"seconds": now.seconds, "epochs": epochs, "steps": now.step}[budget.unit] / budget.amount

    def save() -> None:
        run.save_last(model, _snapshot(now, optimizer, averages, scaler, carried))

    model.train()
    with machine.Interruption() as interruption:
        while not now.done:
            batches = task.batches.epoch(now.epoch, now.position)
            while group := list(islice(batches, options.accumulate)):
                used = share()
                rate = learning_rate(options, used, now.rate_factor)
                for parameters in optimizer.param_groups:
                    parameters["lr"] = rate * parameters["factor"]
                loss = partial(task.loss, model, options=options, share=used)
                carried = _step(model, loss, group, carried, optimizer, scaler, dtype, options, window)
                now.step += 1
                now.position += len(group)
                averages.step(model, now.step)
                if now.step % LOG_EVERY == 0 or now.step == 1:
                    event = window.event(now, share(), rate)
                    run.log(event.record())
                    watch(event)
                if (used := share()) >= min(now.next_validation, 1.0):
                    now.done = used >= 1
                    event = window.event(now, used, rate)
                    event.validation = judge.validate(event)
                    cost = (share() - used) * VALIDATION_COST if budget.unit == "seconds" else 0.0
                    now.next_validation = _next_validation(used, max(1 / options.validations, cost))
                    now.done = now.done or bool(options.patience and now.since_best >= options.patience)
                    if now.done:
                        judge.finish(event)
                    elif now.since_best and options.schedule == "plateau":
                        now.rate_factor *= 0.5
                    save()
                    watch(event)
                    window.restart()  # the time spent on validation is not training's
                if interruption.requested and not now.done:
                    save()
                    interruption.stop()
                if now.done:
                    break
            else:
                now.epoch, now.position = now.epoch + 1, 0
    return now


def _next_validation(used: float, interval: float) -> float:
    """The share of the budget at which to validate next; never a moment before the end, which has its own."""
    after = used + interval
    return after if after + interval / 2 < 1 else 1.0


class _Window:
    """Sums over the steps since the last report; tensors, so that no step waits for a device."""

    def __init__(self) -> None:
        self.loss = math.nan  # of the last report, which stands until there are new steps
        self.speed = 0.0
        self.restart()

    def restart(self) -> None:
        self.began = time.monotonic()
        self.loss_sum: torch.Tensor | float = 0.0
        self.num_tokens = 0

    def add(self, loss_sum: torch.Tensor, num_tokens: int) -> None:
        self.loss_sum = self.loss_sum + loss_sum
        self.num_tokens += num_tokens

    def event(self, now: Progress, share: float, rate: float) -> Event:
        if self.num_tokens:
            self.loss = float(self.loss_sum) / self.num_tokens
            self.speed = self.num_tokens / max(time.monotonic() - self.began, 1e-9)
            now.tokens += self.num_tokens
        if not math.isfinite(self.loss):
            raise UserError(f"the loss is {self.loss} at step {now.step}: lower --learning-rate or --clip")
        self.restart()
        return Event(now, min(share, 1.0), self.loss, self.speed, rate)


def _step(
    model: Model,
    loss: Callable[[Batch, DecoderState | None], LossOutput],
    group: list[Batch],
    carried: DecoderState | None,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    dtype: torch.dtype,
    options: TrainOptions,
    window: _Window,
) -> DecoderState:
    """One optimizer step over the batches of ``group``: the mean is taken once, over all their tokens."""
    optimizer.zero_grad(set_to_none=True)
    total = 0
    for batch in group:
        batch = batch.to(model.device)
        with machine.autocast(model.device, dtype):
            output = loss(batch, carried if batch.carries else None)
        scaler.scale(output.loss_sum).backward()
        carried = output.state.detach()
        total += output.num_tokens
        window.add(output.loss_sum.detach(), output.num_tokens)
    scaler.unscale_(optimizer)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    torch._foreach_div_(gradients, max(total, 1))
    torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
    scaler.step(optimizer)
    scaler.update()
    return carried  # type: ignore[return-value]


def _snapshot(
    now: Progress,
    optimizer: torch.optim.Optimizer,
    averages: Averages,
    scaler: torch.amp.GradScaler,
    carried: DecoderState | None,
) -> dict[str, Any]:
    """All that going on needs, in types that load without running code."""
    return {
        "progress": dict(vars(now)),
        "optimizer": optimizer.state_dict(),
        "averages": averages.state_dict(),
        "scaler": scaler.state_dict(),
        "carried": None if carried is None else carried.layers,
        "rng": machine.rng_state(),
    }


def _restore(
    model: Model,
    optimizer: torch.optim.Optimizer,
    averages: Averages,
    scaler: torch.amp.GradScaler,
    run: RunFolder,
    state: dict[str, Any],
) -> tuple[Progress, DecoderState | None]:
    run.load_last(model)
    optimizer.load_state_dict(state["optimizer"])
    averages.load_state_dict(state["averages"], model)
    scaler.load_state_dict(state["scaler"])
    machine.set_rng_state(state["rng"])
    now = Progress(**state["progress"])
    run.forget_after(now.step)
    layers = state["carried"]
    if layers is None:
        return now, None
    moved = tuple(tuple(s.to(model.device) for s in layer) for layer in layers)
    return now, DecoderState(moved)
