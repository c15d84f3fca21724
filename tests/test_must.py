"""What an output has to say: against naive oracles that look at whole texts, or enumerate them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.base.errors import ConfigError, UserError
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer
from gen.search import BannedTokens, Sample, drain, search
from gen.search.constrained import ConstrainedBeam
from gen.search.must import Goal, Must
from gen.search.ops import NumpyOps, TorchOps
from gen.search.phrases import Phrases, whole_words
from tasks.commands.must import with_must
from tasks.translate.terms import Terms, read_lexicon
from tests.conftest import TEXT
from tests.serving import topics
from tests.test_search import BOS, EOS, PAD, State, make_table, score_of, table_step
from tests.test_wishes import CHAINS, TOKENIZERS, quick

WANTED = ["the cat|a dog", "mat", "dog", "ran off", "cat, and", "sat|ran", "the"]
BYTES = SubwordTokenizer.train([TEXT], at_most=True)


@quick
@given(
    ids=st.lists(st.integers(4, len(BYTES) - 1), max_size=12),
    texts=st.lists(st.sampled_from(["cat", "ca", "t", "é", "é cat", "cat, and", "猫", " t", "."]), min_size=1),
)
def test_phrases_come_where_whole_words_are(ids, texts):
    ids = [*ids, *BYTES.encode("é cat ta 猫"), *ids]
    phrases = Phrases([[text] for text in texts], BYTES)
    place, written = phrases.begin([]), b""
    for token_id in ids:
        place, written = place.after(token_id), written + phrases.tokens[token_id]
        text = written.decode(errors="replace")
        if "\N{REPLACEMENT CHARACTER}" not in text:
            said = [bool((place.met | place.open) >> group & 1) for group in range(len(texts))]
            assert said == [bool(whole_words(each).search(text)) for each in texts], text


@pytest.mark.parametrize("kind", TOKENIZERS)
@quick
@given(
    wanted=st.lists(st.sampled_from(WANTED), min_size=1, max_size=3, unique=True),
    beam=st.integers(1, 5),
    length=st.integers(1, 40),
    prompt=st.sampled_from(["", "the ", "the c"]),
)
def test_all_is_said_where_it_fits(kind, wanted, beam, length, prompt):
    chain = CHAINS[kind]
    if kind == "subword":
        prompt = ""  # decoding what comes after one loses the space between them
    fits = Goal(wanted, chain.tokenizer).within(length, chain.tokenizer.encode(prompt))
    found = chain.generate(prompt, must=wanted, beam=beam, n_best=beam, max_new_tokens=length)
    for hypothesis in found:
        assert len(hypothesis.token_ids) <= length
    text = prompt + found.text
    unsaid = [w for w in wanted if not any(whole_words(f).search(text, len(prompt)) for f in w.split("|"))]
    assert found.missing == unsaid
    assert set(wanted) - set(unsaid) >= set(fits.wanted if fits else ())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ops", [NumpyOps(), TorchOps()], ids=["numpy", "torch"])
def test_a_wide_beam_finds_the_best_that_says_all(ops, seed):
    tokenizer, longest = CharTokenizer.train(["ab "]), 5
    table, goal = make_table(len(tokenizer), seed, sharp=1.0), Goal(["a b|bb", "a"], tokenizer)
    free = [tokenizer.encode(c)[0] for c in "ab "]
    every = [[*y, EOS] for n in range(longest) for y in itertools.product(free, repeat=n)]
    every += [list(y) for y in itertools.product(free, repeat=longest)]
    said = [y for y in every if not goal.missing(tokenizer.decode(y))]
    best = max(said, key=lambda y: score_of(table, [BOS], y))
    must = Must([goal], [longest], EOS)
    running = search(
        table_step(table, ops),
        State([[]]),
        [[BOS]],
        ConstrainedBeam(must, 256, length_penalty=0.0),
        ops=ops,
        eos_id=EOS,
        pad_id=PAD,
        max_new_tokens=longest,
        never=[BOS, tokenizer.unk_id],
        processors=[must],
    )
    found = drain(running)[0][0]
    assert found.token_ids + [EOS] * found.finished == best
    assert found.score == pytest.approx(score_of(table, [BOS], best), abs=1e-4)


def test_alone_or_among_others_that_must_say_something_else():
    chain = CHAINS["char"]
    items = [{"prompt": p, "must": m} for p, m in (("", "dog"), ("the ", ["mat", "ran|sat", "cat"]), ("a", ()))]
    for name in ("prompt",):
        together = chain.generate(
            [item if item["must"] else item[name] for item in items], beam=4, max_new_tokens=30
        )
    alone = [chain.generate(item, beam=4, max_new_tokens=30) for item in items]
    assert [h.token_ids for h in together] == [h.token_ids for h in alone]
    assert together[2].token_ids == chain.generate("a", beam=4, max_new_tokens=30).token_ids


def test_neighbours_that_need_a_wider_beam_change_nothing():
    """Nor do they where stop strings end all rows before everything is said."""
    chain = CHAINS["char"]
    other = {"prompt": "", "must": ["mat", "ran", "cat sat", "dog"]}
    for number, must in enumerate(WANTED):
        item = {"prompt": ("", "the ", "a")[number % 3], "must": must}
        for how in ({"beam": 3}, {"beam": 2, "n_best": 2, "stop": [" t", "o"]}):
            alone = chain.generate(item, max_new_tokens=20, **how)
            beside = chain.generate([other, item], max_new_tokens=20, **how)[1]
            assert [(h.token_ids, h.finished) for h in beside] == [(h.token_ids, h.finished) for h in alone]
    with pytest.raises(UserError, match="leave out beam_groups"):
        chain.generate(["a", {"prompt": "a", "must": "dog"}], beam=6, beam_groups=3)


def test_what_is_said_is_not_said_again_for_the_bank(model):
    """The untrained model would hardly say it at all."""
    found = model.generate("the ", must=("mat", "mat", "dog"), max_new_tokens=60)
    assert [len(whole_words(word).findall(found.text)) for word in ("mat", "dog")] == [1, 1]


def test_what_cannot_be_is_said(model):
    with pytest.raises(UserError, match="'Zürich' must come, and cannot be written"):
        model.generate("the ", must="Zürich")
    for wrong in ("", "a||b", "a|"):
        with pytest.raises(ConfigError, match="is empty, or has an empty alternative"):
            model.generate("the ", must=wrong)
    with pytest.raises(ConfigError, match=r"must is searched by beam: leave out temperature"):
        model.generate("the ", must="cat", temperature=0.5)
    with pytest.raises(ConfigError, match=r"must is searched by beam: leave out beam_groups"):
        model.generate("the ", must="cat", beam=4, beam_groups=2)
    with pytest.raises(UserError, match=r"must='a cat' and ban='cat' exclude each other"):
        model.generate("the ", must="a cat", ban="cat")
    with pytest.raises(UserError, match="add beam=5"):
        model.generate({"prompt": "the ", "must": "cat"}, temperature=0.5)
    found = model.generate("the ", must=("cat", "the dog"), max_new_tokens=8)
    assert found.missing == ["the dog"]
    assert not model.generate("the ", must="Cat", max_new_tokens=8).missing  # there are small letters only


def test_any_strategy_says_what_it_must():
    goal = Goal(["a b"], tokenizer := CharTokenizer.train(["ab "]))
    table = make_table(len(tokenizer), 1)
    for seed in range(5):
        must = Must([goal], [6], EOS)
        running = search(
            table_step(table, NumpyOps()),
            State([[]]),
            [[BOS]],
            Sample(seed=seed),
            ops=NumpyOps(),
            eos_id=EOS,
            pad_id=PAD,
            max_new_tokens=6,
            processors=[must, BannedTokens([BOS, 3])],
        )
        assert not goal.missing(tokenizer.decode(drain(running)[0][0].token_ids))


def test_a_label_beside_what_must_come_is_a_label():
    model, options = topics(), {"beam": 5, "max_new_tokens": 30}
    found = {topic: model.generate({"topic": topic}, must="cat", **options).text for topic in ("news", "sports")}
    for topic, text in found.items():
        assert model.generate({"topic": topic, "must": ["cat"]}, **options).text == text
        assert "cat" in text
    assert len({*found.values()}) == 2


def test_terms_are_found_as_whole_words_longest_first(tmp_path):
    path = tmp_path / "terms.tsv"
    path.write_text("town\tcat\ntown hall\tmat| dog\nMay\tthe\nc++\tran\ntown\tsat\n")
    terms = Terms(str(path), TOKENIZERS["char"])
    assert terms.constraints("The Town Hall, a townhouse and a town: it may") == ["mat|dog", "cat|sat"]
    assert terms.constraints("In May, C++ in May") == ["the", "ran"]
    assert "cat|sat" in terms
    path.write_text("caf\u00e9\tcat\n")
    assert Terms(str(path), TOKENIZERS["char"]).constraints("a cafe\u0301") == ["cat"]
    (comma := tmp_path / "terms.csv").write_text("dog,cat\nmen,mat\n")
    assert Terms(str(comma), TOKENIZERS["char"]).constraints("a dog and men") == ["cat", "mat"]
    comma.write_text("dog,cat|mat\nbig dog,mat|cat\n")  # | is no delimiter, however regular
    assert Terms(str(comma), TOKENIZERS["char"]).constraints("a dog, a big dog") == ["cat|mat", "mat|cat"]
    (tmp_path / "words.tsv").write_text("cafe\u0301\tcat\n")
    assert read_lexicon(str(tmp_path / "words.tsv")) == {"café": "cat"}
    wrong = {"a\tcat\tb\nx\ty\n": "line 1 has 3 columns", "a\tcat\n\tcat\n": "line 2: a source or"}
    for text, message in {**wrong, "a\tcat\nb\tZ\u00e9bu\n": "line 2: 'Z\u00e9bu' must come"}.items():
        path.write_text(text)
        with pytest.raises(UserError, match=rf"terms.tsv: {message}"):
            Terms(str(path), TOKENIZERS["char"])


def test_constraints_in_step_with_the_inputs(tmp_path):
    path, tokenizer = tmp_path / "must.tsv", TOKENIZERS["char"]
    path.write_text("cat|dog\tmat\n\nsat\n")
    items = list(with_must(["a", "b", {"prompt": "c"}], str(path), "prompt", tokenizer))
    assert items == [{"prompt": "a", "must": ["cat|dog", "mat"]}, "b", {"prompt": "c", "must": ["sat"]}]
    cases = {
        "cat\n": "has 1 lines",
        "cat\n\n\ndog\n": "has more lines than the 2",
        "a||b\n\n": "line 1: a text, or",
    }
    for text, message in {**cases, "\nZ\n": "line 2: 'Z' must come"}.items():
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            list(with_must(["a", "b"], str(path), "prompt", tokenizer))
