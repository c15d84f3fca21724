"""A causal language model of the library `transformers`, measured on a text: what `gen compare --with` names."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gen.base.errors import UserError, reason_of
from gen.base.hub import PREFIX

LONGEST = 1024
"""Tokens read at once, at most: logits of larger windows fill the memory of a small machine."""


class CausalModel:
    """A causal language model and its tokenizer.

    Args:
        name: a folder, or ``hf:`` and a name on the Hugging Face Hub, perhaps with ``@revision``.
        device: where to compute.

    Raises:
        UserError: the library is missing, there is no such model, it is damaged, or it reads ahead.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        where, revision = _located(name)
        transformers = _library()
        how = {"revision": revision, "trust_remote_code": False}  # loading runs no code of the model's
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(where, **how)
            self.model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
                where, output_loading_info=True, **how
            )
        except Exception as error:  # the library also raises those of its HTTP client and of file formats
            raise UserError(f"{name}: could not be loaded ({reason_of(error)})") from error
        if loaded["missing_keys"]:
            raise UserError(f"{name}: lacks the weights {sorted(loaded['missing_keys'])[0]}: is it complete?")
        self.name = name
        self.model = self.model.float().to(device).eval()
        self.context = min(getattr(self.model.config, "max_position_embeddings", None) or LONGEST, LONGEST)
        first = self.tokenizer.bos_token_id
        first = self.tokenizer.eos_token_id if first is None else first
        self.start = [] if first is None else [first]
        if not self._is_causal():
            raise UserError(f"{name}: is no causal language model: what it predicts depends on what comes after")

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        return sum(p.numel() for p in self.model.parameters())

    def bits(self, texts: Sequence[str]) -> float:
        """The information in texts, in bits, each read from its beginning.

        A long text is read in overlapping windows: every token is counted once and, where so many come before it,
        sees half a context or more. Without a token to begin with, the first costs as much as under no model.
        """
        windows, bits = [], 0.0
        for text in texts:
            ids = np.array(self.start + self.encode(text))
            bits += 0.0 if self.start else float(np.log2(self.model.config.vocab_size))
            windows += [(ids[begin:end], first - begin) for begin, first, end in spans(len(ids), self.context)]
        for rows in _batches(windows, self.context):
            bits += self._bits(rows)
        return bits

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, whose words are never special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def changed(self, text: str) -> tuple[str, str] | None:
        """A place where the tokenizer does not give the text back, before and after; None where there is none."""
        after = self.tokenizer.decode(self.encode(text), clean_up_tokenization_spaces=False)
        if after == text:
            return None
        pairs = enumerate(zip(text, after, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), min(len(text), len(after)))
        return text[at : at + 12], after[at : at + 12]

    def write(self, prompt: str, length: int, temperature: float, seed: int) -> str:
        """A continuation of ``length`` tokens at most, sampled; less where the context is full."""
        ids = (self.start + self.encode(prompt))[-self.context // 2 :]
        inputs = torch.tensor([ids], device=self.model.device)
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed)
            written = self.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=min(length, self.context - len(ids)),
                pad_token_id=0,  # one text has no padding
            )
        return str(self.tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True))

    @torch.inference_mode()
    def _bits(self, rows: Sequence[tuple[np.ndarray, int]]) -> float:
        """The bits of the tokens of B windows, each from its ``first`` on."""
        longest = max(len(ids) for ids, _ in rows)
        input_ids = torch.zeros((len(rows), longest), dtype=torch.long)
        counted, mask = torch.zeros_like(input_ids, dtype=torch.bool), torch.zeros_like(input_ids)
        for row, (ids, first) in enumerate(rows):
            input_ids[row, : len(ids)] = torch.from_numpy(ids)
            mask[row, : len(ids)] = 1
            counted[row, first : len(ids)] = True
        input_ids, mask, counted = (each.to(self.model.device) for each in (input_ids, mask, counted))
        logits = self.model(input_ids=input_ids, attention_mask=mask).logits[:, :-1].float()  # (B, T - 1, V)
        nats = torch.nn.functional.cross_entropy(logits.mT, input_ids[:, 1:], reduction="none")
        return float(nats[counted[:, 1:]].double().sum() / np.log(2))

    @torch.inference_mode()
    def _is_causal(self) -> bool:
        """Whether another last token changes nothing but the last prediction."""
        ids = torch.arange(1, 9, device=self.model.device) % self.model.config.vocab_size
        other = torch.cat([ids[:-1], ids[:1]])
        one, two = (self.model(input_ids=each[None]).logits[0] for each in (ids, other))  # (T, V)
        changes = (one - two).abs().amax(-1)
        return bool(changes[:-1].max() <= 1e-4 * changes[-1])


def spans(length: int, context: int) -> Iterator[tuple[int, int, int]]:
    """Windows over ``length`` tokens: each reads from ``begin`` to ``end`` and counts from ``first`` on.

    Example:
        >>> list(spans(10, 4))  # every token but the first is counted once
        [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]
    """
    begin, first, end = 0, 1, min(context, length)
    while first < end:
        yield begin, first, end
        first, end = end, min(end + context // 2, length)
        begin = end - context


def _batches(
    windows: Sequence[tuple[np.ndarray, int]], context: int
) -> Iterator[Sequence[tuple[np.ndarray, int]]]:
    """Windows of similar length together, as many as one of ``context`` tokens is large."""
    left = sorted(windows, key=lambda window: len(window[0]))
    while left:
        count = max(context // len(left[-1][0]), 1)
        yield left[-count:]
        left = left[:-count]


def _located(name: str) -> tuple[str, str | None]:
    """A name as the library has it, and a revision."""
    if name.startswith(PREFIX):
        where, _, revision = name.removeprefix(PREFIX).partition("@")
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", where) or ".." in where:
            raise UserError(f"{name}: a model on the hub is named hf:user/name")
        return where, revision or None
    if not Path(name).is_dir():
        raise UserError(f"{name}: is no folder; a model on the hub is named hf:user/name")
    if not Path(name, "config.json").is_file():
        raise UserError(f"{name}: holds no model of transformers (there is no config.json)")
    return name, None


def _library() -> Any:
    try:
        with warnings.catch_warnings():  # in a notebook without ipywidgets, of progress bars that are not shown
            warnings.filterwarnings("ignore", "IProgress not found")
            import transformers
    except ImportError as error:
        raise UserError("--with needs the library transformers: pip install 'gen-toolkit[hub]'") from error
    logging.getLogger("transformers").setLevel(logging.ERROR)  # long texts are cut into windows here
    transformers.utils.logging.disable_progress_bar()
    return transformers
