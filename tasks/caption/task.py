"""Captioning: look at pictures, read what people wrote about them, train the decoder on it, judge its captions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gen.base.distributed import all_reduce_sum, main_first
from gen.base.errors import UserError
from gen.base.folders import write_text
from gen.datasets.batches import Background, Batches
from gen.datasets.captions import CaptionCorpus, Captioned, build_captions
from gen.inputs.ptb import ptb_tokens
from gen.metrics.captions import CaptionScorer, CiderD
from gen.metrics.plots import plot_looks
from gen.models.batch import Batch
from gen.models.decoder import DecoderConfig, DecoderState
from gen.models.encoders.cnn import CNNEncoder
from gen.models.model import LossOutput, Model
from gen.search import Hypothesis
from gen.search.info import ModelInfo
from gen.training.options import TrainOptions
from gen.training.self_critical import SelfCritical
from gen.training.validation import Task
from tasks import display
from tasks.caption.data import (
    HeldOut,
    PictureBatches,
    Split,
    cached_source,
    decoded_source,
    make_batches,
    read_split,
    unusable,
)
from tasks.caption.options import SEARCH, CaptionConfig, CaptionModel, SelfCriticalOptions, choose
from tasks.commands import train as training

# -- model -----------------------------------------------------------------------------------------------


def build_model(options: CaptionModel, tokenizer: Any, encoder: CNNEncoder, info: ModelInfo) -> Model:
    """The CNN and the decoder, their sizes chosen."""
    decoder = DecoderConfig(
        len(tokenizer),
        embedding_size=options.embedding_size,
        hidden_size=options.hidden_size,
        num_layers=options.num_layers,
        cell=options.cell,
        attention=options.attention,
        num_heads=options.num_heads,
        dropout=options.dropout or 0.0,
        embedding_dropout=options.embedding_dropout or 0.0,
        weight_dropout=options.weight_dropout,
        tie_embeddings=options.tie == "yes",
    )
    return Model(encoder, decoder, tokenizer, info)


# -- training --------------------------------------------------------------------------------------------


class CaptionTask(Task):
    """Captioning, as the training loop sees it."""

    metric = "cider"
    higher_is_better = True
    SAMPLES = 8

    def __init__(self, batches: Batches, held_out: HeldOut) -> None:
        self.batches = batches
        self.held_out = held_out
        self._captions: list[str] = []

    def validate(self, model: Model, *, quick: bool = False) -> dict[str, Any]:
        """Caption scores of greedy captions, and the loss of each picture's first reference."""
        count = len(self.held_out.pictures)
        count, limit = (min(count, 8), {"max_new_tokens": 8}) if quick else (count, {})
        loss_sum, num_tokens = all_reduce_sum(*model.evaluate(self.held_out.batches(model, count)))
        self._captions = [h.text for h in self.held_out.captions(model, count, temperature=0, **limit)]
        scorer = CaptionScorer(self.held_out.references[:count]) if quick else self.held_out.scorer
        scores = scorer.corpus(self._captions)
        return {"loss": loss_sum / max(num_tokens, 1), **scores}

    def sample(self, model: Model) -> str:
        """Pictures, a reference each, and what the model wrote; the same pictures every time."""
        pictures = self.held_out.pictures
        chosen = range(0, len(pictures), max(len(pictures) // self.SAMPLES, 1))[: self.SAMPLES]
        return "\n".join(
            f"* {pictures[i].picture.name}\n  * reference: {pictures[i].captions[0]}\n"
            f"  * caption: {self._captions[i]}"
            for i in chosen
        )


class SelfCriticalTask(CaptionTask):
    """The same, learning from the score of its own captions."""

    def __init__(
        self, batches: Batches, held_out: HeldOut, train: Sequence[Captioned], options: SelfCriticalOptions
    ) -> None:
        super().__init__(batches, held_out)
        # The end counts as a word: without it, captions that stop in the middle of a phrase score best.
        cider = CiderD([[[*ptb_tokens(text), _END] for text in c.captions] for c in train])

        def reward(hypothesis: Hypothesis, picture: int) -> float:
            return cider.score([*ptb_tokens(hypothesis.text), *([_END] if hypothesis.finished else [])], picture)

        self.objective = SelfCritical(reward, samples=options.samples, baseline=options.baseline)

    def loss(
        self, model: Model, batch: Batch, state: DecoderState | None, options: TrainOptions, share: float
    ) -> LossOutput:
        return self.objective(model, batch)


_END = "</s>"


def describe(figures: Mapping[str, Any]) -> str:
    """Validation figures in a few words."""
    return f"valid {figures['loss']:.3f} nats, CIDEr-D {figures['cider']:.1f}, BLEU-4 {figures['bleu4']:.2f}"


def train_caption(config: CaptionConfig, command: str = "") -> dict[str, Any]:
    """The whole task: `gen train caption`.

    Args:
        config: what the user asked for.
        command: how, for the model card.

    Returns:
        The final figures, by beam search, and the run's path.

    Example:
        >>> data = CaptionData(images="flickr8k/images", captions="flickr8k/captions.jsonl")
        >>> train_caption(CaptionConfig(data, out="runs/captions"))
    """
    session = training.Session(config, "caption", command)
    with main_first():
        split = read_split(config.data)
    chosen = choose(config, sum(len(c.captions) for c in split.train))
    encoder = _encoder(chosen.model, session.begun).to(session.device)
    learns, views = chosen.model.finetune > 0, chosen.data.augment + 1
    if learns:
        split = split.without(unusable(encoder, split.train + split.valid))
        source = decoded_source(encoder, split.train + split.valid)
    else:
        each = [views] * len(split.train) + [1] * len(split.valid)
        source, failed = cached_source(encoder, split.train + split.valid, each, chosen.data.feature_dtype)
        split = split.without(failed)
    split.check(config.data)
    with main_first():
        corpus = build_captions(
            split.train,
            chosen.data.tokenizer(),
            verbatim=chosen.data.verbatim,
            max_length=chosen.data.max_length,
            tokenizer=session.tokenizer,
        )
    model = session.model(
        lambda info: build_model(chosen.model, corpus.tokenizer, encoder, info),
        corpus.tokenizer,
        data=[name for name in (config.data.images, config.data.captions) if name],
        search=SEARCH,
    )
    held_out = HeldOut(split.valid, source, len(split.train), chosen.data.verbatim)
    task: CaptionTask
    if config.reward.self_critical:
        pictures = PictureBatches(source, len(split.train), views, config.reward.pictures, chosen.train.seed)
        task = SelfCriticalTask(pictures, held_out, split.train, config.reward)
    else:
        batches = make_batches(corpus, source, chosen.data, chosen.train.seed)
        task = CaptionTask(Background(batches) if learns else batches, held_out)
    for line in split.dropped:
        display.say(f"Left out: {line}")
    table = _captions_table(split, corpus, model)
    if not session.fit(model, task, chosen.train, data=table, describe=describe):
        return {}
    return finish(task, session)


def _encoder(options: CaptionModel, begun: Model | None) -> CNNEncoder:
    if begun is None:
        return CNNEncoder(
            options.backbone,
            options.weights,
            memory_size=options.memory_size,
            dropout=options.dropout or 0.0,
            finetune=options.finetune,
            finetune_rate=options.finetune_rate,
        )
    if not isinstance(begun.encoder, CNNEncoder):
        raise UserError(f"--init-from: its encoder, {begun.encoder.describe()}, does not look at pictures")
    begun.encoder.unfreeze(options.finetune, options.finetune_rate)
    return begun.encoder


def finish(task: CaptionTask, session: training.Session) -> dict[str, Any]:
    """Final figures by beam search, an attention plot, and what to type next."""
    run = session.run
    model = Model.load(run.path)
    valid = task.held_out.pictures
    found = task.held_out.captions(model, len(valid))
    captions = [h.text for h in found]
    figures = task.held_out.scorer.corpus(captions)
    display.show_captions("Validation, beam search", figures)
    lines = [
        json.dumps({"image": str(c.picture), "caption": text}, ensure_ascii=False)
        for c, text in zip(valid, captions, strict=True)
    ]
    write_text(run.path / "captions.jsonl", "\n".join(lines) + "\n")
    picture = valid[0].picture
    if found[0].attention is not None:
        plot_looks(*looks_of(model, picture, found[0]), run.path / "plots" / "attention.png")
    out = shlex.quote(str(run.path))
    session.close([f"gen caption {out} {shlex.quote(str(picture))}"])
    return {**figures, "run": str(run.path)}


def looks_of(model: Model, picture: Any, hypothesis: Hypothesis) -> tuple[np.ndarray, Any, list[str]]:
    """What a plot of a caption needs: the picture as (H, W, 3) pixels, weights (T, S), a label a word."""
    encoder = model.encoder
    if not isinstance(encoder, CNNEncoder):
        raise UserError(f"a {model.info.task} model does not look at pictures")
    pixels = encoder.preprocessing.pixels(picture).transpose(1, 2, 0)
    return pixels, hypothesis.attention, [model.tokenizer.decode([i]) for i in hypothesis.token_ids]


def _captions_table(split: Split, corpus: CaptionCorpus, model: Model) -> Any:
    decoder = model.decoder.config
    rows = {
        "training": f"{len(split.train):,} pictures, {len(corpus.captions):,} captions",
        "left out": f"{len(split.dropped):,} (see above)" if split.dropped else "none",
        "validation": f"{len(split.valid):,} pictures",
        "vocabulary": f"{len(corpus.tokenizer):,} ({corpus.tokenizer.kind})",
        "dropout": f"{decoder.dropout}, embedding {decoder.embedding_dropout}",
    }
    return display.table("Pictures", rows)


def held_out_pictures(model: Model) -> list[Captioned]:
    """The validation pictures that a model was trained beside."""
    config = training.asked(model, CaptionConfig)
    if config is None or not (config.data.images or config.data.captions):
        raise UserError("the model does not say which pictures it was trained on: name some with --images")
    return read_split(config.data).valid


def train_command(argv: list[str], command: str) -> None:
    """`gen train caption …`."""
    training.command(CaptionConfig, train_caption, argv, command)
