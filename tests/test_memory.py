"""A memory without training: against brute force, and the same alone and in a batch."""

from __future__ import annotations

import json
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch

from gen.base.errors import UserError
from gen.inputs.processors import PromptProcessor
from gen.inputs.protected import split_protected
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.encoders import Encoder, RNNEncoder
from gen.models.model import Model
from gen.search.datastore import Datastore
from gen.search.ensemble import Ensemble
from gen.search.info import ModelInfo
from gen.search.lookup import Lookup
from gen.search.neighbours import REACH, vote
from gen.search.ops import NumpyOps, TorchOps
from gen.search.remember import write_pairs, write_text
from gen.serve.engine import Engine
from tasks.commands.memory import MemoryOptions
from tasks.translate.lines import translate_lines
from tests.serving import calibrated, running, together
from tests.test_runtime import sharpen, writer

PAIRS = [("w3", "w7 w8"), ("w5 w9 w2 w7 w7 w1", "w1 w2 w3"), ("w40 w41", "w6"), ("w8 w9", "w10 w11 w12")]
PAIRS += [("w5 w9 w2 w7 w7", "w1 w2 w3"), ("w3", "w7 w8"), ("w3", "w9"), ("w41 w40 w1", "w6 w6")]
TEXT = "abc def. abc fed. lab kid.\n" * 4 + "a bad lad had a jam.\n"
OTHERS = ["w5 w9 w2 w7", "w41", "w8 w8 w30", "w59", "w3 w5 w9", "w40 w40", "w1 w2 w3 w4 w5 w6", "w12", "w9 w8 w3"]
WORDS = WordTokenizer([f" w{i}" for i in range(60)], dummy_prefix=True)


def translator(cell="lstm"):
    torch.manual_seed(0)
    encoder = RNNEncoder(WORDS, embedding_size=12, hidden_size=8, num_layers=1, cell=cell, max_length=9)
    config = DecoderConfig(len(WORDS), 12, 16, 2, cell=cell, attention="dot")
    return sharpen(Model(encoder, config, WORDS, ModelInfo("translate", search={"beam": 3, "max_ratio": 1.0})))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The folders of a memory of pairs and of one of text."""
    root = tmp_path_factory.mktemp("memory")
    for name in ("pairs", "text"):
        (root / name).mkdir()
    write_pairs(root / "pairs", translator(), PAIRS)
    write_text(root / "text", writer(), [TEXT[:50], TEXT[50:]])
    return root


def with_memory(model, folder, **options):
    model.datastore = Datastore(folder, model, **options)
    return model


def test_lines_are_found_by_the_rare_tokens_they_share():
    lines = [[1, 2, 3], [1, 2], [1, 9, 9], [1], [4]]
    ends = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
    lookup = Lookup(np.concatenate(lines), ends)
    assert lookup.nearest([1, 9], 2).tolist() == [2, 3]
    assert lookup.nearest([1, 2, 3], 9).tolist() == [0, 1, 3, 2]
    assert lookup.nearest([7, 100], 3).tolist() == []


def test_a_vote_is_the_sum_over_all_neighbours():
    rng = np.random.default_rng(0)
    distances, values = rng.random((3, 40)), rng.integers(6, size=(3, 40))
    distances[2] = np.inf
    found = vote(distances, values, 0.1, 0.3)
    probs = np.zeros((3, 6))
    np.add.at(probs, (found.queries, found.token_ids), found.probs)
    for q in range(2):
        counts, share = np.exp(-distances[q] / 0.1), 0.3 * np.exp(-distances[q].min() / REACH)
        said = np.bincount(values[q], counts, minlength=6) / counts.sum()
        np.testing.assert_allclose(probs[q], share * said, atol=2e-4)
        assert found.rest[q] == pytest.approx(1 - share)
    assert probs[2].sum() == 0
    assert found.rest[2] == 1


def test_scores_of_text_are_those_of_brute_force(stores):
    model = with_memory(writer(), stores / "text", neighbours=5, temperature=0.02, weight=0.4)
    text = "a bad kid.\n"
    with_it = model.score([text])[0].log_probs
    store, model.datastore = model.datastore, None
    alone = model.score([text])[0].log_probs
    encoded = model.tokenizer.encode_array(text)
    _, features = model.forced_log_probs([encoded], [""])
    keys, values = np.load(stores / "text" / "keys.npy"), np.load(stores / "text" / "values.npy")
    assert model.tokenizer.decode(values.tolist()) == TEXT
    for t, token_id in enumerate(encoded):
        distances = np.square(keys.astype(np.float64) - features[0, t]).sum(1) / store.scale
        near = np.argsort(distances)[:5]
        counts = np.exp(-distances[near] / 0.02)
        said = counts[values[near] == token_id].sum() / counts.sum()
        share = 0.4 * np.exp(-distances.min() / REACH)
        assert with_it[t] == pytest.approx(np.log(share * said + (1 - share) * np.exp(alone[t])), abs=1e-3)


def test_a_long_text_is_read_in_pieces_that_overlap(stores, tmp_path):
    """A state has what came before it: keys do not depend on where a piece begins."""
    model = writer()
    text = "".join(np.random.default_rng(0).choice(list("abcdefghij klm.\n"), 1200))
    write_text(tmp_path, model, [text])
    keys, values = np.load(tmp_path / "keys.npy"), np.load(tmp_path / "values.npy")
    assert model.tokenizer.decode(values.tolist()) == text
    _, features = model.forced_log_probs([model.tokenizer.encode_array(text)], [""])
    np.testing.assert_allclose(keys, features[0, :-1], atol=1e-2)


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_a_batch_finds_the_same_and_scores_are_the_models_own(stores, weight):
    items = OTHERS
    model = with_memory(translator(), stores / "pairs", weight=weight, temperature=0.3, neighbours=3)
    found = model.generate(items)
    for a, b in zip(found, map(model.generate, items), strict=True):
        assert a.token_ids == b.token_ids
        assert a.score == pytest.approx(b.score, abs=1e-3)
    model.datastore = None
    assert [a.text for a in model.generate(items)] != [a.text for a in found]
    for item, output in zip(items, found, strict=True):
        ended = [*output.token_ids, model.tokenizer.eos_id][: len(output.log_probs)]
        assert output.score == pytest.approx(sum(_own(model, item, ended)), abs=1e-3)


def _own(model, item, token_ids):
    start = model.start_search([item])
    state, before = start.state, model.tokenizer.bos_id
    for token_id in token_ids:
        log_probs, state, _ = start.step(np.array([[before]]), state)
        yield float(log_probs[0, token_id])
        before = token_id


def test_a_server_finds_the_same(stores):
    model = with_memory(translator(), stores / "pairs", weight=1.0, temperature=0.3)
    engine = Engine(model)
    found = together(engine, model, [(item, {}) for item in OTHERS])
    engine.close()
    assert [output[0].text for output in found] == [model.generate(item).text for item in OTHERS]


def test_the_votes_of_a_memory_are_the_last(stores):
    """The score of an output is the model's own, and does not know of them."""
    model = with_memory(translator(), stores / "pairs", weight=1.0, temperature=0.3)
    plain = [model.generate(item, n_best=3) for item in OTHERS]
    assert [model.generate(item, n_best=3, mbr=True) for item in OTHERS] == plain
    model.datastore = None
    assert model.generate(OTHERS, beam=8, mbr=True) != model.generate(OTHERS, beam=8)


def test_a_server_splits_no_line_that_the_memory_has(tmp_path):
    line = " ".join(f"w{i}" for i in range(30))  # longer than what the model reads at once
    write_pairs(tmp_path, translator(), [*PAIRS, (line, "w1 w2 w3 w4")])
    model = with_memory(translator(), tmp_path)
    (expected,) = (found.hypotheses[0].text for found in translate_lines(model, [line]))
    assert expected == "w1 w2 w3 w4"
    with running({"en-de": model}) as (url, _):
        found = httpx.post(f"{url}/translate", json={"q": [line, f"{line}\nw3"], "source": "en", "target": "de"})
        assert found.json() == {"translatedText": [expected, f"{expected}\nw7 w8"]}


def test_a_line_whose_translation_the_vocabulary_cannot_spell_is_split(tmp_path):
    line = " ".join(f"w{i}" for i in range(30))
    write_pairs(tmp_path, translator(), [*PAIRS, (line, "w1 12345 w3")])
    model = with_memory(translator(), tmp_path)
    pieces = split_protected(model.processors["sentence"], line, ()).texts
    expected = " ".join(found.text for found in model.generate(pieces))
    (found,) = (found.hypotheses[0].text for found in translate_lines(model, [line]))
    assert len(pieces) > 1
    assert found == expected
    with running({"en-de": model}) as (url, _):
        answer = httpx.post(f"{url}/translate", json={"q": line, "source": "en", "target": "de"})
        assert answer.json() == {"translatedText": expected}


def test_a_server_goes_on_with_what_was_begun(stores):
    model = with_memory(translator(), stores / "pairs")
    source, begun = PAIRS[1][0], WORDS.encode("w1")  # in the memory as "w1 w2 w3"
    expected = model.generate(source, prefix="w1", temperature=0.0).token_ids
    with running({"en-de": model}) as (url, _):
        asked = {"input": source, "from_ids": begun, "temperature": 0}
        (found,) = httpx.post(f"{url}/api/generate", json=asked).json()["outputs"]
    assert [token["id"] for token in found["tokens"]][:2] == expected[1:3]


def test_a_stream_is_what_is_generated(stores):
    model = with_memory(writer(), stores / "text")
    options = {"temperature": 0, "max_new_tokens": 20}
    assert "".join(model.stream("a b", **options)) == model.generate(["", "a b"], **options)[1].text


def test_what_the_memory_has_is_translated_as_there(stores):
    model = with_memory(translator(), stores / "pairs")
    assert [found.text for found in model.generate([PAIRS[1][0], "w3 ", "w8 w9"])] == [
        "w1 w2 w3",
        "w7 w8",  # twice there, and "w9" once
        "w10 w11 w12",
    ]
    found = model.generate(PAIRS[1][0])
    assert found.finished
    assert found.attention.shape[0] == 3
    assert model.generate(PAIRS[1][0], ban="w2").text != "w1 w2 w3"
    assert "w7" in model.generate(PAIRS[1][0], must="w7").text
    assert model.generate(PAIRS[1][0], protect=True).text == "w1 w2 w3"  # nothing is taken out of it


def test_what_the_memory_has_may_repeat_itself_or_be_unknown(tmp_path):
    """It is written as it is; what the vocabulary cannot spell of it is protected as anywhere."""
    twice = "w5 w6 w7 w8 w9 w5 w6 w7 w8 w9"
    write_pairs(tmp_path, translator(), [("w1 w2", twice), ("w1 12345 w2", "w2 12345 w1")])
    model = with_memory(translator(), tmp_path)
    for options in ({}, {"no_repeat_ngram": 5}):
        found = model.generate(["w1 w2", "w3"], **options)
        assert (found[0].text, found[0].finished) == (twice, True)
    for unknown in (None, "skip"):
        assert "12345" in model.generate("w1 12345 w2", protect=True, unknown=unknown).text


def test_what_the_memory_has_is_sure(stores):
    model = calibrated(with_memory(translator(), stores / "pairs"))
    known, other = model.generate([PAIRS[1][0], "w8 w8"])
    assert (known.confidence, known.words[0].confidence) == (1.0, 1.0)
    assert other.confidence < 1.0
    begun = model.generate(PAIRS[1][0], prefix="w1")  # not written as in the memory, whatever comes
    assert begun.confidence < 1.0 or begun.text == PAIRS[1][1]


def test_what_is_forbidden_does_not_come_back(stores):
    model = with_memory(translator(), stores / "pairs", weight=1.0)
    assert "w1" in model.generate(OTHERS[0]).text.split()
    assert "w1" not in model.generate(OTHERS[0], ban=["w1"]).text.split()


def test_on_torch_arrays(stores):
    """As on a GPU."""
    model = with_memory(translator(), stores / "pairs")
    chosen = []
    for ops in (NumpyOps(), TorchOps()):
        processor = model.datastore.processor([*OTHERS[:4], "w3"], [False] * 4 + [True])
        processor.start(ops, [[1]] * 5, len(model.tokenizer))
        features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).tanh()
        processor.observe_features(features)
        log_probs = ops.asarray(np.full((5, len(model.tokenizer)), -4.0), "float32")
        chosen.append(ops.numpy(processor(log_probs, ops.asarray([0, 0, 0, 0, 1], "int64"))))
    np.testing.assert_allclose(chosen[0], chosen[1], atol=1e-5)
    assert np.flatnonzero(np.isfinite(chosen[0][4])).tolist() == model.tokenizer.encode("w8")


def test_a_long_text_has_an_index(stores, monkeypatch, tmp_path):
    pytest.importorskip("usearch")
    monkeypatch.setattr("gen.search.remember.LARGE", 50)
    model = writer()
    write_text(tmp_path, model, [TEXT])
    queries = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)
    found, exact = (Datastore(each, model, neighbours=4).nearest(queries) for each in (tmp_path, stores / "text"))
    assert (tmp_path / "index.usearch").exists()
    np.testing.assert_allclose(np.sort(found[0]), np.sort(exact[0]), rtol=1e-2)


def test_a_memory_belongs_to_its_model(stores, tmp_path):
    other = translator(cell="gru")
    with pytest.raises(UserError, match="memory of another model"):
        Datastore(stores / "pairs", other)
    with pytest.raises(UserError, match="is no memory"):
        Datastore(tmp_path, other)
    model = translator()
    ensemble = Ensemble([model, model])
    ensemble.datastore = Datastore(stores / "pairs", model)
    with pytest.raises(UserError, match="no ensembles"):
        ensemble.generate("w3 w4")
    with pytest.raises(UserError, match="no ensembles"):
        ensemble.score(["w1 w2"], ["w3 w4"])


def test_the_command_line(stores, gen, tmp_path):
    translator().save(tmp_path / "model")
    table = tmp_path / "pairs.tsv"
    table.write_text("".join(f"{a.strip()}\t{b.strip()}\n" for a, b in PAIRS))
    status, out, err = gen("translate", tmp_path / "model", "--memory", table, "--text", "w40 w41")
    assert (status, out) == (0, "w6\n")
    assert "reading 8 pairs" in err
    pytest.importorskip("rapidfuzz")
    text = "w5 w9 w2 w7 w7 w1 w1"
    status, out, err = gen("translate", tmp_path / "model", "--memory", table, "--text", text, "--json")
    assert status == 0
    assert "reading" not in err  # it is in the cache
    assert "is it in another language?" in err  # the model knows nothing of any
    (best, *_) = json.loads(out)["memory"]
    assert best == {"source": "w5 w9 w2 w7 w7 w1", "target": "w1 w2 w3", "similarity": 0.85}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Ensemble([translator(), translator()]), "not with an ensemble"),
        (SimpleNamespace(fingerprint="", processors={}), "an older version exported this model"),
        (SimpleNamespace(fingerprint="a", processors={}, info=ModelInfo("caption")), "this is a caption model"),
    ],
)
def test_models_that_cannot_remember(model, message):
    with pytest.raises(UserError, match=message):
        MemoryOptions(("pairs.tsv",)).give(model)


BAD = [
    ("missing.tsv", None, (), "missing.tsv: no such file"),
    ("empty.tsv", "", (), "empty.tsv: is empty"),
    ("one.tsv", "w3\nw4\n", (), "one.tsv: name the columns to use in a header of source and target"),
    ("blank.tsv", "w3\t\n\tw4\n", (), "blank.tsv: holds no pairs"),
    ("a.tsv", "w3\tw4\n", ("--memory-weight", "nan"), "--memory-weight must be between 0 and 1, not nan"),
    ("a.tsv", "w3\tw4\n", ("--memory-temperature", "0"), "--memory-temperature must be above 0, not 0"),
    ("a.tsv", "w3\tw4\n", ("--neighbours", "0"), "--neighbours must be between 1 and 10,000, not 0"),
]


@pytest.mark.parametrize(("name", "content", "more", "message"), BAD)
def test_bad_input(gen, tmp_path, name, content, more, message):
    translator().save(tmp_path / "model")
    if content is not None:
        (tmp_path / name).write_text(content)
    status, out, err = gen("translate", tmp_path / "model", "--text", "w3", "--memory", tmp_path / name, *more)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_an_option_without_a_memory(gen, tmp_path):
    status, _, err = gen("generate", tmp_path, "--memory-weight", "0.5")
    assert status == 2
    assert "go with --memory" in err


class Prompted(Encoder):
    """A sentence, and the beginning of its translation."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.memory_size = inner, inner.memory_size
        self.processors = {**inner.processors, "prompt": PromptProcessor()}

    def forward(self, source):
        return self.inner({"sentence": source["sentence"]})


def test_a_begun_translation_goes_on_whatever_else_is_in_the_batch(tmp_path):
    letters = CharTokenizer.train(["abcdefghijklmnopqrstuvwxyz "])
    encoder = Prompted(RNNEncoder(letters, hidden_size=8, embedding_size=8, num_layers=1))
    model = Model(encoder, DecoderConfig(len(letters), 8, 16, 1, attention="dot"), letters).eval()
    write_pairs(tmp_path, model, [("a dog runs", "ein hund"), ("a cat", "eine katze")])
    model.datastore = Datastore(tmp_path, model)
    begun, whole = {"sentence": "a dog runs", "prompt": "ein "}, {"sentence": "a cat"}
    options = {"temperature": 0, "max_new_tokens": 12}
    both = [output.text for output in model.generate([begun, whole], **options)]
    assert both == [model.generate(begun, **options).text, "eine katze"]


def test_lines_of_a_memory_are_those_of_training(tmp_path):
    """They end at "\\n" only."""
    text = "abc\u2028def\nabc\x85def\n"
    letters = CharTokenizer.train([text.replace("\n", "")])
    model = Model({"name": "none"}, DecoderConfig(len(letters)), letters, ModelInfo(ends_with_eos=True)).eval()
    assert write_text(tmp_path, model, [text]) == len(text)
    values = np.load(tmp_path / "values.npy").tolist()
    assert "".join("$" if i == letters.eos_id else letters.decode([i]) for i in values) == text.replace("\n", "$")
