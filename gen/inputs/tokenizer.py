"""Text to token ids and back: characters, words, subwords (SentencePiece). One interface, saved as bytes."""

from __future__ import annotations

import io
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from gen.base.errors import UserError

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")


class Tokenizer(ABC):
    """Maps text to ids. The first four ids are the same for every kind.

    Attributes:
        kind: "char", "word" or "subword".
        pad_id, bos_id, eos_id, unk_id: padding, begin, end, unknown.
    """

    kind: ClassVar[str]
    pad_id, bos_id, eos_id, unk_id = range(4)

    @abstractmethod
    def __len__(self) -> int:
        """V, specials included."""

    @abstractmethod
    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        """Text → ids, without BOS and EOS. What the vocabulary lacks becomes `<unk>`.

        Raises:
            UserError: ``strict``, and a character is unknown to a kind that has to spell everything.
        """

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids → text; PAD, BOS and EOS write nothing."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Everything `from_bytes` of the same class needs."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """The tokenizer that `to_bytes` saved. Raises ValueError on bytes that it did not write."""

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as an int64 array, for corpora."""
        return np.asarray(self.encode(text), dtype=np.int64)

    def tokens(self) -> list[str]:
        """The text each id stands for; "" for specials."""
        return ["" if i < len(SPECIALS) else self.decode([i]) for i in range(len(self))]


class CharTokenizer(Tokenizer):
    """One token a Unicode code point. Decoding what was encoded gives it back exactly.

    Example:
        >>> tokenizer = CharTokenizer.train(["hello"])
        >>> tokenizer.decode(tokenizer.encode("hole"))
        'hole'
    """

    kind = "char"

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = sorted(set(characters))
        codes = np.array([ord(c) for c in self.characters], dtype=np.int64)
        # A table from code point to id, one longer than the largest so that anything beyond is unknown.
        self._ids = np.full(int(codes.max(initial=0)) + 2, self.unk_id, dtype=np.int64)
        self._ids[codes] = np.arange(len(codes)) + len(SPECIALS)
        self._texts = ["", "", "", "\N{REPLACEMENT CHARACTER}", *self.characters]

    @classmethod
    def train(cls, texts: Iterable[str]) -> CharTokenizer:
        """The characters of ``texts``, an iterable of pieces of any size."""
        seen: set[str] = set()
        for text in texts:
            seen.update(text)
        return cls(sorted(seen))

    def __len__(self) -> int:
        return len(self._texts)

    def encode_array(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        return self._ids[np.minimum(codes, len(self._ids) - 1)]

    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        token_ids = self.encode_array(text)
        if strict and (unknown := np.flatnonzero(token_ids == self.unk_id)).size:
            character = text[unknown[0]]
            raise UserError(
                f"the vocabulary has no character {character!r} (U+{ord(character):04X}, at position "
                f"{unknown[0] + 1} of the text): leave it out, or train on text that has it"
            )
        return token_ids.tolist()

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join([self._texts[i] for i in token_ids])

    def to_bytes(self) -> bytes:
        return json.dumps({"characters": "".join(self.characters)}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> CharTokenizer:
        return cls(_json_field(data, "characters", str))


class WordTokenizer(Tokenizer):
    """Words and marks, each with the space before it, found by a regular expression.

    Because tokens keep their space, decoding is plain joining and gives the text back exactly, except for
    words rarer than ``min_frequency``, which are `<unk>`.

    Example:
        >>> tokenizer = WordTokenizer.train(["the cat, the dog"], min_frequency=1)
        >>> [tokenizer.decode([i]) for i in tokenizer.encode("the dog,")]
        ['the', ' dog', ',']
    """

    kind = "word"
    PATTERN = r" ?\w+(?:['’\-]\w+)*| ?[^\w\s]|\s"

    def __init__(self, words: Sequence[str], pattern: str = PATTERN, dummy_prefix: bool = False) -> None:
        self.pattern = pattern
        self.dummy_prefix = dummy_prefix
        self._find = re.compile(pattern).findall
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
    ) -> WordTokenizer:
        """The words that occur ``min_frequency`` times or more, the ``max_size`` most frequent of them.

        Pieces of ``texts`` must not end inside a word. ``dummy_prefix`` puts a space before every text, so that
        a sentence's first word is the same token as elsewhere; decoding takes it away.
        """
        find = re.compile(pattern).findall
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(find(" " + text if dummy_prefix else text))
        frequent = [(word, n) for word, n in counts.items() if n >= min_frequency]
        frequent.sort(key=lambda item: (-item[1], item[0]))
        kept = None if max_size is None else max(max_size - len(SPECIALS), 0)
        return cls([word for word, _ in frequent[:kept]], pattern, dummy_prefix)

    def __len__(self) -> int:
        return len(self._texts)

    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        unk, ids = self.unk_id, self._ids
        return [ids.get(word, unk) for word in self._find(" " + text if self.dummy_prefix and text else text)]

    def decode(self, token_ids: Sequence[int]) -> str:
        text = "".join([self._texts[i] for i in token_ids])
        return text.removeprefix(" ") if self.dummy_prefix else text

    def to_bytes(self) -> bytes:
        fields = {
            "words": self._texts[len(SPECIALS) :],
            "pattern": self.pattern,
            "dummy_prefix": self.dummy_prefix,
        }
        return json.dumps(fields, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> WordTokenizer:
        words, pattern = _json_field(data, "words", list), _json_field(data, "pattern", str)
        return cls(words, pattern, json.loads(data).get("dummy_prefix") is True)


class SubwordTokenizer(Tokenizer):
    """SentencePiece, BPE or unigram, with byte fallback: every text can be spelled.

    No normalisation, line breaks kept: decoding gives the text back exactly (but for U+2581,
    SentencePiece's own sign for a space).

    Example:
        >>> tokenizer = SubwordTokenizer.train(["..."], vocab_size=1000)
    """

    kind = "subword"

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        if not model:
            raise ValueError("not a SentencePiece model")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, TypeError) as error:
            raise ValueError("not a SentencePiece model") from error
        self._model = model

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        vocab_size: int = 2000,
        at_most: bool = False,
        model_type: str = "bpe",
        byte_fallback: bool = True,
        dummy_prefix: bool = False,
        max_lines: int = 1_000_000,
    ) -> SubwordTokenizer:
        """Trains on the lines of ``texts``.

        Args:
            texts: pieces of any size; read again if the first choice of size fails, so not an iterator.
            vocab_size: pieces, specials included.
            at_most: a text that does not support ``vocab_size`` gets as many as it does.
            model_type: "bpe" or "unigram".
            byte_fallback: spell unknown characters as bytes instead of `<unk>`.
            dummy_prefix: put a space before every text, so that a sentence's first word has the same pieces as
                elsewhere; decoding takes it away.
            max_lines: learn from a random sample of this many lines of a larger text.

        Raises:
            UserError: ``vocab_size`` is more than the text supports; says the largest possible.
        """
        import sentencepiece

        failed: list[BaseException] = []

        def lines() -> Iterator[str]:
            try:
                yield from (line for text in texts for line in text.split("\n") if line)
            except BaseException as error:
                failed.append(error)
                raise

        wanted = vocab_size
        while True:
            model = io.BytesIO()
            try:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=lines(),
                    model_writer=model,
                    vocab_size=wanted,
                    model_type=model_type,
                    byte_fallback=byte_fallback,
                    character_coverage=1.0 if not byte_fallback else 0.9995,
                    normalization_rule_name="identity",
                    remove_extra_whitespaces=False,
                    add_dummy_prefix=dummy_prefix,
                    user_defined_symbols=["\n"],
                    input_sentence_size=max_lines,
                    shuffle_input_sentence=True,
                    max_sentence_length=1 << 20,
                    pad_id=cls.pad_id,
                    bos_id=cls.bos_id,
                    eos_id=cls.eos_id,
                    unk_id=cls.unk_id,
                    num_threads=2,
                    minloglevel=2,
                )
                return cls(model.getvalue())
            except RuntimeError as error:
                if failed:  # SentencePiece makes a text of it
                    raise failed[0] from None
                wanted = _supported(error, wanted, at_most)

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        return self._processor.encode(text)

    def sample(self, text: str, dropout: float) -> list[int]:
        """One of many ways to spell a text, for training: BPE leaves out merges with this probability
        (Provilkov et al., 2020), unigram draws from its distribution raised to this power (Kudo, 2018)."""
        return self._processor.encode(text, enable_sampling=True, alpha=dropout, nbest_size=-1)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._processor.decode([int(i) for i in token_ids if i not in (0, 1, 2)])

    def tokens(self) -> list[str]:
        pieces = [self._processor.id_to_piece(i) for i in range(len(self))]
        return [
            "" if i < len(SPECIALS) else p.replace("\N{LOWER ONE EIGHTH BLOCK}", " ") for i, p in enumerate(pieces)
        ]

    def to_bytes(self) -> bytes:
        return self._model

    @classmethod
    def from_bytes(cls, data: bytes) -> SubwordTokenizer:
        return cls(data)


def _supported(error: RuntimeError, vocab_size: int, at_most: bool) -> int:
    """The largest vocabulary that a text supports, from what SentencePiece says of one that did not fit."""
    said = str(error)
    largest, smallest = re.search(r"<= ?(\d+)", said), re.search(r"\d+ vs (\d+)", said)
    if largest and at_most:
        return int(largest[1])
    if largest:
        reason = f"is too large for this text: at most {largest[1]} pieces"
    else:
        reason = f"does not suit this text: {f'at least {smallest[1]}' if smallest else said.splitlines()[0]}"
    raise UserError(f"--vocab-size {vocab_size} {reason}") from error


def seed_sampling(seed: int = 0) -> None:
    """Makes `SubwordTokenizer.sample` give the same spellings again."""
    import sentencepiece

    sentencepiece.set_random_generator_seed(seed)


TOKENIZERS: dict[str, type[Tokenizer]] = {c.kind: c for c in (CharTokenizer, WordTokenizer, SubwordTokenizer)}


def _json_field(data: bytes, name: str, kind: type) -> Any:
    try:
        value = json.loads(data)[name]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("not a saved tokenizer") from error
    if not isinstance(value, kind):
        raise ValueError("not a saved tokenizer")
    return value
