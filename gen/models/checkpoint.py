"""Model folders on disk: configuration, weights and training state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from gen.base import hub
from gen.base.errors import UserError, first_line
from gen.base.files import check_regular, read_whole
from gen.base.folders import whole_folder
from gen.base.yaml_files import read_yaml
from gen.runtime import is_exported

FORMAT = 3
"""Version of the model folder; it rises when older code cannot read what newer code writes."""

MOST_FILE = 1 << 28
"""Bytes of a model folder's largest file but its weights and the state of a training: a vocabulary."""

MOST_LAYERS = 1 << 10
"""Most layers that are built: building time must not depend on a damaged file."""

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
TOKENIZER = "tokenizer.bin"
TRAINING = "training.pt"


def find_model(path: str | PathLike[str]) -> Path:
    """The model folder for ``path``.

    Args:
        path: a model folder; a run folder, of which the best model is taken, else the last; or ``hf:user/name``,
            which `gen.base.hub.fetch` downloads.

    Raises:
        UserError: there is no model.
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
    """Writes a model's files into ``folder``.

    Args:
        folder: exists.
        config: plain values.
        weights: by name, on any device.
        files: other files, by name: the tokenizer, the model card.
    """
    save_file({name: t.detach().cpu().contiguous() for name, t in weights.items()}, folder / WEIGHTS)
    text = yaml.safe_dump({"format": FORMAT, **config}, sort_keys=False, allow_unicode=True)
    (folder / CONFIG).write_text(text, encoding="utf-8", errors="backslashreplace")
    with suppress(OSError):  # some file systems know no permissions
        (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode & 0o777)  # safetensors lets nobody else read it
    for name, data in files.items():
        (folder / name).write_bytes(data)


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's configuration.

    Raises:
        UserError: it cannot be read, or a newer version wrote it.
    """
    path = folder / CONFIG
    try:
        config = read_yaml(path)
    except (OSError, ValueError) as error:
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


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A model folder's weights by name, mapped from the file: memory is taken when they are copied.

    Raises:
        UserError: the file is damaged, or weights in it are NaN or infinite.
    """
    path = folder / WEIGHTS
    try:
        check_regular(path)
        found = {_renamed(name): weight for name, weight in _load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged or cut short ({first_line(error)}); copy or train it again") from error
    if name := not_finite(found):
        raise UserError(f"{path}: {name} holds NaN or infinite values; copy or train it again")
    return found


def _load_file(path: Path) -> dict[str, Tensor]:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # safetensors opens no file of such a name
        return load(path.read_bytes())
    return load_file(path)


def not_finite(weights: Mapping[str, Tensor]) -> str:
    """The name of the first weight with NaN or infinite values; "" if there is none.

    Example:
        >>> not_finite({"bias": torch.zeros(2), "matrix": torch.tensor([[1.0, float("nan")]])})
        'matrix'
    """
    real = {name: weight for name, weight in weights.items() if weight.is_floating_point()}
    # A sum takes no memory, and one value that is not finite makes it so.
    return next((name for name, weight in real.items() if not weight.sum(dtype=torch.float64).isfinite()), "")


def _renamed(name: str) -> str:
    """A weight's name today: before format 3 the layers around the attention were "reader" and "writer"."""
    return name.replace("decoder.reader.", "decoder.lower.").replace("decoder.writer.", "decoder.upper.")


def aliases(module: nn.Module) -> dict[str, str]:
    """Names of parameters that are stored under another name: tied embeddings are stored once."""
    first: dict[int, str] = {}
    named = module.named_parameters(remove_duplicate=False)
    return {name: kept for name, p in named if (kept := first.setdefault(id(p), name)) != name}


def read_bytes(folder: Path, name: str) -> bytes:
    """The content of one of a model folder's files.

    Raises:
        UserError: it is missing, or no file.
    """
    try:
        return read_whole(folder / name, MOST_FILE)
    except OSError as error:
        raise UserError(f"{folder}: not a whole model folder: {name} is missing") from error
    except ValueError as error:
        raise UserError(f"{folder / name}: {error}") from error


def read_training(folder: Path) -> dict[str, Any]:
    """The state of a training, stored with its model. Only tensors and plain values are read, no code.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / TRAINING
    if not path.exists():
        raise UserError(f"{path}: missing; this folder cannot be resumed")
    with checked(folder):  # torch raises many kinds for damaged files
        check_regular(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not isinstance(state.get("progress"), dict):
            raise ValueError("it is no state of a training")
        if not _is_plain(state):
            raise ValueError("it holds sparse or quantized tensors")
        return state


def _is_plain(value: Any) -> bool:
    """Whether all tensors in nested containers are dense, unquantized and on the CPU, as training saves them."""
    if isinstance(value, torch.Tensor):
        return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return all(map(_is_plain, inner))


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restores the moments of AdamW from its state dict; the rest of that is what the options say.

    Raises:
        ValueError: they are of other weights.
    """
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    for weight, moments in optimizer.state.items():
        kept = {"step": torch.Size(), "exp_avg": weight.shape, "exp_avg_sq": weight.shape}
        if {name: moment.shape for name, moment in moments.items()} != kept:
            raise ValueError("the optimizer's state is of other weights")
        if not all(moment.is_floating_point() for moment in moments.values()):
            raise ValueError("the optimizer's state holds no real numbers")


@contextmanager
def checked(folder: Path) -> Iterator[None]:
    """Within it, whatever is raised says that the state of the training in ``folder`` is damaged."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # any, where a part is missing or of another type
        what = f"KeyError: {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{folder / TRAINING}: damaged ({what}); delete the run to start again") from error
