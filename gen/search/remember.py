"""Writes the memory of a model, in one pass over a corpus and without training; see `gen.search.datastore`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen.base.errors import UserError
from gen.search.lookup import LARGE, write_index

_WINDOW, _LEAD = 1024, 256
"""Tokens of a text that are read at once, and tokens before them that are read again, to have a state."""

_TOGETHER = 4096
"""Texts that are sorted by length; tokens of a batch."""


class Text(NamedTuple):
    """A text to remember: its token ids, the item that it is written for, and how many tokens only lead in."""

    token_ids: np.ndarray
    item: Any
    skip: int = 0


def write_pairs(folder: Path, model: Any, pairs: Sequence[tuple[str, str]]) -> None:
    """Writes the memory of a translation model: sources and targets.

    Args:
        folder: exists, and is empty.
        model: of torch or exported.
        pairs: at least one.
    """
    encoded = [model.tokenizer.encode_array(target) for _, target in pairs]
    texts = (Text(ids, {"sentence": source}) for ids, (source, _) in zip(encoded, pairs, strict=True))
    lengths = np.array([len(ids) + 1 for ids in encoded])
    _write(folder, model, texts, int(lengths.sum()))
    sources = [model.processors["sentence"].encode(source)[:-1] for source, _ in pairs]
    np.save(folder / "sources.npy", np.concatenate(sources).astype(np.int32))
    np.save(folder / "source_ends.npy", _ends(list(map(len, sources))))
    np.save(folder / "ends.npy", _ends(lengths))
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(pair) + "\n" for pair in pairs)


def write_text(
    folder: Path, model: Any, pieces: Iterable[str | None], given: Mapping[str, str] | None = None
) -> int:
    """Writes the memory of a language model. Returns the number of its entries.

    Args:
        folder: exists, and is empty.
        model: of torch or exported.
        pieces: a text, cut at line ends; None between two files. Where the model's texts are lines, so are these.
        given: the labels of the texts, for a model that reads some.
    """
    item, tokenizer, ends = {"prompt": "", **(given or {})}, model.tokenizer, model.info.ends_with_eos
    if ends:
        lines = (line for piece in pieces if piece for line in piece.split("\n") if line.strip())
        texts = [Text(tokenizer.encode_array(line), item) for line in lines]
        count = sum(len(text.token_ids) + 1 for text in texts)
    else:
        parts = [[tokenizer.eos_id] if piece is None else tokenizer.encode_array(piece) for piece in pieces]
        ids = np.concatenate([np.empty(0, np.int64), *parts])
        begins = range(0, len(ids), _WINDOW)
        leads = [min(begin, _LEAD) for begin in begins]
        texts = [Text(ids[b - n : b + _WINDOW], item, n) for b, n in zip(begins, leads, strict=True)]
        count = len(ids)
    _write(folder, model, texts, count)
    if count > LARGE and find_spec("usearch"):
        write_index(folder)
    return count


def _ends(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _write(folder: Path, model: Any, texts: Iterable[Text], count: int) -> None:
    """Writes the ``count`` entries of texts, in constant memory."""
    total, squares, loss, rest = np.zeros(1), 0.0, 0.0, iter(texts)
    ends = int(model.info.ends_with_eos)
    with (folder / "keys.npy").open("wb") as keys, (folder / "values.npy").open("wb") as values:
        _write_header(values, np.int32, (count,))
        while block := list(islice(rest, _TOGETHER)):
            with model.evaluating():
                found = _read(model, block)
            for text, (log_probs, features) in zip(block, found, strict=True):
                own = slice(text.skip, len(text.token_ids) + ends)
                made = features[own].astype(np.float16)
                if not keys.tell():
                    _write_header(keys, np.float16, (count, made.shape[1]))
                keys.write(made.tobytes())
                values.write(np.append(text.token_ids, model.tokenizer.eos_id)[own].astype(np.int32).tobytes())
                total = total + made.sum(0, dtype=np.float64)
                squares += float(np.square(made, dtype=np.float64).sum())
                loss -= float(log_probs[own].sum())
    scale = 2 * max(squares / count - float(np.square(total / count).sum()), 1e-9)
    about = {"fingerprint": model.fingerprint, "scale": scale, "loss": loss / count}
    (folder / "about.json").write_text(json.dumps(about))


def _write_header(file: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _read(model: Any, texts: Sequence[Text]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The log-probabilities (T + 1,) and features (T + 1, F) of texts, read in batches of similar length."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].token_ids))
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    while order:
        count = max(1, _TOGETHER // (len(texts[order[-1]].token_ids) + 1))
        rows, order = order[-count:], order[:-count]
        log_probs, features = model.forced_log_probs(
            [texts[i].token_ids for i in rows], [texts[i].item for i in rows]
        )
        if features is None:
            raise UserError("--memory: this model was exported by an older version: export it again")
        found |= zip(rows, zip(log_probs, features, strict=True), strict=True)
    return [found[i] for i in range(len(texts))]
