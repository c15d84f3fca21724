"""Distributed training: ranks, shards of the data, and collective operations with `torch.distributed`.

torchrun starts the processes and restarts them. A single process has rank 0 of 1; then nothing here costs
anything, and torch is not even imported.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from gen.base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = timedelta(hours=12)  # one process may compute features of a million pictures while the others wait


def start() -> None:
    """Joins the process group if torchrun started several processes. Idempotent."""
    if _environment("WORLD_SIZE", 1) > 1 and not _together():
        if missing := [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(n)]:
            raise UserError(f"WORLD_SIZE is set in the environment, {missing[0]} is not: start with torchrun")
        if not 0 <= _environment("RANK", 0) < _environment("WORLD_SIZE", 1):
            raise UserError(
                "RANK is not below WORLD_SIZE in the environment: start several processes with torchrun"
            )
        import torch
        import torch.distributed as dist

        # With CUDA two backends: gloo for CPU tensors and Python objects, NCCL for GPU tensors.
        cuda = torch.cuda.is_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
        atexit.register(stop)


def _environment(name: str, default: int) -> int:
    """A number that torchrun sets."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(f"{name}={text!r} in the environment is no number: unset it, or start with torchrun")
    return int(text)


def stop() -> None:
    """Leaves the process group: from here on this process is a single one."""
    if _together():
        _dist().destroy_process_group()


def _dist() -> Any:
    return sys.modules["torch.distributed"]


def _together() -> bool:
    """Whether this process is in a process group, and not `alone`."""
    return not _alone and "torch.distributed" in sys.modules and _dist().is_initialized()


_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process is a single one: it does not wait for the others, which do something else."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def size() -> int:
    """The number of processes."""
    return _dist().get_world_size() if _together() else 1


def one_process(option: str) -> None:
    """Raises `UserError` for an option that needs what all processes know if there are several."""
    if size() > 1:
        raise UserError(f"{option} runs in one process: start the command without torchrun")


def rank() -> int:
    """The rank of this process, from 0."""
    return _dist().get_rank() if _together() else 0


def is_main() -> bool:
    """Whether this is rank 0, the process that writes files and messages."""
    return rank() == 0


def local_rank() -> int:
    """The rank among the processes on this machine: the index of its GPU."""
    return _environment("LOCAL_RANK", 0)


def shard(items: T) -> T:
    """This process's part of a sequence or array: items ``rank()``, ``rank() + size()``, …

    Example:
        >>> shard([1, 2, 3])  # a single process gets all items
        [1, 2, 3]
    """
    return items[rank() :: size()]  # type: ignore[index]


def gather(items: Sequence[T]) -> list[T]:
    """The results of all processes, in the order of the items before `shard`; the same list in every process."""
    if size() == 1:
        return list(items)
    parts: list[Any] = [None] * size()
    _dist().all_gather_object(parts, list(items))
    longest = max(map(len, parts))
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def all_gather(value: T) -> list[T]:
    """The values of all processes, by rank."""
    return gather([value])


def all_reduce_sum(*values: float) -> list[float]:
    """The sum of each value over all processes, in float64."""
    return _reduce(values, "SUM")


def all_reduce_max(*values: float) -> list[float]:
    """The maximum of each value over all processes, in float64."""
    return _reduce(values, "MAX")


def _reduce(values: Sequence[float], operation: str) -> list[float]:
    if size() == 1:
        return list(values)
    import torch

    joined = torch.tensor(values, dtype=torch.float64)
    _dist().all_reduce(joined, getattr(_dist().ReduceOp, operation))
    return joined.tolist()


def all_reduce_(tensors: Sequence[Tensor]) -> None:
    """Sums tensors over all processes, in place. Every process passes the same number, with the same shapes."""
    if size() == 1 or not tensors:
        return
    import torch

    flat = torch.cat([t.flatten() for t in tensors])
    _dist().all_reduce(flat)
    parts = flat.split([t.numel() for t in tensors])
    torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])


def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Copies rank 0's tensors to all processes, in place."""
    if size() > 1:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            _dist().broadcast(whole, 0)
            tensor.data.copy_(whole)


def share_out(items: Iterable[T], work: Callable[[Iterable[T]], Iterable[R]], block: int = 1024) -> Iterator[R]:
    """Yields the results of ``work``, one per item, in order. Rank 0 reads the items and gets the results; every
    process works on its shard of each block.

    Args:
        items: any number; read by rank 0 only.
        work: items → one result per item; results must be picklable.
        block: items per process and block.

    Example:
        >>> list(share_out([1, 2, 3], lambda some: (2 * n for n in some)))
        [2, 4, 6]
    """
    if size() == 1:
        yield from work(items)
        return
    source = iter(items)
    while True:
        blocks: list[Any] = [list(islice(source, block * size())) if is_main() else None]
        _dist().broadcast_object_list(blocks)
        if not blocks[0]:
            return
        results = gather(list(work(shard(blocks[0]))))
        if is_main():
            yield from results


@contextmanager
def main_first() -> Iterator[None]:
    """Runs the body in rank 0 first, then in the others, which find it done: a cache filled, a folder made."""
    if size() > 1 and not is_main():
        _dist().barrier()
    try:
        yield
    finally:  # also on errors, or the others would wait for ever; they meet the same error
        if size() > 1 and is_main():
            _dist().barrier()
