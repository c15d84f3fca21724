"""Texts of several sentences, translated sentence by sentence, as `gen translate` does."""

from __future__ import annotations

from collections.abc import Sequence

from gen.inputs.protected import split_protected
from gen.inputs.sentences import continued
from gen.search.options import SearchOptions
from gen.search.output import Hypothesis
from gen.serve.errors import Refusal
from gen.serve.limits import Limits
from gen.serve.models import Served


class Translating:
    """A text and its pieces.

    Args:
        served: a model for which `does` is true.
        text: any number of lines. One that must say something is not split, since nobody knows in which of its
            sentences, and neither is one that the model's memory has.
        chosen: how they are searched; see `gen.serve.work.check`.
        limits: of the length of a line, and of their number.

    Raises:
        Refusal: there are too many lines, or one is too long to be split.

    Attributes:
        texts: what is translated, in order.
        begins: for each, whether its line begins with it: a forced prefix is for those.
    """

    def __init__(self, served: Served, text: str, chosen: SearchOptions, limits: Limits) -> None:
        processor, store = served.inputs["sentence"], served.model.datastore
        if (lines := text.count("\n") + 1) > limits.queue:  # empty ones cost time, too
            raise Refusal(f"a text of {lines:,} lines: at most {limits.queue:,} are read at once")
        if (longest := max(map(len, text.split("\n")))) > limits.characters:
            raise Refusal(
                f"a line of {longest:,} characters: at most {limits.input_tokens:,} tokens are read at once"
            )

        def pieces(line: str) -> list[str]:
            whole = chosen.must or (store and store.target_ids(line) is not None)
            return [line] if line and whole else split_protected(processor, line, chosen.kinds).texts

        self._lines = [pieces(line.strip()) for line in text.split("\n")]
        self.texts = [piece for line in self._lines for piece in line]
        self.begins = [place == 0 for line in self._lines for place in range(len(line))]

    @property
    def is_one(self) -> bool:
        """Whether it is one sentence, which needs no joining."""
        return len(self._lines) == len(self.texts) == 1

    @staticmethod
    def does(served: Served) -> bool:
        """Whether a model needs a sentence and nothing else, and writes text."""
        needed = {name: p.kind for name, p in served.inputs.items() if not p.optional}
        return needed == {"sentence": "sentences"} and not served.labels

    def joined(
        self, found: Sequence[Sequence[Hypothesis]], whole: bool = True, least: int = 1
    ) -> list[tuple[int, Hypothesis]]:
        """The n-th best of the pieces joined, for each n: (n - 1, the text). Of a piece that has fewer, the last:
        as further pieces come there are never fewer texts than before.

        Args:
            found: hypotheses of the pieces, or of the first of them.
            whole: with the ends of lines after the last piece.
            least: so many texts there are at least, also of no pieces.
        """
        several = max([least, *map(len, found)])
        return [(n, self._one([each[min(n, len(each) - 1)] for each in found], whole)) for n in range(several)]

    def _one(self, pieces: list[Hypothesis], whole: bool) -> Hypothesis:
        left = iter(pieces)
        lines: list[str] = []
        for line in self._lines:
            written = ""
            begun = not line
            for _ in line:
                piece = next(left, None)
                if piece is not None:
                    begun = True
                    written = continued(written, piece.text)
            if not begun:
                break
            lines.append(written)
        if not whole:
            while lines and not lines[-1]:
                lines.pop()
        log_probs = [p for h in pieces for p in h.log_probs]
        token_ids = [i for h in pieces for i in h.token_ids]
        return Hypothesis(
            token_ids, sum(log_probs), log_probs, all(h.finished for h in pieces), text="\n".join(lines)
        )
