"""One optimizer step: micro-batches, several processes, full memories, gradients that are not finite."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gen import device as machine
from gen import distributed
from gen.data import Batch
from gen.decoder import DecoderState
from gen.errors import UserError, complain
from gen.model import LossOutput, Model
from gen.optim import TrainOptions, make_optimizer
from gen.validation import Task


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Attributes:
        loss_sum: a scalar on the device, nats, of this process's rows.
        num_tokens: their number.
        carried: the state after the last batch, for a batch that carries on.
        finite: the gradient was; if not, no weight was changed.
    """

    loss_sum: Tensor
    num_tokens: int
    carried: DecoderState
    finite: bool


class _Loss(nn.Module):
    """A task's loss as a module's forward, which is what `DistributedDataParallel` wraps."""

    def __init__(self, model: Model, task: Task, options: TrainOptions, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.task, self.options, self.dtype = model, task, options, dtype

    def forward(self, batch: Batch, carried: DecoderState | None, share: float) -> LossOutput:
        with machine.autocast(self.model.device, self.dtype):
            output = self.task.loss(self.model, batch, carried if batch.carries else None, self.options, share)
        return replace(output, state=output.state.detach())


class Stepper:
    """Does optimizer steps.

    The gradient is that of the mean over all tokens of all micro-batches of all processes: how they are dealt out
    changes nothing. Where a GPU's memory is too small for a micro-batch, it is cut into pieces from then on.

    Args:
        model: on its device, in training mode.
        task: whose loss to make small.
        options: how to train.

    Attributes:
        dtype: what is computed in.
        optimizer: of the model's weights.
        scaler: of the loss, enabled for float16.
        pieces: how many a micro-batch is cut into.

    Example:
        >>> stepper = Stepper(model, Task(), TrainOptions())
        >>> result = stepper([batch], None, share=0.0)
    """

    def __init__(self, model: Model, task: Task, options: TrainOptions) -> None:
        self.model, self.clip = model, options.clip
        self.dtype = machine.compute_dtype(options.precision, model.device)
        self.optimizer = make_optimizer(model, options)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=self.dtype == torch.float16)
        self.pieces = 1
        self._weights = [p for p in model.parameters() if p.requires_grad]
        self._loss: nn.Module = _Loss(model, task, options, self.dtype)
        if distributed.size() > 1:
            # A batch that carries on does not use the first state's weights, so they differ from step to step.
            self._loss = DistributedDataParallel(self._loss, find_unused_parameters=True)

    def __call__(self, group: list[Batch], carried: DecoderState | None, share: float) -> StepResult:
        """One step over the micro-batches of ``group``.

        Args:
            group: this process's rows of each.
            carried: the state after the step before.
            share: of the budget that is used up.

        Raises:
            UserError: the GPU's memory is too small for a single row.
        """
        while True:
            try:
                result = self._gradients(group, carried, share)
                break
            except torch.OutOfMemoryError as error:
                self._make_smaller(group, error)
        (total,) = distributed.total(result.num_tokens)
        return replace(result, finite=self._update(total))

    def _gradients(self, group: list[Batch], carried: DecoderState | None, share: float) -> StepResult:
        """Adds up the gradients of the summed loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum, num_tokens = torch.zeros((), device=self.model.device), 0
        for number, batch in enumerate(group):
            batch = batch.to(self.model.device)
            states: list[DecoderState] = []
            rows = torch.arange(len(batch.input_ids), device=self.model.device).chunk(self.pieces)
            for piece in rows:
                last = number == len(group) - 1 and piece is rows[-1]
                part = batch if len(rows) == 1 else batch.take(piece)
                state = carried if carried is None or len(rows) == 1 else carried.select(piece)
                with nullcontext() if last else self._alone():
                    output = self._loss(part, state, share)
                    self.scaler.scale(output.loss_sum).backward()
                loss_sum += output.loss_sum.detach()
                num_tokens += output.num_tokens
                states.append(output.state)
            carried = DecoderState.join(states)
        return StepResult(loss_sum, num_tokens, carried, True)  # type: ignore[arg-type]

    def _alone(self) -> Any:
        """Gradients stay in this process until the last micro-batch."""
        return self._loss.no_sync() if isinstance(self._loss, DistributedDataParallel) else nullcontext()

    def _update(self, total: float) -> bool:
        """Moves the weights, unless the gradient is not finite. ``total`` tokens took part in all."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._weights if p.grad is not None]
        # DistributedDataParallel has taken the mean over processes where the sum is meant.
        torch._foreach_mul_(gradients, distributed.size() / max(total, 1))
        norm = nn.utils.clip_grad_norm_(self._weights, self.clip)
        finite = bool(norm.isfinite())
        if finite or self.scaler.is_enabled():  # the scaler itself skips such a step, and scales less from then on
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return finite

    def _make_smaller(self, group: list[Batch], error: torch.OutOfMemoryError) -> None:
        rows = max(len(batch.input_ids) for batch in group)
        if self.pieces >= rows:
            raise UserError(
                f"the memory of {self.model.device} is too small for one row of {group[0].input_ids.size(1)} "
                "tokens: make the model smaller, or the rows shorter"
            ) from error
        self.pieces *= 2
        self.optimizer.zero_grad(set_to_none=True)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        complain(
            f"the memory of {self.model.device} is too small for {rows} rows at once: from here on every batch is "
            f"done in {self.pieces} pieces, which changes nothing else"
        )
