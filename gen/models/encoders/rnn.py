"""A recurrent encoder: one vector per token of a sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from gen.base.errors import UserError
from gen.inputs.processors import SentenceProcessor, rename_keys
from gen.inputs.tokenizer import SPECIALS, TOKENIZERS, Tokenizer
from gen.models.encoders.base import Encoder
from gen.models.memory import Memory
from gen.models.recurrent import RecurrentStack, variational_dropout


class RNNEncoder(Encoder):
    """Embeddings and recurrent layers over a sentence, in one direction or in both.

    The memory holds the top layer's outputs: one vector per token, and one for EOS. The summary is the top layer's
    state after the last token (backwards: after the first), or the mean of the memory.

    Padding never reaches a state. Forwards, it follows all real tokens; backwards, each sentence is reversed
    within its own length, so padding comes last again. This keeps the whole batch in the fused kernel; on a CPU,
    packed sequences leave it and take twice as long.

    Args:
        tokenizer: tokenizer of the sentences.
        embedding_size, hidden_size, num_layers: sizes; ``hidden_size`` is per direction.
        cell: name of a cell; see `gen.models.cells`.
        bidirectional: read in both directions.
        dropout: variational dropout on the input of every layer but the first, and on the memory.
        embedding_dropout: variational dropout on the embeddings.
        weight_dropout: DropConnect on the recurrent weights.
        lowercase: convert sentences to lower case first.
        share_embeddings: use the decoder's embeddings; both sides must have one vocabulary.
        pooling: what the summary is: "last" state, or "mean" over the tokens.
        max_length, multi_sentence_p90: lengths of the training sentences; see `SentenceProcessor`.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> encoder = RNNEncoder(CharTokenizer.train(["hello"]), hidden_size=8)
        >>> encoder(encoder.prepare(["hell", "o"]).source).values.shape  # 4 characters and EOS
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
        pooling: str = "last",
        max_length: int = 0,
        multi_sentence_p90: int = 0,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        processor = SentenceProcessor(
            tokenizer, lowercase=lowercase, max_length=max_length, multi_sentence_p90=multi_sentence_p90
        )
        self.processors = {"sentence": processor}
        self.dropout, self.embedding_dropout = dropout, embedding_dropout
        self.share_embeddings, self.pooling = share_embeddings, pooling
        self.memory_size = hidden_size * (2 if bidirectional else 1)
        self.embedding = nn.Embedding(len(tokenizer), embedding_size, padding_idx=tokenizer.pad_id)
        self.embedding_scale = 1.0
        self.target_ids: Tensor | None
        self.register_buffer("target_ids", None, persistent=False)
        sizes = [embedding_size] + [self.memory_size] * (num_layers - 1)
        layer = partial(
            RecurrentStack, hidden_size=hidden_size, num_layers=1, cell=cell, weight_dropout=weight_dropout
        )
        self.forwards = nn.ModuleList(layer(size) for size in sizes)
        self.backwards = nn.ModuleList(layer(size) for size in sizes if bidirectional)
        self.config = {
            **processor.config(),
            "embedding_size": embedding_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "cell": cell,
            "bidirectional": bidirectional,
            "dropout": dropout,
            "embedding_dropout": embedding_dropout,
            "weight_dropout": weight_dropout,
            "share_embeddings": share_embeddings,
            "pooling": pooling,
        }

    @classmethod
    def of(cls, tokenizer: Tokenizer, sizes: Any, **own: Any) -> RNNEncoder:
        """From the options of a task, and what else is its own."""
        names = ("embedding_size", "cell", "bidirectional", "dropout", "embedding_dropout", "weight_dropout")
        shared = {name: getattr(sizes, name) for name in names}
        return cls(tokenizer, hidden_size=sizes.encoder_size, num_layers=sizes.encoder_layers, **shared, **own)

    @property
    def lengths(self) -> tuple[int, int]:
        """What it knows of the lengths of sentences in training: `SentenceProcessor`'s ``max_length`` and
        ``multi_sentence_p90``."""
        processor = cast(SentenceProcessor, self.processors["sentence"])
        return processor.max_length, processor.multi_sentence_p90

    def set_lengths(self, max_length: int, multi_sentence_p90: int) -> None:
        """Replaces `lengths`."""
        processor = cast(SentenceProcessor, self.processors["sentence"])
        processor.max_length, processor.multi_sentence_p90 = max_length, multi_sentence_p90
        self.config.update(processor.config())

    def adopt(self, embedding: nn.Embedding, scale: float) -> None:
        if self.share_embeddings:
            if len(self.tokenizer) != embedding.num_embeddings:
                raise ValueError("a shared embedding needs one vocabulary")
            self.embedding, self.embedding_scale = embedding, scale

    def give_tokens(self, tokenizer: Tokenizer) -> None:
        ids = {text: i for i, text in enumerate(tokenizer.tokens()) if i >= len(SPECIALS)}
        found = [ids.get(text, tokenizer.unk_id) for text in self.tokenizer.tokens()[len(SPECIALS) :]]
        if not any(i != tokenizer.unk_id for i in found):
            raise UserError("--copy: no token of the source is one of the target: leave out --separate")
        self.target_ids = torch.tensor([*range(len(SPECIALS)), *found])

    @classmethod
    def from_config(cls, config: dict[str, Any], read: Callable[[str], bytes]) -> RNNEncoder:
        arguments = rename_keys(config, SentenceProcessor.OLD_NAMES)
        tokenizer = TOKENIZERS[arguments.pop("tokenizer")].from_bytes(read("tokenizer.bin"))
        return cls(tokenizer, **arguments)

    def describe(self) -> str:
        both = " both ways" if self.config["bidirectional"] else ""
        return f"{self.config['num_layers']} × {self.config['cell']} {self.config['hidden_size']}{both}"

    def forward(self, source: dict[str, Tensor]) -> Memory:
        """Encodes sentences.

        Args:
            source: "sentence": (B, S) int64 token ids, at least one (EOS) per row, padded on the right.

        Returns:
            The memory: values (B, S, M), zero at padding; summary (B, M).
        """
        token_ids = source["sentence"]
        mask = token_ids != self.tokenizer.pad_id  # (B, S)
        last = mask.sum(1) - 1  # (B,)
        positions = torch.arange(token_ids.size(1), device=token_ids.device)
        reversal = torch.where(mask, last[:, None] - positions, positions)  # (B, S), its own inverse
        x = self.embedding(token_ids) * self.embedding_scale
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
        mean = self.pooling == "mean"
        summary = values.sum(1) / mask.sum(1, keepdim=True).clamp(min=1) if mean else torch.cat(ends, -1)
        tokens = None if self.target_ids is None else self.target_ids[token_ids]
        return Memory(values, mask, summary, tokens=tokens)


def _read(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's outputs over (B, S, D), starting from a state of zeros."""
    stack = cast(RecurrentStack, layer)
    return stack(x, stack.zero_state(x.size(0)))[0]


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """(B, S, D) → the same vectors in the order of ``index`` (B, S)."""
    return x.gather(1, index[..., None].expand_as(x))


def _at(x: Tensor, position: Tensor) -> Tensor:
    """(B, S, D) → (B, D), each row's vector at ``position`` (B,)."""
    return x[torch.arange(x.size(0), device=x.device), position]
