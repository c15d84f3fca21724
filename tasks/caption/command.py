"""`gen caption`: a trained model describes pictures."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from gen.base import distributed
from gen.base.config import parse_command
from gen.base.errors import ConfigError, UserError, notify
from gen.base.fields import Arg
from gen.base.lines import output
from gen.inputs.pictures import PictureError, ahead, find_pictures
from gen.inputs.processors import PictureProcessor
from gen.runtime import Runtime
from gen.search import Hypothesis
from gen.search.options import SearchOptions
from tasks.commands.models import Precision, load_model

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model


@dataclass(frozen=True)
class CaptionCommand:
    """Describe pictures."""

    COMMON: ClassVar = ("output", "num_captions", "beam", "json", "csv", "sidecar", "show")

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run, of a model, or of an exported model."""
    pictures: Annotated[tuple[str, ...], Arg("PICTURE", positional=True)] = ()
    """Files, and folders of them."""
    stdin: bool = False
    """Read the pictures' paths from standard input, one a line."""
    num_captions: int = 1
    """This many captions a picture: by diverse beam search, the best of --beam, or samples with --sample."""
    sample: bool = False
    """Sample instead of searching for the best."""
    json: bool = False
    """A JSON object a picture: image, captions with text and score."""
    csv: bool = False
    """CSV with a header: image, caption, score; a row a caption."""
    sidecar: bool = False
    """Write each picture's caption into a .txt beside it, where there is none yet."""
    overwrite: bool = False
    """With --sidecar: also where there is one."""
    show: str = ""
    """Write a page with the pictures and their captions to this .html file."""
    output: Annotated[str, Arg(aliases=("-o",))] = "-"
    """Where to write; - for standard output."""
    batch_size: int = 64
    """Pictures at a time."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "auto"
    """Of the matrix products; auto: bfloat16 where the hardware is fast in it, as the CNN always computes."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def options(self) -> dict[str, Any]:
        """The search options. Raises `ConfigError` with every error at once."""
        given = self.search.given()
        checks = [
            (not self.pictures and not self.stdin, "name pictures, or folders of them: gen caption RUN photo.jpg"),
            (
                bool(self.pictures) and self.stdin,
                "--stdin and PICTURE exclude each other: name pictures one way",
            ),
            (self.json and self.csv, "--json and --csv exclude each other"),
            (self.batch_size < 1, f"--batch-size must be at least 1, not {self.batch_size}"),
            (self.num_captions < 1, f"--num-captions must be at least 1, not {self.num_captions}"),
            (
                not self.sample and 0 < given.get("beam", self.num_captions) < self.num_captions,
                f"--num-captions {self.num_captions} needs a --beam of as many, not {given.get('beam')}",
            ),
            (self.overwrite and not self.sidecar, "--overwrite goes with --sidecar"),
            (bool(self.show) and Path(self.show).suffix != ".html", f"--show {self.show}: name an .html file"),
            (
                bool(self.show) and not Path(self.show).parent.is_dir(),
                f"--show {self.show}: there is no folder {Path(self.show).parent}",
            ),
            (
                self.sample and bool({"beam", "strategy"} & set(given)),
                "--sample and --beam exclude each other: choose one way to search",
            ),
        ]
        if errors := [message for wrong, message in checks if wrong]:
            raise ConfigError(errors)
        if self.sample or {"temperature", "top_k", "top_p", "min_p"} & set(given):
            return {"temperature": 1.0, "num_samples": self.num_captions, **given}
        if self.num_captions > 1:
            width = given.get("beam", self.num_captions)
            # Without a width of the user's own every caption has a group to itself.
            groups = {} if "beam" in given else {"beam_groups": self.num_captions}
            return {"beam": width, "n_best": self.num_captions, **groups, **given}
        return given


@dataclass(frozen=True)
class Caption:
    """What became of a picture: hypotheses, best first, or why there are none."""

    path: Path
    hypotheses: Sequence[Hypothesis]
    error: PictureError | None = None


def caption_pictures(
    model: Model | Runtime, paths: Iterable[Path], *, batch_size: int = 64, **options: Any
) -> Iterator[Caption]:
    """Describes any number of pictures; yields in their order. The next ones are decoded while the model works.

    A picture that cannot be used does not disturb the others.
    """
    processor = model.processors.get("picture")
    if not isinstance(processor, PictureProcessor):
        raise UserError(f"a {model.info.task} model does not look at pictures")
    for batch in ahead(paths, processor.preprocessing.pixels, batch_size):
        good = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
        found = iter(model.generate(good, attention=False, **options) if good else [])
        for path, pixels in batch:
            if isinstance(pixels, np.ndarray):
                yield Caption(path, next(found))
            else:
                yield Caption(path, [], PictureError(str(pixels)))


def expand(names: Iterable[str]) -> Iterator[Path]:
    """Files as they are, folders as the pictures in them. One without any stands for itself: whoever opens it
    says what is wrong."""
    for name in names:
        path = Path(name)
        yield from (find_pictures(path) if path.is_dir() else []) or [path]


def caption_command(argv: list[str], command: str) -> int:
    """`gen caption RUN PICTURE…`. Returns 1 if some pictures failed and 2 if all did."""
    config = parse_command(CaptionCommand, argv, command, repeat=False)
    options = config.options()
    distributed.start()
    model = load_model(config.run, config.device, "caption", config.precision)
    SearchOptions.make(model.search_defaults, options)  # says what is wrong before anything is written
    if config.show:
        import tasks.report  # noqa: F401  # so does this, where only gen-runtime is installed
    names: Iterable[str] = config.pictures or _paths_on_stdin()
    shown: list[Caption] = []
    beside: set[Path] = set()
    done = failed = unwritten = 0
    with output(config.output) as file:
        if config.csv:
            file.write(_csv(["image", "caption", "score"]))
        describe = partial(caption_pictures, model, batch_size=config.batch_size, **options)
        for caption in distributed.share_out(expand(names), describe):
            done += 1
            if caption.error:
                failed += 1
                notify(str(caption.error))
            _write(file, caption, config)
            if config.sidecar and caption.hypotheses:
                unwritten += not _write_beside(caption, beside, config.overwrite)
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
    """Paths, one a line; they need not be UTF-8."""
    with open(0, "rb", closefd=False) as file:
        yield from (os.fsdecode(line.rstrip(b"\r\n")) for line in file if line.strip())


def _write(file: IO[str], caption: Caption, config: CaptionCommand) -> None:
    """A picture's lines."""
    hypotheses = caption.hypotheses
    if config.json:
        record: dict[str, Any] = {"image": str(caption.path)}
        if caption.error:
            record["error"] = str(caption.error)
        record["captions"] = [
            {"text": h.text, "score": h.score, "finished": h.finished, **h.drawn()} for h in hypotheses
        ]
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    elif config.csv:
        file.write("".join(_csv([str(caption.path), h.text, f"{h.score:.4f}"]) for h in hypotheses))
    else:
        file.write("".join(f"{caption.path}\t{h.text}\n" for h in hypotheses))
    file.flush()


def _write_beside(caption: Caption, written: set[Path], overwrite: bool) -> bool:
    """Writes the .txt beside a picture; whether that worked. ``written``: those of this run."""
    path = caption.path.with_suffix(".txt")
    if path in written:
        notify(f"{caption.path}: {path.name} is already that of another picture")
        return False
    if path.is_file() and not overwrite:
        notify(f"{path}: is already there; --overwrite replaces it")
        return False
    try:
        path.write_text(caption.hypotheses[0].text + "\n", encoding="utf-8")
    except OSError as error:
        notify(f"{path}: cannot be written ({error.strerror})")
        return False
    written.add(path)
    return True


def _csv(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _shown(name: str) -> str:
    """A file's name as it can be printed; those of old archives are not always UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def _gallery(path: Path, run: str, captions: list[Caption]) -> None:
    """A page with small copies of the pictures."""
    from tasks import report

    cards = [report.card(c.path, [h.text for h in c.hypotheses], _shown(c.path.name)) for c in captions]
    report.write_page(path, "Captions", f"{len(captions):,} pictures described by {run}.", [report.gallery(cards)])
    notify(str(path))
