"""`--memory`: what a model is to remember, without training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

from gen.base.cache import cached
from gen.base.errors import UserError, notify
from gen.base.files import TextFiles
from gen.base.lines import expand_braces
from gen.search.datastore import Datastore
from gen.search.ensemble import Ensemble
from gen.search.lookup import LARGE
from gen.search.remember import write_pairs, write_text


@dataclass(frozen=True)
class MemoryOptions:
    """Pairs or a text as a memory, without training."""

    TITLE: ClassVar = "Memory"

    memory: tuple[str, ...] = ()
    """Pairs: a table, or two files (--memory a.en --memory a.de), in which a sentence to translate may be found as
    it is; for a language model a text. Nearest neighbours vote on each token."""
    neighbours: int | None = None
    """How many neighbours count: of pairs the sentences most like the input, of a text the nearest places. Unset:
    32 pairs, 64 places."""
    memory_temperature: float | None = None
    """The higher, the more the farther neighbours count. Unset: 0.05 for pairs, 0.02 for text."""
    memory_weight: float = 0.8
    """Largest share of the memory in the probability of a token, 0 to 1; it falls with the distance."""

    def errors(self) -> list[str]:
        """The errors in the options, one line each."""
        checks = [
            (
                self.neighbours is not None and not 1 <= self.neighbours <= 10_000,
                f"--neighbours must be between 1 and 10,000, not {self.neighbours}",
            ),
            (
                self.memory_temperature is not None and not 0 < self.memory_temperature < float("inf"),
                f"--memory-temperature must be above 0, not {self.memory_temperature}",
            ),
            (
                not 0 <= self.memory_weight <= 1,
                f"--memory-weight must be between 0 and 1, not {self.memory_weight}",
            ),
            ("" in self.memory, "--memory must not be empty"),
        ]
        found = [message for wrong, message in checks if wrong]
        if not self.memory and self != MemoryOptions():
            found.append("--neighbours, --memory-temperature and --memory-weight go with --memory")
        return found

    def give(self, model: Any, labels: Mapping[str, str] | None = None) -> None:
        """Gives a model its memory, built where the cache has none.

        Args:
            model: of torch or exported.
            labels: of the texts, for a model that reads some.

        Raises:
            UserError: the files cannot be read or hold nothing, or the model is an ensemble or of another task.
        """
        if not self.memory:
            return
        name = " ".join(self.memory)
        if not getattr(model, "fingerprint", ""):
            if isinstance(model, Ensemble):
                raise UserError("--memory goes with one model, not with an ensemble")
            raise UserError("--memory: an older version exported this model: export it again")
        if "sentence" not in model.processors and model.info.task not in ("", "text"):
            raise UserError(f"--memory is for translation and text: this is a {model.info.task} model")
        translates = "sentence" in model.processors
        folder = _pairs(model, self.memory) if translates else _text(model, self.memory, labels)
        model.datastore = Datastore(
            folder,
            model,
            neighbours=self.neighbours,
            temperature=self.memory_temperature,
            weight=self.memory_weight,
        )
        if model.datastore.loss > math.log(len(model.tokenizer)):
            what = "targets" if model.datastore.has_pairs else "text"
            notify(f"--memory {name}: this model would not guess its {what}: is it in another language?")


def _pairs(model: Any, names: tuple[str, ...]) -> Any:
    """The folder with the memory of pairs."""
    from gen.datasets.pair_files import PairFiles

    names = tuple(each for name in names for each in expand_braces(name))
    files = PairFiles(names, tables=len(names) == 1, advice="in a header of source and target")
    found = [(source, target) for source, target in files if source and target]
    if not found:
        raise UserError(f"{' '.join(names)}: holds no pairs of a source and a target")

    def fill(folder: Any) -> None:
        notify(f"--memory: reading {len(found):,} pairs, once for this model")
        write_pairs(folder, model, found)

    return cached(["memory", model.fingerprint, files.digest()], fill)


def _text(model: Any, names: tuple[str, ...], labels: Mapping[str, str] | None) -> Any:
    """The folder with the memory of a text."""
    files = TextFiles(names, advice="leave one column, the text")

    def fill(folder: Any) -> None:
        if not any(piece and piece.strip() for piece in files):
            raise UserError(f"{' '.join(names)}: has only empty lines")
        notify("--memory: reading the text, once for this model")
        if write_text(folder, model, files, labels) > LARGE and not find_spec("usearch"):
            notify("--memory: so long a text needs usearch to be fast: pip install 'gen-toolkit[memory]'")

    recipe = ["memory 2", model.fingerprint, files.digest(), labels or {}, bool(find_spec("usearch"))]
    return cached(recipe, fill)
