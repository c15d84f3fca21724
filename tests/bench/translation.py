"""Translation: a decoder of whole sequences against input feeding, and batched beam search against one sentence at
a time. Sizes and lengths are those of Multi30k: a vocabulary of 5,000 subwords, about 14 per sentence."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gen.inputs.tokenizer import WordTokenizer
from gen.models.batch import pad, sequence_batch
from gen.models.decoder import DecoderConfig
from gen.models.device import autocast, compute_dtype
from gen.models.encoders import RNNEncoder
from gen.models.model import Model
from gen.training import machine
from gen.training.options import TrainOptions
from gen.training.step import Stepper
from gen.training.task import Task
from tests.bench.decode import alone, exported, row, seconds

VOCABULARY, EMBEDDING, ENCODER, HIDDEN = 5000, 256, 160, 320
TOKENIZER = WordTokenizer([f" w{i}" for i in range(VOCABULARY - 4)])


def build():
    torch.manual_seed(0)
    encoder = RNNEncoder(TOKENIZER, embedding_size=EMBEDDING, hidden_size=ENCODER, num_layers=2)
    config = DecoderConfig(VOCABULARY, EMBEDDING, HIDDEN, 2, attention="dot", tie_embeddings=True)
    return Model(encoder, config, TOKENIZER)


class InputFeeding(nn.Module):
    """A decoder as in tutorials: `nn.LSTM` on one token and the last attention vector at a time (Luong et al.,
    2015), with the same encoder."""

    def __init__(self, encoder, vocabulary=VOCABULARY, embedding=EMBEDDING, hidden=HIDDEN):
        super().__init__()
        self.encoder, self.hidden = encoder, hidden
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding + hidden, hidden, num_layers=2, batch_first=True)
        self.query = nn.Linear(hidden, encoder.memory_size, bias=False)
        self.readout = nn.Linear(hidden + encoder.memory_size, hidden)
        self.bridge = nn.Linear(encoder.memory_size, 4 * hidden)
        self.output = nn.Linear(hidden, vocabulary)

    def start(self, memory):
        parts = torch.tanh(self.bridge(memory.summary)).float().view(-1, 4, self.hidden).transpose(0, 1)
        fed = memory.values.new_zeros(len(memory.values), self.hidden)
        return (parts[:2].contiguous(), parts[2:].contiguous()), fed

    def step(self, token_ids, state, fed, memory):
        """(R,) token ids → the attention vector (R, H) before the output layer, and the state."""
        read, state = self.lstm(torch.cat([self.embedding(token_ids), fed.float()], -1)[:, None], state)
        scores = (memory.values @ self.query(read[:, 0])[..., None].to(memory.values.dtype)).squeeze(-1)
        weights = scores.masked_fill(~memory.mask, -1e4).softmax(-1)
        context = (weights[:, None].to(memory.values.dtype) @ memory.values).squeeze(1)
        return torch.tanh(self.readout(torch.cat([read[:, 0], context], -1))), state

    def loss(self, batch):
        memory = self.encoder(batch.encoder_source)
        state, fed = self.start(memory)
        written = []
        for t in range(batch.input_ids.size(1)):
            fed, state = self.step(batch.input_ids[:, t], state, fed, memory)
            written.append(fed)
        logits = self.output(torch.stack(written, 1))
        return F.cross_entropy(logits.float().flatten(0, 1), batch.target_ids.flatten(), ignore_index=0)

    @torch.no_grad()
    def beam_search(self, source, width, limit):
        """Beam search for one prepared input, its beams as a batch; returns the best token ids."""
        memory = self.encoder(source)
        memory = type(memory)(
            *(t.repeat_interleave(width, 0) for t in (memory.values, memory.mask, memory.summary))
        )
        state, fed = self.start(memory)
        token_ids = torch.full((width,), TOKENIZER.bos_id)
        total, written = torch.tensor([0.0] + [-1e9] * (width - 1)), torch.zeros(width, 0, dtype=torch.int64)
        for _ in range(limit):
            fed, state = self.step(token_ids, state, fed, memory)
            log_probs = self.output(fed).log_softmax(-1)
            log_probs[:, TOKENIZER.eos_id] = -1e9  # both sides generate the same number of tokens
            total, best = (total[:, None] + log_probs).flatten().topk(width)
            rows, token_ids = best // log_probs.size(1), best % log_probs.size(1)
            written = torch.cat([written[rows], token_ids[:, None]], 1)
            fed, state = fed[rows], tuple(s[:, rows] for s in state)
        return written[0].tolist()


def batches(count=6, rows=128, length=15):
    rng = np.random.default_rng(0)
    for _ in range(count):
        source, target = rng.integers(4, VOCABULARY, (2, rows, length))
        yield sequence_batch({"sentence": pad(source, 0)}, list(target), TOKENIZER.bos_id, TOKENIZER.eos_id, 0)


def theirs(batch, tuned):
    """Seconds of a step of the baseline: in float32 with defaults, or with our precision and allocator. Call it
    in a separate process."""
    model, optimizer = _baseline(tuned)
    dtype = compute_dtype("auto" if tuned else "fp32", torch.device("cpu"))

    def step():
        optimizer.zero_grad()
        with autocast(torch.device("cpu"), dtype):
            loss = model.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return seconds(step)


@cache
def _baseline(tuned):
    if tuned:
        machine.tune_cpu()
    model = InputFeeding(build().encoder).train()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def training():
    step = Stepper(build().train(), Task(), TrainOptions(learning_rate=1e-3))
    with alone() as plain, alone() as tuned:
        times = [
            (seconds(step, [batch], None, 0.0), plain(theirs, batch, False), tuned(theirs, batch, True))
            for batch in batches()
        ]
    ours, *baselines = (128 * 16 / min(each) for each in zip(*times[1:], strict=True))
    for rate, how, bar in zip(baselines, ("", ", in bfloat16, allocator tuned"), (4, None), strict=True):
        against = f"input feeding, nn.LSTM a token{how}"
        yield row("translation, training, 2,000 target tokens a batch", ours, rate, "tokens/s", against, bar)


def searching(count=1014, sample=100):
    """Sentences per second: ours on ``count`` sentences, the baseline on the first ``sample``, one at a time."""
    rng = np.random.default_rng(0)
    lengths = rng.normal(13, 4, count).clip(4, 35).astype(int)
    sentences = ["".join(f" w{i}" for i in rng.integers(0, VOCABULARY - 4, n)) for n in lengths]
    model, plain = build().eval(), InputFeeding(build().encoder).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3  # as decided as a trained model, so that rounding breaks no ties
    longest = int(lengths.max())
    options = {
        "beam": 5,
        "max_ratio": 1.0,
        "max_new_tokens": longest + 11,
        "ban": (),
        "min_new_tokens": longest + 11,
    }

    small, half = exported(model), copy.deepcopy(model)
    half.precision = "auto"

    def ours(batch_size, writer=model):
        return [h[0].token_ids for h in writer.generate_many(sentences, batch_size=batch_size, **options)]

    def one_by_one():
        processor = model.processors["sentence"]
        return [
            plain.beam_search(model.encoder.prepare([s]).source, 5, len(processor.encode(s)) + 10)
            for s in sentences[:sample]
        ]

    written = one_by_one()
    found = ours(64)
    same = found[:200] == [h[0].token_ids for h in model.generate_many(sentences[:200], batch_size=7, **options)]
    equal = all(len(a) == len(b) for a, b in zip(written, found, strict=False))
    assert same, "the batch size changes the output"
    assert equal, "the two sides write outputs of different lengths"
    for writer in (half, small):
        ours(64, writer)
    times = [
        (*(seconds(ours, 64, writer) / count for writer in (model, half, small)), seconds(one_by_one) / sample)
        for _ in range(3)
    ]
    *fast, slow = (1 / min(each) for each in zip(*times, strict=True))
    for rate, way, bar in zip(fast, ("torch", "torch, bfloat16", "exported, int8"), (10, 10, 20), strict=True):
        what = f"translation, beam 5, 1,014 sentences, {way}"
        yield row(what, rate, slow, "sentences/s", "each alone, nn.LSTM a token", bar)


def run():
    machine.tune_cpu()
    yield from training()
    yield from searching()
