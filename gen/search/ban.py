"""The processors of ``--ban``: banned tokens, and words of several tokens, whatever their spelling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gen.base.errors import UserError
from gen.inputs.tokenizer import Tokenizer
from gen.search.ops import Array, Ops
from gen.search.phrases import Phrases, Place
from gen.search.processors import Processor


class BannedTexts(Processor):
    """Forbids texts as whole words: banning "cat" leaves "cats" and "scat" possible.

    A word has come only when it has ended, so the token that would end it is forbidden, also at the length limit.

    Args:
        texts: the texts.
        tokenizer: of the output.
        limits: the length limit of each of the B inputs.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer, limits: Sequence[int]) -> None:
        self.texts, self.limits = list(texts), list(limits)
        self._phrases = Phrases([[text] for text in texts], tokenizer, once=False)
        self._eos_id = tokenizer.eos_id

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        self._places = []
        for prompt in prompts:
            place = self._phrases.begin([])
            for token_id in prompt:
                place = place.after(token_id)
            self._places.append(place)
        self._limits = np.repeat(self.limits, len(prompts) // len(self.limits))

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        last = (self.ops.numpy(lengths) >= self._limits - 1).tolist()
        rows: dict[tuple[Place, bool], list[int]] = defaultdict(list)
        for row, place in enumerate(self._places):
            rows[place, last[row]].append(row)
        for (place, is_last), chosen in rows.items():
            if token_ids := self._completing(place, is_last):
                mask = np.zeros(len(self._places), bool)
                mask[chosen] = True
                mask, banned = self.ops.asarray(mask, "bool"), self.ops.asarray(token_ids, "int64")
                log_probs = self.ops.ban(log_probs, mask, banned)
        return log_probs

    def _completing(self, place: Place, is_last: bool) -> list[int]:
        """The tokens with which a text has come."""
        if is_last not in place.notes:
            after = [(i, place.after(i)) for i, token in enumerate(self._phrases.tokens) if token]
            found = [i for i, then in after if then.met or (is_last and then.open)]
            place.notes[is_last] = [*found, self._eos_id] if place.open else found
        return place.notes[is_last]

    def observe(self, parents: Array | None, token_ids: Array, live: Array) -> None:
        order = range(len(self._places)) if parents is None else self.ops.numpy(parents).tolist()
        new = self.ops.numpy(token_ids).tolist()
        self._places = [self._places[p].after(token_id) for p, token_id in zip(order, new, strict=True)]

    def keep(self, rows: np.ndarray) -> None:
        self._places = [self._places[r] for r in rows]
        self._limits = self._limits[rows]


def banned_tokens(texts: Sequence[str], never: Sequence[int], tokenizer: Tokenizer) -> tuple[list[int], list[str]]:
    """The ids of the tokens that spell a banned text, and the normalised texts that other tokens can spell, for
    `BannedTexts`.

    Args:
        texts: the texts.
        never: token ids that no output may hold anyway.
        tokenizer: of the output.

    Raises:
        UserError: a text can never be written, since the vocabulary lacks a part of it.
    """
    texts = [tokenizer.normalize(text) for text in texts]
    as_tokens = {text: _as_one_token(text, never, tokenizer) for text in texts}
    # A character is banned wherever it stands. Other tokens are, and so are other ways to spell them.
    spelled = [text for text in texts if not (tokenizer.kind in ("char", "word") and as_tokens[text])]
    return [token_id for token_ids in as_tokens.values() for token_id in token_ids], spelled


def _as_one_token(text: str, never: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """The ids of the tokens that are ``text``, with a space before it and without. Raises `UserError` where it can
    never come, since the vocabulary lacks a part."""
    found = [i for i, token in enumerate(tokenizer.tokens()) if token in (text, f" {text}") and i not in never]
    if not found and set(tokenizer.encode(text)) & set(tokenizer.encode(f" {text}")) & set(never):
        raise UserError(f"--ban {text!r}: never comes, since the vocabulary lacks a part of it; leave it out")
    return found
