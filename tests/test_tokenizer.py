from __future__ import annotations

import pytest

from gen.base.errors import UserError
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer

PROSE = "Where is the cat?  It's on the mother-in-law's mat,\nsaid   the dog.\tNow!\n\n The end… où? 漢字 🙂\n" * 3


def make(kind):
    if kind == "char":
        return CharTokenizer.train([PROSE])
    if kind == "word":
        return WordTokenizer.train([PROSE], min_frequency=1)
    return SubwordTokenizer.train([PROSE], vocab_size=297, model_type=kind)


@pytest.mark.parametrize("kind", ["char", "word", "bpe", "unigram"])
def test_round_trip_is_exact_and_survives_saving(kind):
    tokenizer = make(kind)
    assert tokenizer.decode(tokenizer.encode(PROSE)) == PROSE
    again = type(tokenizer).from_bytes(tokenizer.to_bytes())
    assert again.encode(PROSE) == tokenizer.encode(PROSE)
    assert len(again) == len(tokenizer)
    assert tokenizer.encode("") == []
    assert tokenizer.encode_array(PROSE).tolist() == tokenizer.encode(PROSE)
    assert [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id] == [0, 1, 2, 3]
    assert tokenizer.decode([1, *tokenizer.encode("Where is the"), 2, 0]) == "Where is the"


def test_pieces_between_line_ends_encode_as_the_whole():
    """What lets a corpus be tokenized a megabyte at a time."""
    for kind in ("char", "word", "bpe", "unigram"):
        tokenizer = make(kind)
        pieces = PROSE.splitlines(keepends=True)
        assert [i for piece in pieces for i in tokenizer.encode(piece)] == tokenizer.encode(PROSE)


def test_an_unknown_character_is_named_never_guessed():
    tokenizer = CharTokenizer.train(["abc"])
    with pytest.raises(UserError, match=r"'é' \(U\+00E9, at position 3"):
        tokenizer.encode("abé", strict=True)
    assert tokenizer.encode("aé🙂") == [4, tokenizer.unk_id, tokenizer.unk_id]


def test_subwords_spell_what_they_never_saw():
    tokenizer = make("bpe")
    assert tokenizer.decode(tokenizer.encode("Zürich Ω\n\n ok")) == "Zürich Ω\n\n ok"


def test_rare_words_are_unknown():
    tokenizer = WordTokenizer.train(["a a a b b c"], min_frequency=2)
    assert tokenizer.decode(tokenizer.encode(" a c b")) == " a<unk> b"
    assert len(WordTokenizer.train([PROSE], min_frequency=1, max_size=10)) == 10


def test_a_vocabulary_too_large_says_how_large_it_may_be():
    with pytest.raises(UserError, match=r"vocab_size 99999 is too large for this text: at most \d+"):
        SubwordTokenizer.train([PROSE], vocab_size=99999)
    with pytest.raises(UserError, match=r"vocab_size 7 does not suit this text: at least \d+"):
        SubwordTokenizer.train([PROSE], vocab_size=7)
    assert len(SubwordTokenizer.train([PROSE], at_most=True)) > 256  # by default, as many as there are


@pytest.mark.parametrize("error", [UserError("book.txt: line 3"), KeyboardInterrupt()])
def test_what_ends_the_text_is_not_about_the_vocabulary(error):
    def texts():
        yield PROSE
        raise error

    with pytest.raises(type(error)) as found:
        SubwordTokenizer.train(texts())
    assert found.value is error


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer, SubwordTokenizer])
@pytest.mark.parametrize("data", [b"", b"\x80\x04K\x01.", b"[]", b'{"characters": 3, "words": 3}'])
def test_other_bytes_are_refused(kind, data):
    with pytest.raises(ValueError, match="not a"):
        kind.from_bytes(data)
