"""What a search returns: hypotheses, and an `Output` of them per item."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

import numpy as np


class Word(NamedTuple):
    """A word of an output, and the probability that it is in a reference, 0 to 1."""

    text: str
    confidence: float


class Kept(NamedTuple):
    """What came from the input as it was, and where it begins there and in the text, in characters."""

    text: str
    source: int
    target: int


@dataclass(repr=False)
class Hypothesis:
    """One text that a model wrote.

    Attributes:
        token_ids: without BOS, EOS and what the prompt forced.
        score: the model's own log-probability of the tokens, EOS included where there was one; natural log.
        log_probs: the same per token, EOS included.
        finished: False when the length limit came before EOS or a stop string.
        attention: (T, S) float32, the weights behind each token, where they were kept; S is the length of
            the input's own memory, without padding. Not compared by ``==``.
        text: the decoded tokens, up to a stop string (`generate` fills it in).
        tokens: the text of each token, a byte as "<0x8F>" (`generate` fills it in).
        seed: of the random numbers it was drawn with; None where nothing was drawn.
        temperature: it was sampled at; None where it was not sampled.
        missing: what it had to say and does not.
        confidence: its expected quality, 0 to 1; None where the model is not calibrated (`gen evaluate RUN
            --calibrate`).
        words: its words in order, each with the probability that it is right; empty likewise.
        kept: the protected spans of its input, in their order there.
        read: what the model read, where that is not its input: without protected spans, or words that it does not
            know; tokens and attention are those of what it wrote of that. None: its input.
    """

    token_ids: list[int]
    score: float
    log_probs: list[float]
    finished: bool
    attention: np.ndarray | None = field(default=None, compare=False)
    text: str = ""
    tokens: list[str] = field(default_factory=list)
    seed: int | None = None
    temperature: float | None = None
    missing: list[str] = field(default_factory=list)
    confidence: float | None = None
    words: list[Word] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    read: str | None = None

    @property
    def alignment(self) -> list[int]:
        """Per token the position of the memory that had the most weight; empty without attention."""
        return [] if self.attention is None else self.attention.argmax(-1).tolist()

    def drawn(self) -> dict[str, float]:
        """The seed and the temperature, by name, for records; empty where it was not sampled."""
        found = {"seed": self.seed, "temperature": self.temperature}
        return {name: value for name, value in found.items() if value is not None}

    def __repr__(self) -> str:
        return f"Hypothesis({self._summary()})"

    def _summary(self) -> str:
        text = self.text if len(self.text) <= 60 else self.text[:59] + "…"
        number = len(self.token_ids)
        end = "" if self.finished else ", unfinished"
        return f"{text!r}, score={self.score:.3f}, {number} token{'s' * (number != 1)}{end}"


class Output(Sequence[Hypothesis]):
    """What a model wrote for one item: a sequence of hypotheses, best first (samples: in the order drawn).

    It has the first hypothesis's attributes as its own.

    Args:
        hypotheses: at least one.

    Example:
        >>> best, second = Hypothesis([5], -0.1, [-0.1], True, text="a"), Hypothesis([], -2.0, [-2.0], True)
        >>> output = Output([best, second])
        >>> output.text, len(output.alternatives)
        ('a', 1)
        >>> output
        Output('a', score=-0.100, 1 token, 1 alternative)
    """

    __slots__ = ("_hypotheses",)

    def __init__(self, hypotheses: Iterable[Hypothesis]) -> None:
        self._hypotheses = tuple(hypotheses)

    @overload
    def __getitem__(self, index: int) -> Hypothesis: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hypothesis]: ...
    def __getitem__(self, index: int | slice) -> Hypothesis | list[Hypothesis]:
        return list(self._hypotheses[index]) if isinstance(index, slice) else self._hypotheses[index]

    def __len__(self) -> int:
        return len(self._hypotheses)

    def __eq__(self, other: Any) -> bool:
        return self._hypotheses == other._hypotheses if isinstance(other, Output) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # hypotheses can be changed

    def __repr__(self) -> str:
        more = len(self) - 1
        return f"Output({self[0]._summary()}" + (f", {more} alternative{'s' * (more > 1)})" if more else ")")

    @property
    def alternatives(self) -> list[Hypothesis]:
        """The hypotheses after the first."""
        return self[1:]

    @property
    def text(self) -> str:
        """The text of the first hypothesis."""
        return self[0].text

    @property
    def score(self) -> float:
        """The log-probability of the first hypothesis (natural log)."""
        return self[0].score

    @property
    def tokens(self) -> list[str]:
        """The text of each token of the first hypothesis."""
        return self[0].tokens

    @property
    def token_ids(self) -> list[int]:
        """The token ids of the first hypothesis."""
        return self[0].token_ids

    @property
    def log_probs(self) -> list[float]:
        """The log-probability of each token of the first hypothesis."""
        return self[0].log_probs

    @property
    def finished(self) -> bool:
        """Whether the first hypothesis ended by itself."""
        return self[0].finished

    @property
    def attention(self) -> np.ndarray | None:
        """(T, S) float32, the attention weights of the first hypothesis, where they were kept."""
        return self[0].attention

    @property
    def alignment(self) -> list[int]:
        """Per token of the first hypothesis the position of the memory that had the most weight."""
        return self[0].alignment

    @property
    def seed(self) -> int | None:
        """The seed that the first hypothesis was drawn with; None where nothing was drawn."""
        return self[0].seed

    @property
    def temperature(self) -> float | None:
        """The temperature that the first hypothesis was sampled at; None where it was not sampled."""
        return self[0].temperature

    @property
    def missing(self) -> list[str]:
        """What the first hypothesis had to say and does not."""
        return self[0].missing

    @property
    def confidence(self) -> float | None:
        """The expected quality of the first hypothesis, 0 to 1; None where the model is not calibrated."""
        return self[0].confidence

    @property
    def kept(self) -> list[Kept]:
        """The protected spans of the input, as the first hypothesis has them."""
        return self[0].kept

    @property
    def read(self) -> str | None:
        """What the model read, where that is not its input."""
        return self[0].read

    @property
    def words(self) -> list[Word]:
        """The words of the first hypothesis, each with the probability that it is right."""
        return self[0].words
