"""Copying from the source: a pointer-generator (See et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gen.models.memory import Memory


class CopyGate(nn.Module):
    """Mixes what the decoder would write with the tokens of the source that it looks at.

    p(w) = g · softmax(logits)(w) + (1 − g) · Σ attention over the positions that hold w, and g = σ(gate(top)). The
    mixture comes as logits again, so that loss and search need not know of it: only those of the source's tokens
    change, by z → log(eᶻ + eʳ · Σ attention) with r = logsumexp(logits) − gate(top).

    Positions that hold no token, such as those of a picture, are not copied from: their attention counts for
    neither side.

    Args:
        size: of the vectors that the gate is computed from.
        pad_id: what positions without a token hold.

    Example:
        >>> gate = CopyGate(size=2)
        >>> _ = torch.nn.init.zeros_(gate.gate.weight), torch.nn.init.zeros_(gate.gate.bias)  # g = 0.5
        >>> tokens = torch.tensor([[4, 5, 4]])
        >>> memory = Memory(torch.zeros(1, 3, 8), tokens > 0, torch.zeros(1, 8), tokens=tokens)
        >>> attention = torch.tensor([[[0.25, 0.25, 0.5]]])
        >>> gate(torch.zeros(1, 1, 10), torch.zeros(1, 1, 2), attention, memory).softmax(-1)[0, 0, 3:6].detach()
        tensor([0.0500, 0.4250, 0.1750])
    """

    def __init__(self, size: int, pad_id: int = 0) -> None:
        super().__init__()
        self.gate = nn.Linear(size, 1)
        self.pad_id = pad_id

    def forward(self, logits: Tensor, top: Tensor, attention: Tensor, memory: Memory) -> Tensor:
        """The logits of the mixture, (R, T, V).

        Args:
            logits: (R, T, V), R = B·W in input-major order.
            top: (R, T, size).
            attention: (R, T, S) float32.
            memory: of B inputs, with their tokens.
        """
        assert memory.tokens is not None
        (R, T, V), (B, S) = logits.shape, memory.tokens.shape
        N = R // B * T  # positions of an input
        own = logits.reshape(B, N, V)
        # A token's attention is gathered where it is first.
        first = (memory.tokens[:, :, None] == memory.tokens[:, None]).int().argmax(-1)  # (B, S)
        looked = attention.reshape(B, N, S)
        looked = torch.zeros_like(looked).scatter_add(-1, first[:, None].expand(B, N, S), looked)
        tokens = memory.tokens[:, None].expand(B, N, S)
        rest = own.float().logsumexp(-1, keepdim=True) - self.gate(top).float().reshape(B, N, 1)
        copied = rest + looked.clamp(min=torch.finfo(looked.dtype).tiny).log()
        more = nn.functional.softplus(copied - own.gather(-1, tokens).float())
        more = more.masked_fill((looked == 0) | (tokens == self.pad_id), 0)
        return own.scatter_add(-1, tokens, more.to(own.dtype)).reshape(R, T, V)
