"""`generate` and `stream`: from items to text, for everything that can predict a next token.

Imports no torch: a neural model, a Markov chain and an exported model share this.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, overload

import numpy as np

from gen.inputs.tokenizer import Tokenizer
from gen.search import Hypothesis, Processor, SearchOptions, StepRecord, Strategy, drain, search
from gen.search.info import ModelInfo
from gen.search.loop import Step
from gen.search.ops import Ops


@dataclass(frozen=True)
class SearchInput:
    """What a search begins with.

    Attributes:
        step: the model; see `gen.search.loop.Step`.
        state: its first state, a row an item.
        prompts: where each output begins, as text.
        ops: the array operations the model speaks.
        mask: (B, S) bool, the real positions of each item's memory; None without a memory.
    """

    step: Step
    state: Any
    prompts: list[str]
    ops: Ops
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Score:
    """How probable a text is: ``log_prob`` (nats) of ``num_tokens`` tokens, and of each of them."""

    log_prob: float
    num_tokens: int
    log_probs: list[float]


class GenerationMixin:
    """Adds `generate` and `stream` to a class with a tokenizer and a `start_search`."""

    tokenizer: Tokenizer
    search_defaults: dict[str, Any]
    info: ModelInfo

    def start_search(self, items: Sequence[Any]) -> SearchInput:
        """Reads the items as far as the first call of the decoder."""
        raise NotImplementedError

    def _evaluating(self) -> AbstractContextManager[Any]:
        return nullcontext()

    @overload
    def generate(self, items: str, **options: Any) -> list[Hypothesis]: ...
    @overload
    def generate(self, items: Sequence[Any], **options: Any) -> list[list[Hypothesis]]: ...
    def generate(self, items: Any, **options: Any) -> list[Hypothesis] | list[list[Hypothesis]]:
        """Writes something for every item: continues a prompt, translates a sentence, captions a picture.

        Args:
            items: one item, or a list or tuple of them. To a translation model a text is one sentence: only
                ``gen translate`` takes apart what holds several.
            strategy: a `Strategy` object, or the name of one; else the options decide.
            processors: further `Processor` objects.
            attention: False forgets the attention weights.
            options: fields of `SearchOptions`.

        Returns:
            The hypotheses of the item, best or first sample first; for a list, a list of such lists.

        Raises:
            UserError: a prompt the vocabulary cannot spell, or options that are wrong.

        Example:
            >>> model.generate(["The ", "A "], temperature=0.8, num_samples=2)[1][0].text
        """
        single = not isinstance(items, list | tuple)
        running = self._search([items] if single else items, **options)
        with self._evaluating():
            results = drain(running)
        return results[0] if single else results

    def generate_many(
        self, items: Iterable[Any], *, batch_size: int = 64, **options: Any
    ) -> Iterator[list[Hypothesis]]:
        """`generate` for any number of items, in batches of like length; yields in the order of the items.

        Args:
            items: an iterable, read 32 batches ahead to find items of like length; with batches of one not at all.
            batch_size: items searched at once; fewer where they are long texts.
            options: as for `generate`.

        Example:
            >>> for found in model.generate_many(map(str.rstrip, open("lines.txt")), beam=5): print(found[0].text)
        """
        items, ahead = iter(items), 32 if batch_size > 1 else 1
        while block := list(islice(items, batch_size * ahead)):
            size = [len(item) if isinstance(item, str) else 0 for item in block]
            order = sorted(range(len(block)), key=lambda i: size[i])
            ready: dict[int, list[Hypothesis]] = {}
            yielded = 0
            while order:
                # 256 characters are a long sentence: of longer ones, proportionally fewer fit.
                count = max(1, min(batch_size, batch_size * 256 // max(size[order[-1]], 1)))
                rows, order = order[-count:], order[:-count]
                ready.update(zip(rows, self.generate([block[i] for i in rows], **options), strict=True))
                while yielded in ready:
                    yield ready.pop(yielded)
                    yielded += 1

    def score(self, texts: Sequence[str], items: Sequence[Any] | None = None) -> list[Score]:
        """The log-probability of each text; EOS counts where sequences end by it.

        Args:
            texts: what the decoder would have written.
            items: what it would have written them about; None for free text.
        """
        if not texts:
            return []
        encoded = [self.tokenizer.encode_array(text) for text in texts]
        log_probs = self._log_probs(encoded, list(items) if items is not None else [""] * len(texts))
        ends = int(self.info.ends_with_eos)
        rows = [row[: len(ids) + ends].tolist() for row, ids in zip(log_probs, encoded, strict=True)]
        return [Score(sum(row), len(row), row) for row in rows]

    def _log_probs(self, encoded: Sequence[np.ndarray], items: Sequence[Any]) -> np.ndarray:
        """The log-probability of each token of B texts, and of EOS after it: (B, T + 1) float32."""
        raise NotImplementedError

    def stream(self, item: Any, **options: Any) -> Iterator[str]:
        """Writes for one item and yields the text as it comes; joined, it is what `generate` returns.

        Takes what `generate` takes. Strategies that change their mind (beam search) yield all at the end.
        """
        stops = tuple(options.get("stop") or self.search_defaults.get("stop") or ())
        said: list[int] = []  # before what is pending: some tokens look different at the beginning of a text
        pending: list[int] = []
        held = ""  # decoded, but perhaps the beginning of a stop string
        running = self._search([item], **options)
        with self._evaluating():
            while True:
                try:
                    column = next(running)
                except StopIteration as stop:
                    hypothesis: Hypothesis = stop.value[0][0]
                    break
                if column.parents is not None or not bool(column.live[0]):
                    continue
                pending.append(int(column.token_ids[0]))
                text = self._after(said, pending)
                if text.endswith("\N{REPLACEMENT CHARACTER}"):  # the first bytes of a character
                    continue
                said, pending, held = pending, [], held + text
                if _cut(held, stops) == held:
                    free = held[: len(held) - _begun(held, stops)]
                    held = held[len(free) :]
                    if free:
                        yield free
        rest = held + self._after(said, pending) if column.parents is None else hypothesis.text
        if rest := _cut(rest, stops):
            yield rest

    def _after(self, said: list[int], pending: list[int]) -> str:
        """The text of tokens that follow others."""
        return self.tokenizer.decode(said + pending).removeprefix(self.tokenizer.decode(said))

    def _search(
        self,
        items: Sequence[Any],
        *,
        strategy: Strategy | str | None = None,
        processors: Sequence[Processor] = (),
        attention: bool = True,
        **given: Any,
    ) -> Generator[StepRecord, None, list[list[Hypothesis]]]:
        """`search` over items, with the options turned into objects and the results into text."""
        if isinstance(strategy, str):
            given["strategy"] = strategy
        options = SearchOptions.make(self.search_defaults, given)
        if not items:
            return []
        tokenizer = self.tokenizer
        spell: Callable[[str], list[int]] = lambda text: tokenizer.encode(text, strict=True)  # noqa: E731
        never = (tokenizer.bos_id, tokenizer.unk_id)
        wanted = options.build_processors(never=never, eos_id=tokenizer.eos_id, tokenizer=tokenizer)
        start = self.start_search(items)
        mask = np.zeros((len(items), 0), bool) if start.mask is None else start.mask
        results = yield from search(
            start.step,
            start.state,
            [[tokenizer.bos_id, *spell(prompt)] for prompt in start.prompts],
            strategy if isinstance(strategy, Strategy) else options.build_strategy(),
            ops=start.ops,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            max_new_tokens=options.limits(mask.sum(1).tolist()),
            never=never,
            processors=[*wanted, *processors],
            keep_attention=attention,
        )
        for real, hypotheses in zip(mask, results, strict=True):
            for hypothesis in hypotheses:
                if hypothesis.attention is not None:
                    hypothesis.attention = hypothesis.attention[:, real]
                hypothesis.text = _cut(tokenizer.decode(hypothesis.token_ids), options.stop)
        return results


def _cut(text: str, stops: Sequence[str]) -> str:
    """``text`` up to the first of the stop strings."""
    ends = [at for s in stops if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a stop string."""
    begun = (n for s in stops for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n]))
    return max(begun, default=0)
