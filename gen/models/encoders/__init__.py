"""Encoders: what makes a `Memory`. A user's own is one file: subclass `Encoder`, call `register`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gen.base.errors import UserError
from gen.models.encoders.base import Encoder, Prepared
from gen.models.encoders.cnn import CNNEncoder
from gen.models.encoders.none import NoneEncoder
from gen.models.encoders.rnn import RNNEncoder

ENCODERS: dict[str, type[Encoder]] = {}


def register(name: str) -> Callable[[type[Encoder]], type[Encoder]]:
    """Class decorator that makes an encoder known under ``name``, for configurations and saved models.

    Example:
        >>> @register("bag-of-words")
        ... class BagOfWords(Encoder): ...
    """

    def add(encoder: type[Encoder]) -> type[Encoder]:
        ENCODERS[name] = encoder
        encoder.name = name
        return encoder

    return add


register("none")(NoneEncoder)
register("rnn")(RNNEncoder)
register("cnn")(CNNEncoder)


def build_encoder(config: Mapping[str, Any], read: Callable[[str], bytes] = lambda name: b"") -> Encoder:
    """An encoder from ``{"name": ..., **arguments}``.

    Args:
        config: name and arguments.
        read: gives the content of the encoder's files, where it has any.

    Raises:
        UserError: the name is unknown (its file has not been imported).
    """
    arguments = {key: value for key, value in config.items() if key != "name"}
    name = config["name"]
    if name not in ENCODERS:
        known = ", ".join(sorted(ENCODERS))
        raise UserError(f"unknown encoder {name!r} (known: {known}): import the file that registers it first")
    encoder = ENCODERS[name].from_config(arguments, read)
    encoder.config = arguments
    return encoder


__all__ = [
    "ENCODERS",
    "CNNEncoder",
    "Encoder",
    "NoneEncoder",
    "Prepared",
    "RNNEncoder",
    "build_encoder",
    "register",
]
