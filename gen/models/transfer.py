"""Starting from another model: its weights for a new vocabulary, and frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from types import MappingProxyType

import torch
from torch import Tensor

from gen.base.errors import UserError
from gen.inputs.processors import SentenceProcessor
from gen.inputs.tokenizer import SPECIALS, Tokenizer
from gen.models.encoders import JoinedEncoder, build_encoder
from gen.models.model import Model

BY_TOKEN = ("embedding.weight", "output.weight", "output.bias")
"""Weights with one row per token."""


def with_vocabulary(
    begun: Model, tokenizer: Tokenizer, sources: Mapping[str, Tokenizer] = MappingProxyType({})
) -> tuple[Model, int]:
    """A trained model with another vocabulary; tokens that both vocabularies have keep their weights.

    Args:
        begun: the trained model.
        tokenizer: the decoder's new tokenizer.
        sources: new tokenizers of the encoder, by input name; other inputs keep theirs.

    Returns:
        The model, and how many tokens of the decoder's new vocabulary the old one has, too.

    Raises:
        UserError: an input has no tokenizer, or shares its vocabulary with the decoder and would have another.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> from gen.models.decoder import DecoderConfig
        >>> old = CharTokenizer.train(["hello"])
        >>> begun = Model({"name": "none"}, DecoderConfig(len(old)), old)
        >>> model, shared = with_vocabulary(begun, CharTokenizer.train(["hollow"]))
        >>> shared - len(SPECIALS)  # h, l and o
        3
    """
    changed = {"decoder.": (begun.tokenizer, tokenizer)}
    encoder = begun.encoder
    if sources:
        files, config = encoder.files(), copy.deepcopy(encoder.config)
        joined = isinstance(encoder, JoinedEncoder)
        for name, source in sources.items():
            processor = begun.processors.get(name)
            if not isinstance(processor, SentenceProcessor):
                raise UserError(f"the model has no input {name!r} with a tokenizer")
            own = config["parts"][name] if joined else config
            if own.get("share_embeddings") and source.to_bytes() != tokenizer.to_bytes():
                raise UserError("--init-from: that model has one vocabulary for both sides: leave out --separate")
            own["tokenizer"] = source.kind
            files[f"{name}-tokenizer.bin" if joined else "tokenizer.bin"] = source.to_bytes()
            changed[f"encoder.parts.{name}." if joined else "encoder."] = (processor.tokenizer, source)
        encoder = build_encoder({"name": encoder.name, **config}, files.__getitem__)
    before = {name: weight.clone() for name, weight in begun.state_dict().items()}
    model = Model(encoder, replace(begun.decoder.config, vocab_size=len(tokenizer)), tokenizer, begun.info)
    found = {part: _shared(*both) for part, both in changed.items()}
    with torch.no_grad():
        for name, weight in model.state_dict().items():  # shares its memory with the weights
            old = before[name]
            part = next((part for part in changed if name.startswith(part)), "")
            sizes = tuple(map(len, changed.get(part, ())))
            if name.endswith(BY_TOKEN) and (len(old), len(weight)) == sizes:
                new_ids, old_ids = found[part]
                weight[new_ids] = old[old_ids]
            else:
                weight.copy_(old)
    return model, len(found["decoder."][0])


def _shared(before: Tokenizer, after: Tokenizer) -> tuple[Tensor, Tensor]:
    """The ids of the pieces that both vocabularies have: in the new one, and in the old one."""
    first = len(SPECIALS)  # the same in every vocabulary
    known = {piece: i for i, piece in enumerate(before.tokens()) if i >= first}
    pairs = [(i, known[piece]) for i, piece in enumerate(after.tokens()) if i >= first and piece in known]
    pairs = [(i, i) for i in range(first)] + pairs
    both = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def freeze(model: Model, patterns: Sequence[str]) -> int:
    """Freezes weights, by their names in `model.named_parameters`.

    Args:
        model: the model.
        patterns: shell patterns: ``encoder.*``, ``*.embedding.weight``.

    Returns:
        How many parameters (numbers) are frozen by this call.

    Raises:
        UserError: a pattern matches nothing, or no trainable weight is left.
    """
    named = dict(model.named_parameters(remove_duplicate=False))  # tied weights go by each of their names
    frozen = 0
    for pattern in patterns:
        matched = list({id(p): p for name, p in named.items() if fnmatchcase(name, pattern)}.values())
        if not matched:
            parts = sorted({".".join(name.split(".")[:2]) for name in named})
            raise UserError(f"--freeze {pattern}: matches no weights; there is {', '.join(parts)}")
        frozen += sum(p.numel() for p in matched if p.requires_grad)
        for parameter in matched:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in named.values()):
        raise UserError("--freeze: nothing is left to learn")
    return frozen
