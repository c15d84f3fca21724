"""Several encoders as one: for outputs about a picture and a sentence, say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gen.base.errors import UserError
from gen.inputs.items import memory_inputs, named_item
from gen.inputs.processors import SentenceProcessor
from gen.inputs.tokenizer import Tokenizer
from gen.models.encoders.base import Encoder
from gen.models.encoders.registry import build_encoder
from gen.models.memory import Memory


class _Fit(nn.Module):
    """Vectors of size M with a root mean square of 1, times a learned weight: else those of a part can grow until
    attention never finds those of another.

    Vectors that have this size are not projected, and none is centred (Zhang and Sennrich, 2019): elements that
    dropout made zero stay zero.
    """

    def __init__(self, size: int, memory_size: int) -> None:
        super().__init__()
        self.project = nn.Identity() if size == memory_size else nn.Linear(size, memory_size)
        self.weight = nn.Parameter(torch.ones(memory_size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x).float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class JoinedEncoder(Encoder):
    """The memories of several encoders, side by side along S.

    The vectors of every part are brought to size M and one scale. The values are those of the first part, then
    those of the next; the summary is the sum of the summaries. If there are other parts, labels have no positions,
    because attention would rest on them: their vectors are added to all values, which does not change dot-product
    attention. Several parts with positions have a softmax of attention each (`attention_weights`). A part without
    real positions for an item (mask all False) adds nothing to its values or summary.

    Args:
        parts: one encoder per input name, each with a single input processor. An item of the joined encoder is a
            mapping with these names.
        memory_size: M.
        optional: the names that an item may lack: a row of zeros in their source is "nothing given".
        own_softmax: a softmax of attention per part, instead of one over all positions.

    Raises:
        UserError: a part has no memory or not exactly one processor, or its name cannot be used.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> from gen.models.encoders import RNNEncoder
        >>> tokenizer = CharTokenizer.train(["hello"])
        >>> encoder = JoinedEncoder({"first": RNNEncoder(tokenizer), "second": RNNEncoder(tokenizer)}, 32)
        >>> source = encoder.prepare([{"first": "hell", "second": "o"}]).source
        >>> encoder(source).values.shape  # 5 and 2 tokens, with EOS
        torch.Size([1, 7, 32])
    """

    def __init__(
        self,
        parts: Mapping[str, Encoder],
        memory_size: int = 512,
        optional: Sequence[str] = (),
        *,
        own_softmax: bool = True,
    ) -> None:
        super().__init__()
        if not parts:
            raise UserError("a joined encoder needs at least one part")
        for name, part in parts.items():
            if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
                raise UserError(f"joined encoder: {name!r} cannot be the name of a part; choose another")
            if part.memory_size == 0 or len(part.processors) != 1:
                raise UserError(
                    f"joined encoder: the part {name!r} ({type(part).__name__}) must have a memory and one input "
                    "processor"
                )
        self.memory_size = memory_size
        self.parts = nn.ModuleDict(parts)
        self.processors = {name: next(iter(part.processors.values())) for name, part in parts.items()}
        self.optional = list(optional)
        self.own_softmax = own_softmax
        for name, processor in self.processors.items():
            processor.optional = name in optional
        self.fit_values, self.fit_summaries = (
            nn.ModuleDict({name: _Fit(part.memory_size, memory_size) for name, part in parts.items()})
            for _ in range(2)
        )

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The parts by name."""
        return dict(self.parts.items())  # type: ignore[arg-type]

    @property
    def config(self) -> dict[str, Any]:  # type: ignore[override]  # computed: that of a part can change
        """What `from_config` makes the same encoder of. Raises `UserError` if a part cannot be saved."""
        for name, part in self.encoders.items():
            if not part.name or not hasattr(part, "config"):
                raise UserError(
                    f"joined encoder: the part {name!r} cannot be saved: register the class {type(part).__name__} "
                    "and set its `config`"
                )
        parts = {name: {"name": part.name, **part.config} for name, part in self.encoders.items()}
        return {
            "parts": parts,
            "memory_size": self.memory_size,
            "optional": self.optional,
            "own_softmax": self.own_softmax,
        }

    def forward(self, source: dict[str, Tensor]) -> Memory:
        """Encodes every input with its part.

        Args:
            source: the tensor of each part, by the name of the part.

        Returns:
            The memory: values (B, S₁ + S₂ + …, M), zero at padding; mask alike; summary (B, M); with several
            parts that have positions, part_masks.
        """
        values, masks, summaries, tokens, copied, everywhere = [], [], [], [], False, []
        placed = memory_inputs(self.processors)
        for name, part in self.encoders.items():
            (inner,) = part.processors  # the part's own name for its input
            memory = part({inner: source[name]})
            mask = memory.mask  # (B, S)
            if name in self.optional:
                mask = mask & (source[name] != 0).flatten(1).any(1, keepdim=True)
            present = mask.any(1, keepdim=True)  # (B, 1)
            summaries.append(self.fit_summaries[name](memory.summary) * present)
            vectors = self.fit_values[name](memory.values) * mask[..., None]
            if name not in placed:
                everywhere.append(vectors.sum(1, keepdim=True))  # (B, 1, M): an export must see the 1
                continue
            values.append(vectors)
            masks.append(mask)
            tokens.append(torch.zeros_like(mask, dtype=torch.int64) if memory.tokens is None else memory.tokens)
            copied = copied or memory.tokens is not None
        found, real = torch.cat(values, 1), torch.cat(masks, 1)
        for vectors in everywhere:
            found = found + vectors * real[..., None]
        held = torch.cat(tokens, 1) if copied else None
        part_masks = _side_by_side(masks) if self.own_softmax and len(masks) > 1 else None
        return Memory(found, real, torch.stack(summaries).sum(0), tokens=held, part_masks=part_masks)

    def give_tokens(self, tokenizer: Tokenizer) -> None:
        """Memories get the tokens of the first part that reads a sentence."""
        reads = (name for name, processor in self.processors.items() if isinstance(processor, SentenceProcessor))
        if name := next(reads, None):
            self.encoders[name].give_tokens(tokenizer)
        else:
            super().give_tokens(tokenizer)

    def adopt(self, embedding: nn.Embedding, scale: float) -> None:
        for part in self.encoders.values():
            part.adopt(embedding, scale)

    def slow_parameters(self) -> tuple[list[nn.Parameter], float]:
        found = [slow for part in self.encoders.values() if (slow := part.slow_parameters())[0]]
        if len({factor for _, factor in found}) > 1:
            raise UserError("joined encoder: its parts have different learning-rate factors; give all the same")
        return [p for parameters, _ in found for p in parameters], found[0][1] if found else 1.0

    def prepare_for_export(self) -> None:
        for part in self.encoders.values():
            part.prepare_for_export()

    def describe(self) -> str:
        parts = (f"{name}: {part.describe()}" for name, part in self.encoders.items())
        return f"{', '.join(parts)} → {self.memory_size}"

    def labels(self, item: Any) -> list[str]:
        named = named_item(self.processors, item)
        return [x for name in memory_inputs(self.processors) for x in self.encoders[name].labels(named[name])]

    def files(self) -> dict[str, bytes]:
        return {f"{name}-{f}": data for name, part in self.encoders.items() for f, data in part.files().items()}

    @classmethod
    def from_config(cls, config: dict[str, Any], read: Callable[[str], bytes]) -> JoinedEncoder:
        parts = {
            name: build_encoder(part, lambda file, name=name: read(f"{name}-{file}"))  # type: ignore[misc]
            for name, part in config["parts"].items()
        }
        # Folders without `own_softmax` were trained with one softmax.
        own_softmax = config.get("own_softmax", False)
        return cls(parts, config["memory_size"], config.get("optional", ()), own_softmax=own_softmax)


def _side_by_side(masks: Sequence[Tensor]) -> Tensor:
    """P masks (B, Sₚ) → (B, P, S₁ + S₂ + …): each at its own positions, False at those of the others."""
    rows = [torch.cat([m if m is own else torch.zeros_like(m) for m in masks], 1) for own in masks]
    return torch.stack(rows, 1)
