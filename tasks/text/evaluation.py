"""Evaluation of a language model on text that it was not trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gen.base.distributed import all_reduce_sum
from gen.base.errors import UserError, notify, within
from gen.base.files import TextFiles
from gen.datasets.batches import SequenceBatches, Sequences
from gen.datasets.corpus import MAX_LINE, Part, tokenize
from gen.datasets.splits import lines_in
from gen.datasets.streams import stream_evaluation
from gen.inputs.labels import LabelTokenizer
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.scores import language_metrics
from gen.models.adapt import SEGMENT, Adapter
from gen.models.batch import Batch
from gen.models.model import Model
from gen.search.loop import NOT_FINITE
from gen.training.interfaces import Evaluation
from tasks.options import input_name
from tasks.text.data import TextSplit, given_labels, label_ids, label_source, labels_of


def evaluate_held_out(model: Any, held_out: TextSplit | TextFiles, *, adapt: bool = False) -> Evaluation:
    """`evaluate_part` of the part that a training validated on, or of text files. What has not been tokenized as
    the model reads it is tokenized first.

    Raises:
        UserError: the files hold no text, the model is exported, or the loss is NaN.
    """
    if not isinstance(model, Model):
        raise UserError("an exported model of text is not evaluated: name the run that it was exported from")
    if isinstance(held_out, TextSplit) and _is_read_alike(held_out, model):
        return _finite(evaluate_part(model, held_out.valid, adapt=adapt))
    name = "the text" if isinstance(held_out, TextSplit) else str(held_out.paths[0])
    texts = held_out.corpus.texts["valid"] if isinstance(held_out, TextSplit) else held_out
    unit = "line" if model.info.ends_with_eos else "stream"
    with tempfile.TemporaryDirectory(prefix="gen-") as folder:
        longest = int(model.info.options().get("max_line") or MAX_LINE)
        part = tokenize(texts, model.tokenizer, unit, Path(folder), longest)
        if len(part.tokens) == 0:
            raise UserError(f"{name}: holds no text")
        if part.cut:
            notify(f"{part.cut:,} lines are longer than {longest:,} tokens, and are evaluated up to there")
        if part.unknown:
            share = part.unknown / len(part.tokens)
            notify(
                f"{share:.1%} of the tokens are unknown to the model, which need not spell them: "
                "in truth its figures are higher"
            )
        if unit == "line" and (cells := _label_cells(held_out, given_labels(model))):
            with within(name):
                part = replace(part, given=label_ids(given_labels(model), cells))
        return _finite(evaluate_part(model, part, adapt=adapt))


def _is_read_alike(held_out: TextSplit, model: Model) -> bool:
    """Whether a model has the vocabulary, the labels and the unit that a part was tokenized with."""
    labels = given_labels(model)
    return (
        held_out.tokenizer.to_bytes() == model.tokenizer.to_bytes()
        and (held_out.valid.offsets is not None) == model.info.ends_with_eos
        and {n: t.labels for n, t in held_out.labels.items()} == {n: t.labels for n, t in labels.items()}
    )


def _label_cells(held_out: TextSplit | TextFiles, labels: Mapping[str, LabelTokenizer]) -> list[Sequence[str]]:
    """The labels of each line, in the order of ``labels``; none where the text has not all of them."""
    if isinstance(held_out, TextSplit):
        known: Mapping[str, Sequence[str]] = labels_of(held_out.valid, held_out.labels)
    else:
        columns = zip(*held_out.given_cells(), strict=True) if held_out.given else ()
        known = dict(zip(map(input_name, held_out.given), columns, strict=False))
    return list(zip(*(known[name] for name in labels), strict=True)) if labels.keys() <= known.keys() else []


def _finite(found: Evaluation) -> Evaluation:
    """The evaluation itself. Raises `UserError` if its loss is NaN."""
    if np.isnan(found.figures["loss"]):
        raise UserError(NOT_FINITE)
    return found


def evaluate_part(
    model: Model,
    part: Part,
    limit: int | None = None,
    max_batches: int | None = None,
    *,
    adapt: bool = False,
) -> Evaluation:
    """Loss, bits per character and perplexity of a model on a part, with states carried over; see `Adapter` for
    ``adapt``."""
    batches = islice(part_batches(part, model.tokenizer, limit, SEGMENT if adapt else None), max_batches)
    loss_sum, num_tokens = all_reduce_sum(*(Adapter(model) if adapt else model).evaluate(batches))
    return Evaluation(language_metrics(loss_sum, int(num_tokens), characters_of(part, int(num_tokens))))


def part_batches(
    part: Part, tokenizer: Tokenizer, limit: int | None = None, segment: int | None = None
) -> Iterator[Batch]:
    """Batches over a part, each token once.

    Args:
        part, tokenizer, limit: the first ``limit`` tokens, or whole lines of about as many.
        segment: batches of about this many tokens, a text's in their order.
    """
    if part.offsets is None:
        special = tokenizer.bos_id, tokenizer.pad_id
        return stream_evaluation(part.tokens, *special, limit=limit, chunk=segment or 256, in_order=bool(segment))
    offsets = np.asarray(part.offsets)
    if limit is not None:
        offsets = offsets[: max(int(np.searchsorted(offsets, limit, "right")), 2)]
    lines = Sequences(part.tokens, offsets)
    return SequenceBatches(lines, segment or 8192, tokenizer, **label_source(part)).epoch(0)


def characters_of(part: Part, num_tokens: int) -> int:
    """The number of characters of ``num_tokens`` of a part's tokens, in proportion."""
    lines = 0 if part.offsets is None else len(part.offsets) - 1
    return round(part.characters * min(num_tokens / max(len(part.tokens) + lines, 1), 1.0))


def text_of(held_out: TextSplit | TextFiles, limit: int = 1_000_000) -> str:
    """Held-out text, at most ``limit`` tokens of the part that a training validated on."""
    if isinstance(held_out, TextFiles):
        return "".join(piece for piece in held_out if piece)
    tokenizer, tokens = held_out.tokenizer, held_out.valid.tokens
    if held_out.valid.offsets is None:
        return tokenizer.decode(tokens.read(0, min(limit, len(tokens))).tolist())
    offsets = held_out.valid.offsets[held_out.valid.offsets <= limit].tolist()
    return "\n".join(tokenizer.decode(tokens.read(a, b - a).tolist()) for a, b in pairwise(offsets))


def bits_of_pieces(model: Any, held_out: TextSplit | TextFiles, limit: int) -> tuple[float, str]:
    """Bits per character of up to ``limit`` pieces of held-out text, and a description of these. It needs scores
    alone, so that an exported model can be measured, too."""
    text = text_of(held_out)
    pieces = [text[i : i + 400] for i in range(0, len(text), 400)]
    items = lines_in(text) if model.info.ends_with_eos else pieces
    if len(items) > limit:
        items = [items[i * len(items) // limit] for i in range(limit)]
    scores = [s for i in range(0, len(items), 64) for s in model.score(items[i : i + 64])]
    bits = -sum(s.log_prob for s in scores) / np.log(2) / max(sum(map(len, items)), 1)
    return float(bits), f"{len(items):,} held-out pieces"
