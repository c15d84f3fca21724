"""`gen evaluate`: figures of a model on held-out data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from gen.base import distributed
from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, flag, notify
from gen.base.fields import Arg
from gen.base.hub import PREFIX
from gen.models.checkpoint import find_model
from gen.models.device import pick_device
from gen.models.model import Model
from gen.search import SearchOptions
from gen.search.confidence import FILE as CALIBRATION
from gen.search.confidence import RAW, Calibration, save_calibration
from gen.training.config import errors_in, with_groups
from gen.training.interfaces import Evaluation, NoOptions
from gen.training.machine import tune_cpu
from gen.training.task import Task
from tasks import display
from tasks.commands.confidence import calibration_rows
from tasks.commands.models import held_out_examples, load_model, task_among

ADAPTED = " (adapted: learned from the text before, after it was scored)"


@dataclass(frozen=True)
class EvaluateCommand:
    """Evaluate a model on held-out data: perplexity of text, BLEU of translations, CIDEr-D of captions.
    `gen evaluate RUN --help` also lists the options of the model's task."""

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run or model, or hf:USER/NAME."""
    compare: str = ""
    """Also evaluate this model on the same data, with a significance test if the task has one."""
    adapt: bool = False
    """Dynamic evaluation: a copy of the model learns from each piece of a text after it is scored."""
    batch_size: int = 64
    """Items per batch."""
    calibrate: bool = False
    """Learn from these data how sure the model is of its words and texts, for --confidence of other commands, and
    write it into its folder in place of what was there. Training does it on its validation part."""
    json: bool = False
    """Print JSON."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    held_out: Any = field(default_factory=NoOptions)
    search: SearchOptions = field(default_factory=SearchOptions)

    def check(self) -> None:
        """Raises `ConfigError` with all errors."""
        errors = errors_in(self.held_out) + range_errors(self, ("batch_size",))
        if self.compare and self.compare == self.run:
            errors.append(f"--compare {self.compare}: is the same model; name another one")
        if self.adapt and (named := self.search.given()):
            errors.append(f"--adapt searches nothing: leave out {', '.join(map(flag, named))}")
        if self.calibrate and self.run.startswith(PREFIX):
            errors.append(f"--calibrate writes into the model's folder: name a folder, not {self.run}")
        if errors:
            raise ConfigError(errors)


def evaluate_command(argv: list[str], command: str) -> int:
    """`gen evaluate RUN`. Returns 1 if some of the data could not be used."""
    found = task_among(argv)
    options = with_groups(EvaluateCommand, held_out=found.HeldOut if found else NoOptions)
    config = parse_command(options, argv, command, repeat=False)
    config.check()
    distributed.start()
    if config.adapt:
        distributed.one_process("--adapt")
    model = Model.load(config.run, pick_device(config.device))
    tune_cpu()
    assert found is not None  # the model was loaded, so it was found among the words
    task = found()
    examples = held_out_examples(task, model, config.run, config.held_out)

    def evaluate(model: Any) -> Evaluation:
        if config.adapt:
            return task.evaluate_adapting(model, examples)
        return task.evaluate(model, examples, batch_size=config.batch_size, **config.search.given())

    if config.calibrate:
        model.calibration = RAW
    results: dict[str, Evaluation] = {}
    if config.compare:  # first: what cannot be compared is said before minutes of work
        results[config.compare] = evaluate(load_model(config.compare, config.device, task=task.name))
    first = evaluate(model)
    results = {config.run: first, **results}
    if config.calibrate:
        model.calibration = _calibrate(task, first, config.run)
    for line in first.failed:
        notify(f"left out: {line}")
    p_values: dict[str, float] = {}
    if config.compare:
        second = results[config.compare]
        if first.outputs and len(first.outputs) == len(second.outputs):
            references = [list(map(model.tokenizer.normalize, e.all_references)) for e in examples]
            p_values = task.compare(first.outputs, second.outputs, references)
    if distributed.is_main() and config.json:
        compared = {"compare": results[config.compare].figures, "p_value": p_values} if config.compare else {}
        adapted = {"adapted": True} if config.adapt else {}
        print(json.dumps({**first.figures, **adapted, **compared}))
    elif distributed.is_main():
        for name, result in results.items():
            display.show_figures(f"{name}{ADAPTED}" if config.adapt else name, task.rows(result.figures))
        if model.calibration and config.calibrate:
            display.show_figures("Confidence", calibration_rows(model.calibration))
        if p_values:
            rows = _p_value_rows(p_values, [result.figures for result in results.values()])
            display.console.print(display.table("p-value of the difference", rows))
    return int(bool(first.failed))


def _calibrate(task: Task, found: Evaluation, run: str) -> Calibration:
    """A calibration from what was judged, written into the model's folder; adds its figures to those found."""
    calibration, folder = task.calibrate(found.judged), find_model(run)
    if distributed.is_main():
        save_calibration(calibration, folder)
        notify(f"wrote {folder / CALIBRATION}")
    found.figures |= {f"confidence_{name}": value for name, value in calibration.figures.items()}
    return calibration


def _p_value_rows(p_values: Mapping[str, float], figures: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Each p-value, and whether the figure is the same for both models, so that nothing tells them apart."""
    rows = {}
    for name, value in p_values.items():
        both = {each[name] for each in figures if name in each}
        tie = f"   both {both.pop():g}: cannot tell them apart" if len(both) == 1 else ""
        rows[name] = f"{value:.4f}{tie}"
    return rows
