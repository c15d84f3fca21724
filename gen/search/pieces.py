"""Text in pieces while its tokens come: what streaming prints."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from gen.inputs.tokenizer import Tokenizer
from gen.inputs.words import CLUSTERS, CONTINUES
from gen.search.prepared import cut, end_space, token_texts
from gen.search.spelling import after


class Pieces:
    """Token ids one at a time → pieces of text; joined, they are the text that `generate` returns.

    A piece never has a part of a character, nor the beginning of a stop string.

    Args:
        tokenizer: of the output.
        prompt: what the text continues.
        stops: the stop strings, normalised.
        after: tokens that the text continues.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> tokenizer = CharTokenizer.train(["abc"])
        >>> pieces = Pieces(tokenizer, "", ["bc"])
        >>> [pieces.add(i) for i in tokenizer.encode("abac")], pieces.rest()
        (['a', '', 'ba', 'c'], '')
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: str = "", stops: Sequence[str] = (), after: Sequence[int] = ()
    ) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._space = "" if after else end_space(prompt, tokenizer)
        self._joins = _has_continuing(tokenizer)
        self._written = list(after)  # before the pending ones: some tokens decode differently at the beginning
        self._pending: list[int] = []
        self._held = ""  # decoded, but may begin a stop string

    def add(self, *token_ids: int) -> str:
        """The text that is certain with more tokens; often empty."""
        self._pending += token_ids
        text = self._after()
        if text.endswith("\N{REPLACEMENT CHARACTER}"):  # the first bytes of a character
            return ""
        text, self._space = text.removeprefix(self._space), "" if text else self._space
        self._written, self._pending, self._held = self._pending, [], self._held + text
        held, free = self._held, ""
        if cut(held, self._stops) == held:
            free = held[: len(held) - _begun(held, self._stops)]
            if self._joins and (clusters := CLUSTERS.findall(free)):  # the last one may go on
                free = free[: len(free) - len(clusters[-1])]
            self._held = held[len(free) :]
        return free

    def rest(self) -> str:
        """What is left when no more tokens come."""
        return cut(self._held + self._after().removeprefix(self._space), self._stops)

    def _after(self) -> str:
        """The text of the pending tokens."""
        decode = self._tokenizer.decode
        return after(decode(self._written + self._pending), decode(self._written))


_continuing: WeakKeyDictionary[Tokenizer, bool] = WeakKeyDictionary()


def _has_continuing(tokenizer: Tokenizer) -> bool:
    """Whether any token may go on with the last character, computed once per tokenizer."""
    if tokenizer not in _continuing:
        _continuing[tokenizer] = any(map(CONTINUES.match, token_texts(tokenizer)))
    return _continuing[tokenizer]


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may begin a stop string."""
    begun = (n for s in stops for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n]))
    return max(begun, default=0)
