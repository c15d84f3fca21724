"""`gen score`, `gen evaluate`, `gen info`: how good a model is, and what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated, Any, Literal

from gen.base import distributed
from gen.base.config import parse_command
from gen.base.errors import ConfigError, UserError, notify
from gen.base.fields import Arg
from gen.base.files import TextFiles
from gen.base.lines import read_lines
from gen.datasets.captions import plain_caption, read_captions
from gen.datasets.pair_files import PairFiles
from gen.inputs.pictures import PictureError
from gen.metrics.captions import caption_metrics
from gen.metrics.scores import paired_bootstrap, translation_metrics
from gen.models.device import pick_device
from gen.models.model import Model
from gen.search import SearchOptions
from gen.search.generation import Score
from gen.training.machine import tune_cpu
from gen.training.options import TrainOptions
from tasks import display
from tasks.caption.command import caption_pictures
from tasks.caption.task import held_out_pictures
from tasks.text.generate import load_model
from tasks.text.task import evaluate_files, evaluate_held_out
from tasks.translate.lines import translate_lines
from tasks.translate.task import held_out_pairs


@dataclass(frozen=True)
class ScoreConfig:
    """Log-probability and perplexity of every line of a file, or of the translations or captions in a table."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run or of a model."""
    file: Annotated[tuple[str, ...], Arg("FILE", positional=True)]
    """UTF-8 text; - for standard input. Translation: a table of pairs, or two files, source and target. Captions:
    the same, of pictures' paths and captions."""
    src: str = ""
    """Pairs in a table: the source's column."""
    tgt: str = ""
    """Pairs in a table: the target's column."""
    json: bool = False
    """Print a JSON object a line."""
    batch_size: int = 64
    """Lines at a time."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def check(self, task: str) -> None:
        """Raises `ConfigError` with every error at once."""
        errors = []
        if self.batch_size < 1:
            errors.append(f"--batch-size must be at least 1, not {self.batch_size}")
        if task == "text":
            given = [f for f, v in (("--src", self.src), ("--tgt", self.tgt)) if v]
            errors += [f"{f} is for models that read or look at something" for f in given]
            if len(self.file) != 1:
                errors.append(f"name one FILE to score, not {len(self.file)}")
        elif not self.file:
            errors.append("name the pairs to score: two files, or a table")
        if errors:
            raise ConfigError(errors)


@dataclass(frozen=True)
class EvaluateConfig:
    """How good a model is on held-out data: perplexity of texts, BLEU of translations, CIDEr-D of captions."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run or of a model."""
    data: tuple[str, ...] = ()
    """Text to judge a language model by; without it, all of the text held out in training."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """Text: replace reads bytes that are not UTF-8 as U+FFFD."""
    src: str = ""
    """Translation: sentences to translate; without them, the pairs held out in training."""
    ref: str = ""
    """Translation: what they should become."""
    compare: str = ""
    """Translation: a second run; paired bootstrap says whether they differ."""
    lowercase: bool = False
    """Translation: compare without case."""
    images: str = ""
    """Captions: a folder of pictures; without it, the pictures held out in training."""
    captions: str = ""
    """Captions: what people wrote about them; see `gen train caption --help`."""
    split: Literal["train", "valid", "test", "all"] = "all"
    """Captions: which part of those."""
    batch_size: int = 64
    """Translation and captions: how many at a time."""
    json: bool = False
    """Print JSON."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def check(self, task: str) -> None:
        """Raises `ConfigError` with every error at once."""
        texts = {"--data": self.data, "--encoding-errors": self.encoding_errors != "strict"}
        pairs = {"--src": self.src, "--ref": self.ref, "--compare": self.compare, "--lowercase": self.lowercase}
        searching = {f"--{name.replace('_', '-')}": True for name in self.search.given()}
        pictures = {"--images": self.images, "--captions": self.captions, "--split": self.split != "all"}
        foreign = {
            "text": {**pairs, **pictures, **searching},
            "translate": {**texts, **pictures},
            "caption": {**texts, **pairs},
        }.get(task or "text", {})
        errors = [f"{flag} does not go with a {task} model" for flag, value in foreign.items() if value]
        if self.compare and self.compare == self.run:
            errors.append(f"--compare {self.compare}: is the run itself; name another one")
        if bool(self.src) != bool(self.ref):
            errors.append("--src and --ref go together")
        if self.batch_size < 1:
            errors.append(f"--batch-size must be at least 1, not {self.batch_size}")
        if errors:
            raise ConfigError(errors)


@dataclass(frozen=True)
class InfoConfig:
    """What a model is: sizes, training, figures."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run or of a model."""
    json: bool = False
    """Print JSON."""


Pair = tuple[str | None, str]
"""What a text is about, or None, and the text."""


def score_command(argv: list[str], command: str) -> int:
    """`gen score RUN FILE`: a line in, a line out: log-probability, perplexity, text. Returns 1 if some pictures
    could not be used and 2 if all could not."""
    config = parse_command(ScoreConfig, argv, command)
    distributed.start()
    model = Model.load(config.run, pick_device(config.device))
    config.check(model.info.task)
    if model.info.task in ("", "text"):
        pairs: Iterator[Pair] = ((None, line) for line in read_lines(config.file[0]))
    else:
        pairs = iter(PairFiles(config.file, config.src, config.tgt))
    done = failed = 0
    for (source, text), score in distributed.share_out(pairs, partial(_scores, model, config.batch_size)):
        done += 1
        if isinstance(score, PictureError):
            failed += 1
            notify(str(score))
            continue
        perplexity = math.exp(min(-score.log_prob / max(score.num_tokens, 1), 700.0))
        if config.json:
            record = {"log_prob": score.log_prob, "perplexity": perplexity, "num_tokens": score.num_tokens}
            source_field = {} if source is None else {"source": source}
            print(json.dumps({**record, **source_field, "text": text}, ensure_ascii=False))
        else:
            column = "" if source is None else f"\t{source}"
            print(f"{score.log_prob:.4f}\t{perplexity:.4f}{column}\t{text}")
    return 0 if not failed else 2 if failed == done else 1


def _scores(model: Model, batch_size: int, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Score | PictureError]]:
    """Each pair with its score, or why its picture cannot be used."""
    source = iter(pairs)
    while batch := list(islice(source, batch_size)):
        about = None if batch[0][0] is None else [item for item, _ in batch]
        try:
            scores = model.score([_as_learned(model, text) for _, text in batch], about)
        except PictureError as error:
            if len(batch) == 1:
                yield batch[0], error
            else:  # the others are none the worse for it
                yield from _scores(model, 1, batch)
            continue
        yield from zip(batch, scores, strict=True)


def _as_learned(model: Model, text: str) -> str:
    """A text as the model's training had it: captions are lower-case words, unless asked otherwise; translations
    are lower-case where that was asked for."""
    training = model.info.training
    if model.info.task == "caption" and not training.get("data", {}).get("verbatim"):
        return plain_caption(text)
    return text.lower() if _is_lowercase(model) else text


def _is_lowercase(model: Model) -> bool:
    """Whether it translates into lower case."""
    return model.info.task == "translate" and bool(model.info.training.get("pairs", {}).get("lowercase"))


def evaluate_command(argv: list[str], command: str) -> int | None:
    """`gen evaluate RUN`. Returns 1 if some pictures or captions could not be used."""
    config = parse_command(EvaluateConfig, argv, command, repeat=False)
    model = Model.load(config.run, pick_device(config.device))
    config.check(model.info.task)
    if model.info.task == "caption":
        return _evaluate_captions(model, config)
    (_evaluate_translation if model.info.task == "translate" else _evaluate_text)(model, config)
    return None


def _evaluate_text(model: Model, config: EvaluateConfig) -> None:
    if config.data:
        unit = "line" if model.info.ends_with_eos else "stream"
        figures = evaluate_files(model, TextFiles(config.data, config.encoding_errors), unit)
    else:
        figures = evaluate_held_out(model)
    if config.json:
        print(json.dumps(figures))
    else:
        display.console.print(display.metrics_table({config.run: figures}))


def _evaluate_translation(model: Model, config: EvaluateConfig) -> None:
    pairs = list(PairFiles([config.src, config.ref])) if config.src else held_out_pairs(model)
    if not any(reference.strip() for _, reference in pairs):
        raise UserError(f"{config.ref or config.run}: holds nothing but empty lines")
    runs = {config.run: model}
    if config.compare:
        runs[config.compare] = load_model(config.compare, config.device, task="translate")
    tune_cpu()
    lowercase = config.lowercase or any(map(_is_lowercase, runs.values()))
    sources, references = [a for a, _ in pairs], [b.lower() if lowercase else b for _, b in pairs]
    translations = {name: translate_texts(run, sources, config) for name, run in runs.items()}
    names = ("bleu", "chrf", "ter")
    figures = {
        name: translation_metrics(texts, references, names=names, lowercase=lowercase)
        for name, texts in translations.items()
    }
    p_values = {}
    if config.compare:
        p_values = paired_bootstrap(*translations.values(), references, names=names, lowercase=lowercase)
    if config.json:
        compared = {"compare": figures[config.compare], "p_value": p_values} if config.compare else {}
        print(json.dumps({**figures[config.run], **compared}))
        return
    for name, scores in figures.items():
        display.show_scores(name, scores)
    if p_values:
        display.console.print(
            display.table(
                "Probability that the difference is chance (paired bootstrap)",
                {name: f"{value:.4f}" for name, value in p_values.items()},
            )
        )


def _evaluate_captions(model: Model, config: EvaluateConfig) -> int:
    dropped: list[str] = []
    if config.images or config.captions:
        found = read_captions(config.images, config.captions)
        chosen = found.pictures if config.split == "all" else found.split(config.split)
        dropped = found.dropped
        for line in dropped:
            notify(f"left out: {line}")
    else:
        chosen = held_out_pictures(model)
    tune_cpu()
    search = {"batch_size": config.batch_size, **config.search.given()}
    described = list(caption_pictures(model, [c.picture for c in chosen], **search))
    for caption in described:
        if caption.error:
            notify(f"left out: {caption.error}")
    kept = [(d.hypotheses[0].text, c.captions) for d, c in zip(described, chosen, strict=True) if d.hypotheses]
    if not kept:
        raise UserError(f"{config.captions or config.run}: no pictures are left to judge by")
    figures = caption_metrics([text for text, _ in kept], [references for _, references in kept])
    if config.json:
        print(json.dumps({**figures, "pictures": len(kept)}))
    else:
        display.show_captions(f"{config.run}, {len(kept):,} pictures", figures)
    return int(len(kept) < len(chosen) or bool(dropped))


def translate_texts(model: Model, sources: Sequence[str], config: EvaluateConfig) -> list[str]:
    """The best translation of each text."""
    found = translate_lines(model, sources, batch_size=config.batch_size, **config.search.given())
    return [t.hypotheses[0].text if t.hypotheses else "" for t in found]


def info_command(argv: list[str], command: str) -> None:
    """`gen info RUN`."""
    config = parse_command(InfoConfig, argv, command)
    model = Model.load(config.run)
    rows = _facts(model)
    if config.json:
        print(json.dumps(rows))
        return
    display.console.print(display.table(config.run, rows))
    dtype = next(model.parameters()).dtype
    display.console.print(display.model_summary(model, dtype))


def _facts(model: Model) -> dict[str, Any]:
    training = model.info.training
    return {
        "task": model.info.task,
        "unit": "sequences that end by themselves" if model.info.ends_with_eos else "a stream of text",
        "vocabulary": f"{len(model.tokenizer):,} ({model.tokenizer.kind})",
        "parameters": sum(p.numel() for p in model.parameters()),
        "budget": training.get("train", {}).get("budget", TrainOptions.budget),
        "command": training.get("command", ""),
        "search": ", ".join(f"{k} {v}" for k, v in model.info.search.items()),
        **model.info.metrics,
    }
