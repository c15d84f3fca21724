"""`gen generate`: text from a language model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from gen import runtime
from gen.base import distributed
from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, Terminated, UserError, notify
from gen.base.fields import Arg
from gen.base.json_files import json_line
from gen.search import SearchOptions
from gen.search.sample import fresh_seed
from tasks.commands.memory import MemoryOptions
from tasks.commands.models import Precision, encoding_errors, labels_of, load_model, record, spelled
from tasks.commands.must import unsaid, with_must

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model


@dataclass(frozen=True)
class GenerateConfig:
    """Generate text with a trained model."""

    COMMON: ClassVar = ("prompt", "temperature", "max_new_tokens", "num_samples", "top_p", "seed", "beam", "json")

    run: Annotated[str, Arg("RUN", positional=True)]
    """Folder of a run, model or exported model, or hf:USER/NAME."""
    prompt: tuple[str, ...] = ()
    """Beginning of the text; one text per prompt."""
    given: tuple[str, ...] = ()
    """What to write about, for a model trained with labels: a label, or COLUMN=LABEL where there are several
    columns."""
    input: str = ""
    """File with one prompt per line; - for standard input."""
    must_each: str = ""
    """File in step with the prompts: what each text must say besides --must, divided by tabs."""
    stream: bool = False
    """Print the text while it is generated."""
    interactive: bool = False
    """Read prompts and generate in a loop."""
    json: bool = False
    """Print one JSON object per text: prompt, text, score (log-probability), finished, num_tokens; for samples
    also seed and temperature."""
    batch_size: int = 64
    """Prompts per batch."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "fp32"
    """Number format of matrix products; bf16 is faster for large batches."""
    search: SearchOptions = field(default_factory=SearchOptions)
    remember: MemoryOptions = field(default_factory=MemoryOptions)

    def check(self) -> None:
        """Raises `ConfigError` with all errors."""
        given = {"--prompt": self.prompt, "--input": self.input, "--interactive": self.interactive}
        ways = [flag for flag, value in given.items() if value]
        errors = self.search.errors() + self.remember.errors()
        if len(ways) > 1:
            errors.append(f"{' and '.join(ways)} exclude each other")
        errors += encoding_errors("--prompt", self.prompt) + encoding_errors("--given", self.given)
        if self.json and self.interactive:
            errors.append("--json and --interactive exclude each other")
        if self.stream or self.interactive:
            way = "--stream" if self.stream else "--interactive"
            others = {
                "--json": self.json and self.stream,
                "--beam": bool(self.search.beam) and self.stream,
                "--num-samples": (self.search.num_samples or 1) > 1,
                "several values of --temperature": len(self.search.temperature) > 1,
            }
            for other in (name for name, given in others.items() if given):
                errors.append(f"{way} prints one text at a time: it does not go with {other}")
        if self.must_each and (self.stream or self.interactive):
            errors.append("--must-each goes with neither --stream nor --interactive")
        if errors := errors + range_errors(self, ("batch_size",)):
            raise ConfigError(errors)


def generate_command(argv: list[str], command: str) -> None:
    """`gen generate RUN …`."""
    config = parse_command(GenerateConfig, argv, command, repeat=True)
    config.check()
    distributed.start()
    distributed.one_process("gen generate")
    model = load_model(config.run, config.device, "text", config.precision)
    options = config.search.given()
    for remark in config.search.remarks():
        notify(remark)
    given = labels_of(model, config.given)
    config.remember.give(model, given)
    if config.interactive:
        _converse(model, given, options)
    elif config.stream:
        for prompt in _prompts(config, model):
            _print_stream(model, prompt, given, options)
    else:
        _print_all(model, config, given, options)


def _prompts(config: GenerateConfig, model: Model | runtime.Runtime) -> Iterator[str]:
    if config.input:
        yield from spelled(config.input, partial(model.tokenizer.encode_known, unknown=config.search.unknown))
    else:
        yield from config.prompt or ("",)


def _print_all(
    model: Model | runtime.Runtime, config: GenerateConfig, given: dict[str, str], options: dict[str, Any]
) -> None:
    prompts = _prompts(config, model)
    printed = 0
    if SearchOptions.make(model.search_defaults, options).samples:
        options = {"seed": fresh_seed(), **options}  # one for all batches
    items: Iterator[Any] = ({"prompt": prompt, **given} for prompt in prompts)
    if config.must_each:
        items = with_must(items, config.must_each, "prompt", model.tokenizer)
    number = 0
    while batch := list(islice(items, config.batch_size)):
        for item, output in zip(batch, model.generate(batch, **options), strict=True):
            prompt, number = item["prompt"], number + 1
            if output.missing:
                raise unsaid(f"prompt {number}", output.missing[0])
            for hypothesis in output:
                if config.json:
                    found = record(hypothesis, num_tokens=len(hypothesis.token_ids))
                    print(json_line({"prompt": prompt, **found}), end="")
                else:
                    # Separate texts that may have several lines.
                    if printed and not model.info.ends_with_eos:
                        print("---")
                    print(prompt + hypothesis.text)
                printed += 1
        sys.stdout.flush()


def _print_stream(
    model: Model | runtime.Runtime, prompt: str, given: dict[str, str], options: dict[str, Any]
) -> None:
    pieces = model.stream({"prompt": prompt, **given} if given else prompt, **options)
    first = next(pieces, "")  # errors in the prompt come before any output
    print(prompt + first, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _converse(model: Model | runtime.Runtime, given: dict[str, str], options: dict[str, Any]) -> None:
    """Reads prompts until the input ends. On a terminal, lines can be edited, and Ctrl-C cancels one."""
    typed = sys.stdin.isatty()
    if typed and find_spec("readline"):
        import readline  # noqa: F401  # gives `input` editing keys and a history

    keys = "Ctrl-C cancels, Ctrl-D ends" if typed else "the end of the input ends it"
    print(f"Type the beginning of a text, or an empty line for none; {keys}.", file=sys.stderr)
    while True:
        try:
            prompt = input("> ")
            _print_stream(model, prompt, given, options)
        except EOFError:
            if typed:
                print()
            return
        except UserError as error:
            print(error, file=sys.stderr)
        except KeyboardInterrupt as stop:
            if not typed or isinstance(stop, Terminated):
                raise
            print()
