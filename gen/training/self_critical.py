"""Self-critical sequence training: learning from the scores of the model's own outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gen.base.errors import ConfigError
from gen.models.batch import PADDED_TO, Batch, sequence_batch
from gen.models.model import LossOutput, Model
from gen.models.recurrent import without_dropout
from gen.search import Hypothesis, Sample

Reward = Callable[[Hypothesis, int], float]
"""(hypothesis, index of its item in the training set) → reward; higher is better."""


class SelfCritical:
    """REINFORCE on samples from the search loop (Rennie et al., 2017).

    A sample becomes more probable if its reward is above the baseline, less probable if it is below.

    Args:
        reward: the reward of a sample.
        samples: K, samples per item.
        baseline: "mean" compares a sample with the mean of the item's other samples (leave-one-out, Kool et
            al., 2019); "greedy" compares it with the output of greedy search.
        max_new_tokens: length limit of samples.
    """

    def __init__(
        self,
        reward: Reward,
        *,
        samples: int = 5,
        baseline: Literal["mean", "greedy"] = "mean",
        max_new_tokens: int = 30,
    ) -> None:
        if baseline == "mean" and samples < 2:
            raise ConfigError([f"--samples must be at least 2 with --baseline mean, not {samples}"])
        self.reward, self.samples, self.baseline = reward, samples, baseline
        self.max_new_tokens = max_new_tokens

    def __call__(self, model: Model, batch: Batch) -> LossOutput:
        """The loss whose gradient is the policy gradient: −(reward − baseline) · log p, summed over all tokens.

        Args:
            model: in training or eval mode; dropout is off for the samples and for the gradient.
            batch: B items; ``rows`` are their indices for the reward.
        """
        rows = batch.rows if batch.rows is not None else torch.arange(len(batch))
        items = items_of(batch.source)
        # The seed comes from torch's generator, so that a resumed run draws the same samples.
        drawn = self._search(model, items, num_samples=self.samples, seed=int(torch.randint(2**31, ())))
        rewards = self._rewards(drawn, rows)
        if self.baseline == "greedy":
            baseline = self._rewards(self._search(model, items, num_samples=1, temperature=0.0), rows)
        else:
            baseline = (rewards.sum(1, keepdims=True) - rewards) / (self.samples - 1)
        torch.clear_autocast_cache()  # older versions of torch would keep its weights, which have no gradient
        advantages = torch.as_tensor(rewards - baseline, dtype=torch.float32, device=model.device)  # (B, K)
        with without_dropout(model):
            return self._loss(model, batch, [h for several in drawn for h in several], advantages.flatten())

    def _search(
        self, model: Model, items: list[Any], *, num_samples: int, temperature: float = 1.0, seed: int = 0
    ) -> list[list[Hypothesis]]:
        strategy = Sample(temperature, num_samples=num_samples, seed=seed, independent=True)
        return model.generate(
            items, strategy=strategy, max_new_tokens=self.max_new_tokens, no_repeat_ngram=0, attention=False
        )

    def _rewards(self, drawn: list[list[Hypothesis]], rows: torch.Tensor) -> np.ndarray:
        """Rewards of K samples per item, (B, K) float64."""
        return np.array(
            [[self.reward(h, int(row)) for h in several] for several, row in zip(drawn, rows, strict=True)]
        )

    def _loss(
        self, model: Model, batch: Batch, samples: Sequence[Hypothesis], advantages: torch.Tensor
    ) -> LossOutput:
        tokenizer = model.tokenizer
        encoded = [np.asarray(h.token_ids, np.int64) for h in samples]
        special = tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id
        taught = sequence_batch({}, encoded, *special, PADDED_TO)
        for target, ids, hypothesis in zip(taught.target_ids, encoded, samples, strict=True):
            if not hypothesis.finished:
                target[len(ids)] = tokenizer.pad_id  # ended by the length limit, not by EOS
        taught = taught.to(model.device)
        memory = model.decoder.prepare(model.encoder(batch.encoder_source))
        each = torch.arange(len(batch), device=model.device).repeat_interleave(self.samples)
        state = model.decoder.init_state(memory).select(each)
        output = model.decoder(taught.input_ids, state, memory)  # K rows share an item's memory
        # The samples come from a distribution without the tokens that search never picks.
        never = torch.tensor([tokenizer.pad_id, tokenizer.bos_id, tokenizer.unk_id], device=model.device)
        blocks = zip(output.logits.split(_ROWS), taught.target_ids.split(_ROWS), strict=True)
        log_probs = torch.cat(
            [checkpoint(_log_probs, logits, ids, never, use_reentrant=False) for logits, ids in blocks]
        )
        real = taught.target_ids != tokenizer.pad_id
        loss_sum = -(advantages[:, None] * log_probs.masked_fill(~real, 0.0)).sum()
        return LossOutput(loss_sum, int(real.sum()), output.state)


_ROWS = 128
"""Samples whose probabilities are in memory at once, in float32."""


def _log_probs(logits: Tensor, token_ids: Tensor, never: Tensor) -> Tensor:
    """The log-probabilities of tokens, (R, T) float32, by logits (R, T, V) that never choose some others."""
    logits = logits.float().index_fill(-1, never, torch.finfo(torch.float32).min)
    return logits.log_softmax(-1).gather(-1, token_ids[..., None]).squeeze(-1)


def items_of(source: Mapping[str, Tensor]) -> list[Any]:
    """A batch's source as items: arrays, or mappings of arrays where it has several names."""
    columns = {name: tensor.cpu().numpy() for name, tensor in source.items()}
    if len(columns) == 1:
        return list(*columns.values())
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
