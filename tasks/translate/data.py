"""Sentence pairs: reading, and what the tables of a training say of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gen.datasets.pair_files import PairFiles
from gen.datasets.pairs import Pairs, build_pairs
from gen.inputs.tokenizer import Tokenizer
from gen.training.interfaces import Example
from tasks.translate.options import TranslateData


@dataclass(frozen=True)
class TranslateSplit:
    """The sentence pairs; see `gen.training.interfaces.Split`."""

    pairs: Pairs

    @cached_property
    def valid(self) -> list[Example]:
        return [Example(source, target) for source, target in self.pairs.valid]

    @property
    def tokenizer(self) -> Tokenizer:
        return self.pairs.target_tokenizer

    @property
    def digest(self) -> str:
        return self.pairs.digest

    @property
    def num_tokens(self) -> int:
        return len(self.pairs.target.tokens) // self.pairs.spellings

    def table(self) -> dict[str, str]:
        pairs = self.pairs
        dropped = "; ".join(f"{n:,} with {reason}" for reason, n in pairs.dropped.items())
        one = pairs.source_tokenizer is pairs.target_tokenizer
        sizes = f"{len(pairs.source_tokenizer):,}" + ("" if one else f" and {len(pairs.target_tokenizer):,}")
        return {
            "training": f"{len(pairs.source) // pairs.spellings:,} pairs, {self.num_tokens:,} target tokens",
            "dropped": dropped or "none",
            "validation": f"{len(pairs.valid):,} pairs",
            **pairs.notes,
            "vocabulary": f"{sizes} ({pairs.target_tokenizer.kind}{', joint' if one else ''})",
        }


def read_pairs(options: TranslateData, vocabularies: tuple[Tokenizer, Tokenizer] | None = None) -> Pairs:
    """Reads and tokenizes the pairs, with new vocabularies if none are given."""
    columns, tables = (options.src, options.tgt), not options.train
    train = PairFiles(options.train or options.data, *columns, tables=tables)
    valid = PairFiles(options.valid, *columns) if options.valid else None
    return build_pairs(train, valid, options.pairs, tokenizers=vocabularies)
