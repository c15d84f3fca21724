"""Loading models for commands, and records of their outputs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gen import runtime
from gen.base.cache import CacheError
from gen.base.errors import UserError, few
from gen.base.fields import options_of
from gen.base.lines import read_lines
from gen.inputs.labels import LabelProcessor, unknown_label
from gen.inputs.pictures import open_picture
from gen.inputs.processors import PictureProcessor, SentenceProcessor
from gen.search import Hypothesis
from gen.search.ensemble import reads_alike

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model
    from gen.training.task import Task

Precision = Literal["fp32", "bf16", "fp16", "auto"]

COMMANDS = {"text": "generate"}
"""Task → the command that uses its models, if it differs from the task's name."""


def load_model(
    run: str, device: str = "auto", task: str = "", precision: Precision = "fp32", threads: int = 0
) -> Model | runtime.Runtime:
    """Loads a model or an exported model.

    Args:
        run: a folder, or hf:user/name.
        device: as in the options.
        task: the required task of the model; "" for any.
        precision: number format of the matrix products.
        threads: threads per step; 0: chosen.

    Raises:
        UserError: no model there, or one of another task.
    """
    if runtime.is_exported(run) or find_spec("torch") is None:
        if device not in ("auto", "cpu"):
            raise UserError(f"--device {device}: exported models run on the CPU")
        if precision not in ("fp32", "auto"):
            raise UserError(f"--precision {precision}: exported models have a fixed one; see gen export --int8")
        model: Model | runtime.Runtime = runtime.load(run, threads)
    else:
        from gen.models.device import pick_device
        from gen.models.model import Model
        from gen.training.machine import tune_cpu

        tune_cpu()
        if threads:
            import torch

            torch.set_num_threads(threads)
        model = Model.load(run, pick_device(device), precision)
    made_by = model.info.task
    if task and made_by not in ("", task):
        use = f"`gen {COMMANDS.get(made_by, made_by)} {shlex.quote(run)}`"
        raise UserError(f"{run}: is a {made_by} model, and this command is for {task} models; use {use}")
    return model


def task_among(words: Sequence[str]) -> type[Task] | None:
    """The task of the first model among a command's words; None if there is no model, as for --help alone.

    Raises:
        UserError: the model's task is not installed.
    """
    from gen.models.checkpoint import find_model, read_config
    from gen.training.registry import find_task

    for word in words:
        if word.startswith("-") or not (word.startswith("hf:") or Path(word).is_dir()):
            continue
        try:
            name = read_config(find_model(word))["task"]
        except (UserError, KeyError):
            continue  # loading it raises the error
        return find_task(name or "text")
    return None


def held_out_examples(task: Task, model: Any, run: str, options: Any, needed: str = "") -> Any:
    """What a model is measured on: `Task.held_out`, with errors that say what else can be done.

    Args:
        task: of the model, which gets its configuration.
        model: whose record names its training data.
        run: where the model is from.
        options: a `HeldOut` of the task.
        needed: what the examples are needed for, and how to do without, for the message.

    Raises:
        UserError: the data cannot be read, such as that of a run that was moved.
    """
    from gen.training.config import flags_of_data

    try:
        return task.held_out(model, options)
    except CacheError:  # other data would not help
        raise
    except UserError as error:
        message = str(error)
        named = [o for o in options_of(type(options)) if getattr(options, o.name) != o.default]
        flags = flags_of_data(type(options))
        if not named and flags and flags not in message:
            kept = few([str(path) for path in sorted(Path(run).glob("valid.*"))])
            holds = f" ({kept}: held out by training)" if kept else ""
            message = f"{message}, as training recorded it: name other held-out data with {flags}{holds}"
        raise UserError(f"{needed}: {message}" if needed else message) from error


def record(hypothesis: Hypothesis, **more: Any) -> dict[str, Any]:
    """A hypothesis in JSON output: text, score, finished, ``more``, and for samples seed and temperature."""
    found = {"text": hypothesis.text, "score": hypothesis.score, "finished": hypothesis.finished}
    return {**found, **more, **hypothesis.drawn()}


def spelled(
    name: str, check: Callable[[str], Any], numbered: Iterable[tuple[int, str]] | None = None
) -> Iterator[str]:
    """The lines of a file, checked one at a time; "-" for standard input; or those texts of it, with their lines.

    Raises:
        UserError: the file cannot be read, or ``check`` raised it for a line, which the message names.
    """
    for number, line in numbered or enumerate(read_lines(name), 1):
        try:
            check(line)
        except UserError as error:
            raise UserError(f"{'standard input' if name == '-' else name}: line {number}: {error}") from error
        yield line


def encoding_errors(flag: str, texts: Iterable[str]) -> list[str]:
    """An error if texts from the command line are not UTF-8: Python keeps such bytes as surrogates."""
    wrong = any("\udc80" <= character <= "\udcff" for text in texts for character in text)
    return [f"{flag}: is not UTF-8"] if wrong else []


def labels_of(model: Any, given: Sequence[str]) -> dict[str, str]:
    """The labels of ``--given`` by input name: in the order of the model's inputs, or as ``name=label``.

    Raises:
        UserError: the model takes no labels, or not so many, or does not know one.
    """
    labels = {n: p.tokenizer.labels for n, p in model.processors.items() if isinstance(p, LabelProcessor)}
    if given and not labels:
        raise UserError("--given: this model was trained without labels; see `gen train text --help`")
    found: dict[str, str] = {}
    for word in given:
        name, equals, label = word.partition("=")
        if not (equals and name in labels):
            left = (n for n in labels if n not in found)
            name, label = next((n for n in labels if n not in found and word in labels[n]), next(left, "")), word
        if not name or name in found:
            raise UserError(f"--given {word}: this model takes one label each of {', '.join(labels)}")
        if label and label not in labels[name]:
            raise unknown_label(label, labels[name])
        found[name] = label
    for name in labels.keys() - found.keys():
        if not model.processors[name].optional:
            raise UserError(f"--given: this model needs a label: {', '.join(labels[name])}")
    return found


def further_inputs(
    model: Any, images: Sequence[str], context: Sequence[str], given: Sequence[str], main: str = "sentence"
) -> dict[str, Any]:
    """Input name → what was given for it besides the input ``main``, in the order of the model's inputs. A picture
    is read once.

    Raises:
        UserError: the model has fewer such inputs, a picture cannot be read, or a label is unknown.
    """
    found: dict[str, Any] = dict(labels_of(model, given))
    kinds = {"--image": (images, PictureProcessor), "--context": (context, SentenceProcessor)}
    for option, (values, kind) in kinds.items():
        inputs = {n: p for n, p in model.processors.items() if isinstance(p, kind) and n != main}
        if len(values) > len(inputs):
            takes = f"takes {len(inputs)} of them" if inputs else f"was trained without {option}"
            raise UserError(f"{option} {values[len(inputs)]}: this model {takes}")
        pairs = zip(inputs.items(), values, strict=False)
        for (name, processor), value in pairs:
            is_picture = kind is PictureProcessor
            if is_picture and reads_alike(model, name):
                found[name] = processor.read([value])[0]
            else:
                found[name] = open_picture(value) if is_picture else value
    return found
