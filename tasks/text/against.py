"""A text model against counting and against other people's models, on the same held-out text."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from gen.base.errors import UserError, printable
from gen.datasets.corpus import Corpus, Part, tokenize
from gen.datasets.splits import lines_in
from gen.metrics.markov import MarkovChain
from gen.models.model import Model
from gen.training.config import recorded
from tasks.commands.models import load_model
from tasks.text.causal import CausalModel
from tasks.text.data import given_labels, read_corpus, text_files
from tasks.text.evaluation import evaluate_part
from tasks.text.markov import fit_markov, markov_metrics, markov_order
from tasks.text.options import TextData, TextHeldOut
from tasks.text.task import Text

TEMPERATURE, SEED = 0.8, 1


@dataclass(frozen=True)
class Row:
    """One model on the text.

    Attributes:
        name: for people.
        size: what it is made of, such as its number of parameters.
        bits_per_char: information in the text as the model predicts it.
        reads, writes: characters per second of reading the text, and of writing one text.
        sample: a continuation of the prompt.
    """

    name: str
    size: str
    bits_per_char: float
    reads: float
    writes: float
    sample: str


@dataclass(frozen=True)
class Comparison:
    """Models on the same text: ``characters`` of it, and what a reader of the figures has to know (``notes``)."""

    characters: int
    prompt: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The figures and the samples as text."""
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'':{width}}  bits/char  reads, chars/s  writes, chars/s  size"]
        lines += [
            f"{row.name:{width}}  {row.bits_per_char:9.3f}  {row.reads:14,.0f}  {row.writes:15,.0f}  {row.size}"
            for row in self.rows
        ]
        lines += [f"The same {self.characters:,} characters of held-out text for all."]
        lines += self.notes
        lines += [f"\n{row.name}: {self.prompt} →\n{row.sample}" for row in self.rows]
        return printable("\n".join(lines), keep="\n")


def compare_text(
    run: str,
    others: Sequence[str] = (),
    *,
    data: Sequence[str] = (),
    max_characters: int = 100_000,
    prompt: str = "",
    device: str = "auto",
) -> Comparison:
    """Measures a text model, a Markov chain of its training text, and causal language models of `transformers`.

    Args:
        run: the folder of a text model that knows its training data.
        others: folders, or ``hf:`` and a name.
        data: files to predict; empty for the text that was held out from the training.
        max_characters: how much of it, from its beginning.
        prompt: what the samples continue; "" for the text's first words.
        device: where to compute.

    Raises:
        UserError: no such model or data.
    """
    model = load_model(run, device, "text")
    if not isinstance(model, Model):
        raise UserError(f"{run}: is exported; name the run that it was exported from")
    options = recorded(Text, model).data
    assert isinstance(options, TextData)
    corpus = _corpus(run, options, model)
    files = corpus.texts["valid"]
    if data:
        files = text_files(TextHeldOut(tuple(data)), data, options.by_line, options.column)
    pieces = list(_first(files, model.tokenizer.normalize, max_characters))
    texts = documents(pieces, by_line=options.by_line)
    if not texts:
        raise UserError(f"{data[0] if data else run}: there is no text to compare on")
    whole_line = texts[0].partition("\n")[2].strip() or texts[0]  # a stream is cut anywhere
    prompt = prompt or " ".join(whole_line[:60].split()[:4])
    loaded = [CausalModel(name, model.device) for name in others]  # before anything that takes its time
    found = Comparison(sum(map(len, texts)), prompt)
    with tempfile.TemporaryDirectory(prefix="gen-") as folder:
        unit = "line" if options.by_line else "stream"
        part = tokenize(pieces, model.tokenizer, unit, Path(folder), max_line=max_characters)
        _measure_ours(found, run, model, part)
        _measure_chain(found, replace(corpus, valid=part))
    if part.unknown:
        share = part.unknown / len(part.tokens)
        found.notes.append(
            f"{share:.1%} of the tokens are unknown to {run} and to the chain, which need not spell them: "
            "in truth their figures are higher."
        )
    if given_labels(model):
        found.notes.append(f"{run} is not told the labels here.")
    for other in loaded:
        _measure_other(found, other, texts)
    return found


def documents(pieces: Sequence[str | None], by_line: bool) -> list[str]:
    """The texts that each begin anew: lines with their ends, or files."""
    if by_line:
        return [line + "\n" for piece in pieces if piece for line in lines_in(piece)]
    files = groupby(pieces, key=lambda piece: piece is not None)
    return ["".join(piece or "" for piece in file) for is_text, file in files if is_text]


def _corpus(run: str, options: TextData, model: Model) -> Corpus:
    """The training data. Raises `UserError` if the model has no record of it, or it has changed."""
    if not options.data or "-" in options.data:
        raise UserError(f"{run}: has no record of its training text, which the Markov chain has to count")
    corpus = read_corpus(options, model.tokenizer, given_labels(model)).corpus
    before = model.info.record("measured").get("data_digest")
    if before and before != corpus.digest:
        raise UserError(f"{run}: its training text has changed since, so what was held out is not known")
    return corpus


def _first(pieces: Any, normalize: Callable[[str], str], characters: int) -> Iterator[str | None]:
    """The pieces up to a number of characters, as the tokenizer of our model sees them."""
    for piece in pieces:
        if piece is not None:
            piece = normalize(piece)[:characters]
            characters -= len(piece)
        yield piece
        if characters <= 0:
            return


def _measure(found: Comparison, name: str, size: str, bits: Callable[[], float], write: Callable[[], str]) -> None:
    """Times both, and adds a row. ``bits`` gives bits per character."""
    start = time.perf_counter()
    bits_per_char = bits()
    between = time.perf_counter()
    sample = write()
    end = time.perf_counter()
    row = Row(
        name, size, bits_per_char, found.characters / (between - start), len(sample) / (end - between), sample
    )
    found.rows.append(row)


def _measure_ours(found: Comparison, name: str, model: Model, part: Part) -> None:
    _measure(
        found,
        name,
        f"{sum(p.numel() for p in model.parameters()):,} parameters",
        lambda: float(evaluate_part(model, part).figures["bits_per_char"]),
        lambda: _written(model, found.prompt),
    )


def _measure_chain(found: Comparison, corpus: Corpus) -> None:
    order = markov_order(corpus.tokenizer)
    chain = fit_markov(corpus, order)
    _measure(
        found,
        f"Markov chain, order {order}",
        f"{sum(len(counts.followers) for counts in chain.orders):,} counts",
        lambda: markov_metrics(corpus, order, 2 * len(corpus.valid.tokens) + 2)["bits_per_char"],
        lambda: _written(chain, found.prompt),
    )


def _written(model: Model | MarkovChain, prompt: str) -> str:
    length = Text.SAMPLE_LENGTH[model.tokenizer.kind]
    return model(prompt, temperature=TEMPERATURE, seed=SEED, max_new_tokens=length, unknown="replace")


def _measure_other(found: Comparison, model: CausalModel, texts: Sequence[str]) -> None:
    length = Text.SAMPLE_LENGTH["subword"]
    _measure(
        found,
        model.name,
        f"{model.parameters:,} parameters, {model.context // 2:,} tokens or more of context",
        lambda: model.bits(texts) / found.characters,
        lambda: model.write(found.prompt, length, TEMPERATURE, SEED),
    )
    if odd := next(filter(None, map(model.changed, texts)), None):
        found.notes.append(
            f"{model.name}: its tokenizer does not give the text back ({odd[0]!r} becomes {odd[1]!r}), so its "
            "figure is that of another text."
        )
