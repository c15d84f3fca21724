"""Translation: training on sentence pairs, evaluation by BLEU, chrF and TER."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gen.base.distributed import gather, shard
from gen.base.errors import UserError, notify
from gen.base.folders import write_text
from gen.base.lines import suffix
from gen.base.tables import TABLES, is_dataset
from gen.datasets.batches import Batches, SequenceBatches
from gen.datasets.look import DataPart
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.scores import (
    bleu_tokenizer,
    paired_bootstrap,
    sentence_score,
    share_of_short,
    translation_metrics,
)
from gen.models.decoder import DecoderConfig
from gen.models.model import Model
from gen.search import SearchOptions
from gen.training.config import recorded
from gen.training.distill import DistillOptions, Written
from gen.training.interfaces import Choice, Choices, Evaluation, Example, Facts, Metric, round_size
from gen.training.registry import register
from gen.training.task import Task
from tasks.options import coverage_errors, many_passes, self_critical_errors, stream_budget_errors
from tasks.translate.data import (
    TranslateSplit,
    held_out_pairs,
    known_vocabularies,
    minimum_risk,
    pair_parts,
    read_pairs,
    repeated_share,
    streamed_batches,
)
from tasks.translate.encoder import make_encoder, set_lengths
from tasks.translate.inputs import further_sources, pair_sources
from tasks.translate.lines import translate_lines
from tasks.translate.options import TranslateData, TranslateHeldOut, TranslateReward, TranslateSizes
from tasks.translate.taught import taught_pairs

SCORES = ("bleu", "chrf", "ter")
NO_REPEAT = 5
"""Tokens in a row that a translation does not repeat."""


@register("translate")
class Translate(Task):
    """Train a translation model on sentence pairs."""

    Data, Sizes, Extra, HeldOut = TranslateData, TranslateSizes, TranslateReward, TranslateHeldOut
    metric = Metric("bleu", higher_is_better=True, label="BLEU", max_loss=0.3)
    further_metrics = (
        Metric("chrf", higher_is_better=True, label="chrF", max_loss=0.3),
        Metric("exact", higher_is_better=True, max_loss=0.005),
    )
    search = SearchOptions(beam=5, length_penalty=1.5, mbr=True, max_new_tokens=2000, max_ratio=3.0)
    reference = {"embedding_size": 256, "encoder_size": 160, "hidden_size": 320, "augment": 0}
    common = ("train", "valid", "out", "budget", "level", "vocab_size", "attention", "init_from", "dry_run")
    distilled_by = frozenset({"teacher_beam", "originals", "sources", "backward"})
    sample_names = ("source", "reference", "hypothesis")
    quality = "chrF"

    # -- what it reads and builds --------------------------------------------------------------------------

    def check(self, config: Any) -> list[str]:
        found = self_critical_errors(config) + stream_budget_errors(config) + coverage_errors(config)
        if config.model.tie == "all" and config.data.separate:
            found.append("--tie all needs one vocabulary for both sides: leave out --separate, or --tie decoder")
        return found

    def read(self, data: TranslateData) -> TranslateSplit:
        """The tokenized pairs. Raises `UserError` if files are missing, differ in length, or are not UTF-8."""
        return read_pairs(data, known_vocabularies(self.begun, self.vocabulary, data))

    def taught(self, options: DistillOptions, written: Written | None) -> TranslateSplit:
        """The pairs, with the teachers' translations of their sources."""
        return taught_pairs(self, options, written)

    @classmethod
    def named(cls, files: Sequence[str]) -> dict[str, Any]:
        tables = all(suffix(name) in TABLES or is_dataset(name) for name in files) or len(files) == 1
        braces = "{" in files[0]
        return {"data" if tables and not braces else "train": tuple(files)}

    def parts(self, test: Sequence[str] = ()) -> dict[str, DataPart]:
        return pair_parts(self.split, self.config.data, test)

    def build(self, sizes: Any, split: TranslateSplit) -> Model:
        """The encoder of sentences and what else they come with, and the decoder."""
        pairs = split.pairs
        encoder = make_encoder(pairs, split.further, sizes, lowercase=self.config.data.lowercase)
        config = DecoderConfig.of(len(pairs.target_tokenizer), sizes)
        return Model(encoder, config, pairs.target_tokenizer)

    def search_defaults(self, model: Model) -> dict[str, Any]:
        """Where training hardly ever says five tokens twice, translations do not: a model that lacks a word may
        repeat pieces of it without end."""
        # 13 of 29,000 targets of Multi30k do. Three models gained 0.04 to 0.2 BLEU and 0.05 to 0.5 chrF.
        pairs = getattr(self.split, "pairs", None)
        by_letters = model.tokenizer.kind == "char"  # words repeat them
        if by_letters or not pairs or self.search.no_repeat_ngram is not None:
            return super().search_defaults(model)
        rare = repeated_share(pairs.target, NO_REPEAT) < 0.002
        return replace(self.search, no_repeat_ngram=NO_REPEAT if rare else None).given()

    def defaults(self, facts: Facts) -> Choices:
        """With more passes over the pairs: more dropout, more views per picture, and beyond 60 larger sizes."""
        # Multi30k: dropout 0.2 is good at 11 passes; at 60 passes, 0.28 gives 40.6 BLEU and 0.36 gives 39.0.
        passes, own = facts.passes, self.config.extra.self_critical
        dropout = round(float(np.clip(0.2 + 0.25 * np.log10(passes / 12), 0.1, 0.3)), 2)
        scale = float(np.clip((passes / 60) ** 0.26, 1.0, 2.0))
        read = f"{passes:.2g} passes over the pairs fit into the budget"
        sizes = {n: Choice(round_size(size * scale), read) for n, size in self.reference.items() if size}
        tie = "decoder" if self.config.data.separate else "all"
        targets = [example.target for example in getattr(facts.split, "valid", ())]
        tokenizer = Choice(*bleu_tokenizer(targets))
        short = share_of_short(targets, self.config.data.bleu_tokenizer or tokenizer.value)
        reason = f"{short:.0%} of the targets have fewer than four words, and BLEU needs four"
        views = Choice(round(3 * many_passes(passes)), read)
        return {
            **sizes,
            "dropout": Choice(dropout, read),
            "embedding_dropout": Choice(dropout, read),
            "tie": Choice(tie, "as far as the vocabularies allow"),
            "learning_rate": Choice(3e-4 if own else 5e-3, "best of those tried on Multi30k"),
            "label_smoothing": Choice(0.0 if own else 0.1, "usual for translation"),
            "ema": Choice(0.999, "the average is better than the last weights"),
            "bleu_tokenizer": tokenizer,
            **({"augment": views} if self.config.data.further.image else {}),
            **({"best": Choice("chrf", reason)} if short > 0.5 else {}),
        }

    def tokenizers(self, split: TranslateSplit) -> tuple[Tokenizer, dict[str, Tokenizer]]:
        texts = ["sentence", *split.further.named("context")]
        return split.pairs.target_tokenizer, dict.fromkeys(texts, split.pairs.source_tokenizer)

    def change(self, begun: Model, sizes: Any) -> None:
        set_lengths(begun.encoder, self.split.pairs, same_tokens=not self.config.train.new_vocabulary)

    def make_batches(self, model: Model, split: TranslateSplit, config: Any) -> Batches:
        """Batches of pairs of similar length."""
        pairs = split.pairs
        if split.stream is not None:
            return streamed_batches(split, config.data, config.train.seed)
        if config.extra.self_critical:
            score = sentence_score(config.extra.reward, **self._scoring())
            self.objective = minimum_risk(pairs, score, config.extra)
        views = (config.data.further.augment or 0) + 1
        sources, held_out = further_sources(model.encoder, split.further, views, self.progress)
        split.valid[:] = split.examples(held_out)
        return SequenceBatches(
            pairs.target,
            config.data.batch_tokens,
            pairs.target_tokenizer,
            source=pair_sources(pairs, sources, config.data.further, config.train.seed),
            source_lengths=pairs.source.lengths,
            spellings=pairs.spellings,
            seed=config.train.seed,
        )

    # -- evaluation ----------------------------------------------------------------------------------------

    def score(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        return translation_metrics(outputs, [each[0] for each in references], **self._scoring())

    _lowercase = False
    _tokenize = ""

    def _scoring(self) -> dict[str, Any]:
        """The settings of the scores: those of `held_out`, else of the training."""
        chosen = self.config.data.bleu_tokenizer if self.config is not None else None
        tokenize = self._tokenize or chosen or "13a"  # older versions recorded none
        return {"lowercase": self._lowercase, "tokenize": tokenize}

    def describe(self, figures: Mapping[str, Any]) -> str:
        return f"valid {figures['loss']:.3f} nats, BLEU {figures['bleu']:.2f}, chrF {figures['chrf']:.2f}"

    def rows(self, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        labels = zip(SCORES, ("BLEU", "chrF", "TER"), strict=True)
        rows = [(label, f"{figures[n]:.2f}", figures[f"{n}_signature"]) for n, label in labels if n in figures]
        return [*rows, ("exact", f"{figures['exact']:.1%}", "")]

    def normalise(self, model: Any, text: str) -> str:
        text = model.tokenizer.normalize(text)
        return text.lower() if model.processors["sentence"].lowercase else text

    def held_out(self, model: Any, options: TranslateHeldOut | None = None) -> list[Example]:
        self._lowercase = bool(options and options.lowercase) or model.processors["sentence"].lowercase
        self._tokenize = (
            (options and options.bleu_tokenizer) or model.info.options().get("bleu_tokenizer") or "13a"
        )
        if not (options and options.src):
            self.config = recorded(Translate, model)
        return held_out_pairs(options or TranslateHeldOut(), model, self.config and self.config.data)

    def evaluate(
        self, model: Any, examples: Sequence[Example], *, batch_size: int = 64, **search: Any
    ) -> Evaluation:
        """Translates with `translate_lines`, as `gen translate` does. Processes share the examples."""
        lines = shard([e.item for e in examples])
        found = translate_lines(model, lines, batch_size=batch_size, **search)
        best = gather([t.hypotheses[0] if t.hypotheses else None for t in found])
        outputs = [h.text if h else "" for h in best]
        references = [self.normalise(model, e.target) for e in examples]
        figures = translation_metrics(outputs, references, names=SCORES, **self._scoring())
        judged = [(h, [reference]) for h, reference in zip(best, references, strict=True) if h]
        return Evaluation(figures, outputs, len(examples), judged=judged)

    def qualities(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        score = sentence_score(["chrf"], **self._scoring())
        return [score(output, each[0]) for output, each in zip(outputs, references, strict=True)]

    def compare(
        self, outputs: Sequence[str], others: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        targets = [each[0].lower() if self._lowercase else each[0] for each in references]
        return paired_bootstrap(outputs, others, targets, names=SCORES, **self._scoring())

    def finish(self, model: Model, folder: Path) -> Evaluation:
        """Evaluates with the default search. Writes ``valid.{src,tgt}``, ``translations.txt`` and a plot."""
        found = self.evaluate(model, self.split.valid)
        sources, targets = zip(*self.split.pairs.valid, strict=True)
        for name, lines in (("valid.src", sources), ("valid.tgt", targets), ("translations.txt", found.outputs)):
            write_text(folder / name, "\n".join(lines) + "\n")
        example = self.split.further.items(sources, self.split.further.valid)[0]
        try:
            best = model.generate(example)
            if best.attention is not None and best.token_ids:
                self.plot(model, example, best[0], folder / "plots" / "attention.png")
        except UserError as error:  # the features are cached, but pictures may have moved since
            notify(f"plots/attention.png is not made: {error}")
        return found

    def commands(self, model: Model, folder: str) -> list[str]:
        further, (source, _) = self.split.further, self.split.pairs.valid[0]
        cells = [(kind, further.valid[name][0]) for name, kind in further.kinds.items()]
        given = "".join(f"--{kind} {shlex.quote(str(cell))} " for kind, cell in cells if cell)
        return [f"gen translate {folder} {given}--text {shlex.quote(source)}"]
