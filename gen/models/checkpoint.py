"""Models on disk, and the state of a training beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gen.base import hub
from gen.base.errors import UserError
from gen.base.folders import whole_folder
from gen.runtime import is_exported

FORMAT = 3
"""Version of the model folder. Raised when older code could no longer read what newer code writes."""

UNREADABLE = (OSError, ValueError, RecursionError, yaml.YAMLError)
"""What reading a damaged YAML file raises: dates that are none and endless numbers are ValueErrors."""

MOST_CONFIG = 1 << 20
"""Bytes of a configuration."""

MOST_LAYERS = 1 << 10
"""The time to build layers without end must not be up to a file."""

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
TOKENIZER = "tokenizer.bin"
TRAINING = "training.pt"


def find_model(path: str | Path) -> Path:
    """The model folder meant by ``path``: itself, the best (else the last) model of a run folder, or for
    ``hf:user/name`` the one that `gen.base.hub.fetch` gets.

    Raises:
        UserError: there is none.
    """
    if str(path).startswith(hub.PREFIX):
        path = hub.fetch(str(path))
    path = whole_folder(Path(path))
    if not path.exists():
        raise UserError(f"{path}: no such model folder; `gen train` makes one")
    if not path.is_dir():
        raise UserError(f"{path}: is a file; give the folder of a model or of a run")
    if is_exported(path):
        raise UserError(f"{path}: is an exported model; this command wants the run that it was made from")
    parts = (path / name for name in ("best", "last", "previous"))
    for folder in (path, *map(whole_folder, parts)):
        if (folder / CONFIG).exists() and (folder / WEIGHTS).exists():
            return folder
    missing = WEIGHTS if (path / CONFIG).exists() else CONFIG
    raise UserError(f"{path}: not a model folder: {missing} is missing; train again or copy the whole folder")


def write_model(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], files: Mapping[str, bytes]
) -> None:
    """Puts a model's files into ``folder``. ``files`` are the tokenizer, the model card and the like."""
    save_file({name: t.detach().cpu().contiguous() for name, t in weights.items()}, folder / WEIGHTS)
    text = yaml.safe_dump({"format": FORMAT, **config}, sort_keys=False, allow_unicode=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    for name, data in files.items():
        (folder / name).write_bytes(data)


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's configuration.

    Raises:
        UserError: it cannot be read, or a newer version wrote it.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > MOST_CONFIG:
            raise UserError(f"{path}: is too large to be a model's configuration")
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise UserError(f"{path}: not the configuration of a model (it has no `format`)")
    for name, size in _layers(config):
        if isinstance(size, int) and size > MOST_LAYERS:
            raise UserError(f"{path}: {name} {size} is more than a model can have ({MOST_LAYERS:,})")
    if config["format"] > FORMAT:
        raise UserError(
            f"{path}: format {config['format']} was written by a newer version; this one reads up to {FORMAT}: "
            "upgrade gen-toolkit"
        )
    return config


def _layers(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The numbers of layers in a configuration, by name; those of joined encoders are further down."""
    parts = [config.get("encoder"), config.get("decoder")]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            yield from ((str(name), value) for name, value in part.items() if str(name).endswith("layers"))
            parts += part.values()


class MemoryLimit(TorchDispatchMode):
    """While it lasts, no more numbers can be made than the weights of a folder hold, and some to spare: the sizes
    in a damaged or hostile configuration are noticed before their memory is taken.

    Raises:
        ValueError: in the call that asks for too much.
    """

    SPARE = 1 << 24  # numbers that a module may keep beside its weights, and temporary ones

    def __init__(self, folder: Path) -> None:
        super().__init__()
        weights = folder / WEIGHTS
        most = weights.stat().st_size if weights.exists() else 0  # a number takes a byte or more
        self.left = most + self.SPARE

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sizes = args[0] if args else ()
        if isinstance(sizes, list | tuple) and all(isinstance(n, int) for n in sizes):  # torch.empty and its like
            self.left -= math.prod(sizes)
            if self.left < 0:
                raise ValueError(f"it asks for more numbers than {WEIGHTS} has")
        return func(*args, **(kwargs or {}))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A model folder's weights, on the CPU. Raises `UserError` where the file is damaged."""
    path = folder / WEIGHTS
    try:
        return {_renamed(name): weight for name, weight in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged or cut short ({first_line(error)}); copy or train it again") from error


def _renamed(name: str) -> str:
    """A weight's name today: before format 3 the layers around the attention were "reader" and "writer"."""
    return name.replace("decoder.reader.", "decoder.lower.").replace("decoder.writer.", "decoder.upper.")


def read_bytes(folder: Path, name: str) -> bytes:
    """One of a model folder's files. Raises `UserError` where it is missing."""
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise UserError(f"{folder}: not a whole model folder: {name} is missing") from error


def read_training(folder: Path) -> dict[str, Any]:
    """The training state beside a model; tensors and plain values only, nothing that can run.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / TRAINING
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; this folder cannot be resumed") from error
    except Exception as error:  # torch raises many kinds for damaged files
        raise UserError(f"{path}: damaged ({first_line(error)}); delete the run to start again") from error


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
