"""Device and precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from gen.base.distributed import local_rank
from gen.base.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def pick_device(name: str = "auto") -> torch.device:
    """The device called ``name``.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best available one. "cuda" without a number is,
            under torchrun, the process's own GPU.

    Raises:
        UserError: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            device = torch.device("cuda", local_rank() if device.index is None else device.index)
            torch.cuda.set_device(device)
        if device.type == "meta":  # torch has it, but nothing is computed there
            raise ValueError
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        raise UserError(f"--device {name}: not available here; try --device cpu") from error
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for the products that stay in float32
    return device


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products.

    Args:
        precision: one of `PRECISIONS`. "auto" is bfloat16 if the hardware supports it, else float16 on CUDA and
            float32 elsewhere: an emulated bfloat16 is slower than float32.
        device: where they run.

    Raises:
        UserError: fp16 on a CPU, which lacks kernels for it.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError("--precision fp16: needs a GPU; take bf16 or fp32")
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float16
    fast = device.type == "cpu" and torch.backends.mkldnn.is_available() and _cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bf16() -> bool:
    checks = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16")]
    return any(check() for check in checks if check is not None)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """A context with autocast to ``dtype``; without effect for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
