"""One optimizer step: micro-batches, several processes, full memories, gradients that are not finite."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gen.base import distributed
from gen.base.errors import UserError, notify
from gen.models.batch import Batch
from gen.models.decoder import DecoderState
from gen.models.device import autocast, compute_dtype
from gen.models.model import Model
from gen.training.options import TrainOptions, make_optimizer
from gen.training.task import Task


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
    finite: bool = True


class Stepper:
    """Does optimizer steps.

    The gradient is that of the mean over all tokens of all micro-batches of all processes: how they are dealt out
    changes nothing. Where a GPU's memory is too small for a micro-batch, it is cut into pieces from then on.

    Gradients of several processes are added up once a step, when each has all of its own: as
    `DistributedDataParallel` does under ``no_sync``, but for the last micro-batch, too. So a process may do a
    step again, in smaller pieces, without the others noticing, and weights that a step does not use (those of the
    first state, where a stream goes on) need no search.

    Args:
        model: on its device, in training mode.
        task: whose loss to make small.
        options: how to train.

    Attributes:
        dtype: what is computed in.
        optimizer: of the model's weights.
        scaler: of the loss, enabled for float16.
        pieces: how many a micro-batch is cut into.

    Use::

        stepper = Stepper(model, Task(), TrainOptions())
        result = stepper([batch], None, share=0.0)
    """

    def __init__(self, model: Model, task: Task, options: TrainOptions) -> None:
        self.model, self.task, self.options = model, task, options
        self.dtype = compute_dtype(options.precision, model.device)
        self.optimizer = make_optimizer(model, options)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=self.dtype == torch.float16)
        self.pieces = 1
        self._weights = [p for p in model.parameters() if p.requires_grad]
        distributed.broadcast_(model.state_dict().values())

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
        (total,) = distributed.all_reduce_sum(result.num_tokens)
        return replace(result, finite=self._update(total))

    def _gradients(self, group: list[Batch], carried: DecoderState | None, share: float) -> StepResult:
        """Adds up this process's gradients of the summed loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum, num_tokens = torch.zeros((), device=self.model.device), 0
        for batch in group:
            batch = batch.to(self.model.device)
            before = carried if batch.continues else None
            states: list[DecoderState] = []
            pieces = torch.arange(len(batch.input_ids), device=self.model.device).chunk(self.pieces)
            for rows in pieces:
                whole = len(pieces) == 1
                part = batch if whole else batch.take(rows)
                state = before if before is None or whole else before.select(rows)
                with autocast(self.model.device, self.dtype):
                    output = self.task.loss(self.model, part, state, self.options, share)
                self.scaler.scale(output.loss_sum).backward()
                loss_sum += output.loss_sum.detach()
                num_tokens += output.num_tokens
                states.append(output.state.detach())
            carried = DecoderState.join(states)
        return StepResult(loss_sum, num_tokens, carried)  # type: ignore[arg-type]

    def _update(self, total: float) -> bool:
        """Moves the weights, unless the gradient is not finite. ``total`` tokens took part in all."""
        gradients = [p.grad for p in self._weights if p.grad is not None]
        distributed.all_reduce_(gradients)
        self.scaler.unscale_(self.optimizer)
        # The mean and the clipping in one pass over all gradients.
        norm = nn.utils.get_total_norm(gradients) / max(total, 1)
        finite = bool(norm.isfinite())
        torch._foreach_mul_(gradients, (self.options.clip / (norm + 1e-6)).clamp(max=1.0) / max(total, 1))
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
        notify(
            f"the memory of {self.model.device} is too small for {rows} rows at once: from here on every batch is "
            f"done in {self.pieces} pieces, which changes nothing else"
        )
