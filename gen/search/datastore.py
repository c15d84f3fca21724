"""A memory: of every token of a corpus, what the decoder predicts it from (Khandelwal et al., 2020, 2021).

It is built in one pass, without training; `gen.search.neighbours` looks things up in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen.base.errors import UserError
from gen.search.lookup import Lookup
from gen.search.neighbours import Neighbours
from gen.search.ops import NumpyOps

PAIRS, PLACES = 32, 64
"""How many of the pairs most like the input are searched; how many of the nearest places of a text have a say."""

_WINDOW, _LEAD = 1024, 256
"""Tokens of a text that are read at once, and tokens before them that are read again, for a state to begin with."""

_BLOCK = 1 << 15
"""Keys that are compared with queries at once."""

_TOGETHER = 4096
"""Texts that are sorted by length; tokens of a batch."""

LARGE = 1_000_000
"""Beyond so many entries, those of a text are searched with usearch."""


class Text(NamedTuple):
    """A text to remember: its token ids, the item that it is written for, and how many tokens only lead in."""

    token_ids: np.ndarray
    item: Any
    skip: int = 0


class Match(NamedTuple):
    """A pair of a memory whose source is like a sentence: at a similarity of 1 it is the same."""

    source: str
    target: str
    similarity: float


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

    Raises:
        UserError: there is no text.
    """
    item, tokenizer, ends = {"prompt": "", **(given or {})}, model.tokenizer, model.info.ends_with_eos
    if ends:
        lines = (line for piece in pieces if piece for line in piece.splitlines() if line.strip())
        texts = [Text(tokenizer.encode_array(line), item) for line in lines]
        count = sum(len(text.token_ids) + 1 for text in texts)
    else:
        parts = [[tokenizer.eos_id] if piece is None else tokenizer.encode_array(piece) for piece in pieces]
        ids = np.concatenate([np.empty(0, np.int64), *parts])
        begins = range(0, len(ids), _WINDOW)
        leads = [min(begin, _LEAD) for begin in begins]
        texts = [Text(ids[b - n : b + _WINDOW], item, n) for b, n in zip(begins, leads, strict=True)]
        count = len(ids)
    if not count:
        raise UserError("--memory: there is no text")
    _write(folder, model, texts, count)
    if count > LARGE and find_spec("usearch"):
        _write_index(folder)
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
            with model._evaluating():
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
        log_probs, features = model._forced([texts[i].token_ids for i in rows], [texts[i].item for i in rows])
        if features is None:
            raise UserError("--memory: this model was exported by an older version: export it again")
        found |= zip(rows, zip(log_probs, features, strict=True), strict=True)
    return [found[i] for i in range(len(texts))]


def _write_index(folder: Path) -> None:
    from usearch.index import Index

    keys = np.load(folder / "keys.npy", mmap_mode="r")
    index = Index(ndim=keys.shape[1], metric="l2sq", dtype="f16")
    for begin in range(0, len(keys), 1 << 16):
        part = np.asarray(keys[begin : begin + (1 << 16)])
        index.add(np.arange(begin, begin + len(part)), part)
    index.save(str(folder / "index.usearch"))


class Datastore:
    """A memory that `write_pairs` or `write_text` wrote, for ``model.datastore``.

    Args:
        folder: where it is.
        model: that it was written for.
        neighbours: of a translation model the pairs, most like the input, that are searched; of a language model
            the nearest places that have a say. None: 32 pairs, 64 places.
        temperature: of the vote; see `gen.search.neighbours.vote`.
        weight: the share λ of the memory, 0 to 1; None: larger, the nearer the neighbours are.

    Attributes:
        loss: what a token cost the model when it was read, in nats.

    Raises:
        UserError: it belongs to another model, or is no memory.

    Example:
        >>> import tempfile
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> from gen.models.model import DecoderConfig, Model, ModelInfo
        >>> tokenizer = CharTokenizer.train(["hello"])
        >>> info = ModelInfo(ends_with_eos=False)
        >>> model = Model({"name": "none"}, DecoderConfig(len(tokenizer)), tokenizer, info).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder), model, ["hello"])
        ...     model.datastore = Datastore(Path(folder), model)
        >>> model.generate("he", temperature=0, max_new_tokens=3).text
        'llo'
    """

    def __init__(
        self,
        folder: Path,
        model: Any,
        *,
        neighbours: int | None = None,
        temperature: float = 0.05,
        weight: float | None = None,
    ) -> None:
        try:
            about = json.loads((folder / "about.json").read_text())
            self.keys = np.load(folder / "keys.npy", mmap_mode="r")
            self.values = np.load(folder / "values.npy", mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: is no memory ({error})") from error
        if about["fingerprint"] != model.fingerprint:
            raise UserError(f"{folder}: is the memory of another model")
        self.scale, self.loss = float(about["scale"]), float(about["loss"])
        self.temperature, self.weight, self._eos_id = temperature, weight, model.tokenizer.eos_id
        self.has_pairs = (folder / "pairs.jsonl").exists()
        self.neighbours = neighbours or (PAIRS if self.has_pairs else PLACES)
        if self.has_pairs:
            self._open_pairs(folder, model)
        else:
            self._search = _search(folder, self.keys)

    def _open_pairs(self, folder: Path, model: Any) -> None:
        self._source, self._tokenizer = model.processors["sentence"], model.tokenizer
        self._ends = np.load(folder / "ends.npy")
        self._lookup = Lookup(np.load(folder / "sources.npy"), np.load(folder / "source_ends.npy"))
        with (folder / "pairs.jsonl").open(encoding="utf-8") as file:
            self._pairs: list[tuple[str, str]] = [tuple(json.loads(line)) for line in file]
        targets: dict[str, Counter[str]] = {}
        for source, target in self._pairs:
            targets.setdefault(self._normal(source), Counter())[target] += 1
        self._targets = {source: each.most_common(1)[0][0] for source, each in targets.items()}

    def _normal(self, source: str) -> str:
        """A source as the model sees it."""
        text = " ".join(self._source.tokenizer.normalize(source).split())
        return text.lower() if self._source.lowercase else text

    def target(self, source: Any) -> str | None:
        """The target of a sentence that the memory has: of several the most frequent."""
        return self._targets.get(self._normal(source)) if self.has_pairs and isinstance(source, str) else None

    def matches(self, source: str, count: int = 3, least: float = 0.6) -> list[Match]:
        """The pairs most like a sentence, best first, by edit distance.

        Raises:
            UserError: rapidfuzz is missing.
        """
        try:
            from rapidfuzz.distance import Levenshtein
        except ImportError as error:
            raise UserError("fuzzy matches need rapidfuzz: pip install 'gen-toolkit[memory]'") from error
        normal, found = self._normal(source), dict[str, Match]()
        for line in self._nearest(source, 2 * PAIRS):
            near, target = self._pairs[line]
            similarity = Levenshtein.normalized_similarity(normal, self._normal(near))
            if similarity >= least:
                found.setdefault(target, Match(near, target, round(similarity, 4)))
        return sorted(found.values(), key=lambda match: -match.similarity)[:count]

    def _nearest(self, source: Any, count: int) -> np.ndarray:
        """The indices of the pairs whose sources share most with a sentence."""
        return self._lookup.nearest(self._source.encode(source)[:-1], count)

    def entries(self, pairs: np.ndarray) -> np.ndarray:
        """The indices of the entries of pairs."""
        ranges = [np.arange(self._ends[i], self._ends[i + 1]) for i in pairs]
        return np.concatenate([np.empty(0, np.int64), *ranges])

    def processor(self, items: Sequence[Any], use_targets: Sequence[bool] = ()) -> Neighbours:
        """What lets the memory have a say in a search.

        Args:
            items: the inputs.
            use_targets: for each, whether a sentence that the memory has is translated as it was there.
        """
        if not self.has_pairs:
            return Neighbours(self, [None] * len(items))
        sources = [item["sentence"] if isinstance(item, Mapping) else item for item in items]
        targets: list[list[int] | None] = []
        for source, use in zip_longest(sources, use_targets, fillvalue=False):
            target = self.target(source) if use else None
            ids = self._tokenizer.encode(target) if target is not None else [self._tokenizer.unk_id]
            targets.append(None if self._tokenizer.unk_id in ids else [*ids, self._tokenizer.eos_id])
        entries = [self.entries(self._nearest(source, self.neighbours)) for source in sources]
        return Neighbours(self, targets, entries)

    def nearest(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest places of a text: their squared distances, and their tokens; (Q, k) each."""
        distances, found = self._search(queries, min(self.neighbours, len(self.keys)))
        return distances / self.scale, self.values[found]

    def mixed(
        self,
        log_probs: np.ndarray,
        features: np.ndarray | None,
        encoded: Sequence[np.ndarray],
        items: Sequence[Any],
    ) -> np.ndarray:
        """The log-probabilities of the tokens of B texts, (B, T + 1), with what the memory says of them.

        Args:
            log_probs: the model's, (B, T + 1); the last of a text is that of EOS.
            features: that it predicts them from, (B, T + 1, F).
            encoded: the texts.
            items: their inputs.
        """
        B, T = log_probs.shape
        token_ids = np.full((B, T), -1)
        for row, ids in zip(token_ids, encoded, strict=True):
            row[: len(ids) + 1] = [*ids, self._eos_id]
        processor = self.processor(items)
        processor.start(NumpyOps(), [[0]] * (B * T), 0)
        processor.look(features if features is None else features.reshape(B * T, -1))
        found = processor.vote()
        said = found.token_ids == token_ids.reshape(-1)[found.queries]
        own = np.bincount(found.queries[said], found.probs[said], minlength=B * T)
        mixed = found.rest * np.exp(log_probs.reshape(-1).astype(np.float64)) + own
        return np.log(np.maximum(mixed, 1e-300)).reshape(B, T).astype(np.float32)


# -- search among all entries ----------------------------------------------------------------------------

Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(queries (Q, F), k) → squared distances and indices of the k nearest keys, (Q, k) each."""


def _search(folder: Path, keys: np.ndarray) -> Search:
    index = folder / "index.usearch"
    if index.exists() and find_spec("usearch"):
        from usearch.index import Index

        return partial(_search_index, Index.restore(str(index), view=True))
    blocks = range(0, len(keys), _BLOCK)
    squares = [np.square(keys[b : b + _BLOCK], dtype=np.float32).sum(1) for b in blocks]
    return partial(_search_all, keys, squares)


def _search_index(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    found = index.search(queries, k)
    return found.distances.reshape(len(queries), k), found.keys.reshape(len(queries), k).astype(np.int64)


def _search_all(
    keys: np.ndarray, squares: Sequence[np.ndarray], queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Exact, block by block."""
    Q = len(queries)
    nearest, found = np.full((Q, 0), np.inf, np.float32), np.zeros((Q, 0), np.int64)
    for number, square in enumerate(squares):
        begin = number * _BLOCK
        block = keys[begin : begin + _BLOCK].astype(np.float32)
        distances = square - 2 * queries @ block.T  # (Q, n), but for what is the same for all keys
        distances = np.concatenate([nearest, distances], 1)
        indices = np.concatenate([found, np.broadcast_to(np.arange(begin, begin + len(block)), (Q, len(block)))], 1)
        if distances.shape[1] > k:
            best = np.argpartition(distances, k - 1, axis=1)[:, :k]
            distances, indices = (np.take_along_axis(a, best, 1) for a in (distances, indices))
        nearest, found = distances, indices
    return np.maximum(nearest + np.square(queries).sum(1)[:, None], 0), found
