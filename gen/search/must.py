"""What an output has to say: no text may end, or run out of length, before it has said it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gen.base.errors import UserError
from gen.inputs.tokenizer import Tokenizer
from gen.search.ops import Array, Ops
from gen.search.option_checks import empty_in
from gen.search.phrases import LETTER, SPACE, Form, Phrases, Place, token_bytes, whole_words
from gen.search.processors import Processor

MUST = "must"
"""The name under which an item brings its own constraints."""


@dataclass(frozen=True)
class _Spelling:
    """The usual tokens of a form.

    Attributes:
        bare: without a space before it; empty where there are none.
        spaced: with one.
        rest: how many bytes have been written → the tokens that are left.
    """

    bare: list[int]
    spaced: list[int]
    rest: dict[int, list[int]]

    def begun(self, form: Form, last: int) -> list[list[int]]:
        """The ways to write it after a character of kind ``last``."""
        bare = [self.bare] if self.bare and not (form.begins and last == LETTER) else []
        return bare + ([self.spaced] if self.spaced and not (bare and last == SPACE) else [])


class Goal(Phrases):
    """What one output has to say, in any order, and how it can be written.

    Args:
        wanted: texts; alternatives are divided by ``|``.
        tokenizer: of the output. What only a small letter can write is written so.

    Raises:
        UserError: the vocabulary lacks a part of every alternative.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> goal = Goal(["cat|dog"], CharTokenizer.train(["a cat, a dog"]))
        >>> goal.missing("a catalogue of dogs"), goal.missing("a dog")
        (['cat|dog'], [])
    """

    def __init__(self, wanted: Sequence[str], tokenizer: Tokenizer) -> None:
        self.wanted = list(dict.fromkeys(wanted))
        spelled: list[list[tuple[str, _Spelling]]] = [
            [found for form in text.split("|") if (found := _spell(tokenizer.normalize(form), tokenizer))]
            for text in self.wanted
        ]
        for text, forms in zip(self.wanted, spelled, strict=True):
            if not forms:
                raise UserError(f"{text!r} must come, and cannot be written: the vocabulary lacks a part of it")
        super().__init__([[form for form, _ in each] for each in spelled], tokenizer)
        self._tokenizer = tokenizer
        self._spellings = {
            form: spelling
            for own, each in zip(self.forms, spelled, strict=True)
            for form, (_, spelling) in zip(own, each, strict=True)
        }
        self._most = [self._cost(group, LETTER) for group in range(len(self.forms))]

    def missing(self, text: str, begin: int = 0) -> list[str]:
        """What a text does not say from position ``begin`` on."""
        pairs = zip(self.wanted, self.forms, strict=True)
        return [w for w, forms in pairs if not any(whole_words(f.text).search(text, begin) for f in forms)]

    def within(self, limit: int, prompt: Sequence[int]) -> Goal | None:
        """As much of it, from the first on, as ``limit`` tokens after a prompt can say."""
        for count in range(len(self.wanted), 0, -1):
            goal = self if count == len(self.wanted) else Goal(self.wanted[:count], self._tokenizer)
            if goal.needs(goal.begin(prompt)) <= limit:
                return goal
        return None

    def left(self, place: Place) -> list[int]:
        """The groups that have not come."""
        said = place.met | place.open
        return [group for group in range(len(self.forms)) if not said >> group & 1]

    def bank(self, place: Place) -> int:
        """Twice the number of groups that have come, and one more inside of another."""
        said = place.met | place.open
        return 2 * said.bit_count() + any(not said >> group & 1 for group, _, _ in place.going)

    def next_ids(self, place: Place) -> list[int]:
        """The tokens that begin a group that has not come, or go on with it."""
        left, found = self.left(place), []
        for group, form, n in place.going:
            if group in left and (rest := self._spellings[form].rest.get(n)):
                found.append(rest[0])
        for group in left:
            for form in self.forms[group]:
                found += [way[0] for way in self._spellings[form].begun(form, place.last)]
        return list(dict.fromkeys(found))

    def needs(self, place: Place) -> int:
        """How many tokens are enough to say what has not been said."""
        left = self.left(place)
        whole = sum(self._most[group] for group in left)
        first = [self._cost(group, place.last) - self._most[group] for group in left]
        for group, form, n in place.going:
            if group in left and (rest := self._spellings[form].rest.get(n)):
                first.append(len(rest) - self._most[group])
        return whole + min(first, default=0)

    def _cost(self, group: int, last: int) -> int:
        """How many tokens a group takes after a character of kind ``last``."""
        costs = []
        for form in self.forms[group]:
            spelling = self._spellings[form]
            # Where only a letter is before it, another token has to come first.
            costs += list(map(len, spelling.begun(form, last))) or [len(spelling.bare) + 1]
        return min(costs)

    def allowed(self, place: Place, left: int) -> np.ndarray | None:
        """(V,) bool, the tokens after which ``left`` further ones are enough; None: all of them."""
        if left >= sum(most for group, most in enumerate(self._most) if not place.met >> group & 1):
            return None
        if left not in place.notes:
            fits = [self.needs(place.after(i)) <= left for i in range(len(self.tokens))]
            place.notes[left] = np.array(fits)
        return place.notes[left]


def goals_of(wanted: Sequence[Sequence[str]], tokenizer: Tokenizer, banned: Sequence[str]) -> list[Goal | None]:
    """The goal of each output; one for all that want the same, and None where nothing is wanted.

    Raises:
        UserError: something cannot be written, or is banned.
    """
    known = {each: Goal(each, tokenizer) for each in {tuple(each) for each in wanted} if each}
    patterns = {text: whole_words(tokenizer.normalize(text)) for text in banned}
    for goal in known.values():
        for text, forms in zip(goal.wanted, goal.forms, strict=True):
            for ban, pattern in patterns.items():
                if all(pattern.search(form.text) for form in forms):
                    raise UserError(f"--must {text!r} and --ban {ban!r} exclude each other")
    return [known.get(tuple(each)) for each in wanted]


class Must(Processor):
    """Lets no output end before it has said what it must, and leaves it the tokens for it.

    Args:
        goals: of each of the B inputs; None where nothing has to be said.
        limits: the length limit of each of them.
        eos_id: the token that ends an output.

    Attributes:
        places: where each row is.
    """

    places: list[Place | None]

    def __init__(self, goals: Sequence[Goal | None], limits: Sequence[int], eos_id: int) -> None:
        self.goals, self.limits, self.eos_id = list(goals), list(limits), eos_id

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        width, self._size = len(prompts) // len(self.goals), vocab_size
        self.goal_of_row = [goal for goal in self.goals for _ in range(width)]
        self._limits = np.repeat(self.limits, width)
        pairs = zip(self.goal_of_row, prompts, strict=True)
        self.places = [goal.begin(prompt) if goal else None for goal, prompt in pairs]
        self._eos = ops.asarray([self.eos_id], "int64")

    def rows(self) -> Iterator[tuple[int, Goal, Place]]:
        """The rows with a goal, and where they are."""
        for row, (goal, place) in enumerate(zip(self.goal_of_row, self.places, strict=True)):
            if goal is not None and place is not None:
                yield row, goal, place

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        left = (self._limits - self.ops.numpy(lengths) - 1).tolist()
        unsaid = np.zeros(len(self.places), bool)
        fitting: dict[int, np.ndarray] = {}
        for row, goal, place in self.rows():
            unsaid[row] = bool(goal.left(place))
            fits = goal.allowed(place, left[row]) if left[row] >= 0 else None
            if fits is not None:
                fitting[row] = fits
        log_probs = self.ops.ban(log_probs, self.ops.asarray(unsaid, "bool"), self._eos)
        if fitting:
            mask = np.ones((len(self.places), self._size), bool)
            for row, fits in fitting.items():
                mask[row] = fits
            never = self.ops.full((1, 1), -np.inf, "float32")
            log_probs = self.ops.where(self.ops.asarray(mask, "bool"), log_probs, never)
        return log_probs

    def observe(self, parents: Array | None, token_ids: Array, live: Array) -> None:
        parent = range(len(self.places)) if parents is None else self.ops.numpy(parents).tolist()
        new, written, before = self.ops.numpy(token_ids).tolist(), self.ops.numpy(live).tolist(), self.places
        self.places = [None] * len(before)
        for row, goal in enumerate(self.goal_of_row):
            place = before[parent[row]]
            if goal and place:
                after = place.after(new[row]) if written[row] else goal.skip(place, new[row])
                self.places[row] = after

    def keep(self, rows: np.ndarray) -> None:
        self.places = [self.places[r] for r in rows]
        self.goal_of_row = [self.goal_of_row[r] for r in rows]
        self._limits = self._limits[rows]


def _spell(text: str, tokenizer: Tokenizer) -> tuple[str, _Spelling] | None:
    """A text, or where only this can be written it in small letters, and its tokens; None where neither can be."""
    tokens, _ = token_bytes(tokenizer)
    best: tuple[int, str, list[int], list[int]] | None = None
    for form in dict.fromkeys((text, text.lower())):
        bare = _tokens_of(form, ("\n", "(", ""), tokenizer, tokens)
        spaced = _tokens_of(f" {form}", ("x", ""), tokenizer, tokens)
        number = sum(len(tokens[i]) == 1 and tokens[i][0] > 127 for i in bare or spaced)
        if (bare or spaced) and (best is None or number < best[0]):
            best = number, form, bare, spaced
    if best is None:
        return None
    _, form, bare, spaced = best
    if spaced and tokens[spaced[0]] == b" " and not 0 < len(bare) < len(spaced):
        bare = spaced[1:]
    rest: dict[int, list[int]] = {}
    for written, token_ids in ((0, bare), (-1, spaced)):
        for n, token_id in enumerate(token_ids[:-1], 1):
            written += len(tokens[token_id])
            rest.setdefault(written, token_ids[n:])
    return form, _Spelling(bare, spaced, rest)


def _tokens_of(text: str, contexts: Sequence[str], tokenizer: Tokenizer, tokens: list[bytes]) -> list[int]:
    """The tokens of a text inside of another one; empty where there are none."""
    data = text.encode("utf-8", "surrogatepass")
    for context in contexts:
        token_ids = tokenizer.encode(context + text)
        found = b""
        for n in range(len(token_ids) - 1, -1, -1):
            found = tokens[token_ids[n]] + found
            if not tokens[token_ids[n]] or len(found) > len(data):
                break
            if found == data:
                return token_ids[n:]
    return []


def own_must(item: Any) -> tuple[str, ...]:
    """What the output of one item must say; see `SearchOptions.must`. Raises `UserError` for anything else."""
    found = item.get(MUST) if isinstance(item, Mapping) else None
    texts = [found] if isinstance(found, str) else [] if found is None else found
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts) or empty_in(texts):
        raise UserError(f"--must {found!r}: give a text, or a list of texts, without an empty alternative")
    return tuple(texts)


def without_must(item: Any, *, named: bool) -> Any:
    """The item as the model reads it; ``named``: its inputs have names."""
    if not isinstance(item, Mapping) or MUST not in item:
        return item
    rest = {name: value for name, value in item.items() if name != MUST}
    return next(iter(rest.values())) if len(rest) == 1 and not named else rest
