"""A task of a user's own, as it would be in a package of theirs: a word in, the word reversed out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gen import DecoderConfig, Model, Task, UserError, register
from gen.base.config import range_errors
from gen.base.lines import read_lines
from gen.inputs.tokenizer import CharTokenizer
from gen.models.encoders import RNNEncoder
from gen.search import SearchOptions
from gen.training.interfaces import Choice, Choices, Example, Facts, Metric, Split


@dataclass(frozen=True)
class ReverseData:
    """What to read."""

    words: tuple[str, ...] = ()
    """Files with a word per line."""
    order: Literal["reversed", "sorted"] = "reversed"
    """What becomes of a word's letters."""
    valid_size: int = 100
    """How many words to validate on."""
    batch_tokens: int = 600
    """Padded tokens per batch."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
        found = range_errors(self, ("valid_size", "batch_tokens"))
        return found if self.words else ["--words: name a file with a word per line", *found]


@dataclass(frozen=True)
class ReverseSizes:
    """Sizes of the encoder and the decoder."""

    hidden_size: int | None = None
    """Size of a layer. Chosen from the length of the budget."""
    embedding_size: int = 16
    """Size of a letter's vector."""

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, one line each."""
        return range_errors(self, ("hidden_size", "embedding_size"))


@register("reverse")
class Reverse(Task):
    """Train a model that writes words backwards."""

    Data, Sizes = ReverseData, ReverseSizes
    metric = Metric("exact", higher_is_better=True, label="exactly right", max_loss=0.1)
    search = SearchOptions(beam=2, max_new_tokens=30)

    def read(self, data: ReverseData) -> Split:
        words = sorted({word.strip() for name in data.words for word in read_lines(name)} - {""})
        if len(words) <= data.valid_size:
            raise UserError(f"--words: there are {len(words)} different words; more than --valid-size are needed")
        change = sorted if data.order == "sorted" else reversed
        examples = [Example(word, "".join(change(word))) for word in words]
        step = len(words) // data.valid_size
        valid = examples[::step][: data.valid_size]
        held_out = {example.item for example in valid}
        train = [example for example in examples if example.item not in held_out]
        return Split(train, valid, self.vocabulary or CharTokenizer.train(words))

    def build(self, sizes: ReverseSizes, split: Split) -> Model:
        hidden, embedding, letters = sizes.hidden_size, sizes.embedding_size, split.tokenizer
        encoder = RNNEncoder(letters, embedding_size=embedding, hidden_size=hidden, num_layers=1)
        decoder = DecoderConfig(len(letters), embedding, hidden, num_layers=1, attention="dot")
        return Model(encoder, decoder, letters)

    def defaults(self, facts: Facts) -> Choices:
        size = min(32 + 8 * int(facts.passes), 128)
        return {
            "hidden_size": Choice(size, f"{facts.passes:.2g} passes over the words fit into the budget"),
            "learning_rate": Choice(1e-2, "small models learn fast"),
        }

    def score(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        pairs = list(zip(outputs, (each[0] for each in references), strict=True))
        first = sum(output[:1] == right[:1] for output, right in pairs)
        return {**super().score(outputs, references), "first_letter": first / max(len(pairs), 1)}

    def parse(self, words: Sequence[str]) -> Iterator[str]:
        for word in words:
            if not word.strip():
                raise UserError("there is an empty word")
            yield word.strip()
