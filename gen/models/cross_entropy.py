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
        ctx: Any,
        logits: Tensor,
        target_ids: Tensor,
        pad_id: int,
        smoothing: float,
        r_drop: float,
        length: int,
        learns: bool,
    ) -> Tensor:
        """The summed loss of (N, V) logits, and with ``learns`` their gradient. ``r_drop`` compares each text of
        ``length`` rows with the next one."""
        V, on_cpu = logits.size(1), logits.device.type == "cpu"
        loss = torch.zeros((), device=logits.device)
        # Not float16: before the gradient scaler is applied, small values would underflow.
        dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        gradient = torch.empty_like(logits, dtype=dtype) if learns else None
        unit = 2 * length if r_drop else 1  # rows that stay in one block
        rows = max((AT_ONCE if on_cpu else 64 * AT_ONCE) // V // unit, 1) * unit
        for at in range(0, len(logits), rows):
            targets = target_ids[at : at + rows, None]
            padding = targets == pad_id
            log_probs = logits[at : at + rows].log_softmax(-1, torch.float32)
            losses = (smoothing - 1) * log_probs.gather(1, targets)
            if smoothing:
                losses -= smoothing * log_probs.mean(1, keepdim=True)
            piece = log_probs
            if r_drop:
                divergence, piece = _symmetric_kl(log_probs.view(-1, 2, length, V), r_drop / 2)
                losses += divergence
            elif learns:
                piece = log_probs.exp_()
            loss += losses.masked_fill_(padding, 0).sum()
            if gradient is not None:
                piece.sub_(smoothing / V)
                piece.scatter_add_(1, targets, torch.full_like(losses, smoothing - 1))
                gradient[at : at + rows] = piece
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


def _symmetric_kl(log_probs: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Symmetric KL divergence of twins, and its gradient added to the softmax.

    Args:
        log_probs: (B, 2, T, V), log p and log q; overwritten.
        weight: w.

    Returns:
        w KL(p‖q) and w KL(q‖p), (2·B·T, 1); p and q plus the gradient of their sum with respect to the logits,
        (2·B·T, V).
    """
    log_ratio = log_probs[:, 0] - log_probs[:, 1]
    p, q = log_probs.exp_().unbind(1)
    found, losses = torch.empty_like(log_probs), []
    for i, (own, other, sign) in enumerate(((p, q, 1), (q, p, -1))):
        losses.append(sign * weight * (own * log_ratio).sum(-1, keepdim=True))
        factor = torch.add(1 + weight - losses[i], log_ratio, alpha=sign * weight)
        torch.mul(own, factor, out=found[:, i]).sub_(other, alpha=weight)
    return torch.stack(losses, 1).view(-1, 1), found.flatten(0, 2)


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
    learns = torch.is_grad_enabled() and logits.requires_grad
    flat = logits.flatten(0, 1), target_ids.flatten()
    loss: Tensor = _CrossEntropy.apply(*flat, pad_id, label_smoothing, r_drop, target_ids.size(1), learns)
    return loss
