"""Going on from another model: its weights for a vocabulary of one's own, and weights that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from gen.base.errors import UserError
from gen.inputs.tokenizer import SPECIALS, Tokenizer
from gen.models.encoders import build_encoder
from gen.models.model import Model

BY_TOKEN = ("embedding.weight", "output.weight", "output.bias")
"""Weights with a row for every token."""


def with_vocabulary(begun: Model, tokenizer: Tokenizer, source: Tokenizer | None = None) -> tuple[Model, int]:
    """A trained model with another vocabulary: tokens that both have keep what was learned about them.

    Args:
        begun: the trained model.
        tokenizer: of the new one's decoder.
        source: of the new one's encoder, where that has a vocabulary of its own.

    Returns:
        The model, and how many tokens of the decoder's new vocabulary the old one knew.

    Raises:
        UserError: the old model has one vocabulary for both sides, and the new one would have two.

    Example:
        >>> model, shared = with_vocabulary(old, CharTokenizer.train(texts))
    """
    changed = {"decoder.": (begun.tokenizer, tokenizer)}
    encoder = begun.encoder
    if source is not None:
        changed["encoder."] = (encoder.tokenizer, source)  # type: ignore[assignment]
        if encoder.config.get("share_embeddings") and source.to_bytes() != tokenizer.to_bytes():
            raise UserError("--init-from: that model has one vocabulary for both sides: leave out --separate")
        files = {**encoder.files(), "tokenizer.bin": source.to_bytes()}
        encoder = build_encoder(
            {"name": encoder.name, **encoder.config, "tokenizer": source.kind}, files.__getitem__
        )
    before = {name: weight.clone() for name, weight in begun.state_dict().items()}
    model = Model(encoder, replace(begun.decoder.config, vocab_size=len(tokenizer)), tokenizer, begun.info)
    found = {part: _shared(*both) for part, both in changed.items()}
    with torch.no_grad():
        for name, weight in model.state_dict().items():  # shares its memory with the weights
            old, part = before[name], name[: name.index(".") + 1]
            sizes = tuple(map(len, changed.get(part, ())))
            if name.endswith(BY_TOKEN) and (len(old), len(weight)) == sizes:
                mine, theirs = found[part]
                weight[mine] = old[theirs]
            else:
                weight.copy_(old)
    return model, len(found["decoder."][0])


def _shared(before: Tokenizer, after: Tokenizer) -> tuple[Tensor, Tensor]:
    """Ids of the pieces that both vocabularies have: in the new one, and in the old one."""
    first = len(SPECIALS)  # the same in every vocabulary
    known = {piece: i for i, piece in enumerate(before.tokens()) if i >= first}
    pairs = [(i, known[piece]) for i, piece in enumerate(after.tokens()) if i >= first and piece in known]
    pairs = [(i, i) for i in range(first)] + pairs
    both = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def freeze(model: Model, patterns: Sequence[str]) -> int:
    """Keeps weights as they are in training, by the names of `model.named_parameters`.

    Args:
        model: the model.
        patterns: as a shell's: ``encoder.*``, ``*.embedding.weight``.

    Returns:
        How many numbers are frozen by them.

    Raises:
        UserError: a pattern matches nothing, or nothing is left to learn.
    """
    named = dict(model.named_parameters())
    frozen = 0
    for pattern in patterns:
        matched = [p for name, p in named.items() if fnmatchcase(name, pattern)]
        if not matched:
            parts = sorted({".".join(name.split(".")[:2]) for name in named})
            raise UserError(f"--freeze {pattern}: matches no weights; there is {', '.join(parts)}")
        frozen += sum(p.numel() for p in matched if p.requires_grad)
        for parameter in matched:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in named.values()):
        raise UserError("--freeze: nothing is left to learn")
    return frozen
