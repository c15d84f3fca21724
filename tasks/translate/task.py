"""Translation: training on sentence pairs, evaluation by BLEU, chrF and TER."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gen.base.distributed import gather, shard
from gen.base.errors import UserError
from gen.base.folders import write_text
from gen.datasets.batches import SequenceBatches
from gen.datasets.pair_files import PairFiles
from gen.inputs.processors import PictureProcessor
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.plots import plot_attention, plot_looks
from gen.metrics.scores import (
    bleu_tokenizer,
    paired_bootstrap,
    sentence_score,
    share_of_short,
    translation_metrics,
)
from gen.models.decoder import DecoderConfig
from gen.models.encoders.rnn import RNNEncoder
from gen.models.model import Model
from gen.search import Hypothesis, SearchOptions
from gen.training.config import check_split, recorded
from gen.training.interfaces import Choice, Choices, Evaluation, Example, Facts, Metric, round_size
from gen.training.registry import register
from gen.training.self_critical import SelfCritical
from gen.training.task import Task
from tasks.options import self_critical_errors
from tasks.translate.data import TranslateSplit, pair_reward, read_pairs, read_table
from tasks.translate.inputs import attended, further_sources, join, leave_out, pair_sources
from tasks.translate.lines import translate_lines
from tasks.translate.options import TranslateData, TranslateHeldOut, TranslateReward, TranslateSizes

SCORES = ("bleu", "chrf", "ter")


@register("translate")
class Translate(Task):
    """Train a translation model on sentence pairs."""

    Data, Sizes, Extra, HeldOut = TranslateData, TranslateSizes, TranslateReward, TranslateHeldOut
    metric = Metric("bleu", higher_is_better=True, label="BLEU", max_loss=0.3)
    further_metrics = (
        Metric("chrf", higher_is_better=True, label="chrF", max_loss=0.3),
        Metric("exact", higher_is_better=True, max_loss=0.005),
    )
    search = SearchOptions(beam=5, length_penalty=1.5, max_new_tokens=2000, max_ratio=3.0)
    reference = {"embedding_size": 256, "encoder_size": 160, "hidden_size": 320}
    common = ("train", "valid", "out", "budget", "level", "vocab_size", "attention", "init_from", "dry_run")
    sample_names = ("source", "reference", "hypothesis")

    # -- what it reads and builds --------------------------------------------------------------------------

    def check(self, config: Any) -> list[str]:
        found = self_critical_errors(config)
        if config.model.tie == "all" and config.data.separate:
            found.append("--tie all needs one vocabulary for both sides: leave out --separate, or --tie decoder")
        return found

    def read(self, data: TranslateData) -> TranslateSplit:
        """The tokenized pairs. Raises `UserError` if files are missing, differ in length, or are not UTF-8."""
        vocabulary, begun = self.vocabulary, self.begun
        if begun is None:
            return read_pairs(data)
        processors = dict(begun.processors)
        sentence: Any = processors.pop("sentence")
        if set(processors) != set(data.further.kinds):
            reads = f"reads the columns {', '.join(processors)}, too" if processors else "reads sentences alone"
            raise UserError(f"--init-from: that model {reads}")
        return read_pairs(data, (sentence.tokenizer, vocabulary) if vocabulary else None)

    def build(self, sizes: Any, split: TranslateSplit) -> Model:
        """An RNN encoder and the decoder."""
        pairs = split.pairs
        encoder = RNNEncoder(
            pairs.source_tokenizer,
            embedding_size=sizes.embedding_size,
            hidden_size=sizes.encoder_size,
            num_layers=sizes.encoder_layers,
            cell=sizes.cell,
            bidirectional=sizes.bidirectional,
            dropout=sizes.dropout,
            embedding_dropout=sizes.embedding_dropout,
            weight_dropout=sizes.weight_dropout,
            lowercase=self.config.data.lowercase,
            share_embeddings=sizes.tie == "all",
            max_length=pairs.max_source_length,
            multi_sentence_p90=pairs.multi_sentence_p90,
        )
        config = DecoderConfig.of(len(pairs.target_tokenizer), sizes)
        return Model(join(encoder, split.further, sizes), config, pairs.target_tokenizer)

    def defaults(self, facts: Facts) -> Choices:
        """With more passes over the pairs: more dropout, and beyond 60 passes larger sizes."""
        # Multi30k: dropout 0.2 is good at 11 passes; at 60 passes, 0.28 gives 40.6 BLEU and 0.36 gives 39.0.
        passes, own = facts.passes, self.config.extra.self_critical
        dropout = round(float(np.clip(0.2 + 0.25 * np.log10(passes / 12), 0.1, 0.3)), 2)
        scale = float(np.clip((passes / 60) ** 0.26, 1.0, 2.0))
        read = f"{passes:.2g} passes over the pairs fit into the budget"
        sizes = {n: Choice(round_size(size * scale), read) for n, size in self.reference.items()}
        tie = "decoder" if self.config.data.separate else "all"
        targets = [example.target for example in getattr(facts.split, "valid", ())]
        tokenizer = Choice(*bleu_tokenizer(targets))
        short = share_of_short(targets, self.config.data.bleu_tokenizer or tokenizer.value)
        reason = f"{short:.0%} of the targets have fewer than four words, and BLEU needs four"
        return {
            **sizes,
            "dropout": Choice(dropout, read),
            "embedding_dropout": Choice(dropout, read),
            "tie": Choice(tie, "as far as the vocabularies allow"),
            "learning_rate": Choice(3e-4 if own else 5e-3, "best of those tried on Multi30k"),
            "label_smoothing": Choice(0.0 if own else 0.1, "usual for translation"),
            "ema": Choice(0.999, "the average is better than the last weights"),
            "bleu_tokenizer": tokenizer,
            **({"best": Choice("chrf", reason)} if short > 0.5 else {}),
        }

    def tokenizers(self, split: TranslateSplit) -> tuple[Tokenizer, dict[str, Tokenizer]]:
        texts = ["sentence", *split.further.named("context")]
        return split.pairs.target_tokenizer, dict.fromkeys(texts, split.pairs.source_tokenizer)

    def make_batches(self, model: Model, split: TranslateSplit, config: Any) -> SequenceBatches:
        """Batches of pairs of similar length."""
        pairs = split.pairs
        if config.extra.self_critical:
            longest = int(pairs.target.lengths.max())
            self.objective = SelfCritical(
                pair_reward(pairs, sentence_score(config.extra.reward, **self._scoring())),
                samples=config.extra.samples,
                baseline=config.extra.baseline,
                max_new_tokens=longest,
            )
        sources, held_out = further_sources(model.encoder, split.further, self._watch)
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

    def _watch(self, done: int, total: int) -> None:
        self.progress("computing picture features (cached for later runs)", done, total)

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
        labels = {
            name: label for name, label in zip(SCORES, ("BLEU", "chrF", "TER"), strict=True) if name in figures
        }
        rows = [(label, f"{figures[n]:.2f}", figures[f"{n}_signature"]) for n, label in labels.items()]
        return [*rows, ("exact", f"{figures['exact']:.1%}", "")]

    def normalise(self, model: Any, text: str) -> str:
        text = model.tokenizer.normalize(text)
        return text.lower() if self._lowercase or model.processors["sentence"].lowercase else text

    def held_out(self, model: Any, options: TranslateHeldOut | None = None) -> list[Example]:
        self._lowercase = bool(options and options.lowercase) or model.processors["sentence"].lowercase
        self._tokenize = (
            (options and options.bleu_tokenizer) or model.info.options().get("bleu_tokenizer") or "13a"
        )
        if options and options.src:
            pairs = list(PairFiles([options.src, options.ref]))
            if not any(target.strip() for _, target in pairs):
                raise UserError(f"{options.ref}: has only empty lines")
            return [Example(source, target) for source, target in pairs]
        self.config = recorded(Translate, model)
        if options and options.data:
            found = read_table(options, self.config.data)
        else:
            if not (self.config.data.train or self.config.data.data):
                raise UserError("the model has no record of its training pairs: name some with --src and --ref")
            if not self.config.data.valid:
                check_split(model, "--src and --ref")
            found = read_pairs(self.config.data).valid
        return (
            [replace(e, item=leave_out(e.item, model, options.without)) for e in found]
            if options and options.without
            else found
        )

    def evaluate(
        self, model: Any, examples: Sequence[Example], *, batch_size: int = 64, **search: Any
    ) -> Evaluation:
        """Translates with `translate_lines`, as `gen translate` does. Processes share the examples."""
        lines = shard([e.item for e in examples])
        found = translate_lines(model, lines, batch_size=batch_size, **search)
        outputs = gather([t.hypotheses[0].text if t.hypotheses else "" for t in found])
        references = [self.normalise(model, e.target) for e in examples]
        figures = translation_metrics(outputs, references, names=SCORES, **self._scoring())
        return Evaluation(figures, outputs, len(examples))

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
        best = model.generate(example)
        if best.attention is not None and best.token_ids:
            self.plot(model, example, best[0], folder / "plots" / "attention.png")
        return found

    def commands(self, model: Model, folder: str) -> list[str]:
        further, (source, _) = self.split.further, self.split.pairs.valid[0]
        cells = [(kind, further.valid[name][0]) for name, kind in further.kinds.items()]
        given = "".join(f"--{kind} {shlex.quote(str(cell))} " for kind, cell in cells if cell)
        return [f"gen translate {folder} {given}--text {shlex.quote(source)}"]

    def shown(self, item: Any) -> str:
        return str(item["sentence"] if isinstance(item, Mapping) else item)

    def plot(self, model: Any, item: Any, hypothesis: Hypothesis, to: Path) -> None:
        """Plots the attention on the words, and for each picture the attention on it beside ``to``."""
        parts = attended(model, item)
        for name, columns in parts.items():
            weights = np.asarray(hypothesis.attention)[:, columns]
            if isinstance(processor := model.processors[name], PictureProcessor):
                pixels = processor.preprocessing.pixels(item[name]).transpose(1, 2, 0)
                plot_looks(pixels, weights, hypothesis.tokens, to.with_stem(f"{to.stem}-{name}"))
        words = [name for name in parts if not isinstance(model.processors[name], PictureProcessor)]
        chosen = np.concatenate([np.arange(parts[n].start, parts[n].stop) for n in words])
        labels = model.encoder.labels(item)
        shown = [labels[i] for i in chosen]
        plot_attention(np.asarray(hypothesis.attention)[:, chosen], hypothesis.tokens, shown, to)
