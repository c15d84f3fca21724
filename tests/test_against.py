"""`gen compare RUN --with MODEL`: a text model against counting and against a model of transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gen.metrics.markov import MarkovChain
from gen.models.model import Model
from tasks.text.against import compare_text, documents
from tasks.text.causal import CausalModel, spans
from tests.conftest import TEXT, TINY

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'gen-toolkit[hub]'")

CPU = torch.device("cpu")


def make(folder, kind="GPT2LMHeadModel", config="GPT2Config", **sizes):
    """A random model of 300 byte-level subwords, with a context of 32 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    end = "<|endoftext|>"
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=[end], initial_alphabet=alphabet)
    made.train_from_iterator([TEXT], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token=end, eos_token=end)
    tokenizer.save_pretrained(folder)
    sizes = sizes or {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, **sizes}
    getattr(transformers, kind)(getattr(transformers, config)(**size)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make(tmp_path_factory.mktemp("gpt"))


def test_the_command_measures_all_on_the_same_text(gen, trained, book, tiny):
    status, out, err = gen("compare", trained, "--with", tiny, "--prompt", "the cat")
    assert (status, err) == (0, "")
    found = dict(re.findall(r"^(\S+|Markov chain, order 4) +([\d.]+) +[\d,]+ +[\d,]+  ", out, re.MULTILINE))
    assert list(found) == [str(trained), "Markov chain, order 4", tiny]
    model, text = Model.load(trained), book.read_text()
    assert float(found[str(trained)]) == pytest.approx(model.info.metrics["bits_per_char"], abs=2e-3)
    seen, held_out = text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]
    encode = model.tokenizer.encode_array
    chain = MarkovChain.fit(encode(seen), model.tokenizer, 4)
    bits = -chain.log_probs(encode(held_out)).sum() / np.log(2) / len(held_out)
    assert float(found["Markov chain, order 4"]) == pytest.approx(bits, abs=2e-3)
    assert f"The same {len(held_out):,} characters" in out
    assert float(found[tiny]) == pytest.approx(CausalModel(tiny, CPU).bits([held_out]) / len(held_out), abs=2e-3)
    assert out.count("the cat →") == 3
    assert gen("compare", trained, "--with", tiny, "--prompt", "the cat")[1].split("→")[1:] == out.split("→")[1:]


def test_lines_are_each_read_from_their_beginning(gen, tmp_path, tiny):
    lines = [f"the cat sat on the mat {number} times.\n" for number in range(300)]
    (tmp_path / "lines.txt").write_text("".join(lines))
    words = ("train", "text", "--data", tmp_path / "lines.txt", "--unit", "line", "--budget", "10 steps")
    assert gen(*words, "--level", "word", "--out", tmp_path / "run", *TINY[:4], *TINY[8:])[0] == 0
    other = tmp_path / "other.txt"
    other.write_text("the dog sat.\nthe cat sat.\n")
    found = compare_text(str(tmp_path / "run"), [tiny], data=[str(other)], device="cpu")
    model = CausalModel(tiny, CPU)
    each = [model.bits([line]) for line in ("the dog sat.\n", "the cat sat.\n")]
    assert found.rows[2].bits_per_char * found.characters == pytest.approx(sum(each))
    assert any("are unknown" in note for note in found.notes)  # the dog
    assert documents(["a\n\nb", "\n"], by_line=True) == ["a\n", "b\n"]
    assert documents(["a", "b", None, "c"], by_line=False) == ["ab", "c"]


@pytest.mark.parametrize(("length", "context"), [(1, 4), (2, 4), (4, 4), (5, 4), (101, 32), (7, 1000)])
def test_windows_count_every_token_once_with_half_a_context_before_it(length, context):
    counted = []
    for begin, first, end in spans(length, context):
        assert end - begin <= context
        assert first - begin >= min(context // 2, first)
        counted += range(first, end)
    assert counted == list(range(1, length))


def test_bits_are_those_of_one_pass_where_the_context_is_long_enough(tiny):
    model = CausalModel(tiny, CPU)
    text = "the cat sat"
    ids = torch.tensor([0, *model.encode(text)])
    assert len(ids) < model.context
    with torch.no_grad():
        log_probs = model.model(ids[None]).logits[0].log_softmax(-1)
    expected = -sum(float(log_probs[i, token]) for i, token in enumerate(ids[1:])) / np.log(2)
    assert model.bits([text]) == pytest.approx(expected, rel=1e-5)
    assert model.bits([text, "the dog"]) == pytest.approx(expected + model.bits(["the dog"]), rel=1e-5)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.zero_()
    long = TEXT * 5  # a model that knows nothing pays the same for every token, whatever the windows
    assert model.bits([long]) == pytest.approx(len(model.encode(long)) * np.log2(model.model.config.vocab_size))


def test_text_is_text_to_the_tokenizer(tiny):
    model = CausalModel(tiny, CPU)
    text = "the <|endoftext|> cat,  ünï \n"
    assert 0 not in model.encode(text)
    assert model.changed(text) is None
    model.tokenizer.backend_tokenizer.normalizer = __import__("tokenizers").normalizers.Lowercase()
    assert model.changed("the Cat") == ("Cat", "cat")


def test_what_cannot_be_measured(gen, trained, tiny, tmp_path):
    bert = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    make(tmp_path / "bert", "BertForMaskedLM", "BertConfig", **bert)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    for words, expected in {
        ("--with", tmp_path / "no"): "is no folder; a model on the hub is named hf:user/name",
        ("--with", tmp_path): "there is no config.json",
        ("--with", "hf:../x"): "a model on the hub is named hf:user/name",
        ("--with", tmp_path / "broken"): "could not be loaded",
        ("--with", tmp_path / "bert"): "is no causal language model",
        (trained, "--with", tiny): "--with: name one run",
        ("--with", tiny, "-o", "a.png"): "--output does not go with --with",
        ("--with", tiny, "--data", "no.txt"): "no.txt: no such file",
        ("--with", tiny, "--max-characters", "0"): "--max-characters must be at least 1",
        (trained, "--data", "no.txt"): "--data goes with --with",
    }.items():
        status, out, err = gen("compare", trained, *words)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert expected in err
    Path(trained.parent / "book.txt").write_text(TEXT * 50)
    assert "has changed since" in gen("compare", trained, "--with", tiny)[2]


def test_without_the_library(gen, trained, tiny, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    status, _, err = gen("compare", trained, "--with", tiny)
    assert status == 2
    assert "pip install 'gen-toolkit[hub]'" in err
