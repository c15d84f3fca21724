"""The values that tasks and training exchange: examples, splits, choices, evaluations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path
from typing import Any

from gen.base.config import Budget
from gen.datasets.look import Column, DataPart
from gen.inputs.tokenizer import Tokenizer
from gen.search import Hypothesis


@dataclass(frozen=True)
class Metric:
    """A figure that decides which of a task's models is better.

    Attributes:
        name: its key in the figures of an `Evaluation`.
        higher_is_better: whether larger values are better.
        label: the name to print; "" for ``name``.
        max_loss: how much worse an int8 export may be, unless `--max-loss` is given.
    """

    name: str
    higher_is_better: bool = False
    label: str = ""
    max_loss: float = inf

    def __str__(self) -> str:
        return self.label or self.name

    def goodness(self, figures: Mapping[str, Any]) -> float:
        """The figure, negated if lower is better: larger is always better."""
        return float(figures[self.name]) * (1 if self.higher_is_better else -1)


LOSS = Metric("loss")
"""The loss, which breaks all ties."""


def is_better(metrics: Sequence[Metric], figures: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """Whether ``figures`` are better than ``best``: by the first metric; where that is equal, by the next; etc.

    NaN is worse than any number. Metrics that are missing on either side are passed over.

    Example:
        >>> metrics = [Metric("bleu", higher_is_better=True), Metric("loss")]
        >>> is_better(metrics, {"bleu": 0.0, "loss": 1.5}, {"bleu": 0.0, "loss": 2.0})
        True
    """
    return rank(metrics, figures, best) > rank(metrics, best, figures)


def rank(metrics: Sequence[Metric], figures: Mapping[str, Any], *others: Mapping[str, Any]) -> tuple[float, ...]:
    """The figures by which weights are compared, in order: a larger tuple is better.

    Args:
        metrics: the first decides, each further one decides where those before are equal.
        figures: name → value.
        others: figures to compare with; metrics missing in them are left out.
    """
    known = [m.goodness(figures) for m in metrics if all(m.name in each for each in (figures, *others))]
    return tuple(-inf if isnan(value) else value for value in known)


@dataclass(frozen=True)
class Example:
    """An input and its target text.

    Attributes:
        item: what `Model.generate` takes: a string, a picture, or {name: item} for several inputs.
        target: what the decoder learns to write.
        references: all correct texts; empty: only the target.
    """

    item: Any
    target: str
    references: tuple[str, ...] = ()

    @property
    def all_references(self) -> tuple[str, ...]:
        return self.references or (self.target,)


def examples_part(examples: Sequence[Example]) -> DataPart:
    """What examples hold: texts that are read, pictures (paths), and the targets.

    Example:
        >>> sorted(examples_part([Example("a dog", "ein Hund")]).columns)
        ['source', 'target']
    """
    items = [e.item if isinstance(e.item, Mapping) else {"": e.item} for e in examples]
    columns = {"target": Column([text for e in examples for text in e.all_references])}
    for name in items[0] if items else ():
        if texts := [item[name] for item in items if isinstance(item.get(name), str)]:
            columns[name or "source"] = Column(texts, name or "sentence")
    pictures = [cell for item in items for cell in item.values() if isinstance(cell, Path)]
    return DataPart(columns, pictures=pictures)


def _plain(item: Any) -> str:
    """What tells an item from others, where that is the same in every process; "" otherwise."""
    if isinstance(item, Mapping):
        return "\0".join(f"{name}\0{_plain(part)}" for name, part in sorted(item.items()))
    return str(item) if isinstance(item, str | int | float | Path) else ""


def digest_of(examples: Iterable[Example]) -> str:
    """A hash of examples: a run is not resumed on other data. Of an item that is no text, number or path, nor
    holds some, only the target counts."""
    texts = "\0".join(f"{_plain(e.item)}\0{e.target}" for e in examples)
    return hashlib.blake2b(texts.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


@dataclass
class Split:
    """Training and validation data.

    Attributes:
        train, valid: the examples.
        tokenizer: of the target texts.
        dropped: what was left out and why, one line per example.
    """

    train: Sequence[Example]
    valid: Sequence[Example]
    tokenizer: Tokenizer
    dropped: Sequence[str] = ()

    @property
    def digest(self) -> str:
        """A hash of the examples; see `digest_of`."""
        return digest_of((*self.train, *self.valid))

    @property
    def num_tokens(self) -> int:
        """Target tokens per pass over the training part, EOS included."""
        return sum(len(self.tokenizer.encode(e.target)) + 1 for e in self.train)

    def table(self) -> dict[str, str]:
        """A summary to print: name → value."""
        rows = {"training": f"{len(self.train):,} examples, {self.num_tokens:,} target tokens"}
        if self.dropped:
            rows["left out"] = f"{len(self.dropped):,}"
        rows["validation"] = f"{len(self.valid):,} examples"
        rows["vocabulary"] = f"{len(self.tokenizer):,} ({self.tokenizer.kind})"
        return rows


@dataclass(frozen=True)
class Facts:
    """The facts that default values may depend on.

    Attributes:
        split: the data.
        num_tokens: target tokens per pass over the training part.
        budget: the length of the training.
        tokens: target tokens that fit into the budget at the sizes in `Task.reference`: from the measured speed
            for a budget of time, else counted.
    """

    split: Any
    num_tokens: int
    budget: Budget
    tokens: float

    @property
    def passes(self) -> float:
        """Passes over the training part that fit into the budget."""
        return max(self.tokens / max(self.num_tokens, 1), 1e-6)


@dataclass(frozen=True)
class Choice:
    """A chosen value for an option that is None, and the reason."""

    value: Any
    reason: str


Choices = dict[str, Choice]
"""Option name → choice."""

SIZE_STEP = 32
"""Chosen sizes are multiples of this: it suits matrix units, and the number of heads divides it."""


def round_size(size: float) -> int:
    """The nearest multiple of `SIZE_STEP`, at least one.

    Example:
        >>> round_size(400)
        416
    """
    return max(int(size / SIZE_STEP + 0.5), 1) * SIZE_STEP


@dataclass
class Evaluation:
    """Results of a model on held-out data.

    Attributes:
        figures: name → value; "loss" is nats per token. ``NAME_signature`` says how NAME was computed.
        outputs: the generated texts, one per example.
        count: the number of examples evaluated.
        failed: examples left out and why, one line each.
        judged: the model's best hypotheses with their references, normalised, where outputs are compared with any.
    """

    figures: dict[str, Any]
    outputs: Sequence[str] = ()
    count: int = 0
    failed: Sequence[str] = ()
    judged: Sequence[tuple[Hypothesis, Sequence[str]]] = ()


@dataclass(frozen=True)
class NoOptions:
    """No options."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        return []
