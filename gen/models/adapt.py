"""Dynamic evaluation: a model that goes on learning from what it has scored."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from gen.models.batch import Batch
from gen.models.model import Model
from gen.models.recurrent import without_dropout

SEGMENT = 64
"""Tokens of a text that are scored before the model learns from them."""

RATE = 1e-3
"""Of the steps: best of those tried on Shakespeare."""


class Adapter:
    """Scores batches one after another, and learns from each after it is scored (Krause et al., 2018, "Dynamic
    evaluation of neural sequence models"): text that resembles what came before becomes more probable.

    A step divides the gradient by the root of its mean square so far, without momentum. What is learned stays in
    this object's copy of the model.

    Args:
        model: stays as it is.
        rate: of the steps.

    Attributes:
        model: the copy, after the batches so far.
    """

    def __init__(self, model: Model, rate: float = RATE) -> None:
        self.model = copy.deepcopy(model).to(model.device)  # which lays out weights as cuDNN wants them
        weights = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(weights, rate, betas=(0.0, 0.99))

    def evaluate(self, batches: Iterator[Batch]) -> tuple[float, int]:
        """As `Model.evaluate`: the loss and number of targets, each batch before it is learned from."""
        loss_sum, num_tokens, state = 0.0, 0, None
        with without_dropout(self.model):
            for batch in batches:
                self._optimizer.zero_grad()
                output = self.model.loss(batch.to(self.model.device), state if batch.continues else None)
                (output.loss_sum / max(output.num_tokens, 1)).backward()
                self._optimizer.step()
                state = output.state.detach()
                loss_sum += float(output.loss_sum.detach())
                num_tokens += output.num_tokens
        return loss_sum, num_tokens
