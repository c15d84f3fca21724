"""The arguments of `gen translate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from gen.base.config import range_errors
from gen.base.errors import ConfigError, flag
from gen.base.fields import Arg
from gen.base.lines import is_markup, suffix
from gen.base.tables import TABLES
from gen.search import SearchOptions
from tasks.commands.large import LargeJob
from tasks.commands.memory import MemoryOptions
from tasks.commands.models import Precision, encoding_errors
from tasks.translate.documents import FORMATS

_UNREAD = (".tmx", ".ttml", ".sbv", ".properties", ".strings", ".sdlxliff", ".docx", ".odt", ".pdf")
"""Documents that would pass for lines, or that no text is in."""


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
    """Print the chrF to be expected of each translation, 0 to 1, and a tab before it; colour doubtful words on a
    terminal. With --json also the probability of each word to be right."""
    below: float | None = None
    """List only what a person should look at: translations of a lower confidence (0 to 1), one per line: number of
    the line, confidence, source and translation, divided by tabs."""
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
        errors += self._document_errors() + self._input_errors()
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

    def _input_errors(self) -> list[str]:
        """What is neither lines nor a document would be translated tags and all."""
        kind = suffix(self.input)
        if self.text or self.input == "-" or kind in FORMATS:
            return []
        if kind in TABLES and kind not in _UNREAD:
            remedy = "write the column to translate to a .txt, a line per cell"
            return [] if self.large.ray else [f"--input {self.input}: is a table: {remedy}"]
        if kind in _UNREAD or is_markup(self.input):
            read = ", ".join(FORMATS)
            return [f"--input {self.input}: is no document that is read: {read} are; or write its texts to a .txt"]
        return []

    def _document_errors(self) -> list[str]:
        if not self.is_document:
            return ["--retranslate goes with a document, such as .po"] if self.retranslate else []
        names = ("json", "scores", "alignments", "must_each", "confidence")
        unfit = [name for name in names if getattr(self, name)]
        unfit += ["below"] if self.below is not None else []
        unfit += ["replace_unk"] if self.search.replace_unk else []
        unfit += ["ray"] if self.large.ray else []
        errors = [f"{flag(name)} is for lines, and {self.input} is a document" for name in unfit]
        kind, other = suffix(self.input), suffix(self.output)
        if other in FORMATS and other != kind:
            errors.append(f"--output {self.output}: a document stays what it is, {kind}")
        return errors
