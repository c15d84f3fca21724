"""Options that several tasks and commands share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import log
from typing import Annotated, Any, ClassVar, Literal

from gen.base.config import range_errors
from gen.base.errors import flag
from gen.base.fields import Arg
from gen.training.interfaces import SIZE_STEP


def known_cells() -> tuple[str, ...]:
    """The names of registered cells."""
    from gen.models.cells import CELLS  # with torch

    return tuple(CELLS)


def has_recurrent_weights(cell: str) -> bool:
    """Whether a cell has weights that ``--weight-dropout`` applies to."""
    from gen.models.cells import find_cell

    return find_cell(cell).recurrent_weights


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes of the decoder."""

    cell: Annotated[str, Arg(one_of=known_cells)] = "lstm"
    """Recurrent cell: ssru and mingru train in parallel over a sequence; or one that you registered."""
    embedding_size: int | None = None
    """Size of a token embedding. Chosen from the budget and the data."""
    hidden_size: int | None = None
    """Size of a decoder layer. Chosen from the budget and the data."""
    num_layers: int = 2
    """Number of decoder layers."""
    dropout: float | None = None
    """Dropout between layers and before the output, one mask per sequence. Chosen from the budget and the data."""
    embedding_dropout: float | None = None
    """Dropout on token embeddings. Chosen from the budget and the data."""
    weight_dropout: float | None = 0.0
    """Dropout on recurrent weights, one mask per batch (AWD-LSTM)."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        names = [f.name for f in fields(self)]
        sizes = [name for name in names if name.endswith(("_size", "_layers", "_heads"))]
        found = range_errors(self, sizes, [name for name in names if name.endswith("dropout")])
        if self.weight_dropout and not has_recurrent_weights(self.cell):
            found.append(f"--weight-dropout: --cell {self.cell} has no recurrent weights")
        return found


@dataclass(frozen=True)
class AttentionSizes(DecoderSizes):
    """Sizes of the encoder and the decoder."""

    attention: Literal["none", "dot", "additive", "multihead"] = "dot"
    """Attention of the decoder; none: it gets only a summary of the input, in its first state."""
    num_heads: int = 4
    """Heads of multihead attention."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        found = super().errors()
        if self.attention == "multihead" and (self.hidden_size or SIZE_STEP) % max(self.num_heads, 1):
            size = self.hidden_size or f"(chosen as a multiple of {SIZE_STEP}; name one)"
            found.append(f"--num-heads {self.num_heads} does not divide --hidden-size {size}")
        return found


@dataclass(frozen=True)
class SelfCriticalOptions:
    """Training by a reward: reinforcement learning from the scores of the model's own outputs."""

    TITLE: ClassVar[str] = "Self-critical training"

    self_critical: Annotated[bool, Arg(aliases=("--minimum-risk",))] = False
    """Train to increase the reward of sampled outputs (minimum risk). Needs --init-from."""
    samples: int = 5
    """Outputs sampled per input."""
    baseline: Literal["mean", "greedy"] = "mean"
    """Baseline of a sample's reward: the mean of the input's other samples, or the reward of its greedy output."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        found = range_errors(self, ("samples",))
        if self.baseline == "mean" and self.samples < 2:
            found.append("--samples must be at least 2 with --baseline mean")
        return found


def self_critical_errors(config: Any) -> list[str]:
    """Options of a training that do not go with ``--self-critical``, one line each."""
    if not config.extra.self_critical:
        changed = [flag(f.name) for f in fields(config.extra) if getattr(config.extra, f.name) != f.default]
        return [f"{', '.join(changed)}: only with --self-critical"] if changed else []
    names = ("coverage", "scheduled_sampling", "r_drop", "label_smoothing")
    given = [name for name in names if getattr(config.train, name)]
    found = [f"{flag(name)} does not go with --self-critical" for name in given]
    if config.data.streams:
        found.append("--self-critical does not go with data that is streamed")
    if not config.train.init_from:
        found.append("--self-critical starts from a trained model: name its run with --init-from")
    return found


def many_passes(passes: float) -> float:
    """How much of what many passes over the data need is due: nothing (0) up to 11 of them, all (1) from 27 on.

    Example:
        >>> many_passes(5), many_passes(11), many_passes(40)
        (0.0, 0.0, 1.0)
    """
    return min(max(log(passes / 11) / log(27 / 11), 0.0), 1.0)


def augment_errors(augment: int | None) -> list[str]:
    """The errors in ``--augment``, one line each."""
    wrong = not 0 <= (augment or 0) <= 100
    return [f"--augment must be between 0 and 100, not {augment}"] if wrong else []


def vocabulary_errors(data: Any) -> list[str]:
    """The errors in the options ``level`` and ``vocab_size``, one line each."""
    if data.vocab_size is None:
        return []
    found = []
    if data.vocab_size < 5:
        found.append(f"--vocab-size must be at least 5, not {data.vocab_size}")
    if data.level == "char":
        found.append("--vocab-size goes with --level word or subword: characters are all kept")
    return found


def input_name(column: str) -> str:
    """The name of a model's input for the labels of a column.

    Example:
        >>> input_name("Topic"), input_name("news desk"), input_name("2")
        ('Topic', 'news_desk', 'column_2')
    """
    name = re.sub(r"\W+", "_", column.strip())
    return name if name.isidentifier() and name not in _TAKEN else f"column_{name}"


_TAKEN = frozenset({"prompt", "sentence", "picture", "must"})
"""What other parts of an item are called."""


def stream_errors(names: Sequence[str], others: Mapping[str, Any]) -> list[str]:
    """Errors of data that is streamed: standard input, and options (flag → value) that need all of it at once."""
    found = [f"{flag} does not go with data that is streamed" for flag, value in others.items() if value]
    return found + (["--data -: standard input cannot be streamed; write it to files"] if "-" in names else [])


def coverage_errors(config: Any) -> list[str]:
    """An error if ``--coverage`` has no attention to work on; a model to start from has its own."""
    nothing = config.train.coverage and config.model.attention == "none" and not config.train.init_from
    return ["--coverage needs attention: leave out --attention none"] if nothing else []


def stream_budget_errors(config: Any) -> list[str]:
    """An error if a training on streamed data is to last some epochs."""
    if not config.data.streams or not str(config.train.budget).rstrip("s").endswith("epoch"):
        return []
    return [f"--budget {config.train.budget}: nobody knows how long streamed data is; give a time or steps"]
