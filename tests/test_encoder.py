"""The RNN encoder: padding reaches nothing, and what it makes is shared by the rows of a beam."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gen.inputs.tokenizer import CharTokenizer
from gen.models.cells import CELLS
from gen.models.decoder import DecoderConfig
from gen.models.encoders import RNNEncoder
from gen.models.model import Model
from gen.search import Beam

SENTENCES = ["abcdefgh", "c", "", "hgfed"]
LETTERS = CharTokenizer.train(["abcdefgh"])


def make(attention="dot", **encoder):
    torch.manual_seed(0)
    encoder = RNNEncoder(LETTERS, **{"embedding_size": 8, "hidden_size": 8, "num_layers": 2, **encoder})
    config = DecoderConfig(len(LETTERS), encoder.embedding.embedding_dim, 16, 2, attention=attention)
    model = Model(encoder, config, LETTERS)
    with torch.no_grad():
        for parameter in model.parameters():  # untrained, but with much to say
            parameter *= 3
        model.decoder.output.bias[LETTERS.eos_id] = -2
    return model.eval()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_padded_sentence_is_encoded_as_it_is_alone(cell, bidirectional):
    encoder = make(cell=cell, bidirectional=bidirectional).encoder
    together = encoder(encoder.prepare(SENTENCES).source)
    for row, sentence in enumerate(SENTENCES):
        alone = encoder(encoder.prepare([sentence]).source)
        n = len(sentence) + 1
        assert together.mask[row].tolist() == [True] * n + [False] * (9 - n)
        torch.testing.assert_close(together.values[row, :n], alone.values[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(together.summary[row], alone.summary[0], atol=1e-6, rtol=1e-5)
        assert not together.values[row, n:].any()


def test_the_backward_direction_reads_backwards():
    """With the two directions given the same weights, one on the reversed sentence is the other's mirror."""
    encoder = make(num_layers=1).encoder
    encoder.backwards.load_state_dict(encoder.forwards.state_dict())
    ids = torch.tensor([[4, 5, 6, 7]])
    there, back = encoder({"sentence": ids}), encoder({"sentence": ids.flip(1)})
    H = encoder.memory_size // 2
    torch.testing.assert_close(there.values[..., :H], back.values[..., H:].flip(1))
    torch.testing.assert_close(there.summary[:, :H], back.summary[:, H:])


@pytest.mark.parametrize("attention", ["none", "dot", "additive", "multihead"])
@pytest.mark.parametrize("options", [{"temperature": 0}, {"beam": 4}, {"temperature": 1.0, "seed": 3}])
def test_a_batch_of_mixed_lengths_is_each_sentence_alone(attention, options):
    model = make(attention)
    together = model.generate(SENTENCES, max_new_tokens=12, **options)
    texts = {h[0].text for h in together}
    assert len(texts) > 1  # the model says something about its input
    for sentence, found in zip(SENTENCES, together, strict=True):
        alone = model.generate(sentence, max_new_tokens=12, **options)[0]
        assert alone.token_ids == found[0].token_ids
        assert alone.score == pytest.approx(found[0].score, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_many_sentences_in_any_batch_size(batch_size):
    model = make()
    items = [*SENTENCES, "aa", "hb", "ccc"]
    found = model.generate_many(iter(items), batch_size=batch_size, beam=3, max_new_tokens=9)
    assert [h[0].token_ids for h in found] == [
        model.generate(item, beam=3, max_new_tokens=9)[0].token_ids for item in items
    ]


@pytest.mark.parametrize("attention", ["dot", "additive", "multihead"])
def test_padding_is_never_attended(attention):
    model = make(attention).requires_grad_(False)
    memory = model.encoder(model.encoder.prepare(SENTENCES).source)
    inputs = torch.randint(4, len(LETTERS), (4, 5))
    output = model.decoder(inputs, model.decoder.init_state(memory), memory)
    assert output.attention.sum(-1) == pytest.approx(1.0, abs=1e-5)
    assert not output.attention[~memory.mask[:, None].expand_as(output.attention)].any()
    memory.values[~memory.mask] = 1e4  # whatever stands there
    again = model.decoder(inputs, model.decoder.init_state(memory), memory)
    assert torch.equal(again.logits, output.logits)
    for sentence, found in zip(SENTENCES, model.generate(SENTENCES, beam=2, attention=True), strict=True):
        assert found[0].attention.shape == (len(found[0].token_ids), len(sentence) + 1)
        assert found[0].attention.sum(1) == pytest.approx(1.0, abs=1e-5)
        assert len(found[0].alignment) == len(found[0].token_ids)


def test_the_best_hypotheses_are_sorted_and_distinct():
    model = make()
    for found in model.generate(SENTENCES, strategy=Beam(6, length_penalty=0.7, n_best=6), max_new_tokens=10):
        ranks = [h.score / ((5 + len(h.log_probs)) / 6) ** 0.7 for h in found]
        assert ranks == sorted(ranks, reverse=True)
        assert len({(tuple(h.token_ids), h.finished) for h in found}) == len(found) == 6


def test_length_limits_follow_the_input():
    model = make()
    found = model.generate(SENTENCES, temperature=0, max_ratio=2.0, max_new_tokens=15)
    limits = [min(15, 2 * (len(s) + 1) + 10) for s in SENTENCES]
    assert all(len(h[0].log_probs) <= limit for h, limit in zip(found, limits, strict=True))
    assert len(found[2][0].log_probs) <= 12


class _Allocated(TorchDispatchMode):
    """Bytes of the largest new storage that an operation makes."""

    def __init__(self):
        super().__init__()
        self.known, self.largest = {}, 0  # they are kept alive: an address must not be given to another

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.known |= self._storages(args)
        result = func(*args, **(kwargs or {}))
        made = self._storages(result if isinstance(result, list | tuple) else [result])
        self.largest = max([self.largest, *(s.nbytes() for where, s in made.items() if where not in self.known)])
        self.known |= made
        return result

    def _storages(self, values):
        tensors = [v for v in values if isinstance(v, torch.Tensor)]
        return {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors}


@pytest.mark.parametrize("attention", ["dot", "multihead"])
def test_memory_is_not_copied_per_beam(attention):
    model = make(attention, hidden_size=64, num_layers=1)
    B, W, S = 2, 8, 400
    start = model.start_search(["a" * (S - 1)] * B)
    state = start.state.select(torch.arange(B).repeat_interleave(W))
    token_ids = start.ops.asarray([[4]] * (B * W), "int64")
    with torch.no_grad():
        memory = model.decoder.prepare(model.encoder(model.encoder.prepare(["a" * (S - 1)] * B).source))
    smallest = min(part.nbytes for part in memory.attention_cache)
    start.step(token_ids, state)  # joins weights once
    with _Allocated() as allocated:
        start.step(token_ids, state)
    assert 0 < allocated.largest < W * smallest / 2  # a copy a beam would be W of the smallest; these are scores


def test_encoder_and_decoder_share_one_embedding(tmp_path):
    encoder = RNNEncoder(LETTERS, embedding_size=16, hidden_size=8, share_embeddings=True)
    config = DecoderConfig(len(LETTERS), 16, 16, attention="dot", tie_embeddings=True)
    model = Model(encoder, config, LETTERS).eval()
    assert model.encoder.embedding.weight is model.decoder.output.weight
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    assert again.encoder.embedding.weight is again.decoder.embedding.weight is again.decoder.output.weight
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())
    assert again.generate("abc", seed=1)[0].token_ids == model.generate("abc", seed=1)[0].token_ids


def test_the_encoders_own_tokenizer_travels_with_the_model(tmp_path):
    words = CharTokenizer.train(["xyz XYZ"])
    encoder = RNNEncoder(words, embedding_size=4, hidden_size=4, lowercase=True, max_length=7)
    model = Model(encoder, DecoderConfig(len(LETTERS), 4, 8, attention="additive"), LETTERS).eval()
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    processor = again.processors["sentence"]
    expected = [*words.encode("xyq"), words.eos_id]
    assert processor.encode("XyQ") == encoder.processors["sentence"].encode("xyq") == expected
    assert processor.max_length == 7
    assert again.encoder.labels("xy")[:2] == ["x", "y"]
    assert again.generate("zyx", beam=2)[0].score == pytest.approx(model.generate("zyx", beam=2)[0].score)
