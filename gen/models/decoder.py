"""THE decoder. It writes text, translations and captions alike; what it is about is in the `Memory`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gen.models.attention import build_attention
from gen.models.memory import Memory
from gen.models.recurrent import CELLS, RecurrentStack, StackState, variational_dropout


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder's sizes. Defaults are small; tasks choose their own."""

    vocab_size: int
    embedding_size: int = 128
    hidden_size: int = 512
    num_layers: int = 1
    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    attention: Literal["none", "dot", "additive", "multihead"] = "none"
    num_heads: int = 4
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    weight_dropout: float = 0.0
    residual: bool = False
    layer_norm: bool = False
    tie_embeddings: bool = False


@dataclass(frozen=True)
class DecoderState:
    """Everything the decoder remembers between two calls: a value, never kept on a module.

    Attributes:
        layers: a tuple of (R, H) tensors a layer: (hidden,) or, for an LSTM, (hidden, cell).
    """

    layers: StackState

    def _map(self, f: Any) -> DecoderState:
        return DecoderState(tuple(tuple(f(s) for s in layer) for layer in self.layers))

    def select(self, rows: Tensor | np.ndarray) -> DecoderState:
        """The state whose row r is this one's row ``rows[r]``: all that beam search needs to know."""
        index = torch.as_tensor(rows, device=self.layers[0][0].device)
        return self._map(lambda s: s.index_select(0, index))

    @staticmethod
    def join(states: Sequence[DecoderState]) -> DecoderState:
        """The rows of several states, one after the other."""
        if len(states) == 1:
            return states[0]
        layers = zip(*(state.layers for state in states), strict=True)
        return DecoderState(tuple(tuple(torch.cat(s) for s in zip(*layer, strict=True)) for layer in layers))

    def detach(self) -> DecoderState:
        """The same numbers without their history: the cut of truncated back-propagation."""
        return self._map(lambda s: s.detach())


@dataclass(frozen=True)
class DecoderOutput:
    """What `Decoder.forward` returns.

    Attributes:
        logits: (R, T, V) float, the next token's at every position.
        state: after the last position.
        attention: (R, T, S) float32, or None where the decoder does not look.
    """

    logits: Tensor
    state: DecoderState
    attention: Tensor | None


class Decoder(nn.Module):
    """Embeddings → first recurrent layer → attention → the layers above → logits.

    Attention sits *between* recurrent layers: the first layer's outputs query the memory for all T positions
    in one product, and the layers above read [first layer, context]. So a whole sequence runs through the
    fused kernels with no loop over time, and T tokens at once give what T calls on one token give.

    Args:
        config: sizes and kinds.
        memory_size: M of the encoder, 0 for none.
        pad_id: the padding token; its embedding stays zero.

    Example:
        >>> decoder = Decoder(DecoderConfig(vocab_size=100), memory_size=0)
        >>> memory = Memory.empty(4)
        >>> output = decoder(torch.randint(100, (4, 20)), decoder.init_state(memory), memory)
        >>> output.logits.shape
        torch.Size([4, 20, 100])
    """

    def __init__(self, config: DecoderConfig, memory_size: int, pad_id: int = 0) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(c.vocab_size, c.embedding_size, padding_idx=pad_id)
        stack = partial(
            RecurrentStack,
            hidden_size=c.hidden_size,
            cell=c.cell,
            weight_dropout=c.weight_dropout,
            residual=c.residual,
            layer_norm=c.layer_norm,
        )
        self.lower = stack(c.embedding_size, num_layers=1)
        self.attention = build_attention(c.attention, c.hidden_size, memory_size, c.num_heads)
        seen = c.hidden_size + self.attention.context_size
        self.upper = stack(seen, num_layers=c.num_layers - 1, dropout=c.dropout)
        # Where there is something to look at, the logits are made from [top layer, context] through a tanh (Luong
        # et al., 2015). With layers above the attention that is a short cut around them, through which it learns
        # where to look much sooner. Tied embeddings want a vector of their own size.
        looks = self.attention.context_size > 0
        top = self.upper.output_size + (self.attention.context_size if looks and c.num_layers > 1 else 0)
        wanted = c.embedding_size if c.tie_embeddings else (c.hidden_size if looks else top)
        self.readout = nn.Linear(top, wanted) if looks or wanted != top else None
        self._looks = looks
        # Tied embeddings are as small as an output layer's weights have to be; as inputs they need size 1.
        self.embedding_scale = c.embedding_size**0.5 if c.tie_embeddings else 1.0
        self.output = nn.Linear(wanted, c.vocab_size)
        state_size = c.num_layers * CELLS[c.cell][2] * c.hidden_size
        # From the summary to the first state. Without an encoder (M = 0) the bias is all of it: a learned one.
        self.first_state = nn.Linear(memory_size, state_size) if memory_size else None
        self.first_state_bias = nn.Parameter(torch.zeros(state_size))
        self._initialise(pad_id)

    def _initialise(self, pad_id: int) -> None:
        # torch's own first weights are kept: embeddings of size 1 and small recurrent matrices learned
        # faster than Glorot and orthogonal ones (1.458 against 1.520 nats on Shakespeare in two minutes).
        if self.config.tie_embeddings:
            nn.init.normal_(self.embedding.weight, std=self.config.embedding_size**-0.5)
            self.output.weight = self.embedding.weight
        else:
            nn.init.xavier_uniform_(self.output.weight)
        with torch.no_grad():
            self.embedding.weight[pad_id] = 0
        nn.init.zeros_(self.output.bias)

    def prepare(self, memory: Memory) -> Memory:
        """The memory with everything computed that does not change from step to step. Idempotent."""
        if memory.attention_cache is not None:
            return memory
        return memory.with_attention_cache(self.attention.keys(memory.values))

    def init_state(self, memory: Memory) -> DecoderState:
        """The state before the first token, from the memory's summary: B rows."""
        bias = self.first_state_bias
        values = bias.expand(memory.summary.size(0), -1)
        if self.first_state is not None:
            values = values + self.first_state(memory.summary).float()
        H, n = self.config.hidden_size, CELLS[self.config.cell][2]
        parts = torch.tanh(values).split(H, 1)  # num_layers * n parts of (B, H)
        return DecoderState(tuple(tuple(parts[i : i + n]) for i in range(0, len(parts), n)))

    def forward(self, token_ids: Tensor, state: DecoderState, memory: Memory) -> DecoderOutput:
        """Reads T tokens and predicts the next one after each: teacher forcing, a prompt, or one step.

        Args:
            token_ids: (R, T) int64, R = B·W rows in input-major order (rows of an input stand together).
            state: R rows.
            memory: B inputs; rows of the same input share it.

        Returns:
            A `DecoderOutput`.
        """
        c = self.config
        memory = self.prepare(memory)
        embedded = self.embedding(token_ids) * self.embedding_scale
        embedded = variational_dropout(embedded, c.embedding_dropout, self.training)
        read, lower_state = self.lower(embedded, state.layers[:1])  # (R, T, H)
        context, attention = self.attention(read, memory)
        written, upper_state = self.upper(torch.cat([read, context], -1), state.layers[1:])
        if self._looks and c.num_layers > 1:
            written = torch.cat([written, context], -1)
        if self.readout is not None:
            written = self.readout(written)
            written = torch.tanh(written) if self._looks else written
        written = variational_dropout(written, c.dropout, self.training)
        logits = self.output(written)  # (R, T, V)
        return DecoderOutput(logits, DecoderState(lower_state + upper_state), attention)
