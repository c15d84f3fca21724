"""Cross-entropy of many positions over a large vocabulary, in pieces that stay in a processor's cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

AT_ONCE = 1 << 19
"""Numbers in a piece on a CPU: as float32 they take 2 MB, which fits into its cache. A GPU gets more at once."""


class _CrossEntropy(torch.autograd.Function):
    """The gradient, softmax(z) minus the target, is made where the loss is: what it needs is in the cache by then.
    Only that is kept for the way back, in the logits' own dtype (but for float16)."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target_ids: Tensor, pad_id: int, smoothing: float, learns: bool
    ) -> Tensor:
        """The summed loss of (N, V) logits; where something ``learns`` from it, their gradient is made as well."""
        N, V = logits.shape
        loss = torch.zeros((), device=logits.device)
        # float16 is for after the scaler: until then its smallest numbers would be lost.
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
            if logits.device.type == "cpu":  # few rows; a GPU would have to be waited for to know which
                gradient.index_fill_(0, padding.nonzero().squeeze(1), 0)
            else:
                gradient.masked_fill_(padding[:, None], 0)
            ctx.save_for_backward(gradient)
            ctx.dtype = logits.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        if gradient.device.type == "cpu" and gradients[0] == 1:  # as it is where nothing scales the loss
            return gradient.to(ctx.dtype), None, None, None, None
        return (gradient * gradients[0].to(gradient.dtype)).to(ctx.dtype), None, None, None, None


def cross_entropy(logits: Tensor, target_ids: Tensor, pad_id: int, label_smoothing: float = 0.0) -> Tensor:
    """Summed cross-entropy, as `torch.nn.functional.cross_entropy` with ``reduction="sum"``, and faster.

    Args:
        logits: (N, V) float.
        target_ids: (N,) int64; rows whose target is ``pad_id`` do not count.
        pad_id: see there.
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al., 2016).

    Returns:
        A float32 scalar, nats.

    Example:
        >>> cross_entropy(torch.zeros(3, 8), torch.tensor([5, 2, 0]), pad_id=0)   # 2 ln 8
        tensor(4.1589)
    """
    learns = torch.is_grad_enabled() and logits.requires_grad
    loss: Tensor = _CrossEntropy.apply(logits, target_ids, pad_id, label_smoothing, learns)
    return loss
