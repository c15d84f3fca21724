"""What a model says of itself beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class ModelInfo:
    """What a model folder says beside its weights.

    Attributes:
        task: which command made it.
        ends_with_eos: sequences end by themselves; a stream of text does not.
        search: default `SearchOptions`.
        training: the configuration of the training, for the record.
        metrics: what it reached on its validation data.
        data: what it was trained on, in a few words.
    """

    task: str = ""
    ends_with_eos: bool = True
    search: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    data: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelInfo:
        """Those of a model folder's values that belong here. Raises TypeError where one is of another type."""
        info = cls(**{f.name: config[f.name] for f in fields(cls) if f.name in config})
        for f in fields(cls):
            if type(getattr(info, f.name)) is not type(getattr(cls(), f.name)):
                raise TypeError(f"{f.name}: {getattr(info, f.name)!r}")
        return info

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `of` makes the same again."""
        return asdict(self)

    def card(self, what: str, made_with: str, use: str = "import gen\nmodel = gen.load") -> str:
        """The model card: what this is, how it was trained, what it reached.

        Args:
            what: the model in a sentence.
            made_with: libraries and their versions.
            use: Python that loads it, up to the folder's name.
        """
        from gen import __version__

        cells = {name: str(value).replace("|", "\\|") for name, value in self.metrics.items()}
        metrics = "\n".join(f"| {name} | {value} |" for name, value in cells.items())
        kind = self.task or "sequence"
        return (
            f"---\nlibrary_name: gen-toolkit\ntags: [gen-toolkit, {kind}]\n---\n\n# A {kind} model\n\n"
            f"{what} Made by gen-toolkit {__version__} with {made_with}.\n\n"
            f"Data: {self.data or 'not said'}\n\n"
            f"Command: `{self.training.get('command', 'trained from Python')}`\n\n"
            f"| metric | value |\n|---|---|\n{metrics}\n\n"
            f'```python\n{use}("this folder")\nprint(model.generate("...")[0].text)\n```\n'
        )
