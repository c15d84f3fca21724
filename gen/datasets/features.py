"""What a frozen CNN sees in pictures, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.base.cache import cache_folder
from gen.base.errors import UserError
from gen.base.folders import locked
from gen.datasets.batches import release
from gen.inputs.pictures import PictureError, ahead
from gen.models.device import autocast, compute_dtype
from gen.models.encoders.cnn import CNNEncoder

_KEY = 20  # bytes that name a picture and a view of it


class FeatureStore:
    """Features by the content of pictures, for one trunk and one preprocessing.

    On disk it is two files that only grow: the features, and the keys of the pictures they belong to. A batch's
    features are written before its keys, so whatever interrupts it leaves nothing but features without a
    key, which are written over. A lock that dies with its owner lets one process write; another that
    starts meanwhile waits and finds the work done.

    Args:
        encoder: whose trunk looks; frozen.
        dtype: "float16", or "float32" for twice the space.
        cache: where; None: `gen.base.cache.cache_folder`.

    Example:
        >>> store = FeatureStore(CNNEncoder())
        >>> rows, failed = store.fill([Path("a.jpg"), Path("b.jpg")])
        >>> store.read(rows[:, 0]).shape
        torch.Size([2, 49, 1280])
    """

    def __init__(self, encoder: CNNEncoder, dtype: str = "float16", cache: Path | None = None) -> None:
        self.encoder = encoder
        self.dtype = np.dtype(dtype)
        self.folder = (cache or cache_folder()) / f"features-{encoder.key()}-{dtype}"
        places, features = len(encoder.where), encoder.project.in_features
        self.shape = (places, features)
        self._map: Any = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"{self.folder}: the feature cache cannot be written ({error.strerror}); set GEN_CACHE to a folder "
            "with space"
        )

    def fill(
        self,
        paths: Sequence[Path],
        views: int | Sequence[int] = 1,
        *,
        batch_size: int = 32,
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[np.ndarray, dict[int, PictureError]]:
        """Makes sure that every picture's features are there.

        Args:
            paths: N pictures.
            views: how many of each, or of all; see `Preprocessing.pixels`.
            batch_size: pictures the CNN looks at together.
            watch: called with how many of how many missing ones are done.

        Returns:
            (N, most views) int64, the rows to `read`, -1 for views not asked for and pictures that cannot be used;
            and why not, by index.
        """
        counts = [views] * len(paths) if isinstance(views, int) else list(views)
        failed: dict[int, PictureError] = {}
        keys: dict[tuple[int, int], bytes] = {}
        for batch in ahead(range(len(paths)), lambda i: _digest(paths[i]), 256):
            for i, found in batch:
                if isinstance(found, PictureError):
                    failed[i] = found
                elif isinstance(found, bytes):
                    keys.update({(i, view): found + bytes([view]) for view in range(counts[i])})
        try:
            with locked(self.folder / "lock"):
                known = self._known()
                missing = {key: where for where, key in keys.items() if key not in known}
                self._look(paths, list(missing.values()), known, failed, batch_size, watch)
        except OSError as error:
            raise self._unwritable(error) from error
        rows = np.full((len(paths), max(counts, default=1)), -1)
        for (i, view), key in keys.items():
            if key in known:
                rows[i, view] = known[key]
            elif i not in failed:  # the same content as one that failed
                failed[i] = PictureError(f"{paths[i]}: cannot be used")
        rows[list(failed)] = -1
        return rows, failed

    def read(self, rows: np.ndarray) -> Tensor:
        """Features of some rows: (B,) int → (B, S, C) tensor of the store's dtype."""
        count = int(rows.max(initial=-1)) + 1
        if self._map is None or len(self._map) < count:
            # As many as are whole: another process may be adding some.
            whole = self._file("features").stat().st_size // self._row_bytes
            self._map = np.memmap(self._file("features"), self.dtype, "r", shape=(whole, *self.shape))
        features = torch.from_numpy(self._map[rows])
        release(self._map)  # the pages stay in the kernel's cache, but do not count as this process's memory
        return features

    # -- files -------------------------------------------------------------------------------------------

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.bin"

    @property
    def _row_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def _known(self) -> dict[bytes, int]:
        """Keys → rows; anything half-written at the end of the files is cut off."""
        features, keys = self._file("features"), self._file("keys")
        for file in (features, keys):
            file.touch()
        count = min(features.stat().st_size // self._row_bytes, keys.stat().st_size // (_KEY + 1))
        os.truncate(features, count * self._row_bytes)
        os.truncate(keys, count * (_KEY + 1))
        data = keys.read_bytes()
        return {data[i * (_KEY + 1) : (i + 1) * (_KEY + 1)]: i for i in range(count)}

    def _look(
        self,
        paths: Sequence[Path],
        missing: Sequence[tuple[int, int]],
        known: dict[bytes, int],
        failed: dict[int, PictureError],
        batch_size: int,
        watch: Callable[[int, int], None],
    ) -> None:
        """Computes and appends what is missing: (index, view) each. Adds to ``known`` and ``failed``."""
        preprocessing = self.encoder.preprocessing

        def work(where: tuple[int, int]) -> tuple[bytes, np.ndarray]:
            i, view = where
            data = _read(paths[i])  # read once more: the key must be that of the bytes that are looked at
            key = hashlib.blake2b(data, digest_size=_KEY).digest() + bytes([view])
            return key, preprocessing.pixels(data, view, name=paths[i])

        device = self.encoder.where.device
        done, row = 0, self._file("keys").stat().st_size // (_KEY + 1)
        with self._file("features").open("ab") as features, self._file("keys").open("ab") as keys:
            for batch in ahead(missing, work, batch_size):
                failed.update({i: result for (i, _), result in batch if isinstance(result, PictureError)})
                good = [result for _, result in batch if not isinstance(result, UserError)]
                if good:
                    pixels = torch.from_numpy(np.stack([array for _, array in good]))
                    with autocast(device, compute_dtype("auto", device)):
                        seen = self.encoder.look(pixels.to(device))
                    features.write(seen.float().cpu().numpy().astype(self.dtype).tobytes())
                    features.flush()
                    os.fsync(features.fileno())  # a power cut must not leave keys without their features
                    keys.write(b"".join(key for key, _ in good))
                    keys.flush()
                    known.update({key: row + i for i, (key, _) in enumerate(good)})
                    row += len(good)
                done += len(batch)
                watch(done, len(missing))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror})") from None


def _digest(path: Path) -> bytes:
    return hashlib.blake2b(_read(path), digest_size=_KEY).digest()
