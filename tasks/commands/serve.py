"""`gen serve`: trained and exported models behind the interfaces that existing clients speak."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from gen.base.config import parse_command, range_errors
from gen.base.errors import ConfigError, UserError
from gen.base.fields import Arg
from tasks.commands.memory import MemoryOptions
from tasks.commands.models import Precision, load_model


@dataclass(frozen=True)
class ServeCommand:
    """Serve models: OpenAI's and LibreTranslate's interfaces, our own, and a page.
    On this machine only, unless --host says otherwise."""

    COMMON: ClassVar = ("host", "port", "api_key")

    run: Annotated[tuple[str, ...], Arg("RUN", positional=True)]
    """Folders of runs, models or exported models, or hf:USER/NAME; NAME=RUN gives it another name."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    port: int = 8000
    """Port to listen on; 0 for any free one."""
    allow_host: tuple[str, ...] = ()
    """Name by which the server may be asked; * for any; may be repeated. A server for this machine answers to
    localhost, too; one for others to any name, unless names are given."""
    api_key: str = ""
    """Key that requests must bring (Authorization: Bearer KEY); better in the environment, as GEN_API_KEY."""
    cors: tuple[str, ...] = ()
    """Origin whose pages may ask, such as https://example.org; * for all; may be repeated."""
    log: Literal["text", "json", "none"] = "text"
    """One line per request on standard error, without the text."""
    timeout: float = 120.0
    """Seconds until a request is given up."""
    max_body: int = 20_000_000
    """Bytes of a request."""
    max_pixels: int = 40_000_000
    """Pixels of a picture."""
    max_tokens: int = 4096
    """New tokens of a text."""
    max_input: int = 16_384
    """Tokens of a prompt or sentence."""
    max_rows: int = 256
    """Texts and beams written at once; others wait."""
    max_waiting: int = 1024
    """Requests that wait; others are refused with 429."""
    threads: int | None = None
    """Threads that compute a step; unset: all but one of the machine's cores."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "fp32"
    """Number format of matrix products; bf16 is faster for large batches."""
    remember: MemoryOptions = field(default_factory=MemoryOptions)

    def check(self) -> None:
        """Raises `ConfigError` with all errors."""
        sizes = ("max_body", "max_pixels", "max_tokens", "max_input", "max_rows", "max_waiting", "threads")
        errors = range_errors(self, sizes) + self.remember.errors()
        if self.remember.memory and len(self.run) > 1:
            errors.append("--memory goes with one RUN")
        if not self.run:
            errors.append("name folders of runs: gen serve RUN")
        if not 0 <= self.port < 1 << 16:
            errors.append(f"--port must be between 0 and 65535, not {self.port}")
        for origin in self.cors:
            if not re.fullmatch(r"\*|null|[\w+.-]+://[^/\s]+", origin):
                errors.append(f"--cors {origin}: give a scheme and a name, without a path: https://example.org")
        for name in self.allow_host:
            if not re.fullmatch(r"[^:/\s]+|\[[^\]\s]+\]", name):
                errors.append(f"--allow-host {name}: give the name alone, without scheme, port and path")
        if not 0 < self.timeout < float("inf"):
            errors.append(f"--timeout must be above 0, not {self.timeout}")
        if errors:
            raise ConfigError(errors)


def serve_command(argv: list[str], command: str) -> None:
    """`gen serve RUN…`."""
    config = parse_command(ServeCommand, argv, command, repeat=True)
    config.check()
    try:
        from gen.serve import server
        from gen.serve.app import application
        from gen.serve.limits import Limits
        from gen.serve.models import Models, names_of
    except ModuleNotFoundError as error:
        raise UserError(
            f"gen serve needs {error.name}: pip install 'gen-toolkit[serve]' (or gen-runtime[serve])"
        ) from error
    limits = Limits(
        body=config.max_body,
        pixels=config.max_pixels,
        tokens=config.max_tokens,
        input_tokens=config.max_input,
        rows=config.max_rows,
        queue=config.max_waiting,
        seconds=config.timeout,
    )
    listening = server.listen(config.host, config.port)

    def load(run: str) -> Any:
        threads = config.threads or _threads()
        model = load_model(run, config.device, precision=config.precision, threads=threads)
        config.remember.give(model)
        return model

    models = Models(names_of(list(config.run)), load, limits)
    app = application(
        models,
        hosts=(*server.local_names(config.host), *config.allow_host),
        api_key=config.api_key or os.environ.get("GEN_API_KEY", ""),
        cors=config.cors,
        log=config.log,
    )
    server.run(app, listening, config.timeout)


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores - 1, 1)
