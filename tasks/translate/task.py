"""Translation: read sentence pairs, train an encoder and the decoder on them, judge the translations."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from gen.base.distributed import all_reduce_sum, gather, main_first, shard
from gen.base.errors import UserError
from gen.datasets.batches import SequenceBatches
from gen.datasets.pair_files import PairFiles
from gen.datasets.pairs import Pairs, build_pairs
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.plots import plot_attention
from gen.metrics.scores import translation_metrics
from gen.models.batch import PADDED_TO, Batch, pad, sequence_batch
from gen.models.decoder import DecoderConfig
from gen.models.encoders.rnn import RNNEncoder
from gen.models.model import Model
from gen.search.info import ModelInfo
from gen.training.validation import Task
from tasks import display
from tasks.commands import train as training
from tasks.translate.lines import translate_lines
from tasks.translate.options import SEARCH, TranslateConfig, TranslateData, TranslateModel, choose

# -- data ------------------------------------------------------------------------------------------------


def read_pairs(options: TranslateData, vocabularies: tuple[Tokenizer, Tokenizer] | None = None) -> Pairs:
    """The tokenized pairs, with vocabularies of their own if none are given. Raises `UserError` on files that are
    missing, uneven, or not UTF-8."""
    train = PairFiles(options.train or options.data, options.src, options.tgt)
    valid = PairFiles(options.valid, options.src, options.tgt) if options.valid else None
    return build_pairs(train, valid, options.pairs, tokenizers=vocabularies)


def make_batches(pairs: Pairs, batch_tokens: int, seed: int) -> SequenceBatches:
    """The training set: pairs of like length together."""
    pad_id = pairs.source_tokenizer.pad_id
    return SequenceBatches(
        pairs.target,
        batch_tokens,
        pairs.target_tokenizer,
        source=lambda rows, epoch: {"sentence": pad([pairs.source[r] for r in rows], pad_id, PADDED_TO)},
        source_lengths=pairs.source.lengths,
        spellings=pairs.spellings,
        seed=seed,
    )


def pair_batches(model: Model, pairs: Sequence[tuple[str, str]], batch_size: int = 64) -> Iterator[Batch]:
    """Batches that read pairs of texts once; every process reads its share."""
    t = model.tokenizer
    ordered = iter(shard(sorted(pairs, key=lambda pair: len(pair[1]))))
    while rows := list(islice(ordered, batch_size)):
        source = model.encoder.prepare([a for a, _ in rows]).source
        yield sequence_batch(source, [t.encode_array(b) for _, b in rows], t.bos_id, t.eos_id, t.pad_id)


# -- model -----------------------------------------------------------------------------------------------


def build_model(options: TranslateModel, pairs: Pairs, info: ModelInfo, lowercase: bool = False) -> Model:
    """An RNN encoder and the decoder, their sizes chosen."""
    encoder = RNNEncoder(
        pairs.source_tokenizer,
        embedding_size=options.embedding_size,
        hidden_size=options.encoder_size,
        num_layers=options.encoder_layers,
        cell=options.cell,
        bidirectional=not options.one_way,
        dropout=options.dropout or 0.0,
        embedding_dropout=options.embedding_dropout or 0.0,
        weight_dropout=options.weight_dropout,
        lowercase=lowercase,
        share_embeddings=options.tie == "all",
        max_length=pairs.max_length,
        multi_sentence_p90=pairs.multi_sentence_p90,
    )
    decoder = DecoderConfig(
        len(pairs.target_tokenizer),
        embedding_size=options.embedding_size,
        hidden_size=options.hidden_size,
        num_layers=options.num_layers,
        cell=options.cell,
        attention=options.attention,
        num_heads=options.num_heads,
        dropout=options.dropout or 0.0,
        embedding_dropout=options.embedding_dropout or 0.0,
        weight_dropout=options.weight_dropout,
        tie_embeddings=options.tie != "none",
    )
    return Model(encoder, decoder, pairs.target_tokenizer, info)


# -- training --------------------------------------------------------------------------------------------


class TranslateTask(Task):
    """Translation, as the training loop sees it."""

    metric = "bleu"
    higher_is_better = True
    SAMPLES = 8

    def __init__(self, pairs: Pairs, batches: SequenceBatches) -> None:
        self.valid = pairs.valid
        self.batches = batches
        self._translations: list[str] = []

    def validate(self, model: Model, *, quick: bool = False) -> dict[str, Any]:
        """BLEU and chrF of greedy translations, and the loss under teacher forcing."""
        pairs = self.valid[:8] if quick else self.valid
        loss_sum, num_tokens = all_reduce_sum(*model.evaluate(pair_batches(model, pairs)))
        sources = [source for source, _ in pairs]
        limit = {"max_new_tokens": 8} if quick else {}
        found = model.generate_many(shard(sources), batch_size=128, temperature=0, attention=False, **limit)
        self._translations = gather([hypotheses[0].text for hypotheses in found])
        scores = translation_metrics(self._translations, [target for _, target in pairs])
        return {"loss": loss_sum / max(num_tokens, 1), **scores}

    def sample(self, model: Model) -> str:
        """Source, reference and hypothesis of a few pairs, the same every time."""
        step = max(len(self.valid) // self.SAMPLES, 1)
        chosen = range(0, len(self.valid), step)[: self.SAMPLES]
        return "\n".join(
            f"* source: {self.valid[i][0]}\n  * reference: {self.valid[i][1]}\n"
            f"  * hypothesis: {self._translations[i]}"
            for i in chosen
        )


def describe(figures: Mapping[str, Any]) -> str:
    """Validation figures in a few words."""
    return f"valid {figures['loss']:.3f} nats, BLEU {figures['bleu']:.2f}, chrF {figures['chrf']:.2f}"


def train_translate(config: TranslateConfig, command: str = "") -> dict[str, Any]:
    """The whole task: `gen train translate`.

    Args:
        config: what the user asked for.
        command: how, for the model card.

    Returns:
        The final figures, by beam search, and the run's path. Empty where there is nothing to present.

    Example:
        >>> data = TranslateData(train=("train.en", "train.de"), valid=("val.en", "val.de"))
        >>> train_translate(TranslateConfig(data, out="runs/en-de"))
    """
    session = training.Session(config, "translate", command)
    with main_first():
        pairs = read_pairs(config.pairs, _vocabularies(session))
    chosen = choose(config, len(pairs.target.tokens) // pairs.spellings)
    model = session.model(
        lambda info: build_model(chosen.model, pairs, info, config.pairs.lowercase),
        pairs.target_tokenizer,
        pairs.source_tokenizer,
        data=config.pairs.train or config.pairs.data,
        search=SEARCH,
    )
    task = TranslateTask(pairs, make_batches(pairs, chosen.pairs.batch_tokens, chosen.train.seed))
    if not session.fit(model, task, chosen.train, data=_pairs_table(pairs, model), describe=describe):
        return {}
    return finish(pairs, session)


def _vocabularies(session: training.Session) -> tuple[Tokenizer, Tokenizer] | None:
    """Those of the model to go on from."""
    if session.begun is None or session.tokenizer is None:
        return None
    return session.begun.encoder.tokenizer, session.tokenizer  # type: ignore[return-value]


def finish(pairs: Pairs, session: training.Session) -> dict[str, Any]:
    """Final figures by beam search, an attention plot, and what to type next."""
    run = session.run
    model = Model.load(run.path)
    found = list(translate_lines(model, [source for source, _ in pairs.valid], attention=True))
    translations = [translation.hypotheses[0].text for translation in found]
    figures = translation_metrics(
        translations, [target for _, target in pairs.valid], names=("bleu", "chrf", "ter")
    )
    display.show_scores("Validation, beam search", figures)
    (run.path / "translations.txt").write_text("\n".join(translations) + "\n", encoding="utf-8")
    source = pairs.valid[0][0]
    best = found[0].hypotheses[0]
    if best.attention is not None and best.token_ids:
        plot_attention(*attention_of(model, source, best), run.path / "plots" / "attention.png")
    out = shlex.quote(str(run.path))
    session.close([f"gen translate {out} --text {shlex.quote(source)}"])
    return {**figures, "run": str(run.path)}


def attention_of(model: Model, source: str, hypothesis: Any) -> tuple[Any, list[str], list[str]]:
    """What a plot of a hypothesis needs: weights (T, S), target labels, source labels."""
    labels = [model.tokenizer.decode([i]) for i in hypothesis.token_ids]
    return hypothesis.attention, labels, model.encoder.labels(source)


def _pairs_table(pairs: Pairs, model: Model) -> Any:
    dropped = "; ".join(f"{n:,} with {reason}" for reason, n in pairs.dropped.items())
    n = len(pairs.source) // pairs.spellings
    one = pairs.source_tokenizer is pairs.target_tokenizer
    sizes = f"{len(pairs.source_tokenizer):,}" + ("" if one else f" and {len(pairs.target_tokenizer):,}")
    rows = {
        "training": f"{n:,} pairs, {len(pairs.target.tokens) // pairs.spellings:,} target tokens",
        "dropped": dropped or "none",
        "validation": f"{len(pairs.valid):,} pairs",
        "vocabulary": f"{sizes} ({pairs.target_tokenizer.kind}{', joint' if one else ''})",
        "dropout": f"{model.decoder.config.dropout}, embedding {model.decoder.config.embedding_dropout}",
    }
    return display.table("Pairs", rows)


def held_out_pairs(model: Model) -> list[tuple[str, str]]:
    """The validation pairs that a model was trained beside."""
    config = training.asked(model, TranslateConfig)
    if config is None or not (config.pairs.train or config.pairs.data):
        raise UserError("the model does not say which pairs it was trained on: name some with --src and --ref")
    return read_pairs(config.pairs).valid


def train_command(argv: list[str], command: str) -> None:
    """`gen train translate …`."""
    training.command(TranslateConfig, train_translate, argv, command)
