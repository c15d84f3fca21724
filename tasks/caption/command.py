"""`gen caption`: captions of pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar

from gen.base import distributed
from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, UserError, notify, one_line
from gen.base.fields import Arg, flag
from gen.base.lines import output
from gen.search.options import SearchOptions
from gen.search.phrase import Fit, phrase_tokens
from tasks.caption import xmp
from tasks.caption.beside import Beside
from tasks.caption.pictures import Caption, as_captions, caption_pictures, search_pictures
from tasks.commands.models import Precision, labels_of, load_model, record


@dataclass(frozen=True)
class CaptionCommand:
    """Write captions of pictures with a trained model."""

    COMMON: ClassVar = ("output", "num_captions", "beam", "json", "csv", "sidecar", "xmp", "search", "show")

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run, model or exported model, or hf:USER/NAME."""
    pictures: Annotated[tuple[str, ...], Arg("PICTURE", positional=True)] = ()
    """Picture files, or folders of them."""
    given: tuple[str, ...] = ()
    """What kind of caption to write, for a model trained with labels: a label, such as a language."""
    stdin: bool = False
    """Read picture paths from standard input, one per line."""
    num_captions: int = 1
    """Captions per picture: by diverse beam search, the best of --beam, or samples with --sample."""
    sample: bool = False
    """Sample instead of beam search."""
    json: bool = False
    """Print one JSON object per picture: image, captions with text, score (log-probability), finished."""
    csv: bool = False
    """Print CSV with a header: image, caption, score; one row per caption. Cells that a spreadsheet would take for
    a formula begin with '."""
    sidecar: bool = False
    """Write each caption into a .txt file next to its picture, unless one exists."""
    xmp: bool = False
    """Write each caption into an XMP sidecar next to its picture, photo.jpg.xmp, as darktable and digiKam read it.
    What else a sidecar holds stays."""
    xmp_copies: Annotated[str, Arg("FOLDER")] = ""
    """Write copies of the pictures into this folder, with the captions in them as XMP and IPTC, where Lightroom
    and others read them. The pictures themselves stay as they are."""
    language: str = ""
    """Language of the captions, such as de or pt-BR, for --xmp, --xmp-copies and --show. Unset: of the label of
    --given, or of the training file (captions.de.jsonl)."""
    overwrite: bool = False
    """With --sidecar, --xmp and --xmp-copies: replace existing files and captions."""
    search: Annotated[str, Arg("WORDS")] = ""
    """Instead of captioning, rank the pictures by how well these words fit what the model sees: prints path and
    score (log-probability per token), best first."""
    top: int | None = None
    """With --search: only the best N. Unset: all."""
    show: str = ""
    """Write an HTML page with the pictures and captions to this file: a gallery with a search field."""
    output: Annotated[str, Arg(aliases=("-o",))] = "-"
    """Output file; - for standard output."""
    batch_size: int = 64
    """Pictures per batch."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "auto"
    """Number format of the decoder's matrix products. auto, as in the CNN: bfloat16 where it is fast."""
    decoding: SearchOptions = field(default_factory=SearchOptions)

    def options(self) -> dict[str, Any]:
        """The search options. Raises `ConfigError` with all errors."""
        given = self.decoding.given()
        errors = range_errors(self, ("batch_size", "num_captions", "top"))
        if not self.pictures and not self.stdin:
            errors.append("name pictures, or folders of them: gen caption RUN photo.jpg")
        if self.pictures and self.stdin:
            errors.append("--stdin and PICTURE exclude each other")
        if self.json and self.csv:
            errors.append("--json and --csv exclude each other")
        if not self.sample and 0 < given.get("beam", self.num_captions) < self.num_captions:
            errors.append(f"--num-captions {self.num_captions} needs a --beam of as many, not {given.get('beam')}")
        writes = {"sidecar": self.sidecar, "xmp": self.xmp, "xmp_copies": bool(self.xmp_copies)}
        if self.overwrite and not any(writes.values()):
            errors.append("--overwrite goes with --sidecar, --xmp and --xmp-copies")
        if self.language and not _LANGUAGE.fullmatch(self.language):
            errors.append(f"--language {self.language}: name it as in de or pt-BR")
        if self.xmp_copies and Path(self.xmp_copies).exists() and not Path(self.xmp_copies).is_dir():
            errors.append(f"--xmp-copies {self.xmp_copies}: is no folder")
        if self.top is not None and not self.search:
            errors.append("--top goes with --search")
        if self.search:
            several = {"num_captions": self.num_captions > 1, "sample": self.sample}
            others = [flag(name) for name, on in {**writes, **several, **given}.items() if on]
            if others:
                errors.append(f"--search writes no captions, and does not go with {', '.join(others)}")
        if self.show and Path(self.show).suffix != ".html":
            errors.append(f"--show {self.show}: name an .html file")
        if self.show and not Path(self.show).parent.is_dir():
            errors.append(f"--show {self.show}: there is no folder {Path(self.show).parent}")
        if self.sample and {"beam", "strategy"} & set(given):
            errors.append("--sample and --beam exclude each other: choose one way to search")
        if errors:
            raise ConfigError(errors)
        if self.sample or {"temperature", "top_k", "top_p", "min_p"} & set(given):
            return {"temperature": 1.0, "num_samples": self.num_captions, **given}
        if self.num_captions > 1:
            width = given.get("beam", self.num_captions)
            # Without --beam, each caption is a group of its own.
            groups = {} if "beam" in given else {"beam_groups": self.num_captions}
            return {"beam": width, "n_best": self.num_captions, **groups, **given}
        return given


def caption_command(argv: list[str], command: str) -> int:
    """`gen caption RUN PICTURE…`. Returns 1 if some pictures failed and 2 if all did."""
    config = parse_command(CaptionCommand, argv, command, repeat=False)
    options = config.options()
    distributed.start()
    model = load_model(config.run, config.device, "caption", config.precision)
    # Errors before anything is written.
    for remark in SearchOptions.make(model.search_defaults, options).remarks():
        notify(remark)
    if config.show:
        import tasks.report  # noqa: F401  # raises an error if only gen-runtime is installed
    if config.xmp or config.xmp_copies:
        xmp.library()
    given = labels_of(model, config.given)
    language = config.language or _language(model, given)
    beside = Beside(config.overwrite, language, Path(config.xmp_copies))
    paths = beside.noting(config.pictures or _paths_on_stdin())
    items = ({"picture": path, **given} if given else path for path in paths)
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
    config: CaptionCommand, model: Any, items: Iterable[Any], options: dict[str, Any], beside: Beside
) -> tuple[int, int, int, list[Any]]:
    """Captions the pictures. Returns how many there were, how many failed, and how many captions could not be
    written beside them; and what to show."""
    ways = ((config.sidecar, beside.text), (config.xmp, beside.sidecar), (bool(config.xmp_copies), beside.copy))
    done = failed = unwritten = 0
    shown: list[Any] = []
    with output(config.output) as file:
        if config.csv:
            file.write(_csv(["image", "caption", "score"]))
        describe = partial(caption_pictures, model, batch_size=config.batch_size, **options)
        for caption in distributed.share_out(items, describe):
            done += 1
            if caption.error:
                failed += 1
                notify(str(caption.error))
            _write(file, caption, config)
            if caption.hypotheses:
                unwritten += sum(not write(caption) for wanted, write in ways if wanted)
                if config.show:
                    shown.append((caption.path, [h.text for h in caption.hypotheses], None))
    return done, failed, unwritten, shown


def _search(config: CaptionCommand, model: Any, items: Iterable[Any]) -> tuple[int, int, list[Any]]:
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
                record_ = {"image": str(path), "score": fit.score, "caption": fit.text}
                file.write(json.dumps(record_, ensure_ascii=False) + "\n")
            elif config.csv:
                file.write(_csv([_cell(str(path)), _cell(fit.text), f"{fit.score:.4f}"]))
            else:
                file.write(f"{one_line(str(path))}\t{fit.score:.4f}\n")
    return done, failed, [(path, [fit.text], fit.score) for path, fit in found] if config.show else []


_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_CODE = re.compile(r"[a-z]{2}(-[A-Z]{2})?")


def _language(model: Any, given: Mapping[str, str]) -> str:
    """The language of the captions: of a label, where all labels are codes of languages, or that in the name of
    the training file, such as ``captions.de.jsonl``; "" if nobody knows."""
    for name, label in given.items():
        if all(map(_CODE.fullmatch, model.processors[name].tokenizer.labels)):
            return label
    files = model.info.options().get("captions")
    found = (
        re.search(r"\.([a-z]{2})\.\w+$", str(files[0])) if isinstance(files, list) and len(files) == 1 else None
    )
    return found[1] if found else ""


def _paths_on_stdin() -> Iterator[str]:
    """Paths from standard input, one per line; they need not be UTF-8."""
    with open(0, "rb", closefd=False) as file:
        yield from (os.fsdecode(line.rstrip(b"\r\n")) for line in file if line.strip())


def _write(file: IO[str], caption: Caption, config: CaptionCommand) -> None:
    """Writes the output for a picture."""
    hypotheses = caption.hypotheses
    if config.json:
        error = {"error": str(caption.error)} if caption.error else {}
        captions = [record(h) for h in hypotheses]
        found = {"image": str(caption.path), **error, "captions": captions}
        file.write(json.dumps(found, ensure_ascii=False) + "\n")
    elif config.csv:
        rows = ([_cell(str(caption.path)), _cell(h.text), f"{h.score:.4f}"] for h in hypotheses)
        file.write("".join(map(_csv, rows)))
    else:
        file.write("".join(f"{one_line(str(caption.path))}\t{h.text}\n" for h in hypotheses))
    file.flush()


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: then it begins with ', as OWASP recommends."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _csv(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
