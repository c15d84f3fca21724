"""`Task`, the base class of all tasks.

To add a task, write a subclass of `Task` with the decorator `register` in one file. Import the file, or name it in
the entry point group ``gen.tasks`` of a package. Training, validation, samples, evaluation, scoring, export,
plots, the model card and a command that uses the model then work without further code.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gen.base.distributed import all_reduce_sum, gather, shard
from gen.base.errors import ConfigError, UserError, flag
from gen.datasets.batches import Batches
from gen.datasets.examples import example_batches
from gen.datasets.look import DataPart
from gen.datasets.pair_files import PairFiles
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.attention import plot_attended
from gen.metrics.confidence import calibrate
from gen.models.batch import Batch, sequence_batch
from gen.models.decoder import DecoderState
from gen.models.model import LossOutput, Model
from gen.search import Hypothesis, SearchOptions
from gen.search.confidence import Calibration
from gen.training.interfaces import LOSS, Choices, Evaluation, Example, Facts, Metric, NoOptions, examples_part

if TYPE_CHECKING:
    from gen.training.distill import DistillOptions, Written
    from gen.training.options import TrainOptions
    from gen.training.teaching import Teaching


class Task:
    """What a kind of model reads, how it is built, and how it is evaluated.

    A subclass defines `read` and `build`, and optionally `score`, `defaults` and `parse`. The other methods use
    these; override them where the task differs.

    Args:
        config: the options of a training: ``data`` (an instance of `Data`), ``model`` (`Sizes`), ``extra``
            (`Extra`), ``train`` (`TrainOptions`), ``out``. None for using a trained model.
        begun: the model to start from (``init_from``), if any.

    Attributes:
        name: the name given to `register`; also of the command that uses the task's models.
        Data, Sizes, Extra: dataclasses whose fields are the options and whose field docstrings are the help. Each
            may have a method ``errors() -> list[str]``.
        HeldOut: a dataclass of options for `held_out`, to evaluate on other data.
        common: the options that come first in the help of training.
        unused: options of `TrainOptions` that do not apply to the task.
        changeable: options of `Sizes` that may be given together with ``init_from``.
        reference: values for options of `Sizes` during the measurement of the machine's speed, so that
            `Facts.tokens` does not depend on what `defaults` chooses.
        metric: decides which weights are best, unless ``best`` in the options names another.
        further_metrics: others to choose from, in the order in which they break ties. The loss is always the last.
        measured: what `measure` gives; None: ``metric``.
        search: the default search options of the task's models.
        quality: what `qualities` computes, in a few words.
        distilled_by: the options of `DistillOptions` that apply; none: `gen distill` does not.
        ends_with_eos: whether targets end with EOS.
        sample_names: names of the input, the reference and the output in ``samples.md``.
        batches: the training set; see `make_batches`.
        teachers: models to learn from, and ``backward`` one of the other direction, for `taught`.
        teaching: adds what they predict to the loss, token by token.
        split: what `read` returned.
        objective: replaces the cross-entropy, such as a `SelfCritical`; `make_batches` may set it.
        say, progress: functions that print a text, and show progress (what, done, total). They do nothing unless
            the command line replaces them.

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
    further_metrics: ClassVar[Sequence[Metric]] = ()
    measured: ClassVar[Metric | None] = None
    search: ClassVar[SearchOptions] = SearchOptions(temperature=(0.0,), max_new_tokens=200)
    quality: ClassVar[str] = "exactness"
    distilled_by: ClassVar[frozenset[str]] = frozenset()
    ends_with_eos: bool = True
    SAMPLES: ClassVar[int] = 8
    sample_names: ClassVar[tuple[str, str, str]] = ("input", "reference", "output")

    batches: Batches
    split: Any
    objective: Callable[[Model, Batch], LossOutput] | None = None
    teachers: Sequence[Any] = ()
    backward: Any = None
    teaching: Teaching | None = None
    say: Callable[[str], None] = staticmethod(lambda text: None)
    progress: Callable[[str, int, int], None] = staticmethod(lambda what, done, total: None)

    def __init__(self, config: Any = None, begun: Model | None = None) -> None:
        self.config, self.begun = config, begun

    @classmethod
    def from_options(cls, **options: Any) -> Task:
        """A task for a `Trainer`: reads the data and chooses options that are None, without measuring the machine.

        ``task.build(task.config.model, task.split)`` makes its model.

        Args:
            options: the options of the command line, with underscores.

        Raises:
            ConfigError: unknown names (with the nearest known one) or wrong values, all at once.
        """
        from gen.training.config import errors_of, make_config
        from gen.training.resolve import resolve

        config = make_config(cls, options)
        task = cls(config)
        found = errors_of(task, config, options.keys())
        found += [
            f"{flag(name)} goes with `gen.train`, which makes the model: here it is you who makes it"
            for name in ("init_from", "new_vocabulary", "freeze")
            if getattr(config.train, name)
        ]
        if found:
            raise ConfigError(found)
        task.split = task.read(config.data)
        task.config = resolve(task, config, task.split).config
        return task

    # -- what a task defines -------------------------------------------------------------------------------

    def read(self, data: Any) -> Any:
        """Reads the data. Returns a `Split`, or an object with its attributes.

        If `vocabulary` is not None, targets must be encoded with it.

        Args:
            data: an instance of `Data`.
        """
        raise NotImplementedError

    @classmethod
    def named(cls, files: Sequence[str]) -> dict[str, Any]:
        """The options of `Data` that name these files, for `gen data FILE…`."""
        return {"data": tuple(files)}

    def parts(self, test: Sequence[str] = ()) -> dict[str, DataPart]:
        """What `split` was read from, part by part, for `gen data`: "training", "validation" and perhaps others.

        Args:
            test: files to test on, in the form of those to validate on.

        Raises:
            UserError: the task has no such form.
        """
        if test:
            raise UserError(f"--test does not apply to {self.name}")
        return {"training": examples_part(self.split.train), "validation": examples_part(self.split.valid)}

    def build(self, sizes: Any, split: Any) -> Model:
        """A new model. ``sizes`` is an instance of `Sizes` with all choices made."""
        raise NotImplementedError

    def defaults(self, facts: Facts) -> Choices:
        """Values for options that are None, with a reason each. Sizes should change smoothly with the facts."""
        return {}

    def score(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Figures of N outputs, by name, given all correct texts for each."""
        exact = sum(output in right for output, right in zip(outputs, references, strict=True))
        return {"exact": exact / max(len(outputs), 1)}

    def taught(self, options: DistillOptions, written: Written | None) -> Any:
        """What `read` returns, for a model that learns from `teachers`: with what they write for the inputs, or
        with `teaching` set.

        Args:
            options: of the distillation.
            written: keeps what the teachers write; None: they shall write nothing, as in a dry run.
        """
        raise NotImplementedError

    def parse(self, words: Sequence[str]) -> Iterator[Any]:
        """Turns words of the command line into items for `Model.generate`."""
        yield from words

    # -- training ------------------------------------------------------------------------------------------

    @property
    def vocabulary(self) -> Tokenizer | None:
        """The vocabulary of the models whose predictions are learned, or of the model to start from, unless a new
        one is asked for; else None."""
        if self.teaching is not None:
            return self.teaching.tokenizer
        keeps = self.begun is not None and not self.config.train.new_vocabulary
        return self.begun.tokenizer if keeps and self.begun is not None else None

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that compare weights: the first decides, each further one where those before are equal."""
        several = [self.metric, *self.further_metrics]
        several += [LOSS] if all(m.name != LOSS.name for m in several) else []
        first = self.config.train.best if self.config is not None else None
        return sorted(several, key=lambda m: m.name != first)

    def check(self, config: Any) -> list[str]:
        """Contradictions between groups of options, one line each."""
        return []

    def change(self, begun: Model, sizes: Any) -> None:
        """Fits the model to start from to the data and the options in `changeable`, before it is frozen."""

    def tokenizers(self, split: Any) -> tuple[Tokenizer, dict[str, Tokenizer]]:
        """The tokenizer of the targets, and those of text inputs by input name."""
        return split.tokenizer, {}

    def search_defaults(self, model: Model) -> dict[str, Any]:
        """The model's default search options: those that differ from `SearchOptions`' defaults."""
        return self.search.given()

    def sources(self, data: Any) -> list[str]:
        """Names of the training data, for the model card."""
        found = [getattr(data, name, ()) for name in ("data", "train", "images", "captions")]
        return [each for value in found for each in ([value] if isinstance(value, str) else value) if each]

    def tokens_per_step(self, config: Any) -> int:
        """The approximate number of target tokens per optimizer step."""
        return int(getattr(config.data, "batch_tokens", 2000) * config.train.accumulate)

    def make_batches(self, model: Model, split: Any, config: Any) -> Batches:
        """The training set. Default: batches of examples of similar length, with items prepared by the encoder."""
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
        """The training loss. Default: `objective`, or else cross-entropy with the extra terms of the options.

        Args:
            model: in training mode.
            batch: on the model's device.
            state: the decoder state, for a batch that continues the one before.
            options: of the training.
            share: the used share of the budget, 0 to 1.
        """
        if self.objective is not None:
            return self.objective(model, batch)
        loss = partial(
            model.loss,
            label_smoothing=options.label_smoothing or 0.0,
            coverage=options.coverage,
            r_drop=options.r_drop,
            scheduled_sampling=options.scheduled_sampling * share,
        )
        return loss(batch, state) if self.teaching is None else self.teaching(model, batch, state, loss)

    def validate(self, model: Model, *, quick: bool = False) -> Evaluation:
        """The loss and the scores of greedy outputs on the validation part. Processes share the work, and all get
        the same result.

        Args:
            model: the model.
            quick: use 8 examples and short outputs, as a test.
        """
        examples = self.split.valid[:8] if quick else self.split.valid
        loss_sum, num_tokens = all_reduce_sum(*model.evaluate(self._teacher_forced(model, examples)))
        limit: dict[str, Any] = {"max_new_tokens": 8} if quick else {}
        outputs = [h.text for h in self._written(model, examples, 128, temperature=0.0, **limit)]
        figures = self.score(outputs, self._references(model, examples))
        return Evaluation({"loss": loss_sum / max(num_tokens, 1), **figures}, outputs, len(examples))

    def _written(
        self, model: Any, examples: Sequence[Example], batch_size: int, **search: Any
    ) -> list[Hypothesis]:
        """What the model writes best for each example; every process writes its share, and gets all."""
        items = shard([e.item for e in examples])
        found = model.generate_many(items, batch_size=batch_size, attention=False, **search)
        return gather([several[0] for several in found])

    def _references(self, model: Any, examples: Sequence[Example]) -> list[list[str]]:
        return [[self.normalise(model, text) for text in e.all_references] for e in examples]

    def _teacher_forced(self, model: Model, examples: Sequence[Example], size: int = 64) -> Iterator[Batch]:
        """Batches of this process's share of the examples, each example once."""
        t = model.tokenizer
        rows = shard(sorted(examples, key=lambda e: len(e.target)))
        for begin in range(0, len(rows), size):
            part = rows[begin : begin + size]
            source = model.encoder.prepare([e.item for e in part]).source
            targets = [t.encode_array(self.normalise(model, e.target)) for e in part]
            yield sequence_batch(source, targets, t.bos_id, t.eos_id, t.pad_id)

    def sample(self, model: Model, evaluation: Evaluation) -> str:
        """A few outputs of a validation as Markdown, always for the same examples."""
        examples, (item, reference, output) = self.split.valid, self.sample_names
        return "\n".join(
            f"* {item}: {self.shown(examples[i].item)}\n  * {reference}: {examples[i].all_references[0]}\n"
            f"  * {output}: {evaluation.outputs[i]}"
            for i in self.sampled(len(examples))
        )

    def sampled(self, count: int) -> range:
        """Which of ``count`` examples `sample` shows, `SAMPLES` at most."""
        return range(0, count, max(count // self.SAMPLES, 1))[: self.SAMPLES]

    def shown(self, item: Any) -> str:
        """An item as text; of one with several inputs, the first."""
        return str(next(iter(item.values())) if isinstance(item, Mapping) else item)

    def describe(self, figures: Mapping[str, Any]) -> str:
        """Validation figures as a short text."""
        return f"valid {figures['loss']:.3f} nats" + (
            "" if self.metrics[0].name == "loss" else f", {self.metrics[0]} {figures[self.metrics[0].name]:.4g}"
        )

    # -- a trained model -----------------------------------------------------------------------------------

    def normalise(self, model: Any, text: str) -> str:
        """Normalises a text as training normalised targets, such as to lower case."""
        return model.tokenizer.normalize(text)

    def held_out(self, model: Any, options: Any = None) -> Any:
        """Examples to evaluate a trained model on: those named in ``options`` (a `HeldOut`), else the validation
        part of its training."""
        from gen.training.config import recorded

        self.config = recorded(type(self), model)
        self.split = self.read(self.config.data)
        return self.split.valid

    def evaluate(self, model: Any, examples: Any, *, batch_size: int = 64, **search: Any) -> Evaluation:
        """Generates outputs for the examples and scores them. Processes share the examples."""
        found, references = self._written(model, examples, batch_size, **search), self._references(model, examples)
        outputs, judged = [h.text for h in found], list(zip(found, references, strict=True))
        return Evaluation(self.score(outputs, references), outputs, len(examples), judged=judged)

    def calibrate(self, judged: Sequence[tuple[Hypothesis, Sequence[str]]]) -> Calibration:
        """What log-probabilities mean, from what `evaluate` judged while the model's calibration was `RAW`.

        Raises:
            UserError: it is too little.
        """
        if not judged:
            raise UserError(f"--calibrate: what a {self.name} model writes is not compared with references")
        hypotheses, references = zip(*judged, strict=True)
        qualities = self.qualities([h.text for h in hypotheses], references)
        return calibrate(hypotheses, references, qualities, self.quality)

    def qualities(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """How good each output is, 0 to 1: what the confidence in it foretells; see `quality`."""
        return [float(output in right) for output, right in zip(outputs, references, strict=True)]

    def evaluate_adapting(self, model: Any, examples: Any) -> Evaluation:
        """`evaluate` with a copy of the model that learns from what it has scored; see `Adapter`."""
        raise UserError(
            f"--adapt goes with models of free text, not with {self.name}; gen score --adapt takes pairs of it"
        )

    def measure(self, model: Any, examples: Any, limit: int = 0) -> tuple[float, str]:
        """The figure that int8 exports are checked by, and a description of what it was measured on.

        Args:
            model: an exported model.
            examples: what `held_out` returned.
            limit: the largest number of items; 0: the task's own limit.
        """
        found = self.evaluate(model, examples)
        return float(found.figures[self.metric.name]), f"{found.count:,} held-out examples"

    def compare(
        self, outputs: Sequence[str], others: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        """Significance of the difference between two models' outputs: figure → p-value."""
        return {}

    def pairs(self, files: Sequence[str], options: Any) -> Iterator[tuple[Any, str]]:
        """Reads (item, text) pairs to score from files."""
        yield from PairFiles(files, options.src, options.tgt)

    def plot(self, model: Any, item: Any, hypothesis: Hypothesis, to: Path) -> None:
        """Plots the attention for each token of ``hypothesis`` into the file ``to``; see `plot_attended`."""
        plot_attended(model, item, hypothesis, to)

    def finish(self, model: Model, folder: Path) -> Evaluation:
        """Evaluates the best weights with the default search. May write files into the run folder."""
        return self.evaluate(model, self.split.valid)

    def commands(self, model: Model, folder: str) -> list[str]:
        """Example commands for the trained model; ``folder`` is quoted for a shell."""
        return [f"gen {self.name} {folder} {shlex.quote(self.shown(self.split.valid[0].item))}"]

    def rows(self, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Figures to print: (name, value, how it was computed) each."""
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
