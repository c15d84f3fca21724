"""Translation: training on sentence pairs, evaluation by BLEU, chrF and TER."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gen.base.distributed import gather, shard
from gen.base.errors import UserError
from gen.base.folders import write_text
from gen.datasets.batches import SequenceBatches
from gen.datasets.pair_files import PairFiles
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.scores import bleu_tokenizer, paired_bootstrap, share_of_short, translation_metrics
from gen.models.batch import PADDED_TO, pad
from gen.models.decoder import DecoderConfig
from gen.models.encoders.rnn import RNNEncoder
from gen.models.model import Model
from gen.search import SearchOptions
from gen.training.config import check_split, recorded
from gen.training.interfaces import Choice, Choices, Evaluation, Example, Facts, Metric, round_size
from gen.training.registry import register
from gen.training.task import Task
from tasks.translate.data import TranslateSplit, read_pairs
from tasks.translate.lines import translate_lines
from tasks.translate.options import TranslateData, TranslateHeldOut, TranslateSizes

SCORES = ("bleu", "chrf", "ter")


@register("translate")
class Translate(Task):
    """Train a translation model on sentence pairs."""

    Data, Sizes, HeldOut = TranslateData, TranslateSizes, TranslateHeldOut
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
        if config.model.tie == "all" and config.data.separate:
            return ["--tie all needs one vocabulary for both sides: leave out --separate, or --tie decoder"]
        return []

    def read(self, data: TranslateData) -> TranslateSplit:
        """The tokenized pairs. Raises `UserError` if files are missing, differ in length, or are not UTF-8."""
        vocabulary, begun = self.vocabulary, self.begun
        sides = (begun.encoder.tokenizer, vocabulary) if begun is not None and vocabulary else None
        return TranslateSplit(read_pairs(data, sides))  # type: ignore[arg-type]

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
        return Model(encoder, DecoderConfig.of(len(pairs.target_tokenizer), sizes), pairs.target_tokenizer)

    def defaults(self, facts: Facts) -> Choices:
        """With more passes over the pairs: more dropout, and beyond 60 passes larger sizes."""
        # Multi30k: dropout 0.2 is good at 11 passes; at 60 passes, 0.28 gives 40.6 BLEU and 0.36 gives 39.0.
        passes = facts.passes
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
            "learning_rate": Choice(5e-3, "best of those tried on Multi30k"),
            "label_smoothing": Choice(0.1, "usual for translation"),
            "ema": Choice(0.999, "the average is better than the last weights"),
            "bleu_tokenizer": tokenizer,
            **({"best": Choice("chrf", reason)} if short > 0.5 else {}),
        }

    def tokenizers(self, split: TranslateSplit) -> tuple[Tokenizer, dict[str, Tokenizer]]:
        return split.pairs.target_tokenizer, {"sentence": split.pairs.source_tokenizer}

    def make_batches(self, model: Model, split: TranslateSplit, config: Any) -> SequenceBatches:
        """Batches of pairs of similar length."""
        pairs = split.pairs
        pad_id = pairs.source_tokenizer.pad_id
        return SequenceBatches(
            pairs.target,
            config.data.batch_tokens,
            pairs.target_tokenizer,
            source=lambda rows, epoch: {"sentence": pad([pairs.source[r] for r in rows], pad_id, PADDED_TO)},
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
        else:
            self.config = recorded(Translate, model)
            if not (self.config.data.train or self.config.data.data):
                raise UserError("the model has no record of its training pairs: name some with --src and --ref")
            if not self.config.data.valid:
                check_split(model, "--src and --ref")
            pairs = read_pairs(self.config.data).valid
        return [Example(source, target) for source, target in pairs]

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
        source = self.split.valid[0].item
        best = model.generate(source)
        if best.attention is not None and best.token_ids:
            self.plot(model, source, best[0], folder / "plots" / "attention.png")
        return found

    def commands(self, model: Model, folder: str) -> list[str]:
        return [f"gen translate {folder} --text {shlex.quote(self.split.valid[0].item)}"]
