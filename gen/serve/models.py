"""The models that are served: by name, each with its engine, loaded again when their folder changes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

from gen.base.errors import UserError, message_of, notify, printable
from gen.base.folders import whole_folder
from gen.base.lines import expand_braces
from gen.inputs.labels import LabelProcessor, LabelTokenizer
from gen.inputs.processors import InputProcessor, PictureProcessor
from gen.search.options import SearchOptions
from gen.serve.engine import Engine
from gen.serve.errors import Refusal
from gen.serve.limits import Limits

Load = Callable[[str], Any]
"""The folder of a run or of an exported model → the model."""


class Served:
    """A model behind a name.

    Attributes:
        name: what requests call it.
        run: the folder it is from.
        engine: with the model; replaced when the folder has a better one; see `reload`.
        defaults: how the model searches where a request does not say.
        languages: of a translation model, (source, target), where they are known.
    """

    def __init__(self, name: str, run: str, load: Load, limits: Limits) -> None:
        self.name, self.run = name, run
        self._load, self._limits = load, limits
        self._stamp = _stamp(run)
        self._take(load(run))
        self.created = int(time.time())

    def _take(self, model: Any) -> None:
        defaults, most = SearchOptions.make(model.search_defaults, {}), self._limits.tokens
        if defaults.length_limit > most:  # else what does not say how long, as LibreTranslate, would be refused
            model.info.search = {**model.info.search, "max_new_tokens": most}
            defaults = SearchOptions.make(model.search_defaults, {})
        languages = _languages(self.name, model)
        engine = Engine(model, self._limits.rows, self._limits.queue, self._limits.positions)
        self.defaults, self.languages, self.engine = defaults, languages, engine  # all or, after an error, none

    @property
    def model(self) -> Any:
        """The model. What needs its engine, too, takes it from there: both may be replaced at any time."""
        return self.engine.model

    @property
    def inputs(self) -> Mapping[str, InputProcessor]:
        """Input name → its processor."""
        return self.model.processors

    @property
    def labels(self) -> list[str]:
        """What a classifier chooses among; empty for others."""
        return _labels(self.model.tokenizer)

    def describe(self) -> dict[str, Any]:
        """What `/api/models` says."""
        return describe(self.name, self.model)

    def reload(self) -> bool:
        """Loads the model again if its folder has changed. Requests under way end with the old one."""
        stamp = _stamp(self.run)
        if stamp == self._stamp or stamp is None:
            return False
        old, self._stamp = self.engine, stamp
        try:
            self._take(self._load(self.run))
        except Exception as error:  # the one that works stays, whatever is wrong with the other
            notify(f"{self.name}: not loaded again: {message_of(error)}")
            return False
        old.close()
        notify(f"{self.name}: loaded again from {self.run}")
        return True


class Models:
    """All that is served.

    Args:
        runs: name → folder; the first is the one that requests without a name mean.
        load: loads one.
        limits: what requests may ask for.
    """

    def __init__(self, runs: Mapping[str, str], load: Load, limits: Limits) -> None:
        self.limits = limits
        self.served = {name: Served(name, run, load, limits) for name, run in runs.items()}
        self.pool = ThreadPoolExecutor(2, "gen-serve-read")
        """Decodes pictures and runs encoders: a step of the others does not wait for them."""
        self.reading = 0
        """What the pool does and what waits for it."""

    def find(self, name: str | None) -> Served:
        """The model that a request names. Raises `Refusal` with the nearest name."""
        if name is None:
            return next(iter(self.served.values()))
        if name in self.served:
            return self.served[name]
        near = get_close_matches(name[:200], self.served, 1, 0.4)  # it may be of any length
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, self.served))}"
        shown = name if len(name) <= 80 else name[:79] + "…"
        raise Refusal(f"unknown model {shown!r}: {hint}", 404, param="model", code="model_not_found")

    def close(self) -> None:
        """Ends all engines when what they do is done."""
        for served in self.served.values():
            served.engine.close()
        self.pool.shutdown(wait=False)


def names_of(runs: list[str]) -> dict[str, str]:
    """Names for folders: ``NAME=FOLDER``, or the folder's own name, with its parent's where two have the same.

    Raises:
        UserError: two have the same name.

    Example:
        >>> names_of(["runs/book", "de=runs/en-de/best", "a/run", "b/run"])
        {'book': 'runs/book', 'de': 'runs/en-de/best', 'a/run': 'a/run', 'b/run': 'b/run'}
    """
    pairs = []
    for run in runs:
        name, equals, folder = run.partition("=")
        pairs.append((name, folder) if equals and not Path(run).exists() else ("", run))
    own = [printable(name or _folder_name(run, 1)) for name, run in pairs]
    names = [
        n if own.count(n) == 1 or given else printable(_folder_name(run, 2))
        for n, (given, run) in zip(own, pairs, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two models are called {name!r}: name one, as in other={pairs[names.index(name)][1]}")
    return {name: run for name, (_, run) in zip(names, pairs, strict=True)}


def _folder_name(run: str, parts: int) -> str:
    path = [part for part in Path(run.removeprefix("hf:")).parts if part not in ("/", ".", "..")]
    if len(path) > 1 and path[-1] in ("best", "last"):
        path = path[:-1]
    if not path:
        path = [Path(run).resolve().name]
    return "/".join(path[-parts:])


def _stamp(run: str) -> tuple[Any, ...] | None:
    """Changes when a file of the folder's model does; None while no model is there.

    The folder of a run has a ``config.yaml``, too, though its models are in folders below: a folder that has
    weights or graphs is the model's.
    """
    with suppress(OSError):  # it is being replaced: the next look sees it
        path = whole_folder(Path(run))
        for folder in (path, *(whole_folder(path / name) for name in ("best", "last", "previous"))):
            if any((folder / name).is_file() for name in ("runtime.json", "model.safetensors")):
                found = sorted((f.name, f.stat()) for f in folder.iterdir() if f.name[0] != ".")
                return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in found)
    return None


def describe(name: str, model: Any) -> dict[str, Any]:
    """What a page has to know of a model: what it reads, what it writes, how it searches."""
    inputs, tokenizer = model.processors, model.tokenizer
    defaults = SearchOptions.make(model.search_defaults, {}).given()
    return {
        "name": name,
        "task": model.info.task,
        "inputs": {n: p.kind for n, p in inputs.items()},
        "optional": [n for n, p in inputs.items() if p.optional],
        "choices": {n: p.tokenizer.labels for n, p in inputs.items() if isinstance(p, LabelProcessor)},
        "pictures": {n: _seen(p) for n, p in inputs.items() if isinstance(p, PictureProcessor)},
        "defaults": {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()},
        "labels": _labels(tokenizer),
        "languages": list(_languages(name, model) or ()),
        "tokenizer": tokenizer.kind,
        "vocabulary": len(tokenizer),
        "ends": model.info.ends_with_eos,
        "metrics": {k: v for k, v in model.info.metrics.items() if isinstance(v, int | float) and isfinite(v)},
    }


def _labels(tokenizer: Any) -> list[str]:
    return tokenizer.labels if isinstance(tokenizer, LabelTokenizer) else []


def _seen(processor: PictureProcessor) -> dict[str, Any]:
    """What a model sees of a picture: the cells of its grid, and how much of the shorter side the square in the
    middle has (0: the whole picture)."""
    seen = processor.preprocessing
    return {"cells": processor.num_cells, "crop": seen.size / seen.resize if seen.resize else 0}


_NO_LANGUAGES = ("txt", "tok", "bpe", "src", "tgt", "trg")
"""Endings of files of sentences that look like codes of languages."""

_PAIR = re.compile(r"(?:^|[-_./])([a-z]{2,3})[-_2]([a-z]{2,3})$")


def _is_code(ending: str) -> bool:
    """Whether the ending of a file's name may be a language code."""
    return bool(re.fullmatch("[a-z]{2,3}", ending)) and ending not in _NO_LANGUAGES


def _languages(name: str, model: Any) -> tuple[str, str] | None:
    """The languages of a translation model: from the names of its training files, or from its own (``en-de``)."""
    named = model.info.options().get("train")
    files = [each for file in named for each in expand_braces(str(file))] if isinstance(named, list) else []
    endings = [Path(file.removesuffix(".gz")).suffix[1:] for file in files]
    sides = {*endings[::2]}, {*endings[1::2]}
    if len(files) % 2 == 0 and [len(side) for side in sides] == [1, 1] and sides[0] != sides[1]:
        (source,), (target,) = sides
        if _is_code(source) and _is_code(target):
            return source, target
    match = _PAIR.search(name.lower())
    return (match[1], match[2]) if match else None
