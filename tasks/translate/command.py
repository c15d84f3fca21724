"""`gen translate`: translation with a model or an ensemble."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from gen.base import distributed
from gen.base.config import parse_command
from gen.base.errors import UserError, notify
from gen.base.lines import output, read_lines
from gen.inputs.protected import find_protected
from gen.runtime import Runtime, is_exported
from gen.search import SearchOptions
from gen.search.ensemble import Ensemble
from tasks.commands.confidence import check_calibrated
from tasks.commands.models import Precision, further_inputs, load_model, record, spelled
from tasks.commands.must import unsaid, with_must
from tasks.translate.arguments import TranslateCommand
from tasks.translate.documents import Document
from tasks.translate.lines import translate_lines
from tasks.translate.terms import Terms, read_lexicon
from tasks.translate.writing import Remarks, Writer

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model


ALWAYS_KEPT = ("placeholders", "urls", "emails")
"""What is protected in documents even without --protect."""


def translate_command(argv: list[str], command: str) -> int:
    """`gen translate RUN…`. Returns 1 if some rows of a large job failed and 2 if all did."""
    config = parse_command(TranslateCommand, argv, command, repeat=True)
    options = config.options()
    if config.large.ray:
        about = {"run": config.run, "options": options, "terms": config.terms, "given": config.given}
        about |= {"context": config.context, "neighbours": asdict(config.remember), "precision": config.precision}
        return config.large.run(
            partial(large_work, config, options),
            [config.input],
            config.output,
            pictures=False,
            batch_size=config.batch_size,
            record={**about, "lexicon": config.lexicon, "memory": config.remember.memory},
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
    document = None
    if config.is_document:
        # What is kept is carried along as tags are.
        sentence: Any = model.processors["sentence"]
        tokenizer, kinds = sentence.tokenizer, chosen.kinds or ALWAYS_KEPT
        spans = partial(find_protected, kinds=kinds, tokenizer=tokenizer)
        document = Document(config.input, config.retranslate, spans)
        options = {**options, "protect": False, "protect_only": ()}
    lines = _items(config, model, chosen, document)
    talking = config.batch_size == 1 or (config.input == "-" and not config.text and sys.stdin.isatty())
    blocks: Iterable[Iterable[Any]] = ([line] for line in lines) if talking else [lines]
    terms = Terms(config.terms, model.tokenizer) if config.terms else None
    attention = config.alignments or config.json or document is not None
    translate = _translate(config, model, options, terms, attention)
    remarks, write = Remarks(config, terms), Writer(config, chosen.num_outputs, model.datastore)
    with output(config.output) as file:
        found = (each for block in blocks for each in distributed.share_out(block, translate))
        if document:
            numbered = remarks.added(zip(document.lines, found, strict=True))
            file.writelines(document.translated(model, (each for _, each in numbered)))
        else:
            for number, each in remarks.added(enumerate(found, 1)):
                file.write(write(number, each))
                file.flush()
    remarks.close()
    write.close()
    return 0


def _items(
    config: TranslateCommand, model: Any, chosen: SearchOptions, document: Document | None
) -> Iterable[Any]:
    """What is translated, in order."""
    known = partial(model.processors["sentence"].known, unknown=chosen.unknown or "replace")
    further = further_inputs(model, config.image, config.context, config.given)
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
    return lines


def _translate(
    config: TranslateCommand, model: Any, options: dict[str, Any], terms: Terms | None, attention: bool = False
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """`translate_lines` with the options."""
    lexicon: dict[str, Any] = {"lexicon": read_lexicon(config.lexicon)} if config.lexicon else {}
    more: dict[str, Any] = {"batch_size": config.batch_size, "attention": attention, "terms": terms}
    return partial(translate_lines, model, **more, **lexicon, **options)


def large_work(
    config: TranslateCommand, options: dict[str, Any]
) -> Callable[[list[str]], Iterator[dict[str, Any]]]:
    """What a worker of ``--ray`` does with lines."""
    model = load_ensemble(config.run, config.device, config.precision, threads=1)
    config.remember.give(model)
    further = further_inputs(model, (), config.context, config.given)
    terms = Terms(config.terms, model.tokenizer) if config.terms else None
    translate = _translate(config, model, options, terms)

    def work(lines: list[str]) -> Iterator[dict[str, Any]]:
        for found in translate({"sentence": line, **further} if further else line for line in lines):
            said = found.hypotheses[0].missing if found.hypotheses else []
            missing = [text for text in said if text not in (terms or ())]
            error = {"error": str(unsaid("--must", missing[0]))} if missing else {}
            yield {"source": found.source, **error, "translations": [record(h) for h in found.hypotheses]}

    return work


def load_ensemble(
    runs: Sequence[str], device: str, precision: Precision = "fp32", threads: int = 0
) -> Model | Ensemble | Runtime:
    """Loads one model, or several as an ensemble; on the CPU if one of them is exported."""
    if device == "auto" and any(map(is_exported, runs)):
        device = "cpu"
    models = [load_model(run, device, "translate", precision, threads) for run in runs]
    return models[0] if len(models) == 1 else Ensemble(models, list(runs))
