"""The arguments of `gen caption`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from gen.base.config import range_errors
from gen.base.errors import ConfigError, flag
from gen.base.fields import Arg
from gen.search.options import SearchOptions
from tasks.commands.large import LargeJob
from tasks.commands.models import Precision, encoding_errors

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


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
    must_each: str = ""
    """File in step with the pictures: what each caption must say besides --must, divided by tabs."""
    num_captions: int = 1
    """Captions per picture: by diverse beam search, the best of --beam, or samples with --sample."""
    sample: bool = False
    """Sample instead of beam search."""
    confidence: bool = False
    """Print how good each caption probably is, 0 to 1, and a tab before it; colour doubtful words on a terminal.
    With --json also the probability of each word to be right, with --csv a further column, and --show shades
    doubtful words."""
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
    large: LargeJob = field(default_factory=LargeJob)

    def options(self) -> dict[str, Any]:
        """The search options. Raises `ConfigError` with all errors."""
        given = self.decoding.given()
        errors = range_errors(self, ("batch_size", "num_captions", "top"))
        alone = ("stdin", "must_each", "json", "csv", "sidecar", "xmp", "xmp_copies", "search", "show")
        only = {name: getattr(self, name) for name in (*alone, "confidence")}
        errors += self.large.errors(self.output, self.pictures, only)
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
        errors += encoding_errors("--search", [self.search])
        if self.search:
            several = {"num_captions": self.num_captions > 1, "sample": self.sample, "must_each": self.must_each}
            several |= {"confidence": self.confidence}
            others = [flag(name) for name, on in {**writes, **several, **given}.items() if on]
            if others:
                errors.append(f"--search writes no captions, and does not go with {', '.join(others)}")
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
