"""Dynamic evaluation: a text is scored, and then learned from."""

from __future__ import annotations

import json

import pytest
import torch

from gen.models.adapt import SEGMENT, Adapter
from gen.models.encoders import RNNEncoder
from gen.search.info import ModelInfo
from tests.conftest import TEXT, make_model


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


@pytest.fixture
def folder(model, tmp_path):
    model.save(tmp_path / "m")
    return tmp_path / "m"


def test_what_is_scored_is_learned_afterwards(model):
    model.decoder.lower.layers[0].weight_dropout = 0.5  # none of it while adapting
    before = weights(model)
    adapter = Adapter(model, rate=0.01)
    batch = model.batch([TEXT.strip()])
    losses = [adapter.evaluate(iter([batch]))[0] for _ in range(8)]
    plain = -model.score([TEXT.strip()])[0].log_prob
    assert losses[0] == pytest.approx(plain, abs=1e-3)  # before anything was learned
    assert losses[-1] < 0.9 * losses[0]
    assert torch.equal(weights(model), before)
    assert not adapter.model.training
    assert adapter.model.decoder.lower.layers[0].weight_dropout == 0.5


def test_evaluate_adapts_in_the_order_of_the_text(gen, folder, tmp_path):
    saved = {path: path.read_bytes() for path in folder.iterdir()}
    first, rest = tmp_path / "first.txt", tmp_path / "all.txt"
    first.write_text((TEXT * 9)[:SEGMENT])
    rest.write_text(TEXT * 9)

    def evaluate(*words):
        status, out, err = gen("evaluate", folder, "--json", "--device", "cpu", *words)
        assert status == 0, err
        return json.loads(out)

    one = [evaluate("--data", first, *words) for words in ((), ("--adapt",))]
    assert one[1]["loss"] == pytest.approx(one[0]["loss"], abs=1e-6)  # one segment: nothing to learn from
    every = [evaluate("--data", rest, *words) for words in ((), ("--adapt",))]
    assert every[1]["loss"] < every[0]["loss"]
    assert every[1]["adapted"] is True
    assert "adapted" not in every[0]
    assert {path: path.read_bytes() for path in folder.iterdir()} == saved
    status, out, _ = gen("evaluate", folder, "--data", rest, "--adapt")
    assert status == 0
    assert "(adapted:" in " ".join(out.split())


@pytest.mark.parametrize("reads", [False, True])
def test_score_adapts_line_by_line(gen, folder, tokenizer, tmp_path, reads):
    table = tmp_path / "lines.tsv"
    if reads:
        info = ModelInfo(task="translate", ends_with_eos=True)
        encoder = RNNEncoder(tokenizer, embedding_size=6, hidden_size=8, num_layers=1)
        model = make_model(tokenizer, encoder=encoder, attention="dot")
        model.info = info
        model.save(folder)
    table.write_text(("a cat\t" if reads else "") + TEXT.strip() + "\n")
    table.write_text(table.read_text() * 12)

    def scores(*words):
        status, out, err = gen("score", folder, table, "--json", "--device", "cpu", *words)
        assert status == 0, err
        return [json.loads(line) for line in out.splitlines()], err

    plain, silent = scores()
    adapted, said = scores("--adapt")
    assert "adapted" in said
    assert "adapted" not in silent
    assert adapted[0]["log_prob"] == pytest.approx(plain[0]["log_prob"], abs=1e-4)
    assert adapted[-1]["log_prob"] > plain[-1]["log_prob"] + 0.1
    assert adapted[0]["adapted"] is True


def test_what_does_not_adapt_says_so(gen, folder, tokenizer, tmp_path):
    assert (
        gen("evaluate", folder, "--adapt", "--beam", "3")[2] == "gen: --adapt searches nothing: leave out --beam\n"
    )
    encoder = RNNEncoder(tokenizer, embedding_size=6, hidden_size=8, num_layers=1)
    model = make_model(tokenizer, encoder=encoder)
    model.info = ModelInfo(task="translate")
    model.save(folder)
    (tmp_path / "a").write_text("a cat\n")
    both = ("--src", tmp_path / "a", "--ref", tmp_path / "a")
    status, _, err = gen("evaluate", folder, *both, "--adapt", "--device", "cpu")
    assert status == 2
    assert err == (
        "gen: --adapt goes with models of free text, not with translate; gen score --adapt takes pairs of it\n"
    )
