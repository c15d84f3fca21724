"""An encoder and a strategy of a user's own, from this file alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gen as toolkit
from gen.models.decoder import DecoderConfig
from gen.models.encoders import ENCODERS, Encoder, Prepared, register
from gen.models.memory import Memory
from gen.models.model import Model
from gen.search import STRATEGIES, Strategy
from gen.search import register as register_strategy
from gen.training.task import Task


@pytest.fixture
def bag_of_letters():
    """Turns a word into one vector a letter; no recurrent encoder needed."""

    @register("bag-of-letters")
    class BagOfLetters(Encoder):
        def __init__(self, memory_size=6):
            super().__init__()
            self.memory_size = memory_size
            self.embedding = nn.Embedding(128, memory_size)

        def prepare(self, items):
            width = max(len(i) for i in items)
            ids = torch.zeros(len(items), width, dtype=torch.int64)
            for row, item in zip(ids, items, strict=True):
                row[: len(item)] = torch.tensor([ord(c) for c in item])
            return Prepared({"letters": ids}, [""] * len(items))

        def forward(self, source):
            letters = source["letters"]
            mask = letters > 0
            values = self.embedding(letters) * mask[..., None]
            return Memory(values, mask, values.sum(1) / mask.sum(1, keepdim=True))

    yield BagOfLetters
    del ENCODERS["bag-of-letters"]


@pytest.mark.parametrize("attention", ["none", "dot", "additive", "multihead"])
def test_an_encoder_of_ones_own(bag_of_letters, tokenizer, tmp_path, attention):
    config = DecoderConfig(len(tokenizer), 8, 8, attention=attention)
    model = Model({"name": "bag-of-letters", "memory_size": 8}, config, tokenizer).eval()
    items = ["dog", "elephants", "a"]
    together = model.generate(items, beam=3, max_new_tokens=8)
    for item, found in zip(items, together, strict=True):
        alone = model.generate(item, beam=3, max_new_tokens=8)[0]
        assert alone.token_ids == found[0].token_ids
        assert alone.score == pytest.approx(found[0].score, abs=1e-4)
    model.save(tmp_path / "m")
    again = toolkit.load(tmp_path / "m")
    assert again.generate("dog", seed=1)[0].text == model.generate("dog", seed=1)[0].text
    seen = model.generate("dog", temperature=0, max_new_tokens=4, attention=True)[0].attention
    if attention == "none":
        assert seen is None
    else:
        assert seen.shape[1] == 3
        assert seen.sum(1) == pytest.approx(1.0, abs=1e-5)
        Task().plot(model, "dog", model.generate("dog", max_new_tokens=4)[0], tmp_path / "looks.svg")
        assert (tmp_path / "looks.svg").exists()


def test_a_strategy_of_ones_own(model):
    @register_strategy("second-best")
    class SecondBest(Strategy):
        def pick(self, log_probs, scores, finished, lengths):
            best = self.ops.topk(log_probs, 2)[1]
            return None, self.ops.where(finished, best[:, 0], best[:, 1]), scores

    try:
        found = model.generate("the ", strategy="second-best", max_new_tokens=6)[0]
        assert found.token_ids == model.generate("the ", strategy=SecondBest(), max_new_tokens=6)[0].token_ids
        assert found.token_ids != model.generate("the ", temperature=0, max_new_tokens=6)[0].token_ids
    finally:
        del STRATEGIES["second-best"]
