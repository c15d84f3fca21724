"""Several models that generate together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gen.base.errors import UserError
from gen.search.generation import GenerationMixin, SearchInput
from gen.search.ops import Array


@dataclass(frozen=True)
class _States:
    """One decoder state per model."""

    each: tuple[Any, ...]

    def select(self, rows: Array) -> _States:
        return _States(tuple(state.select(rows) for state in self.each))

    def keep(self, inputs: np.ndarray, rows: np.ndarray) -> _States:
        return _States(tuple(state.keep(inputs, rows) for state in self.each))


def reads_alike(model: Any, name: str) -> bool:
    """Whether all models of an ensemble read an input as the first one does; True for a single model."""
    models = model.models if isinstance(model, Ensemble) else [model]
    found = [each.processors.get(name) for each in models]
    return None not in found and len({repr(processor.config()) for processor in found}) == 1


class Ensemble(GenerationMixin):
    """Generates from the mean of their probabilities, token by token.

    Their encoders, sizes and source vocabularies may differ; their target vocabulary must be one. The attention
    is the mean of theirs where they look at the same thing, else the first model's.

    Args:
        models: at least one, trained or exported ones.
        names: what to call them in messages.

    Raises:
        UserError: the target vocabularies differ.
    """

    def __init__(self, models: Sequence[Any], names: Sequence[str] = ()) -> None:
        self.models = list(models)
        first = self.models[0]
        names = names or [f"model {i}" for i in range(1, len(models) + 1)]
        for name, other in zip(names[1:], self.models[1:], strict=True):
            if other.tokenizer.to_bytes() != first.tokenizer.to_bytes():
                raise UserError(
                    f"{names[0]} and {name} cannot write together: their target vocabularies differ "
                    f"({len(first.tokenizer):,} {first.tokenizer.kind} and {len(other.tokenizer):,} "
                    f"{other.tokenizer.kind} tokens); train both on the same pairs, with different --seed"
                )
        self.tokenizer, self.info = first.tokenizer, first.info
        self.search_defaults = first.search_defaults
        self.processors = first.processors
        inputs = [{n: (p.kind, p.files()) for n, p in model.processors.items()} for model in self.models]
        self._alike = all(each == inputs[0] for each in inputs)  # then memory positions correspond, too

    @property
    def reads_input(self) -> bool:
        return any(model.reads_input for model in self.models)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(model.evaluating())
            yield

    def forced_log_probs(self, encoded: Sequence[np.ndarray], items: Sequence[Any]) -> tuple[np.ndarray, None]:
        each = [model.forced_log_probs(encoded, items)[0] for model in self.models]
        mean = np.logaddexp.reduce(each) - np.float32(np.log(len(each)))
        return mean.astype(np.float32), None

    def start_search(self, items: Sequence[Any]) -> SearchInput:
        """Every model reads the items; a step asks all of them."""
        starts = [model.start_search(items) for model in self.models]

        def step(token_ids: Array, states: _States) -> tuple[Array, _States, Array | None]:
            predicted = [start.step(token_ids, state) for start, state in zip(starts, states.each, strict=True)]
            seen = [attention for _, _, attention in predicted if attention is not None]
            alike = self._alike and len(seen) == len(predicted) and len({a.shape for a in seen}) == 1
            attention = sum(seen) / len(seen) if alike else predicted[0][2]
            log_probs = first.ops.log_mean_exp([each for each, _, _ in predicted])
            return log_probs, _States(tuple(s for _, s, _ in predicted)), attention

        first = starts[0]
        if len({type(start.ops) for start in starts}) > 1:
            raise UserError("these models cannot write together: some run on a GPU, and some on the CPU")
        return SearchInput(step, _States(tuple(s.state for s in starts)), first.prompts, first.ops, first.mask)
