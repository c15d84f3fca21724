"""Models: one generate, streaming, scoring; folders that are whole or not there."""

from __future__ import annotations

import pickle

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import gen as toolkit
from gen.base import folders
from gen.base.errors import ConfigError, UserError
from gen.datasets.streams import stream_evaluation
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.models import checkpoint
from gen.models.batch import Batch
from gen.models.decoder import DecoderConfig
from gen.models.encoders import ENCODERS, NoneEncoder, RNNEncoder
from gen.models.loading import load_module
from gen.models.model import Model
from tests.conftest import TEXT, make_model


def test_one_item_or_a_list(model):
    one = model.generate("the ", temperature=0, max_new_tokens=5)
    many = model.generate(["the ", "a"], temperature=0, max_new_tokens=5)
    assert many[0][0].text == one[0].text
    assert len(many) == 2
    assert model.generate([]) == []
    assert len(model.generate("a", num_samples=3, max_new_tokens=4)) == 3


@pytest.mark.parametrize("kind", ["char", "word", "subword"])
@pytest.mark.parametrize("how", [{"temperature": 0}, {"seed": 3}, {"beam": 3}, {"seed": 2, "stop": ("at", "xyz")}])
def test_streaming_writes_what_generate_writes(kind, how, tokenizer):
    made = {
        "char": lambda: tokenizer,
        "word": lambda: WordTokenizer.train([TEXT], min_frequency=1),
        "subword": lambda: SubwordTokenizer.train([TEXT + "é漢"], at_most=True),
    }[kind]()
    model = make_model(made)
    whole = model.generate("the cat", max_new_tokens=60, **how)[0].text
    pieces = list(model.stream("the cat", max_new_tokens=60, **how))
    assert "".join(pieces) == whole
    assert all(pieces)
    assert not model.training


def test_prompts_of_different_lengths_together(model):
    prompts = ["the cat sat on", "", "a", "the dog ran to the mat"]
    together = model.generate(prompts, seed=4, max_new_tokens=25)
    for prompt, found in zip(prompts, together, strict=True):
        alone = model.generate(prompt, seed=4, max_new_tokens=25)
        assert found[0].token_ids == alone[0].token_ids
        assert found[0].score == pytest.approx(alone[0].score, abs=1e-4)


def test_generation_scores_are_teacher_forced_scores(model):
    found = model.generate("", seed=9, max_new_tokens=30, num_samples=4)
    for h in found:
        score = model.score([h.text])[0]
        total = score.log_prob if h.finished else sum(score.log_probs[: len(h.token_ids)])
        assert h.score == pytest.approx(total, abs=1e-3)


def test_what_is_on_a_device_is_not_pinned():
    batch = Batch({"sentence": torch.zeros(2, 3)}, torch.zeros(2, 3), torch.zeros(2, 3)).to(torch.device("meta"))
    assert batch.pin().source["sentence"].device.type == "meta"


def test_what_is_no_text_is_refused(model):
    for item in (float("nan"), b"the", 3):
        with pytest.raises(UserError, match="a text is a string, not"):
            model.generate(item)
    (one,) = model.generate_many({"prompt": "the "}, temperature=0, max_new_tokens=5)
    assert one.text == model("the ", temperature=0, max_new_tokens=5)


def test_scores_do_not_depend_on_the_batch(model):
    texts = ["the cat", "", "a dog ran off the mat", "t", "the cat sat on a mat " * 60]  # the last one alone
    for text, score in zip(texts, model.score(texts), strict=True):
        alone = model.score([text])[0]
        assert score.log_prob == pytest.approx(alone.log_prob, abs=1e-4)
        assert score.num_tokens == len(text) + 1  # EOS


def test_stop_prefix_ban(model):
    h = model.generate("the", prefix=" cat", stop=(" ",), seed=1, max_new_tokens=40)[0]
    assert h.text == ""  # the prefix begins with what stops it
    h = model.generate("the", prefix="cat", max_new_tokens=10)[0]
    assert h.text.startswith("cat")
    assert "a" not in model.generate("the", ban=("a", "e"), max_new_tokens=50, seed=2)[0].text
    assert not {0, 1, 3} & set(model.generate("", max_new_tokens=200, temperature=5.0)[0].token_ids)


def test_a_ban_of_a_word(model):
    words = make_model(WordTokenizer.train([TEXT], min_frequency=1))
    plain = words.generate("the", max_new_tokens=60, temperature=2.0, seed=1, num_samples=8)
    assert any("cat" in h.text.split() for h in plain)
    others = words.generate("the", ban=("cat",), max_new_tokens=60, temperature=2.0, seed=1, num_samples=8)
    assert not any("cat" in h.text.split() for h in others)
    with pytest.raises(UserError, match="ban='zebra': never comes"):
        words.generate("the", ban=("zebra",))
    with pytest.raises(ConfigError, match=r"^ban must not be empty"):
        words.generate("the", ban=("",))
    letters = make_model(CharTokenizer.train(["GATTACA"]))  # without a space
    assert "A" not in letters.generate("G", ban=("A",), max_new_tokens=50, seed=1)[0].text
    pieces = make_model(SubwordTokenizer.train(["a cat, a dog, a cow. "], at_most=True, dummy_prefix=True))
    assert "," not in pieces.generate("", ban=(",",), max_new_tokens=50, seed=1, num_samples=8)[0].text


def test_a_stop_of_a_space_ends_the_first_word():
    model = make_model(SubwordTokenizer.train([TEXT], at_most=True, dummy_prefix=True))
    found = model.generate("", stop=(" ",), max_new_tokens=40, seed=3, num_samples=8)
    assert all(" " not in h.text for h in found)
    assert sum(h.finished for h in found) >= 6  # and the rest found no end within their tokens


def test_a_models_own_stop_holds_for_streams(model):
    model.info.search["stop"] = ("a",)
    whole = model.generate("the", max_new_tokens=60, seed=4)[0].text
    assert "a" not in whole
    assert "".join(model.stream("the", max_new_tokens=60, seed=4)) == whole


def test_carried_state_is_one_long_pass(model):
    ids = torch.randint(4, len(model.tokenizer), (2, 24))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    with torch.no_grad():
        whole = model.loss(Batch({}, inputs, targets))
    state, total = None, 0.0
    for at in range(0, 23, 5):
        with torch.no_grad():
            part = model.loss(Batch({}, inputs[:, at : at + 5], targets[:, at : at + 5]), state)
        state, total = part.state.detach(), total + float(part.loss_sum)
    assert total == pytest.approx(float(whole.loss_sum), rel=1e-5)
    for a, b in zip(whole.state.layers, state.layers, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_evaluation_is_the_sum_over_the_text(model, tmp_path):
    from gen.base.files import TextFiles
    from gen.datasets.corpus import tokenize

    path = tmp_path / "t.txt"
    path.write_text(TEXT * 5)
    part = tokenize(TextFiles([str(path)]), model.tokenizer, "stream", tmp_path)
    loss_sum, n = model.evaluate(stream_evaluation(part.tokens, 1, 0, chunk=50))
    expected = sum(model.score([TEXT * 5])[0].log_probs[:-1])
    assert n == len(TEXT) * 5
    assert loss_sum == pytest.approx(-expected, rel=1e-4)


class _Layouts(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        self.embedding = nn.Embedding(5, 3)
        self.register_buffer("shared", torch.arange(3.0).expand(4, 3))


def test_loading_keeps_the_layout_in_memory(tmp_path):
    """Also of a buffer whose rows are one and the same."""
    torch.manual_seed(1)
    made = _Layouts()
    weights = {name: weight.contiguous() for name, weight in made.state_dict().items()}
    save_file(weights, tmp_path / checkpoint.WEIGHTS)
    loaded = load_module(tmp_path, _Layouts)
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, weights[name])
    assert loaded.convolution.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_is_the_same_model(tokenizer, tmp_path, tied):
    model = make_model(tokenizer, tie_embeddings=tied, attention="additive")
    model.info.search = {"temperature": 0.5}
    model.save(tmp_path / "m")
    again = toolkit.load(tmp_path / "m")
    assert again.generate("the ", max_new_tokens=20, seed=1) == model.generate("the ", max_new_tokens=20, seed=1)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert {p.name for p in (tmp_path / "m").iterdir()} == {
        "model.safetensors",
        "config.yaml",
        "tokenizer.bin",
        "README.md",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["m"]  # nothing left beside it


def test_an_interrupted_save_leaves_the_old_model_whole(model, tmp_path, monkeypatch):
    path = tmp_path / "m"
    model.save(path)
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    with torch.no_grad():
        model.decoder.output.bias += 1

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    for module, where in ((checkpoint, "save_file"), (folders, "_sync")):
        with monkeypatch.context() as patch:
            patch.setattr(module, where, fail)
            with pytest.raises(OSError, match="No space"):
                model.save(path)
        assert {p.name: p.read_bytes() for p in path.iterdir()} == before
        assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_save_killed_between_its_two_renames_is_found_again(model, tmp_path, monkeypatch):
    path = tmp_path / "m"
    model.save(path)
    real = type(path).rename

    def killed(self, target):
        if target == path and self.name != ".m.old":
            raise KeyboardInterrupt  # the old folder has moved away, the new one has not come
        return real(self, target)

    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)  # as where the system has none
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            model.save(path)
    toolkit.load(path)
    path.rename(tmp_path / ".m.old")  # a kill -9 leaves no time to put it back
    toolkit.load(path)
    model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def damage(folder, name, change):
    data = (folder / name).read_bytes()
    if change == "missing":
        (folder / name).unlink()
    elif change == "pickle":
        (folder / name).write_bytes(pickle.dumps(Hostile()))
    else:
        (folder / name).write_bytes(
            {"cut": data[: len(data) // 2], "empty": b"", "noise": b"\xff\x00" * 50}[change]
        )


@pytest.mark.parametrize("change", ["missing", "cut", "empty", "noise", "pickle"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "tokenizer.bin"])
def test_a_damaged_folder_is_refused_in_one_line(model, tmp_path, name, change):
    model.save(tmp_path / "m")
    damage(tmp_path / "m", name, change)
    with pytest.raises(UserError) as caught:
        toolkit.load(tmp_path / "m")
    assert str(tmp_path / "m") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_folders_are_refused(model, tmp_path):
    for path, message in {
        tmp_path / "none": "no such model folder",
        tmp_path: "not a model folder",
        __file__: "is a file",
    }.items():
        with pytest.raises(UserError, match=message):
            toolkit.load(path)
    model.save(tmp_path / "m")
    file = tmp_path / "m" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    for change, message in {
        "format: 99": "newer version",
        "decoder: 3": "does not describe a model",
        "encoder: {name: magic}": "unknown encoder 'magic'",
        "tokenizer: runes": "does not describe a model",
    }.items():
        file.write_text(yaml.safe_dump({**config, **yaml.safe_load(change)}))
        with pytest.raises(UserError, match=message):
            toolkit.load(tmp_path / "m")
    file.write_text(yaml.safe_dump({**config, "decoder": {**config["decoder"], "hidden_size": 999}}))
    with pytest.raises(UserError, match="do not belong together"):
        toolkit.load(tmp_path / "m")


def test_a_length_that_is_no_number_is_refused(tokenizer, tmp_path):
    make_model(tokenizer, encoder=RNNEncoder(tokenizer, embedding_size=8, hidden_size=8)).save(tmp_path / "m")
    file = tmp_path / "m" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["encoder"]["multi_sentence_p90"] = "many"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="does not describe a model"):
        toolkit.load(tmp_path / "m")


def test_an_unnamed_encoder_cannot_be_saved(tokenizer, tmp_path):
    from gen.models.decoder import DecoderConfig
    from gen.models.encoders import NoneEncoder

    model = Model(NoneEncoder(), DecoderConfig(len(tokenizer), 4, 4), tokenizer)
    with pytest.raises(UserError, match="register"):
        model.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_of_another_size(model, tmp_path):
    """It would name tokens that the decoder does not know, or miss some that it writes."""
    model.save(tmp_path / "m")
    for texts in (["abc"], ["abcdefghijklmnopqrstuvwxyz .,ABCDEFGHIJ"]):
        (tmp_path / "m" / "tokenizer.bin").write_bytes(CharTokenizer.train(texts).to_bytes())
        with pytest.raises(
            UserError, match=r"config.yaml does not describe a model \(ValueError: the vocabulary has"
        ):
            toolkit.load(tmp_path / "m")


def test_sizes_are_checked_before_memory_is_taken(model, tmp_path):
    """A terabyte that a configuration asks for is never allocated, nor are layers without end built."""
    model.save(tmp_path / "m")
    config = tmp_path / "m" / "config.yaml"
    whole = config.read_text()
    for old, new, message in (
        ("hidden_size: 16", "hidden_size: 400000", "weights and configuration do not belong together"),
        ("vocab_size: ", "vocab_size: 1000000000", "the vocabulary has"),
        ("num_layers: 2", "num_layers: 1000000000", "num_layers 1000000000 is more than a model can have"),
        ("hidden_size: 16", "hidden_size: -4", "does not describe a model"),
        ("metrics: {}", "metrics: 5", "does not describe a model"),
    ):
        assert old in whole
        config.write_text(whole.replace(old, new, 1))
        with pytest.raises(UserError, match=message):
            toolkit.load(tmp_path / "m")
    config.write_text(whole)
    toolkit.load(tmp_path / "m")


class Odd(NoneEncoder):
    """Keeps tensors that no state dict has, and may read a value while it is built."""

    reads = False

    def __init__(self):
        super().__init__()
        self.table = torch.arange(3)
        self.first = int(torch.ones(1)) if Odd.reads else 0
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)


@pytest.mark.parametrize("reads", [False, True])
def test_an_encoder_with_tensors_of_its_own_is_loaded(tokenizer, tmp_path, monkeypatch, reads):
    monkeypatch.setitem(ENCODERS, "odd", Odd)
    monkeypatch.setattr(Odd, "name", "odd", raising=False)
    monkeypatch.setattr(Odd, "reads", reads, raising=False)
    model = Model({"name": "odd"}, DecoderConfig(len(tokenizer), 4, 4), tokenizer)
    model.save(tmp_path / "m")
    loaded = toolkit.load(tmp_path / "m")
    assert loaded.encoder.table.tolist() == [0, 1, 2]
    assert float(loaded.encoder.scale) == 2.0
    assert loaded.score(["abc"])[0].log_probs == model.eval().score(["abc"])[0].log_probs


def test_a_loaded_model_is_the_saved_one(tokenizer, tmp_path):
    """Ties, dtypes and what learns, though the model was built without memory and without values."""
    model = Model({"name": "none"}, DecoderConfig(len(tokenizer), 4, 4, tie_embeddings=True), tokenizer)
    model.half().save(tmp_path / "m")
    loaded = toolkit.load(tmp_path / "m")
    assert loaded.decoder.output.weight is loaded.decoder.embedding.weight
    for name, parameter in loaded.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.requires_grad
        assert torch.equal(parameter, model.get_parameter(name).float())
