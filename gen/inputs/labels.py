"""Labels: a vocabulary in which every label is one token, and an input processor that reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from gen.base.errors import UserError
from gen.inputs.processors import PROCESSORS, InputProcessor
from gen.inputs.tokenizer import SPECIALS, TOKENIZERS, Tokenizer


class LabelTokenizer(Tokenizer):
    """One token per label: a text is a label, whatever characters it has.

    Example:
        >>> tokenizer = LabelTokenizer(["Sports", "World news"])
        >>> tokenizer.encode("World news"), tokenizer.decode([5])
        ([5], 'World news')
    """

    kind = "label"

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = sorted(set(labels))
        self._texts = ["", "", "", "", *self.labels]
        self._ids = {label: i for i, label in enumerate(self.labels, len(SPECIALS))}

    def __len__(self) -> int:
        return len(self._texts)

    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        if not text:  # nothing is forced
            return []
        if strict and text not in self._ids:
            raise unknown_label(text, self.labels)
        return [self._ids.get(text, self.unk_id)]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self._texts[i] for i in token_ids)

    def to_bytes(self) -> bytes:
        return json.dumps({"labels": self.labels}, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> LabelTokenizer:
        try:
            labels = json.loads(data)["labels"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("not a saved tokenizer") from error
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ValueError("not a saved tokenizer")
        return cls(labels)


TOKENIZERS[LabelTokenizer.kind] = LabelTokenizer


def _is_given(item: Any) -> bool:
    """Whether there is a label: 0 is one."""
    return item is not None and str(item) != ""


class LabelProcessor(InputProcessor):
    """Labels, or arrays of their ids → (B, 1) int64 ids. None and "" are "no label", for which a model can be
    trained, too.

    Args:
        tokenizer: knows the labels.

    Example:
        >>> LabelProcessor(LabelTokenizer(["news", "sports"])).read(["sports", None]).tolist()
        [[5], [0]]
    """

    kind = "labels"
    optional = True

    def __init__(self, tokenizer: LabelTokenizer) -> None:
        self.tokenizer = tokenizer

    def read(self, items: Sequence[Any]) -> np.ndarray:
        return np.array([self._id(item) for item in items], np.int64).reshape(len(items), 1)

    def _id(self, item: Any) -> int:
        if isinstance(item, np.ndarray):
            return int(item.item())
        return self.tokenizer.encode(str(item), strict=True)[0] if _is_given(item) else self.tokenizer.pad_id

    def example(self) -> np.ndarray:
        return np.full((3, 1), self.tokenizer.pad_id, np.int64)

    def labels(self, item: Any) -> list[str]:
        return [str(item)] if _is_given(item) else []

    def config(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.kind}

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.bin": self.tokenizer.to_bytes()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], read: Callable[[str], bytes]) -> LabelProcessor:
        return cls(LabelTokenizer.from_bytes(read("tokenizer.bin")))


PROCESSORS[LabelProcessor.kind] = LabelProcessor


def unknown_label(label: str, known: Sequence[str], hint: str = "") -> UserError:
    """The error for a label that a model does not know; it names the nearest one, and ends with ``hint``."""
    near = get_close_matches(label, known, 1, 0.5)
    some = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    meant = f": did you mean {near[0]!r}?" if near else f" (known: {some})"
    return UserError(f"unknown label {label!r}{meant}{hint}")
