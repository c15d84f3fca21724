"""What training is like for every task: the machine made ready, the run opened, the loop watched."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gen.base import distributed
from gen.base.config import from_dict, parse_command, to_dict
from gen.base.errors import UserError
from gen.inputs.tokenizer import Tokenizer
from gen.metrics.plots import plot_losses
from gen.models.device import compute_dtype, pick_device
from gen.models.model import Model
from gen.models.transfer import freeze, with_vocabulary
from gen.search.info import ModelInfo
from gen.training import machine
from gen.training.loop import train
from gen.training.options import TrainOptions
from gen.training.run_folder import RunFolder
from gen.training.trackers import figures_of, tracked
from gen.training.validation import Event, Task
from tasks import display
from tasks.commands.preflight import Tools, preflight

T = TypeVar("T")

PASSING = {"out", "tools", "device", "save_every"}
"""Options that may differ when the same command goes on: they change no result."""


class Session:
    """One training from its options to its closing lines.

    Args:
        config: what the user asked for; checked here, and so is the run folder, before anything takes long.
        task: which command this is.
        command: what was typed, for the model card.

    Attributes:
        device: where to put the model.
        run: the run folder.
        begun: the model of ``--init-from``, or None.
    """

    def __init__(self, config: Any, task: str, command: str) -> None:
        config.check()
        self.config, self.task, self.command = config, task, command
        self.tools: Tools = config.tools
        options: TrainOptions = config.train
        distributed.start()
        display.console.quiet = not distributed.is_main()
        machine.tune_cpu()
        machine.seed_everything(options.seed)
        machine.set_deterministic(options.deterministic)
        self.device = pick_device(options.device)
        self.run = RunFolder(config.out, _identity(to_dict(config)))
        if not self.tools.preflight:
            self.run.check()
        self.begun = self._begin(options.init_from)

    def _begin(self, path: str) -> Model | None:
        if not path:
            return None
        model = Model.load(path)
        if model.info.task != self.task:
            raise UserError(f"--init-from {path}: is a {model.info.task or 'Python'} model, not a {self.task} one")
        return model

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The vocabulary to keep, where there is one."""
        return None if self.begun is None or self.config.train.new_vocabulary else self.begun.tokenizer

    def model(
        self,
        make: Callable[[ModelInfo], Model],
        tokenizer: Tokenizer,
        source_tokenizer: Tokenizer | None = None,
        *,
        data: Sequence[str],
        **info: Any,
    ) -> Model:
        """The model to train, on its device.

        Args:
            make: makes a new one, where there is none to begin with.
            tokenizer: of what it writes.
            source_tokenizer: of what its encoder reads, if it reads.
            data: names of what it is trained on, for the model card.
            info: for its `ModelInfo`.
        """
        if self.begun is None:
            model = make(ModelInfo(self.task))
        elif self.config.train.new_vocabulary:
            sources = {} if source_tokenizer is None else {"sentence": source_tokenizer}
            model, shared = with_vocabulary(self.begun, tokenizer, sources)
            display.say(f"Of {len(tokenizer):,} tokens {shared:,} were known to {self.config.train.init_from}.")
        else:
            model = self.begun
        for name, value in info.items():
            setattr(model.info, name, value)
        model.info.training = {"command": self.command, **to_dict(self.config)}
        model.info.metrics, model.info.data = {}, " ".join(data)
        if patterns := self.config.train.freeze:
            display.say(f"{freeze(model, patterns):,} parameters do not learn.")
        return model.to(self.device)

    def fit(
        self,
        model: Model,
        task: Task,
        options: TrainOptions,
        *,
        data: Any,
        describe: Callable[[Mapping[str, Any]], str],
    ) -> bool:
        """Trains in the run folder, or goes on there, while the user watches.

        Args:
            model: on its device.
            task: data, validation, samples.
            options: with everything chosen that was left open.
            data: a table of the data, to print.
            describe: validation figures in a few words.

        Returns:
            Whether there is a trained model to present, and this is the process that does so.
        """
        display.console.print(data)
        display.console.print(display.model_summary(model, compute_dtype(options.precision, model.device)))
        if self.tools.preflight:
            preflight(model, task, options, self.tools, self.run.path)
            return False
        with self.run.locked():
            state = self.run.open()
            if state and state["progress"]["done"]:
                display.say(f"{self.run.path} is already trained to the end of its budget.")
            else:
                if state:
                    display.say(f"Going on from step {state['progress']['step']:,}.")
                trackers = self.tools.track if distributed.is_main() else ()
                with (
                    tracked(trackers, self.run.path, to_dict(self.config)) as log,
                    display.training_progress(options, describe) as show,
                ):

                    def watch(event: Event) -> None:
                        show(event)
                        log(figures_of({**event.record(), "validation": event.validation}), event.progress.step)

                    train(model, task, options, self.run, state, watch)
        present = distributed.is_main()
        distributed.stop()
        if present:
            (self.run.path / "plots").mkdir(exist_ok=True)
            metric = "" if task.metric == "loss" else task.metric
            plot_losses(list(self.run.records()), self.run.path / "plots" / "loss.png", metric=metric)
        return present

    def close(self, commands: Sequence[str]) -> None:
        """Where everything is, and what to type next."""
        out = self.run.path
        display.say(f"Peak memory: {machine.peak_memory(self.device) / 2**20:,.0f} MB")
        display.say(f"Samples: {out}/samples.md   plot: {out}/plots/loss.png")
        display.say("Use it:\n\n" + "".join(f"  {line}\n" for line in commands))


def _identity(config: dict[str, Any]) -> dict[str, Any]:
    """What makes a run the run that it is."""
    return {
        name: _identity(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in PASSING
    }


def asked(model: Model, config: type[T]) -> T | None:
    """What was asked for when a model was trained; None where it does not say."""
    errors: list[str] = []
    found = from_dict(config, {k: v for k, v in model.info.training.items() if k != "command"}, "", errors)
    return None if errors else found


def command(config: type[Any], work: Callable[[Any, str], Any], argv: list[str], name: str) -> None:
    """`gen train …`: reads the options, works, and says how to go on where Ctrl-C ends it."""
    typed = f"{name} {shlex.join(argv)}"
    asked = parse_command(config, argv, name)
    try:
        work(asked, typed)
    except KeyboardInterrupt:
        if distributed.is_main() and (Path(asked.out) / "last").exists():
            print(f"\nStopped and saved. The same command goes on from here:\n\n  {typed}\n", file=sys.stderr)
        raise
