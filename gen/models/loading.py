"""Modules with the weights of a model folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gen.base.errors import UserError
from gen.models.checkpoint import CONFIG, WEIGHTS, aliases, read_weights

M = TypeVar("M", bound=nn.Module)


def load_module(folder: Path, build: Callable[[], M]) -> M:
    """A module with the weights of a model folder, on the CPU.

    It is built on the meta device, where tensors have a shape but no memory. So sizes in a damaged configuration
    are noticed before anything is allocated, and no time goes into random first weights.

    Args:
        folder: a model folder.
        build: makes the module. It is called a second time, for the CPU, if the module has tensors that are not
            in its state dict, or if its constructor needs the values of tensors.

    Raises:
        UserError: the weights are damaged, or their names or shapes differ from the module's.
    """
    try:
        with torch.device("meta"), _Unfilled():
            module = build()
    except (NotImplementedError, RuntimeError) as error:
        if "meta tensor" not in str(error):
            raise
        module = build()
    weights = read_weights(folder)
    weights |= {name: weights[kept] for name, kept in aliases(module).items() if kept in weights}
    if wrong := _differences(module.state_dict(), weights):
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"{folder}: weights and configuration do not belong together ({wrong[0]}{more})")
    _fill(module, weights)
    if any(tensor.is_meta for tensor in _tensors(module)):
        module = build()
        _fill(module, weights)
    return module


class _Unfilled(TorchFunctionMode):
    """Leaves out normally distributed first weights: on the meta device torch computes them in Python, and imports
    its compiler to do so, which takes two seconds."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (nn.init.normal_, Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """All tensors of a module: parameters, buffers and plain attributes."""
    for part in module.modules():
        for values in (part._parameters, part._buffers, vars(part)):
            yield from (v for v in values.values() if isinstance(v, Tensor))


def _differences(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """How the names and shapes of ``weights`` differ from those that are wanted."""
    found = [f"{name} is missing" for name in wanted if name not in weights]
    found += [f"{name} is unknown" for name in weights if name not in wanted]
    for name, tensor in wanted.items():
        if name in weights and weights[name].shape != tensor.shape:
            found.append(f"{name} is {list(weights[name].shape)} in {WEIGHTS}, {list(tensor.shape)} in {CONFIG}")
    return found


def _fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Replaces the module's parameters and persistent buffers by copies of ``weights``, in the dtype and memory
    layout of the old ones. Parameters that several modules share stay shared."""
    filled: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in filled:
            copy = _like(tensor).copy_(weights[name])
            parameter = isinstance(tensor, nn.Parameter)
            filled[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if parameter else copy
        state[name] = filled[id(tensor)]
    module.load_state_dict(state, assign=True)
    for part in module.modules():  # buffers without elements have nothing to load: they only know the device
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta and buffer.numel() == 0:
                part._buffers[name] = _like(buffer)


def _like(tensor: Tensor) -> Tensor:
    """`torch.empty_like` on the CPU. For a meta tensor torch computes it in Python and imports sympy to do so; the
    memory of what is made in between is never touched."""
    return torch.empty_like(torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu"))
