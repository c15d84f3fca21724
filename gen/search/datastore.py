"""A memory: of every token of a corpus, what the decoder predicts it from (Khandelwal et al., 2020, 2021).

`gen.search.remember` writes it, without training, and `gen.search.neighbours` lets it vote in a search.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen.base.errors import UserError
from gen.inputs.items import sentence_of
from gen.search.lookup import QUERIES, Lookup, open_keys
from gen.search.neighbours import Neighbours
from gen.search.ops import NumpyOps


class Defaults(NamedTuple):
    """What a `Datastore` is used with if nobody says otherwise; see there."""

    neighbours: int
    temperature: float


# Best of those tried: 30,000 pairs of a phrase book for a model of Multi30k, so that Multi30k suffers little; and
# 150,000 characters, of its own training text and of captions, for a model of Shakespeare.
PAIRS, TEXT = Defaults(32, 0.05), Defaults(64, 0.02)

MOST = 2048
"""Entries that are searched for an input: pairs may be long."""


class Match(NamedTuple):
    """A pair of a memory whose source is like a sentence: at a similarity of 1 it is the same."""

    source: str
    target: str
    similarity: float


class Datastore:
    """A memory that `write_pairs` or `write_text` of `gen.search.remember` wrote, for ``model.datastore``.

    Args:
        folder: where it is.
        model: that it was written for.
        neighbours: of a translation model the pairs, most like the input, that are searched; of a language model
            the nearest places that vote.
        temperature, weight: of the vote; see `gen.search.neighbours.vote`.

    What is None is that of `PAIRS` or `TEXT`.

    Attributes:
        scale: the mean squared distance of two entries, the unit of distances.
        loss: what a token cost the model when it was read, in nats.

    Raises:
        UserError: it belongs to another model, or is no memory.

    Example:
        >>> import tempfile
        >>> from gen.search.remember import write_text
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> from gen.models.model import DecoderConfig, Model, ModelInfo
        >>> tokenizer = CharTokenizer.train(["hello"])
        >>> info = ModelInfo(ends_with_eos=False)
        >>> model = Model({"name": "none"}, DecoderConfig(len(tokenizer)), tokenizer, info).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_text(Path(folder), model, ["hello"])
        ...     model.datastore = Datastore(Path(folder), model)
        >>> model.generate("he", temperature=0, max_new_tokens=3).text
        'llo'
    """

    def __init__(
        self,
        folder: Path,
        model: Any,
        *,
        neighbours: int | None = None,
        temperature: float | None = None,
        weight: float = 0.8,
    ) -> None:
        try:
            about = json.loads((folder / "about.json").read_text())
            fingerprint, self.scale, self.loss = about["fingerprint"], float(about["scale"]), float(about["loss"])
            self.keys = np.load(folder / "keys.npy", mmap_mode="r")
            self.values = np.load(folder / "values.npy", mmap_mode="r")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder}: is no memory ({error})") from error
        if fingerprint != model.fingerprint:
            raise UserError(f"{folder}: is the memory of another model")
        self._eos_id = model.tokenizer.eos_id
        self.has_pairs = (folder / "pairs.jsonl").exists()
        usual = PAIRS if self.has_pairs else TEXT
        self.neighbours = usual.neighbours if neighbours is None else neighbours
        self.temperature = usual.temperature if temperature is None else temperature
        self.weight = weight
        if self.has_pairs:
            self._open_pairs(folder, model)
        else:
            self._search = open_keys(folder, self.keys)

    def _open_pairs(self, folder: Path, model: Any) -> None:
        self._source, self._tokenizer = model.processors["sentence"], model.tokenizer
        self._ends = np.load(folder / "ends.npy")
        self._lookup = Lookup(np.load(folder / "sources.npy"), np.load(folder / "source_ends.npy"))
        with (folder / "pairs.jsonl").open(encoding="utf-8") as file:
            self._pairs: list[tuple[str, str]] = [tuple(json.loads(line)) for line in file]
        targets: dict[str, Counter[str]] = {}
        for source, target in self._pairs:
            targets.setdefault(self._normal(source), Counter())[target] += 1
        self._targets = {source: each.most_common(1)[0][0] for source, each in targets.items()}

    def _normal(self, source: str) -> str:
        """A source as the model sees it."""
        text = " ".join(self._source.tokenizer.normalize(source).split())
        return text.lower() if self._source.lowercase else text

    def target(self, source: Any) -> str | None:
        """The target of a sentence that the memory has: of several the most frequent."""
        return self._targets.get(self._normal(source)) if self.has_pairs and isinstance(source, str) else None

    def target_ids(self, source: Any) -> list[int] | None:
        """The tokens of `target`, with EOS; None also where the vocabulary lacks some of it."""
        if (target := self.target(source)) is None:
            return None
        ids = self._tokenizer.encode(target)
        return None if self._tokenizer.unk_id in ids else [*ids, self._tokenizer.eos_id]

    def matches(self, source: str, count: int = 3, least: float = 0.6) -> list[Match]:
        """The pairs most like a sentence, best first, by edit distance.

        Raises:
            UserError: rapidfuzz is missing.
        """
        try:
            from rapidfuzz.distance import Levenshtein
        except ImportError as error:
            raise UserError("fuzzy matches need rapidfuzz: pip install 'gen-toolkit[memory]'") from error
        normal, found = self._normal(source), dict[str, Match]()
        for line in self._nearest(source, 2 * PAIRS.neighbours):
            near, target = self._pairs[line]
            similarity = Levenshtein.normalized_similarity(normal, self._normal(near))
            if similarity >= least:
                found.setdefault(target, Match(near, target, round(similarity, 4)))
        return sorted(found.values(), key=lambda match: -match.similarity)[:count]

    def _nearest(self, source: Any, count: int) -> np.ndarray:
        """The indices of the pairs whose sources share most with a sentence."""
        return self._lookup.nearest(self._source.encode(source)[:-1], count)

    def _entries(self, source: Any) -> np.ndarray:
        """The indices of the entries of the pairs most like a sentence."""
        ranges = [np.arange(self._ends[i], self._ends[i + 1]) for i in self._nearest(source, self.neighbours)]
        return np.concatenate([np.empty(0, np.int64), *ranges])[:MOST]

    def processor(self, items: Sequence[Any], use_targets: Sequence[bool] = ()) -> Neighbours:
        """What lets the memory vote in a search.

        Args:
            items: the inputs.
            use_targets: for each, whether a sentence that the memory has is translated as it was there.
        """
        if not self.has_pairs:
            return Neighbours(self, [None] * len(items))
        sources = list(map(sentence_of, items))
        targets: list[list[int] | None] = []
        for source, use in zip_longest(sources, use_targets, fillvalue=False):
            targets.append(self.target_ids(source) if use else None)
        return Neighbours(self, targets, list(map(self._entries, sources)))

    def nearest(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest places of a text: their squared distances, and their tokens; (Q, k) each."""
        k, begins = min(self.neighbours, len(self.keys)), range(0, len(queries), QUERIES)
        parts = [self._search(queries[begin : begin + QUERIES], k) for begin in begins]
        distances, found = (np.concatenate(each) for each in zip(*parts, strict=True))
        return distances / self.scale, self.values[found]

    def mixed(
        self,
        log_probs: np.ndarray,
        features: np.ndarray | None,
        encoded: Sequence[np.ndarray],
        items: Sequence[Any],
    ) -> np.ndarray:
        """The log-probabilities of the tokens of B texts, (B, T + 1), with what the memory says of them.

        Args:
            log_probs: the model's, (B, T + 1); the last of a text is that of EOS.
            features: that it predicts them from, (B, T + 1, F).
            encoded: the texts.
            items: their inputs.
        """
        B, T = log_probs.shape
        token_ids = np.full((B, T), -1)
        for row, ids in zip(token_ids, encoded, strict=True):
            row[: len(ids) + 1] = [*ids, self._eos_id]
        processor = self.processor(items)
        processor.start(NumpyOps(), [[0]] * (B * T), 0)
        processor.observe_features(features if features is None else features.reshape(B * T, -1))
        found = processor.vote()
        said = found.token_ids == token_ids.reshape(-1)[found.queries]
        own = np.bincount(found.queries[said], found.probs[said], minlength=B * T)
        mixed = found.rest * np.exp(log_probs.reshape(-1).astype(np.float64)) + own
        return np.log(np.maximum(mixed, 1e-300)).reshape(B, T).astype(np.float32)
