"""Cross-entropy of many positions over a large vocabulary, in blocks that fit into a processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

AT_ONCE = 1 << 19
"""Logits per block on a CPU: 2 MB in float32, which fits into its cache. A GPU gets 64 times as many."""


class _CrossEntropy(torch.autograd.Function):
    """Computes the gradient, softmax(z) minus the target, together with the loss, while the block is in the cache.
    Only the gradient is kept for the backward pass, in the dtype of the logits (float32 for float16)."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target_ids: Tensor,
        pad_id: int,
        smoothing: float,
        r_drop: float,
        twins: Tensor | None,
        learns: bool,
    ) -> Tensor:
        """The summed loss of (N, V) logits, and with ``learns`` their gradient. ``twins``: (2, N / 2) int64, the
        rows that ``r_drop`` compares."""
        V, on_cpu = logits.size(1), logits.device.type == "cpu"
        loss = torch.zeros((), device=logits.device)
        # Not float16: before the gradient scaler is applied, small values would underflow.
        dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        gradient = torch.empty_like(logits, dtype=dtype) if learns else None
        for rows in _blocks(len(logits), (AT_ONCE if on_cpu else 64 * AT_ONCE) // V, twins):
            targets = target_ids[rows].unsqueeze(1)
            padding = targets == pad_id
            log_probs = logits[rows].log_softmax(-1, torch.float32)
            losses = (smoothing - 1) * log_probs.gather(1, targets)
            if smoothing:
                losses -= smoothing * log_probs.mean(1, keepdim=True)
            loss += losses.masked_fill_(padding, 0).sum()
            if twins is not None:
                divergence, slope = _divergence(log_probs)
                loss += r_drop / 2 * divergence.masked_fill_(padding[: len(divergence)], 0).sum()
            if gradient is not None:
                piece = log_probs.exp_().sub_(smoothing / V)
                piece.scatter_add_(1, targets, torch.full_like(losses, smoothing - 1))
                gradient[rows] = (piece if twins is None else piece.add_(slope, alpha=r_drop / 2)).to(dtype)
        if gradient is not None:
            padding = target_ids == pad_id
            if on_cpu:  # few rows; on a GPU, nonzero() would wait for it
                gradient.index_fill_(0, padding.nonzero().squeeze(1), 0)
            else:
                gradient.masked_fill_(padding[:, None], 0)
            ctx.save_for_backward(gradient)
            ctx.dtype = logits.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        if gradient.device.type == "cpu" and gradients[0] == 1:  # an unscaled loss
            return gradient.to(ctx.dtype), None, None, None, None, None, None
        scaled = gradient * gradients[0].to(gradient.dtype)
        return scaled.to(ctx.dtype), None, None, None, None, None, None


def _blocks(num_rows: int, size: int, twins: Tensor | None) -> Iterator[slice | Tensor]:
    """The rows in blocks of about ``size``: slices; with twins indices, the second half the twins of the first."""
    if twins is None:
        for at in range(0, num_rows, max(size, 1)):
            yield slice(at, at + max(size, 1))
    else:
        for part in twins.split(max(size // 2, 1), 1):
            yield part.flatten()


def _divergence(log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p‖q) + KL(q‖p), (N / 2, 1), of log-probabilities (N, V) whose first half is p and second q; and its
    gradient with respect to their logits (N, V)."""
    p, q = log_probs.exp().chunk(2)
    apart = log_probs[: len(p)] - log_probs[len(p) :]
    forth, back = (p * apart).sum(1, keepdim=True), -(q * apart).sum(1, keepdim=True)
    return forth + back, torch.cat([p * (apart + (1 - forth)) - q, q * ((1 - back) - apart) - p])


def cross_entropy(
    logits: Tensor, target_ids: Tensor, pad_id: int, label_smoothing: float = 0.0, r_drop: float = 0.0
) -> Tensor:
    """Summed cross-entropy: `torch.nn.functional.cross_entropy` with ``reduction="sum"``, but faster.

    Args:
        logits: (R, T, V) float.
        target_ids: (R, T) int64; positions whose target is ``pad_id`` do not count.
        pad_id: the token of padding.
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al., 2016).
        r_drop: adds this weight times (KL(p‖q) + KL(q‖p)) / 2 between the predictions p of each row 2b and q of
            its twin 2b + 1 under another dropout mask (R-Drop, Liang et al., 2021).

    Returns:
        A float32 scalar, nats.

    Example:
        >>> import torch
        >>> from gen.models.cross_entropy import cross_entropy
        >>> cross_entropy(torch.zeros(1, 3, 8), torch.tensor([[5, 2, 0]]), pad_id=0)  # 2 ln 8
        tensor(4.1589)
    """
    twins = None
    if r_drop:
        twins = torch.arange(target_ids.numel(), device=logits.device)
        twins = twins.view(-1, 2, target_ids.size(1)).transpose(0, 1).flatten(1)
    learns = torch.is_grad_enabled() and logits.requires_grad
    flat = logits.flatten(0, 1), target_ids.flatten()
    loss: Tensor = _CrossEntropy.apply(*flat, pad_id, label_smoothing, r_drop, twins, learns)
    return loss
