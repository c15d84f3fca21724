"""`gen translate`: translation with a model or an ensemble."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from gen.base import distributed
from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, UserError, notify, one_line
from gen.base.fields import Arg, flag
from gen.base.lines import output, read_lines, suffix
from gen.inputs.processors import PictureProcessor, SentenceProcessor
from gen.runtime import Runtime, is_exported
from gen.search import SearchOptions
from gen.search.confidence import confidence_record
from gen.search.datastore import Datastore
from gen.search.ensemble import Ensemble
from tasks.commands.confidence import check_calibrated, coloured, in_colour, rated
from tasks.commands.large import LargeJob
from tasks.commands.memory import MemoryOptions
from tasks.commands.models import Precision, encoding_errors, labels_of, load_model, record, spelled
from tasks.commands.must import unsaid, with_must
from tasks.translate.documents import FORMATS, Document
from tasks.translate.lines import Translation, translate_lines
from tasks.translate.terms import Terms, read_lexicon

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model


@dataclass(frozen=True)
class TranslateCommand:
    """Translate text line by line with a trained model."""

    COMMON: ClassVar = ("input", "output", "text", "beam", "n_best", "json")

    run: Annotated[tuple[str, ...], Arg("RUN", positional=True)]
    """Folder of a run, model or exported model, or hf:USER/NAME; several form an ensemble."""
    input: Annotated[str, Arg(aliases=("-i",))] = "-"
    """Text to translate, one line each; - for standard input. Of a document (.srt, .vtt, .ass, .po, .xliff, .html,
    .md) the texts are translated, and all else stays as it is."""
    output: Annotated[str, Arg(aliases=("-o",))] = "-"
    """Output file; - for standard output."""
    text: tuple[str, ...] = ()
    """Translate this instead of --input."""
    image: tuple[str, ...] = ()
    """Pictures to look at, for a model trained with --image: one per such input."""
    context: tuple[str, ...] = ()
    """Further sentences to read, for a model trained with --context: one per such input."""
    given: tuple[str, ...] = ()
    """Labels, for a model trained with --given: a label, or COLUMN=LABEL where there are several columns."""
    must_each: str = ""
    """File in step with the input: what each translation must say besides --must, divided by tabs."""
    terms: str = ""
    """Table of two columns, a term of the source and the forms of its translation, one of which must come: town
    hall, Rathaus|Stadthaus. Terms with capitals respect case."""
    retranslate: bool = False
    """Of .po and .xliff translate also what has a translation."""
    lexicon: str = ""
    """Table of two columns, word and translation: for --replace-unk, what is written instead of the word."""
    sample: bool = False
    """Sample instead of beam search."""
    scores: bool = False
    """Print the log-probability and a tab before each translation. --n-best sorts by it, divided by
    ((5 + tokens) / 6) ^ --length-penalty."""
    alignments: bool = False
    """Print a tab and word alignments after each translation: source-target by attention, from 0: 0-0 2-1."""
    confidence: bool = False
    """Print how good each translation probably is, 0 to 1, and a tab before it; colour doubtful words on a
    terminal. With --json also the probability of each word to be right."""
    below: float | None = None
    """List only what a person should look at: translations of a lower confidence, one per line: number of the
    line, confidence, source and translation, divided by tabs."""
    json: bool = False
    """Print one JSON object per line: line, source, translations with text, score (log-probability), finished,
    tokens, alignment; for samples also seed and temperature; with --memory the pairs most like the line."""
    batch_size: int = 64
    """Lines per batch; with 1 each is translated before the next is read."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "fp32"
    """Number format of matrix products; bf16 is faster for large batches."""
    search: SearchOptions = field(default_factory=SearchOptions)
    large: LargeJob = field(default_factory=LargeJob)
    remember: MemoryOptions = field(default_factory=MemoryOptions)

    def options(self) -> dict[str, Any]:
        """The search options. Raises `ConfigError` with all errors."""
        errors = []
        if not self.run:
            errors.append("name the folder of a run: gen translate RUN")
        if self.text and self.input != "-":
            errors.append("--text and --input exclude each other")
        errors += encoding_errors("--text", self.text) + encoding_errors("--context", self.context)
        if self.json and (self.scores or self.alignments):
            errors.append("--json includes scores and alignments: leave out --scores and --alignments")
        errors += range_errors(self, ("batch_size",)) + self.remember.errors()
        names = ("text", "image", "must_each", "scores", "alignments", "json", "confidence", "below")
        errors += self.large.errors(self.output, [self.input], {name: getattr(self, name) for name in names})
        if self.lexicon and not self.search.replace_unk:
            errors.append("--lexicon goes with --replace-unk")
        given = self.search.given()
        errors += self._document_errors()
        if self.below is not None:
            if not 0 <= self.below <= 1:
                errors.append(f"--below must be between 0 and 1, not {self.below}")
            further = {name: given.get(name, 1) > 1 for name in ("n_best", "num_samples")}
            others = {"scores": self.scores, "alignments": self.alignments, **further}
            for other in (flag(name) for name, on in others.items() if on and not self.json):
                errors.append(f"--below lists one translation per line, with its confidence: leave out {other}")
        if self.sample:
            if beam := sorted({"beam", "strategy", "must"} & set(given)):
                errors.append(f"--sample and --{beam[0]} exclude each other: choose one way to search")
            if "n_best" in given:
                errors.append("--n-best is for --beam: --sample writes --num-samples")
            given.setdefault("temperature", 1.0)
        if errors:
            raise ConfigError(errors)
        return given

    @property
    def is_document(self) -> bool:
        """Whether the input is a document, and no lines."""
        return not self.text and suffix(self.input) in FORMATS

    def _document_errors(self) -> list[str]:
        if not self.is_document:
            return ["--retranslate goes with a document, such as .po"] if self.retranslate else []
        names = ("json", "scores", "alignments", "must_each", "confidence")
        unfit = [name for name in names if getattr(self, name)]
        unfit += ["below"] if self.below is not None else []
        unfit += [name for name in ("protect", "replace_unk") if name in self.search.given()]
        unfit += ["ray"] if self.large.ray else []
        errors = [f"--{name.replace('_', '-')} is for lines, and {self.input} is a document" for name in unfit]
        kind, other = suffix(self.input), suffix(self.output)
        if other in FORMATS and other != kind:
            errors.append(f"--output {self.output}: a document stays what it is, {kind}")
        return errors


def large_work(
    config: TranslateCommand, options: dict[str, Any]
) -> Callable[[list[str]], Iterator[dict[str, Any]]]:
    """What a worker of ``--ray`` does with lines."""
    model = load_ensemble(config.run, config.device, config.precision, threads=1)
    config.remember.give(model)
    further = further_inputs(model, (), config.context, config.given)
    terms = Terms(config.terms, model.tokenizer) if config.terms else None

    def work(lines: list[str]) -> Iterator[dict[str, Any]]:
        items = ({"sentence": line, **further} if further else line for line in lines)
        for found in translate_lines(model, items, batch_size=config.batch_size, terms=terms, **options):
            missing = (
                [t for t in found.hypotheses[0].missing if t not in (terms or ())] if found.hypotheses else ()
            )
            error = {"error": str(unsaid("--must", missing[0]))} if missing else {}
            yield {"source": found.source, **error, "translations": [record(h) for h in found.hypotheses]}

    return work


def translate_command(argv: list[str], command: str) -> int:
    """`gen translate RUN…`. Returns 1 if some rows of a large job failed and 2 if all did."""
    config = parse_command(TranslateCommand, argv, command, repeat=True)
    options = config.options()
    if config.large.ray:
        return config.large.run(
            partial(large_work, config, options),
            [config.input],
            config.output,
            pictures=False,
            batch_size=config.batch_size,
            record={"run": config.run, "options": options, "terms": config.terms, "given": config.given},
        )
    distributed.start()
    model = load_ensemble(config.run, config.device, config.precision)
    config.remember.give(model)
    if config.confidence or config.below is not None:
        check_calibrated(model, config.run[0], "--below" if config.below is not None else "--confidence")
    chosen = SearchOptions.make(model.search_defaults, options)
    for remark in chosen.remarks():
        notify(remark)
    if config.is_document and chosen.num_outputs > 1:
        raise UserError(
            f"{config.input} is a document, whose texts get one translation each, not {chosen.num_outputs}"
        )
    known = partial(model.processors["sentence"].known, unknown=chosen.unknown or "replace")
    further = further_inputs(model, config.image, config.context, config.given)
    document = Document(config.input, config.retranslate) if config.is_document else None
    lines: Iterable[Any] = config.text or (document.texts if document else read_lines(config.input))
    if chosen.unknown == "error" and not config.text:
        lines = spelled(config.input, known, document.numbered if document else None)
    elif chosen.unknown == "skip" and not chosen.kinds:
        # Before sentences are split, so that alignments count the words that are left.
        lines = map(known, lines)
    if further:
        lines = ({"sentence": line, **further} for line in lines)
    if config.must_each:
        lines = with_must(lines, config.must_each, "sentence", model.tokenizer)
    terms = Terms(config.terms, model.tokenizer) if config.terms else None
    talking = config.batch_size == 1 or (config.input == "-" and not config.text and sys.stdin.isatty())
    blocks: Iterable[Iterable[Any]] = ([line] for line in lines) if talking else [lines]
    width = chosen.num_outputs
    translate = partial(
        translate_lines,
        model,
        batch_size=config.batch_size,
        attention=config.alignments or config.json or document is not None,
        terms=terms,
        **({"lexicon": read_lexicon(config.lexicon)} if config.lexicon else {}),
        **options,
    )
    remarks = _Remarks(config, terms)
    store = model.datastore if config.json else None
    if store and not find_spec("rapidfuzz"):
        notify("--json: pairs of the memory like a line need rapidfuzz: pip install 'gen-toolkit[memory]'")
        store = None
    with output(config.output) as file:
        found = (each for block in blocks for each in distributed.share_out(block, translate))
        number = listed = 0
        if document:
            numbered = remarks.added(zip(document.lines, found, strict=True))
            file.writelines(document.translated(model, (each for _, each in numbered)))
        else:
            for number, each in remarks.added(enumerate(found, 1)):
                written = _written(number, each, config, width, store)
                listed += bool(written)
                file.write(written)
                file.flush()
    remarks.close()
    if config.below is not None and distributed.is_main():
        notify(f"--below {config.below:g}: {listed:,} of {number:,} lines")
    return 0


def _written(
    number: int, found: Translation, config: TranslateCommand, width: int, store: Datastore | None
) -> str:
    """What is written about a line: nothing where --below is not interested in it."""
    if config.below is not None:
        sure = found.hypotheses[0].confidence if found.hypotheses else None
        if sure is None or sure >= config.below:
            return ""
        if not config.json:
            return _to_look_at(number, found, config)
    if config.json:
        return json.dumps(_record(number, found, config, store), ensure_ascii=False) + "\n"
    return _plain(found, config, width)


class _Remarks:
    """Messages about lines, from the main process."""

    def __init__(self, config: TranslateCommand, terms: Terms | None) -> None:
        self.terms, self.without_term = terms or (), 0
        self.expects_links = config.alignments
        self.expects_ends = config.search.max_new_tokens is None
        self.unfinished: list[int] = []

    def added(self, numbered: Iterable[tuple[int, Translation]]) -> Iterator[tuple[int, Translation]]:
        """Translations with the numbers of their lines; `add` has seen them."""
        for number, found in numbered:
            self.add(number, found)
            yield number, found

    def add(self, number: int, found: Translation) -> None:
        """Prints messages about line ``number``, except those that `close` prints for all lines.

        Raises:
            UserError: the translation does not say what it must.
        """
        if not found.hypotheses or not distributed.is_main():
            return
        for text in found.hypotheses[0].missing:
            if text not in self.terms:
                raise unsaid(f"line {number}", text)
            notify(f"line {number}: --terms: the translation does not hold {text}")
            self.without_term += 1
        if found.cut:
            notify(
                f"line {number}: a sentence is more than twice as long as any in training: it is translated in "
                "pieces"
            )
        if not found.hypotheses[0].finished:
            self.unfinished.append(number)
        if self.expects_links and found.hypotheses[0].token_ids and not found.alignments[0]:
            self.expects_links = False
            notify("--alignments: this model has no attention, so there are none")

    def close(self) -> None:
        """Prints one message each for all translations that were cut off, and that lack a term."""
        if self.without_term:
            notify(f"--terms: {self.without_term:,} could not hold")
        if self.unfinished and self.expects_ends:
            some = ", ".join(f"{n}" for n in self.unfinished[:12]) + (", …" if len(self.unfinished) > 12 else "")
            notify(f"cut off at the length limit (--max-ratio, --max-new-tokens): translations of line {some}")


def load_ensemble(
    runs: Sequence[str], device: str, precision: Precision = "fp32", threads: int = 0
) -> Model | Ensemble | Runtime:
    """Loads one model, or several as an ensemble; on the CPU if one of them is exported."""
    if device == "auto" and any(map(is_exported, runs)):
        device = "cpu"
    models = [load_model(run, device, "translate", precision, threads) for run in runs]
    return models[0] if len(models) == 1 else Ensemble(models, list(runs))


def further_inputs(
    model: Any, images: Sequence[str], context: Sequence[str], given: Sequence[str]
) -> dict[str, Any]:
    """Input name → what was given for it, in the order of the model's inputs. A picture is read once.

    Raises:
        UserError: the model has fewer such inputs, a picture cannot be read, or a label is unknown.
    """
    found: dict[str, Any] = dict(labels_of(model, given))
    kinds = {"--image": (images, PictureProcessor), "--context": (context, SentenceProcessor)}
    for option, (values, kind) in kinds.items():
        inputs = {n: p for n, p in model.processors.items() if isinstance(p, kind) and n != "sentence"}
        if len(values) > len(inputs):
            takes = f"takes {len(inputs)} of them" if inputs else f"was trained without {option}"
            raise UserError(f"{option} {values[len(inputs)]}: this model {takes}")
        pairs = zip(inputs.items(), values, strict=False)
        found |= {n: p.read([value])[0] if kind is PictureProcessor else value for (n, p), value in pairs}
    return found


def _to_look_at(number: int, found: Translation, config: TranslateCommand) -> str:
    """A line of `--below`."""
    best = found.hypotheses[0]
    text = coloured(best) if in_colour(config.output) else one_line(best.text)
    return f"{number}\t{best.confidence:.2f}\t{one_line(found.source)}\t{text}\n"


def _plain(found: Translation, config: TranslateCommand, width: int) -> str:
    """One line per hypothesis, filled up to ``width`` lines: a fixed number of lines per input."""
    lines = []
    for hypothesis, links in zip(found.hypotheses, found.alignments, strict=True):
        text = " ".join(rated(hypothesis, config.confidence, config.output).split("\n"))
        if config.scores:
            text = f"{hypothesis.score:.4f}\t{text}"
        if config.alignments:
            text += "\t" + " ".join(f"{s}-{t}" for s, t in links)
        lines.append(text + "\n")
    return "".join(lines) + "\n" * (width - len(lines))


def _record(number: int, found: Translation, config: TranslateCommand, store: Datastore | None) -> dict[str, Any]:
    near = {"memory": [match._asdict() for match in store.matches(found.source)]} if store else {}
    rates = config.confidence or config.below is not None
    return {
        "line": number,
        "source": found.source,
        **near,
        "translations": [
            record(h, tokens=len(h.log_probs), alignment=links, **(confidence_record(h) if rates else {}))
            for h, links in zip(found.hypotheses, found.alignments, strict=True)
        ],
    }
