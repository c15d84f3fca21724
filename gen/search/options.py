"""Search as a user asks for it: one set of options for the command line, Python and model folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache, partial
from typing import Any, get_type_hints

from gen.base.errors import ConfigError, UserError, flag, within
from gen.inputs.protected import KINDS
from gen.inputs.tokenizer import Tokenizer
from gen.search.ban import BannedTexts, banned_tokens
from gen.search.beam import Beam
from gen.search.constrained import ConstrainedBeam
from gen.search.diverse_beam import DiverseBeam
from gen.search.must import Must
from gen.search.option_checks import BEAM, SAMPLING, converted, option_errors
from gen.search.phrases import whole_words
from gen.search.processors import (
    BannedTokens,
    ForcedPrefix,
    MinLength,
    NoRepeatNgram,
    Processor,
    RepetitionPenalty,
    StopStrings,
)
from gen.search.sample import Sample
from gen.search.strategy import STRATEGIES, Strategy


@dataclass(frozen=True)
class SearchOptions:
    """How to search. What is None is left to the model's own defaults.

    Raises:
        ConfigError: a value is of another type. Numpy's numbers are accepted, a string or a number where several
            are allowed is one of them.

    Example:
        >>> SearchOptions(temperature=0.8, stop="\\n").given()
        {'temperature': (0.8,), 'stop': ('\\n',)}
    """

    max_new_tokens: int | None = None
    """Stop after this many tokens (200 if neither you nor the model sets it)."""
    max_ratio: float | None = None
    """Stop after this many tokens per token of the input, plus ten; for models that read one."""
    min_new_tokens: int = 0
    """No end-of-text token before this many tokens."""
    unknown: str | None = None
    """What the vocabulary lacks in inputs and prompts: error, skip (leave it out) or replace (by <unk>). Unset:
    error for a character of a prompt, else replace."""
    temperature: tuple[float, ...] = ()
    """Sample: below 1 sharpens the distribution, above 1 flattens it, 0 always takes the best. Several: one text
    at each."""
    top_k: int | None = None
    """Sample from the k most probable tokens only."""
    top_p: float | None = None
    """Sample from the smallest set of tokens whose probabilities reach p."""
    min_p: float | None = None
    """Sample from tokens at least this many times as probable as the best."""
    num_samples: int | None = None
    """Sample this many outputs per input (and temperature)."""
    seed: int | None = None
    """Same seed, same samples; without one every call draws anew."""
    beam: int | None = None
    """Beam search of this width instead of sampling."""
    length_penalty: float | None = None
    """Beam: 0 prefers short outputs, larger values longer ones."""
    coverage_penalty: float | None = None
    """Beam: prefer outputs that looked at all of the input; 0.1 is much. For models with attention."""
    length_reward: float | None = None
    """Beam: add this for every token, in nats, before the length penalty divides."""
    mbr: bool | None = None
    """Beam: of what it finds, prefer what agrees with the rest, by BLEU, to what is most probable (minimum Bayes
    risk). With a memory the beam's own order stays."""
    n_best: int | None = None
    """Beam: return the n best outputs."""
    beam_groups: int | None = None
    """Beam: this many groups that avoid each other's words (diverse beam search)."""
    diversity: float | None = None
    """Beam in groups: how much they avoid each other (0.5 if you do not set it)."""
    strategy: str | None = None
    """A strategy by name: greedy, or one that you registered."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that have been seen less likely, below 1 more likely."""
    no_repeat_ngram: int | None = None
    """No n tokens in a row come twice (0: they may)."""
    prefix: str = ""
    """Every output begins with this text."""
    ban: tuple[str, ...] = ()
    """A word, or several, that never comes; may be repeated."""
    must: tuple[str, ...] = ()
    """A word, or several, that comes in every output, found by a beam; may be repeated. Alternatives: car|cars."""
    stop: tuple[str, ...] = ()
    """End before this string; may be repeated."""
    protect: bool = False
    """Copy numbers in digits, rare names, URLs, e-mail addresses, placeholders ({name}, %s, <b>) and emoji
    unchanged, each once, to where attention points."""
    protect_only: tuple[str, ...] = ()
    """Copy only this: numbers, names, urls, emails, placeholders or emoji; may be repeated."""
    replace_unk: bool = False
    """Models of words: for <unk>, write the word of the input that attention points at."""

    def __post_init__(self) -> None:
        errors = []
        for name, hint in _hints().items():
            if (value := getattr(self, name)) is getattr(SearchOptions, name):
                continue  # the default
            try:
                object.__setattr__(self, name, converted(value, hint))
            except TypeError as wrong:
                errors.append(f"{flag(name)} must be {wrong}")
        if errors:
            raise ConfigError(errors)

    @property
    def length_limit(self) -> int:
        """``max_new_tokens``, or its default."""
        return 200 if self.max_new_tokens is None else self.max_new_tokens

    def limits(self, input_lengths: Sequence[int]) -> list[int]:
        """How many tokens each output may have, given the length of its input (0: none that counts)."""
        if self.max_ratio is None:
            return [self.length_limit] * len(input_lengths)
        return [
            int(min(self.length_limit, self.max_ratio * n + 10)) if n else self.length_limit for n in input_lengths
        ]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of spans that are protected."""
        return self.protect_only or (KINDS if self.protect else ())

    @property
    def samples(self) -> bool:
        """Whether outputs are drawn at random."""
        return self.beam is None and self.strategy is None and any(self.temperature or (1.0,))

    @property
    def num_outputs(self) -> int:
        """How many outputs every input gets."""
        if self.beam is not None:
            return self.n_best or 1
        return 1 if self.strategy is not None else self._samples_each * max(len(self.temperature), 1)

    @property
    def _samples_each(self) -> int:
        """Samples per temperature. At 0 all are the same text: where there is no other, one is enough."""
        return (self.num_samples or 1) if self.samples else 1

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        return option_errors(self)

    def remarks(self) -> list[str]:
        """What the options do not do, a line each."""
        same = self.beam is None and self.strategy is None and (self.num_samples or 1) > self._samples_each
        return ["--num-samples: at --temperature 0 all samples are the same text, so there is one"] if same else []

    def check(self) -> SearchOptions:
        """Returns itself. Raises `ConfigError` with every error at once."""
        if found := self.errors():
            raise ConfigError(found)
        return self

    def build_strategy(self, must: Must | None = None) -> Strategy:
        """The strategy that the options ask for: beam, one by name, or sampling.

        Args:
            must: the processor of what has to come, which a beam searches with.
        """
        if self.beam is not None:
            options: dict[str, Any] = {
                "length_penalty": _or(self.length_penalty, 1.0),
                "coverage_penalty": self.coverage_penalty or 0.0,
                "length_reward": self.length_reward or 0.0,
                "n_best": self.n_best or 1,
            }
            if must is not None:
                return ConstrainedBeam(must, self.beam, **options)
            if self.beam_groups is None:
                return Beam(self.beam, **options)
            return DiverseBeam(self.beam, groups=self.beam_groups, diversity=_or(self.diversity, 0.5), **options)
        if self.strategy is not None:
            return STRATEGIES[self.strategy]()
        return Sample(
            temperature=self.temperature or (1.0,),
            top_k=self.top_k or 0,
            top_p=_or(self.top_p, 1.0),
            min_p=_or(self.min_p, 0.0),
            num_samples=self._samples_each,
            seed=self.seed,
        )

    def build_processors(
        self,
        *,
        never: Sequence[int],
        eos_id: int,
        tokenizer: Tokenizer,
        limits: Sequence[int] = (1 << 31,),
    ) -> list[Processor]:
        """The processors that the options ask for. ``never`` are token ids no output may hold, ``limits`` the most
        tokens of each output."""
        encode, decode = partial(tokenizer.encode, strict=True), tokenizer.decode
        banned, spelled = banned_tokens(self.ban, never, tokenizer)
        with within("--prefix"):
            begin = encode(self.prefix) if self.prefix else []
        processors: list[Processor] = [BannedTokens(banned)] if banned else []
        if spelled:
            processors.append(BannedTexts(spelled, tokenizer, limits))
        if self.min_new_tokens:
            processors.append(MinLength(self.min_new_tokens, eos_id))
        if self.repetition_penalty != 1:
            processors.append(RepetitionPenalty(self.repetition_penalty))
        if self.no_repeat_ngram:
            processors.append(NoRepeatNgram(self.no_repeat_ngram, forced=len(begin)))
        if begin:
            if unknown := sorted(set(begin) & {*banned, *never}):
                lacks = ", ".join(repr(decode([i])) for i in unknown)
                raise UserError(f"--prefix {self.prefix!r}: no output can begin so: {lacks} is unknown or banned")
            if held := [text for text in spelled if whole_words(text).search(tokenizer.normalize(self.prefix))]:
                raise UserError(f"--prefix {self.prefix!r}: no output can begin so: --ban {held[0]!r}")
            processors.append(ForcedPrefix(begin))
        if self.stop:
            processors.append(StopStrings(list(map(tokenizer.normalize, self.stop)), decode))
        return processors

    @classmethod
    def make(cls, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> SearchOptions:
        """``given`` over a model's own ``defaults``. How to search is taken from one of them, unless both search
        with a beam: another width leaves the rest as it is.

        Raises:
            ConfigError: an unknown option, or values that are wrong or contradict each other.
        """
        if errors := unknown_options({**defaults, **given}):
            raise ConfigError(errors)
        given = {name: value for name, value in given.items() if value is not None}
        ways = {*BEAM, *SAMPLING, "strategy"}
        chosen = ways & set(given)
        stays = "beam" in defaults and chosen <= {*BEAM}
        if stays and "beam" in given:  # these may not go with another width
            defaults = {name: value for name, value in defaults.items() if name not in BEAM[-3:]}
        # A seed or a number of samples alone still means the model's own way to sample.
        if not stays and chosen & (ways - {"seed", "num_samples", *BEAM[1:]}):
            defaults = {name: value for name, value in defaults.items() if name not in ways}
        elif given.get("must") and "beam" not in {**defaults, **given}:
            defaults = {**{name: value for name, value in defaults.items() if name not in ways}, "beam": 5}
        for group, other, why in (
            (SAMPLING, BEAM, "goes with sampling, such as --temperature 0.8: this model searches with a beam"),
            (BEAM, (*SAMPLING, "strategy"), "needs --beam, which this model does not search with by itself"),
        ):
            if (wrong := [name for name in group if name in given]) and any(name in defaults for name in other):
                raise ConfigError([f"{flag(wrong[0])} {why}"])
        return cls(**{**defaults, **given}).check()


def unknown_options(names: Iterable[str]) -> list[str]:
    """A line for each name that is no search option, with the nearest one that is.

    Example:
        >>> unknown_options(["temprature"])
        ["unknown option 'temprature'; did you mean temperature?"]
    """
    errors = []
    for name in sorted(set(names) - set(_hints())):
        near = get_close_matches(name, [*_hints(), "processors", "attention"], 1, 0.5)
        errors.append(f"unknown option {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    return errors


@cache
def _hints() -> dict[str, Any]:
    """The name and the type of every option."""
    return get_type_hints(SearchOptions)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
