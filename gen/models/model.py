"""`Model`: an encoder, the decoder and a tokenizer, with training loss, search and saving."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from gen.inputs.processors import InputProcessor
from gen.inputs.tokenizer import Tokenizer
from gen.models.batch import Batch, sequence_batch
from gen.models.cross_entropy import cross_entropy
from gen.models.decoder import Decoder, DecoderConfig, DecoderState
from gen.models.device import autocast, compute_dtype
from gen.models.encoders import Encoder, build_encoder
from gen.models.folder import FolderMixin
from gen.models.memory import Memory
from gen.search.generation import GenerationMixin, SearchInput
from gen.search.info import ModelInfo
from gen.search.ops import NumpyOps, TorchOps

_EVALUATING_LOCK = Lock()
_EVALUATING: WeakKeyDictionary[Model, tuple[int, bool]] = WeakKeyDictionary()
"""Model → the number of running calls that need eval mode, and whether it was in training mode before them."""


@dataclass(frozen=True)
class LossOutput:
    """``loss_sum`` (a scalar, nats) over ``num_tokens`` targets, and the state after the last one."""

    loss_sum: Tensor
    num_tokens: int
    state: DecoderState


def _divergence(teacher: Tensor, logits: Tensor) -> Tensor:
    """KL(teacher‖model) at every position: probabilities and logits (R, T, V) → (R, T)."""
    return (teacher.xlogy(teacher) - teacher * logits.log_softmax(-1, torch.float32)).sum(-1)


@dataclass(frozen=True)
class _Reading:
    """The state of a search: the decoder state (one row per hypothesis), the memory (one row per input), and after
    a step the decoder's features (R, F)."""

    decoder: DecoderState
    memory: Memory
    features: Tensor | None = None

    def select(self, rows: Tensor | np.ndarray) -> _Reading:
        features = self.features
        if features is not None:
            features = features.index_select(0, torch.as_tensor(rows, device=features.device))
        return _Reading(self.decoder.select(rows), self.memory, features)

    def keep(self, inputs: np.ndarray, rows: np.ndarray) -> _Reading:
        return _Reading(self.decoder.select(rows), self.memory.select(inputs))

    @staticmethod
    def join(states: Sequence[_Reading], memory: Memory) -> _Reading:
        """The rows of several states, one after another, over a memory of one row per row."""
        features = [state.features for state in states if state.features is not None]
        joined = torch.cat(features) if len(features) == len(states) else None
        return _Reading(DecoderState.join([state.decoder for state in states]), memory, joined)

    join_memory = staticmethod(Memory.join)


class Model(GenerationMixin, FolderMixin):  # in this order: a call generates
    """An encoder, the decoder and the tokenizer of the output.

    Example:
        >>> from gen.inputs.tokenizer import CharTokenizer
        >>> tokenizer = CharTokenizer.train(["hello"])
        >>> model = Model({"name": "none"}, DecoderConfig(len(tokenizer)), tokenizer)
        >>> len(model.generate("he", max_new_tokens=3, min_new_tokens=3).token_ids)  # untrained: noise
        3
    """

    def __init__(
        self,
        encoder: Mapping[str, Any] | Encoder,
        decoder: DecoderConfig,
        tokenizer: Tokenizer,
        info: ModelInfo | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder if isinstance(encoder, Encoder) else build_encoder(encoder)
        self.decoder = Decoder(decoder, self.encoder.memory_size, tokenizer.pad_id)
        self.encoder.adopt(self.decoder.embedding, self.decoder.embedding_scale)
        if decoder.copy:
            self.encoder.give_tokens(tokenizer)
        self.tokenizer = tokenizer
        self.info = info or ModelInfo()
        self.precision = "fp32"  # of generation; see `load`

    def __repr__(self) -> str:
        """One line; ``print(model.encoder, model.decoder)`` has every layer."""
        c = self.decoder.config
        reads = "" if self.encoder.name == "none" else f"encoder: {self.encoder.describe()}, "
        decoder = f"decoder: {c.num_layers} × {c.cell} {c.hidden_size}"
        tokens = f"{len(self.tokenizer):,} tokens ({self.tokenizer.kind})"
        size = f"{sum(p.numel() for p in self.parameters()):,} parameters"
        return f"Model({self.info.task or 'untrained'}, {reads}{decoder}, {tokens}, {size}, {self.device})"

    @property
    def search_defaults(self) -> dict[str, Any]:  # type: ignore[override]
        return self.info.search

    @property
    def processors(self) -> Mapping[str, InputProcessor]:
        """Input name → the processor that turns items into arrays; see `Encoder.processors`."""
        return self.encoder.processors

    @property
    def reads_input(self) -> bool:
        needed = [processor for processor in self.processors.values() if not processor.optional]
        return bool(needed) if self.processors else self.encoder.memory_size > 0

    @property
    def device(self) -> torch.device:
        return self.decoder.first_state_bias.device

    # -- training ------------------------------------------------------------------------------------------

    def loss(
        self,
        batch: Batch,
        state: DecoderState | None = None,
        label_smoothing: float = 0.0,
        *,
        coverage: float = 0.0,
        scheduled_sampling: float = 0.0,
        r_drop: float = 0.0,
        teacher_probs: Tensor | None = None,
        teacher_weight: float = 0.5,
    ) -> LossOutput:
        """Cross-entropy of a batch, summed over its real targets.

        Args:
            batch: B rows.
            state: the decoder state to continue from; None: the first state.
            label_smoothing: share of the target spread over the vocabulary (Szegedy et al., 2016).
            coverage: weight of Σ (1 − Σₜ attention)² over memory positions: "doubly stochastic" attention (Xu et
                al., 2015).
            scheduled_sampling: share of the input tokens that are replaced by the model's own predictions; see
                `_with_scheduled_sampling`.
            r_drop: weight of (KL(p‖q) + KL(q‖p)) / 4 between the predictions p and q under two dropout masks
                (Liang et al., 2021). The decoder reads each row twice.
            teacher_probs: (B, T, V) float32, what a teacher predicts: adds KL(teacher‖model) to the cross-entropy.
            teacher_weight: weight of that term; cross-entropy and R-Drop share the rest.
        """
        pad_id = self.tokenizer.pad_id
        num_tokens = int((batch.target_ids != pad_id).sum())  # first: a GPU would have to finish what comes before
        memory = self.decoder.prepare(self.encoder(batch.encoder_source))
        state = state or self.decoder.init_state(memory)
        input_ids, target_ids = batch.input_ids, batch.target_ids
        if scheduled_sampling:
            input_ids = self._with_scheduled_sampling(batch, state, memory, scheduled_sampling)
        if r_drop:
            twice = torch.arange(len(input_ids), device=input_ids.device).repeat_interleave(2)
            input_ids, target_ids, state = input_ids[twice], target_ids[twice], state.select(twice)
            teacher_probs = None if teacher_probs is None else teacher_probs[twice]
        output = self.decoder(input_ids, state, memory)  # both copies of a row share its memory
        logits, real = output.logits, target_ids != pad_id
        loss_sum = cross_entropy(logits, target_ids, pad_id, label_smoothing, r_drop)
        if teacher_probs is not None:
            divergence = (_divergence(teacher_probs, logits) * real).sum()
            loss_sum = (1 - teacher_weight) * loss_sum + teacher_weight * divergence
        if coverage and output.attention is not None:
            seen = (output.attention * real[..., None]).sum(1)  # (R, S)
            mask = memory.mask.repeat_interleave(len(seen) // len(memory.mask), 0) & real.any(1, keepdim=True)
            loss_sum = loss_sum + coverage * ((1 - seen) ** 2 * mask).sum()
        if not r_drop:
            return LossOutput(loss_sum, num_tokens, output.state)
        one_each = output.state.select(torch.arange(0, len(real), 2, device=real.device))
        return LossOutput(loss_sum / 2, num_tokens, one_each)

    @torch.no_grad()
    def _with_scheduled_sampling(self, batch: Batch, state: DecoderState, memory: Memory, share: float) -> Tensor:
        """The inputs with some of them drawn from the model's own predictions: scheduled sampling (Bengio et al.,
        2015) in two passes (Mihaylova and Martins, 2019), so that the layers still run over whole sequences."""
        tokenizer = self.tokenizer
        logits = self.decoder(batch.input_ids, state, memory).logits.float()
        logits[..., [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id]] = float("-inf")
        # If they are not finite, neither is the loss, and the step is skipped: any value will do.
        probs = logits.softmax(-1).nan_to_num(1.0)
        drawn = torch.multinomial(probs.flatten(0, 1), 1).view_as(batch.input_ids)
        torch.clear_autocast_cache()  # older versions of torch would keep its weights, which have no gradient
        own = torch.cat([batch.input_ids[:, :1], drawn[:, :-1]], 1)
        chosen = torch.rand(own.shape, device=own.device) < share
        chosen[:, 0] = False
        return torch.where(chosen & (batch.input_ids != tokenizer.pad_id), own, batch.input_ids)

    @torch.no_grad()
    def evaluate(self, batches: Iterator[Batch]) -> tuple[float, int]:
        """The summed cross-entropy (nats) of batches and the number of targets, with states carried over."""
        loss_sum, num_tokens, state = 0.0, 0, None
        with self.evaluating():
            for batch in batches:
                output = self.loss(batch.to(self.device), state if batch.continues else None)
                state = output.state
                loss_sum += float(output.loss_sum)
                num_tokens += output.num_tokens
        return loss_sum, num_tokens

    # -- use -----------------------------------------------------------------------------------------------

    def start_search(self, items: Sequence[Any]) -> SearchInput:
        """Encodes the items, and precomputes what every step needs from the memory."""
        prepared = self.encoder.prepare(items)
        dtype = compute_dtype(self.precision, self.device)
        with torch.no_grad(), autocast(self.device, dtype):
            memory = self.decoder.prepare(self.encoder(prepared.source))
            state = _Reading(self.decoder.init_state(memory), memory)

        @torch.inference_mode()
        def step(token_ids: Tensor, state: _Reading) -> tuple[Tensor, _Reading, Tensor | None]:
            with autocast(self.device, dtype):
                output = self.decoder(token_ids, state.decoder, state.memory)
            attention = None if output.attention is None else output.attention[:, -1]
            after = _Reading(output.state, state.memory, output.features[:, -1])
            return output.logits[:, -1].float().log_softmax(-1), after, attention

        def in_numpy(token_ids: np.ndarray, state: _Reading) -> tuple[np.ndarray, _Reading, np.ndarray | None]:
            log_probs, state, attention = step(torch.from_numpy(token_ids).to(self.device), state)
            return log_probs.cpu().numpy(), state, None if attention is None else attention.cpu().numpy()

        mask = memory.mask.cpu().numpy()
        if self.device.type == "cuda":
            return SearchInput(step, state, prepared.prompts, TorchOps(self.device), mask)
        return SearchInput(in_numpy, state, prepared.prompts, NumpyOps(), mask)

    @property
    def fingerprint(self) -> str:
        """A hash of the weights."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def forced_log_probs(
        self, encoded: Sequence[np.ndarray], items: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """All tokens in one pass."""
        batch = self._batch(encoded, items).to(self.device)
        with torch.no_grad(), self.evaluating():
            memory = self.encoder(batch.encoder_source)
            output = self.decoder(batch.input_ids, self.decoder.init_state(memory), memory)
            log_probs = output.logits.float().log_softmax(-1).gather(-1, batch.target_ids[..., None]).squeeze(-1)
        return log_probs.cpu().numpy(), output.features.float().cpu().numpy()

    def batch(self, texts: Sequence[str], items: Sequence[Any] | None = None) -> Batch:
        """Texts as a batch, whose `loss` sums what `score` gives.

        Args:
            texts: the outputs; EOS counts where sequences end with it.
            items: the inputs, one per text; None for free text.
        """
        batch = self._batch(list(map(self.tokenizer.encode_array, texts)), items or [""] * len(texts))
        if not self.info.ends_with_eos:
            batch.target_ids.masked_fill_(batch.target_ids == self.tokenizer.eos_id, self.tokenizer.pad_id)
        return batch

    def _batch(self, encoded: Sequence[np.ndarray], items: Sequence[Any]) -> Batch:
        tokenizer = self.tokenizer
        source = self.encoder.prepare(items).source
        return sequence_batch(source, encoded, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode until all threads that need it are done."""
        with _EVALUATING_LOCK:
            count, before = _EVALUATING.get(self, (0, self.training))
            _EVALUATING[self] = count + 1, before
            if before:
                self.eval()
        try:
            yield
        finally:
            with _EVALUATING_LOCK:
                count, before = _EVALUATING.pop(self)
                if count > 1:
                    _EVALUATING[self] = count - 1, before
                elif before:
                    self.train()
