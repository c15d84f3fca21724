"""What a request may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a server gives to a request, and to all of them.

    Attributes:
        body: bytes of a request.
        pixels: of a picture.
        tokens: new tokens of a text.
        input_tokens: tokens of a prompt or of a sentence.
        rows: texts and beams that are written at once; further requests wait.
        queue: requests that may wait; further ones are refused with 429.
        seconds: until a request is given up.
        body_seconds: until the body of a request must be there.
        constraints: texts that must be said, and those that are banned.
        positions: of the memories of all rows of a request, and of a step; further requests wait.
    """

    body: int = 20 << 20
    pixels: int = 40_000_000
    tokens: int = 4096
    input_tokens: int = 16_384
    rows: int = 256
    queue: int = 1024
    seconds: float = 120.0
    body_seconds: float = 30.0
    constraints: int = 64
    positions: int = 1 << 20

    @property
    def characters(self) -> int:
        """Of a prompt, a sentence or a line: more are more than ``input_tokens``, surely."""
        return 16 * self.input_tokens
