"""The decoder of every task: a recurrent language model conditioned on a `Memory`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gen.base.errors import UserError
from gen.models.attention import build_attention
from gen.models.copy_gate import CopyGate
from gen.models.memory import Memory
from gen.models.recurrent import RecurrentStack, StackState, variational_dropout


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder's sizes. Defaults are small; tasks choose their own.

    Attributes:
        vocab_size: V, the number of tokens.
        embedding_size: of the vector of a token.
        hidden_size: H, of every layer.
        num_layers: the first lies below the attention, the others above.
        cell: a name that `register_cell` knows.
        attention: how the memory is looked at; "none": only its summary is read, for the first state.
        num_heads: of "multihead"; it divides H.
        dropout, embedding_dropout, weight_dropout: between layers, on tokens' vectors, on recurrent weights.
        residual: adds the input of a layer to its output, where sizes are equal.
        layer_norm: normalises the input of every layer.
        tie_embeddings: one matrix for embeddings and output.
        copy: may take a token of the source instead of writing one; needs attention.
    """

    vocab_size: int
    embedding_size: int = 128
    hidden_size: int = 512
    num_layers: int = 1
    cell: str = "lstm"
    attention: Literal["none", "dot", "additive", "multihead"] = "none"
    num_heads: int = 4
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    weight_dropout: float = 0.0
    residual: bool = False
    layer_norm: bool = False
    tie_embeddings: bool = False
    copy: bool = False

    @classmethod
    def of(cls, vocab_size: int, sizes: Any) -> DecoderConfig:
        """From the options of a task: the fields that ``sizes`` has; a ``tie`` but "none" ties them."""
        known = {f.name: getattr(sizes, f.name) for f in fields(cls) if hasattr(sizes, f.name)}
        return cls(
            **{**known, "vocab_size": vocab_size, "tie_embeddings": getattr(sizes, "tie", "none") != "none"}
        )


@dataclass(frozen=True)
class DecoderState:
    """The recurrent state between two calls: a value, never kept on a module.

    Attributes:
        layers: per layer, the vectors of its cell, each (R, H) float: (hidden, cell) for an LSTM.
    """

    layers: StackState

    def _map(self, f: Any) -> DecoderState:
        return DecoderState(tuple(tuple(f(s) for s in layer) for layer in self.layers))

    def select(self, rows: Tensor | np.ndarray) -> DecoderState:
        """The state whose row r is this one's row ``rows[r]``: how beam search reorders hypotheses."""
        index = torch.as_tensor(rows, device=self.layers[0][0].device)
        return self._map(lambda s: s.index_select(0, index))

    @staticmethod
    def join(states: Sequence[DecoderState]) -> DecoderState:
        """The rows of several states, concatenated."""
        if len(states) == 1:
            return states[0]
        layers = zip(*(state.layers for state in states), strict=True)
        return DecoderState(tuple(tuple(torch.cat(s) for s in zip(*layer, strict=True)) for layer in layers))

    def detach(self) -> DecoderState:
        """The same values without gradient history, for truncated back-propagation."""
        return self._map(lambda s: s.detach())


@dataclass(frozen=True)
class DecoderOutput:
    """What `Decoder.forward` returns.

    Attributes:
        logits: (R, T, V) float, the next token's at every position.
        state: after the last position.
        attention: (R, T, S) float32 weights, or None without attention.
        features: (R, T, F) float, what the logits are a linear function of, but for what is copied.
    """

    logits: Tensor
    state: DecoderState
    attention: Tensor | None
    features: Tensor


class Decoder(nn.Module):
    """Embeddings → lower recurrent layer → attention → upper layers → logits.

    Attention is *between* recurrent layers: the lower layer's outputs query the memory for all T positions in one
    product, and the upper layers read [lower output, context]. So a whole sequence runs through the fused kernels
    without a loop over time, and one call with T tokens gives the same as T calls with one token.

    Args:
        config: sizes and kinds.
        memory_size: M of the encoder, 0 for none.
        pad_id: the padding token. Its embedding begins at zero; without ``tie_embeddings`` it stays there.

    Example:
        >>> import torch
        >>> from gen.models.decoder import Decoder, DecoderConfig
        >>> from gen.models.memory import Memory
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
        # With attention, the logits come from [top layer, context] through a tanh (Luong et al., 2015). That is a
        # shortcut around the upper layers, through which attention learns much sooner. Tied embeddings need a
        # vector of the embedding's size.
        looks = self.attention.context_size > 0
        top = self.upper.output_size + (self.attention.context_size if looks and c.num_layers > 1 else 0)
        wanted = c.embedding_size if c.tie_embeddings else (c.hidden_size if looks else top)
        self.readout = nn.Linear(top, wanted) if looks or wanted != top else None
        self._looks = looks
        # Tied embeddings have the small scale of output weights; as inputs they are scaled to unit variance.
        self.embedding_scale = c.embedding_size**0.5 if c.tie_embeddings else 1.0
        self.output = nn.Linear(wanted, c.vocab_size)
        if c.copy and not looks:
            raise UserError("--copy needs attention to an input")
        self.copy_gate = CopyGate(top, pad_id) if c.copy else None
        state_size = c.num_layers * self.lower.states_per_layer * c.hidden_size
        # From the summary to the first state. Without an encoder (M = 0) the state is the bias alone, and learned.
        self.first_state = nn.Linear(memory_size, state_size) if memory_size else None
        self.first_state_bias = nn.Parameter(torch.zeros(state_size))
        self._initialise(pad_id)

    def _initialise(self, pad_id: int) -> None:
        # torch's default initialisation is kept: unit-variance embeddings and small recurrent matrices learned
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
        """The memory with its ``attention_cache`` filled in, which is the same at every step. Idempotent."""
        if memory.attention_cache is not None:
            return memory
        return memory.with_attention_cache(self.attention.keys(memory.values))

    def init_state(self, memory: Memory) -> DecoderState:
        """The state before the first token, computed from the memory's summary: B rows."""
        bias = self.first_state_bias
        values = bias.expand(memory.summary.size(0), -1)
        if self.first_state is not None:
            values = values + self.first_state(memory.summary).float()
        H, n = self.config.hidden_size, self.lower.states_per_layer
        parts = torch.tanh(values).split(H, 1)  # num_layers * n parts of (B, H)
        return DecoderState(tuple(tuple(parts[i : i + n]) for i in range(0, len(parts), n)))

    def state_shapes(self, rows: int) -> list[list[tuple[int, int]]]:
        """The shapes of the vectors of a state, per layer."""
        return [[(rows, self.config.hidden_size)] * self.lower.states_per_layer] * self.config.num_layers

    def forward(self, token_ids: Tensor, state: DecoderState, memory: Memory) -> DecoderOutput:
        """Predicts the token after each of T tokens: under teacher forcing, for a prompt, or for one step.

        Args:
            token_ids: (R, T) int64, R = B·W rows in input-major order (the W rows of an input are adjacent).
            state: R rows.
            memory: B inputs; the rows of an input share it.
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
        top = written
        if self.readout is not None:
            written = self.readout(written)
            written = torch.tanh(written) if self._looks else written
        written = variational_dropout(written, c.dropout, self.training)
        logits = self.output(written)  # (R, T, V)
        if self.copy_gate is not None:
            assert attention is not None
            logits = self.copy_gate(logits, top, attention, memory)
        return DecoderOutput(logits, DecoderState(lower_state + upper_state), attention, written)
