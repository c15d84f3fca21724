"""`gen generate`: a trained model writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from gen import runtime
from gen.base.config import parse_command
from gen.base.errors import ConfigError, Terminated, UserError
from gen.base.fields import Arg
from gen.base.lines import read_lines
from gen.search import Hypothesis, SearchOptions
from gen.search.sample import fresh_seed
from tasks.commands.models import Precision, load_model

if TYPE_CHECKING:  # exported models run where there is no torch
    from gen.models.model import Model


@dataclass(frozen=True)
class GenerateConfig:
    """Write with a trained model."""

    COMMON: ClassVar = ("prompt", "temperature", "max_new_tokens", "num_samples", "top_p", "seed", "beam", "json")

    run: Annotated[str, Arg("RUN", positional=True)]
    """The folder of a run, of a model, or of an exported model."""
    prompt: tuple[str, ...] = ()
    """The beginning of the text. May be repeated: several prompts give several texts."""
    input: str = ""
    """Prompts from a file, one per line; - for standard input."""
    stream: bool = False
    """Print the text while it is being written."""
    interactive: bool = False
    """Ask for prompts in a loop."""
    json: bool = False
    """Print one JSON object per text: prompt, text, score, num_tokens, finished; when sampling also seed and
    temperature."""
    batch_size: int = 64
    """Prompts per batch."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "fp32"
    """Of the matrix products; bf16 is faster for large batches."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def check(self) -> None:
        """Raises `ConfigError` with every error at once."""
        given = {"--prompt": self.prompt, "--input": self.input, "--interactive": self.interactive}
        ways = [flag for flag, value in given.items() if value]
        errors = self.search.errors()
        if len(ways) > 1:
            errors.append(f"{' and '.join(ways)} exclude each other: prompts come from one place")
        if any("\udc80" <= c <= "\udcff" for prompt in self.prompt for c in prompt):
            errors.append("--prompt: is not UTF-8")  # bytes that Python could not read from the command line
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
                errors.append(f"{way} writes one text as it comes: it does not go with {other}")
        if self.batch_size < 1:
            errors.append(f"--batch-size must be at least 1, not {self.batch_size}")
        if errors:
            raise ConfigError(errors)


def generate_command(argv: list[str], command: str) -> None:
    """`gen generate RUN …`."""
    config = parse_command(GenerateConfig, argv, command, repeat=True)
    config.check()
    model = load_model(config.run, config.device, "text", config.precision)
    options = config.search.given()
    if config.interactive:
        _converse(model, options)
    elif config.stream:
        for prompt in _prompts(config):
            _print_stream(model, prompt, options)
    else:
        _print_all(model, config, options)


def _prompts(config: GenerateConfig) -> Iterator[str]:
    if config.input:
        yield from read_lines(config.input)
    else:
        yield from config.prompt or ("",)


def _print_all(model: Model | runtime.Runtime, config: GenerateConfig, options: dict[str, Any]) -> None:
    prompts = _prompts(config)
    printed = 0
    if SearchOptions.make(model.search_defaults, options).samples:
        options = {"seed": fresh_seed(), **options}  # one for all batches
    while batch := list(islice(prompts, config.batch_size)):
        for prompt, output in zip(batch, model.generate(batch, **options), strict=True):
            for hypothesis in output:
                if config.json:
                    print(json.dumps(_record(prompt, hypothesis), ensure_ascii=False))
                else:
                    # Texts of several lines need a mark between them.
                    if printed and not model.info.ends_with_eos:
                        print("---")
                    print(prompt + hypothesis.text)
                printed += 1
        sys.stdout.flush()


def _record(prompt: str, hypothesis: Hypothesis) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "text": hypothesis.text,
        "score": hypothesis.score,
        "num_tokens": len(hypothesis.token_ids),
        "finished": hypothesis.finished,
        **hypothesis.drawn(),
    }


def _print_stream(model: Model | runtime.Runtime, prompt: str, options: dict[str, Any]) -> None:
    pieces = model.stream(prompt, **options)
    first = next(pieces, "")  # a prompt that cannot be spelled is refused before anything is printed
    print(prompt + first, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _converse(model: Model | runtime.Runtime, options: dict[str, Any]) -> None:
    """Asks for prompts until the input ends. On a terminal lines can be edited, and Ctrl-C cancels one."""
    typed = sys.stdin.isatty()
    if typed and find_spec("readline"):
        import readline  # noqa: F401  # gives `input` editing keys and a history

    keys = "Ctrl-C cancels, Ctrl-D ends" if typed else "the end of the input ends"
    print(f"Type how the text should begin; an empty line lets the model begin; {keys}.", file=sys.stderr)
    while True:
        try:
            prompt = input("> ")
            _print_stream(model, prompt, options)
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
