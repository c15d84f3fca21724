"""One optimizer step, with micro-batches, several processes, and recovery from full memory and NaN gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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
    """The result of a step.

    Attributes:
        loss_sum: the summed loss of this process's rows, a scalar on the device, nats.
        num_tokens: the number of this process's target tokens.
        carried: the decoder state after the last batch, for a batch that continues it.
        finite: whether the gradient was finite; if not, no weight was changed.
    """

    loss_sum: Tensor
    num_tokens: int
    carried: DecoderState
    finite: bool = True


class Stepper:
    """Performs optimizer steps.

    The gradient is that of the mean loss over all tokens of all micro-batches of all processes, so it does not
    depend on how rows are distributed. When a micro-batch exceeds a GPU's memory, it and all later ones are split
    into smaller pieces.

    Gradients are summed over processes once per step, after the last micro-batch, instead of during its backward
    pass as in `DistributedDataParallel`. So one process can repeat its step in smaller pieces without the others,
    and weights that a step does not use (the first state, when a stream continues) need no special handling.

    Args:
        model: on its device, in training mode.
        task: provides the loss.
        options: of the training.

    Attributes:
        dtype: of the matrix products.
        optimizer: of the trainable weights.
        scaler: of the loss; enabled for float16.
        pieces: the number of pieces per micro-batch.

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

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate; see `make_optimizer` for the factor of each parameter group."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]

    def read_carried(self, layers: Any) -> DecoderState | None:
        """The ``carried`` of a `StepResult`, from what a training state has saved of it.

        Args:
            layers: the vectors per layer; None or empty: there is no such state.

        Raises:
            ValueError: they are no state of this decoder.
        """
        if not layers:
            return None
        rows, teaching = len(layers[0][0]), self.task.teaching
        models = [self.model, *(teaching.teachers if teaching else ())]  # as `Teaching` hands them on
        expected = [shape for model in models for shape in model.decoder.state_shapes(rows)]
        shapes = [[tuple(s.shape) for s in layer] for layer in layers]
        if shapes != expected or not all(s.is_floating_point() for layer in layers for s in layer):
            raise ValueError("it carries no state of this decoder")

        def placed(vector: Tensor) -> Tensor:  # another machine may have computed in another precision
            dtype = vector.dtype if vector.dtype in (torch.float32, self.dtype) else torch.float32
            return vector.to(self.model.device, dtype)

        return DecoderState(tuple(tuple(map(placed, layer)) for layer in layers))

    def __call__(self, group: list[Batch], carried: DecoderState | None, share: float) -> StepResult:
        """One step over the micro-batches of ``group``.

        Args:
            group: micro-batches with this process's rows.
            carried: the decoder state after the previous step.
            share: the share of the budget that is used up, 0 to 1.

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
        """Accumulates this process's gradients of the summed loss."""
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
        """Updates the weights if the gradient is finite; returns whether it is. ``total``: tokens of all ranks."""
        gradients = [p.grad for p in self._weights if p.grad is not None]
        distributed.all_reduce_(gradients)
        self.scaler.unscale_(self.optimizer)
        # The mean and the clipping in one pass over all gradients.
        norm = nn.utils.get_total_norm(gradients) / max(total, 1)
        finite = bool(norm.isfinite())
        torch._foreach_mul_(gradients, (self.options.clip / (norm + 1e-6)).clamp(max=1.0) / max(total, 1))
        if finite or self.scaler.is_enabled():  # the scaler skips such a step itself, and lowers its scale
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return finite

    def _make_smaller(self, group: list[Batch], error: torch.OutOfMemoryError) -> None:
        rows = max(len(batch.input_ids) for batch in group)
        if self.pieces >= rows:
            raise UserError(
                f"the memory of {self.model.device} is too small for one row of {group[0].input_ids.size(1)} "
                "tokens: make the model smaller or the rows shorter"
            ) from error
        self.pieces *= 2
        self.optimizer.zero_grad(set_to_none=True)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        notify(
            f"the memory of {self.model.device} is too small for {rows} rows at once: from now on every batch is "
            f"processed in {self.pieces} pieces; the results are the same"
        )
