"""What each token adds to a text."""

from __future__ import annotations

from collections.abc import Sequence

from gen.inputs.tokenizer import Tokenizer

_NEAR = 8  # tokens before that can change how one is written


class Spelling:
    """Token ids one at a time → their parts of the text.

    A character of several tokens belongs to the last of them, and a space between two words to the second.

    Args:
        tokenizer: of the output.
        before: the token ids that the text continues.
        space: what the text has already and the first word would bring again: its `gen.search.prepared.end_space`.

    Example:
        >>> from gen.inputs.tokenizer import WordTokenizer
        >>> spelling = Spelling(WordTokenizer([" a", " cat"]), [])
        >>> [spelling.add(i) for i in (4, 5)], spelling.piece(4)
        ([' a', ' cat'], ' a')
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], space: str = "") -> None:
        self._tokenizer, self._space = tokenizer, space
        self._written, self._pending = list(before[-_NEAR:]), list[int]()

    def piece(self, token_id: int) -> str:
        """The part that a token would have, if it came next."""
        decode = self._tokenizer.decode
        text = after(decode([*self._written, *self._pending, token_id]), decode(self._written))
        text = text.removeprefix(self._space)
        return "" if text.endswith("\N{REPLACEMENT CHARACTER}") else text

    def add(self, token_id: int) -> str:
        """The part of the next token."""
        text = self.piece(token_id)
        self._pending.append(token_id)
        if text:
            self._written, self._pending, self._space = [*self._written, *self._pending][-_NEAR:], [], ""
        return text


def after(text: str, begun: str) -> str:
    """The rest of a text after its beginning, which may have only the first bytes of its last character.

    Example:
        >>> after("ab\N{EURO SIGN}c", "ab\N{REPLACEMENT CHARACTER}")
        '€c'
    """
    return text.removeprefix(begun if text.startswith(begun) else begun.rstrip("\N{REPLACEMENT CHARACTER}"))
