"""Several encoders as one: a joined memory is its parts' memories side by side."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gen import runtime
from gen.base.errors import UserError
from gen.inputs.labels import LabelTokenizer
from gen.inputs.processors import PROCESSORS, InputProcessor
from gen.inputs.tokenizer import CharTokenizer
from gen.models.batch import sequence_batch
from gen.models.decoder import DecoderConfig
from gen.models.encoders import (
    ENCODERS,
    CNNEncoder,
    Encoder,
    JoinedEncoder,
    LabelEncoder,
    NoneEncoder,
    RNNEncoder,
    register,
)
from gen.models.export import export
from gen.models.memory import Memory
from gen.models.model import Model
from gen.models.transfer import freeze, with_dropout, with_vocabulary
from gen.search.ensemble import Ensemble, reads_alike
from gen.search.info import ModelInfo
from gen.training.self_critical import SelfCritical
from tasks.caption.pictures import caption_pictures
from tasks.options import input_name

LETTERS = CharTokenizer.train(["abcdefgh"])
ITEMS = [
    {"first": "abc", "second": "h"},
    {"first": "g", "second": "hgfedc"},
    {"first": "", "second": ""},
    {"second": "cc", "first": "abcdefg"},
]


class DigitProcessor(InputProcessor):
    """Numbers → their digits and one more, padded with zeros; None has no digits."""

    kind = "digits"

    def read(self, items):
        digits = [[] if item is None else [int(c) + 1 for c in str(item)] for item in items]
        padded = np.zeros((len(items), max(1, *map(len, digits))), np.int64)
        for row, found in zip(padded, digits, strict=True):
            row[: len(found)] = found
        return padded

    def example(self):
        return self.read([123, 45, 6])

    def labels(self, item):
        return [] if item is None else list(str(item))


class Digits(Encoder):
    """One vector per digit; no real position for None."""

    def __init__(self, memory_size=6):
        super().__init__()
        self.memory_size = memory_size
        self.config = {"memory_size": memory_size}
        self.processors = {"digits": DigitProcessor()}
        self.embedding = nn.Embedding(11, memory_size)

    def forward(self, source):
        mask = source["digits"] > 0
        values = self.embedding(source["digits"])  # also at padding: the join has to clear it
        return Memory(values, mask, values.mean(1))


@pytest.fixture(autouse=True)
def _digits():
    register("digits")(Digits)
    PROCESSORS["digits"] = DigitProcessor
    yield
    del ENCODERS["digits"], PROCESSORS["digits"]


def rnn(**sizes):
    return RNNEncoder(LETTERS, **{"embedding_size": 8, "hidden_size": 6, "num_layers": 1, **sizes})


def joined(attention="dot", parts=None, memory_size=10, **decoder):
    torch.manual_seed(2)
    parts = parts or {"first": rnn(), "second": rnn(hidden_size=5, bidirectional=False, cell="gru")}
    config = DecoderConfig(len(LETTERS), 8, 12, 2, attention=attention, **decoder)
    model = Model(JoinedEncoder(parts, memory_size), config, LETTERS)
    with torch.no_grad():
        for parameter in model.parameters():  # sharpened: an untrained model would repeat itself
            parameter *= 3
        model.decoder.output.bias[LETTERS.eos_id] = -2
    return model.eval()


def with_digits(attention="dot"):
    return joined(attention, {"sentence": rnn(), "digits": Digits()})


def test_the_memory_is_the_projected_memories_side_by_side():
    encoder = joined().encoder
    source = encoder.prepare(ITEMS).source
    assert {name: tuple(t.shape) for name, t in source.items()} == {"first": (4, 8), "second": (4, 7)}
    memory = encoder(source)
    first, second = (
        encoder.parts[name]({"sentence": source[name]}) for name in ("first", "second")
    )  # alone, each under its own input name
    assert memory.values.shape == (4, 15, 10)
    assert torch.equal(memory.mask, torch.cat([first.mask, second.mask], 1))
    wanted = torch.cat([encoder.fit_values["first"](first.values), encoder.fit_values["second"](second.values)], 1)
    torch.testing.assert_close(memory.values[memory.mask], wanted[memory.mask])
    assert not memory.values[~memory.mask].any()
    wanted = encoder.fit_summaries["first"](first.summary) + encoder.fit_summaries["second"](second.summary)
    torch.testing.assert_close(memory.summary, wanted)


@pytest.mark.parametrize("attention", ["none", "dot", "additive", "multihead"])
def test_joined_is_one_part_alone_where_the_other_is_masked_out(attention):
    model = with_digits(attention)
    encoder, decoder = model.encoder, model.decoder
    source = encoder.prepare([{"sentence": s, "digits": None} for s in ("abc", "h", "gfedc")]).source
    memory = encoder(source)
    assert not memory.mask[:, -1:].any()
    part = encoder.parts["sentence"]({"sentence": source["sentence"]})
    alone = Memory(
        encoder.fit_values["sentence"](part.values) * part.mask[..., None],
        part.mask,
        encoder.fit_summaries["sentence"](part.summary),
    )
    token_ids = torch.randint(4, len(LETTERS), (3, 5))
    together, single = (decoder(token_ids, decoder.init_state(m), m) for m in (memory, alone))
    torch.testing.assert_close(together.logits, single.logits, atol=1e-5, rtol=1e-5)
    if attention != "none":
        S = part.values.size(1)
        torch.testing.assert_close(together.attention[..., :S], single.attention, atol=1e-6, rtol=1e-5)
        assert not together.attention[..., S:].any()


def test_a_part_of_the_right_size_is_only_scaled():
    """In training, too: what dropout made zero stays zero."""
    part = RNNEncoder(LETTERS, embedding_size=4, hidden_size=5, dropout=0.5)
    encoder = JoinedEncoder({"sentence": part}, part.memory_size).train()
    source = encoder.prepare([{"sentence": "abc"}]).source
    torch.manual_seed(1)
    alone = part(source).values
    torch.manual_seed(1)
    found = encoder(source).values
    assert (alone == 0).any()
    torch.testing.assert_close(found, alone / alone.square().mean(-1, keepdim=True).add(1e-6).sqrt())


def test_no_part_outgrows_another():
    encoder = joined().encoder
    source = encoder.prepare(ITEMS).source
    before = encoder(source)
    with torch.no_grad():
        for fit in (encoder.fit_values["first"], encoder.fit_summaries["first"]):
            fit.project.weight *= 1000
            fit.project.bias *= 1000
    after = encoder(source)
    torch.testing.assert_close(after.values, before.values, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(after.summary, before.summary, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("attention", ["dot", "additive", "multihead"])
def test_each_part_has_a_softmax_of_its_own(attention):
    model = with_digits(attention)
    items = [{"sentence": s, "digits": n} for s, n in (("abc", 7), ("h", None), ("gfedc", 0))]
    decoder, memory = model.decoder, model.encoder(model.encoder.prepare(items).source)
    assert torch.equal(memory.part_masks.any(1), memory.mask)
    token_ids = torch.randint(4, len(LETTERS), (3, 5))
    weights = decoder(token_ids, decoder.init_state(memory), memory).attention
    S = memory.values.size(1) - 1
    torch.testing.assert_close(weights[..., :S].sum(-1), torch.ones(3, 5))
    assert weights[..., S:].flatten().tolist() == [1.0] * 5 + [0.0] * 5 + [1.0] * 5  # the second has no digits


def test_folders_from_before_keep_one_softmax_over_all_parts(tmp_path):
    model = joined()
    model.encoder.own_softmax = False
    wanted = model.generate(ITEMS[0], temperature=0, max_new_tokens=6)[0]
    np.testing.assert_allclose(wanted.attention.sum(1), 1, rtol=1e-5)
    model.save(tmp_path / "m")
    config = (tmp_path / "m" / "config.yaml").read_text()
    assert "own_softmax: false" in config
    (tmp_path / "m" / "config.yaml").write_text(re.sub(r"\n *own_softmax: false", "", config))
    found = Model.load(tmp_path / "m").generate(ITEMS[0], temperature=0, max_new_tokens=6)[0]
    assert found.token_ids == wanted.token_ids
    np.testing.assert_allclose(found.attention, wanted.attention, atol=1e-5)


def test_both_parts_get_attention_and_both_matter():
    model = joined()
    seen = model.generate(ITEMS[0], temperature=0, min_new_tokens=6, max_new_tokens=6)[0].attention
    assert (seen[:, :4].sum(1) > 0.01).any()
    assert (seen[:, 4:].sum(1) > 0.01).any()
    changed = [{**ITEMS[0], name: "hgfed"} for name in ("first", "second")]
    scores = [model.score(["abc"], [item])[0].log_prob for item in (ITEMS[0], *changed)]
    assert min(abs(scores[0] - other) for other in scores[1:]) > 1e-4


@pytest.mark.parametrize("attention", ["none", "dot", "additive", "multihead"])
@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"beam": 4, "n_best": 2}, {"temperature": 1.0, "seed": 3}]
)
def test_a_batch_is_each_item_alone(attention, options):
    model = joined(attention)
    together = model.generate(ITEMS, max_new_tokens=10, **options)
    assert len({found[0].text for found in together}) > 1
    for item, found in zip(ITEMS, together, strict=True):
        alone = model.generate(item, max_new_tokens=10, **options)
        assert [h.token_ids for h in alone] == [h.token_ids for h in found]
        assert alone[0].score == pytest.approx(found[0].score, abs=1e-4)
        if attention != "none":  # padding in the middle is left out, too
            labels = model.encoder.labels(item)
            assert alone[0].attention.shape == found[0].attention.shape == (len(found[0].token_ids), len(labels))
            np.testing.assert_allclose(alone[0].attention, found[0].attention, atol=1e-4)


def test_labels_are_those_of_the_parts():
    assert joined().encoder.labels(ITEMS[3]) == [*"abcdefg", "∎", *"cc", "∎"]
    assert with_digits().encoder.labels({"sentence": "a", "digits": 40}) == ["a", "∎", "4", "0"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("abc", "must be a mapping with 'first' and 'second', not str"),
        ({"first": "abc"}, "'second' is missing: this model takes 'first' and 'second'"),
        ({"first": "a", "secnd": "b"}, "unknown input 'secnd': did you mean 'second'"),
        ({"first": "a", "second": "b", "x": ""}, "unknown input 'x': this model takes 'first' and 'second'"),
    ],
)
def test_wrong_items_are_one_line(item, message):
    with pytest.raises(UserError, match=message) as error:
        joined().generate([item])
    assert "\n" not in str(error.value)


def test_a_single_input_may_be_given_by_name(model):
    said = [model.generate([item], seed=1)[0][0].text for item in ("the ", {"prompt": "the "})]
    assert said[0] == said[1]
    with pytest.raises(UserError, match="did you mean 'prompt'"):
        model.generate([{"promt": "the "}])


@pytest.mark.parametrize("make", [joined, with_digits])
def test_saved_and_loaded(tmp_path, make):
    model = make()
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    assert again.encoder.config == model.encoder.config
    items = ITEMS if make is joined else [{"sentence": "ab", "digits": 9}, {"sentence": "", "digits": None}]
    for a, b in zip(again.generate(items, beam=3), model.generate(items, beam=3), strict=True):
        assert (a[0].text, a[0].score) == (b[0].text, pytest.approx(b[0].score))


def test_a_damaged_folder_is_one_line(tmp_path):
    joined().save(tmp_path / "m")
    (tmp_path / "m" / "encoder-second-tokenizer.bin").unlink()
    with pytest.raises(UserError, match=r"encoder-second-tokenizer\.bin is missing"):
        Model.load(tmp_path / "m")
    config = (tmp_path / "m" / "config.yaml").read_text()
    (tmp_path / "m" / "config.yaml").write_text(config.replace("num_layers: 1", "num_layers: 99999"))
    with pytest.raises(UserError, match="more than a model can have"):
        Model.load(tmp_path / "m")


@pytest.mark.parametrize("attention", ["none", "multihead"])  # the others: test_runtime.py
def test_exported_is_torch(tmp_path, attention):
    model = joined(attention)
    export(model, tmp_path / "out")
    exported = runtime.load(tmp_path / "out")
    assert [i.name for i in exported.encoder.get_inputs()] == ["first", "second"]
    for options in ({"temperature": 0}, {"beam": 4}, {"temperature": 1.0, "seed": 5}):
        ours, theirs = (m.generate(ITEMS, max_new_tokens=10, **options) for m in (model, exported))
        for a, b in zip(ours, theirs, strict=True):
            assert a[0].text == b[0].text
            assert a[0].score == pytest.approx(b[0].score, abs=1e-3)
            if a[0].attention is not None:
                np.testing.assert_allclose(a[0].attention, b[0].attention, atol=1e-4)
    ours, theirs = (m.score(["abc", "h"], ITEMS[:2]) for m in (model, exported))
    assert [s.log_prob for s in ours] == pytest.approx([s.log_prob for s in theirs], abs=1e-3)
    with pytest.raises(UserError, match="'second' is missing"):
        exported.generate([{"first": "a"}])


def test_a_label_besides_others_is_exported(tmp_path):
    """Its one vector is added to those of the sentence."""
    label = LabelEncoder({"label": LabelTokenizer(["x", "y"])}, 12, prompt=False)
    model = joined("dot", {"first": rnn(), "label": label})
    export(model, tmp_path / "out")
    exported = runtime.load(tmp_path / "out")
    items = [{"first": "abc", "label": "x"}, {"first": "hgfed", "label": "y"}, {"first": "abc", "label": "y"}]
    ours, theirs = (m.generate(items, beam=3, max_new_tokens=8) for m in (model, exported))
    assert [a[0].text for a in ours] == [b[0].text for b in theirs]
    assert [a[0].score for a in ours] == pytest.approx([b[0].score for b in theirs], abs=1e-3)
    assert ours[0][0].score != pytest.approx(ours[2][0].score, abs=1e-3)


def test_an_encoder_of_ones_own_is_exported_as_a_part(tmp_path):
    model = with_digits()
    export(model, tmp_path / "out")
    exported = runtime.load(tmp_path / "out")
    items = [{"sentence": "abc", "digits": 907}, {"sentence": "h", "digits": None}]
    for a, b in zip(model.generate(items, beam=3), exported.generate(items, beam=3), strict=True):
        assert (a[0].text, a[0].score) == (b[0].text, pytest.approx(b[0].score, abs=1e-3))


def test_a_picture_and_a_sentence(tmp_path):
    picture = CNNEncoder("alexnet", "none", memory_size=12, finetune=1, finetune_rate=0.2)
    model = joined(parts={"picture": picture, "sentence": rnn()})
    assert model.encoder.slow_parameters()[0] == picture.slow_parameters()[0]
    assert model.encoder.slow_parameters()[1] == 0.2
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (2, 3, 224, 224), np.uint8)
    items = [{"picture": p, "sentence": s} for p, s in zip(pictures, ("abc", "hg"), strict=True)]
    found = model.generate(items, beam=2, max_new_tokens=5)
    for item, several in zip(items, found, strict=True):
        assert model.generate(item, beam=2, max_new_tokens=5)[0].token_ids == several[0].token_ids
        assert several[0].attention.shape[1] == 36 + len(item["sentence"]) + 1
    export(model, tmp_path / "out")
    again = runtime.load(tmp_path / "out").generate(items, beam=2, max_new_tokens=5)
    assert [h[0].text for h in again] == [h[0].text for h in found]


def test_a_black_picture_is_one():
    picture = CNNEncoder("alexnet", "none", memory_size=12)
    torch.manual_seed(2)
    encoder = JoinedEncoder({"picture": picture, "sentence": rnn()}, 10, optional=["picture"])
    model = Model(encoder, DecoderConfig(len(LETTERS), 8, 12, 2, attention="dot"), LETTERS).eval()
    for given, positions in ((Image.new("RGB", (8, 8)), 36 + 3), (None, 3)):
        output = model.generate({"sentence": "ab", "picture": given}, temperature=0, max_new_tokens=2)
        assert output.attention.shape[1] == positions


def test_models_of_an_ensemble_see_a_picture_each_in_its_way(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)).save(tmp_path / "a.png")
    models = []
    for size in (64, 96):
        torch.manual_seed(size)
        picture = CNNEncoder("shufflenet_v2_x0_5", "none", memory_size=12, image_size=size)
        config = DecoderConfig(len(LETTERS), 8, 12, 1, attention="dot")
        models.append(Model(picture, config, LETTERS, ModelInfo("caption")).eval())
    both, options = Ensemble(models), {"temperature": 0, "max_new_tokens": 6}
    (found,) = caption_pictures(both, [tmp_path / "a.png"], **options)
    assert found.hypotheses[0].text == both.generate(str(tmp_path / "a.png"), **options).text


def test_an_input_may_be_called_as_a_state_is(tmp_path):
    encoder = LabelEncoder({"state": LabelTokenizer(["new", "old"])}, 16)
    model = Model(encoder, DecoderConfig(len(LETTERS), 8, 12, 1), LETTERS, ModelInfo("text")).eval()
    pytest.importorskip("onnxscript")
    export(model, tmp_path / "x")
    item, options = {"state": "old", "prompt": "a"}, {"temperature": 0, "max_new_tokens": 6}
    assert runtime.load(tmp_path / "x").generate(item, **options).text == model.generate(item, **options).text
    assert [input_name(column) for column in ("state", "must")] == ["state", "column_must"]


def test_models_that_read_other_things_are_no_ensemble():
    other = Model(RNNEncoder(LETTERS), DecoderConfig(len(LETTERS), 8, 12, 1), LETTERS)
    assert not reads_alike(Ensemble([joined(), other]), "first")


def test_it_learns_from_all_its_parts():
    model = joined().train()
    batch = sequence_batch(model.encoder.prepare(ITEMS).source, [np.array([5, 6])] * 4, 1, 2, 0)
    model.loss(batch.take(torch.tensor([0, 3]))).loss_sum.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.fit_values.parameters())
    assert all(p.grad is not None for p in model.encoder.parts.parameters())


def test_self_critical_training_takes_several_inputs():
    model = joined(parts={"first": Digits(), "second": Digits()})
    source = {"first": torch.tensor([[1, 2], [3, 0]]), "second": torch.tensor([[4], [5]])}
    batch = sequence_batch(source, [np.array([], np.int64)] * 2, 1, 2, 0)
    for part in model.encoder.processors.values():
        part.read = np.stack  # the rows of a batch are arrays already
    output = SelfCritical(lambda hypothesis, row: float(len(hypothesis.token_ids)), samples=3)(model, batch)
    assert torch.isfinite(output.loss_sum)
    output.loss_sum.backward()


def test_a_new_vocabulary_for_one_part():
    model = joined()
    other = CharTokenizer.train(["hgfe xyz"])
    adapted, shared = with_vocabulary(model, LETTERS, {"second": other})
    assert shared == len(LETTERS)
    assert len(adapted.processors["second"].tokenizer) == len(other)
    assert len(adapted.processors["first"].tokenizer) == len(LETTERS)
    before, after = (m.encoder.parts["second"].embedding.weight for m in (model, adapted))
    for letter in "hgfe":
        assert torch.equal(after[other.encode(letter)], before[LETTERS.encode(letter)])
    first = (m.encoder.parts["first"].embedding.weight for m in (model, adapted))
    assert torch.equal(*first)
    item = {"first": "abc", "second": "hg"}
    assert adapted.generate(item, beam=3)[0].text == model.generate(item, beam=3)[0].text
    with pytest.raises(UserError, match="no input 'third' with a tokenizer"):
        with_vocabulary(model, LETTERS, {"third": other})


def test_another_dropout_reaches_the_parts():
    model = joined()
    other = with_dropout(model, {"dropout": 0.4})
    assert [part.dropout for part in other.encoder.parts.values()] == [0.4, 0.4]
    assert other.decoder.config.dropout == 0.4
    item = {"first": "abc", "second": "hg"}
    assert other.generate(item, beam=3)[0].score == model.generate(item, beam=3)[0].score


def test_a_part_can_be_frozen_and_can_share_the_decoders_embeddings():
    model = joined(parts={"first": rnn(share_embeddings=True), "second": rnn()})
    assert model.encoder.parts["first"].embedding is model.decoder.embedding
    assert freeze(model, ["encoder.parts.second.*"]) == sum(
        p.numel() for p in model.encoder.parts["second"].parameters()
    )
    assert model.encoder.describe().startswith("first: 1 × lstm 6 both ways, second:")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "needs at least one part"),
        ({"a.b": Digits}, "'a.b' cannot be the name of a part"),
        ({"keys": Digits}, "'keys' cannot be the name of a part"),
        ({"prompt": NoneEncoder}, "'prompt' .NoneEncoder. must have a memory and one input processor"),
        ({"x": lambda: JoinedEncoder({"a": Digits(), "b": Digits()})}, "'x' .JoinedEncoder. must have"),
    ],
)
def test_parts_that_cannot_be_joined(parts, message):
    with pytest.raises(UserError, match=message):
        JoinedEncoder({name: make() for name, make in parts.items()})


def test_names_that_exported_graphs_use_are_refused(tmp_path):
    with pytest.raises(UserError, match="the input name 'mask' is used by exported graphs"):
        export(joined(parts={"mask": rnn(), "second": rnn()}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
