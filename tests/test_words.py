"""Tokenizers on any Unicode: what people call a character is never cut, and texts come back."""

from __future__ import annotations

import json
import sys
import unicodedata
from types import SimpleNamespace

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.base.errors import UserError
from gen.inputs import words
from gen.inputs.processors import SentenceProcessor
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.inputs.words import find_words, pieces_of
from tasks.caption.task import Caption
from tasks.text.task import Text
from tasks.translate.task import Translate

MARKS = "\u0301\u093f\u094d\u0e33\u05b0\u200c\u200d\ufe0f\u20e3🏽🇮👩ℹ\u0d4e\u0600\uff9e각ᄀ\u11a8"
TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(st.sampled_from("ab1_ -'’,.\n\t\r\u00a0\u3000é中" + MARKS), max_size=20),
)
quick = settings(derandomize=True, max_examples=60, deadline=None, database=None)


def boundaries(parts):
    ends, at = set(), 0
    for part in parts:
        at += len(part)
        ends.add(at)
    return ends


@quick
@given(TEXTS)
def test_words_are_the_text_and_cut_no_grapheme(text):
    found = find_words(text)
    assert "".join(found) == text
    # A space belongs to what follows, even to a mark that would stand on it.
    spaces = {i for i, c in enumerate(text) if c == " "}
    assert boundaries(found) <= boundaries(regex.findall(r"\X", text)) | {0} | spaces


@quick
@given(TEXTS)
def test_lines_alone_and_together_are_the_same(text):
    assert [w for line in text.splitlines(keepends=True) for w in find_words(line)] == find_words(text)


def test_the_quick_way_finds_the_same():
    """Every character of which it is used is a cluster of its own, whatever its neighbours."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if not words._NOT_PLAIN.search(character):
            assert regex.match(r"\p{GCB=Other}|\p{GCB=Control}|\p{GCB=LV}|\p{GCB=LVT}|[\r\n]", character), hex(
                code
            )
            text = f"a {character}b-{character}'é"
            assert words._PLAIN(text) == words._ANY(text), hex(code)


def test_words_of_many_scripts():
    for text in ("किताब पढ़ रही", "தமிழ் எழுத்து", "שָׁלוֹם עוֹלָם", "می‌خواهم بروم", "cafe\u0301 au", "ภาษาไทย นี่"):
        assert [w.strip() for w in find_words(text)] == text.split()
    assert find_words("👨‍👩‍👧 👍🏽🇮🇳 1️⃣") == ["👨‍👩‍👧", " 👍🏽", "🇮🇳", " 1️⃣"]


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
@pytest.mark.parametrize("form", ["none", "nfc", "nfkc"])
@quick
@given(text=TEXTS)
def test_texts_come_back(kind, form, text):
    options = {} if kind is CharTokenizer else {"min_frequency": 1, "dummy_prefix": len(text) % 2 == 0}
    tokenizer = kind.train([text], normalization=form, **options)
    again = kind.from_bytes(tokenizer.to_bytes())
    normal = text if form == "none" else unicodedata.normalize(form.upper(), text)
    assert again.decode(again.encode(text)) == again.normalize(text) == normal
    assert again.encode(text) == again.encode_array(text).tolist() == again.encode(normal)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def subwords(request):
    text = ["the cat sat on the mat, and the cafe\u0301 was low, lower, lowest\n" * 3]
    return SubwordTokenizer.train(text, at_most=True, model_type=request.param, normalization="nfkc")


@quick
@given(text=TEXTS)
def test_subwords_bring_any_text_back(subwords, text):
    again = SubwordTokenizer.from_bytes(subwords.to_bytes())
    normal = unicodedata.normalize("NFKC", text)
    if "\u2581" not in normal and "\0" not in normal:  # SentencePiece's own symbols
        assert again.decode(again.encode(text)) == normal


def test_older_tokenizers_are_as_they_were():
    old = json.dumps({"words": [" e", "e", " "], "pattern": r" ?\w+(?:['’\-]\w+)*| ?[^\w\s]|\s"}).encode()
    tokenizer = WordTokenizer.from_bytes(old)
    assert tokenizer.normalization == "none"
    assert tokenizer.to_bytes() != old
    assert tokenizer.encode("e\u0301") == [5, tokenizer.unk_id]
    with pytest.raises(ValueError, match="way to find words"):
        WordTokenizer.from_bytes(json.dumps({"words": [], "pattern": "(a+)+$"}).encode())
    with pytest.raises(ValueError, match="normalization"):
        CharTokenizer.from_bytes(json.dumps({"characters": "a", "normalization": "nfx"}).encode())


def test_spaces_come_back_and_none_is_added():
    text = "Today &quot;now&quot;  it  rains .\n trailing \nnext\n"
    tokenizer = WordTokenizer.train([text], min_frequency=1)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    single = "Today &quot; it rains . \nnext ,\n"  # a space at a line's end is not a token of its own
    assert " " not in WordTokenizer.train([single], min_frequency=1).tokens()


@quick
@given(TEXTS, st.integers(2, 9))
def test_pieces_are_the_text(text, length):
    pieces = pieces_of(text, length)
    assert "".join(pieces) == text
    assert all(len(piece) <= length for piece in pieces)


def test_subwords_learn_from_lines_without_end():
    """SentencePiece drops lines over its limit, and ends the process at words of 65,536 characters."""
    tokenizer = SubwordTokenizer.train(["zyxw vuts " * 120_000], at_most=True)
    assert len(tokenizer.encode("zyxw vuts zyxw")) <= 4
    assert len(SubwordTokenizer.train(["ab" * 70_000], at_most=True)) > 259


def test_scripts_of_thousands_of_characters_have_a_vocabulary():
    characters = [chr(0x4E00 + i) for i in range(1200)]
    text = "\n".join("".join(characters[i : i + 40]) for i in range(0, 1200, 20))
    grown = SubwordTokenizer.train([text], vocab_size=600, at_most=True)
    assert 1200 < len(grown) <= 2400
    often = "\n".join([text[:400]] * 150 + [text])  # all but the first characters are rare
    with_bytes = SubwordTokenizer.train([often], vocab_size=400, at_most=True)
    assert len(with_bytes) < 1460  # what all characters need
    for tokenizer in (grown, with_bytes):
        assert tokenizer.decode(tokenizer.encode(text[:200])) == text[:200]
    with pytest.raises(UserError, match="vocab_size 300 does not suit this text: at least 14"):
        SubwordTokenizer.train([text], vocab_size=300)


def test_references_are_compared_as_the_model_writes():
    tokenizer = CharTokenizer.train(["café"])
    model = SimpleNamespace(
        tokenizer=tokenizer,
        processors={"sentence": SentenceProcessor(tokenizer)},
        info=SimpleNamespace(options=lambda: {"verbatim": True}),
    )
    for task in (Text(), Translate(), Caption()):
        assert task.normalise(model, "cafe\u0301") == "café"
    references = [[Translate().normalise(model, "cafe\u0301")]]
    assert Translate().score(["café"], references)["exact"] == 1
