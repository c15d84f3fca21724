"""Terminology: how terms of the source are to be translated."""

from __future__ import annotations

from collections.abc import Iterator
from unicodedata import normalize

from gen.base.errors import UserError
from gen.base.tables import Table
from gen.inputs.tokenizer import Tokenizer
from gen.search.must import Goal
from gen.search.phrases import is_letter


def read_lexicon(name: str) -> dict[str, str]:
    """Word → its translation, from a table with two columns; of several, the first.

    Raises:
        UserError: the table cannot be read, has not two columns, or a cell is empty; names the line.
    """
    found: dict[str, str] = {}
    for where, source, target in _pairs(name, "a word has two: source and target"):
        if not source or not target:
            raise UserError(f"{name}: {where}: a source or a target is empty")
        found.setdefault(normalize("NFC", source), target)
    return found


def _pairs(name: str, needed: str) -> Iterator[tuple[str, str, str]]:
    """(place, source, target) of each row of a table with two columns."""
    for where, row in Table(name, header=False, delimiters="\t;,"):  # not |, which divides the forms of a term
        if len(row) != 2:
            columns = f"{len(row)} column{'s' * (len(row) != 1)}"
            raise UserError(f"{name}: {where} has {columns}, and {needed}")
        source, target = (str(cell or "").strip() for cell in row.values())
        yield where, source, target


class Terms:
    """The terms of a table with two columns, source and target; the forms of a target are divided by ``|``.

    A term is found as whole words, the longest first. Only terms that have capitals respect case.

    Args:
        name: the table.
        tokenizer: of the translations.

    Raises:
        UserError: the table cannot be read, has not two columns, or a term cannot be written; names the line.
    """

    def __init__(self, name: str, tokenizer: Tokenizer) -> None:
        found: dict[str, list[str]] = {}
        for where, source, target in _pairs(name, "a term has two: source and target forms"):
            forms = [form.strip() for form in target.split("|")]
            if not source or not all(forms):
                raise UserError(f"{name}: {where}: a source or a target form is empty")
            try:
                Goal(["|".join(forms)], tokenizer)
            except UserError as error:
                raise UserError(f"{name}: {where}: {error}") from error
            found.setdefault(normalize("NFC", source), []).extend(forms)
        self._forms = {source: "|".join(dict.fromkeys(forms)) for source, forms in found.items()}
        self._lengths = sorted(set(map(len, found)), reverse=True)

    def constraints(self, sentence: str) -> list[str]:
        """The forms of each term of a sentence."""
        sentence = normalize("NFC", sentence)
        at, small = 0, sentence.lower()
        found: list[str] = []
        if len(small) != len(sentence):  # some capitals have two small letters
            small = sentence
        while at < len(sentence):
            ends = (at + n for n in self._lengths if _edge(sentence, at) and _edge(sentence, at + n))
            terms = ((end, self._forms.get(sentence[at:end]) or self._forms.get(small[at:end])) for end in ends)
            end, forms = next(((end, forms) for end, forms in terms if forms), (at + 1, ""))
            found += [forms] if forms else []
            at = end
        return list(dict.fromkeys(found))

    def __contains__(self, constraint: str) -> bool:
        return constraint in self._forms.values()


def _edge(text: str, at: int) -> bool:
    """Whether no word goes on from before a position to after it."""
    return not (0 < at < len(text) and is_letter(text[at - 1]) and is_letter(text[at]))
