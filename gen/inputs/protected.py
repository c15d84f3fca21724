"""What is copied, not translated: numbers, names, addresses, placeholders, emoji. Taken out and put back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import regex

from gen.inputs.sentences import Pieces, split_line
from gen.inputs.tokenizer import Tokenizer

# What may begin anywhere has a limit of length: else a long run of letters takes the square of its length. Hosts
# have the limits of DNS. Flags come in pairs: `\X` counts them from the beginning of their run each time.
_PATTERNS = {
    "urls": r"""(?:\p{L}[\w+.-]{0,30}+://|www\.|mailto:) (?:[^\s<>()"“”„«»`]|\([^\s()]*\))+ (?<![.,;:!?'’…])
        | (?<![\w.@]) \w[\w-]{1,62}+ (?:\.[\w-]{1,63}+){0,30} (?:\.\p{Ll}{2,63}+/(?:[^\s<>()"“”„«»`]*[\w/])?
        | \.(?:com|org|net|edu|gov|info|\p{Ll}{2})(?!\w))""",
    "emails": r"[\w.+%-]{1,64}+ @ \w[\w-]* (?:\.[\w-]*\w)+",
    "placeholders": r"""</?\p{L}[^<>]*> | <!--.{0,1000}?--> | &\#?\w+; | \[\[[^\[\]]*\]\] | `[^`]+`
        | %\{[^{}\s]{0,100}\}
        | \$?\{(?:[^{}]++|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+\} | \$\p{L}\w* | (?<!\w)[@\#]\p{L}\w* | __\w+?__
        | (?<![\d%])% (?:\(\w++\)|\d++\$)? [-+\#0]*+\d*+(?:\.\d++)? (?:hh|ll|[hlLqjzt])? [diouxXeEfFgGcrsaAp@]
        | %\p{L}\w*%""",
    "emoji": r"""(?:\p{Regional_Indicator}{1,2}+ [\p{M}\u200D]*+
        | (?=\p{Extended_Pictographic}|[\d\#*]\uFE0F?\u20E3) \X)+""",
    "numbers": r"""(?<![\p{L}\p{M}\p{N}_]) (?:[-+−±\#№§]|\p{Sc}){0,9}+ (?=[\p{L}\p{M}_]*\p{N}) [\p{L}\p{M}\p{N}_]++
        (?:[.,:/'’·×x–-](?=\p{N})[\p{L}\p{M}\p{N}_]++ | -\p{L}[\p{L}\p{M}]*+)*+
        (?:\s?[%‰°]\p{Lu}? | \s?\p{Sc}(?!\d))?""",
}
KINDS = (*_PATTERNS, "names")
"""What can be protected. Placeholders are ``{name}``, ``%s``, ``<b>`` and the like, numbers are in digits."""

_PRIVATE = range(0xE000, 0xF900)  # code points that no text has but by agreement
_CAPITALS = regex.compile(r"\p{L}['’]?\p{Lu}")
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:[-'’][\p{L}\p{M}]+)*+")
_SAID = regex.compile(r"[\p{L}\p{N}]")
_CLOSING = regex.compile(r"[\p{Pe}\p{Pf}\p{Pd}.,;:!?…'’\"]")
_NARROW = regex.compile(
    r"[\p{Ps}\p{Pi}\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u3000-\u303f\uff00-\uffef]"
)
"""No space comes beside it: opening brackets, and scripts without spaces."""
_BETWEEN = regex.compile(r"[\s\p{Pd},/&+|]*")
_PAIRS = {"(": ")", "[": "]", "（": "）", ",": ",", '"': '"', "“": "”", "„": "“", "«": "»", "»": "«", "‘": "’"}
_MARKS_BEFORE = regex.compile(r"(?r)[^\p{L}\p{N}]*")
_SPELLED, _SPELLED_FIRST = 3.0, 2.0
"""A name is in pieces of at most so many letters: "Ko|wal|czyk"; other rare words are not: "Eis|hockey". At the
beginning of a sentence, where every word has a capital, they are shorter."""


class Gap(NamedTuple):
    """Where something was taken out of a text.

    Attributes:
        text: what was.
        source: where it began in the text.
        at: where it was in what is left.
        before, after: the characters before and after it in the text; "" at its ends.
    """

    text: str
    source: int
    at: int
    before: str
    after: str


def find_protected(text: str, kinds: Sequence[str], tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Where what is not to be translated begins and ends, with brackets and commas around it, and a colon after it
    where the text begins with it. What only marks are between is one.

    Args:
        text: a sentence.
        kinds: of `KINDS`.
        tokenizer: of the sentence. A name is a capitalised word that it has to spell; of words, one that it does
            not know.

    Example:
        >>> from gen.inputs.tokenizer import WordTokenizer
        >>> text = "{user} paid 12.50 € (www.example.org) for Zoe's."
        >>> [text[a:b] for a, b in find_protected(text, KINDS, WordTokenizer(["paid", "for"]))]
        ['{user}', '12.50 € (www.example.org)', "Zoe's"]
    """
    chosen = "|".join(f"(?:{_PATTERNS[kind]})" for kind in _PATTERNS if kind in kinds)
    found = [m.span() for m in regex.finditer(chosen, text, regex.VERBOSE | regex.V1)] if chosen else []
    if "names" in kinds:
        ends, begins = [end for _, end in found], [*(begin for begin, _ in found), len(text)]
        found += [n for n in _names(text, tokenizer) if n[1] <= begins[bisect_right(ends, n[0])]]
    found = _joined(text, sorted(found))
    return _joined(text, [_widened(text, *span) for span in found])


def _joined(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans, as one where only marks are between."""
    joined: list[tuple[int, int]] = []
    for begin, end in spans:
        if joined and _BETWEEN.fullmatch(text, joined[-1][1], begin):
            begin, end = joined[-1][0], max(joined.pop()[1], end)
        joined.append((begin, end))
    return joined


def _widened(text: str, begin: int, end: int) -> tuple[int, int]:
    """A span with the brackets or the commas around it, and a colon after it where it is the first of the text."""
    before = _last_before(text, begin)
    while before >= 0 and text[end : end + 1] == _PAIRS.get(text[before]):
        begin, end = before, end + 1
        before = _last_before(text, begin)
    if before < 0 and (mark := regex.compile(r"\s?[:.,)\]–—-]+(?=\s)").match(text, end)):
        end = mark.end()
    return begin, end


def _last_before(text: str, at: int) -> int:
    """The position of the last character before ``at`` that is no space; -1 where there is none."""
    return next((i for i in range(at - 1, -1, -1) if not text[i].isspace()), -1)


def _names(text: str, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Capitalised words in a row, of which the vocabulary has to spell one.

    Where many other words have capitals too, as all nouns in German, a name has several words, or capitals inside.
    """
    if tokenizer.kind == "char":
        return []
    runs: list[list[regex.Match[str]]] = []
    words = list(_WORD.finditer(text))
    for word in words:
        if word[0][0].isupper():
            if not runs or text[runs[-1][-1].end() : word.start()] != " ":
                runs.append([])
            runs[-1].append(word)
    found, nouns = [], 0
    for run in runs:
        marks = _MARKS_BEFORE.match(text, 0, run[0].start())
        begins = marks is not None and (marks.start() == 0 or not set(".:!?…").isdisjoint(marks[0]))
        most = _SPELLED if len(run) > 1 and _is_spelled(run[0][0], tokenizer) else _SPELLED_FIRST
        while run and _may_be_common(run[0][0], begins):
            if _is_spelled(run[0][0].lower(), tokenizer, most):
                break
            begins, run = False, run[1:]
        spelled = [_is_spelled(word[0], tokenizer) for word in run]
        if any(spelled):
            found.append((run, all(spelled)))
        else:
            nouns += len(run)
    german = 10 * nouns >= len(words)  # fewer are names that the vocabulary has, as London
    return [
        (run[0].start(), run[-1].end())
        for run, spelled in found
        if not german or (spelled and len(run) > 1) or any(_CAPITALS.search(word[0]) for word in run)
    ]


def _may_be_common(word: str, begins: bool) -> bool:
    """Whether a word has its capital perhaps since it begins a sentence, or is all in capitals."""
    return word.isupper() or (begins and not _CAPITALS.search(word))


def _is_spelled(word: str, tokenizer: Tokenizer, most: float = _SPELLED) -> bool:
    """Whether a vocabulary has neither a word, or each of its parts between hyphens, nor long pieces of it."""
    if tokenizer.kind == "word":
        return tokenizer.unk_id in tokenizer.encode(word)
    parts = ((part, len(tokenizer.encode(part))) for part in regex.split(r"[-'’]", word) if len(part) > 1)
    lengths = [len(part) <= most * number if number > 1 else False for part, number in parts]
    return bool(lengths) and all(lengths)


def split_protected(processor: Any, line: str, kinds: Sequence[str]) -> Pieces:
    """`split_line`, but never inside of what is protected, which counts as one character."""
    spans = find_protected(line, kinds, processor.tokenizer) if kinds else []
    if not spans:
        return split_line(processor, line)
    stand_in = next(c for c in map(chr, _PRIVATE) if c not in line)
    short, last = "", 0
    for begin, end in spans:
        short, last = short + line[last:begin] + stand_in, end
    found, left = split_line(processor, short + line[last:]), iter(spans)
    texts = [regex.sub(stand_in, lambda _: line[slice(*next(left))], text) for text in found.texts]
    return Pieces(texts, found.cut)


def take_out(text: str, spans: Sequence[tuple[int, int]]) -> tuple[str, list[Gap]]:
    """A text without parts of it. Where no letter is left, all of it is taken out.

    Example:
        >>> rest, gaps = take_out("A man (Zoe) runs 😀.", [(6, 11), (17, 18)])
        >>> rest, [rest[: gap.at] for gap in gaps]
        ('A man runs.', ['A man', 'A man runs'])
    """
    ends = [0, *(end for _, end in spans)]
    begins = [*(begin for begin, _ in spans), len(text)]
    between = [text[end:begin] for end, begin in zip(ends, begins, strict=True)]
    if spans and not _SAID.search("".join(between)):
        return "", [Gap(text, 0, 0, "", "")]
    rest, gaps = between[0], []
    for (begin, end), further in zip(spans, between[1:], strict=True):
        gaps.append(Gap(text[begin:end], begin, len(rest.rstrip()), text[begin - 1 : begin], text[end : end + 1]))
        if not rest.strip() or not text[end:].strip():
            rest = rest.strip() + further.lstrip()
        elif rest[-1].isspace() and (further[0].isspace() or _CLOSING.match(further)):
            rest = rest.rstrip() + further
        elif _SAID.match(rest[-1]) and _SAID.match(further):
            rest += " " + further
        else:
            rest += further
    return rest, gaps


def put_back(text: str, gaps: Sequence[Gap], places: Sequence[int]) -> tuple[str, list[int]]:
    """A text with what was taken out of another one, and where each of it begins.

    Args:
        text: a translation of the rest.
        gaps: from `take_out`.
        places: per gap a position in ``text``.

    Example:
        >>> rest, gaps = take_out("A man (Zoe) runs.", [(6, 11)])
        >>> put_back("Ein Mann läuft.", gaps, [8])
        ('Ein Mann (Zoe) läuft.', [9])
    """
    made, last, begins = "", 0, [0] * len(gaps)
    for i in sorted(range(len(gaps)), key=lambda i: places[i]):
        gap, at = gaps[i], max(places[i], last)
        made += text[last:at]
        made = made.rstrip() + " " * _space_before(made, gap)
        begins[i] = len(made)
        right = text[at:]
        last = at + len(right) - len(right.lstrip())
        made += gap.text + " " * _space_after(right, gap)
    return made + text[last:], begins


def _space_before(left: str, gap: Gap) -> bool:
    last = left.rstrip()[-1:]
    if not last or _NARROW.match(last):
        return False
    return not gap.before.strip() or (not _SAID.match(gap.before) and bool(_SAID.match(last)))


def _space_after(right: str, gap: Gap) -> bool:
    first = right.lstrip()[:1]
    if not first or _NARROW.match(first) or (_CLOSING.match(first) and first == right[0]):
        return False
    return not gap.after or not _SAID.match(gap.after)
