"""Starting from another model: its weights for a new vocabulary or another dropout, and frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gen.base.errors import UserError
from gen.inputs.processors import SentenceProcessor
from gen.inputs.tokenizer import SPECIALS, Tokenizer
from gen.models.cells import find_cell
from gen.models.decoder import DecoderConfig
from gen.models.encoders import JoinedEncoder, build_encoder
from gen.models.model import Model

BY_TOKEN = ("embedding.weight", "output.weight", "output.bias")
"""Weights with one row per token."""

DROPOUT = frozenset({"dropout", "embedding_dropout", "weight_dropout"})
"""What `with_dropout` changes, as decoders and encoders name it in their configurations."""


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


def with_dropout(begun: Model, shares: Mapping[str, float]) -> Model:
    """A trained model with other dropout in its decoder, and in its encoder where that has dropout of the name.

    Args:
        begun: the trained model.
        shares: values of `DROPOUT` by name, 0 to 1.

    Raises:
        UserError: ``weight_dropout`` for a cell that has no recurrent weights.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> from gen.models.decoder import DecoderConfig
        >>> tokenizer = CharTokenizer.train(["hello"])
        >>> begun = Model({"name": "none"}, DecoderConfig(len(tokenizer)), tokenizer)
        >>> with_dropout(begun, {"dropout": 0.3}).decoder.config.dropout
        0.3
    """

    def changed(config: Any) -> Any:
        if not isinstance(config, dict):
            return config
        return {name: shares.get(name, changed(value)) for name, value in config.items()}

    encoder, decoder = begun.encoder, begun.decoder.config
    if shares.get("weight_dropout") and not find_cell(decoder.cell).recurrent_weights:
        raise UserError(f"--weight-dropout: the {decoder.cell} of --init-from has no recurrent weights")
    own = changed(encoder.config)  # a joined encoder has those of its parts in it
    encoder = build_encoder({"name": encoder.name, **own}, encoder.files().__getitem__)
    model = Model(encoder, DecoderConfig(**{**asdict(decoder), **shares}), begun.tokenizer, begun.info)
    model.load_state_dict(begun.state_dict())
    return model


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
