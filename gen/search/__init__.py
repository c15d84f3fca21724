"""Choosing the next token: one loop, a strategy that picks, processors that forbid.

Nothing in here imports torch: the same search drives torch tensors and numpy arrays (see `ops`).
"""

from gen.search.beam import Beam
from gen.search.diverse_beam import DiverseBeam
from gen.search.greedy import Greedy
from gen.search.loop import drain, search
from gen.search.options import SearchOptions
from gen.search.output import Hypothesis, Output
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
from gen.search.strategy import STRATEGIES, Strategy, register
from gen.search.unrolled import StepRecord

__all__ = [
    "STRATEGIES",
    "BannedTokens",
    "Beam",
    "DiverseBeam",
    "ForcedPrefix",
    "Greedy",
    "Hypothesis",
    "MinLength",
    "NoRepeatNgram",
    "Output",
    "Processor",
    "RepetitionPenalty",
    "Sample",
    "SearchOptions",
    "StepRecord",
    "StopStrings",
    "Strategy",
    "drain",
    "register",
    "search",
]
