"""`gen translate`: a trained model, or several of them, translate."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from gen import distributed
from gen.config import parse_command
from gen.ensemble import Ensemble
from gen.errors import ConfigError, UserError, complain
from gen.runtime import Runtime, is_exported
from gen.search import Hypothesis, SearchOptions
from tasks.generate import Precision, load_model, read_lines

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.model import Model


@dataclass(frozen=True)
class TranslateCommand:
    """Translate lines of text."""

    run: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, of a model, or of an exported model; several make an ensemble."""
    input: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "-"
    """Lines to translate; - for standard input."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = "-"
    """Where to write; - for standard output."""
    text: tuple[str, ...] = ()
    """Translate this instead of an input; may be repeated."""
    sample: bool = False
    """Sample instead of searching for the best."""
    scores: bool = False
    """The log-probability before each translation, and a tab."""
    alignments: bool = False
    """After each translation a tab and which source word (from 0) each of its words looked at most: 0-0 2-1."""
    json: bool = False
    """A JSON object a line: line, source, translations with text, score, finished, alignment."""
    batch_size: int = 64
    """Lines at a time; with 1 each is answered before the next is read."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "fp32"
    """Of the matrix products; bf16 is faster for many rows at once."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def options(self) -> dict[str, Any]:
        """The search options. Raises `ConfigError` with every error at once."""
        errors = []
        if not self.run:
            errors.append("name the folder of a run: gen translate RUN")
        if self.text and self.input != "-":
            errors.append("--text and --input exclude each other: lines come from one place")
        if any("\udc80" <= c <= "\udcff" for text in self.text for c in text):
            errors.append("--text: is not UTF-8")  # bytes that Python could not read from the command line
        if self.json and (self.scores or self.alignments):
            errors.append("--json has scores and alignments in it: leave out --scores and --alignments")
        if self.batch_size < 1:
            errors.append(f"--batch-size must be at least 1, not {self.batch_size}")
        given = self.search.given()
        if self.sample:
            if beam := sorted({"beam", "strategy"} & set(given)):
                errors.append(f"--sample and --{beam[0]} exclude each other: choose one way to search")
            if "n_best" in given:
                errors.append("--n-best is for --beam: --sample writes --num-samples")
            given.setdefault("temperature", 1.0)
        if errors:
            raise ConfigError(errors)
        return given


@dataclass
class Translation:
    """What became of a line.

    Attributes:
        source: the line.
        hypotheses: best first; none for an empty line.
        alignments: a list of (source word, target word) a hypothesis, where attention was asked for.
        cut: a sentence of it had to be cut.
    """

    source: str
    hypotheses: list[Hypothesis]
    alignments: list[list[tuple[int, int]]]
    cut: bool = False


def translate_lines(
    model: Model | Ensemble | Runtime,
    lines: Iterable[str],
    *,
    batch_size: int = 64,
    attention: bool = False,
    **options: Any,
) -> Iterator[Translation]:
    """Translates any number of lines; yields in their order, as soon as it is ready.

    A line that is longer than what the encoder was usually trained on is translated in pieces; see `split_line`.
    A forced prefix is that of the line, not of its pieces.
    """
    waiting: deque[tuple[str, list[list[str]], int]] = deque()
    many = partial(model.generate_many, batch_size=batch_size, attention=attention)
    alone = {name: value for name, value in options.items() if name != "prefix"}

    def pieces() -> Iterator[str]:
        for line in lines:
            sentences = split_line(model.reader, line.strip())
            parts = [part for sentence in sentences for part in sentence]
            at_first = parts[:1] if alone != options else parts
            waiting.append((line, sentences, len(at_first)))
            yield from at_first

    done: list[list[Hypothesis]] = []
    for hypotheses in many(pieces(), **options):
        done.append(hypotheses)
        while waiting and len(done) >= waiting[0][2]:
            line, sentences, count = waiting.popleft()
            parts = [part for sentence in sentences for part in sentence]
            yield _join(model, line, sentences, [*done[:count], *many(parts[count:], **alone)])
            del done[:count]
    for line, *_ in waiting:  # empty ones at the end
        yield Translation(line, [], [])


_SENTENCE_ENDS = r"(?<=[.!?…])\s+|(?<=[。！？])"
_PAUSES = r"(?<=[,;:—])\s+|(?<=[，；：、])"


def split_line(reader: Any, line: str) -> list[list[str]]:
    """A line as sentences, and each as the pieces in which it is translated; none for an empty line.

    A network that has learned from single sentences skips some where there are several. So a line longer than
    nine in ten of the training is taken apart at its sentence ends, and neighbours are put together while they are
    no longer than that. A sentence more than twice as long as all of the training is cut: at pauses, between
    words, or anywhere.
    """
    most = 2 * reader.longest or sys.maxsize

    def split(text: str, boundary: str, limit: int) -> list[str]:
        def fits(part: str) -> bool:
            # A character is four tokens at most (bytes); only long texts have to be counted.
            return 4 * len(part) + 2 <= limit or len(reader.encode(part)) <= limit

        return [text] if fits(text) else _cut(text, boundary, fits)

    sentences = [[part] for part in split(line, _SENTENCE_ENDS, reader.usual or most)] if line else []
    for boundary in (_PAUSES, r"\s+", ""):
        sentences = [[part for piece in s for part in split(piece, boundary, most)] for s in sentences]
    return sentences


def _cut(text: str, boundary: str, fits: Callable[[str], bool]) -> list[str]:
    """A text cut at boundaries, but only where the next part would no longer fit."""
    cuts = sorted({*(match.end() for match in re.finditer(boundary, text)), len(text)})
    parts, begin = [], 0
    for cut, following in pairwise([*cuts, None]):
        if following is None or not fits(text[begin:following].strip()):
            parts.append(text[begin:cut].strip())
            begin = cut
    return [part for part in parts if part]


def _join(
    model: Model | Ensemble | Runtime, line: str, sentences: list[list[str]], found: list[list[Hypothesis]]
) -> Translation:
    """The pieces' hypotheses as the line's: the best with the best, the second with the second."""
    hypotheses, alignments = [], []
    parts = [part for sentence in sentences for part in sentence]
    for several in zip(*found, strict=False):
        links: list[tuple[int, int]] = []
        source_words = target_words = 0
        for part, hypothesis in zip(parts, several, strict=True):
            if hypothesis.attention is not None:
                pairs = align_words(model, part, hypothesis)
                links += [(s + source_words, t + target_words) for s, t in pairs]
            source_words += len(part.split())
            target_words += len(hypothesis.text.split())
        joined = (
            several[0]
            if len(several) == 1
            else Hypothesis(
                [i for h in several for i in h.token_ids],
                sum(h.score for h in several),
                [p for h in several for p in h.log_probs],
                all(h.finished for h in several),
                text=" ".join(h.text for h in several),
            )
        )
        hypotheses.append(joined)
        alignments.append(links)
    return Translation(line, hypotheses, alignments, len(parts) > len(sentences))


def align_words(model: Model | Ensemble | Runtime, source: str, hypothesis: Hypothesis) -> list[tuple[int, int]]:
    """For every word of a hypothesis the source word that had the most attention: (source, target), from 0."""
    if hypothesis.attention is None or not hypothesis.token_ids:
        return []
    source_ids = model.reader.encode(source)[:-1]
    rows = _words(model.tokenizer, hypothesis.token_ids)
    columns = _words(model.reader.tokenizer, source_ids)
    weights = np.zeros((max(rows) + 1, max(columns, default=0) + 1))
    np.add.at(weights, (np.array(rows)[:, None], np.array(columns)[None]), hypothesis.attention[:, : len(columns)])
    return [(int(weights[t].argmax()), t) for t in range(len(weights))]


def _words(tokenizer: Any, token_ids: list[int]) -> list[int]:
    """Which word (whitespace between them) of the decoded text each token belongs to, from 0."""
    found, text = [], ""
    for i in range(len(token_ids)):
        longer = tokenizer.decode(token_ids[: i + 1])
        new = longer[len(text) :]
        begins = bool(new.strip()) and (new[0].isspace() or not text or text[-1].isspace())
        found.append(max(len(text.split()) - (0 if begins else 1), 0))
        text = longer
    return found


# -- the command -----------------------------------------------------------------------------------------


def translate_command(argv: list[str], command: str) -> None:
    """`gen translate RUN…`."""
    config = parse_command(TranslateCommand, argv, command, repeat=True)
    options = config.options()
    distributed.start()
    model = load_ensemble(config.run, config.device, config.precision)
    lines: Iterable[str] = config.text or read_lines(config.input)
    talking = config.input == "-" and not config.text and sys.stdin.isatty()
    blocks: Iterable[Iterable[str]] = ([line] for line in lines) if talking else [lines]
    many = SearchOptions.make(model.search_defaults, options)
    width = (many.n_best if many.beam else many.num_samples) or 1
    translate = partial(
        translate_lines,
        model,
        batch_size=config.batch_size,
        attention=config.alignments or config.json,
        **options,
    )
    remarks = _Remarks(config)
    with output(config.output) as file:
        number = 0
        for block in blocks:
            for found in distributed.share_out(block, translate):
                number += 1
                remarks.add(number, found)
                file.write(
                    json.dumps(_record(number, found), ensure_ascii=False) + "\n"
                    if config.json
                    else _plain(found, config, width)
                )
                file.flush()
    remarks.close()


class _Remarks:
    """What is to be said about lines, beside their translations; by the main one of several processes."""

    def __init__(self, config: TranslateCommand) -> None:
        self.expects_links = config.alignments
        self.expects_ends = config.search.max_new_tokens is None
        self.unfinished: list[int] = []

    def add(self, number: int, found: Translation) -> None:
        """Says what cannot wait about line ``number``, and keeps in mind what can."""
        if not found.hypotheses or not distributed.is_main():
            return
        if found.cut:
            complain(
                f"line {number}: a sentence is more than twice as long as any seen in training: it is translated "
                "in pieces"
            )
        if not found.hypotheses[0].finished:
            self.unfinished.append(number)
        if self.expects_links and found.hypotheses[0].token_ids and not found.alignments[0]:
            self.expects_links = False
            complain("--alignments: this model has no attention, so it does not say where words come from")

    def close(self) -> None:
        """Says the rest."""
        if self.unfinished and self.expects_ends:
            some = ", ".join(f"{n}" for n in self.unfinished[:12]) + (", …" if len(self.unfinished) > 12 else "")
            complain(f"cut off at the length limit (--max-ratio, --max-new-tokens): translations of line {some}")


def load_ensemble(runs: Sequence[str], device: str, precision: Precision = "fp32") -> Model | Ensemble | Runtime:
    """One model, or several as one; with exported ones among them, all on the CPU."""
    if device == "auto" and any(map(is_exported, runs)):
        device = "cpu"
    models = [load_model(run, device, "translate", precision) for run in runs]
    return models[0] if len(models) == 1 else Ensemble(models, list(runs))


@contextmanager
def output(name: str) -> Iterator[IO[str]]:
    """A file that is there when all of it is written, or standard output for "-". Of several processes the main
    one writes."""
    if not distributed.is_main():
        yield io.StringIO()
        return
    if name == "-":
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8
        yield sys.stdout
        return
    # A device or a pipe is written to; a file is replaced, or made, at once, and a link to one stays a link.
    at_once = not Path(name).exists() or Path(name).is_file()
    path = temporary = Path(name).resolve() if at_once else Path(name)
    try:
        if at_once:
            descriptor, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            temporary = Path(made)
        else:
            descriptor = os.open(path, os.O_WRONLY)
    except OSError as error:
        raise UserError(f"--output {name}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            yield file
        if at_once:
            temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            temporary.replace(path)
    finally:
        if at_once:
            temporary.unlink(missing_ok=True)


def _plain(found: Translation, config: TranslateCommand, width: int) -> str:
    """``width`` lines, a hypothesis each, empty ones where there are fewer, so that lines stay in step."""
    lines = []
    for hypothesis, links in zip(found.hypotheses, found.alignments, strict=True):
        text = " ".join(hypothesis.text.split("\n"))
        if config.scores:
            text = f"{hypothesis.score:.4f}\t{text}"
        if config.alignments:
            text += "\t" + " ".join(f"{s}-{t}" for s, t in links)
        lines.append(text + "\n")
    return "".join(lines) + "\n" * (width - len(lines))


def _record(number: int, found: Translation) -> dict[str, Any]:
    return {
        "line": number,
        "source": found.source,
        "translations": [
            {"text": h.text, "score": h.score, "finished": h.finished, "alignment": links}
            for h, links in zip(found.hypotheses, found.alignments, strict=True)
        ],
    }
