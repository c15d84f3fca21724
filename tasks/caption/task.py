"""Captioning: training on pictures and their captions, evaluation by CIDEr-D."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gen.base.distributed import all_reduce_sum
from gen.base.errors import UserError, notify
from gen.base.folders import write_text
from gen.datasets.batches import Background, Batches, SequenceBatches
from gen.datasets.captions import CaptionCorpus, Captioned, build_captions, read_labelled
from gen.datasets.look import DataPart
from gen.datasets.shard_files import is_streamed
from gen.datasets.streamed import StreamedBatches
from gen.datasets.streamed_pictures import picture_blocks
from gen.inputs.labels import LabelProcessor, LabelTokenizer, unknown_label
from gen.inputs.processors import PictureProcessor
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.captions import CaptionScorer, bleu, caption_metrics, caption_tokenizer
from gen.models.decoder import DecoderConfig
from gen.models.encoders import CNNEncoder, JoinedEncoder, LabelEncoder
from gen.models.encoders.backbones import FINER
from gen.models.model import Model
from gen.search import SearchOptions
from gen.training.config import check_split, recorded
from gen.training.distill import DistillOptions, Written
from gen.training.interfaces import Choice, Choices, Evaluation, Example, Facts, Metric, round_size
from gen.training.registry import register
from gen.training.self_critical import SelfCritical
from gen.training.task import Task
from tasks.caption.batches import (
    PictureBatches,
    Subset,
    ValidationPictures,
    caption_reward,
    cnn_of,
    named_source,
    usable_pictures,
)
from tasks.caption.data import CaptionSplit, caption_parts, held_out_files, read_split
from tasks.caption.options import CaptionData, CaptionHeldOut, CaptionReward, CaptionSizes
from tasks.caption.pictures import as_captions, caption_pictures, expand, item_of
from tasks.caption.taught import taught_captions
from tasks.options import coverage_errors, many_passes, self_critical_errors, stream_budget_errors


@register("caption")
class Caption(Task):
    """Train a captioning model on pictures with captions."""

    Data, Sizes, Extra, HeldOut = CaptionData, CaptionSizes, CaptionReward, CaptionHeldOut
    metric = Metric("cider", higher_is_better=True, label="CIDEr-D", max_loss=1.0)
    further_metrics = (
        Metric("rouge_l", higher_is_better=True, label="ROUGE-L", max_loss=0.5),
        *(Metric(f"bleu{n}", higher_is_better=True, label=f"BLEU-{n}", max_loss=0.5) for n in (4, 3, 2, 1)),
    )
    changeable = frozenset({"finetune", "finetune_rate"})
    # Against a length penalty of 1.0 and repeats, four models gained 0.3 to 0.9 CIDEr-D on Flickr8k's validation
    # pictures: "a man in a red shirt and a woman in a red shirt" is rare.
    quality = "BLEU-1"
    search = SearchOptions(beam=8, length_penalty=0.7, mbr=True, no_repeat_ngram=3, max_new_tokens=60)
    reference = {"memory_size": 256, "embedding_size": 256, "hidden_size": 384, "augment": 0}
    common = ("images", "captions", "out", "budget", "level", "attention", "finetune", "init_from", "dry_run")

    distilled_by = frozenset({"teacher_beam", "originals", "sources"})

    corpus: CaptionCorpus
    valid: ValidationPictures

    # -- what it reads and builds --------------------------------------------------------------------------

    def check(self, config: Any) -> list[str]:
        found = self_critical_errors(config) + stream_budget_errors(config) + coverage_errors(config)
        if config.extra.self_critical and config.data.batch_tokens != CaptionData.batch_tokens:
            found.append("--batch-tokens does not go with --self-critical: --pictures is the size of a batch")
        if config.extra.self_critical and config.model.finetune:
            found.append("--self-critical and --finetune exclude each other")
        return found

    def read(self, data: CaptionData) -> CaptionSplit:
        """The pictures with their captions. Raises `UserError` if files are missing or damaged."""
        split = read_split(data)
        if self.begun is not None:
            if not isinstance(self.begun.processors.get("picture"), PictureProcessor):
                raise UserError(f"--init-from: its encoder, {self.begun.encoder.describe()}, reads no pictures")
            has, known = {c.label for c in split.train}, self.begun.processors.get("label")
            labels = known.tokenizer.labels if isinstance(known, LabelProcessor) else [""]
            if unknown := has - set(labels):
                raise unknown_label(unknown.pop(), labels, "; name the files of --captions as that model's were")
        return split

    def taught(self, options: DistillOptions, written: Written | None) -> CaptionSplit:
        """The pictures, with the teachers' captions."""
        return taught_captions(self, options, written)

    @classmethod
    def named(cls, files: Sequence[str]) -> dict[str, Any]:
        folders = [name for name in files if Path(name).is_dir()]
        data = tuple(filter(is_streamed, files))
        captions = tuple(name for name in files if name not in (*folders, *data))
        return {"images": "".join(folders[:1]), "captions": captions, "data": data}

    def parts(self, test: Sequence[str] = ()) -> dict[str, DataPart]:
        return caption_parts(self.split, self.config.data, test)

    def build(self, sizes: Any, split: CaptionSplit) -> Model:
        """A CNN encoder and the decoder."""
        learns = {"finetune": sizes.finetune, "finetune_rate": sizes.finetune_rate}
        encoder = CNNEncoder.of(sizes, sizes.memory_size, **learns)
        tokenizer = self._tokenized(split).tokenizer
        config = DecoderConfig.of(len(tokenizer), sizes)
        labels = LabelTokenizer(c.label for c in split.train if c.label)
        if not labels.labels:
            return Model(encoder, config, tokenizer)
        label = LabelEncoder({"label": labels}, sizes.memory_size, prompt=False)
        return Model(JoinedEncoder({"picture": encoder, "label": label}, sizes.memory_size), config, tokenizer)

    def _tokenized(self, split: CaptionSplit) -> CaptionCorpus:
        """The training captions as token ids."""
        data = self.config.data
        self.corpus = build_captions(
            split.train,
            data.tokenizer(),
            verbatim=data.verbatim,
            max_length=data.longest,
            tokenizer=self.vocabulary,
        )
        return self.corpus

    def search_defaults(self, model: Model) -> dict[str, Any]:
        if model.tokenizer.kind == "char":  # words repeat their letters
            return replace(self.search, no_repeat_ngram=None, max_new_tokens=300).given()
        return super().search_defaults(model)

    def tokenizers(self, split: CaptionSplit) -> tuple[Tokenizer, dict[str, Tokenizer]]:
        return self._tokenized(split).tokenizer, {}

    def defaults(self, facts: Facts) -> Choices:
        """With more passes over the captions: larger sizes, more dropout, and more views per picture."""
        # Flickr8k, 27 passes: small sizes 2.608 nats, with three more views 2.585, with larger sizes and more
        # dropout as well 2.565. With 11 passes the small sizes without further views are best.
        passes, captions = facts.passes, facts.split.num_captions
        less = 0.2 * min(float(np.log10(passes / 11)), 0.0)
        read = f"{passes:.2g} passes over the captions fit into the budget"
        frequency = 1 if captions < 5_000 else 2 if captions < 15_000 else 4

        def between(small: float, large: float) -> float:
            return small + many_passes(passes) * (large - small)

        large = {"memory_size": 512, "embedding_size": 384, "hidden_size": 640}
        sizes = {
            name: Choice(round_size(between(self.reference[name], size)), read) for name, size in large.items()
        }
        own = self.config.extra.self_critical
        # Flickr8k, 4,000 steps with pictures of 288 pixels instead of 224: CIDEr-D 52.3 and 50.7.
        # A CNN that is trained, or that sees streamed pictures again for each caption, would make training slower.
        backbone, pictures = self.config.model.backbone, len(facts.split.train)
        cached = not self.config.model.finetune and not self.config.data.streams
        if cached and backbone in FINER and pictures >= 1_000:
            sizes["image_size"] = Choice(FINER[backbone], f"there are {pictures:,} pictures")
        return {
            **sizes,
            "dropout": Choice(round(max(between(0.35, 0.5) + less, 0.1), 2), read),
            "embedding_dropout": Choice(round(max(between(0.3, 0.4) + less, 0.1), 2), read),
            "augment": Choice(round(between(0, 3)), read),
            "min_frequency": Choice(frequency, f"there are {captions:,} captions"),
            "learning_rate": Choice(5e-4 if own else 3e-3, "best of those tried on Flickr8k"),
            "label_smoothing": Choice(0.0 if own else 0.1, "usual for captions"),
            "ema": Choice(0.999, "the average is better than the last weights"),
        }

    def change(self, begun: Model, sizes: Any) -> None:
        cnn_of(begun).unfreeze(sizes.finetune, sizes.finetune_rate)

    def make_batches(self, model: Model, split: CaptionSplit, config: Any) -> Batches:
        """Batches of captions of similar length with their pictures, a different view in every epoch; pictures
        alone for self-critical training. Pictures that cannot be read are recorded in ``split``."""
        data, seed, encoder = config.data, config.train.seed, cnn_of(model)
        if self.begun is not None:
            self._tokenized(split)
        learns, views = config.model.finetune > 0, (data.augment or 0) + 1
        seen, usable = usable_pictures(encoder, split, data, learns, views, self.progress)
        source = named_source(split.files + split.valid, seen, model.encoder)
        train = usable[usable < len(split.files)]
        held_out = usable[usable >= len(split.files)]
        pictures = [split.valid[i - len(split.files)] for i in held_out]
        self.valid = ValidationPictures(pictures, source, held_out, data.verbatim, model.tokenizer)
        if not (len(train) or split.stream) or not pictures:
            CaptionSplit([], pictures, split.dropped).check(data)
        if split.stream is not None:
            make = picture_blocks(
                self.corpus.tokenizer,
                encoder.preprocessing,
                verbatim=data.verbatim,
                max_length=data.longest,
                batch_tokens=data.batch_tokens,
                views=views,
                seed=seed,
            )
            return StreamedBatches(split.stream, make, seed)
        if config.extra.self_critical:
            references = [list(map(model.tokenizer.normalize, c.captions)) for c in split.train]
            reward, signature = caption_reward(references)
            self.say(f"Reward: {signature}")
            self.objective = SelfCritical(
                reward,
                samples=config.extra.samples,
                baseline=config.extra.baseline,
                max_new_tokens=int(self.corpus.captions.lengths.max()) + 1,  # with EOS
            )
            return PictureBatches(source, train, views, config.extra.pictures, seed)
        rows = np.flatnonzero(np.isin(self.corpus.pictures, train))
        about = self.corpus.pictures[rows]
        batches = SequenceBatches(
            Subset(self.corpus.captions, rows),
            data.batch_tokens,
            self.corpus.tokenizer,
            source=lambda chosen, epoch: source(about[chosen], (rows[chosen] + epoch) % views),
            seed=seed,
        )
        return Background(batches) if learns else batches

    # -- training ------------------------------------------------------------------------------------------

    def validate(self, model: Model, *, quick: bool = False) -> Evaluation:
        """The scores of greedy captions, and the loss of each picture's first reference."""
        count = len(self.valid.pictures)
        count, limit = (min(count, 8), {"max_new_tokens": 8}) if quick else (count, {})
        loss_sum, num_tokens = all_reduce_sum(*model.evaluate(self.valid.batches(model, count)))
        captions = [h.text for h in self.valid.captions(model, count, temperature=0, **limit)]
        scorer = CaptionScorer(self.valid.references[:count]) if quick else self.valid.scorer
        return Evaluation({"loss": loss_sum / max(num_tokens, 1), **scorer.corpus(captions)}, captions, count)

    def sample(self, model: Model, evaluation: Evaluation) -> str:
        """Pictures with a reference and the caption, always the same pictures."""
        pictures = self.valid.pictures
        return "\n".join(
            f"* {pictures[i].picture.name}\n  * reference: {pictures[i].captions[0]}\n"
            f"  * caption: {evaluation.outputs[i]}"
            for i in self.sampled(len(pictures))
        )

    def describe(self, figures: Mapping[str, Any]) -> str:
        scores = f"CIDEr-D {figures['cider']:.1f}, BLEU-4 {figures['bleu4']:.2f}"
        return f"valid {figures['loss']:.3f} nats, {scores}"

    def finish(self, model: Model, folder: Path) -> Evaluation:
        """Evaluates with the default search. Writes `held_out_files`, and a plot of attention."""
        pictures = self.valid.pictures
        found = self.valid.captions(model, len(pictures))
        captions = [h.text for h in found]
        for name, text in held_out_files(pictures, captions).items():
            write_text(folder / name, text)
        if found[0].attention is not None:
            first = item_of(pictures[0].picture, pictures[0].label)
            try:
                self.plot(model, first, found[0], folder / "plots" / "attention.png")
            except UserError as error:  # the features are cached, but pictures may have moved since
                notify(f"plots/attention.png is not made: {error}")
        references = [[self.normalise(model, text) for text in c.captions] for c in pictures]
        judged = list(zip(found, references, strict=True))
        return Evaluation(self.valid.scorer.corpus(captions), captions, len(captions), judged=judged)

    def commands(self, model: Model, folder: str) -> list[str]:
        first = self.valid.pictures[0]
        given = f"--given {shlex.quote(first.label)} " if first.label else ""
        return [f"gen caption {folder} {given}{shlex.quote(str(first.picture))}"]

    def rows(self, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        labels = {f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)} | {"rouge_l": "ROUGE-L", "cider": "CIDEr-D"}
        rows = [
            (label, f"{figures[name]:.2f}", figures.get(f"{name}_signature", "")) for name, label in labels.items()
        ]
        return [*rows, ("distinct", f"{figures['distinct']:,}", "")]

    # -- a trained model -----------------------------------------------------------------------------------

    def normalise(self, model: Any, text: str) -> str:
        return as_captions(model, text)

    def parse(self, words: Sequence[str]) -> Iterator[Path]:
        yield from expand(words)

    def held_out(self, model: Any, options: CaptionHeldOut | None = None) -> list[Example]:
        """The pictures named in ``options``, else those that the training validated on. Raises `UserError` if it
        left no record of them."""
        if options and (options.images or options.captions):
            found = read_labelled(options.images, options.captions)
            chosen = found.pictures if options.split == "all" else found.split(options.split)
            self.dropped = found.dropped
        else:
            config = recorded(Caption, model)
            if not (config.data.images or config.data.captions or config.data.data):
                raise UserError("the model has no record of its training pictures: name some with --images")
            chosen = self._recorded(config.data, model, options.split if options else "all")
            self.dropped = []
        return [Example(item_of(c.picture, c.label), c.captions[0], tuple(c.captions)) for c in chosen]

    @staticmethod
    def _recorded(data: CaptionData, model: Any, part: str) -> list[Captioned]:
        """A part of the pictures of the training; of "all" those that it validated on."""
        if part == "test" or (part == "train" and data.streams):
            found = [] if data.streams else read_labelled(data.images, data.captions).split(part)
            if not found:
                raise UserError(f"--split {part}: the training left no record of these: name some with --captions")
            return found
        split = read_split(data)
        if split.automatic:
            check_split(model, "--images and --captions")
        return split.train if part == "train" else split.valid

    dropped: Sequence[str] = ()

    def evaluate(
        self, model: Any, examples: Sequence[Example], *, batch_size: int = 64, **search: Any
    ) -> Evaluation:
        """Captions the pictures and scores the captions. Pictures that cannot be read are left out."""
        described = list(caption_pictures(model, [e.item for e in examples], batch_size=batch_size, **search))
        failed = [*self.dropped, *(str(d.error) for d in described if d.error)]
        kept = [(d.hypotheses[0], e) for d, e in zip(described, examples, strict=True) if d.hypotheses]
        if not kept:
            raise UserError("no usable pictures are left to evaluate on")
        references = [list(map(model.tokenizer.normalize, e.all_references)) for _, e in kept]
        outputs = [h.text for h, _ in kept]
        figures = {**caption_metrics(outputs, references), "pictures": len(kept)}
        judged = [(h, [self.normalise(model, text) for text in e.all_references]) for h, e in kept]
        return Evaluation(figures, outputs, len(kept), failed, judged)

    def qualities(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        _, tokens = caption_tokenizer(references)
        wanted = [list(map(tokens, each)) for each in references]
        return bleu(list(map(tokens, outputs)), wanted)[1][:, 0].tolist()
