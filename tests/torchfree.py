"""A virtual environment with the packages that a distribution asks for, and nothing else: no network needed."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """The wheel of gen-runtime."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT / "gen" / "runtime"], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def requirements(wheel: Path, extra: str = "") -> list[str]:
    """Names of the packages that a wheel asks for."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    asked = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [_name(r) for r in asked if "extra ==" not in r or (extra and f"extra == '{extra}'" in r)]


def everything(names: list[str]) -> set[str]:
    """Packages and all that they ask for."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [_name(r) for r in distribution(name).requires or () if "extra ==" not in r and _here(r)]
    return found


def _name(requirement: str) -> str:
    return re.match(r"[\w.\-]+", requirement)[0].lower()


def _here(requirement: str) -> bool:
    """Whether a requirement holds for this Python and system."""
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": ""})


def size(names: set[str]) -> int:
    """Bytes that packages take when installed, without what Python compiles of them."""
    files = [f.locate() for name in names for f in distribution(name).files or () if f.suffix != ".pyc"]
    return sum(f.stat().st_size for f in files if f.exists())


def make(folder: Path, wheel: Path, extra: str = "") -> Path:
    """An environment with the wheel and what it asks for; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    packages = Path(next((folder / "lib").glob("python3*"))) / "site-packages"
    for name in everything(requirements(wheel, extra)):
        for top in {f.parts[0] for f in distribution(name).files or () if ".." not in f.parts}:
            target = packages / top
            if not target.exists() and top != "__pycache__":
                target.symlink_to(distribution(name).locate_file(top))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    return python
