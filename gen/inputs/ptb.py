"""Penn Treebank tokenization of captions, as the COCO caption metrics use it."""

from __future__ import annotations

import re

import regex

from gen.inputs.scripts import is_punctuation

PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that the metrics ignore. Brackets are not among them: the reference code looks for their names in
capitals after everything has been lower-cased."""

_ABBREVIATION = (
    r"(?:mr|mrs|ms|dr|st|jr|sr|prof|gen|col|sgt|capt|lt|rev|hon|no|vs|etc|inc|ltd|corp|co|dept|ave|blvd|rd|mt|ft"
    r"|jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec|[ap]\.m|e\.g|i\.e|(?:[a-z]\.)+[a-z]|[a-z])\."
)
_CLITIC = r"(?:'(?:s|m|d|re|ve|ll)|n't)"
# A vowel sign or a separate accent belongs to its letter, and so do joiners.
_LETTER = r"[\p{L}\p{M}\p{N}\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}]"
_TOKEN = regex.compile(
    rf"""
      https?://\S+ | www\.\S+ | [\w.+-]+@[\w-]+(?:\.\w+)+ | [\w-]+\.(?:com|org|net)\b   # addresses
    | \.\.\.+ | …                                               # ellipsis
    | -{{2,}} | [–—]                                            # dashes
    | {_ABBREVIATION}(?!\w)
    | \d+(?:[.,:/]\d+)*(?:st|nd|rd|th|s)?(?![\w-])              # numbers, times, fractions, ordinals
    | '\d\ds?\b | 'n' | 'em\b                                   # '90s, rock 'n' roll
    | {_CLITIC}(?!\w)
    | (?-i:[A-Z]&[A-Z])\b                                       # Q&A
    | {_LETTER}+?(?=n't(?!\w))                                    # do|n't
    | {_LETTER}+(?:(?:[-/_]|'(?!(?:s|m|d|re|ve|ll)(?!\w))){_LETTER}+(?<!n't))*   # words, hyphens and all
    | ``|''
    | (?=\S)\X                                                  # an emoji may be several code points
    """,
    regex.VERBOSE | regex.IGNORECASE,
)
_SPLIT = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}
BRACKETS = ("-lrb-", "-rrb-", "-lcb-", "-rcb-", "-lsb-", "-rsb-")
_NAMES = {
    **dict(zip("(){}[]", BRACKETS, strict=True)),
    "…": "...",
    "–": "--",
    "—": "--",
    '"': "''",
    "“": "``",
    "”": "''",
}
_PLAIN = str.maketrans({"’": "'", "‘": "`", "\u00a0": " "})


def ptb_tokens(text: str) -> list[str]:
    """Splits a caption into lower-case tokens, without punctuation.

    Follows the Stanford tokenizer with which the COCO caption code prepares captions: clitics are tokens of
    their own ("man 's", "do n't"), hyphenated words stay whole, brackets get names. On the 64,000 English
    sentences of Flickr8k and Multi30k all but a handful of results are identical.

    Example:
        >>> ptb_tokens("A man's dog doesn't bark, it runs.")
        ['a', 'man', "'s", 'dog', 'does', "n't", 'bark', 'it', 'runs']
    """
    found: list[str] = []
    for token in _TOKEN.findall(text.replace("&amp;", "&").translate(_PLAIN)):
        lower = token.lower()
        named = _NAMES.get(lower, "..." if lower.startswith("..") else lower)
        found.extend(_SPLIT.get(named, (named,)))
    marks = (token for token in found if token not in PUNCTUATION)
    return [token for token in marks if token.isascii() or not is_punctuation(token)]  # „ ، ¿ are marks elsewhere


def plain_caption(caption: str) -> str:
    """Normalizes a caption as usual for training: lower-case, single spaces, no punctuation.

    Example:
        >>> plain_caption("A man's dog runs .")
        "a man's dog runs"
    """
    joined = " ".join(token for token in ptb_tokens(caption) if token not in BRACKETS)
    return re.sub(r" (n't|'(?:s|m|d|re|ve|ll))(?!\S)", r"\1", joined)
