"""Encoders: what makes a `Memory`. A user's own is one file: subclass `Encoder`, call `register`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gen.encoders.base import Encoder, Prepared
from gen.encoders.none import NoneEncoder
from gen.errors import UserError

ENCODERS: dict[str, type[Encoder]] = {"none": NoneEncoder}


def register(name: str) -> Callable[[type[Encoder]], type[Encoder]]:
    """Class decorator that makes an encoder known under ``name``, for configurations and saved models.

    Example:
        >>> @register("bag-of-words")
        ... class BagOfWords(Encoder): ...
    """

    def add(encoder: type[Encoder]) -> type[Encoder]:
        ENCODERS[name] = encoder
        return encoder

    return add


def build_encoder(config: dict[str, Any]) -> Encoder:
    """An encoder from ``{"name": ..., **arguments}``.

    Raises:
        UserError: the name is unknown (its file has not been imported).
    """
    arguments = dict(config)
    name = arguments.pop("name")
    if name not in ENCODERS:
        known = ", ".join(sorted(ENCODERS))
        raise UserError(f"unknown encoder {name!r} (known: {known}): import the file that registers it first")
    return ENCODERS[name](**arguments)


__all__ = ["ENCODERS", "Encoder", "NoneEncoder", "Prepared", "build_encoder", "register"]
