"""What a task and the training hand to each other: examples, facts and choices, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gen.base.config import Budget
from gen.inputs.tokenizer import Tokenizer


@dataclass(frozen=True)
class Metric:
    """The figure by which the models of a task are compared.

    Attributes:
        name: of the figure among those that `Task.score` returns.
        higher_is_better: its direction.
        label: for people; "" for the name.
        max_loss: how much worse an int8 export may be where the user does not say.
    """

    name: str
    higher_is_better: bool = False
    label: str = ""
    max_loss: float = float("inf")

    def __str__(self) -> str:
        return self.label or self.name

    def goodness(self, figures: Mapping[str, Any]) -> float:
        """The figure, negated where lower is better: the larger the better."""
        return float(figures[self.name]) * (1 if self.higher_is_better else -1)


@dataclass(frozen=True)
class Example:
    """Something to read or look at, and what should be written about it.

    Attributes:
        item: what `Model.generate` takes: a string, a picture, or {name: item} for several inputs.
        target: what the decoder learns to write.
        references: every text that would be right; where there are none, the target is the only one.
    """

    item: Any
    target: str
    references: tuple[str, ...] = ()

    @property
    def all_references(self) -> tuple[str, ...]:
        return self.references or (self.target,)


@dataclass
class Split:
    """What a task has read: to learn from and to validate on.

    Attributes:
        train, valid: examples.
        tokenizer: of the targets.
        dropped: what was left out and why, one line each.
    """

    train: Sequence[Example]
    valid: Sequence[Example]
    tokenizer: Tokenizer
    dropped: Sequence[str] = ()

    @property
    def num_tokens(self) -> int:
        """Target tokens of one pass over the training part, ends included."""
        return sum(len(self.tokenizer.encode(e.target)) + 1 for e in self.train)

    def table(self) -> dict[str, str]:
        """What to tell the user about the data: name → value."""
        rows = {"training": f"{len(self.train):,} examples, {self.num_tokens:,} target tokens"}
        if self.dropped:
            rows["left out"] = f"{len(self.dropped):,}"
        rows["validation"] = f"{len(self.valid):,} examples"
        rows["vocabulary"] = f"{len(self.tokenizer):,} ({self.tokenizer.kind})"
        return rows


@dataclass(frozen=True)
class Facts:
    """What choices may depend on.

    Attributes:
        split: the data.
        num_tokens: target tokens of one pass over the training part.
        budget: how long to train.
        tokens: target tokens that fit into the budget at the reference sizes (the ones that `Task.defaults` gives
            for the facts of an unmeasured machine); measured, or counted where the budget is not a time.
    """

    split: Any
    num_tokens: int
    budget: Budget
    tokens: float

    @property
    def passes(self) -> float:
        """How often the training part would be read."""
        return max(self.tokens / max(self.num_tokens, 1), 1e-6)


@dataclass(frozen=True)
class Choice:
    """A value for an option that the user left open, and the reason for it."""

    value: Any
    reason: str


Choices = dict[str, Choice]
"""Option name → choice."""

SIZE_STEP = 32
"""Chosen sizes are multiples of this: matrix units take so many numbers at a time, and heads divide it."""


def round_size(size: float) -> int:
    """The nearest size that may be chosen.

    Example:
        >>> round_size(400)
        416
    """
    return max(int(size / SIZE_STEP + 0.5), 1) * SIZE_STEP


@dataclass
class Evaluation:
    """What a model achieved on held-out data.

    Attributes:
        figures: name → value; "loss" is nats per token. ``NAME_signature`` says how NAME was computed.
        outputs: what it wrote, one text per example.
        count: examples that were judged.
        failed: why others could not be, one line each.
    """

    figures: dict[str, Any]
    outputs: Sequence[str] = ()
    count: int = 0
    failed: Sequence[str] = ()


@dataclass(frozen=True)
class NoOptions:
    """No options."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
        return []
