"""Texts as whole words in what a search writes, whatever tokens spell them: an automaton made in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import regex

from gen.inputs.tokenizer import Tokenizer

# A letter of a script that puts spaces between words. In others no letter marks where a word ends.
_LETTER = r"[[\p{L}\p{M}\p{N}_]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]]"

LETTER, SPACE, OTHER = range(3)
"""Kinds of characters."""


@lru_cache(4096)
def is_letter(character: str) -> bool:
    """Whether a character goes on with the word beside it; "" does not."""
    return regex.match(rf"(?V1){_LETTER}", character) is not None


@lru_cache(4096)
def whole_words(text: str) -> regex.Pattern[str]:
    """A pattern of ``text`` as whole words.

    Example:
        >>> [bool(whole_words("cat").search(text)) for text in ("a cat.", "cats", "scat")]
        [True, False, False]
    """
    begin = rf"(?<!{_LETTER})" if is_letter(text[0]) else ""
    end = rf"(?!{_LETTER})" if is_letter(text[-1]) else ""
    return regex.compile(rf"(?V1){begin}{regex.escape(text)}{end}")


class Form:
    """A text that is looked for, as bytes: tokens may be parts of characters."""

    def __init__(self, text: str) -> None:
        self.text, self.data = text, text.encode("utf-8", "surrogatepass")
        self.first = self.data[:1]
        self.begins, self.ends = is_letter(text[0]), is_letter(text[-1])


Going = tuple[tuple[int, Form, int], ...]
"""Forms that have begun: (group, form, how many bytes of it are there)."""


class Place:
    """What is known of a text that is being written.

    Attributes:
        tail: the longest end of the text that begins a form.
        last: the kind of its last character.
        met: the groups of which a form has come, as bits.
        open: those that have come if no letter follows, as bits.
        going: the forms that have begun.
    """

    __slots__ = ("_next", "_phrases", "going", "last", "met", "notes", "open", "tail")

    def __init__(
        self,
        phrases: Phrases,
        tail: bytes,
        last: int,
        met: int,
        open: int,
        going: tuple[tuple[int, Form, int], ...],
    ) -> None:
        self._phrases, self.tail, self.last, self.met, self.open, self.going = (
            phrases,
            tail,
            last,
            met,
            open,
            going,
        )
        self._next: dict[int, Place] = {}
        self.notes: dict[int, Any] = {}  # what others found out about this place

    def after(self, token_id: int) -> Place:
        """The place after one token more."""
        found = self._next.get(token_id)
        if found is None:
            found = self._next[token_id] = self._phrases.follow(self, token_id)
        return found


class Phrases:
    """Follows which texts come as whole words: "cat" in "a cat.", not in "cats".

    Args:
        groups: per group its forms, any of which will do.
        tokenizer: of the output.
        once: no longer look for a group that has come.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> tokenizer = CharTokenizer.train(["a cat sat"])
        >>> place = Phrases([["cat", "a cat"], ["sat"]], tokenizer).begin([])
        >>> for token_id in tokenizer.encode("cats sat"):
        ...     place = place.after(token_id)
        >>> f"{place.met:b} {place.open:b}"
        '0 10'
    """

    def __init__(self, groups: Sequence[Sequence[str]], tokenizer: Tokenizer, once: bool = True) -> None:
        self.tokens, self._kinds = token_bytes(tokenizer, once)
        self.forms = [[Form(text) for text in forms] for forms in groups]
        self.once = once
        self._closed = not once and tokenizer.kind == "word"  # there, hardly a token goes on with a word
        self._firsts = {form.data[0] for forms in self.forms for form in forms}
        self._places: dict[tuple[bytes, int, int, int], Place] = {}

    def begin(self, token_ids: Sequence[int]) -> Place:
        """The place after a prompt, in which nothing is looked for."""
        written = [i for i in token_ids if self.tokens[i]]
        return self._place(b"", self._kinds[written[-1]] if written else OTHER, 0, 0, ())

    def skip(self, place: Place, token_id: int) -> Place:
        """The place after a token in which nothing is looked for."""
        return self._place(b"", self._kinds[token_id], place.met, 0, ()) if self.tokens[token_id] else place

    def follow(self, place: Place, token_id: int) -> Place:
        """See `Place.after`."""
        token = self.tokens[token_id]
        if not token:
            return place
        last = self._kinds[token_id]
        if not place.tail and self._firsts.isdisjoint(token):
            return self._place(b"", last, place.met, 0, ())
        data, seen = place.tail + token, place.met if self.once else 0
        found = list(self._found(place, data, seen))
        met = seen
        for group, form, at in found:
            rest = data[at + len(form.data) :]
            goes_on = form.ends and (self._letter(_first(rest)) if rest else not self._closed)
            if at + len(form.data) <= len(data) and not goes_on:
                met |= 1 << group
        left = [(g, form, at) for g, form, at in found if not self.once or not met >> g & 1]
        ends = [(g, form, at) for g, form, at in left if at + len(form.data) >= len(data)]
        tail = data[min((at for _, _, at in ends), default=len(data)) :]
        open = sum({1 << g for g, form, at in ends if at + len(form.data) == len(data)})
        going = [(g, form, len(data) - at) for g, form, at in ends if at + len(form.data) > len(data)]
        return self._place(tail, last, met, open, tuple(going))

    def _found(self, place: Place, data: bytes, seen: int) -> Iterator[tuple[int, Form, int]]:
        """Where forms, or beginnings of them, are in ``data``: (group, form, position)."""
        for group, forms in enumerate(self.forms):
            for form in forms if not seen >> group & 1 else ():
                at = data.find(form.first)
                while at >= 0:
                    part = data[at : at + len(form.data)]
                    if form.data.startswith(part) and (at + len(part) == len(data) or len(part) == len(form.data)):
                        begun = self._letter(_last(data[:at])) if at else not place.tail and place.last == LETTER
                        if not (form.begins and begun):
                            yield group, form, at
                    at = data.find(form.first, at + 1)

    def _letter(self, character: str) -> bool:
        """As `is_letter`. Of what is not yet a character the worse is assumed."""
        return self.once if character == _PART else is_letter(character)

    def _place(self, tail: bytes, last: int, met: int, open: int, going: Going) -> Place:
        key = tail, last, met, open
        if key not in self._places:
            self._places[key] = Place(self, tail, last, met, open, going)
        return self._places[key]


_PART = "\N{REPLACEMENT CHARACTER}"
"""What a part of a character is decoded to."""

_known: WeakKeyDictionary[Tokenizer, dict[bool, tuple[list[bytes], list[int]]]] = WeakKeyDictionary()


def token_bytes(tokenizer: Tokenizer, doubtful: bool = True) -> tuple[list[bytes], list[int]]:
    """The bytes of each token, b"" for special ones, and the kind of its last character, computed once.

    Args:
        tokenizer: of the output.
        doubtful: whether a part of a character counts as a letter.
    """
    known = _known.setdefault(tokenizer, {})
    if doubtful not in known:
        tokens = [_bytes(text, tokenizer) for text in tokenizer.tokens()]
        known[doubtful] = tokens, [_kind(_last(token), doubtful) for token in tokens]
    return known[doubtful]


def _bytes(text: str, tokenizer: Tokenizer) -> bytes:
    byte = regex.fullmatch("<0x(..)>", text) if tokenizer.kind == "subword" else None
    return bytes.fromhex(byte[1]) if byte else text.encode("utf-8", "surrogatepass")


def _first(data: bytes) -> str:
    return data[:4].decode("utf-8", "replace")[0]


def _last(data: bytes) -> str:
    """The last character, or ""."""
    begins = [n for n in range(1, min(len(data), 4) + 1) if data[-n] & 0xC0 != 0x80]
    return data[len(data) - begins[0] :].decode("utf-8", "replace")[-1] if begins else _PART[: len(data)]


def _kind(character: str, doubtful: bool) -> int:
    if character == _PART:
        return LETTER if doubtful else OTHER
    return LETTER if is_letter(character) else SPACE if character.isspace() else OTHER
