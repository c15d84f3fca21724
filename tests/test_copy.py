"""Models that copy tokens of the source (`--copy`): the mixture, its contracts, and what it learns."""

from __future__ import annotations

import random

import pytest
import torch

from gen.base.errors import UserError
from gen.inputs.labels import LabelTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.models.copy_gate import CopyGate
from gen.models.decoder import DecoderConfig
from gen.models.encoders import JoinedEncoder, LabelEncoder, RNNEncoder
from gen.models.memory import Memory
from gen.models.model import Model
from gen.search.info import ModelInfo

WORDS = WordTokenizer([f" w{i}" for i in range(20)], dummy_prefix=True)
SENTENCES = ["w3", "w5 w9 unknown w5 w1", "w4 strange words w7 w7 w7 w2 w1", "w2 what"]


def copier(source=WORDS, target=WORDS, attention="dot", joined=False, layers=2):
    """An untrained translator that copies, its choices made clear."""
    torch.manual_seed(0)
    encoder = RNNEncoder(source, embedding_size=12, hidden_size=8, num_layers=1)
    if joined:
        style = LabelEncoder({"style": LabelTokenizer(["a", "b"])}, 16, prompt=False)
        encoder = JoinedEncoder({"sentence": encoder, "style": style}, 16, ["style"])
    config = DecoderConfig(len(target), 12, 16, layers, attention=attention, copy=True)
    model = Model(encoder, config, target, ModelInfo("translate", search={"beam": 3, "replace_unk": True}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3
    return model.eval()


def test_the_mixture_is_that_of_the_paper():
    B, W, T, S, V = 2, 3, 4, 5, 9
    torch.manual_seed(0)
    tokens = torch.tensor([[4, 5, 4, 2, 0], [7, 3, 3, 8, 2]])
    each = tokens.repeat_interleave(W, 0)[:, None].expand(-1, T, -1)
    attention = torch.rand(B * W, T, S) * (each != 0)
    attention /= attention.sum(-1, keepdim=True)
    logits, top = torch.randn(B * W, T, V, requires_grad=True), torch.randn(B * W, T, 6)
    gate = CopyGate(6)
    found = gate(logits, top, attention, Memory(tokens, tokens != 0, tokens, tokens=tokens)).log_softmax(-1)
    share = gate.gate(top).sigmoid()
    wanted = share * logits.softmax(-1) + (1 - share) * torch.zeros(B * W, T, V).scatter_add(-1, each, attention)
    torch.testing.assert_close(found, wanted.log())
    weights = torch.randn(B * W, T, V)
    one, other = (torch.autograd.grad((x * weights).sum(), logits)[0] for x in (found, wanted.log()))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("attention", ["dot", "additive", "multihead"])
@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_many_tokens_equal_one_at_a_time(attention, layers):
    model = copier(attention=attention, layers=layers)
    memory = model.encoder(model.encoder.prepare(SENTENCES).source)
    rows = torch.arange(len(SENTENCES)).repeat_interleave(2)
    state = model.decoder.init_state(memory).select(rows)
    token_ids = torch.randint(len(WORDS), (len(rows), 5))
    whole = model.decoder(token_ids, state, memory).logits
    for t in range(5):
        output = model.decoder(token_ids[:, t : t + 1], state, memory)
        torch.testing.assert_close(output.logits[:, 0], whole[:, t], atol=1e-5, rtol=1e-5)
        state = output.state


@pytest.mark.parametrize("joined", [False, True])
def test_a_batch_changes_nothing_and_neither_does_a_folder(joined, tmp_path):
    model = copier(joined=joined)
    items = [{"style": "ab"[i % 2], "sentence": s} for i, s in enumerate(SENTENCES)] if joined else SENTENCES
    length = {"min_new_tokens": 4, "max_new_tokens": 8}
    together = model.generate(items, **length)
    model.save(tmp_path / "model")
    others = [model, Model.load(tmp_path / "model")]
    for item, output in zip(items, together, strict=True):
        for other in others:
            found = other.generate(item, **length)
            assert found.text == output.text
            assert found[0].log_probs == pytest.approx(output[0].log_probs, abs=1e-4)
        if output[0].finished and WORDS.unk_id not in output.token_ids:
            assert model.score([output.text], [item])[0].log_prob == pytest.approx(output[0].score, abs=1e-4)
    ids = [output.token_ids for output in together]
    assert any(WORDS.unk_id in each for each in ids)
    assert "<unk>" not in " ".join(output.text for output in together)


@torch.no_grad()
def test_only_the_sentence_is_copied():
    model = copier(joined=True)
    memory = model.encoder(model.encoder.prepare([{"style": "a", "sentence": "w3 w5"}]).source)
    assert memory.tokens.tolist() == [[*WORDS.encode("w3 w5"), WORDS.eos_id]]  # the label has no position
    model.decoder.copy_gate.gate.bias.fill_(-100.0)  # copies, and writes nothing of its own
    output = model.decoder(torch.tensor([[1]]), model.decoder.init_state(memory), memory)
    probs = output.logits.softmax(-1)[0, 0]
    torch.testing.assert_close(probs[memory.tokens[0]], output.attention[0, 0], atol=1e-5, rtol=1e-4)


def test_vocabularies_meet_by_text():
    other = WordTokenizer([" w2", " w1"], dummy_prefix=True)
    model = copier(target=other)
    memory = model.encoder(model.encoder.prepare(["w1 w7 w2 what"]).source)
    assert memory.tokens.tolist() == [[5, other.unk_id, 4, other.unk_id, other.eos_id]]


def test_what_cannot_copy_says_so(gen, tmp_path):
    with pytest.raises(UserError, match="copy: no token of the source is one of the target"):
        copier(target=CharTokenizer.train(["xyz"]))
    labels = LabelEncoder({"topic": LabelTokenizer(["a"])}, 8)
    with pytest.raises(UserError, match="copy is for models that read a sentence"):
        Model(labels, DecoderConfig(len(WORDS), attention="dot", copy=True), WORDS)
    with pytest.raises(UserError, match="copy needs attention to an input"):
        copier(attention="none")
    words = ("train", "translate", "--train", "a", "b", "--out", tmp_path / "run", "--copy", "--attention", "none")
    status, _, err = gen(*words)
    assert status == 2
    assert "--copy does not go with --attention none" in err


TEMPLATES = [("call {} at {} .", "rufe {} unter {} an ."), ("{} lives in {} .", "in {1} wohnt {0} .")]


def named_pairs(count, seed):
    """Sentences with names that are nowhere else, and their translations."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(count):
        names = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(4, 7))) for _ in range(2)]
        source, target = draw.choice(TEMPLATES)
        pairs.append((source.format(*names), target.format(*names)))
    return pairs


def learned(level, copy, steps, size=48, seed=0):
    """A model after so many steps on `named_pairs`."""
    torch.manual_seed(seed)
    pairs = named_pairs(2000, seed=1)
    texts = [f"{source}\n{target}" for source, target in pairs]
    words = {"min_frequency": 20, "dummy_prefix": True}
    tokenizer = CharTokenizer.train(texts) if level == "char" else WordTokenizer.train(texts, **words)
    encoder = RNNEncoder(tokenizer, embedding_size=size, hidden_size=size, num_layers=1)
    config = DecoderConfig(len(tokenizer), size, size, 1, attention="dot", copy=copy)
    search = {"beam": 1, "max_ratio": 2.0, "replace_unk": level == "word"}
    model = Model(encoder, config, tokenizer, ModelInfo("translate", search=search))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    draw = random.Random(seed)
    for step in range(steps):
        chosen = draw.sample(pairs, 32)
        loss = model.loss(model.batch([b for _, b in chosen], [a for a, _ in chosen]), label_smoothing=0.1)
        optimizer.zero_grad()
        (loss.loss_sum / loss.num_tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        optimizer.step()
    return model.eval()


def share_exact(model, count=100):
    """The share of unseen sentences that are translated exactly."""
    pairs = named_pairs(count, seed=2)
    return sum(a == b for a, (_, b) in zip(model([s for s, _ in pairs]), pairs, strict=True)) / count


def test_unseen_names_are_copied():
    """Without copying, none of the sentences is right after as many steps."""
    assert share_exact(learned("char", True, 100), 50) > 0.3
