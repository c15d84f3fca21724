"""Small models of every kind behind a real server, in a thread of this process."""

from __future__ import annotations

import asyncio
import base64
import http.server
import io
import threading
from contextlib import contextmanager
from functools import cache, partial

import torch
from PIL import Image

from gen.inputs.labels import LabelTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.encoders import CNNEncoder, LabelEncoder, RNNEncoder
from gen.models.model import Model
from gen.search import Output
from gen.search.confidence import Calibration, Curve
from gen.search.info import ModelInfo
from gen.serve import server
from gen.serve.app import application
from gen.serve.job import Job
from gen.serve.limits import Limits
from gen.serve.models import Models
from tests.conftest import TEXT, make_model

WORDS = WordTokenizer([f" w{i}" for i in range(60)])
SENTENCES = [
    "".join(f" w{i}" for i in row).strip() for row in ([3], [5, 9, 2, 7, 7, 1], [40, 41], [8, 8, 30, 12, 59])
]


CALIBRATION = Calibration(Curve((-9.0, -1.0, 0.0), (0.0, 0.6, 0.95)), Curve((-4.0, 0.0), (0.1, 0.9)), "chrF", {})


def calibrated(model):
    model.calibration = CALIBRATION
    return model


def writer(seed=0):
    return make_model(CharTokenizer.train([TEXT]), seed)


def translator(attention="dot", tokenizer=WORDS, copy=False):
    torch.manual_seed(0)
    encoder = RNNEncoder(WORDS, embedding_size=12, hidden_size=8, num_layers=2, max_length=9)
    config = DecoderConfig(len(tokenizer), 12, 16, 2, attention=attention, copy=copy)
    task, search = ("classify", {}) if tokenizer is not WORDS else ("translate", {"beam": 3, "max_ratio": 2.0})
    return _sharp(Model(encoder, config, tokenizer, ModelInfo(task, search=search)))


def labeller():
    return translator(tokenizer=LabelTokenizer(["sports", "world", "business"]))


def captioner():
    torch.manual_seed(0)
    encoder = CNNEncoder("alexnet", "none", memory_size=16)
    config = DecoderConfig(len(WORDS), 12, 16, 2, attention="additive")
    model = Model(encoder, config, WORDS, ModelInfo("caption", search={"beam": 3, "max_new_tokens": 8})).eval()
    with torch.no_grad():
        model.decoder.output.weight *= 30
    return model


def topics():
    torch.manual_seed(0)
    encoder = LabelEncoder({"topic": LabelTokenizer(["news", "sports"])}, 16)
    tokenizer = CharTokenizer.train([TEXT])
    config = DecoderConfig(len(tokenizer), embedding_size=12, hidden_size=16, num_layers=1)
    return _sharp(Model(encoder, config, tokenizer, ModelInfo("text")), 6)


@cache
def page_models():
    """The models that the pages of several test files have; the fixture `page_exports` exports them."""
    return {
        "topics": topics(),
        "captions": captioner(),
        "labels": labeller(),
    }


def _sharp(model, factor=3):
    """Makes choices clear, so that the last bit decides nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= factor
    return model.eval()


def picture(color="red", size=(40, 30), form="PNG"):
    """The ``data:`` URL of a picture."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def together(engine, model, asked, attention=False):
    """The outputs of (item, options) pairs that are asked for at once."""

    async def one(item, options):
        job = Job(model.prepare([item], attention=attention, **options))
        engine.submit(job)
        while not job.done:
            await job.news.wait()
            job.news.clear()
        assert not job.error
        return Output(job.hypotheses)

    async def everything():
        return await asyncio.gather(*(one(*each) for each in asked))

    return asyncio.run(everything())


@contextmanager
def folder_served(folder):
    """A folder behind a plain server of files: its address."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def running(models, limits=None, **settings):
    """A server of models by name: its address, and its `Models`."""
    found = Models({name: f"/nowhere/{name}" for name in models}, lambda run: models[run[9:]], limits or Limits())
    settings.setdefault("log", "none")
    serving = server.serving(application(found, **settings), 10)
    listening = server.listen("127.0.0.1", 0)
    thread = threading.Thread(target=serving.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", found
    finally:
        serving.should_exit = True
        thread.join()
