"""What one class says about one job; everything else follows from it.

A task of your own is a file: subclass `Task`, call `register`, and either import the file or name it in the entry
point group ``gen.tasks`` of a package. Training, validation, samples, evaluation, scoring, export, plots, the
model card and the command that uses the model then work without further code.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gen.base.distributed import all_reduce_sum, gather, shard
from gen.base.errors import ConfigError
from gen.datasets.batches import Batches
from gen.datasets.examples import example_batches
from gen.datasets.pair_files import PairFiles
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.plots import plot_attention
from gen.models.batch import Batch, sequence_batch
from gen.models.decoder import DecoderState
from gen.models.model import LossOutput, Model
from gen.search import Hypothesis, SearchOptions
from gen.training.interfaces import Choices, Evaluation, Example, Facts, Metric, NoOptions

if TYPE_CHECKING:
    from gen.training.options import TrainOptions


class Task:
    """A job for the decoder: what to read, what to build, how to judge it.

    A subclass defines `read`, `build` and `score`, and perhaps `defaults` and `parse`. The other methods are made
    of these; override what is different.

    Args:
        config: the options of a training: ``data`` (of class `Data`), ``model`` (`Sizes`), ``extra`` (`Extra`),
            ``train`` (`TrainOptions`), ``out``. None where a trained model is used.
        begun: the model to go on from, if any.

    Attributes:
        name: under which `register` knows the class; also that of the command that uses its models.
        Data, Sizes, Extra: dataclasses whose fields are the options, with their docstrings as help. Each may have
            a method ``errors() -> list[str]``.
        HeldOut: a dataclass of options with which `held_out` reads other data than those kept apart in training.
        common: options that most people need, which come first in the help of its training.
        unused: options of `TrainOptions` that this task has no use for.
        changeable: options of `Sizes` that may be given with ``init_from``, whose model has the others.
        reference: options of `Sizes` with which the machine's speed is measured, so that `Facts.tokens` means the
            same everywhere; other options have what `defaults` chooses.
        metric: decides which weights are the best.
        search: how its models search where nobody says.
        ends_with_eos: targets end by themselves.
        sample_names: of an item, its reference and its output in ``samples.md``.
        batches: the training set, see `make_batches`.
        split: what `read` returned.
        say, progress: tell the user something, and how far (done, total) something is. They do nothing, unless
            the command line has put others there.

    Example:
        >>> from gen.training.task import Metric, Task
        >>> class Reverse(Task):
        ...     metric = Metric("exact", higher_is_better=True)
        >>> Reverse.metric.goodness({"exact": 0.5})
        0.5
    """

    name: ClassVar[str] = ""
    Data: ClassVar[type] = NoOptions
    Sizes: ClassVar[type] = NoOptions
    Extra: ClassVar[type] = NoOptions
    HeldOut: ClassVar[type] = NoOptions
    common: ClassVar[Sequence[str]] = ("data", "out", "budget")
    unused: ClassVar[frozenset[str]] = frozenset()
    changeable: ClassVar[frozenset[str]] = frozenset()
    reference: ClassVar[Mapping[str, Any]] = {}
    metric: ClassVar[Metric] = Metric("loss", label="nats per token")
    search: ClassVar[SearchOptions] = SearchOptions(temperature=(0.0,), max_new_tokens=200)
    ends_with_eos: bool = True
    SAMPLES: ClassVar[int] = 8
    sample_names: ClassVar[tuple[str, str, str]] = ("input", "reference", "output")

    batches: Batches
    split: Any
    say: Callable[[str], None] = staticmethod(lambda text: None)
    progress: Callable[[str, int, int], None] = staticmethod(lambda what, done, total: None)

    def __init__(self, config: Any = None, begun: Model | None = None) -> None:
        self.config, self.begun = config, begun

    @classmethod
    def from_options(cls, **options: Any) -> Task:
        """A task with its data read and everything chosen, for a `Trainer`: ``split`` and ``config`` are set, so
        that ``build(config.model, split)`` makes a model. The machine's speed is not measured.

        Args:
            options: names of the command line, with underscores.

        Raises:
            ConfigError: unknown names, with the nearest known one, or wrong values.
        """
        from gen.training.config import errors_of, make_config
        from gen.training.resolve import resolve

        config = make_config(cls, options)
        task = cls(config)
        if found := errors_of(task, config, options.keys()):
            raise ConfigError(found)
        task.split = task.read(config.data)
        task.config = resolve(task, config, task.split).config
        return task

    # -- what a task says ----------------------------------------------------------------------------------

    def read(self, data: Any) -> Any:
        """Reads the data: a `Split`, or an object with its attributes. ``data`` is an instance of `Data`.

        Where `vocabulary` is not None, its targets are encoded with it.
        """
        raise NotImplementedError

    def build(self, sizes: Any, split: Any) -> Model:
        """A new model. ``sizes`` is an instance of `Sizes` with everything chosen."""
        raise NotImplementedError

    def defaults(self, facts: Facts) -> Choices:
        """Choices for options that are None, with a reason each. Sizes should change smoothly with the facts."""
        return {}

    def score(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Figures of outputs: N texts, and for each all texts that would be right."""
        exact = sum(output in right for output, right in zip(outputs, references, strict=True))
        return {"exact": exact / max(len(outputs), 1)}

    def parse(self, words: Sequence[str]) -> Iterator[Any]:
        """Words of the command line → items for `Model.generate`."""
        yield from words

    # -- training ------------------------------------------------------------------------------------------

    @property
    def vocabulary(self) -> Tokenizer | None:
        """The vocabulary to keep: that of the model to go on from."""
        keeps = self.begun is not None and not self.config.train.new_vocabulary
        return self.begun.tokenizer if keeps and self.begun is not None else None

    def check(self, config: Any) -> list[str]:
        """What is wrong between groups of options, one line each."""
        return []

    def tokenizers(self, split: Any) -> tuple[Tokenizer, dict[str, Tokenizer]]:
        """The vocabulary of the targets, and those of the inputs that are texts, by name."""
        return split.tokenizer, {}

    def search_defaults(self, model: Model) -> dict[str, Any]:
        """How the model searches where nobody says: options that differ from those of `SearchOptions`."""
        return self.search.given()

    def sources(self, data: Any) -> list[str]:
        """Names of what a model is trained on, for its card."""
        found = [getattr(data, name, ()) for name in ("data", "train", "images", "captions")]
        return [each for value in found for each in ([value] if isinstance(value, str) else value) if each]

    def tokens_per_step(self, config: Any) -> int:
        """Target tokens of an optimizer step, about."""
        return int(getattr(config.data, "batch_tokens", 2000) * config.train.accumulate)

    def make_batches(self, model: Model, split: Any, config: Any) -> Batches:
        """The training set. By default examples of like length, each with its item as the encoder reads it."""
        return example_batches(
            [e.item for e in split.train],
            [e.target for e in split.train],
            model.tokenizer,
            model.encoder.prepare,
            batch_tokens=getattr(config.data, "batch_tokens", 2000),
            seed=config.train.seed,
        )

    def loss(
        self, model: Model, batch: Batch, state: DecoderState | None, options: TrainOptions, share: float
    ) -> LossOutput:
        """What to make small: by default the cross-entropy, with whatever the options add to it.

        Args:
            model: in training mode.
            batch: on the model's device.
            state: of the decoder, for a batch that continues the one before.
            options: of the training.
            share: of the budget that is used up, 0 to 1.
        """
        return model.loss(
            batch,
            state,
            options.label_smoothing or 0.0,
            coverage=options.coverage,
            r_drop=options.r_drop,
            scheduled_sampling=options.scheduled_sampling * share,
        )

    def validate(self, model: Model, *, quick: bool = False) -> Evaluation:
        """Figures on the validation part: the loss, and the scores of greedy outputs; the same for every process,
        each of which does its share. ``quick``: on a few examples, to see that it works."""
        examples = self.split.valid[:8] if quick else self.split.valid
        loss_sum, num_tokens = all_reduce_sum(*model.evaluate(self._teacher_forced(model, examples)))
        limit: dict[str, Any] = {"max_new_tokens": 8} if quick else {}
        outputs = self._written(model, examples, 128, temperature=0.0, **limit)
        figures = self.score(outputs, self._references(model, examples))
        return Evaluation({"loss": loss_sum / max(num_tokens, 1), **figures}, outputs, len(examples))

    def _written(self, model: Any, examples: Sequence[Example], batch_size: int, **search: Any) -> list[str]:
        """The model's best text for each example; every process writes its share, and gets all."""
        items = shard([e.item for e in examples])
        found = model.generate_many(items, batch_size=batch_size, attention=False, **search)
        return gather([several[0].text for several in found])

    def _references(self, model: Any, examples: Sequence[Example]) -> list[list[str]]:
        return [[self.normalise(model, text) for text in e.all_references] for e in examples]

    def _teacher_forced(self, model: Model, examples: Sequence[Example], size: int = 64) -> Iterator[Batch]:
        """Batches that read examples once; every process reads its share."""
        t = model.tokenizer
        rows = shard(sorted(examples, key=lambda e: len(e.target)))
        for begin in range(0, len(rows), size):
            part = rows[begin : begin + size]
            source = model.encoder.prepare([e.item for e in part]).source
            targets = [t.encode_array(self.normalise(model, e.target)) for e in part]
            yield sequence_batch(source, targets, t.bos_id, t.eos_id, t.pad_id)

    def sample(self, model: Model, evaluation: Evaluation) -> str:
        """A few outputs of a validation as Markdown, of the same examples every time."""
        examples, (item, reference, output) = self.split.valid, self.sample_names
        chosen = range(0, len(examples), max(len(examples) // self.SAMPLES, 1))[: self.SAMPLES]
        return "\n".join(
            f"* {item}: {self.shown(examples[i].item)}\n  * {reference}: {examples[i].all_references[0]}\n"
            f"  * {output}: {evaluation.outputs[i]}"
            for i in chosen
        )

    def shown(self, item: Any) -> str:
        """An item in words."""
        return str(item)

    def describe(self, figures: Mapping[str, Any]) -> str:
        """Validation figures in a few words."""
        return f"valid {figures['loss']:.3f} nats" + (
            "" if self.metric.name == "loss" else f", {self.metric} {figures[self.metric.name]:.4g}"
        )

    # -- a trained model -----------------------------------------------------------------------------------

    def normalise(self, model: Any, text: str) -> str:
        """A text as the targets of the training were: lower-case, say."""
        return text

    def held_out(self, model: Any, options: Any = None) -> Any:
        """Examples to judge a trained model by: those that ``options`` (of class `HeldOut`) name, else those that
        were held out in its training."""
        from gen.training.config import recorded

        self.config = recorded(type(self), model)
        self.split = self.read(self.config.data)
        return self.split.valid

    def evaluate(self, model: Any, examples: Any, *, batch_size: int = 64, **search: Any) -> Evaluation:
        """What a model writes for examples, and its figures. Several processes share the examples."""
        outputs = self._written(model, examples, batch_size, **search)
        return Evaluation(self.score(outputs, self._references(model, examples)), outputs, len(examples))

    def measure(self, model: Any, examples: Any, limit: int = 0) -> tuple[float, str]:
        """The figure that an int8 export is compared by, and what it was measured on: at most ``limit`` items (0:
        as many as are worth it)."""
        found = self.evaluate(model, examples)
        return float(found.figures[self.metric.name]), f"{found.count:,} held-out examples"

    def compare(
        self, outputs: Sequence[str], others: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        """Probability that the difference between two models' figures is chance: name → p."""
        return {}

    def pairs(self, files: Sequence[str], options: Any) -> Iterator[tuple[Any, str]]:
        """Items and texts to score, from files that the user names."""
        yield from PairFiles(files, options.src, options.tgt)

    def plot(self, model: Any, item: Any, hypothesis: Hypothesis, to: Path) -> None:
        """Draws what the decoder looked at while it wrote each token of ``hypothesis``."""
        plot_attention(hypothesis.attention, token_labels(model, hypothesis), model.encoder.labels(item), to)

    def finish(self, model: Model, folder: Path) -> Evaluation:
        """Judges the best weights as they will be used. May leave files of interest in the run folder."""
        return self.evaluate(model, self.split.valid)

    def commands(self, model: Model, folder: str) -> list[str]:
        """Commands to try with the trained model; ``folder`` is quoted for a shell."""
        return [f"gen {self.name} {folder} {shlex.quote(self.shown(self.split.valid[0].item))}"]

    def rows(self, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Figures for people: (name, value, how it was computed) each."""
        signatures = {n for n in figures if n.endswith("_signature")}
        return [
            (
                name,
                f"{value:,.4f}" if isinstance(value, float) else str(value),
                figures.get(f"{name}_signature", ""),
            )
            for name, value in figures.items()
            if name not in signatures
        ]


def token_labels(model: Any, hypothesis: Hypothesis) -> list[str]:
    """The text of every token of a hypothesis."""
    return [model.tokenizer.decode([i]) for i in hypothesis.token_ids]
