"""The processor behind ``--ban`` for words of several tokens: no output holds them, whatever their spelling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import regex

from gen.inputs.tokenizer import Tokenizer
from gen.search.ops import Array, Ops
from gen.search.processors import Processor

# A letter of a script that puts spaces between words. In others no letter marks where a word ends.
_LETTER = r"[[\p{L}\p{M}\p{N}_]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]]"


class BannedTexts(Processor):
    """Forbids texts as whole words: banning "cat" leaves "cats" and "scat" possible.

    A word has come only when it has ended, so the token that would end it is forbidden, also at the length limit.

    Args:
        texts: the texts.
        tokenizer: of the output.
        limits: the length limit of each of the B inputs.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer, limits: Sequence[int]) -> None:
        self.texts, self.tokenizer, self.limits = list(texts), tokenizer, list(limits)
        self._tokens = tokenizer.tokens()
        self._patterns = {text: banned_text(text) for text in self.texts}
        # As for stop strings: a token is at least one byte. One more for the letter before, one for a lost space.
        self._window = max(len(text.encode()) for text in self.texts) + 2
        self._completing = lru_cache(None)(self._find_completing)

    def start(self, ops: Ops, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        super().start(ops, prompts, vocab_size)
        self._tails = [tuple(prompt)[-self._window :] for prompt in prompts]
        self._limits = np.repeat(self.limits, len(prompts) // len(self.limits))

    def __call__(self, log_probs: Array, lengths: Array) -> Array:
        last = self.ops.numpy(lengths) >= self._limits - 1
        rows: dict[tuple[str, int, bool], list[int]] = defaultdict(list)
        for row, tail in enumerate(self._tails):
            before = self.tokenizer.decode(list(tail))
            for text in self.texts:
                for n in range(len(text) + 1):  # its first n characters have come
                    if before.endswith(text[:n]) and self._begins(before[: len(before) - n], text):
                        rows[text, n, bool(last[row])].append(row)
        for (text, n, is_last), chosen in rows.items():
            token_ids = self._completing(text, n, is_last)
            if len(token_ids):
                mask = np.zeros(len(self._tails), bool)
                mask[chosen] = True
                mask, banned = self.ops.asarray(mask, "bool"), self.ops.asarray(token_ids, "int64")
                log_probs = self.ops.ban(log_probs, mask, banned)
        return log_probs

    def _begins(self, before: str, text: str) -> bool:
        return not (_is_letter(before[-1:]) and _is_letter(text[0]))

    def _find_completing(self, text: str, n: int, is_last: bool) -> list[int]:
        """The tokens with which ``text`` has come, where its first ``n`` characters were there."""
        # The end of a token of words is the end of a word.
        open_end = self.tokenizer.kind != "word" and _is_letter(text[-1])
        ends = is_last or not open_end
        found = []
        for token_id, token in enumerate(self._tokens):
            match = self._patterns[text].search(text[:n] + token) if token else None
            if (match and match.end() > n and (ends or match.end() < n + len(token))) or (
                n == len(text) and open_end and token and not _is_letter(token[0])
            ):
                found.append(token_id)
        return [*found, self.tokenizer.eos_id] if n == len(text) and open_end else found

    def observe(self, parents: Array | None, token_ids: Array, live: Array) -> None:
        order = range(len(self._tails)) if parents is None else self.ops.numpy(parents).tolist()
        new = self.ops.numpy(token_ids).tolist()
        self._tails = [
            (*self._tails[p], token_id)[-self._window :] for p, token_id in zip(order, new, strict=True)
        ]
        if parents is not None:
            self._limits = self._limits[self.ops.numpy(parents)]

    def keep(self, rows: np.ndarray) -> None:
        self._tails = [self._tails[r] for r in rows]
        self._limits = self._limits[rows]


def banned_text(text: str) -> regex.Pattern[str]:
    """A pattern of ``text`` as whole words.

    Example:
        >>> [bool(banned_text("cat").search(text)) for text in ("a cat.", "cats", "scat")]
        [True, False, False]
    """
    begin = rf"(?<!{_LETTER})" if _is_letter(text[0]) else ""
    end = rf"(?!{_LETTER})" if _is_letter(text[-1]) else ""
    return regex.compile(rf"(?V1){begin}{regex.escape(text)}{end}")


@lru_cache(4096)
def _is_letter(character: str) -> bool:
    return regex.match(rf"(?V1){_LETTER}", character) is not None
