"""The options of training, the learning-rate schedule, the optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch

from gen.base.config import Budget, Words, range_errors
from gen.base.errors import ConfigError, flag
from gen.base.fields import Arg
from gen.models.device import PRECISIONS
from gen.models.model import Model


@dataclass(frozen=True)
class TrainOptions:
    """How to train."""

    TITLE: ClassVar[str] = "Training"

    budget: Words = "5m"
    """How long to train: 90s, 25m, 2h, 20 epochs or 5000 steps. The learning-rate schedule ends with it; to a time
    the last validation is added."""
    init_from: str = ""
    """Start from the model of this run: its sizes, weights, vocabulary and, unless given, dropout."""
    new_vocabulary: bool = False
    """With --init-from: build a vocabulary from the new data; tokens in both keep their vectors."""
    freeze: tuple[str, ...] = ()
    """Weights to keep fixed, by name pattern: 'encoder.*', '*.embedding.*'."""
    learning_rate: float | None = None
    """Peak learning rate. Chosen by the task."""
    schedule: Literal["cosine", "linear", "constant", "plateau"] = "cosine"
    """How the learning rate falls after the warm-up. plateau: halve it when validation stops improving."""
    warmup: float = 0.02
    """Share of the budget in which the learning rate rises from near 0 to its peak."""
    weight_decay: float | None = None
    """Weight decay of AdamW, on matrices only. Chosen from the learning rate, steps and passes; 0.2 for labels,
    0.03 with --init-from."""
    beta2: float = 0.99
    """Decay per step of AdamW's average of squared gradients."""
    clip: float = 1.0
    """Clip the gradient to this norm."""
    accumulate: int = 1
    """Batches per optimizer step."""
    label_smoothing: float | None = None
    """Share of the target probability spread over the vocabulary. Chosen by the task."""
    r_drop: float = 0.0
    """Weight of R-Drop, the divergence between predictions under two dropout masks (Liang et al., 2021; 5 is
    usual). Doubles the decoder's work."""
    scheduled_sampling: float = 0.0
    """Replace this share of the decoder's input tokens by its own predictions (Bengio et al., 2015). The share
    grows linearly from 0 over the budget."""
    coverage: float = 0.0
    """Weight of a penalty on input positions whose attention does not sum to 1 over the output (Xu, 2015)."""
    ema: float | None = None
    """Decay per step of an exponential moving average of the weights; 0: none. Chosen by the task."""
    average: int = 0
    """At the end, also validate the mean of the weights of this many validations; 0: none."""
    average_of: Literal["last", "best"] = "last"
    """With --average: the last or the best validations."""
    validations: int = 10
    """Validate at most this many times."""
    save_every: Annotated[str, Arg("10m | 1h", words=True)] = "10m"
    """Save the training state at least this often."""
    best: str | None = None
    """Figure that decides which weights are best, and --patience: bleu, chrf, exact or loss of translations;
    cider, rouge_l, bleu1 to bleu4 or loss of captions; accuracy or loss of labels; loss of text. Where it is
    equal, the others decide, the loss last. Unset: the first; chrf where most translations are too short for
    BLEU."""
    patience: int = 0
    """Stop after this many validations without improvement; 0: never."""
    seed: int = 1
    """Seed of the initial weights, dropout and the order of the data."""
    deterministic: bool = False
    """Use only reproducible algorithms; slower on a GPU."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of matrix products. auto: bfloat16 where the hardware supports it."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Also log to these trackers, into the run folder. wandb is offline unless WANDB_MODE is set."""

    @property
    def peak_rate(self) -> float:
        """The peak learning rate: ``learning_rate``, or 4e-3 if it is None."""
        return 4e-3 if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay: ``weight_decay``, or 0.03 if it is None."""
        return 0.03 if self.weight_decay is None else self.weight_decay

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        found = range_errors(self, ("accumulate", "validations"), ("warmup", "label_smoothing", "ema"))
        for name in ("weight_decay", "r_drop", "coverage", "average", "patience"):
            if not 0 <= (value := getattr(self, name) or 0) < math.inf:
                found.append(f"{flag(name)} must be 0 or more, not {value}")
        checks = [
            (self.new_vocabulary and not self.init_from, "--new-vocabulary goes with --init-from"),
            (self.average_of == "best" and not self.average, "--average-of best goes with --average"),
            (not 0 <= self.seed < 1 << 63, f"--seed must be at least 0 and below 2^63, not {self.seed}"),
            (not 0 < self.peak_rate < math.inf, f"--learning-rate must be above 0, not {self.learning_rate}"),
            (not 0 < self.beta2 < 1, f"--beta2 must be between 0 and 1, not {self.beta2}"),
            (not self.clip > 0, f"--clip must be above 0, not {self.clip}"),
            (
                not 0 <= self.scheduled_sampling <= 1,
                f"--scheduled-sampling must be between 0 and 1, not {self.scheduled_sampling}",
            ),
            (
                self.precision not in PRECISIONS,
                f"--precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}",
            ),
        ]
        found += [message for wrong, message in checks if wrong]
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
    """The learning rate after ``share`` (0 to 1) of the budget, times ``factor``.

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
    """AdamW with weight decay on matrices only, not on biases, norms and initial states.

    Each parameter group has a ``factor`` that multiplies its learning rate; see `Encoder.slow_parameters`.
    """
    slow, factor = model.encoder.slow_parameters()
    known = {id(p) for p in slow}
    parameters = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [
        {"params": chosen, "weight_decay": decay, "factor": share}
        for several, share in ((parameters, 1.0), (slow, factor))
        for chosen, decay in (
            ([p for p in several if p.ndim >= 2], options.decay),
            ([p for p in several if p.ndim < 2], 0.0),
        )
        if chosen
    ]
    fused = model.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=options.peak_rate, betas=(0.9, options.beta2), fused=fused)
