"""Classification: a label per text or picture, evaluated by accuracy."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gen.base.errors import UserError, flag, within
from gen.datasets.labelled import LabelBatches
from gen.datasets.look import DataPart
from gen.datasets.picture_sources import unusable
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.classification import classification_metrics, confusion, library, mcnemar
from gen.metrics.plots import plot_confusion
from gen.models.batch import Batch
from gen.models.decoder import DecoderConfig, DecoderState
from gen.models.encoders.cnn import CNNEncoder
from gen.models.encoders.rnn import RNNEncoder
from gen.models.model import LossOutput, Model
from gen.search import SearchOptions
from gen.training.config import recorded
from gen.training.interfaces import Choice, Choices, Evaluation, Example, Facts, Metric
from gen.training.options import TrainOptions
from gen.training.registry import register
from gen.training.task import Task
from tasks.classify.command import label_items
from tasks.classify.data import LabelSplit, check_kind, label_parts, read_examples, read_split, with_columns
from tasks.classify.figures import calibrate, log_probs_of, targets_of
from tasks.classify.options import ClassifyData, ClassifyHeldOut, ClassifySizes
from tasks.classify.sources import Features, text_source

LABELS_SHOWN = 40
"""Labels up to which a confusion matrix is drawn."""


@register("classify")
class Classify(Task):
    """Train a model that says which label a text or a picture has."""

    Data, Sizes, HeldOut = ClassifyData, ClassifySizes, ClassifyHeldOut
    metric = Metric("accuracy", higher_is_better=True, max_loss=0.005)
    search = SearchOptions(temperature=(0.0,), max_new_tokens=1)
    common = ("data", "column", "label", "image", "valid", "out", "budget", "init_from", "dry_run")
    unused = frozenset({"coverage", "scheduled_sampling"})  # there is one token
    reference = {"embedding_size": 128, "encoder_size": 128, "hidden_size": 128}
    ends_with_eos = False
    sample_names = ("item", "label", "chosen")

    weights: Tensor | None = None
    features: Features | None = None

    # -- what it reads and builds --------------------------------------------------------------------------

    def check(self, config: Any) -> list[str]:
        found = []
        try:
            library()
        except UserError as error:  # before the data is read
            found.append(str(error))
        if config.data.class_weights != "none" and config.train.r_drop:
            found.append("--r-drop does not go with --class-weights balanced")
        return found

    def read(self, data: ClassifyData) -> LabelSplit:
        """The examples. Raises `UserError` if files are missing or labels cannot be learned."""
        split = read_split(data, self.vocabulary)
        if self.begun is not None:
            check_kind(self.begun, split.train, "--init-from: that model")
        return split

    def parts(self, test: Sequence[str] = ()) -> dict[str, DataPart]:
        return label_parts(self.split, self.config.data, test)

    def tokenizers(self, split: LabelSplit) -> tuple[Tokenizer, dict[str, Tokenizer]]:
        if split.pictures:
            return split.tokenizer, {}
        texts = [e.item.lower() if self.config.data.lowercase else e.item for e in split.train]
        return split.tokenizer, {"sentence": self.config.data.tokenizer().train(texts)}

    def build(self, sizes: Any, split: LabelSplit) -> Model:
        """An RNN encoder for texts, a CNN for pictures, and the decoder."""
        encoder: RNNEncoder | CNNEncoder
        labels, sources = self.tokenizers(split)
        if split.pictures:
            encoder = CNNEncoder.of(sizes, 2 * sizes.encoder_size)
        else:
            lowercase = self.config.data.lowercase
            encoder = RNNEncoder.of(sources["sentence"], sizes, lowercase=lowercase, pooling=sizes.pooling)
        return Model(encoder, DecoderConfig.of(len(labels), sizes), labels)

    def defaults(self, facts: Facts) -> Choices:
        """The columns that were read, and what was best on AG News."""
        why = "best of those tried on AG News"
        first = "of the first table; all files are read alike"
        return {
            **{name: Choice(column, first) for name, column in facts.split.columns.items()},
            **{name: Choice(size, why) for name, size in self.reference.items()},
            "dropout": Choice(0.5, why),
            "embedding_dropout": Choice(0.5, why),
            "learning_rate": Choice(3e-3, why),
            # 5 minutes on two cores: 0.2 89.5 %, 0.365 nats; 0.48, as for other tasks, 88.7 %, 0.385.
            "weight_decay": Choice(0.2, why),
            "ema": Choice(0.99, "the average is better than the last weights"),
        }

    def tokens_per_step(self, config: Any) -> int:
        return int(config.data.batch_size * config.train.accumulate)

    def make_batches(self, model: Model, split: LabelSplit, config: Any) -> LabelBatches:
        """Batches of items with their labels. Pictures that cannot be read are left out."""
        t, data, seed = model.tokenizer, config.data, config.train.seed
        if split.pictures:
            self.features = Features(model, split, self.progress)
            source, lengths = self.features.source(split.train), np.zeros(len(split.train), np.int64)
        else:
            source, lengths = text_source(model, split.train, data.max_length, data.word_dropout, seed)
        targets = np.array([t.encode(e.target)[0] for e in split.train], np.int64)
        if data.class_weights == "balanced":
            counts = np.bincount(targets, minlength=len(t))
            weights = len(targets) / (np.maximum(counts, 1) * np.count_nonzero(counts))
            self.weights = torch.from_numpy(weights).float()
        return LabelBatches(targets, lengths, source, data.batch_size, t.bos_id, t.pad_id, seed)

    # -- training ------------------------------------------------------------------------------------------

    def loss(
        self, model: Model, batch: Batch, state: DecoderState | None, options: TrainOptions, share: float
    ) -> LossOutput:
        """Cross-entropy; with ``class_weights``, that of each example times its label's weight."""
        if self.weights is None:
            return super().loss(model, batch, state, options, share)
        memory = model.encoder(batch.encoder_source)
        output = model.decoder(batch.input_ids, model.decoder.init_state(memory), memory)
        targets, pad_id = batch.target_ids[:, 0], model.tokenizer.pad_id
        logits, weights = output.logits[:, 0].float(), self.weights.to(targets.device)
        rest: dict[str, Any] = {"ignore_index": pad_id, "label_smoothing": options.label_smoothing or 0.0}
        loss_sum = F.cross_entropy(logits, targets, weights, reduction="sum", **rest)
        return LossOutput(loss_sum, int((targets != pad_id).sum()), output.state)

    def validate(self, model: Model, *, quick: bool = False) -> Evaluation:
        return self.evaluate(model, self.split.valid[:8] if quick else self.split.valid)

    def describe(self, figures: Mapping[str, Any]) -> str:
        scores = f"accuracy {figures['accuracy']:.1%}, macro-F1 {figures['macro_f1']:.3f}"
        return f"valid {figures['loss']:.3f} nats, {scores}"

    def finish(self, model: Model, folder: Path) -> Evaluation:
        """Calibrates the best weights, unless that is done, and draws the confusion matrix."""
        examples, known = self.split.valid, model.info.metrics
        if "temperature" not in known:
            calibrate(model, self._log_probs(model, examples), targets_of(model, examples))
            found = self.evaluate(model, examples)
            known.update({name: round(value, 4) for name, value in found.figures.items()})
            model.save(folder / "best")
        else:
            found = self.evaluate(model, examples)
        found.figures |= {name: known[name] for name in ("temperature", "uncalibrated_ece")}
        labels = model.tokenizer.labels  # type: ignore[attr-defined]
        if len(labels) <= LABELS_SHOWN:
            counts = confusion(found.outputs, [e.target for e in examples], labels)
            plot_confusion(counts, labels, folder / "plots" / "confusion.png")
        return found

    def commands(self, model: Model, folder: str) -> list[str]:
        return [f"gen classify {folder} {shlex.quote(str(self.split.valid[0].item))}"]

    def rows(self, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        note = ""
        if "temperature" in figures:
            note = f"{figures['uncalibrated_ece']:.3f} before the temperature {figures['temperature']:.2f}"
        return [
            ("accuracy", f"{figures['accuracy']:.1%}", ""),
            ("macro-F1", f"{figures['macro_f1']:.3f}", ""),
            ("calibration error", f"{figures['ece']:.3f}", note),
            ("nats per label", f"{figures['loss']:.3f}", ""),
        ]

    # -- a trained model -----------------------------------------------------------------------------------

    def held_out(self, model: Any, options: ClassifyHeldOut | None = None) -> list[Example]:
        """Those of ``options``, else those that training validated on, without pictures that cannot be read."""
        self.config = recorded(Classify, model)
        if options and options.data:
            examples, self.dropped = read_examples(options.data, with_columns(self.config.data))
            check_kind(model, examples, "the model")
            with within(options.data[0]):
                targets_of(model, examples)
        elif self.config.data.data:
            examples = list(read_split(self.config.data).valid)
        else:
            raise UserError("the model has no record of its training data: name some with --data")
        if "picture" not in model.processors:
            return examples
        failed = unusable(model.encoder, [e.item for e in examples])
        self.dropped = [*self.dropped, *map(str, failed.values())]
        if len(failed) == len(examples):
            raise UserError(f"no usable pictures are left to evaluate on ({self.dropped[0]})")
        return [e for i, e in enumerate(examples) if i not in failed]

    dropped: Sequence[str] = ()

    def evaluate(
        self, model: Any, examples: Sequence[Example], *, batch_size: int = 64, **search: Any
    ) -> Evaluation:
        """Figures of the likeliest labels. Processes share the examples."""
        if search:
            flags = ", ".join(map(flag, search))
            raise UserError(f"{flags} does not go with a classifier: it computes every label's probability")
        log_probs = self._log_probs(model, examples, batch_size)
        labels = model.tokenizer.labels
        outputs = [labels[i] for i in log_probs.argmax(1)]
        figures = classification_metrics(log_probs, targets_of(model, examples))
        return Evaluation(figures, outputs, len(examples), self.dropped)

    def _log_probs(self, model: Any, examples: Sequence[Example], batch_size: int = 64) -> np.ndarray:
        """(N, L) log-probabilities of the labels."""
        return log_probs_of(model, examples, self.features or partial(label_items, model), batch_size)

    def compare(
        self, outputs: Sequence[str], others: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        """McNemar's exact test of the accuracies."""
        right = [[o in r for o, r in zip(each, references, strict=True)] for each in (outputs, others)]
        return {"accuracy": mcnemar(*right)}
