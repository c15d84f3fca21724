"""Features of a frozen CNN, computed once per picture and stored on disk."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen.base.cache import CacheError, cache_folder
from gen.base.errors import UserError, notify
from gen.base.folders import locked
from gen.datasets.batches import release
from gen.inputs.pictures import PictureError, ahead, read_picture
from gen.models.device import autocast, compute_dtype
from gen.models.encoders.cnn import CNNEncoder

_KEY = 20  # bytes of the hash of a picture; one more byte gives the view
_RECORD = _KEY + 1 + 4  # a key and the CRC-32 of the key and its features


class FeatureStore:
    """A store of features by the content of pictures, for one backbone and one preprocessing.

    It consists of two files that are only appended to: the features, and the keys of their pictures with a
    checksum, so that changed features are noticed by `fill`, which computes them again. The
    features of a batch are written before its keys, so an interruption can leave only features without a key,
    which are overwritten later. One process writes at a time, with a lock that is released when the process
    ends; another process waits for it and then finds the features.

    Args:
        encoder: the encoder whose frozen backbone computes the features.
        dtype: "float16", or "float32" for twice the space.
        cache: the cache's folder; None means `gen.base.cache.cache_folder`.

    Raises:
        UserError: the cache cannot be written.

    Use::

        store = FeatureStore(CNNEncoder())
        rows, failed = store.fill([Path("a.jpg"), Path("b.jpg")])
        store.read(rows[:, 0])  # (2, 49, 1280)
    """

    def __init__(self, encoder: CNNEncoder, dtype: str = "float16", cache: Path | None = None) -> None:
        self.encoder = encoder
        self.dtype = np.dtype(dtype)
        self.folder = (cache or cache_folder()) / f"features3-{encoder.key()}-{dtype}"  # 3: of greys of 10 bits
        self.shape = (len(encoder.where), encoder.project.in_features)  # (S, C)
        self._map: Any = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> CacheError:
        return CacheError(
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
        """Computes the features that are missing.

        Args:
            paths: N pictures.
            views: the number of views per picture, one for all or one each; see `Preprocessing.pixels`.
            batch_size: pictures per forward pass of the CNN.
            watch: called with (done, total) missing views after each batch.

        Returns:
            The rows to `read`, (N, largest number of views) int64, -1 for views that were not requested and
            pictures that cannot be used; and the errors of the latter by index.

        Raises:
            UserError: the cache cannot be written.
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
                known = self._known(set(keys.values()))
                missing = {key: where for where, key in keys.items() if key not in known}
                self._compute(paths, list(missing.values()), known, failed, batch_size, watch)
        except OSError as error:
            raise self._unwritable(error) from error
        rows = np.full((len(paths), max(counts, default=1)), -1)
        for (i, view), key in keys.items():
            if key in known:
                rows[i, view] = known[key]
            elif i not in failed:  # same content as another picture, which failed
                failed[i] = PictureError(f"{paths[i]}: cannot be used")
        rows[list(failed)] = -1
        return rows, failed

    def read(self, rows: np.ndarray) -> Tensor:
        """Features of rows: (B,) int64 → (B, S, C) tensor of the store's dtype."""
        count = int(rows.max(initial=-1)) + 1
        if self._map is None or len(self._map) < count:
            # Only complete rows: another process may be appending.
            whole = self._file("features").stat().st_size // self._row_bytes
            self._map = np.memmap(self._file("features"), self.dtype, "r", shape=(whole, *self.shape))
        features = torch.from_numpy(self._map[rows])
        release(self._map)  # pages stay in the kernel's cache without counting as memory of this process
        return features

    # -- files -------------------------------------------------------------------------------------------

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.bin"

    @property
    def _row_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def _known(self, wanted: set[bytes]) -> dict[bytes, int]:
        """Reads key → row of the wanted keys; truncates incomplete entries at the end of the files.

        Rows that do not fit their checksum are left out, with a notice.
        """
        features, keys = self._file("features"), self._file("keys")
        for file in (features, keys):
            file.touch()
        count = min(features.stat().st_size // self._row_bytes, keys.stat().st_size // _RECORD)
        os.truncate(features, count * self._row_bytes)
        os.truncate(keys, count * _RECORD)
        data = keys.read_bytes()
        records = [data[i * _RECORD : (i + 1) * _RECORD] for i in range(count)]
        found = {record[: _KEY + 1]: i for i, record in enumerate(records)}  # the last one of a key counts
        known: dict[bytes, int] = {}
        with features.open("rb") as stored:
            for key, i in found.items():
                if key in wanted:
                    stored.seek(i * self._row_bytes)
                    if _record(key, stored.read(self._row_bytes)) == records[i]:
                        known[key] = i
        if changed := len(wanted & found.keys()) - len(known):
            notify(f"{features}: {changed} features were changed or damaged, and are computed again")
        return known

    def _compute(
        self,
        paths: Sequence[Path],
        missing: Sequence[tuple[int, int]],
        known: dict[bytes, int],
        failed: dict[int, PictureError],
        batch_size: int,
        watch: Callable[[int, int], None],
    ) -> None:
        """Computes and appends the ``missing`` (index, view). Adds to ``known`` and ``failed``."""
        preprocessing = self.encoder.preprocessing

        def work(where: tuple[int, int]) -> tuple[bytes, np.ndarray]:
            i, view = where
            data = read_picture(paths[i])  # read again, so that the key is the hash of the same bytes
            key = hashlib.blake2b(data, digest_size=_KEY).digest() + bytes([view])
            return key, preprocessing.pixels(data, view, name=paths[i])

        device = self.encoder.where.device
        done, row = 0, self._file("keys").stat().st_size // _RECORD
        with self._file("features").open("ab") as features, self._file("keys").open("ab") as keys:
            for batch in ahead(missing, work, batch_size):
                failed.update({i: result for (i, _), result in batch if isinstance(result, PictureError)})
                good = [result for _, result in batch if not isinstance(result, UserError)]
                if good:
                    pixels = torch.from_numpy(np.stack([array for _, array in good]))
                    with autocast(device, compute_dtype("auto", device)):
                        seen = self.encoder.features(pixels.to(device))
                    rows = [one.tobytes() for one in seen.float().cpu().numpy().astype(self.dtype)]
                    features.write(b"".join(rows))
                    features.flush()
                    os.fsync(features.fileno())  # after a power failure there must be no keys without features
                    keys.write(b"".join(_record(key, one) for (key, _), one in zip(good, rows, strict=True)))
                    keys.flush()
                    known.update({key: row + i for i, (key, _) in enumerate(good)})
                    row += len(good)
                done += len(batch)
                watch(done, len(missing))


def _record(key: bytes, features: bytes) -> bytes:
    return key + zlib.crc32(features, zlib.crc32(key)).to_bytes(4, "little")


def _digest(path: Path) -> bytes:
    return hashlib.blake2b(read_picture(path), digest_size=_KEY).digest()
