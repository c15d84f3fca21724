"""Damaged and hostile input of every kind, for every command."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.soak import desk, graphs, pictures, structures, tables
from tests.soak.child import Children, Ending


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The bytes with random damage, whatever they are."""
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


@dataclass(frozen=True)
class Case:
    """A command on a file that is not as it should be.

    Attributes:
        kind: what is damaged.
        files: a glob relative to the desk; one of these files is damaged.
        argv: the command; ``{}`` is replaced by a copy of the desk, ``BOOK`` by a text, and ``_`` by a space.
        make: file's content → the damaged one.
        output: a file that must be complete or absent afterwards, and its number of lines.
    """

    kind: str
    files: str
    argv: str
    make: Callable[[bytes, random.Random], bytes] = mutate
    output: tuple[str, int] = ("", 0)

    def needs(self) -> Iterator[str]:
        """Globs of what it uses, relative to the desk."""
        yield self.files.split("/")[0]
        for word in self.argv.split():
            if word.startswith("{}/") and "/out" not in word:
                yield word.removeprefix("{}/").split("/")[0]


_DRY = "--dry-run --budget 9_steps --device cpu --precision fp32 --out {}/out"
_TINY = f"{_DRY} --hidden-size 16 --embedding-size 8"
_GENERATE = "--max-new-tokens 5 --seed 1"
_TRANSLATE = "-i {}/lines.txt -o {}/made.txt --max-new-tokens 8"
_CAPTION = "caption {}/captions/best {}/pictures/train-00000.png -o {}/made.txt --max-new-tokens 8"
_PHOTOS = "caption {}/captions {}/photo.jpg {}/photo.webp {}/photo.tiff {}/a.gif"
_TEXT = f"train text --data {{}}/book.txt {_TINY}"
_PAIRS = f"train translate --level char {_TINY}"
_RESUME = " ".join(["train text --data BOOK --out {}/run", *(w.replace(" ", "_") for w in desk.TEXT)])
_CONFIG = f"train text --config {{}}/options.yaml {_DRY} --data {{}}/book.txt"
_COMPARE = "compare {}/run {}/text"
_THREE, _ONE = ("made.txt", 3), ("made.txt", 1)


def _cases() -> Iterator[Case]:
    yield from _models()
    yield from _exported()
    yield Case("picture", "pictures/train-00000.png", "caption {}/captions {}/pictures/train-00000.png {}/a.gif")
    yield Case("picture", "photo.*", _PHOTOS)
    yield Case("picture", "photo.*", _PHOTOS, pictures.other_picture)
    yield Case("picture", "a.gif", _PHOTOS, pictures.other_picture)
    yield from _data()
    yield from _runs()


def _models() -> Iterator[Case]:
    for use in (f"generate {{}}/text {_GENERATE}", "score {}/text {}/lines.txt"):
        yield Case("text model", "text/best/*", use)
        yield Case("text model", "text/best/model.safetensors", use, structures.other_weights)
    yield Case("text model", "text/best/*", "info {}/text")
    yield Case("text model", "text/best/config.yaml", "info {}/text", structures.other_yaml)
    yield Case("text model", "text/best/config.yaml", f"generate {{}}/text {_GENERATE}", structures.other_yaml)
    use = f"translate {{}}/translate/best {_TRANSLATE}"
    yield Case("translation model", "translate/best/*", use, output=_THREE)
    yield Case("translation model", "translate/best/config.yaml", use, structures.other_yaml, _THREE)
    yield Case("translation model", "translate/best/model.safetensors", use, structures.other_weights, _THREE)
    # Without the weights of the CNN: 14 MB to copy, and read like all others.
    yield Case("caption model", "captions/best/[cRt]*", _CAPTION, output=_ONE)
    yield Case("caption model", "captions/best/config.yaml", _CAPTION, structures.other_yaml, _ONE)


def _exported() -> Iterator[Case]:
    text, pair = f"generate {{}}/text-exported {_GENERATE}", f"translate {{}}/translate-exported {_TRANSLATE}"
    for name in ("step.onnx", "encoder.onnx"):
        yield Case("graph", f"text-exported/{name}", text, graphs.other_graph)
        yield Case("graph", f"translate-exported/{name}", pair, graphs.other_graph, _THREE)
    yield Case("exported model", "translate-exported/*", pair, output=_THREE)
    yield Case(
        "exported model", "translate-exported/runtime.json", "info {}/translate-exported", structures.other_json
    )
    yield Case("exported model", "translate-exported/runtime.json", pair, structures.other_json, _THREE)


def _data() -> Iterator[Case]:
    yield Case("corpus", "book.txt", _TEXT)
    yield Case("corpus", "book.txt", _TEXT, tables.other_text)
    yield Case("corpus", "book.txt", f"{_TEXT} --level word", tables.other_text)
    yield Case("prompts", "lines.txt", f"translate {{}}/translate {_TRANSLATE}", tables.other_text)
    for make in (mutate, tables.other_text):
        yield Case("pairs", "train.*", f"{_PAIRS} --train {{}}/train.src {{}}/train.tgt", make)
    for end, make in (
        ("tsv", tables.other_delimited),
        ("csv", tables.other_delimited),
        ("jsonl", tables.other_json_lines),
        ("json", structures.other_json),
        ("parquet", tables.other_parquet),
    ):
        for how in (mutate, make, make):
            yield Case("table", f"pairs.{end}", f"{_PAIRS} --data {{}}/pairs.{end}", how)
    for make in (mutate, tables.other_json_lines):
        yield Case("captions", "pictures/captions.jsonl", f"train caption --images {{}}/pictures {_TINY}", make)


def _runs() -> Iterator[Case]:
    for make in (mutate, structures.other_yaml, structures.other_yaml):
        yield Case("options", "options.yaml", _CONFIG, make)
    yield Case("checkpoint", "run/[lp]*/*", _RESUME)
    yield Case("checkpoint", "run/last/training.pt", _RESUME, structures.other_training)
    yield Case("checkpoint", "run/last/model.safetensors", _RESUME, structures.other_weights)
    for use in (_RESUME, _COMPARE):
        yield Case("run folder", "run/*.*", use)
        yield Case("run folder", "run/metrics.jsonl", use, tables.other_json_lines)
    for name in ("config", "resolved"):
        yield Case("run folder", f"run/{name}.yaml", _RESUME, structures.other_yaml)


CASES = tuple(_cases())


def run(number: int, seed: int, folder: Path, scratch: Path, children: Children) -> tuple[Ending, str]:
    """One case: damages a file in a copy of the desk, and runs the command.

    Returns:
        How it ended, and what is wrong about that; "" for nothing.
    """
    case, rng = CASES[number % len(CASES)], random.Random(f"{seed}-{number}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for name in sorted({*case.needs()}):
        for path in folder.glob(name):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, scratch / path.name)
    victim = rng.choice(sorted(p for p in scratch.glob(case.files) if p.is_file()))
    victim.write_bytes(case.make(victim.read_bytes(), rng))
    argv = [
        word.replace("_", " ").replace("{}", str(scratch)).replace("BOOK", str(folder / "book.txt"))
        for word in case.argv.split()
    ]
    ending = children.run(argv)
    problem = ending.problem() or half_written(scratch, case)
    return ending, problem and f"{case.kind}, {victim.relative_to(scratch)}, {' '.join(argv[:2])}: {problem}"


def half_written(scratch: Path, case: Case) -> str:
    """What is there that should not be, or not like this; "" for nothing."""
    if left := [p.name for p in scratch.rglob(".*.gen-*")]:
        return f"left {left}"
    name, lines = case.output
    if "--dry-run" in case.argv and (scratch / "out").exists():
        return "a dry run wrote something"
    if name and (scratch / name).exists() and (found := (scratch / name).read_bytes().count(b"\n")) < lines:
        return f"{found} lines of {lines} were written"
    return ""
