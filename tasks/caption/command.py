"""`gen caption`: captions of pictures."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from gen.base import distributed
from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, UserError, notify, one_line
from gen.base.fields import Arg
from gen.base.folders import write_text
from gen.base.lines import output
from gen.inputs.pictures import PictureError, ahead, find_pictures
from gen.inputs.processors import PictureProcessor
from gen.runtime import Runtime
from gen.search import Hypothesis
from gen.search.options import SearchOptions
from tasks.commands.models import Precision, labels_of, load_model, record
from tasks.commands.must import unsaid, with_must

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model


@dataclass(frozen=True)
class CaptionCommand:
    """Write captions of pictures with a trained model."""

    COMMON: ClassVar = ("output", "num_captions", "beam", "json", "csv", "sidecar", "show")

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run, model or exported model, or hf:USER/NAME."""
    pictures: Annotated[tuple[str, ...], Arg("PICTURE", positional=True)] = ()
    """Picture files, or folders of them."""
    given: tuple[str, ...] = ()
    """What kind of caption to write, for a model trained with labels: a label, such as a language."""
    stdin: bool = False
    """Read picture paths from standard input, one per line."""
    must_each: str = ""
    """File in step with the pictures: what each caption must say besides --must, divided by tabs."""
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
    overwrite: bool = False
    """With --sidecar: replace existing files."""
    show: str = ""
    """Write an HTML page with the pictures and captions to this file."""
    output: Annotated[str, Arg(aliases=("-o",))] = "-"
    """Output file; - for standard output."""
    batch_size: int = 64
    """Pictures per batch."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "auto"
    """Number format of the decoder's matrix products. auto, as in the CNN: bfloat16 where it is fast."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def options(self) -> dict[str, Any]:
        """The search options. Raises `ConfigError` with all errors."""
        given = self.search.given()
        errors = range_errors(self, ("batch_size", "num_captions"))
        if not self.pictures and not self.stdin:
            errors.append("name pictures, or folders of them: gen caption RUN photo.jpg")
        if self.pictures and self.stdin:
            errors.append("--stdin and PICTURE exclude each other")
        if self.json and self.csv:
            errors.append("--json and --csv exclude each other")
        if not self.sample and 0 < given.get("beam", self.num_captions) < self.num_captions:
            errors.append(f"--num-captions {self.num_captions} needs a --beam of as many, not {given.get('beam')}")
        if self.overwrite and not self.sidecar:
            errors.append("--overwrite goes with --sidecar")
        if self.show and Path(self.show).suffix != ".html":
            errors.append(f"--show {self.show}: name an .html file")
        if self.show and not Path(self.show).parent.is_dir():
            errors.append(f"--show {self.show}: there is no folder {Path(self.show).parent}")
        if self.sample and (beam := sorted({"beam", "strategy", "must"} & set(given))):
            errors.append(f"--sample and --{beam[0]} exclude each other: choose one way to search")
        if errors:
            raise ConfigError(errors)
        if self.sample or {"temperature", "top_k", "top_p", "min_p"} & set(given):
            return {"temperature": 1.0, "num_samples": self.num_captions, **given}
        if self.num_captions > 1:
            width = given.get("beam", self.num_captions)
            # Without --beam, each caption is a group of its own.
            groups = {} if {"beam", "must"} & set(given) or self.must_each else {"beam_groups": self.num_captions}
            return {"beam": width, "n_best": self.num_captions, **groups, **given}
        return given


@dataclass(frozen=True)
class Caption:
    """The captions of a picture: hypotheses, best first, or the error."""

    path: Path
    hypotheses: Sequence[Hypothesis]
    error: PictureError | None = None


def caption_pictures(
    model: Model | Runtime, items: Iterable[Any], *, batch_size: int = 64, **options: Any
) -> Iterator[Caption]:
    """Captions any number of pictures; yields in order. The next pictures are read while the model runs.

    A picture that cannot be read gets an error; the others are not affected.

    Args:
        model: of pictures, torch or exported.
        items: paths of pictures; for a model of several inputs, mappings with a path under "picture".
        batch_size: pictures at once.
        options: as for `generate`.
    """
    processor = model.processors.get("picture")
    if not isinstance(processor, PictureProcessor):
        raise UserError(f"a {model.info.task} model does not read pictures")

    def look(item: Any) -> np.ndarray:
        return processor.preprocessing.pixels(_path(item))

    for batch in ahead(items, look, batch_size):
        good = [
            {**item, "picture": pixels} if isinstance(item, Mapping) else pixels
            for item, pixels in batch
            if isinstance(pixels, np.ndarray)
        ]
        found = iter(model.generate(good, attention=False, **options) if good else [])
        for item, pixels in batch:
            if isinstance(pixels, np.ndarray):
                yield Caption(_path(item), next(found))
            else:
                yield Caption(_path(item), [], PictureError(str(pixels)))


def _path(item: Any) -> Path:
    return item["picture"] if isinstance(item, Mapping) else item


def expand(names: Iterable[str]) -> Iterator[Path]:
    """Replaces folders by the pictures in them. A folder without pictures stays, and is an error when opened."""
    for name in names:
        path = Path(name)
        yield from (find_pictures(path) if path.is_dir() else []) or [path]


def caption_command(argv: list[str], command: str) -> int:
    """`gen caption RUN PICTURE…`. Returns 1 if some pictures failed and 2 if all did."""
    config = parse_command(CaptionCommand, argv, command, repeat=False)
    options = config.options()
    distributed.start()
    model = load_model(config.run, config.device, "caption", config.precision)
    for remark in SearchOptions.make(
        model.search_defaults, options
    ).remarks():  # errors before anything is written
        notify(remark)
    if config.show:
        import tasks.report  # noqa: F401  # raises an error if only gen-runtime is installed
    names: Iterable[str] = config.pictures or _paths_on_stdin()
    shown: list[Caption] = []
    sidecars: set[Path] = set()
    done = failed = unwritten = 0
    with output(config.output) as file:
        if config.csv:
            file.write(_csv(["image", "caption", "score"]))
        describe = partial(caption_pictures, model, batch_size=config.batch_size, **options)
        given = labels_of(model, config.given)
        items: Iterable[Any] = ({"picture": path, **given} if given else path for path in expand(names))
        if config.must_each:
            items = with_must(items, config.must_each, "picture", model.tokenizer)
        for caption in distributed.share_out(items, describe):
            done += 1
            if caption.error:
                failed += 1
                notify(str(caption.error))
            if caption.hypotheses and (missing := caption.hypotheses[0].missing):
                raise unsaid(str(caption.path), missing[0])
            _write(file, caption, config)
            if config.sidecar and caption.hypotheses:
                unwritten += not _write_sidecar(caption, sidecars, config.overwrite)
            if config.show and caption.hypotheses:
                shown.append(caption)
    if not distributed.is_main():
        return 0
    if shown:
        _gallery(Path(config.show), config.run, shown)
    if failed:
        notify(f"{failed:,} of {done:,} pictures could not be used")
    if not done:
        raise UserError("no pictures were named")
    return 2 if failed == done else 1 if failed or unwritten else 0


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


def _write_sidecar(caption: Caption, written: set[Path], overwrite: bool) -> bool:
    """Writes the .txt next to a picture. Returns whether that worked. ``written``: files written before."""
    path = caption.path.with_suffix(".txt")
    if path in written:
        notify(f"{caption.path}: {path.name} already has the caption of another picture")
        return False
    if path.is_symlink() or (path.exists() and not path.is_file()):
        notify(f"{path}: is no file of its own; nothing is written there")
        return False
    if path.exists() and not overwrite:
        notify(f"{path}: exists; --overwrite replaces it")
        return False
    try:
        write_text(path, caption.hypotheses[0].text + "\n")
    except OSError as error:
        notify(f"{path}: cannot be written ({error.strerror})")
        return False
    written.add(path)
    return True


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: then it begins with ', as OWASP recommends."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _csv(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _shown(name: str) -> str:
    """A file name in printable form; names from old archives need not be UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def _gallery(path: Path, run: str, captions: list[Caption]) -> None:
    """Writes a page with small copies of the pictures."""
    from tasks import report

    cards = [report.card(c.path, [h.text for h in c.hypotheses], _shown(c.path.name)) for c in captions]
    report.write_page(path, "Captions", f"{len(captions):,} pictures captioned by {run}.", [report.gallery(cards)])
    notify(str(path))
