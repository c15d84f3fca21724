"""`gen suggest`: the likeliest completions of the word being typed."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np

from gen.base.config import parse_command
from gen.base.errors import ConfigError
from gen.base.fields import Arg
from gen.inputs.tokenizer import Tokenizer
from gen.search import Beam, drain, search
from gen.search.generation import GenerationMixin, SearchInput
from tasks.text.generate import load_model

_WORD = r"[\w'’\-]"
_LONGEST = 40  # tokens in a word


@dataclass(frozen=True)
class SuggestConfig:
    """Complete the word being typed."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run or of a model."""
    prompt: str = ""
    """What has been typed so far."""
    n_best: int = 5
    """How many completions."""
    json: bool = False
    """Print JSON."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""


@dataclass(frozen=True)
class _Typing:
    """A state of the model and, for every row, what is left of the typed letters to agree with."""

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
    """The model's step as a step of writing one word.

    Tokens that cannot begin or go on with the typed letters are ruled out and the rest renormalised; the
    probability of everything that ends a word (a space, a mark, a line's end) is added up and given to EOS.
    So a finished hypothesis is a word and its score the word's own log-probability.
    """

    def __init__(self, start: SearchInput, tokenizer: Tokenizer, typed: str, begun: bool) -> None:
        self.start, self.tokenizer = start, tokenizer
        self.first = _Typing(start.state, (typed,), (begun,))
        texts = tokenizer.tokens()
        self.texts = ["" if re.fullmatch(r"<0x..>|<unk>", t) else t for t in texts]
        self.usable = np.array([bool(t) for t in self.texts])
        self.ends = np.array([bool(t) and not re.match(_WORD, t) for t in self.texts])
        self.ends[tokenizer.eos_id] = True
        self.agreeing = lru_cache(self._agreeing)

    def _agreeing(self, left: str) -> np.ndarray:
        return np.array([bool(t) and (t.startswith(left) or left.startswith(t)) for t in self.texts])

    def __call__(self, token_ids: Any, typing: _Typing) -> tuple[Any, _Typing, None]:
        ops = self.start.ops
        said, state, _ = self.start.step(token_ids, typing.state)
        log_probs = np.array(ops.numpy(said), dtype=np.float32)
        left, begun = list(typing.left), list(typing.begun)
        if typing is not self.first:
            for row, token_id in enumerate(ops.numpy(token_ids)[:, -1].tolist()):
                left[row], begun[row] = self._after(left[row], token_id, begun[row])
        for row, letters in enumerate(left):
            self._constrain(log_probs[row], letters, begun[row])
        return ops.log_softmax(ops.asarray(log_probs, "float32")), _Typing(state, tuple(left), tuple(begun)), None

    def _after(self, left: str | None, token_id: int, begun: bool) -> tuple[str | None, bool]:
        text = self.texts[token_id]
        if left is None or not text:
            return None, True
        rest = text[len(left) :]
        if not re.fullmatch(f"{_WORD}*", rest):
            return None, True  # the token itself went past the word's end
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
        n_best: how many.
        width: of the beam that looks for them.

    Returns:
        (word, probability), likeliest first. For characters and words the probability is exact; for subwords
        it adds up the spellings found.

    Example:
        >>> suggest(model, "To be, or not to b", n_best=3)
        [('be', 0.71), ('bear', 0.08), ('but', 0.03)]
    """
    tokenizer = model.tokenizer
    partial = re.search(rf"\s?({_WORD}*)$", prompt)
    assert partial is not None  # the pattern matches the empty string
    # A character model has read the typed letters exactly. Larger tokens may span the place where the user
    # is: go back to the last word's beginning, and let tokens agree with what was typed.
    spelled = tokenizer.kind == "char"
    context = prompt if spelled else prompt[: partial.start()]
    start = model.start_search([context])
    typed = "" if spelled else partial.group()
    step = _WordStep(start, tokenizer, typed, begun=bool(partial[1]))
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
    found: dict[str, float] = defaultdict(float)
    for hypothesis in drain(running)[0]:
        text = tokenizer.decode(hypothesis.token_ids)
        word = (partial[1] + text) if spelled else text.lstrip()
        ended = re.match(f"{_WORD}*", word)
        if hypothesis.finished and ended and ended.group():
            found[ended.group()] += float(np.exp(hypothesis.score))
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:n_best]


def suggest_command(argv: list[str], command: str) -> None:
    """`gen suggest RUN --prompt …`."""
    config = parse_command(SuggestConfig, argv, command)
    if config.n_best < 1:
        raise ConfigError([f"--n-best must be at least 1, not {config.n_best}"])
    model = load_model(config.run, config.device)
    words = suggest(model, config.prompt, config.n_best, width=max(32, 2 * config.n_best))
    if config.json:
        print(json.dumps([{"word": word, "probability": p} for word, p in words], ensure_ascii=False))
        return
    for word, probability in words:
        print(f"{probability:7.2%}  {word}")
