"""What `gen translate` writes about a line, and says about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from gen.base import distributed
from gen.base.errors import notify, one_line
from gen.base.json_files import json_line
from gen.search.confidence import confidence_record
from gen.search.datastore import Datastore
from tasks.commands.confidence import coloured, in_colour, rated
from tasks.commands.models import record
from tasks.commands.must import unsaid
from tasks.translate.arguments import TranslateCommand
from tasks.translate.lines import Translation
from tasks.translate.terms import Terms


class Writer:
    """Translations as what is written.

    Args:
        config: how.
        width: lines per translation.
        store: the memory of the model, for --json.

    Attributes:
        number, listed: translations so far, and those of which something was written.
    """

    def __init__(self, config: TranslateCommand, width: int, store: Datastore | None) -> None:
        self.config, self.width, self.store = config, width, store if config.json else None
        self.number = self.listed = 0
        if self.store and not find_spec("rapidfuzz"):
            notify("--json: pairs of the memory like a line need rapidfuzz: pip install 'gen-toolkit[memory]'")
            self.store = None

    def __call__(self, number: int, found: Translation) -> str:
        """What is written about line ``number``: nothing where --below is not interested in it."""
        self.number = number
        written = self._written(number, found)
        self.listed += bool(written)
        return written

    def close(self) -> None:
        """Says how much --below has listed."""
        if self.config.below is not None and distributed.is_main():
            notify(f"--below {self.config.below:g}: {self.listed:,} of {self.number:,} lines")

    def _written(self, number: int, found: Translation) -> str:
        below = self.config.below
        if below is not None:
            sure = found.hypotheses[0].confidence if found.hypotheses else None
            if sure is None or sure >= below:
                return ""
            if not self.config.json:
                return self._to_look_at(number, found)
        if self.config.json:
            return json_line(self._record(number, found))
        return self._plain(found)

    def _to_look_at(self, number: int, found: Translation) -> str:
        """A line of `--below`."""
        best = found.hypotheses[0]
        text = coloured(best) if in_colour(self.config.output) else one_line(best.text)
        return f"{number}\t{best.confidence:.2f}\t{one_line(found.source)}\t{text}\n"

    def _plain(self, found: Translation) -> str:
        """One line per hypothesis, filled up to the width: a fixed number of lines per input."""
        lines, config = [], self.config
        for hypothesis, links in zip(found.hypotheses, found.alignments, strict=True):
            text = " ".join(rated(hypothesis, config.confidence, config.output).split("\n"))
            if config.scores:
                text = f"{hypothesis.score:.4f}\t{text}"
            if config.alignments:
                text += "\t" + " ".join(f"{s}-{t}" for s, t in links)
            lines.append(text + "\n")
        # A line without a translation has the columns of the others.
        empty = "\t" * (config.confidence + config.scores + config.alignments) + "\n"
        return "".join(lines) + empty * (self.width - len(lines))

    def _record(self, number: int, found: Translation) -> dict[str, Any]:
        near = {"memory": [match._asdict() for match in self.store.matches(found.source)]} if self.store else {}
        rates = self.config.confidence or self.config.below is not None
        return {
            "line": number,
            "source": found.source,
            **near,
            "translations": [
                record(h, tokens=len(h.log_probs), alignment=links, **(confidence_record(h) if rates else {}))
                for h, links in zip(found.hypotheses, found.alignments, strict=True)
            ],
        }


class Remarks:
    """Messages about lines, from the main process."""

    def __init__(self, config: TranslateCommand, terms: Terms | None) -> None:
        self.terms, self.without_term = terms or (), 0
        self.expects_links = config.alignments
        self.expects_ends = config.search.max_new_tokens is None
        self.unfinished: list[int] = []

    def added(self, numbered: Iterable[tuple[int, Translation]]) -> Iterator[tuple[int, Translation]]:
        """Translations with the numbers of their lines; `add` has seen them."""
        for number, found in numbered:
            self.add(number, found)
            yield number, found

    def add(self, number: int, found: Translation) -> None:
        """Prints messages about line ``number``, except those that `close` prints for all lines.

        Raises:
            UserError: the translation does not say what it must.
        """
        if not found.hypotheses or not distributed.is_main():
            return
        for text in found.hypotheses[0].missing:
            if text not in self.terms:
                raise unsaid(f"line {number}", text)
            notify(f"line {number}: --terms: the translation does not hold {text}")
            self.without_term += 1
        if found.cut:
            notify(
                f"line {number}: a sentence is more than twice as long as any in training: it is translated in "
                "pieces"
            )
        if not found.hypotheses[0].finished:
            self.unfinished.append(number)
        blind = found.hypotheses[0].attention is None and not found.alignments[0]
        if self.expects_links and found.hypotheses[0].token_ids and blind:
            self.expects_links = False
            notify("--alignments: this model has no attention, so there are none")

    def close(self) -> None:
        """Prints one message each for all translations that were cut off, and that lack a term."""
        if self.without_term:
            notify(f"--terms: {self.without_term:,} could not hold")
        if self.unfinished and self.expects_ends:
            some = ", ".join(f"{n}" for n in self.unfinished[:12]) + (", …" if len(self.unfinished) > 12 else "")
            notify(f"cut off at the length limit (--max-ratio, --max-new-tokens): translations of line {some}")
