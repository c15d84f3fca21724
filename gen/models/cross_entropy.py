"""Cross-entropy of many positions over a large vocabulary, in blocks that fit into a processor's cache."""

from __future__ import annotations

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
        ctx: Any, logits: Tensor, target_ids: Tensor, pad_id: int, smoothing: float, learns: bool
    ) -> Tensor:
        """The summed loss of (N, V) logits, and with ``learns`` their gradient."""
        N, V = logits.shape
        loss = torch.zeros((), device=logits.device)
        # Not float16: before the gradient scaler is applied, small values would underflow.
        dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        gradient = torch.empty_like(logits, dtype=dtype) if learns else None
        rows = max(1, (AT_ONCE if logits.device.type == "cpu" else 64 * AT_ONCE) // V)
        for at in range(0, N, rows):
            targets = target_ids[at : at + rows, None]
            real = targets != pad_id
            log_probs = logits[at : at + rows].log_softmax(-1, torch.float32)
            losses = (smoothing - 1) * log_probs.gather(1, targets)
            if smoothing:
                losses -= smoothing * log_probs.mean(1, keepdim=True)
            loss += losses.masked_fill_(~real, 0).sum()
            if gradient is not None:
                piece = log_probs.exp_().sub_(smoothing / V)
                piece.scatter_add_(1, targets, torch.full_like(losses, smoothing - 1))
                gradient[at : at + rows] = piece
        if gradient is not None:
            padding = target_ids == pad_id
            if logits.device.type == "cpu":  # few rows; on a GPU, nonzero() would wait for it
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
            return gradient.to(ctx.dtype), None, None, None, None
        return (gradient * gradients[0].to(gradient.dtype)).to(ctx.dtype), None, None, None, None


def cross_entropy(logits: Tensor, target_ids: Tensor, pad_id: int, label_smoothing: float = 0.0) -> Tensor:
    """Summed cross-entropy: `torch.nn.functional.cross_entropy` with ``reduction="sum"``, but faster.

    Args:
        logits: (N, V) float.
        target_ids: (N,) int64; rows whose target is ``pad_id`` do not count.
        pad_id: the token of padding.
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al., 2016).

    Returns:
        A float32 scalar, nats.

    Example:
        >>> import torch
        >>> from gen.models.cross_entropy import cross_entropy
        >>> cross_entropy(torch.zeros(3, 8), torch.tensor([5, 2, 0]), pad_id=0)  # 2 ln 8
        tensor(4.1589)
    """
    learns = torch.is_grad_enabled() and logits.requires_grad
    loss: Tensor = _CrossEntropy.apply(logits, target_ids, pad_id, label_smoothing, learns)
    return loss
