"""The likeliest completions of the word being typed, found by a beam search over its tokens."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import regex

from gen.base.errors import ConfigError, UserError
from gen.inputs.tokenizer import Tokenizer
from gen.inputs.words import IN_WORD
from gen.search.beam import Beam
from gen.search.generation import GenerationMixin, SearchInput
from gen.search.loop import drain, search
from gen.search.option_checks import MOST_BEAMS

_WORD = regex.compile(IN_WORD)
_WORDS = regex.compile(f"{IN_WORD}*")
_LONGEST = 40  # tokens in a word


@dataclass(frozen=True)
class _Typing:
    """A state of the model and, per row, the typed letters that its next tokens still have to agree with."""

    state: Any
    left: tuple[str | None, ...]  # None: the word has ended
    begun: tuple[bool, ...]

    def select(self, rows: Any) -> _Typing:
        return self._of(self.state.select(rows), rows)

    def keep(self, inputs: Any, rows: Any) -> _Typing:
        return self._of(self.state.keep(inputs, rows), rows)

    def _of(self, state: Any, rows: Any) -> _Typing:
        order = rows.tolist()
        return _Typing(state, tuple(self.left[r] for r in order), tuple(self.begun[r] for r in order))


class _WordStep:
    """A `Step` that writes one word with the model's own step.

    Tokens that do not agree with the typed letters are ruled out and the rest renormalised; the probability of
    everything that ends a word (a space, a mark, a line's end) is summed and given to EOS. So a finished
    hypothesis is a word and its score the word's log-probability.
    """

    def __init__(self, start: SearchInput, tokenizer: Tokenizer, typed: str, begun: bool) -> None:
        self.start, self.tokenizer = start, tokenizer
        self.first = _Typing(start.state, (typed,), (begun,))
        texts = tokenizer.tokens()
        self.texts = ["" if regex.fullmatch(r"<0x..>|<unk>", t) else t for t in texts]
        self.usable = np.array([bool(t) for t in self.texts])
        self.ends = np.array([bool(t) and not _WORD.match(t) for t in self.texts])
        self.ends[tokenizer.eos_id] = True
        self.agreeing = lru_cache(self._agreeing)

    def _agreeing(self, left: str) -> np.ndarray:
        if self.tokenizer.kind == "word":  # a token is all of a word
            return np.array([bool(t.strip()) and t.startswith(left) for t in self.texts])
        return np.array([bool(t) and (t.startswith(left) or left.startswith(t)) for t in self.texts])

    def __call__(self, token_ids: Any, typing: _Typing) -> tuple[Any, _Typing, None]:
        ops = self.start.ops
        predicted, state, _ = self.start.step(token_ids, typing.state)
        log_probs = np.array(ops.numpy(predicted), dtype=np.float32)
        left, begun = list(typing.left), list(typing.begun)
        if typing is not self.first:
            for row, token_id in enumerate(ops.numpy(token_ids)[:, -1].tolist()):
                left[row], begun[row] = self._after(left[row], token_id, begun[row])
        for row, letters in enumerate(left):
            self._constrain(log_probs[row], letters, begun[row])
        possible = ~(log_probs == -np.inf).all(
            -1
        )  # elsewhere no token agrees, and there is nothing to renormalise
        log_probs[possible] = ops.numpy(ops.log_softmax(ops.asarray(log_probs[possible], "float32")))
        return ops.asarray(log_probs, "float32"), _Typing(state, tuple(left), tuple(begun)), None

    def _after(self, left: str | None, token_id: int, begun: bool) -> tuple[str | None, bool]:
        text = self.texts[token_id]
        if left is None or not text:
            return None, True
        rest = text[len(left) :]
        if not _WORDS.fullmatch(rest) or self.tokenizer.kind == "word":
            return None, True  # the token itself went past the word's end, or to it
        return left[len(text) :], begun or bool(rest)

    def _constrain(self, log_probs: np.ndarray, left: str | None, begun: bool) -> None:
        eos = self.tokenizer.eos_id
        if left is None:
            log_probs[:] = -np.inf
            log_probs[eos] = 0
        elif left:
            log_probs[~self.agreeing(left)] = -np.inf
        else:
            ending = np.logaddexp.reduce(log_probs[self.ends])
            log_probs[self.ends | ~self.usable] = -np.inf
            if begun:
                log_probs[eos] = ending


def suggest(model: GenerationMixin, prompt: str, n_best: int = 5, width: int = 32) -> list[tuple[str, float]]:
    """The ``n_best`` likeliest words that begin with the last letters of ``prompt``.

    Args:
        model: of text.
        prompt: what has been typed; after a space, the next word is suggested.
        n_best: how many words.
        width: of the beam, at least; twice ``n_best`` where that is more.

    Returns:
        (word, probability), likeliest first. For characters and words the probability is exact; for subwords
        it adds up the spellings found.

    Raises:
        UserError: the model reads an input, or the vocabulary cannot spell the prompt.
    """
    if not isinstance(prompt, str):
        raise UserError(f"suggest completes a text, not a {type(prompt).__name__}")
    is_whole = isinstance(n_best, int | np.integer) and not isinstance(n_best, bool)
    if not is_whole or not 1 <= n_best <= MOST_BEAMS // 2:
        raise ConfigError([f"--n-best must be a whole number from 1 to {MOST_BEAMS // 2}, not {n_best!r}"])
    if model.reads_input:
        raise UserError("this model reads an input to write about: only models of text suggest words")
    tokenizer = model.tokenizer
    prompt = tokenizer.normalize(prompt)
    letters = regex.findall(rf"{IN_WORD}*\Z", prompt)[0]  # of the word being typed
    before = prompt[: len(prompt) - len(letters)]
    ends_in_space = before[-1:] == " " if tokenizer.kind == "word" else before[-1:].isspace()
    space = before[-1:] if ends_in_space else ""
    # A character model has read the typed letters exactly. Larger tokens may span the end of what was typed:
    # go back to the last word's beginning, and let tokens agree with the letters.
    spelled = tokenizer.kind == "char"
    context, typed = (prompt, "") if spelled else (before.removesuffix(space), space + letters)
    start = model.start_search([context])
    step = _WordStep(start, tokenizer, typed, begun=bool(letters))
    width = max(width, 2 * n_best)
    running = search(
        step,
        step.first,
        [[tokenizer.bos_id, *tokenizer.encode(context, strict=True)]],
        Beam(width, length_penalty=0.0, n_best=width),
        ops=start.ops,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        max_new_tokens=_LONGEST,
    )
    with model.evaluating():
        hypotheses = drain(running)[0]
    found: dict[str, float] = defaultdict(float)
    for hypothesis in hypotheses:
        text = tokenizer.decode(hypothesis.token_ids)
        word = (letters + text) if spelled else text.lstrip()
        ended = _WORDS.match(word)
        if hypothesis.finished and ended and ended.group():
            found[ended.group()] += float(np.exp(hypothesis.score))
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:n_best]
