"""Metadata stored with the weights, and the model card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gen.base.errors import printable

OPTION_GROUPS = ("data", "model", "extra", "train")
"""Parts of `ModelInfo.training` that hold options."""


@dataclass
class ModelInfo:
    """Metadata stored with the weights.

    Attributes:
        task: the name of the task that trained it.
        ends_with_eos: sequences end with EOS; a stream of text does not.
        search: default `SearchOptions`.
        training: the options of the training, and how they were chosen.
        metrics: figures on its validation data.
        data: names of the training data.
        samples: what it wrote for validation data.
    """

    task: str = ""
    ends_with_eos: bool = True
    search: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    samples: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelInfo:
        """Reads the attributes from a model folder's values. Raises TypeError if one has the wrong type."""
        info = cls(**{f.name: config[f.name] for f in fields(cls) if f.name in config})
        for f in fields(cls):
            if type(getattr(info, f.name)) is not type(getattr(cls(), f.name)):
                raise TypeError(f"{f.name}: {getattr(info, f.name)!r}")
        return info

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `of` makes an equal object."""
        return asdict(self)

    def record(self, name: str) -> dict[str, Any]:
        """A part of ``training`` by its name; empty where a folder has something else there."""
        found = self.training.get(name)
        return found if isinstance(found, dict) else {}

    def options(self) -> dict[str, Any]:
        """The options of the training by name, whatever group they are in."""
        return {name: v for part in OPTION_GROUPS for name, v in self.record(part).items()}

    def teachers(self) -> list[str]:
        """Names of the models that taught it, as `gen distill` was given them."""
        found = self.record("distill").get("teachers")
        return list(map(str, found)) if isinstance(found, list | tuple) else []

    def card(self, what: str, made_with: str, use: str = "import gen\nmodel = gen.load") -> str:
        """The model card in Markdown: data, command, options, figures, samples, limits. What comes from users, and
        what a model wrote, is escaped.

        Args:
            what: a sentence that describes the model.
            made_with: libraries and their versions.
            use: Python that loads it, up to the folder's name.
        """
        from gen import __version__

        rows = "".join(f"| {as_text(name)} | {_figure(value)} |\n" for name, value in self.metrics.items())
        kind = self.task or "sequence"
        tag = kind if re.fullmatch(r"[a-z][a-z0-9-]*", kind) else json.dumps(kind)  # YAML reads JSON
        command = self.training.get("command")
        links = "".join(
            f"Followed with {as_text(n)}: {as_text(v)}\n\n" for n, v in self.record("trackers").items()
        )
        taught = f"Taught by {', '.join(map(as_text, self.teachers()))}\n\n" if self.teachers() else ""
        samples = f"## Samples\n\n{as_block(self.samples)}\n\n" if self.samples else ""
        return (
            f"---\nlibrary_name: gen-toolkit\ntags: [gen-toolkit, {tag}]\n---\n\n"
            f"# A {as_text(kind)} model\n\n"
            f"{what} Made by gen-toolkit {__version__} with {made_with}.\n\n"
            f"Data: {as_text(self.data) or 'unknown'}\n\n{taught}"
            f"Command: {as_code(command) if command else 'trained from Python'}\n\n"
            f"{links}"
            f'```python\n{use}("this folder")\nprint(model.generate("...").text)\n```\n\n'
            f"## Figures\n\nOf data that was held out.\n\n| metric | value |\n|---|---|\n{rows}\n"
            f"{samples}{self._limits()}{self._options()}"
        )

    def _limits(self) -> str:
        """What the model cannot do, as far as its metadata tell."""
        options, search = self.options(), self.search
        known = {
            "Inputs and outputs of training had at most {} tokens.": options.get("max_length"),
            "Outputs end after {} tokens, unless asked otherwise.": search.get("max_new_tokens"),
            "Words seen fewer than {} times in training are unknown to it.": options.get("min_frequency")
            if options.get("level") == "word"
            else None,
        }
        lines = [text.format(as_text(value)) for text, value in known.items() if value]
        lines += ["Characters that its training text lacks are unknown to it."] * (options.get("level") == "char")
        return "## Limits\n\n" + "".join(f"* {line}\n" for line in (*_LIMITS, *lines)) + "\n"

    def _options(self) -> str:
        """All options of the training, with the reasons of those that were chosen."""
        reasons = self.record("reasons")
        groups = (each if isinstance(each, dict) else {name: each} for name, each in self.options().items())
        rows = "".join(
            f"| {as_text(name)} | {as_text(_words(value))} | {as_text(reasons.get(name, ''))} |\n"
            for group in groups
            for name, value in group.items()
            if value not in (None, "", [], ()) or name in reasons
        )
        return f"## Options\n\n| option | value | chosen, as |\n|---|---|---|\n{rows}" if rows else ""


def _words(value: Any) -> Any:
    """A value as it is typed: a list as its words."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else value


_LIMITS = (
    "It knows what its data show, with their mistakes and prejudices.",
    "On other kinds of input it does worse than the figures say.",
    "What it says may be wrong, however fluent it is.",
    "What the data, and so the model, may be used for is for whoever shares it to say here.",
)


# Characters with a meaning in Markdown or HTML; some only at the beginning of a line, a word or an address.
_MARKS = re.compile(r"[\\`*\[\]<>#|~$&!@]|(?<!\w)_|_(?!\w)|:(?=//)|^[-+=]|(?<=^\d)[.)]")


def as_text(value: Any) -> str:
    """Any value as one line of Markdown that shows it as it is.

    Example:
        >>> print(as_text("a|b\\n*c* <d>"))
        a\\|b \\*c\\* \\<d\\>
    """
    return _MARKS.sub(r"\\\g<0>", printable(" ".join(str(value).split())))


def as_block(text: str) -> str:
    """A text of several lines as a block of code in Markdown; its fence is longer than the backticks in it."""
    fence = "`" * (1 + max(2, *map(len, re.findall("`+", text)), 0))
    return f"{fence}text\n{printable(text, keep=chr(10)).strip(chr(10))}\n{fence}"


def as_code(value: Any) -> str:
    """Any value as a span of code in Markdown, on one line; its fence is longer than the backticks in it.

    Example:
        >>> print(as_code("echo `date`"))
        `` echo `date` ``
    """
    text = printable(" ".join(str(value).split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _figure(value: Any) -> str:
    """A metric with four significant digits, or with thousands separated."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return as_text(value)
    if isinstance(value, int) or 1000 <= abs(value) < float("inf"):
        return f"{value:,.0f}"
    return f"{value:.4g}"
