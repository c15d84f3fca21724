"""What can be wrong with the types and values of `SearchOptions`, and between them."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, get_args, get_origin

from gen.base.errors import flag
from gen.inputs.protected import KINDS
from gen.search.strategy import STRATEGIES

if TYPE_CHECKING:
    from gen.search.options import SearchOptions

MOST_TOKENS = 1_000_000
"""Of an output: a search keeps a record of every step."""

MOST_SAMPLES = 10_000
"""Samples of an input are drawn at once."""

MOST_BEAMS = 1000
"""Memory grows with the beam, and quality no longer does."""

UNKNOWN = ("error", "skip", "replace")

BEAM = (
    *("beam", "length_penalty", "coverage_penalty", "length_reward", "mbr"),
    *("n_best", "beam_groups", "diversity"),
)
"""The options of beam search, the one that asks for it first."""

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "num_samples", "seed")
"""The options of sampling."""

MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-6, 1e6
"""Least and greatest temperature above 0: float32 cannot divide by much less or more."""

BOUNDS: Mapping[str, tuple[float, float]] = {
    "beam": (1, MOST_BEAMS),
    "length_penalty": (-5, 5),
    "coverage_penalty": (0, 100),
    "length_reward": (-100, 100),
    "diversity": (0, 100),
    "num_samples": (1, MOST_SAMPLES),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 100),
}
"""The least and the most of options. Beyond, penalties leave nothing of the model's own scores, or of float32."""


def option_errors(options: SearchOptions) -> list[str]:
    """Everything that is wrong with the options, a line each."""
    groups = (_bounds, _lengths, _sampling, _beam, _texts, _strategy)
    return [message for group in groups for wrong, message in group(options) if wrong] + _mixed(options)


Checks = Iterator[tuple[bool, str]]
"""Whether something is wrong, and what to say then."""


def _bounds(o: SearchOptions) -> Checks:
    for name, (least, most) in BOUNDS.items():
        value = getattr(o, name)
        yield (
            value is not None and not least <= value <= most,
            f"{flag(name)} must be between {least:,} and {most:,}, not {value}",
        )


def _lengths(o: SearchOptions) -> Checks:
    yield (
        not 1 <= o.length_limit <= MOST_TOKENS,
        f"--max-new-tokens must be between 1 and {MOST_TOKENS:,}, not {o.max_new_tokens}",
    )
    yield o.max_ratio is not None and not o.max_ratio > 0, f"--max-ratio must be above 0, not {o.max_ratio}"
    yield (
        not 0 <= o.min_new_tokens <= max(o.length_limit, 0),
        f"--min-new-tokens must be between 0 and --max-new-tokens, not {o.min_new_tokens}",
    )


def _sampling(o: SearchOptions) -> Checks:
    for t in o.temperature:
        yield (
            t != 0 and not MIN_TEMPERATURE <= t <= MAX_TEMPERATURE,
            f"--temperature must be 0, or between {MIN_TEMPERATURE:g} and {MAX_TEMPERATURE:,.0f}, not {t}",
        )
    yield o.top_k is not None and o.top_k < 1, f"--top-k must be at least 1, not {o.top_k}"
    yield (
        o.top_p is not None and not 0 < o.top_p <= 1,
        f"--top-p must be above 0 and at most 1, not {o.top_p}",
    )
    yield o.seed is not None and o.seed < 0, f"--seed must be 0 or more, not {o.seed}"


def _beam(o: SearchOptions) -> Checks:
    yield (
        o.n_best is not None and not 1 <= o.n_best <= (o.beam or o.n_best),
        f"--n-best must be between 1 and --beam ({o.beam or 1}), not {o.n_best}",
    )
    yield (
        o.beam_groups is not None and (o.beam_groups < 1 or bool((o.beam or o.beam_groups) % o.beam_groups)),
        f"--beam-groups must divide --beam {o.beam}, and {o.beam_groups} does not",
    )
    yield o.diversity is not None and not o.beam_groups, "--diversity goes with --beam-groups"


def _texts(o: SearchOptions) -> Checks:
    """Of the options that say what an output may hold."""
    yield (o.no_repeat_ngram or 0) < 0, f"--no-repeat-ngram must be 0 or more, not {o.no_repeat_ngram}"
    yield (
        o.unknown not in (None, *UNKNOWN),
        f"--unknown must be one of {', '.join(UNKNOWN)}, not {o.unknown!r}",
    )
    yield "" in o.stop, "--stop must not be empty"
    for kind in o.protect_only:
        yield kind not in KINDS, f"--protect-only must be one of {', '.join(KINDS)}, not {kind!r}"
    yield "" in o.ban, "--ban must not be empty"
    for text in empty_in(o.must):
        yield True, f"--must {text!r}: is empty, or has an empty alternative"
    other = next((flag(name) for name in ("strategy", *SAMPLING, "beam_groups") if _is_given(o, name)), "sampling")
    yield (
        bool(o.must) and (o.beam is None or o.beam_groups is not None),
        f"--must is searched by --beam: leave out {other}",
    )


def _strategy(o: SearchOptions) -> Checks:
    yield (
        o.strategy is not None and o.strategy not in STRATEGIES,
        f"--strategy must be one of {', '.join(sorted(STRATEGIES))}, not {o.strategy!r}",
    )


def _mixed(o: SearchOptions) -> list[str]:
    """Of options that belong to different ways to search."""
    beam, strategy, sampling = (
        [flag(name) for name in group if _is_given(o, name)] for group in (BEAM, ("strategy",), SAMPLING)
    )
    used = [flags for flags in (beam, strategy, sampling) if flags]
    if len(used) > 1:
        return [f"{used[0][0]} and {used[1][0]} exclude each other: choose one way to search"]
    return [f"{beam[0]} needs --beam"] if beam and o.beam is None else []


def _is_given(options: SearchOptions, name: str) -> bool:
    value = getattr(options, name)
    return value is not False and value not in (None, ())  # what is turned off contradicts nothing


def empty_in(wanted: Sequence[str]) -> list[str]:
    """Those of the constraints that have an empty alternative.

    Example:
        >>> empty_in(["car|cars", "dog|"])
        ['dog|']
    """
    return [text for text in wanted if not all(map(str.strip, text.split("|")))]


def converted(value: Any, hint: Any) -> Any:
    """A value as the plain Python type that an option has. Raises TypeError with what it must be, and is not."""
    inner = get_args(hint)
    if type(None) in inner:
        if value is None:
            return None
        (hint,) = (each for each in inner if each is not type(None))
    several = get_origin(hint) is tuple
    values = [value]
    if several:
        hint = inner[0]
        if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
            values = list(value)
    found = [_plain(each, hint) for each in values]
    if None in found:
        what = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}[hint]
        shown = " ".join(repr(value).split())
        shown = shown if len(shown) <= 80 else shown[:79] + "…"
        raise TypeError(f"{what}{', or several' if several else ''}, not {shown}")
    return tuple(found) if several else found[0]


def _plain(value: Any, kind: type) -> Any:
    """A bool, int, float or str made of ``value`` without loss; None where it is none."""
    if kind is str:
        return str(value) if isinstance(value, str) else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    try:
        if kind is int:
            return operator.index(value)
        return float(value) if isinstance(value, Real) else None
    except TypeError:
        return None
    except OverflowError:
        return math.inf if value > 0 else -math.inf
