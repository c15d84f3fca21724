"""Training steps outside of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice

from gen.base import distributed
from gen.datasets.batches import Batches
from gen.models.batch import Batch
from gen.models.model import Model
from gen.training.options import TrainOptions
from gen.training.step import Stepper
from gen.training.task import Task


class Trial:
    """Training steps outside of a run, to measure a machine or to try a model.

    Args:
        model: on its device.
        task: provides the loss.
        options: of the training.
        batches: the training set; None: ``task.batches``.

    Attributes:
        batches: endless; no batch continues the one before.
        tokens: target tokens of all steps so far, over all processes.
    """

    def __init__(self, model: Model, task: Task, options: TrainOptions, batches: Batches | None = None) -> None:
        self._stepper = Stepper(model.train(), task, options)
        self._accumulate = options.accumulate
        epochs = batches or task.batches
        self.batches: Iterator[Batch] = (
            replace(batch, continues=False) for epoch in count() for batch in epochs.epoch(epoch)
        )
        self.tokens = 0

    def step(self, rate: float, group: list[Batch] | None = None) -> float:
        """One step at a learning rate.

        Args:
            rate: the learning rate.
            group: its micro-batches; None: the next of `batches`.

        Returns:
            The mean loss before the step, nats per token over all processes.
        """
        self._stepper.set_rate(rate)
        result = self._stepper(group or list(islice(self.batches, self._accumulate)), None, 0.0)
        loss_sum, num_tokens = distributed.all_reduce_sum(float(result.loss_sum), result.num_tokens)
        self.tokens += int(num_tokens)
        return loss_sum / max(num_tokens, 1)
