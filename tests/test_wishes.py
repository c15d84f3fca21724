"""What people ask of a search: bans of several tokens, texts without doubles, unknown characters."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gen as toolkit
from gen.base.errors import ConfigError, UserError
from gen.inputs.processors import SentenceProcessor
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.metrics.markov import MarkovChain
from gen.search import SearchOptions
from gen.search.phrases import whole_words
from gen.search.suggest import suggest
from tests.conftest import TEXT, make_model

quick = settings(derandomize=True, max_examples=25, deadline=None, database=None)
TOKENIZERS = {
    "char": CharTokenizer.train([TEXT]),
    "word": WordTokenizer.train([TEXT], min_frequency=1),
    "subword": SubwordTokenizer.train([TEXT], at_most=True, dummy_prefix=True),
}


def chain_of(kind, text=TEXT * 3, order=4):
    tokenizer = TOKENIZERS[kind] if text.startswith(TEXT) else CharTokenizer.train([text])
    return MarkovChain.fit(tokenizer.encode_array(text), tokenizer, order if kind == "char" else 2)


CHAINS = {kind: chain_of(kind) for kind in TOKENIZERS}


@pytest.mark.parametrize("kind", TOKENIZERS)
@quick
@given(
    ban=st.lists(st.sampled_from(["the", "the cat", "mat. the", "cat", "ran off", "t"]), min_size=1, max_size=2),
    seed=st.integers(0, 9),
    length=st.integers(1, 40),
    beam=st.booleans(),
)
def test_banned_texts_never_come(kind, ban, seed, length, beam):
    way = {"beam": 3, "n_best": 3} if beam else {"num_samples": 3, "seed": seed, "temperature": 1.5}
    for prompt in ("", "the "):
        known = [b for b in ban if kind != "word" or b != "t"]  # a word that the vocabulary lacks is an error
        for hypothesis in CHAINS[kind].generate(prompt, ban=known, max_new_tokens=length, **way):
            text = prompt + hypothesis.text
            assert not [b for b in known if whole_words(b).search(text, len(prompt))], text


def test_a_ban_leaves_pieces_and_longer_words():
    text = "new york and new yorkers and a new day in york and the old yard. " * 20
    for tokenizer in (
        CharTokenizer.train([text]),
        WordTokenizer.train([text]),
        SubwordTokenizer.train([text], vocab_size=300),
    ):
        chain = MarkovChain.fit(tokenizer.encode_array(text), tokenizer, 6 if tokenizer.kind == "char" else 2)
        how = {"max_new_tokens": 400, "num_samples": 3, "seed": 0}
        plain = " ".join(h.text for h in chain.generate("in ", **how))
        banned = " ".join(h.text for h in chain.generate("in ", ban="new york", **how))
        assert whole_words("new york").search(plain)
        assert not whole_words("new york").search(banned)
        assert "new yorkers" in banned
        assert "in york" in banned
        assert "new day" in banned


def test_a_ban_where_words_have_no_spaces():
    text = "猫在跑，狗在跑。猫吃鱼，狗吃肉。" * 20
    chain = chain_of("char", text)
    assert "猫吃" in chain.generate("", max_new_tokens=300, seed=1).text
    assert "猫吃" not in chain.generate("", max_new_tokens=300, seed=1, ban="猫吃").text


def test_a_ban_of_what_bytes_spell_or_a_space_before_the_text():
    text = "un café noir et un thé. " * 20
    bytes_only = SubwordTokenizer.train(["un caf noir et un th. " * 20], at_most=True)
    for tokenizer in (bytes_only, WordTokenizer.train([text], dummy_prefix=True)):
        chain = MarkovChain.fit(tokenizer.encode_array(text), tokenizer, 4)
        plain, banned = (chain.generate("", ban=ban, max_new_tokens=90, seed=1).text for ban in ((), "café noir"))
        assert whole_words("café noir").search(plain)
        assert not whole_words("café noir").search(banned)


def test_a_prefix_that_is_banned_is_an_error(model):
    with pytest.raises(UserError, match=r"prefix='a cat ': no output can begin so: ban='cat'"):
        model.generate("", prefix="a cat ", ban="cat")


@quick
@given(length=st.integers(0, 30), seed=st.integers(0, 5))
def test_at_least_so_many_tokens(length, seed):
    model = make_model(TOKENIZERS["char"])
    found = model.generate("", min_new_tokens=length, max_new_tokens=40, num_samples=2, seed=seed, temperature=3.0)
    assert all(len(h.token_ids) >= length for h in found)


@pytest.mark.parametrize("kind", TOKENIZERS)
@quick
@given(n=st.integers(1, 4), seed=st.integers(0, 5))
def test_no_ngram_comes_twice(kind, n, seed):
    prompt = TOKENIZERS[kind].encode("the cat")
    found = CHAINS[kind].generate("the cat", no_repeat_ngram=n, max_new_tokens=12, seed=seed)
    ids = [*prompt, *found.token_ids]
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    assert len(set(grams[len(prompt) :])) == len(grams[len(prompt) :])
    assert not set(grams[len(prompt) :]) & set(grams[: len(prompt)])


def test_a_repetition_penalty_below_one_encourages(model):
    how = {"max_new_tokens": 60, "min_new_tokens": 60, "num_samples": 8, "seed": 3, "temperature": 2.0}
    kinds = [
        np.mean([len(set(h.token_ids)) for h in model.generate("the", repetition_penalty=p, **how)])
        for p in (0.5, 1.0)
    ]
    assert kinds[0] < kinds[1]
    for wrong in (0, 1e-320, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"repetition_penalty must be between 0\.01 and 100"):
            model.generate("the", repetition_penalty=wrong)


def test_samples_at_temperature_0_are_one(model, gen, tmp_path):
    assert len(model.generate("the", temperature=0, num_samples=3, max_new_tokens=5)) == 1
    model.save(tmp_path / "m")
    how = ["generate", tmp_path / "m", "--prompt", "the", "--temperature", 0, "--num-samples", 3]
    status, out, err = gen(*how, "--max-new-tokens", 5)
    assert status == 0
    assert "---" not in out
    assert "all samples are the same text" in err
    assert not SearchOptions(temperature=0.5, num_samples=3).remarks()


def test_n_best_texts_differ():
    """Subwords have several spellings of one text."""
    tokenizer = SubwordTokenizer.train(["ab ba abab aab"], at_most=True, dummy_prefix=True)
    model = make_model(tokenizer, seed=1)
    found = model.generate("", beam=40, n_best=12, max_new_tokens=3)
    texts = [h.text for h in found]
    assert len(set(texts)) == len(texts) == 12
    everything = model.generate("", beam=40, max_new_tokens=3)
    assert found[0].token_ids == everything[0].token_ids


def test_unknown_characters_of_prompts(model):
    how = {"max_new_tokens": 5, "temperature": 0}
    with pytest.raises(UserError, match=r"no character 'é' \(U\+00E9, at position 3 of the text\)"):
        model.generate("thé", **how, unknown="error")
    assert model.generate("théxe", **how, unknown="skip").text == model.generate("the", **how).text
    assert model.generate("thé", **how, unknown="replace").text
    words = make_model(TOKENIZERS["word"])
    assert words.generate("the zebra", **how).text is not None  # a word is <unk>, as ever
    with pytest.raises(UserError, match="lacks 'zebra'"):
        words.generate("the zebra", **how, unknown="error")
    with pytest.raises(ConfigError, match="unknown must be one of error, skip, replace"):
        model.generate("the", unknown="drop")


def test_unknown_characters_of_sources():
    processor = SentenceProcessor(CharTokenizer.train(["abc"]), lowercase=True)
    assert processor.known("A-B", "skip") == "ab"
    assert processor.known("A-B", "replace") == "A-B"
    with pytest.raises(UserError, match="no character '-'"):
        processor.known("A-B", "error")


def test_an_unknown_character_in_a_file_is_named_by_its_line(model, gen, tmp_path):
    model.save(tmp_path / "m")
    (tmp_path / "prompts.txt").write_text("the\nthe cat\nthé\n")
    how = ["generate", tmp_path / "m", "--input", tmp_path / "prompts.txt", "--max-new-tokens", 3]
    status, _, err = gen(*how)
    assert status == 2
    assert "prompts.txt: line 3: the vocabulary has no character 'é'" in err
    status, out, _ = gen(*how, "--unknown", "skip", "--json")
    assert status == 0
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["the", "the cat", "thé"]


def test_prompts_are_normalized():
    text = "le café était près du café.\n" * 20
    chain = MarkovChain.fit((t := CharTokenizer.train([text])).encode_array(text), t, 4)
    assert chain.generate("le cafe\u0301", temperature=0).text == chain.generate("le café", temperature=0).text
    assert suggest(chain, "le cafe\u0301", 1)[0][0] == "café"


def test_a_space_at_the_end_of_a_prompt_is_not_doubled():
    words = CHAINS["word"]
    for seed in range(8):
        how = {"seed": seed, "max_new_tokens": 8}
        text = words.generate("the ", **how).text
        assert "  " not in "the " + text
        assert "".join(words.stream("the ", **how)) == text


def test_no_word_is_glued_to_a_number():
    text = ("United #39;s plan. United States #39;s United. " * 20).replace(". ", ".\n")
    tokenizer = WordTokenizer.train([text])
    chain = MarkovChain.fit(tokenizer.encode_array(text), tokenizer, 1)
    assert [word for word, _ in suggest(chain, "the Uni", 5)] == ["United"]
    assert {word for word, _ in suggest(chain, "United ", 9)} <= {"States", "United", "plan"}
    assert suggest(chain, "plan.\n", 3)


def test_suggestions_are_whole_words_of_any_script():
    text = "किताब पढ़ रही है। किताबें पढ़ी हैं। ถ้ำ นี้ cafe\u0301s\n" * 20
    for kind in ("char", "word"):
        make = {"char": CharTokenizer.train, "word": WordTokenizer.train}[kind]
        tokenizer = make([text], normalization="none")
        chain = MarkovChain.fit(tokenizer.encode_array(text), tokenizer, 5 if kind == "char" else 1)
        known = {word.strip("।") for word in text.split()}
        for begun in ("। कि", "है। प", "หญ้า ", "นี้ ca"):
            if kind == "word" or "หญ้า" not in begun:
                assert {word for word, p in suggest(chain, begun, 4) if p > 0.01} <= known, begun


def test_a_stream_cuts_no_character():
    text = "कि की कु 👨‍👩‍👧 e\u0301 " * 30
    tokenizer = CharTokenizer.train([text], normalization="none")
    chain = MarkovChain.fit(tokenizer.encode_array(text), tokenizer, 5)
    pieces = list(chain.stream("कि ", seed=0, max_new_tokens=60))
    assert "".join(pieces) == chain.generate("कि ", seed=0, max_new_tokens=60).text
    assert len(pieces) > 10
    assert set(pieces) <= {"कि", "की", "कु", "👨‍👩‍👧", "e\u0301", " "}


def test_stop_strings_and_doubles_in_any_normal_form():
    tokenizer = CharTokenizer.train(["un café noir. " * 30], normalization="nfc")
    chain = MarkovChain.fit(tokenizer.encode_array("un café noir. " * 30), tokenizer, 4)
    for stop in ("café", "cafe\u0301"):
        how = {"stop": stop, "temperature": 0, "max_new_tokens": 20}
        assert chain.generate("un ", **how).text == "".join(chain.stream("un ", **how)) == ""
    tokenizer = CharTokenizer.train(["é q\u0301e"], normalization="nfc")  # an accent that has no letter of its own
    found = make_model(tokenizer, seed=2).generate("", beam=60, n_best=40, max_new_tokens=3)
    texts = [unicodedata.normalize("NFC", h.text).strip() for h in found]
    assert len(set(texts)) == len(texts) > 10


def test_iterators_are_options_as_lists_are(trained):
    model = toolkit.load(trained)
    how = {"temperature": 0, "max_new_tokens": 30}
    stops = ["x", " "]
    wanted = model.generate("the ", stop=stops, **how).text
    assert wanted != model.generate("the ", **how).text
    assert "".join(model.stream("the ", stop=iter(stops), **how)) == wanted
    assert [o.text for o in model.generate_many(["the "] * 3, batch_size=1, stop=iter(stops), **how)] == [
        wanted
    ] * 3
