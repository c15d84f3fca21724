"""`generate`, `stream`, `score`: from items to text, for everything that predicts a next token.

Imports no torch: a neural model, a Markov chain and an exported model share this.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from math import isnan
from typing import Any, Unpack, cast, overload

import numpy as np

from gen.base.errors import ConfigError, UserError
from gen.inputs.tokenizer import Tokenizer
from gen.search.confidence import Calibration
from gen.search.datastore import Datastore
from gen.search.info import ModelInfo
from gen.search.keywords import GenerateKeywords
from gen.search.loop import NOT_FINITE, answered, drain
from gen.search.options import SearchOptions
from gen.search.output import Hypothesis, Output
from gen.search.pieces import Pieces
from gen.search.prepare import prepare
from gen.search.prepared import PreparedSearch, SearchInput
from gen.search.sample import fresh_seed
from gen.search.strategy import Strategy
from gen.search.unrolled import StepRecord

__all__ = ["GenerationMixin", "Score", "SearchInput"]


@dataclass(frozen=True)
class Score:
    """The log-probability of a text (nats): the sum over ``num_tokens`` tokens, and per token."""

    log_prob: float
    num_tokens: int
    log_probs: list[float]


class GenerationMixin:
    """Adds `generate`, `stream`, `score` and `suggest` to a class with a tokenizer and a `start_search`."""

    tokenizer: Tokenizer
    search_defaults: dict[str, Any]
    info: ModelInfo
    calibration: Calibration | None = None
    datastore: Datastore | None = None
    """A memory that votes on each token that is written, or scored."""

    def start_search(self, items: Sequence[Any]) -> SearchInput:
        """Reads the items, up to the first call of the decoder."""
        raise NotImplementedError

    @property
    def reads_input(self) -> bool:
        """Whether the model needs an input, such as a sentence or a picture; False for free text."""
        return False

    def evaluating(self) -> AbstractContextManager[Any]:
        """A context in which the model computes as it does after training, without dropout."""
        return nullcontext()

    @overload
    def __call__(self, items: list[Any], **options: Unpack[GenerateKeywords]) -> list[str]: ...
    @overload
    def __call__(self, items: Any, **options: Unpack[GenerateKeywords]) -> str: ...
    def __call__(self, items: Any, **options: Unpack[GenerateKeywords]) -> str | list[str]:
        """The text of the best hypothesis per item: a string for one item, a list of strings for a list.

        Takes what `generate` takes.
        """
        options.setdefault("attention", False)
        found = self.generate(items, **options)
        return found.text if isinstance(found, Output) else [output.text for output in found]

    @overload
    def generate(self, items: list[Any], **options: Unpack[GenerateKeywords]) -> list[Output]: ...
    @overload
    def generate(self, items: Any, **options: Unpack[GenerateKeywords]) -> Output: ...
    def generate(self, items: Any, **options: Unpack[GenerateKeywords]) -> Output | list[Output]:
        """Generates text for every item: continues a prompt, translates a sentence, captions a picture.

        Args:
            items: one item, or a *list* of them: a string; a picture's path, bytes, `PIL.Image` or array; or a
                mapping {name: item} for a model that reads several inputs. To a translation model a text is one
                sentence: only ``gen translate`` and ``gen serve`` split texts.
            options: the fields of `SearchOptions`; ``strategy``, a `Strategy` object or the name of one;
                ``processors``, further `Processor` objects; ``attention``, False to drop the attention weights;
                ``lexicon``, a mapping of words for ``replace_unk``.

        Returns:
            One `Output`; for a list, one per item.

        Raises:
            UserError: a prompt the vocabulary cannot spell, or an item of the wrong type.
            ConfigError: options that are wrong.
        """
        single = not isinstance(items, list)
        running = self._search([items] if single else items, **options)
        with self.evaluating():
            results = [Output(hypotheses) for hypotheses in drain(running)]
        return results[0] if single else results

    def generate_many(
        self, items: Iterable[Any], *, batch_size: int = 64, **options: Unpack[GenerateKeywords]
    ) -> Iterator[Output]:
        """`generate` for any number of items, in batches of similar length; yields in the order of the items.

        Args:
            items: an iterable; a string or a mapping is one item. 32 batches are read ahead to find items of
                similar length; with batches of one, nothing is.
            batch_size: items searched at once; fewer where they are long texts.
            options: as for `generate`. Without a seed, one is drawn for all items.

        Raises:
            UserError, ConfigError: as `generate` does, at the first item.
        """
        if batch_size < 1:
            raise ConfigError([f"--batch-size must be at least 1, not {batch_size}"])
        options = _reusable(options)
        strategy = options.get("strategy")
        if not isinstance(strategy, Strategy):
            chosen = self.search_options(options)
            if chosen.samples and chosen.seed is None:
                options["seed"] = fresh_seed()
        single = isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable)
        items, ahead = iter([items] if single else items), 32 if batch_size > 1 else 1
        while block := list(islice(items, batch_size * ahead)):
            ready: dict[int, Output] = {}
            yielded = 0
            for rows in in_batches(list(map(length_of, block)), batch_size):
                ready.update(zip(rows, self.generate([block[i] for i in rows], **options), strict=True))
                while yielded in ready:
                    yield ready.pop(yielded)
                    yielded += 1

    def suggest(self, prompt: str, n_best: int = 5) -> list[tuple[str, float]]:
        """The likeliest words that complete what is being typed; see `gen.search.suggest.suggest`."""
        from gen.search.suggest import suggest

        return suggest(self, prompt, n_best)

    def score(self, texts: Sequence[str], items: Sequence[Any] | None = None) -> list[Score]:
        """The log-probability of each text; EOS counts where sequences end with it.

        Where the model has a ``datastore``, that votes, too.

        Args:
            texts: the outputs to score, any number of them.
            items: the inputs, one per text; None for free text.

        Raises:
            UserError: the items do not fit the texts, or the model's log-probabilities are NaN.
        """
        if isinstance(texts, str) or isinstance(items, str):
            raise UserError("score takes a list of texts, and of items: [text], [item]")
        if items is None and self.reads_input and texts:
            raise UserError("this model reads an input: give items, one per text")
        if items is not None and len(items) != len(texts):
            raise UserError(f"score takes one item per text, not {len(items):,} for {len(texts):,}")
        if not texts:
            return []
        items = list(items) if items is not None else [""] * len(texts)
        sizes = [len(text) + length_of(item) for text, item in zip(texts, items, strict=True)]
        found: dict[int, Score] = {}
        for rows in in_batches(sizes, min(len(texts), 64)):
            found.update(zip(rows, self._scored([texts[i] for i in rows], [items[i] for i in rows]), strict=True))
        return [found[i] for i in range(len(texts))]

    def _scored(self, texts: Sequence[str], items: Sequence[Any]) -> list[Score]:
        encoded = [self.tokenizer.encode_array(text) for text in texts]
        log_probs, features = self.forced_log_probs(encoded, items)
        if self.datastore:
            log_probs = self.datastore.mixed(log_probs, features, encoded, items)
        ends = int(self.info.ends_with_eos)
        rows = [row[: len(ids) + ends].tolist() for row, ids in zip(log_probs, encoded, strict=True)]
        if any(isnan(sum(row)) for row in rows):
            raise UserError(NOT_FINITE)
        return [Score(sum(row), len(row), row) for row in rows]

    def forced_log_probs(
        self, encoded: Sequence[np.ndarray], items: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads B texts, token by token or at once.

        Returns:
            The log-probability of each token, and of EOS after it, (B, T + 1) float32; and what the decoder
            predicts each from, (B, T + 1, F) float32, or None.
        """
        raise NotImplementedError

    def stream(self, item: Any, **options: Unpack[GenerateKeywords]) -> Iterator[str]:
        """Generates text for one item and yields it in pieces; joined, they are what `generate` returns.

        Takes what `generate` takes. Strategies that revise earlier tokens (beam search) yield everything at the
        end.

        Raises:
            ConfigError: several samples or temperatures: a stream is one text.
        """
        options = _reusable(options)
        chosen = self.search_options(options)
        own = isinstance(options.get("strategy"), Strategy)
        if not own and chosen.beam is None and chosen.num_outputs > 1:
            several = "several values of --temperature" if len(chosen.temperature) > 1 else "--num-samples"
            raise ConfigError([f"{several}: a stream is one text; use generate for several"])
        with self.evaluating():
            prepared = self.prepare([item], **options)
            pieces = Pieces(self.tokenizer, prepared.texts[0], prepared.stops)
            running = answered(prepared.start.step, prepared.unroll())
            while True:
                try:
                    column = next(running)
                except StopIteration as stop:
                    hypothesis: Hypothesis = stop.value[0][0]
                    break
                revised = column.parents is not None or prepared.copying is not None
                if not revised and bool(column.live[0]) and (piece := pieces.add(int(column.token_ids[0]))):
                    yield piece
        if rest := hypothesis.text if revised else pieces.rest():
            yield rest

    def prepare(self, items: Sequence[Any], **given: Unpack[GenerateKeywords]) -> PreparedSearch:
        """What `generate` does before the first step: reads and encodes items, and turns options into objects.

        Raises:
            UserError, ConfigError: as `generate` does.
        """
        return prepare(self, items, self.search_options(given), given)

    def search_options(self, given: GenerateKeywords) -> SearchOptions:
        """The search options: those given, over the model's defaults."""
        names: dict[str, Any] = {k: v for k, v in given.items() if k not in ("processors", "attention", "lexicon")}
        if isinstance(names.get("strategy"), Strategy):
            del names["strategy"]
        return SearchOptions.make(self.search_defaults, names)

    def _search(
        self, items: list[Any], **given: Unpack[GenerateKeywords]
    ) -> Generator[StepRecord, None, list[list[Hypothesis]]]:
        """`search` over items, with the options turned into objects and the results into text."""
        if not items:
            self.search_options(given)
            return []
        prepared = self.prepare(items, **given)
        return (yield from answered(prepared.start.step, prepared.unroll()))


def length_of(item: Any) -> int:
    """The length of an item's texts in characters; 0 for other inputs."""
    parts = item.values() if isinstance(item, Mapping) else [item]
    return sum(len(part) for part in parts if isinstance(part, str))


def in_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, the longest first.

    Args:
        lengths: of all items, in characters.
        batch_size: items per batch. 256 characters are a long sentence: of longer ones, proportionally fewer fit.

    Example:
        >>> list(in_batches([3, 1024, 5], 2))
        [[1], [0, 2]]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    while order:
        count = max(1, min(batch_size, batch_size * 256 // max(lengths[order[-1]], 1)))
        rows, order = order[-count:], order[:-count]
        yield rows


def _reusable(options: GenerateKeywords) -> GenerateKeywords:
    """Keywords that can be read more than once: iterators become tuples."""
    found = {name: tuple(value) if isinstance(value, Iterator) else value for name, value in options.items()}
    return cast(GenerateKeywords, found)
