"""Pictures as sources of batches: features of a frozen CNN from the cache, or pixels for one that is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from gen.base.errors import UserError, notify
from gen.datasets.features import FeatureStore
from gen.inputs.pictures import PictureError, ahead
from gen.models.encoders.cnn import CNNEncoder

Source = Callable[[np.ndarray, np.ndarray], torch.Tensor]
"""(B,) indices of pictures and (B,) numbers of their views → what the CNN encoder reads."""

Watch = Callable[[int, int], None]


def cached_source(
    encoder: CNNEncoder, pictures: Sequence[Path], views: Sequence[int] | int, dtype: str, watch: Watch
) -> tuple[Source, dict[int, UserError]]:
    """The cached features of a frozen CNN, computed if necessary.

    Args:
        encoder: has the CNN.
        pictures: N pictures.
        views: the number of views per picture, one for all or N numbers.
        dtype: of the cache, such as "float16".
        watch: called with (done, total).

    Returns:
        The source, and the errors of pictures that cannot be read, by index.
    """
    store = FeatureStore(encoder, dtype)
    rows, failed = store.fill(pictures, views, watch=watch)
    return lambda chosen, view: store.read(rows[chosen, view]), dict(failed)


def unusable(encoder: CNNEncoder, pictures: Sequence[Path]) -> dict[int, UserError]:
    """The errors of pictures that cannot be read, by index."""

    def look(i: int) -> None:
        encoder.preprocessing.pixels(pictures[i])

    batches = ahead(range(len(pictures)), look, 256)
    return {i: found for batch in batches for i, found in batch if isinstance(found, PictureError)}


def decoded_source(encoder: CNNEncoder, pictures: Sequence[Path]) -> Source:
    """The pixels, for a CNN that is trained. A picture that can no longer be read is grey, and reported once."""
    named: set[Path] = set()
    preprocessing = encoder.preprocessing

    def pixels(picture: Path, view: int) -> np.ndarray:
        try:
            return preprocessing.pixels(picture, view)
        except PictureError as error:
            if picture not in named:
                named.add(picture)
                notify(str(error))
            return np.full((3, preprocessing.size, preprocessing.size), 127, np.uint8)

    def source(chosen: np.ndarray, view: np.ndarray) -> torch.Tensor:
        each = zip(chosen.tolist(), view.tolist(), strict=True)
        return torch.from_numpy(np.stack([pixels(pictures[i], v) for i, v in each]))

    return source
