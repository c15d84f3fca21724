"""What people give a model, as arrays: the part of an encoder that computes nothing yet.

Imports no torch: a model and what was exported from it read their input with the same code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np

from gen.inputs.pictures import Preprocessing
from gen.inputs.tokenizer import TOKENIZERS, Tokenizer


class Reader(ABC):
    """Items → the array that an encoder starts from.

    Attributes:
        kind: its name in a saved model.
    """

    kind: ClassVar[str]

    @abstractmethod
    def read(self, items: Sequence[Any]) -> np.ndarray:
        """B items → an array with B rows."""

    @abstractmethod
    def example(self) -> np.ndarray:
        """What `read` might give for three items, none of its sizes one."""

    def prompts(self, items: Sequence[Any]) -> list[str]:
        """Where the output of each item begins."""
        return [""] * len(items)

    def labels(self, item: Any) -> list[str]:
        """What each of the S vectors that an item gets stands for, in words."""
        return []

    def config(self) -> dict[str, Any]:
        """Plain values from which `from_config` makes the same reader, together with `files`."""
        return {}

    def files(self) -> dict[str, bytes]:
        """What has to be saved beside the configuration: name → content."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], read: Callable[[str], bytes]) -> Reader:
        """The reader that was saved. ``read(name)`` gives back what `files` gave."""
        return cls(**config)


class PromptReader(Reader):
    """Free text: an item is how the output begins, and there is nothing else to read."""

    kind = "prompts"

    def read(self, items: Sequence[Any]) -> np.ndarray:
        return np.zeros(len(items), np.int64)

    def example(self) -> np.ndarray:
        return self.read([""] * 3)

    def prompts(self, items: Sequence[Any]) -> list[str]:
        return [str(item) for item in items]


class SentenceReader(Reader):
    """Sentences → (B, S) int64 token ids, each with its end, padded on the right.

    Args:
        tokenizer: of the sentences.
        lowercase: lower-case them first.
        longest: tokens of the longest sentence of the training, for those who cut longer ones; 0: not known.
        usual: tokens up to which a line may well hold several sentences, for those who split lines; 0: not known.

    Example:
        >>> SentenceReader(CharTokenizer.train(["hello"])).read(["hell", "o"]).shape
        (2, 5)
    """

    kind = "sentences"

    def __init__(self, tokenizer: Tokenizer, *, lowercase: bool = False, longest: int = 0, usual: int = 0) -> None:
        self.tokenizer = tokenizer
        self.lowercase = lowercase
        self.longest, self.usual = longest, usual

    def encode(self, sentence: str) -> list[int]:
        """The token ids of a sentence, the end included: what a column of the memory stands for."""
        text = sentence.lower() if self.lowercase else sentence
        return [*self.tokenizer.encode(text), self.tokenizer.eos_id]

    def read(self, items: Sequence[Any]) -> np.ndarray:
        encoded = [self.encode(str(item)) for item in items]
        padded = np.full((len(items), max(map(len, encoded), default=0)), self.tokenizer.pad_id, np.int64)
        for row, token_ids in zip(padded, encoded, strict=True):
            row[: len(token_ids)] = token_ids
        return padded

    def example(self) -> np.ndarray:
        return np.full((3, 5), self.tokenizer.eos_id, np.int64)

    def labels(self, item: Any) -> list[str]:
        return [self.tokenizer.decode([i]) or "∎" for i in self.encode(str(item))]

    def config(self) -> dict[str, Any]:
        sizes = {"longest": self.longest, "usual": self.usual}
        return {"tokenizer": self.tokenizer.kind, "lowercase": self.lowercase, **sizes}

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.bin": self.tokenizer.to_bytes()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], read: Callable[[str], bytes]) -> SentenceReader:
        tokenizer = TOKENIZERS[config["tokenizer"]].from_bytes(read("tokenizer.bin"))
        sizes = {name: int(config.get(name, 0)) for name in ("longest", "usual")}
        return cls(tokenizer, lowercase=bool(config["lowercase"]), **sizes)


class PictureReader(Reader):
    """Pictures → (B, 3, size, size) uint8.

    Args:
        preprocessing: what the network was trained with.
        places: S, how many vectors a picture gets.
    """

    kind = "pictures"

    def __init__(self, preprocessing: Preprocessing, places: int) -> None:
        self.preprocessing = preprocessing
        self.places = places

    def read(self, items: Sequence[Any]) -> np.ndarray:
        """Reads pictures.

        Args:
            items: paths, bytes or `PIL.Image`s; or all of them arrays, which are taken as they are.

        Raises:
            PictureError: one of them cannot be used.
        """
        if any(isinstance(item, np.ndarray) for item in items):
            return np.stack(items)
        with ThreadPoolExecutor(2) as pool:  # decoding lets other threads run
            return np.stack(list(pool.map(self.preprocessing.pixels, items)))

    def example(self) -> np.ndarray:
        return np.zeros((3, 3, self.preprocessing.size, self.preprocessing.size), np.uint8)

    def labels(self, item: Any) -> list[str]:
        side = round(self.places**0.5)
        return [f"{i // side + 1},{i % side + 1}" for i in range(self.places)]

    def config(self) -> dict[str, Any]:
        return {"preprocessing": self.preprocessing.to_dict(), "places": self.places}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], read: Callable[[str], bytes]) -> PictureReader:
        return cls(Preprocessing.from_dict(config["preprocessing"]), int(config["places"]))


READERS: dict[str, type[Reader]] = {c.kind: c for c in (PromptReader, SentenceReader, PictureReader)}
"""kind → class. A user's own is added by the file that defines it."""
