"""Several processes that do one piece of work: who am I, what is my share, what do we all have together.

torchrun starts them and starts them again; torch.distributed lets them talk. On its own a process is the main one
of one, and everything here costs nothing: not even torch is imported.
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

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = timedelta(hours=12)  # one process may look at a million pictures while the others wait


def start() -> None:
    """Joins the other processes, where torchrun started several. Idempotent."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not _together():
        import torch
        import torch.distributed as dist

        # Both backends where there are two: gloo for plain values, NCCL for what lives on a GPU.
        cuda = torch.cuda.is_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
        atexit.register(stop)


def stop() -> None:
    """Leaves the others: from here on, each process is on its own."""
    if _together():
        _dist().destroy_process_group()


def _dist() -> Any:
    return sys.modules["torch.distributed"]


def _together() -> bool:
    """Whether there are others to talk to."""
    return "torch.distributed" in sys.modules and _dist().is_initialized()


def size() -> int:
    """How many processes there are."""
    return _dist().get_world_size() if _together() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return _dist().get_rank() if _together() else 0


def is_main() -> bool:
    """Whether this is the one that writes and speaks."""
    return rank() == 0


def local_rank() -> int:
    """Which of this machine's processes this is: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def shard(items: T) -> T:
    """This process's share of a sequence (or an array): every `size`-th of its items.

    Example:
        >>> shard([1, 2, 3])  # on its own, a process has all of them
        [1, 2, 3]
    """
    return items[rank() :: size()]  # type: ignore[index]


def gather(items: Sequence[T]) -> list[T]:
    """Everyone's results in the order of the items that `mine` dealt out; the same list for every process."""
    if size() == 1:
        return list(items)
    parts: list[Any] = [None] * size()
    _dist().all_gather_object(parts, list(items))
    longest = max(map(len, parts))
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def all_gather(value: T) -> list[T]:
    """One value of each process, by rank."""
    return gather([value])


def all_reduce_sum(*values: float) -> list[float]:
    """Sums over all processes, in float64."""
    return _reduce(values, "SUM")


def all_reduce_max(*values: float) -> list[float]:
    """The largest of all processes' values."""
    return _reduce(values, "MAX")


def _reduce(values: Sequence[float], operation: str) -> list[float]:
    if size() == 1:
        return list(values)
    import torch

    joined = torch.tensor(values, dtype=torch.float64)
    _dist().all_reduce(joined, getattr(_dist().ReduceOp, operation))
    return joined.tolist()


def all_reduce_(tensors: Sequence[Tensor]) -> None:
    """Sums of everyone's tensors, in place; all processes give as many, of the same shapes."""
    if size() == 1 or not tensors:
        return
    import torch

    flat = torch.cat([t.flatten() for t in tensors])
    _dist().all_reduce(flat)
    parts = flat.split([t.numel() for t in tensors])
    torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])


def broadcast_(tensors: Iterable[Tensor]) -> None:
    """The main process's tensors for everyone, in place."""
    if size() > 1:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            _dist().broadcast(whole, 0)
            tensor.data.copy_(whole)


def share_out(items: Iterable[T], work: Callable[[Iterable[T]], Iterable[R]], block: int = 1024) -> Iterator[R]:
    """What ``work`` makes of items, one result each, in their order. The main process reads the items and gets the
    results; every process does its share of each block.

    Args:
        items: any number; read by the main process alone.
        work: items → as many results, which can be pickled.
        block: items a process at a time.

    Example:
        >>> list(share_out([1, 2, 3], lambda some: (2 * n for n in some)))
        [2, 4, 6]
    """
    if size() == 1:
        yield from work(items)
        return
    source = iter(items)
    while True:
        told: list[Any] = [list(islice(source, block * size())) if is_main() else None]
        _dist().broadcast_object_list(told)
        if not told[0]:
            return
        results = gather(list(work(shard(told[0]))))
        if is_main():
            yield from results


@contextmanager
def main_first() -> Iterator[None]:
    """The main process does it before the others do, who then find it done: a cache to fill, a folder to make."""
    if size() > 1 and not is_main():
        _dist().barrier()
    try:
        yield
    finally:  # what fails for the main process fails for the others, too: each says so, and none waits for ever
        if size() > 1 and is_main():
            _dist().barrier()
