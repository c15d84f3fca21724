"""ONNX Runtime for browsers: fetched from npm once, into the cache."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from gen.base.cache import cached
from gen.base.errors import UserError

PACKAGE = "onnxruntime-web@^1.30.0"
"""What npm is asked for: the only place that names the version."""

MODULE, WASM = "ort.js", "ort.wasm"  # not .mjs: some static hosts do not know that for a script
_WANTED = {MODULE: "package/dist/ort.wasm.bundle.min.mjs", WASM: "package/dist/ort-wasm-simd-threaded.wasm"}
"""File → its name in the package: the build for one thread of a CPU, and nothing else."""


def onnxruntime_web() -> Path:
    """The folder with `MODULE` and `WASM` (compressed).

    Raises:
        UserError: they are not in the cache, and npm is missing or cannot fetch them.
    """
    return cached(["onnxruntime-web", PACKAGE, MODULE], _fetch)


def _fetch(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"--web: {PACKAGE} is fetched once with npm, and npm is not installed: it comes with Node.js "
            "(https://nodejs.org), or with your system's package manager"
        )
    with tempfile.TemporaryDirectory(prefix="gen-npm-") as name:
        command = [npm, "pack", "--silent", "--ignore-scripts", PACKAGE]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
        found = list(Path(name).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            reason = " ".join((done.stderr or done.stdout).split())[:200]
            raise UserError(f"--web: npm cannot fetch {PACKAGE} ({reason or done.returncode})")
        try:
            with tarfile.open(found[0]) as archive:
                for file, member in _WANTED.items():
                    content = archive.extractfile(member)
                    data = content.read() if content else b""
                    (folder / file).write_bytes(gzip.compress(data, mtime=0) if file == WASM else data)
        except (KeyError, tarfile.TarError) as error:
            raise UserError(f"--web: {found[0].name} of npm is no {PACKAGE}: {error}") from error
