"""Text to token ids and back. The interface of all tokenizers, characters and words; subwords are in `subword`."""

from __future__ import annotations

import json
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from gen.base.errors import UserError
from gen.inputs.words import PATTERNS

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")

Normalization = Literal["none", "nfc", "nfkc"]
"""Unicode normalization: NFC writes a letter and its accent in one way, NFKC also unifies widths and ligatures."""


def normalize(text: str, form: Normalization) -> str:
    """A text in a Unicode normalization form.

    Example:
        >>> len(normalize("e\u0301", "nfc"))
        1
    """
    return text if form == "none" or text.isascii() else unicodedata.normalize(form.upper(), text)  # type: ignore[arg-type]


class Tokenizer(ABC):
    """Maps text to token ids. The four special tokens have the same ids in every tokenizer.

    Attributes:
        kind: "char", "word" or "subword".
        pad_id, bos_id, eos_id, unk_id: padding, begin and end of a sequence, unknown.
        normalization: the Unicode normalization form of what is encoded.
    """

    kind: ClassVar[str]
    normalization: Normalization = "none"
    pad_id, bos_id, eos_id, unk_id = range(4)

    @abstractmethod
    def __len__(self) -> int:
        """The size of the vocabulary V, special tokens included."""

    @abstractmethod
    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        """Text → token ids, without BOS and EOS. Tokens that are not in the vocabulary become `<unk>`.

        Args:
            text: the text.
            strict: raise an error for an unknown character, if this kind of tokenizer has no other way to
                represent it.

        Raises:
            UserError: ``strict``, and a character is not in the vocabulary.
        """

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> str:
        """Token ids → text; PAD, BOS and EOS are left out."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The tokenizer in serialized form, for `from_bytes` of the same class."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """The tokenizer that `to_bytes` serialized. Raises ValueError for other bytes."""

    def normalize(self, text: str) -> str:
        """A text as the tokenizer sees it, and writes it: what references are compared in."""
        return normalize(text, self.normalization)

    def encode_known(self, text: str, unknown: str | None) -> list[int]:
        """`encode`, with what to do about what the vocabulary lacks.

        Args:
            text: the text.
            unknown: "error", "skip" (leave it out), "replace" (by `<unk>`); None: an error for a character, and
                `<unk>` for a word.

        Raises:
            UserError: something is unknown where that is an error.

        Example:
            >>> tokenizer = CharTokenizer.train(["abc"])
            >>> tokenizer.decode(tokenizer.encode_known("a-b", "skip"))
            'ab'
        """
        try:
            token_ids = self.encode(text, strict=unknown not in ("skip", "replace"))
        except UserError as error:
            raise UserError(f"{error.args[0]}: --unknown skip leaves it out, replace puts <unk> for it") from error
        if unknown == "skip":
            return [i for i in token_ids if i != self.unk_id]
        if unknown == "error" and self.unk_id in token_ids:
            which = self.words(text)[token_ids.index(self.unk_id)] if isinstance(self, WordTokenizer) else text
            raise UserError(f"the vocabulary lacks {which.strip()!r}: --unknown skip leaves it out")
        return token_ids

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as an (N,) int64 array, for corpora."""
        return np.asarray(self.encode(text), dtype=np.int64)

    def tokens(self) -> list[str]:
        """The text of each token id; "" for special tokens."""
        return ["" if i < len(SPECIALS) else self.decode([i]) for i in range(len(self))]


class CharTokenizer(Tokenizer):
    """One token per Unicode code point. Decoding restores the encoded text exactly (once normalized).

    Example:
        >>> tokenizer = CharTokenizer.train(["hello"])
        >>> tokenizer.decode(tokenizer.encode("hole"))
        'hole'
    """

    kind = "char"

    def __init__(self, characters: Sequence[str], normalization: Normalization = "none") -> None:
        self.normalization = normalization
        self.characters = sorted(set(characters))
        codes = np.array([ord(c) for c in self.characters], dtype=np.int64)
        # A table from code point to id. Its last entry is for all larger code points: unknown.
        self._ids = np.full(int(codes.max(initial=0)) + 2, self.unk_id, dtype=np.int64)
        self._ids[codes] = np.arange(len(codes)) + len(SPECIALS)
        self._texts = ["", "", "", "\N{REPLACEMENT CHARACTER}", *self.characters]

    @classmethod
    def train(cls, texts: Iterable[str], *, normalization: Normalization = "nfc") -> CharTokenizer:
        """Builds the vocabulary from all characters of ``texts``, pieces of any size."""
        seen: set[str] = set()
        for text in texts:
            seen.update(normalize(text, normalization))
        return cls(sorted(seen), normalization)

    def __len__(self) -> int:
        return len(self._texts)

    def encode_array(self, text: str) -> np.ndarray:
        codes = np.frombuffer(self.normalize(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        return self._ids[np.minimum(codes, len(self._ids) - 1)]

    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        token_ids = self.encode_array(text)
        if strict and (unknown := np.flatnonzero(token_ids == self.unk_id)).size:
            character = self.normalize(text)[unknown[0]]
            raise UserError(
                f"the vocabulary has no character {character!r} (U+{ord(character):04X}, at position "
                f"{unknown[0] + 1} of the text)"
            )
        return token_ids.tolist()

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join([self._texts[i] for i in token_ids])

    def to_bytes(self) -> bytes:
        return json.dumps({"characters": "".join(self.characters), **_saved_form(self)}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> CharTokenizer:
        return cls(_json_field(data, "characters", str), _loaded_form(data))


class WordTokenizer(Tokenizer):
    """Words and punctuation marks, each with the space before it; see `gen.inputs.words`.

    Because tokens include their space, decoding concatenates them and restores the (normalized) text exactly,
    except for words rarer than ``min_frequency``, which become `<unk>`.

    Example:
        >>> tokenizer = WordTokenizer.train(["the cat, the dog"], min_frequency=1)
        >>> [tokenizer.decode([i]) for i in tokenizer.encode("the dog,")]
        ['the', ' dog', ',']
    """

    kind = "word"
    PATTERN = "words"

    def __init__(
        self,
        words: Sequence[str],
        pattern: str = PATTERN,
        dummy_prefix: bool = False,
        normalization: Normalization = "none",
    ) -> None:
        self.pattern = pattern
        self.dummy_prefix = dummy_prefix
        self.normalization = normalization
        self._find = PATTERNS[pattern]
        self._texts = ["", "", "", "<unk>", *words]
        self._ids = {word: i for i, word in enumerate(self._texts) if i >= len(SPECIALS)}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        min_frequency: int = 2,
        max_size: int | None = None,
        pattern: str = PATTERN,
        dummy_prefix: bool = False,
        normalization: Normalization = "nfc",
    ) -> WordTokenizer:
        """Builds the vocabulary from the most frequent words.

        Args:
            texts: pieces of any size that do not end inside a word.
            min_frequency: leave out words that occur less often.
            max_size: the largest size of the vocabulary, special tokens included; None means no limit.
            pattern: how to find words, a name of `gen.inputs.words.PATTERNS`.
            dummy_prefix: put a space before every text, so that a sentence's first word is the same token as
                elsewhere; decoding removes it.
            normalization: the Unicode normalization form.
        """
        counts: Counter[str] = Counter()
        words = cls((), pattern, dummy_prefix, normalization).words
        for text in texts:
            counts.update(words(text))
        frequent = [(word, n) for word, n in counts.items() if n >= min_frequency]
        frequent.sort(key=lambda item: (-item[1], item[0]))
        kept = None if max_size is None else max(max_size - len(SPECIALS), 0)
        return cls([word for word, _ in frequent[:kept]], pattern, dummy_prefix, normalization)

    def __len__(self) -> int:
        return len(self._texts)

    def words(self, text: str) -> list[str]:
        """The words of a text, also those that are not in the vocabulary."""
        text = self.normalize(text)
        return self._find(" " + text if self.dummy_prefix and text else text)

    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        unk, ids = self.unk_id, self._ids
        return [ids.get(word, unk) for word in self.words(text)]

    def decode(self, token_ids: Sequence[int]) -> str:
        text = "".join([self._texts[i] for i in token_ids])
        return text.removeprefix(" ") if self.dummy_prefix else text

    def tokens(self) -> list[str]:
        return ["" if i < len(SPECIALS) else text for i, text in enumerate(self._texts)]

    def to_bytes(self) -> bytes:
        fields = {
            "words": self._texts[len(SPECIALS) :],
            "pattern": self.pattern,
            "dummy_prefix": self.dummy_prefix,
            **_saved_form(self),
        }
        return json.dumps(fields, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> WordTokenizer:
        words, pattern = _json_field(data, "words", list), _json_field(data, "pattern", str)
        if pattern not in PATTERNS:
            raise ValueError("not a known way to find words")
        return cls(words, pattern, json.loads(data).get("dummy_prefix") is True, _loaded_form(data))


TOKENIZERS: dict[str, type[Tokenizer]] = {CharTokenizer.kind: CharTokenizer, WordTokenizer.kind: WordTokenizer}
"""Tokenizers by kind, to load a saved one. `gen.inputs.subword` adds its own."""


def _json_field(data: bytes, name: str, kind: type) -> Any:
    try:
        value = json.loads(data)[name]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("not a saved tokenizer") from error
    if not isinstance(value, kind):
        raise ValueError("not a saved tokenizer")
    return value


def _saved_form(tokenizer: Tokenizer) -> dict[str, str]:
    """The field that holds the normalization form; without one, as in older files, there is none."""
    return {} if tokenizer.normalization == "none" else {"normalization": tokenizer.normalization}


def _loaded_form(data: bytes) -> Normalization:
    form = json.loads(data).get("normalization", "none")
    if form not in get_args(Normalization):
        raise ValueError("not a known normalization form")
    return form
