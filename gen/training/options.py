"""How fast to learn: the options of training, the learning rate's schedule, the optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from gen.base.config import Budget, Words
from gen.base.errors import ConfigError
from gen.models.device import PRECISIONS
from gen.models.model import Model


@dataclass(frozen=True)
class TrainOptions:
    """How to train."""

    TITLE: ClassVar[str] = "Training"

    budget: Words = "5m"
    """How long; the learning rate follows it to its end."""
    init_from: str = ""
    """Begin with the model of this run: its sizes, weights and vocabulary."""
    new_vocabulary: bool = False
    """With --init-from: a vocabulary made from the new data; pieces that both have keep their vectors."""
    freeze: tuple[str, ...] = ()
    """Weights that do not learn, by name: 'encoder.*', '*.embedding.*'."""
    learning_rate: float | None = None
    """The highest learning rate. Chosen by the task."""
    schedule: Literal["cosine", "linear", "constant", "plateau"] = "cosine"
    """How the learning rate falls. plateau halves it when validation stops improving."""
    warmup: float = 0.02
    """Share of the budget in which the learning rate rises."""
    weight_decay: float = 0.03
    """AdamW's, on matrices only."""
    beta2: float = 0.99
    """AdamW's memory of squared gradients."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    accumulate: int = 1
    """Batches per optimizer step."""
    label_smoothing: float | None = None
    """Share of the target spread over the vocabulary. Chosen by the task."""
    r_drop: float = 0.0
    """Weight of the disagreement between two draws of dropout (Liang et al., 2021; 5 is usual). Doubles the
    decoder's work."""
    scheduled_sampling: float = 0.0
    """In the end, feed the decoder this share of its own guesses instead of the target's tokens (Bengio et al.,
    2015); the share grows from 0."""
    coverage: float = 0.0
    """Weight of a penalty on positions whose attention does not sum to 1 (Show, Attend and Tell)."""
    ema: float | None = None
    """Decay per step of a moving average of the weights (0: none). Chosen by the task."""
    average: int = 0
    """In the end, try the mean of the weights of this many validations (0: none)."""
    average_of: Literal["last", "best"] = "last"
    """Which validations those are."""
    validations: int = 10
    """How often to validate within the budget, at most."""
    save_every: Words = "10m"
    """Save also between validations: the longest time that a power cut may cost."""
    patience: int = 0
    """Stop after this many validations without improvement (0: never)."""
    seed: int = 1
    """Of the first weights, of dropout, and of the order of the data."""
    deterministic: bool = False
    """Only algorithms that give the same result every time, on a GPU too, where that costs some speed."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto computes in bfloat16 where the hardware has it."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Log there, too. Everything stays in the run folder; wandb is offline unless WANDB_MODE says otherwise."""

    @property
    def peak_rate(self) -> float:
        """``learning_rate``, or its default."""
        return 4e-3 if self.learning_rate is None else self.learning_rate

    def errors(self) -> list[str]:
        """Everything that is wrong with the options, a line each."""
        checks = [
            (self.new_vocabulary and not self.init_from, "--new-vocabulary goes with --init-from"),
            (not 0 <= self.seed < 1 << 63, f"--seed must be at least 0 and below 2^63, not {self.seed}"),
            (
                self.learning_rate is not None and not 0 < self.learning_rate < math.inf,
                f"--learning-rate must be above 0, not {self.learning_rate}",
            ),
            (not 0 <= self.warmup < 1, f"--warmup must be at least 0 and below 1, not {self.warmup}"),
            (self.weight_decay < 0, f"--weight-decay must be 0 or more, not {self.weight_decay}"),
            (not 0 < self.beta2 < 1, f"--beta2 must be between 0 and 1, not {self.beta2}"),
            (not self.clip > 0, f"--clip must be above 0, not {self.clip}"),
            (self.accumulate < 1, f"--accumulate must be at least 1, not {self.accumulate}"),
            (
                not 0 <= (self.label_smoothing or 0) < 1,
                f"--label-smoothing must be at least 0 and below 1, not {self.label_smoothing}",
            ),
            (
                not 0 <= self.scheduled_sampling <= 1,
                f"--scheduled-sampling must be between 0 and 1, not {self.scheduled_sampling}",
            ),
            (not 0 <= self.r_drop < math.inf, f"--r-drop must be 0 or more, not {self.r_drop}"),
            (not 0 <= self.coverage < math.inf, f"--coverage must be 0 or more, not {self.coverage}"),
            (not 0 <= (self.ema or 0) < 1, f"--ema must be at least 0 and below 1, not {self.ema}"),
            (self.average < 0, f"--average must be 0 or more, not {self.average}"),
            (self.validations < 1, f"--validations must be at least 1, not {self.validations}"),
            (self.patience < 0, f"--patience must be 0 or more, not {self.patience}"),
            (
                self.precision not in PRECISIONS,
                f"--precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}",
            ),
        ]
        found = [message for wrong, message in checks if wrong]
        for option, text in (("--budget", self.budget), ("--save-every", self.save_every)):
            try:
                budget = Budget.parse(text, option)
            except ConfigError as error:
                found += error.errors
            else:
                if option == "--save-every" and budget.unit != "seconds":
                    found.append(f"--save-every {text!r}: give a time, such as 10m")
        return found


def learning_rate(options: TrainOptions, share: float, factor: float = 1.0) -> float:
    """The learning rate when ``share`` (0 to 1) of the budget is used up, times ``factor``.

    Example:
        >>> learning_rate(TrainOptions(learning_rate=1.0, warmup=0.0), share=0.5)
        0.505
    """
    if share < options.warmup:
        return options.peak_rate * max(share / options.warmup, 1e-3) * factor
    rest = min((share - options.warmup) / (1 - options.warmup), 1.0)
    shape = {
        "cosine": 0.01 + 0.99 * (1 + math.cos(math.pi * rest)) / 2,
        "linear": 0.01 + 0.99 * (1 - rest),
        "constant": 1.0,
        "plateau": 1.0,
    }
    return options.peak_rate * shape[options.schedule] * factor


def make_optimizer(model: Model, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves biases, norms and states alone.

    Every group has a ``factor``: what to multiply the learning rate with, below 1 for an encoder's slow ones.
    """
    slow, factor = model.encoder.slow_parameters()
    known = {id(p) for p in slow}
    parameters = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [
        {"params": chosen, "weight_decay": decay, "factor": share}
        for several, share in ((parameters, 1.0), (slow, factor))
        for chosen, decay in (
            ([p for p in several if p.ndim >= 2], options.weight_decay),
            ([p for p in several if p.ndim < 2], 0.0),
        )
        if chosen
    ]
    fused = model.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=options.peak_rate, betas=(0.9, options.beta2), fused=fused)
