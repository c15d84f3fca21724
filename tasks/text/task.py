"""Text generation: training a language model, evaluation by the loss on held-out text."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import regex

from gen.base.errors import UserError, flag, notify, one_line
from gen.base.files import TextFiles
from gen.base.lines import read_lines, suffix
from gen.base.tables import TABLES
from gen.datasets.batches import Batches
from gen.datasets.look import DataPart
from gen.datasets.shards import BUFFER
from gen.datasets.streams import StreamBatches
from gen.inputs.labels import LabelTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.encoders.labels import LabelEncoder
from gen.models.model import Model
from gen.search import SearchOptions
from gen.training.config import check_split, recorded
from gen.training.distill import DistillOptions, Written
from gen.training.interfaces import Choice, Choices, Evaluation, Facts, Metric, round_size
from gen.training.registry import register
from gen.training.task import Task
from gen.training.teaching import Teaching, together
from tasks.options import has_recurrent_weights, input_name, stream_budget_errors
from tasks.text.data import (
    TextSplit,
    given_labels,
    labels_of,
    line_batches,
    lines_part,
    read_corpus,
    streamed_batches,
    text_files,
)
from tasks.text.evaluation import bits_of_pieces, evaluate_held_out, evaluate_part
from tasks.text.markov import markov_metrics, markov_order
from tasks.text.options import TextData, TextHeldOut, TextSizes


@register("text")
class Text(Task):
    """Train a language model on a text."""

    Data, Sizes, HeldOut = TextData, TextSizes, TextHeldOut
    metric = Metric("loss", label="nats per token")
    measured = Metric("bits_per_char", label="bits per character", max_loss=0.02)
    common = ("data", "out", "budget", "level", "unit", "given", "valid", "hidden_size", "init_from", "dry_run")
    unused = frozenset({"coverage"})  # there is no attention
    reference = {"hidden_size": 384}
    distilled_by = frozenset({"teacher_weight"})
    TEMPERATURES = (0.3, 0.8, 1.3)
    SAMPLE_LENGTH = {"char": 160, "subword": 60, "word": 40}

    # -- what a task defines -------------------------------------------------------------------------------

    def check(self, config: Any) -> list[str]:
        return stream_budget_errors(config)

    def read(self, data: TextData) -> TextSplit:
        """The tokenized text. Raises `UserError` if files are missing, empty or not UTF-8."""
        known: dict[str, LabelTokenizer] | None = None
        others = [("--init-from", self.begun)] if self.begun is not None else []
        for name, model in [*others, *(("TEACHER", teacher) for teacher in self.teachers)]:
            before, known = known, given_labels(model)
            if list(known) != list(map(input_name, data.given)):
                takes = (
                    f"takes labels: --given {' '.join(known)}" if known else "takes no labels: leave out --given"
                )
                raise UserError(f"{name}: that model {takes}")
            for column, labels in (before or {}).items():  # a batch has one id for a label, which all look up
                if odd := {*labels.labels} ^ {*known[column].labels}:
                    raise UserError(
                        f"{name}: not all of these models know the label {min(odd)!r} of --given {column}: they "
                        "have to be trained on the same labels"
                    )
        return read_corpus(data, self.vocabulary, known)

    def taught(self, options: DistillOptions, written: Written | None) -> TextSplit:
        """The text, whose tokens' probabilities the teachers give."""
        self.teaching = teaching = Teaching(self.teachers, options.teachers, options.teacher_weight)
        kind, data = teaching.tokenizer.kind, self.config.data
        if self.begun and not self.config.train.new_vocabulary:
            together([self.begun, *self.teachers], ["--init-from", *options.teachers])  # one vocabulary
        if data.level != kind:
            raise UserError(f"--level {data.level}: the vocabulary is the teachers', whose level is {kind}")
        if any(teacher.info.ends_with_eos != data.by_line for teacher in self.teachers):
            raise UserError(f"--unit {data.unit}: the teachers were trained on another unit")
        return self.read(data)

    @property
    def ends_with_eos(self) -> bool:  # type: ignore[override]
        return bool(self.config.data.by_line)

    def parts(self, test: Sequence[str] = ()) -> dict[str, DataPart]:
        corpus, data = self.split.corpus, self.config.data
        halves = {"training": (corpus.train, "train"), "validation": (corpus.valid, "valid")}
        parts = {
            name: lines_part(corpus.texts[half], labels_of(part, self.split.labels))
            for name, (part, half) in halves.items()
        }
        return parts | (
            {"test": lines_part(text_files(data, test, data.by_line, data.column, data.given))} if test else {}
        )

    def build(self, sizes: TextSizes, split: TextSplit) -> Model:
        """A decoder without an encoder; with labels, a decoder that sees their vectors at every step."""
        config = DecoderConfig.of(len(split.tokenizer), sizes)
        if not split.labels:
            return Model({"name": "none"}, config, split.tokenizer)
        return Model(LabelEncoder(split.labels), replace(config, attention="dot"), split.tokenizer)

    def search_defaults(self, model: Model) -> dict[str, Any]:
        length = 400 if model.tokenizer.kind == "char" else 120
        return SearchOptions(temperature=(0.8,), max_new_tokens=length).given()

    def defaults(self, facts: Facts) -> Choices:
        """With more tokens in the budget: a larger model. With more passes over the text: more dropout, against
        overfitting, and a lower learning rate."""
        # Tuned on a million characters of Shakespeare, in tokens that size 384 reads in the time: 384 up to 10
        # million (2 minutes), 704 for 60 million (20 minutes), log-linear interpolation. With fewer than 4 million
        # smaller models gain a little; beyond 60 passes larger ones only overfit.
        passes = facts.passes
        tokens = min(facts.tokens, 60 * facts.num_tokens)
        growth = (tokens / 10e6) ** 0.34 if tokens > 10e6 else min(tokens / 4e6, 1.0) ** 0.12
        # The first layer reads no label: after 5 minutes on news titles a classifier recognised the label of 59 %
        # of 400 texts of one layer of 384, and 84 % of two of 256.
        layers = 2 if self.config.data.given else 1
        hidden = int(np.clip(round_size((384 if layers == 1 else 256) * growth), 128, 1536))
        again = float(np.log10(max(passes, 1e-3) / 10))
        connections = 0.39 * again if has_recurrent_weights(self.config.model.cell) else 0.0
        rate = float(np.clip(8e-3 * 2 ** (-again / 0.78), 2e-3, 8e-3))
        batch_size = self.config.data.batch_size
        chunk = min(64, max(facts.num_tokens // (8 * batch_size), 16))
        read = f"{passes:.2g} passes over the text fit into the budget"
        # Words of Shakespeare, 2 minutes: perplexity 66.0 with 128 and "none", 63.5 with 256 and "decoder".
        tie, embedding = ("none", 128) if self.config.data.level == "char" else ("decoder", 256)
        level = f"best of those tried for level {self.config.data.level}"
        return {
            "tie": Choice(tie, level),
            "embedding_size": Choice(embedding, level),
            "num_layers": Choice(
                layers, "the upper one reads the labels" if layers > 1 else "best of those tried"
            ),
            "hidden_size": Choice(hidden, f"{facts.tokens:,.0f} tokens fit into the budget at size 384"),
            "dropout": Choice(round(float(np.clip(0.1 + 0.33 * again, 0.1, 0.5)), 2), read),
            "embedding_dropout": Choice(0.1, "best of those tried on several texts"),
            "weight_dropout": Choice(round(float(np.clip(connections, 0.0, 0.4)), 2), read),
            "learning_rate": Choice(float(f"{rate:.2g}"), read),
            "chunk": Choice(chunk, "64, or less where an epoch would have fewer than 8 steps"),
        }

    def tokens_per_step(self, config: Any) -> int:
        data = config.data
        rows = data.batch_tokens if data.by_line else data.batch_size * (data.chunk or 64)
        return int(rows * config.train.accumulate)

    def make_batches(self, model: Model, split: TextSplit, config: Any) -> Batches:
        """Streams, or batches of lines of similar length. Raises `UserError` if the text is too short to train or
        validate on."""
        data, seed, t = config.data, config.train.seed, split.tokenizer
        tokens, offsets = split.corpus.train.tokens, split.corpus.train.offsets
        if offsets is not None and len(offsets) < 2:
            raise UserError("--data: the training part has no lines")
        batches: Batches
        if split.stream is not None:
            batches = streamed_batches(split.stream, t, data, seed)
        elif offsets is not None:
            batches = line_batches(split.corpus.train, t, data, seed)
        else:
            batches = StreamBatches(tokens, data.batch_size, data.chunk, t.bos_id, seed)
        if batches.batches_per_epoch == 0 and split.stream is not None:
            raise UserError(
                f"--data: {data.shuffle_buffer or BUFFER:,} texts are less than one batch of --batch-size "
                f"{data.batch_size} × --chunk {data.chunk}: raise --shuffle-buffer, or lower the others"
            )
        if batches.batches_per_epoch == 0:
            raise UserError(
                f"--data: the training part has {len(tokens):,} tokens, fewer than one batch of --batch-size "
                f"{data.batch_size} × --chunk {data.chunk}: lower one of them, or give more text"
            )
        if len(split.valid.tokens) < 2:
            raise UserError("the validation part is empty: raise --valid-fraction, or name files with --valid")
        return batches

    # -- training ------------------------------------------------------------------------------------------

    def validate(self, model: Model, *, quick: bool = False) -> Evaluation:
        """The loss on the validation part, with states carried over."""
        limit = self.config.data.valid_limit
        return evaluate_part(model, self.split.valid, limit, max_batches=2 if quick else None)

    def sample(self, model: Model, evaluation: Evaluation) -> str:
        """Texts without a prompt: greedy, and at several temperatures; one about each of the first labels."""
        length = self.SAMPLE_LENGTH[model.tokenizer.kind]
        ways = {"greedy": 0.0, **{f"temperature {t}": t for t in self.TEMPERATURES}}
        parts = []
        for name, temperature in ways.items():
            text = model.generate("", temperature=temperature, seed=1, max_new_tokens=length)[0].text
            parts.append(f"**{name}**\n\n```text\n{text.strip(chr(10))}\n```\n")
        for name, labels in given_labels(model).items():
            items = [{name: label} for label in labels.labels[: self.SAMPLES]]
            texts = model(items, temperature=0.8, seed=1, max_new_tokens=length) if items else []
            parts += [
                f"* {one_line(item[name])}: {one_line(text)}" for item, text in zip(items, texts, strict=True)
            ]
        return "\n".join(parts)

    def describe(self, figures: Mapping[str, Any]) -> str:
        return f"valid {figures['loss']:.3f} nats, {figures['bits_per_char']:.3f} bits/char"

    def finish(self, model: Model, folder: Path) -> Evaluation:
        """The figures of the model, and of a Markov chain under "markov". Writes lines that were held out as
        ``valid.txt``."""
        if (held_out := self.split.corpus.held_out) is not None:
            try:
                shutil.copyfile(held_out[0], folder / "valid.txt")
            except OSError as error:  # caches are emptied
                notify(f"valid.txt is not made: {error.strerror or error}")
        corpus, limit = self.split.corpus, self.config.data.valid_limit
        found = evaluate_part(model, corpus.valid, limit)
        order = markov_order(corpus.tokenizer)
        markov = markov_metrics(corpus, order, limit)
        return Evaluation({**found.figures, "markov": {"order": order, **markov}})

    def commands(self, model: Model, folder: str) -> list[str]:
        about = [f"--given {shlex.quote(labels.labels[0])} " for labels in self.split.labels.values()]
        return [f"gen generate {folder} {''.join(about)}--prompt {shlex.quote(opening(model))}"]

    def rows(self, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Loss, bits per character and perplexity, each with that of a Markov chain if ``figures`` have one."""
        rows = []
        markov = figures.get("markov")
        chain = f"Markov chain, order {markov['order']}: " if markov else ""
        for name, label in {
            "loss": "nats/token",
            "bits_per_char": "bits/char",
            "perplexity": "perplexity",
        }.items():
            note = f"{chain}{markov[name]:,.4f}" if markov else ""
            rows.append((label, f"{figures[name]:,.4f}", note))
        if markov and markov["bits_per_char"] < figures["bits_per_char"]:
            rows.append(("note", "", "counting is better here: try a longer --budget, or more text"))
        return rows

    # -- a trained model -----------------------------------------------------------------------------------

    def held_out(self, model: Any, options: TextHeldOut | None = None) -> TextSplit | TextFiles:
        """The text named in ``options``, else the tokens that the training validated on. Raises `UserError` if it
        left no record of its text, or a file is missing."""
        if options and options.data:
            trained = model.info.options()
            column, given = options.column or trained.get("column", ""), trained.get("given") or ()
            given = given if any(suffix(name) in TABLES for name in options.data) else ()
            return text_files(options, options.data, model.info.ends_with_eos, column, given)
        self.config = recorded(Text, model)
        if not self.config.data.data or "-" in self.config.data.data:
            raise UserError("the model has no record of its training text: give one with --data")
        if self.config.data.by_line and not self.config.data.valid:
            check_split(model, "--data")
        split = read_corpus(self.config.data, model.tokenizer, given_labels(model))
        before = model.info.record("measured").get("data_digest")
        if before and not self.config.data.valid and before != split.digest:
            raise UserError(
                "the training text has changed since, so what was held out is not known: name text with --data"
            )
        return split

    def evaluate(self, model: Any, examples: Any, *, batch_size: int = 64, **search: Any) -> Evaluation:
        if search:
            flags = ", ".join(map(flag, search))
            raise UserError(
                f"{flags} does not go with a text model: it is evaluated by its loss, without a search"
            )
        return evaluate_held_out(model, examples)

    def evaluate_adapting(self, model: Any, examples: Any) -> Evaluation:
        return evaluate_held_out(model, examples, adapt=True)

    def measure(self, model: Any, examples: Any, limit: int = 0) -> tuple[float, str]:
        """Bits per character of up to ``limit`` (0: 256) pieces of the text."""
        return bits_of_pieces(model, examples, limit or 256)

    def pairs(self, files: Sequence[str], options: Any) -> Iterator[tuple[None, str]]:
        given = [flag for flag, value in (("--src", options.src), ("--tgt", options.tgt)) if value]
        if given:
            raise UserError(f"{given[0]} is for models with an input")
        if len(files) != 1:
            raise UserError(f"name one FILE to score, not {len(files)}")
        return ((None, line) for line in read_lines(files[0]))

    def plot(self, model: Any, item: Any, hypothesis: Any, to: Path) -> None:
        raise UserError("a text model has no encoder, so it has no attention")


def opening(model: Model) -> str:
    """A word that the model generates, as an example prompt."""
    text = model.generate("", temperature=0.5, seed=1, max_new_tokens=60)[0].text
    # Whole words only: a stream begins anywhere. Vowel signs, as in Hindi, are marks.
    words = regex.findall(r"(?<=\s)[\p{L}\p{M}]{2,}(?=\s)", text)
    return str(words[0]) if words else ""
