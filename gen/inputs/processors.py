"""Input processors: what people give a model → arrays. The part of an encoder that computes nothing yet.

Imports no torch: a model and what was exported from it prepare their input with the same code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np

from gen.base.errors import UserError
from gen.inputs.pictures import Preprocessing
from gen.inputs.tokenizer import TOKENIZERS, Tokenizer


def as_text(item: Any) -> str:
    """An item that has to be a text: an empty cell of a table (NaN), bytes and numbers are none.

    Raises:
        UserError: it is no string.
    """
    if not isinstance(item, str):
        raise UserError(f"a text is a string, not {type(item).__name__}: {str(item)[:40]!r}")
    return item


class InputProcessor(ABC):
    """Items → the array that an encoder starts from.

    Attributes:
        kind: the name of the class in a saved model.
        optional: whether an item may be None, "nothing given": its row of the array is all zeros.
        one_shape: whether the rows of all items have one shape, so that an exported graph need not allow others.
    """

    kind: ClassVar[str]
    optional: bool = False
    one_shape: ClassVar[bool] = False

    @abstractmethod
    def read(self, items: Sequence[Any]) -> np.ndarray:
        """B items → an array with B rows."""

    @abstractmethod
    def example(self) -> np.ndarray:
        """An array that `read` could return for three items; no axis has size 1."""

    def refuse_none(self, items: Sequence[Any]) -> None:
        """Raises `UserError` if an item is None and must not be."""
        if not self.optional and any(item is None for item in items):
            raise UserError("an input is missing: it is None")

    def prompts(self, items: Sequence[Any]) -> list[str]:
        """The text with which the output of each item begins."""
        return [""] * len(items)

    def known(self, item: Any, unknown: str | None) -> Any:
        """An item without what the vocabulary lacks, for ``unknown`` "skip"; see `Tokenizer.encode_known`."""
        return item

    def labels(self, item: Any) -> list[str]:
        """A label for each of the S memory positions of an item, such as its token."""
        return []

    def config(self) -> dict[str, Any]:
        """Plain values from which `from_config`, together with `files`, makes the same processor."""
        return {}

    def files(self) -> dict[str, bytes]:
        """The files that have to be saved with the configuration: name → content."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], read: Callable[[str], bytes]) -> InputProcessor:
        """The processor that was saved. ``read(name)`` returns the content of one of its `files`."""
        return cls(**config)


class PromptProcessor(InputProcessor):
    """Free text: an item is the beginning of the output, and the encoder has nothing to read.

    The array is (B,) int64 zeros: only its number of rows counts.
    """

    kind = "prompts"
    optional = True

    def read(self, items: Sequence[Any]) -> np.ndarray:
        return np.zeros(len(items), np.int64)

    def example(self) -> np.ndarray:
        return self.read([""] * 3)

    def prompts(self, items: Sequence[Any]) -> list[str]:
        return ["" if item is None else as_text(item) for item in items]


class SentenceProcessor(InputProcessor):
    """Sentences → (B, S) int64 token ids, each sentence with EOS at its end, padded on the right.

    Args:
        tokenizer: tokenizer of the sentences.
        lowercase: convert sentences to lower case first.
        max_length: length in tokens of the longest training sentence; longer ones are better cut. 0: unknown.
        multi_sentence_p90: 90th percentile of the length in tokens of the training sources that hold several
            sentences; longer lines are better split. 1: such sources were rare. 0: unknown.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> SentenceProcessor(CharTokenizer.train(["hello"])).read(["hell", "o"]).shape
        (2, 5)
    """

    kind = "sentences"

    OLD_NAMES: ClassVar = {"longest": "max_length", "usual": "multi_sentence_p90"}
    """Old name of an argument → its name today, for folders that were saved earlier."""

    def __init__(
        self, tokenizer: Tokenizer, *, lowercase: bool = False, max_length: int = 0, multi_sentence_p90: int = 0
    ) -> None:
        self.tokenizer = tokenizer
        self.lowercase = lowercase
        self.max_length, self.multi_sentence_p90 = int(max_length), int(multi_sentence_p90)

    def encode(self, sentence: Any) -> list[int]:
        """The token ids of a sentence and EOS: one memory position each. Of an array of ids, those before padding;
        of None, none."""
        if sentence is None or isinstance(sentence, np.ndarray):
            ids = [] if sentence is None else sentence.tolist()
            return [i for i in ids if i != self.tokenizer.pad_id]
        text = as_text(sentence).lower() if self.lowercase else as_text(sentence)
        return [*self.tokenizer.encode(text), self.tokenizer.eos_id]

    def known(self, item: Any, unknown: str | None) -> Any:
        if isinstance(item, np.ndarray):
            return item
        text = as_text(item).lower() if self.lowercase else as_text(item)
        token_ids = self.tokenizer.encode_known(text, unknown or "replace")
        return self.tokenizer.decode(token_ids) if unknown == "skip" else item

    def read(self, items: Sequence[Any]) -> np.ndarray:
        self.refuse_none(items)
        encoded = [self.encode(item) for item in items]
        padded = np.full((len(items), max(map(len, encoded), default=1) or 1), self.tokenizer.pad_id, np.int64)
        for row, token_ids in zip(padded, encoded, strict=True):
            row[: len(token_ids)] = token_ids
        return padded

    def example(self) -> np.ndarray:
        return np.full((3, 5), self.tokenizer.eos_id, np.int64)

    def labels(self, item: Any) -> list[str]:
        return [self.tokenizer.decode([i]) or "∎" for i in self.encode(item)]

    def config(self) -> dict[str, Any]:
        lengths = {"max_length": self.max_length, "multi_sentence_p90": self.multi_sentence_p90}
        return {"tokenizer": self.tokenizer.kind, "lowercase": self.lowercase, **lengths}

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.bin": self.tokenizer.to_bytes()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], read: Callable[[str], bytes]) -> SentenceProcessor:
        config = rename_keys(config, cls.OLD_NAMES)
        tokenizer = TOKENIZERS[config["tokenizer"]].from_bytes(read("tokenizer.bin"))
        lengths = {name: int(config.get(name, 0)) for name in cls.OLD_NAMES.values()}
        return cls(tokenizer, lowercase=bool(config["lowercase"]), **lengths)


class PictureProcessor(InputProcessor):
    """Pictures → (B, 3, size, size) uint8.

    Args:
        preprocessing: the preprocessing that the network was trained with.
        num_cells: S, the grid cells of the network's last feature map.
    """

    kind = "pictures"
    one_shape = True

    OLD_NAMES: ClassVar = {"places": "num_cells"}
    """Old name of an argument → its name today, for folders that were saved earlier."""

    def __init__(self, preprocessing: Preprocessing, num_cells: int) -> None:
        self.preprocessing = preprocessing
        self.num_cells = num_cells

    def read(self, items: Sequence[Any]) -> np.ndarray:
        """Decodes and preprocesses pictures.

        Args:
            items: pictures as `open_picture` takes them, or None. What this method has made before, (3, size,
                size) uint8, stays as it is; so do features of the network, (S, C) float, where all items are such.

        Raises:
            PictureError: one of them cannot be used.
        """
        self.refuse_none(items)
        given = [item for item in items if item is not None]
        if len(given) < len(items):
            nothing = np.zeros_like(self.read(given[:1])[0] if given else self.example()[0])
            read = iter(self.read(given) if given else ())
            return np.stack([nothing if item is None else next(read) for item in items])
        if all(isinstance(item, np.ndarray) and item.dtype != np.uint8 and item.ndim == 2 for item in items):
            return np.stack(items)
        with ThreadPoolExecutor(2) as pool:  # decoding releases the interpreter lock
            return np.stack(list(pool.map(self._pixels, items)))

    def _pixels(self, item: Any) -> np.ndarray:
        made = isinstance(item, np.ndarray) and item.dtype == np.uint8
        if made and item.shape == (3, self.preprocessing.size, self.preprocessing.size):
            return item
        found = self.preprocessing.pixels(item)
        if self.optional and not found.any():  # zeros are no picture, and a black one is one
            found[0, 0, 0] = 1
        return found

    def example(self) -> np.ndarray:
        return np.zeros((3, 3, self.preprocessing.size, self.preprocessing.size), np.uint8)

    def labels(self, item: Any) -> list[str]:
        if item is None:
            return []
        side = round(self.num_cells**0.5)
        return [f"{i // side + 1},{i % side + 1}" for i in range(self.num_cells)]

    def config(self) -> dict[str, Any]:
        return {"preprocessing": self.preprocessing.to_dict(), "num_cells": self.num_cells}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], read: Callable[[str], bytes]) -> PictureProcessor:
        config = rename_keys(config, cls.OLD_NAMES)
        return cls(Preprocessing.from_dict(config["preprocessing"]), int(config["num_cells"]))


PROCESSORS: dict[str, type[InputProcessor]] = {
    c.kind: c for c in (PromptProcessor, SentenceProcessor, PictureProcessor)
}
"""kind → class. A class of your own is added by the file that defines it."""


def rename_keys(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A configuration whose old keys have their new names.

    Example:
        >>> rename_keys({"places": 49, "size": 224}, {"places": "num_cells"})
        {'num_cells': 49, 'size': 224}
    """
    return {names.get(key, key): value for key, value in config.items()}


def processor_files(processors: Mapping[str, InputProcessor]) -> dict[str, bytes]:
    """The files of all processors; with several of them, each file name begins with the processor's name."""
    prefix = "{}-{}" if len(processors) > 1 else "{1}"
    return {prefix.format(name, file): data for name, p in processors.items() for file, data in p.files().items()}
