"""A recurrent encoder: reads a sentence, gives a vector for every token of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from gen.inputs.processors import SentenceReader
from gen.inputs.tokenizer import TOKENIZERS, Tokenizer
from gen.models.encoders.base import Encoder
from gen.models.memory import Memory
from gen.models.recurrent import RecurrentStack, variational_dropout


class RNNEncoder(Encoder):
    """Embeddings and RNN, GRU or LSTM layers over a sentence, in one direction or in both.

    The memory holds the top layer's outputs, a vector a token and one for the end of the sentence. The summary
    is its state after the last token (and, going backwards, after the first).

    Padding never reaches a state. Going forwards it comes after everything real; going backwards each sentence
    is reversed within its own length, so it comes last again. That keeps the whole batch in the fused
    kernel, which packed sequences leave on a CPU (they take twice as long).

    Args:
        tokenizer: of the sentences.
        embedding_size, hidden_size, num_layers: sizes; ``hidden_size`` is that of one direction.
        cell: "rnn", "gru" or "lstm".
        bidirectional: read in both directions.
        dropout: variational dropout on the input of every layer but the first, and on the memory.
        embedding_dropout: the same on the embeddings.
        weight_dropout: DropConnect on the recurrent weights.
        lowercase: lower-case sentences first.
        share_embeddings: use the decoder's embeddings, where both sides share a vocabulary.
        longest, usual: how long the sentences of the training are; see `SentenceReader`.

    Example:
        >>> encoder = RNNEncoder(CharTokenizer.train(["hello"]), hidden_size=8)
        >>> encoder(encoder.prepare(["hell", "o"]).source).values.shape   # 4 characters and the end
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        embedding_size: int = 256,
        hidden_size: int = 160,
        num_layers: int = 2,
        cell: str = "lstm",
        bidirectional: bool = True,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        lowercase: bool = False,
        share_embeddings: bool = False,
        longest: int = 0,
        usual: int = 0,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.reader: SentenceReader = SentenceReader(tokenizer, lowercase=lowercase, longest=longest, usual=usual)
        self.dropout, self.embedding_dropout = dropout, embedding_dropout
        self.share_embeddings = share_embeddings
        self.memory_size = hidden_size * (2 if bidirectional else 1)
        self.embedding = nn.Embedding(len(tokenizer), embedding_size, padding_idx=tokenizer.pad_id)
        self.embedding_scale = 1.0
        sizes = [embedding_size] + [self.memory_size] * (num_layers - 1)
        layer = partial(
            RecurrentStack, hidden_size=hidden_size, num_layers=1, cell=cell, weight_dropout=weight_dropout
        )
        self.forwards = nn.ModuleList(layer(size) for size in sizes)
        self.backwards = nn.ModuleList(layer(size) for size in sizes if bidirectional)
        self.config = {
            **self.reader.config(),
            "embedding_size": embedding_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "cell": cell,
            "bidirectional": bidirectional,
            "dropout": dropout,
            "embedding_dropout": embedding_dropout,
            "weight_dropout": weight_dropout,
            "share_embeddings": share_embeddings,
        }

    def adopt(self, embedding: nn.Embedding, scale: float) -> None:
        if self.share_embeddings:
            if len(self.tokenizer) != embedding.num_embeddings:
                raise ValueError("a shared embedding needs one vocabulary")
            self.embedding, self.embedding_scale = embedding, scale

    @classmethod
    def from_config(cls, config: dict[str, Any], read: Callable[[str], bytes]) -> RNNEncoder:
        sizes = {name: value for name, value in config.items() if name != "tokenizer"}
        return cls(TOKENIZERS[config["tokenizer"]].from_bytes(read("tokenizer.bin")), **sizes)

    def describe(self) -> str:
        both = " both ways" if self.config["bidirectional"] else ""
        return f"{self.config['num_layers']} × {self.config['cell']} {self.config['hidden_size']}{both}"

    def forward(self, source: Tensor) -> Memory:
        """Reads sentences.

        Args:
            source: (B, S) int64, every row at least one token (the end), padded on the right.

        Returns:
            The memory: values (B, S, M), zero at padding; summary (B, M).
        """
        mask = source != self.tokenizer.pad_id  # (B, S)
        last = mask.sum(1) - 1  # (B,)
        positions = torch.arange(source.size(1), device=source.device)
        reversal = torch.where(mask, last[:, None] - positions, positions)  # (B, S), its own inverse
        x = self.embedding(source) * self.embedding_scale
        x = variational_dropout(x, self.embedding_dropout, self.training)
        for i, forwards in enumerate(self.forwards):
            x = variational_dropout(x, self.dropout if i else 0.0, self.training)
            read = _read(forwards, x)
            ends = [_at(read, last)]
            if self.backwards:
                other = _read(self.backwards[i], _gather(x, reversal))
                ends.append(_at(other, last))
                read = torch.cat([read, _gather(other, reversal)], -1)
            x = read
        values = variational_dropout(x, self.dropout, self.training) * mask[..., None]
        return Memory(values, mask, torch.cat(ends, -1))


def _read(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's outputs over (B, S, D), from a state of zeros."""
    stack = cast(RecurrentStack, layer)
    return stack(x, stack.zero_state(x.size(0)))[0]


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """(B, S, D) → the same rows in the order of ``index`` (B, S)."""
    return x.gather(1, index[..., None].expand_as(x))


def _at(x: Tensor, position: Tensor) -> Tensor:
    """(B, S, D) → (B, D), each row's vector at ``position`` (B,)."""
    return x[torch.arange(x.size(0), device=x.device), position]
