"""What `gen train text` chooses by itself, and how it judges."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gen.base.files import TextFiles
from gen.datasets.corpus import TokenizerOptions, build_corpus
from gen.training.config import config_class
from gen.training.options import TrainOptions
from gen.training.resolve import resolve
from tasks.text.evaluation import evaluate_part
from tasks.text.markov import fit_markov, markov_metrics
from tasks.text.options import TextData, TextSizes
from tasks.text.task import Text
from tests.conftest import make_model

SHAKESPEARE = Path(__file__).parents[2] / "shared" / "data" / "shakespeare" / "input.txt"


def chosen(budget, tokens=1_000_000, model=None, **data):
    """The options with everything chosen, for a text of some tokens on a machine that does 15,000 a second."""
    asked = config_class(Text)(
        data=TextData(data=("x",), **data),
        model=model or TextSizes(),
        train=TrainOptions(budget=budget),
        out="out",
    )
    return resolve(Text(asked), asked, SimpleNamespace(num_tokens=tokens), lambda config, seconds: 15_000).config


def test_longer_training_gets_a_larger_model_and_more_dropout():
    short, long = chosen("2m"), chosen("20m")
    assert short.model.hidden_size < long.model.hidden_size
    assert short.model.dropout < long.model.dropout
    assert short.model.weight_dropout == 0 < long.model.weight_dropout
    assert short.train.learning_rate > long.train.learning_rate
    assert chosen("18 epochs").model == chosen("20m").model
    assert chosen("2m", tokens=100_000).model.dropout == pytest.approx(long.model.dropout, abs=0.02)


def test_what_the_user_says_stands():
    sizes = {"hidden_size": 33, "embedding_size": 17, "num_layers": 3, "tie": "decoder"}
    mine = TextSizes(dropout=0.0, weight_dropout=0.2, embedding_dropout=0.0, **sizes)
    assert chosen("20m", model=mine, chunk=7).model == mine
    assert chosen("20m", model=mine, chunk=7).data.chunk == 7


def test_a_short_text_gets_short_chunks():
    assert chosen("2m", tokens=5_000).data.chunk == 5_000 // 8 // 32
    assert chosen("2m", tokens=10).data.chunk == 16
    steps, epochs = chosen("190 steps", tokens=5_000), chosen("23.1 epochs", tokens=5_000)  # of 32 · 19 tokens
    assert steps.model.dropout == epochs.model.dropout
    assert steps.train.weight_decay == pytest.approx(epochs.train.weight_decay, rel=0.05)


@pytest.mark.parametrize("unit", ["stream", "line"])
def test_network_and_chain_are_judged_on_the_same_tokens(tmp_path, unit):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {i} of the text\n" for i in range(300)))
    corpus = build_corpus(TextFiles([str(path)]), None, TokenizerOptions(), unit=unit, cache=tmp_path / "cache")
    model = make_model(corpus.tokenizer)
    network, markov = evaluate_part(model, corpus.valid).figures, markov_metrics(corpus, 3, 10**6)
    for figures in (network, markov):  # a token is a character here, a line's end is one
        assert figures["bits_per_char"] == pytest.approx(figures["loss"] / np.log(2), rel=1e-6)
    assert markov["loss"] < 1.0 < network["loss"]


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="needs ../shared/data/shakespeare")
def test_the_chain_on_shakespeare(tmp_path):
    corpus = build_corpus(TextFiles([str(SHAKESPEARE)]), None, TokenizerOptions(), cache=tmp_path)
    assert (len(corpus.train.tokens), len(corpus.valid.tokens)) == (1_003_854, 111_540)
    losses = [-fit_markov(corpus, n).log_probs(corpus.valid.tokens.read(0, 10**6)).mean() for n in (1, 4)]
    assert losses == pytest.approx([2.4858, 1.6689], abs=1e-3)
