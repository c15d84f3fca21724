"""What `generate` returns and takes: outputs, typed options, seeds, several temperatures, threads and pickles."""

from __future__ import annotations

import pickle
import threading
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

import gen as toolkit
from gen.base.errors import ConfigError, UserError, command_line_terms, python_terms
from gen.inputs.subword import SubwordTokenizer
from gen.metrics.markov import MarkovChain
from gen.models.decoder import DecoderConfig
from gen.models.encoders.rnn import RNNEncoder
from gen.models.model import Model
from gen.search import Greedy, Hypothesis, NoRepeatNgram, Output, Sample, SearchOptions
from gen.search.ensemble import Ensemble
from gen.search.info import ModelInfo
from gen.search.keywords import GenerateKeywords, SearchKeywords
from tests.conftest import TEXT, make_model


def translator(tokenizer):
    torch.manual_seed(0)
    encoder = RNNEncoder(tokenizer, embedding_size=6, hidden_size=6, num_layers=1)
    config = DecoderConfig(len(tokenizer), 6, 8, attention="dot")
    return Model(encoder, config, tokenizer, ModelInfo("translate")).eval()


def test_an_output_is_its_best_hypothesis_and_the_others(model):
    output = model.generate("the ", beam=4, n_best=3, max_new_tokens=6)
    best = output[0]
    assert isinstance(output, Output)
    assert isinstance(best, Hypothesis)
    assert len(output) == 3
    assert output.alternatives == output[1:] == list(output)[1:]
    for name in ("text", "score", "tokens", "token_ids", "log_probs", "finished", "attention", "alignment"):
        assert getattr(output, name) == getattr(best, name)
    assert (output.seed, output.temperature) == (None, None)
    assert "".join(output.tokens) == output.text
    assert output.score == pytest.approx(sum(output.log_probs))
    again = pickle.loads(pickle.dumps(output))
    assert again == output
    assert toolkit.Output is Output


def test_reprs_are_short(tokenizer):
    output = translator(tokenizer).generate("the cat", beam=2, n_best=2, max_new_tokens=300, min_new_tokens=200)
    assert output.attention.size > 1000
    assert output == pickle.loads(pickle.dumps(output))  # attention is not compared
    for shown in (repr(output), repr(output[0]), repr([output])):
        assert len(shown) < 150
        assert "array" not in shown


def test_tokens_are_texts_of_subwords():
    model = make_model(SubwordTokenizer.train([TEXT], at_most=True, byte_fallback=False))
    output = model.generate("the", seed=1, max_new_tokens=12)
    assert len(output.tokens) == len(output.token_ids) == 12
    assert "".join(output.tokens).strip() == output.text.strip()


def test_a_call_writes_text(model):
    options = {"temperature": 0, "max_new_tokens": 5}
    text = model("the ", **options)
    assert text == model.generate("the ", **options).text
    assert model(["the ", "a"], **options) == [text, model("a", **options)]
    assert model([], **options) == []
    assert Ensemble([model, model])("the ", **options) == text


@pytest.mark.parametrize("items", [("the", "a"), {"the"}, (x for x in ["the"]), [("the", "a")], [["the"]]])
def test_only_a_list_is_several_items(model, items):
    with pytest.raises(UserError, match=r"^a (tuple|set|generator|list) is no item: give one item, a list"):
        model.generate(items)


def test_a_string_is_one_item_to_generate_many(model):
    assert [o.text for o in model.generate_many("the ", temperature=0)] == [model("the ", temperature=0)]
    with pytest.raises(ConfigError, match=r"^batch_size must be at least 1"):
        next(model.generate_many(["a"], batch_size=0))


def test_keywords_are_the_options():
    options, keywords = get_type_hints(SearchOptions), get_type_hints(SearchKeywords)
    assert set(options) == set(keywords)
    for name, hint in options.items():
        allowed, wanted = set(get_args(keywords[name])), set(get_args(hint)) or {hint}
        if get_origin(hint) is tuple:
            wanted = {get_args(hint)[0]}
        assert wanted <= allowed, name
        assert type(None) in allowed, name
    assert set(get_type_hints(GenerateKeywords)) - set(keywords) == {"processors", "attention", "lexicon"}


def test_another_width_leaves_the_rest_of_a_beam_search():
    own = {"beam": 5, "length_penalty": 1.5, "max_new_tokens": 7}
    wide = SearchOptions.make(own, {"beam": 10})
    assert (wide.beam, wide.length_penalty, wide.max_new_tokens) == (10, 1.5, 7)
    assert SearchOptions.make({"temperature": (0.0,)}, {"beam": 3}).temperature == ()
    assert SearchOptions.make({"beam": 6, "beam_groups": 3, "n_best": 3}, {"beam": 2}).n_best is None
    assert SearchOptions.make(own, {"temperature": (0.5,)}).length_penalty is None
    for name in ("seed", "num_samples"):
        with pytest.raises(ConfigError, match=f"{name} goes with sampling"):
            SearchOptions.make(own, {name: 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 1}, "unknown option 'temprature'; did you mean temperature?"),
        ({"atention": False}, "unknown option 'atention'; did you mean attention?"),
        ({"zzz": 1}, "unknown option 'zzz'"),
        ({"temperature": "hot"}, "temperature must be a number, or several, not 'hot'"),
        ({"temperature": [0.5, None]}, "temperature must be a number, or several, not [0.5, None]"),
        ({"beam": 2.5}, "beam must be a whole number, not 2.5"),
        ({"beam": True}, "beam must be a whole number, not True"),
        ({"beam": "3"}, "beam must be a whole number, not '3'"),
        ({"stop": 5}, "stop must be a string, or several, not 5"),
        ({"ban": ["a", 5]}, "ban must be a string, or several, not ['a', 5]"),
        ({"prefix": 5}, "prefix must be a string, not 5"),
        ({"top_p": 2.0}, "top_p must be above 0 and at most 1, not 2.0"),
        ({"temperature": 1e-300}, "temperature must be 0, or between 1e-06 and 1,000,000, not 1e-300"),
        ({"temperature": [0.5, -1]}, "temperature must be 0, or between 1e-06 and 1,000,000, not -1.0"),
        ({"temperature": 1e308}, "temperature must be 0, or between 1e-06 and 1,000,000, not 1e+308"),
        ({"temperature": 10**400}, "temperature must be 0, or between 1e-06 and 1,000,000, not inf"),
        ({"beam": 2, "length_penalty": 1e308}, "length_penalty must be between -5 and 5, not 1e+308"),
        ({"beam": 2, "length_reward": -1e308}, "length_reward must be between -100 and 100, not -1e+308"),
        ({"beam": 2, "coverage_penalty": 1e308}, "coverage_penalty must be between 0 and 100, not 1e+308"),
        ({"beam": 2, "beam_groups": 2, "diversity": 1e308}, "diversity must be between 0 and 100, not 1e+308"),
        ({"repetition_penalty": 1e308}, "repetition_penalty must be between 0.01 and 100, not 1e+308"),
        ({"beam": 2, "n_best": 3}, "n_best must be between 1 and beam (2), not 3"),
        ({"beam": 2, "top_k": 3}, "beam and top_k exclude each other: choose one way to search"),
        ({"n_best": 3}, "n_best needs beam"),
    ],
)
def test_wrong_options_get_one_line_in_pythons_terms(model, options, message):
    for call in (model.generate, model, lambda *a, **k: list(model.stream(*a, **k))):
        with pytest.raises(ConfigError) as caught:
            call("the", **options)
        assert str(caught.value) == message
        assert str(pickle.loads(pickle.dumps(caught.value))) == message
    with command_line_terms():
        assert str(caught.value) == caught.value.errors[0]
    if "_" in message.split()[0]:
        assert caught.value.errors[0].startswith("--")


def test_all_wrong_types_at_once():
    with pytest.raises(ConfigError, match=r"^top_k must .*\nbeam must .*$"):
        SearchOptions(beam="x", top_k="y")


def test_other_peoples_text_is_not_rewritten():
    for text in ("/a/--b/c.txt: no such file", "see `gen train --help`", "'--x' is a name", "a--b", "-- and ---x"):
        assert python_terms(text) == text
    assert python_terms("a model's --top-p isn't --seed 3") == "a model's top_p isn't seed=3"


def test_one_where_several_are_allowed(model):
    how = {"max_new_tokens": 40, "seed": 3}
    assert model.generate("the", stop="at", **how) == model.generate("the", stop=("at",), **how)
    assert "at" not in model("the", stop="at", **how)
    assert not set("ae") & set(model("the", ban=["a", "e"], **how))
    assert "a" not in "".join(model.stream("the", stop="a", **how))


def test_numbers_of_numpy(model):
    plain = model.generate("the", beam=3, n_best=2, max_new_tokens=5, length_penalty=0.5)
    found = model.generate(
        "the", beam=np.int64(3), n_best=np.int32(2), max_new_tokens=np.uint8(5), length_penalty=np.float32(0.5)
    )
    assert found == plain
    drawn = model.generate("the", temperature=np.array([0.5, 1.0]), seed=np.int64(1), max_new_tokens=5)
    assert drawn == model.generate("the", temperature=[0.5, 1], seed=1, max_new_tokens=5)
    assert type(drawn.seed) is int


def test_without_a_seed_every_call_draws_anew_and_says_which(model):
    found = [model.generate("the", max_new_tokens=30) for _ in range(4)]
    assert len({output.seed for output in found}) == 4
    assert len({output.text for output in found}) == 4
    for output in found:
        assert model.generate("the", max_new_tokens=30, seed=output.seed) == output
    assert {model.generate("the", **how).seed for how in ({"temperature": 0}, {"beam": 2})} == {None}
    assert model.generate("the", strategy="greedy").seed is model.generate("the", strategy=Greedy()).seed is None
    many = list(model.generate_many(["the", "a", "cat"] * 3, batch_size=2, max_new_tokens=9))
    assert len({output.seed for output in many}) == 1
    again = model.generate(["the", "a", "cat"] * 3, max_new_tokens=9, seed=many[0].seed)
    assert [output.text for output in many] == [output.text for output in again]
    strategy = Sample(0.9)
    assert model.generate("a", strategy=strategy).seed != model.generate("a", strategy=strategy).seed


def test_several_temperatures_in_one_search(model):
    how = {"num_samples": 2, "seed": 5, "max_new_tokens": 20}
    prompts = ["the ", "a dog"]
    together = model.generate(prompts, temperature=[0.3, 0, 1.3], **how)
    for prompt, output in zip(prompts, together, strict=True):
        assert [h.temperature for h in output] == [0.3, 0.3, 0, 0, 1.3, 1.3]
        assert [h.seed for h in output] == [5, 5, None, None, 5, 5]
        alone = [model.generate(prompt, temperature=t, **how)[:] for t in (0.3, 0, 1.3)]
        assert len(alone[1]) == 1  # at 0 all samples are the same
        alone = [*alone[0], *alone[1] * 2, *alone[2]]
        assert [h.token_ids for h in output] == [h.token_ids for h in alone]
        assert [h.score for h in output] == pytest.approx([h.score for h in alone], abs=1e-4)
        assert output[2].token_ids == model.generate(prompt, strategy="greedy", max_new_tokens=20).token_ids
    for several in ({"temperature": [0.3, 0.8]}, {"num_samples": 2}):
        with pytest.raises(ConfigError, match="a stream is one text"):
            list(model.stream("the", **several))


def test_processors_and_attention_are_keywords(tokenizer):
    model = translator(tokenizer)
    assert model.generate("the cat", beam=2, max_new_tokens=4).attention is not None
    assert model.generate("the cat", beam=2, max_new_tokens=4, attention=False).attention is None
    ids = model.generate("the cat", temperature=0, max_new_tokens=9, processors=[NoRepeatNgram(1)]).token_ids
    assert len(set(ids)) == len(ids)


def test_every_model_suggests(model, tokenizer):
    chain = MarkovChain.fit(tokenizer.encode_array(TEXT * 3), tokenizer, order=3)
    for each in (model, chain, Ensemble([model, model])):
        words = each.suggest("the c", n_best=3)
        assert 0 < len(words) <= 3
        assert all(word.startswith("c") for word, _ in words)
    assert chain.suggest("the c", 1)[0][0] == "cat"
    reads = translator(tokenizer)
    for each in (reads, Ensemble([reads])):
        with pytest.raises(UserError, match="only models of text suggest words"):
            each.suggest("the c")
    for wrong in (0, 501, 2.5, "x", True):
        with pytest.raises(ConfigError, match=r"^n_best must be a whole number from 1 to 500"):
            model.suggest("the c", wrong)
    with pytest.raises(UserError, match="not a list"):
        model.suggest(["the c"])


def test_a_pickled_model_is_the_same_model(model, tokenizer):
    for each in (model, translator(tokenizer), MarkovChain.fit(tokenizer.encode_array(TEXT), tokenizer)):
        expected = each.generate("the ", temperature=0, max_new_tokens=9)
        again = pickle.loads(pickle.dumps(each))
        assert again.generate("the ", temperature=0, max_new_tokens=9) == expected


def test_a_pickled_exported_model_needs_its_folder_no_more(model, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from gen import runtime
    from gen.models.export import export

    export(model, tmp_path / "exported")
    exported = runtime.load(tmp_path / "exported")
    data = pickle.dumps(exported)
    expected = exported.generate("the ", seed=3, max_new_tokens=9)
    assert exported("the ", seed=3, max_new_tokens=9) == expected.text
    assert exported.suggest("the c", 2)
    (tmp_path / "exported").rename(tmp_path / "elsewhere")
    again = pickle.loads(pickle.dumps(pickle.loads(data)))
    assert again.generate("the ", seed=3, max_new_tokens=9) == expected


@pytest.mark.parametrize("training", [False, True])
def test_threads_do_not_disturb_each_other(tokenizer, training):
    """Not in training mode either: the first to be done does not turn dropout on for the other."""
    model = make_model(tokenizer, dropout=0.5).train(training)
    prompts = ["the ", "a dog", "cat", "mat. "]
    lengths = dict(zip(prompts, (5, 60, 20, 90), strict=True))
    expected = {p: model.generate(p, seed=1, max_new_tokens=n) for p, n in lengths.items()}
    found: dict[str, list[Output]] = {p: [] for p in prompts}

    def work(prompt):
        for _ in range(6):
            found[prompt].append(model.generate(prompt, seed=1, max_new_tokens=lengths[prompt]))

    threads = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.training is training
    for prompt in prompts:
        assert [o.token_ids for o in found[prompt]] == [expected[prompt].token_ids] * 6


def test_the_card_shows_users_words_as_text():
    info = ModelInfo(
        "text",
        data="a|b <script>.txt\n# x",
        training={"command": "gen train text --data '`rm`\nx'"},
        samples="* source: a ```` b\n\x1b[31mred",
        metrics={"bleu": 38.12345, "tokens": 1234567, "a|b": "x|y\nz", "loss": 0.00012345, "speed": 98765.4},
    )
    card = info.card("A model.", "torch")
    assert "\n`````text\n* source: a ```` b\n\\x1b[31mred\n`````\n" in card
    assert "Data: a\\|b \\<script\\>.txt \\# x\n" in card
    assert "Command: `` gen train text --data '`rm` x' ``\n" in card
    for row in (
        "| bleu | 38.12 |",
        "| tokens | 1,234,567 |",
        "| a\\|b | x\\|y z |",
        "| loss | 0.0001234 |",
        "| speed | 98,765 |",
    ):
        assert f"\n{row}\n" in card
