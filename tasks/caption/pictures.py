"""Any number of pictures through a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gen.base.errors import UserError
from gen.inputs.items import memory_slices
from gen.inputs.pictures import PictureError, ahead, find_pictures, open_picture
from gen.inputs.processors import PictureProcessor
from gen.inputs.ptb import plain_caption
from gen.runtime import Runtime
from gen.search import Hypothesis
from gen.search.ensemble import reads_alike
from gen.search.phrase import Fit, phrase_fits

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model

T = TypeVar("T")

Shown = tuple[Path, Sequence[str | Hypothesis], float | None]
"""A picture of the gallery, its captions (hypotheses to show their confidence), and how well the words fit that
were looked for."""


@dataclass(frozen=True)
class PictureCaptions:
    """The captions of a picture: hypotheses, best first, or the error."""

    path: Path
    hypotheses: Sequence[Hypothesis]
    error: PictureError | None = None


def caption_pictures(
    model: Model | Runtime, items: Iterable[Any], *, batch_size: int = 64, **options: Any
) -> Iterator[PictureCaptions]:
    """Captions any number of pictures; yields in order. The next pictures are read while the model runs.

    A picture that cannot be read gets an error; the others are not affected.

    Args:
        model: of pictures, torch or exported.
        items: paths of pictures; for a model of several inputs, mappings with a path under "picture".
        batch_size: pictures at once.
        options: as for `generate`.
    """
    work = partial(model.generate, attention=False, **options)
    for path, found in _through(model, items, work, batch_size):
        yield PictureCaptions(path, [], found) if isinstance(found, PictureError) else PictureCaptions(path, found)


def search_pictures(
    model: Model | Runtime, items: Iterable[Any], phrase: str, *, batch_size: int = 64
) -> Iterator[tuple[Path, Fit | PictureError]]:
    """How well words fit any number of pictures; as `caption_pictures`."""
    return _through(model, items, lambda batch: phrase_fits(model, batch, phrase), batch_size)


def _through(
    model: Model | Runtime, items: Iterable[Any], work: Callable[[list[Any]], Sequence[T]], batch_size: int
) -> Iterator[tuple[Path, T | PictureError]]:
    """The path of each picture, and what ``work`` makes of it or its error."""
    processor = model.processors.get("picture")
    if not isinstance(processor, PictureProcessor):
        raise UserError(f"a {model.info.task} model does not read pictures")

    alike = reads_alike(model, "picture")

    def look(item: Any) -> Any:
        """Pixels, or for an ensemble that needs several kinds of them, the picture."""
        return processor.preprocessing.pixels(_path(item)) if alike else open_picture(_path(item))

    for batch in ahead(items, look, batch_size):
        good = [
            {**item, "picture": seen} if isinstance(item, Mapping) else seen
            for item, seen in batch
            if not isinstance(seen, UserError)
        ]
        found = iter(work(good) if good else [])
        for item, seen in batch:
            yield _path(item), PictureError(str(seen)) if isinstance(seen, UserError) else next(found)


def _path(item: Any) -> Path:
    return item["picture"] if isinstance(item, Mapping) else item


def expand(names: Iterable[str]) -> Iterator[Path]:
    """Replaces folders by the pictures in them. A folder without pictures stays, and is an error when opened."""
    for name in names:
        path = Path(name)
        yield from (find_pictures(path) if os.path.isdir(path) else []) or [path]


def as_captions(model: Model | Runtime, text: str) -> str:
    """A text in the form of the captions the model writes: lower-case words without punctuation, unless it was
    trained with ``verbatim``."""
    text = model.tokenizer.normalize(text)
    return text if model.info.options().get("verbatim") else plain_caption(text)


def item_of(picture: Path, label: str) -> Any:
    """What a model captions: a picture, or a picture and the label of its captions."""
    return {"picture": picture, "label": label} if label else picture


def looks_of(model: Any, picture: Any, hypothesis: Hypothesis) -> tuple[np.ndarray, Any, list[str]]:
    """The data of a caption's plot: pixels (H, W, 3), attention weights (T, S), and a label per token."""
    processor, cells = model.processors["picture"], memory_slices(model.processors, picture)["picture"]
    picture = picture["picture"] if isinstance(picture, Mapping) else picture
    pixels = processor.preprocessing.pixels(picture).transpose(1, 2, 0)
    return pixels, np.asarray(hypothesis.attention)[:, cells], hypothesis.tokens
