"""Learning from models: an ensemble of them, and the term that they add to a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from gen.base.errors import UserError
from gen.models.batch import Batch
from gen.models.decoder import DecoderState
from gen.models.model import LossOutput, Model
from gen.search.ensemble import Ensemble


def together(teachers: Sequence[Any], names: Sequence[str]) -> Any:
    """One teacher, or several as an ensemble."""
    return teachers[0] if len(teachers) == 1 else Ensemble(teachers, names)


class Teaching:
    """Word-level distillation: a loss with a term KL(teachers‖model) for every token.

    The state that a batch hands to the next one holds the layers of the model and then those of the teachers, so
    that it is saved and cut like any other.

    Args:
        teachers: their vocabulary must be the model's; their mean is learned from.
        weight: of the term; the rest is the weight of the cross-entropy.

    Raises:
        UserError: a teacher is exported, or the teachers' vocabularies differ.
    """

    def __init__(self, teachers: Sequence[Any], names: Sequence[str], weight: float) -> None:
        for name, teacher in zip(names, teachers, strict=True):
            if not isinstance(teacher, Model):
                raise UserError(f"{name}: is exported, and gives no probabilities of whole texts; name its run")
            teacher.eval().requires_grad_(False)
        self.tokenizer = together(teachers, names).tokenizer
        self.teachers, self.weight = teachers, weight

    def __call__(
        self, model: Model, batch: Batch, state: DecoderState | None, loss: Callable[..., LossOutput]
    ) -> LossOutput:
        """``loss(batch, state, …)`` of the model with the term added."""
        layers = list(state.layers) if state else []

        def carried(of: Model) -> DecoderState | None:
            """The next layers of the state, which are those of this model."""
            count = of.decoder.config.num_layers
            found, layers[:] = layers[:count], layers[count:]
            return DecoderState(tuple(found)) if found else None

        own, probs, after = carried(model), [], []
        with torch.no_grad():
            for teacher in self.teachers:
                memory = teacher.decoder.prepare(teacher.encoder(batch.encoder_source))
                before = carried(teacher) or teacher.decoder.init_state(memory)
                predicted = teacher.decoder(batch.input_ids, before, memory)
                probs.append(predicted.logits.float().softmax(-1))
                after += predicted.state.layers
        teacher_probs = torch.stack(probs).mean(0) if len(probs) > 1 else probs[0]
        found = loss(batch, own, teacher_probs=teacher_probs, teacher_weight=self.weight)
        return replace(found, state=DecoderState((*found.state.layers, *after)))
