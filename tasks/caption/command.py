"""`gen caption`: captions of pictures."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from gen.base import distributed
from gen.base.config import parse_command
from gen.base.errors import UserError, notify, one_line
from gen.base.json_files import json_line
from gen.base.lines import output
from gen.search.confidence import confidence_record
from gen.search.options import SearchOptions
from gen.search.phrase import Fit, phrase_tokens
from tasks.caption import xmp
from tasks.caption.arguments import CaptionCommand
from tasks.caption.pictures import PictureCaptions, Shown, as_captions, caption_pictures, search_pictures
from tasks.caption.side_files import SideFiles
from tasks.commands.confidence import check_calibrated, rated
from tasks.commands.models import labels_of, load_model, record
from tasks.commands.must import unsaid, with_must


def large_work(config: CaptionCommand, options: dict[str, Any]) -> Callable[[list[str]], Iterator[dict[str, Any]]]:
    """What a worker of ``--ray`` does with paths of pictures."""
    model = load_model(config.run, config.device, "caption", config.precision, threads=1)
    given = labels_of(model, config.given)

    def work(paths: list[str]) -> Iterator[dict[str, Any]]:
        items: list[Any] = [{"picture": path, **given} for path in paths] if given else paths
        for caption in caption_pictures(model, items, batch_size=config.batch_size, **options):
            missing = caption.hypotheses[0].missing if caption.hypotheses else ()
            wrong = caption.error or (unsaid("--must", missing[0]) if missing else None)
            error = {"error": str(wrong)} if wrong else {}
            yield {"image": str(caption.path), **error, "captions": [record(h) for h in caption.hypotheses]}

    return work


def caption_command(argv: list[str], command: str) -> int:
    """`gen caption RUN PICTURE…`. Returns 1 if some pictures failed and 2 if all did."""
    config = parse_command(CaptionCommand, argv, command, repeat=False)
    options = config.options()
    if config.large.ray:
        return config.large.run(
            partial(large_work, config, options),
            config.pictures,
            config.output,
            pictures=True,
            batch_size=config.batch_size,
            record={"run": config.run, "options": options, "given": config.given, "precision": config.precision},
        )
    distributed.start()
    model = load_model(config.run, config.device, "caption", config.precision)
    # Errors before anything is written.
    if config.confidence:
        check_calibrated(model, config.run)
    for remark in SearchOptions.make(model.search_defaults, options).remarks():
        notify(remark)
    if config.show:
        import tasks.report  # noqa: F401  # raises an error if only gen-runtime is installed
    if config.xmp or config.xmp_copies:
        xmp.library()
    given = labels_of(model, config.given)
    language = config.language or _language(model, given)
    beside = SideFiles(config.overwrite, language, Path(config.xmp_copies))
    paths = beside.noting(config.pictures or _paths_on_stdin())
    items: Iterable[Any] = ({"picture": path, **given} if given else path for path in paths)
    if config.must_each:
        items = with_must(items, config.must_each, "picture", model.tokenizer)
    if config.search:
        done, failed, shown = _search(config, model, items)
        unwritten = 0
    else:
        done, failed, unwritten, shown = _caption(config, model, items, options, beside)
    if not distributed.is_main():
        return 0
    if shown:
        from tasks.caption.gallery import write_gallery

        write_gallery(Path(config.show), config.run, shown, config.search, language)
        notify(config.show)
    if failed:
        notify(f"{failed:,} of {done:,} pictures could not be used")
    if not done:
        raise UserError("no pictures were named")
    return 2 if failed == done else 1 if failed or unwritten else 0


def _caption(
    config: CaptionCommand, model: Any, items: Iterable[Any], options: dict[str, Any], beside: SideFiles
) -> tuple[int, int, int, list[Shown]]:
    """Captions the pictures. Returns how many there were, how many failed, and how many captions could not be
    written beside them; and what to show."""
    ways = ((config.sidecar, beside.text), (config.xmp, beside.sidecar), (bool(config.xmp_copies), beside.copy))
    done = failed = unwritten = 0
    shown: list[Shown] = []
    with output(config.output) as file:
        if config.csv:
            file.write(_csv(["image", "caption", "score", *(["confidence"] if config.confidence else [])]))
        describe = partial(caption_pictures, model, batch_size=config.batch_size, **options)
        for caption in distributed.share_out(items, describe):
            done += 1
            if caption.error:
                failed += 1
                notify(str(caption.error))
            if caption.hypotheses and (missing := caption.hypotheses[0].missing):
                raise unsaid(str(caption.path), missing[0])
            _write(file, caption, config)
            if caption.hypotheses:
                unwritten += sum(not write(caption) for wanted, write in ways if wanted)
                if config.show:
                    lines = [h if config.confidence else h.text for h in caption.hypotheses]
                    shown.append((caption.path, lines, None))
    return done, failed, unwritten, shown


def _search(config: CaptionCommand, model: Any, items: Iterable[Any]) -> tuple[int, int, list[Shown]]:
    """Ranks the pictures. Returns how many there were, and how many failed; and what to show."""
    phrase = as_captions(model, config.search)
    try:
        phrase_tokens(model, phrase)
    except UserError as error:
        raise UserError(f"--search: {error}") from error
    done = 0
    found: list[tuple[Path, Fit]] = []
    look = partial(search_pictures, model, phrase=phrase, batch_size=config.batch_size)
    for path, fit in distributed.share_out(items, look):
        done += 1
        if isinstance(fit, Fit):
            found.append((path, fit))
        else:
            notify(str(fit))
    failed = done - len(found)
    found = sorted(found, key=lambda each: -each[1].score)[: config.top]
    with output(config.output) as file:
        if config.csv:
            file.write(_csv(["image", "caption", "score"]))
        for path, fit in found:
            if config.json:
                about = {"image": str(path), "score": fit.score, "caption": fit.text}
                file.write(json_line(about))
            elif config.csv:
                file.write(_csv([_cell(str(path)), _cell(fit.text), f"{fit.score:.4f}"]))
            else:
                file.write(f"{one_line(str(path))}\t{fit.score:.4f}\n")
    return done, failed, [(path, [fit.text], fit.score) for path, fit in found] if config.show else []


_CODE = re.compile(r"[a-z]{2}(-[A-Z]{2})?")


def _language(model: Any, given: Mapping[str, str]) -> str:
    """The language of the captions: of a label, where all labels are codes of languages, or that in the name of
    the training file, such as ``captions.de.jsonl``; "" if nobody knows."""
    for name, label in given.items():
        if all(map(_CODE.fullmatch, model.processors[name].tokenizer.labels)):
            return label
    files = model.info.options().get("captions")
    if not isinstance(files, list) or len(files) != 1:
        return ""
    found = re.search(r"\.([a-z]{2})\.\w+$", str(files[0]))
    return found[1] if found else ""


def _paths_on_stdin() -> Iterator[str]:
    """Paths from standard input, one per line; they need not be UTF-8."""
    with open(0, "rb", closefd=False) as file:
        yield from (os.fsdecode(line.rstrip(b"\r\n")) for line in file if line.strip())


def _write(file: IO[str], caption: PictureCaptions, config: CaptionCommand) -> None:
    """Writes the output for a picture."""
    hypotheses = caption.hypotheses
    if config.json:
        error = {"error": str(caption.error)} if caption.error else {}
        captions = [record(h, **(confidence_record(h) if config.confidence else {})) for h in hypotheses]
        found = {"image": str(caption.path), **error, "captions": captions}
        file.write(json_line(found))
    elif config.csv:
        for h in hypotheses:
            sure = [f"{h.confidence:.4f}"] if config.confidence else []
            file.write(_csv([_cell(str(caption.path)), _cell(h.text), f"{h.score:.4f}", *sure]))
    else:
        texts = [rated(h, config.confidence, config.output) for h in hypotheses]
        file.write("".join(f"{one_line(str(caption.path))}\t{text}\n" for text in texts))
    file.flush()


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: then it begins with ', as OWASP recommends."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _csv(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
