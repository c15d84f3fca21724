"""Encoders by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gen.base.errors import UserError
from gen.models.encoders.base import Encoder

ENCODERS: dict[str, type[Encoder]] = {}
"""Name in configurations and saved models → class."""


def register(name: str) -> Callable[[type[Encoder]], type[Encoder]]:
    """Class decorator that makes an encoder known under ``name``, for configurations and saved models.

    Example:
        >>> @register("bag-of-words")
        ... class BagOfWords(Encoder):
        ...     memory_size = 8
        >>> build_encoder({"name": "bag-of-words"}).memory_size
        8
        >>> del ENCODERS["bag-of-words"]
    """

    def add(encoder: type[Encoder]) -> type[Encoder]:
        ENCODERS[name] = encoder
        encoder.name = name
        return encoder

    return add


def build_encoder(config: Mapping[str, Any], read: Callable[[str], bytes] = lambda name: b"") -> Encoder:
    """An encoder from ``{"name": ..., **arguments}``.

    Args:
        config: name and arguments.
        read: returns the content of one of the encoder's files, for encoders that have files.

    Raises:
        UserError: the name is unknown; the file that registers it has not been imported.
    """
    arguments = {key: value for key, value in config.items() if key != "name"}
    name = config["name"]
    if name not in ENCODERS:
        known = ", ".join(sorted(ENCODERS))
        raise UserError(f"unknown encoder {name!r} (known: {known}): import the file that registers it first")
    encoder = ENCODERS[name].from_config(arguments, read)
    if not hasattr(encoder, "config"):
        encoder.config = arguments
    return encoder
