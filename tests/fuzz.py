"""Fuzzing: damaged input of every kind for every command: model folders, configurations, corpora, pictures,
checkpoints.

test_fuzz.py uses it for a few cases, soak.py for thousands.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.cli import main
from tests import faults

HANG = 60  # seconds; every command on these small files takes less


@dataclass(frozen=True)
class Case:
    """A command on a damaged file.

    Attributes:
        name: the kind of file that is damaged.
        files: a glob relative to the prepared folder; one of these files is damaged.
        argv: the command; ``{}`` is replaced by the copy of the folder.
        output: a file that must be complete or absent afterwards; "" for none.
    """

    name: str
    files: str
    argv: tuple[str, ...]
    output: str = ""


DRY = ("--dry-run", "--device", "cpu", "--precision", "fp32", "--out", "{}/out")
TINY = ("--hidden-size", "16", "--embedding-size", "8")
CASES = (
    Case("text model", "text/best/*", ("generate", "{}/text/best", "--max-new-tokens", "5", "--seed", "1")),
    Case("text model", "text/best/*", ("score", "{}/text/best", "{}/lines.txt")),
    Case("text model", "text/best/*", ("info", "{}/text/best")),
    Case(
        "translation model",
        "translate/best/*",
        (
            "translate",
            "{}/translate/best",
            "-i",
            "{}/lines.txt",
            "-o",
            "{}/translated.txt",
            "--max-new-tokens",
            "8",
        ),
        "translated.txt",
    ),
    Case(
        "caption model",
        "captions/best/[cRt]*",  # without the weights of the CNN: 14 MB to copy, and read like all others
        (
            "caption",
            "{}/captions/best",
            "{}/pictures/train-00000.png",
            "-o",
            "{}/captions.txt",
            "--max-new-tokens",
            "8",
        ),
        "captions.txt",
    ),
    Case(
        "picture",
        "pictures/train-00000.png",
        ("caption", "{}/captions", "{}/pictures/train-00000.png", "{}/a.gif"),
    ),
    Case("picture", "photo.*", ("caption", "{}/captions", "{}/photo.jpg", "{}/photo.webp", "{}/photo.tiff")),
    Case("corpus", "book.txt", ("train", "text", "--data", "{}/book.txt", *DRY, *TINY)),
    Case("pairs", "train.*", ("train", "translate", "--train", "{}/train.src", "{}/train.tgt", *DRY, *TINY)),
    Case("table", "pairs.tsv", ("train", "translate", "--data", "{}/pairs.tsv", *DRY, *TINY)),
    Case("table", "pairs.csv", ("train", "translate", "--data", "{}/pairs.csv", *DRY, *TINY)),
    Case("table", "pairs.jsonl", ("train", "translate", "--data", "{}/pairs.jsonl", *DRY, *TINY)),
    Case("captions", "pictures/captions.jsonl", ("train", "caption", "--images", "{}/pictures", *DRY, *TINY)),
    Case(
        "options", "options.yaml", ("train", "text", "--config", "{}/options.yaml", *DRY, "--data", "{}/book.txt")
    ),
    Case("checkpoint", "run/[lp]*/*", ("train", "text", "--data", "BOOK", "--out", "{}/run", *faults.TEXT)),
    Case("run folder", "run/*.*", ("train", "text", "--data", "BOOK", "--out", "{}/run", *faults.TEXT)),
    Case("run folder", "run/*.*", ("compare", "{}/run", "{}/text")),
)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The bytes with random damage."""
    at = rng.randrange(len(data) + 1)
    some = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 40))))
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: data[:at],
        lambda: data[:at] + data[at + rng.choice((1, 8, 400)) :],
        lambda: data[:at] + some + data[at:],
        lambda: data[:at] + some + data[at + len(some) :],
        lambda: data[:at] + bytes(rng.choice((1, 64))) + data[at:],
        lambda: data + data[at:],
        lambda: some,
        lambda: b"",
        lambda: _other_number(data, rng),
    )
    return rng.choice(ways)()


def _other_number(data: bytes, rng: random.Random) -> bytes:
    """Replaces a digit by another number: damage that text formats do not detect."""
    places = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
    if not places:
        return data[::-1]
    at = rng.choice(places)
    number = rng.choice((b"0", b"-1", b"1e9", b"99999999999", b"7", b"nan"))
    return data[:at] + number + data[at + 1 :]


def desk(folder: Path) -> None:
    """Prepares the undamaged files in ``folder``: trained models of every task, data, pictures."""
    from PIL import Image

    commands = faults.commands(folder)
    trainings = faults.Trainings(folder / "cache")
    for kind, name in (("text", "text"), ("translate", "translate"), ("caption", "captions")):
        assert trainings.finish(commands[kind], folder / name) == 0
    # A training that has not reached its end.
    trainings.finish(commands["text"], folder / "run", "step:50")
    (folder / "lines.txt").write_text("abc\n\nfed cab\n")
    rows = list(zip(*((folder / f"train.{s}").read_text().split("\n")[:40] for s in ("src", "tgt")), strict=True))
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in rows))
    (folder / "pairs.csv").write_text("source,target\n" + "".join(f'"{a}",{b}\n' for a, b in rows))
    (folder / "pairs.jsonl").write_text("".join(f'{{"source": "{a}", "target": "{b}"}}\n' for a, b in rows))
    (folder / "options.yaml").write_text(
        "data:\n  level: char\n  chunk: 16\n  batch_size: 2\n"
        "model:\n  hidden_size: 16\n  embedding_size: 8\n  cell: gru\n"
        "train:\n  budget: 10 steps\n  clip: 1.0\n"
    )
    picture = Image.open(folder / "pictures" / "train-00000.png")
    for name in ("photo.jpg", "photo.webp", "photo.tiff", "a.gif"):
        picture.convert("RGB").save(folder / name)


def run(folder: Path, case: Case, rng: random.Random, scratch: Path) -> str:
    """Damages one file and runs the case's command. Returns a description of what went wrong, or ""."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name in sorted({case.files.split("/")[0], *_named(case)}):
        for path in folder.glob(name):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, scratch / path.name)
    files = sorted(p for p in scratch.glob(case.files) if p.is_file())
    victim = rng.choice(files)
    victim.write_bytes(mutate(victim.read_bytes(), rng))
    argv = [word.replace("{}", str(scratch)).replace("BOOK", str(folder / "book.txt")) for word in case.argv]
    problem = _attempt(argv)
    if not problem and case.output:
        left = [p.name for p in scratch.iterdir() if p.name.startswith(f".{case.output}")]
        problem = f"left {left}" if left else ""
    return f"{case.name}, {victim.relative_to(scratch)}: {problem}" if problem else ""


def _named(case: Case) -> Iterator[str]:
    """The files and folders that the command uses, relative to the prepared folder."""
    for word in case.argv:
        if word.startswith("{}/") and "out" not in word:
            yield word.removeprefix("{}/").split("/")[0]


class _Hang(BaseException):
    """Not an Exception, so that no handler catches it."""


def _attempt(argv: list[str]) -> str:
    """Runs a command in this process. Returns a description of its misbehaviour, or ""."""

    def hang(number: int, frame: object) -> None:
        raise _Hang

    output = io.StringIO()
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANG)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = main(argv)
    except SystemExit as stop:
        status = stop.code  # type: ignore[assignment]
    except _Hang:
        return f"no end after {HANG} seconds"
    except BaseException:
        return traceback.format_exc(limit=-6)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return "" if status in (0, 1, 2) else f"exit status {status}: {output.getvalue()[-300:]}"


def campaign(folder: Path, count: int, seed: int, scratch: Path) -> list[str]:
    """Runs ``count`` cases in turn. Returns descriptions of what went wrong."""
    os.environ["GEN_CACHE"] = str(folder / "cache")
    problems = []
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        problem = run(folder, CASES[number % len(CASES)], rng, scratch)
        if problem:
            problems.append(f"case {number}: {problem}")
    return problems
