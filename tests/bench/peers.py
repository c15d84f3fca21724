"""The same work with other toolkits, if they are installed: JoeyNMT (a recurrent encoder-decoder with input
feeding) and Keras (a character LSTM). Each runs in a separate process with its defaults."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import torch

from gen.models.batch import Batch
from gen.models.decoder import DecoderConfig
from gen.models.model import Model
from gen.training import machine
from gen.training.options import TrainOptions
from gen.training.step import Stepper
from gen.training.task import Task
from tests.bench import translation
from tests.bench.decode import SIZE, TOKENIZER, TOKENS, alone, row, seconds

B, T = 64, 128  # characters


@cache
def joeynmt():
    """A model with the sizes of `translation.build`, and its optimizer."""
    from joeynmt.model import build_model
    from joeynmt.vocabulary import Vocabulary

    specials = {"unk": 0, "pad": 1, "bos": 2, "eos": 3, "sep": 4}
    names = {f"{name}_token": f"<{name}>" for name in specials} | {"sep_token": None}
    ids = {f"{name}_id": i for name, i in specials.items()}
    words = [f"w{i}" for i in range(translation.VOCABULARY - 4)]
    vocabulary = Vocabulary(words, SimpleNamespace(**names, **ids, lang_tags=[]))
    embeddings = {"embedding_dim": translation.EMBEDDING}
    sizes = {"type": "recurrent", "rnn_type": "lstm", "num_layers": 2, "embeddings": embeddings}
    config = {
        "encoder": {**sizes, "hidden_size": translation.ENCODER, "bidirectional": True},
        "decoder": {**sizes, "hidden_size": translation.HIDDEN, "attention": "luong", "input_feeding": True},
        "tied_softmax": False,
    }
    model = build_model(config, vocabulary, vocabulary).train()
    model.loss_function = ("crossentropy", 0.0)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def joeynmt_seconds(rows, length):
    """Seconds of a training step on ``rows`` pairs of ``length`` tokens."""
    model, optimizer = joeynmt()
    source = torch.randint(4, translation.VOCABULARY, (rows, length))
    target = torch.randint(4, translation.VOCABULARY, (rows, length + 1))
    everything = {
        "src": source,
        "src_length": torch.full((rows,), length),
        "src_mask": torch.ones(rows, 1, length, dtype=torch.bool),
        "trg_input": target[:, :-1],
        "trg": target[:, 1:],
        "trg_mask": torch.ones(rows, 1, length, dtype=torch.bool),
    }

    def step():
        optimizer.zero_grad()
        model(return_type="loss", **everything)[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return seconds(step)


@cache
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    layers = [
        keras.layers.Embedding(len(TOKENIZER), SIZE),
        keras.layers.LSTM(SIZE, return_sequences=True),
        keras.layers.LSTM(SIZE, return_sequences=True),
        keras.layers.Dense(len(TOKENIZER)),
    ]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=loss)
    return model


def keras_training(rows, length):
    """Seconds of a training step."""
    ids = np.random.default_rng(0).integers(4, len(TOKENIZER), (rows, length + 1))
    return seconds(keras().train_on_batch, ids[:, :-1], ids[:, 1:])


def keras_writing(tokens):
    """Seconds of sampling ``tokens`` characters as in Keras's example, which reads the whole window for each."""
    model, rng = keras(), np.random.default_rng(0)

    def write():
        written = [1]
        for _ in range(tokens):
            logits = np.asarray(model.predict(np.array([written[-40:]]), verbose=0))[0, -1] / 0.8
            weights = np.exp(logits - logits.max())
            written.append(int(rng.choice(len(weights), p=weights / weights.sum())))

    return seconds(write)


def against_joeynmt():
    step = Stepper(translation.build().train(), Task(), TrainOptions(learning_rate=1e-3))
    with alone() as peer:
        times = [
            (seconds(step, [batch], None, 0.0), peer(joeynmt_seconds, 128, 16)) for batch in translation.batches()
        ]
    ours, theirs = (128 * 16 / min(each) for each in zip(*times[1:], strict=True))
    yield row("translation, training, 2,000 target tokens a batch", ours, theirs, "tokens/s", "JoeyNMT", None)


def against_keras():
    config = DecoderConfig(len(TOKENIZER), embedding_size=SIZE, hidden_size=SIZE, num_layers=2)
    model = Model({"name": "none"}, config, TOKENIZER)
    step = Stepper(model.train(), Task(), TrainOptions())
    ids = torch.randint(4, len(TOKENIZER), (B, T + 1))
    batch = Batch({}, ids[:, :-1], ids[:, 1:])
    options = {"temperature": 0.8, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
    with alone() as peer:
        trained = [(seconds(step, [batch], None, 0.0), peer(keras_training, B, T)) for _ in range(4)]
        written = [(seconds(model.generate, "", **options), peer(keras_writing, 20)) for _ in range(3)]
    ours, theirs = (B * T / min(each) for each in zip(*trained[1:], strict=True))
    yield row("characters, training a 2-layer LSTM 512", ours, theirs, "tokens/s", "Keras on torch", None)
    ours, theirs = TOKENS / min(a for a, _ in written), 20 / min(b for _, b in written)
    yield row("characters, writing with it", ours, theirs, "tokens/s", "Keras on torch", None)


def run():
    machine.tune_cpu()
    if find_spec("joeynmt"):
        yield from against_joeynmt()
    if find_spec("keras"):
        yield from against_keras()
