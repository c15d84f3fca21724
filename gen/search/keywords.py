"""The keywords of `generate`, for type checkers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from gen.search.processors import Processor
from gen.search.strategy import Strategy


class SearchKeywords(TypedDict, total=False):
    """The fields of `SearchOptions` as keywords of `generate`. None leaves open; one may stand for several."""

    max_new_tokens: int | None
    max_ratio: float | None
    min_new_tokens: int | None
    unknown: str | None
    temperature: float | Sequence[float] | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    num_samples: int | None
    seed: int | None
    beam: int | None
    length_penalty: float | None
    coverage_penalty: float | None
    length_reward: float | None
    mbr: bool | None
    n_best: int | None
    beam_groups: int | None
    diversity: float | None
    strategy: str | Strategy | None
    repetition_penalty: float | None
    no_repeat_ngram: int | None
    prefix: str | None
    ban: str | Sequence[str] | None
    must: str | Sequence[str] | None
    stop: str | Sequence[str] | None
    protect: bool | None
    protect_only: str | Sequence[str] | None
    replace_unk: bool | None


class GenerateKeywords(SearchKeywords, total=False):
    """What `generate` takes besides: further processors, whether to keep the attention weights, and for
    ``replace_unk`` the translations of words."""

    processors: Sequence[Processor]
    attention: bool
    lexicon: Mapping[str, str]
