"""Writing characters with a 2-layer LSTM of 512: our search against a plain loop over `nn.LSTM`, T = 1."""

from __future__ import annotations

import time

import torch
from torch import nn

from gen.decoder import DecoderConfig
from gen.model import Model
from gen.tokenizer import CharTokenizer

TOKENS = 100


class PlainModel(nn.Module):
    """A character model as its users write it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        decoder = model.decoder
        self.embedding, self.output = decoder.embedding, decoder.output
        self.lstm = nn.LSTM(decoder.config.embedding_size, 512, num_layers=2, batch_first=True)
        layers = [*decoder.reader.layers, *decoder.writer.layers]
        for i, layer in enumerate(layers):  # the same weights, so the same work
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(self.lstm, f"{kind}_l{i}").data.copy_(getattr(layer, f"{kind}_l0").data)

    @torch.no_grad()
    def write(self, batch: int, tokens: int) -> torch.Tensor:
        """Samples characters at temperature 0.8."""
        token_ids = torch.ones(batch, 1, dtype=torch.int64)
        state = None
        written = []
        for _ in range(tokens):
            outputs, state = self.lstm(self.embedding(token_ids), state)
            logits = self.output(outputs[:, -1]) / 0.8
            token_ids = torch.multinomial(logits.softmax(-1), 1)
            written.append(token_ids)
        return torch.cat(written, 1)


def seconds(what, *arguments, **options):
    began = time.perf_counter()
    what(*arguments, **options)
    return time.perf_counter() - began


def run():
    tokenizer = CharTokenizer([chr(c) for c in range(32, 127)])
    config = DecoderConfig(len(tokenizer), embedding_size=512, hidden_size=512, num_layers=2)
    model = Model({"name": "none"}, config, tokenizer).eval()
    plain = PlainModel(model).eval()
    for batch, bar in ((1, 6.0), (16, None), (64, 1.0)):
        prompts = [""] * batch
        options = {"temperature": 0.8, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
        model.generate(prompts, **options)
        plain.write(batch, 10)
        # In turn, so that both meet the machine in the same mood.
        pairs = [
            (seconds(model.generate, prompts, **options), seconds(plain.write, batch, TOKENS)) for _ in range(7)
        ]
        ours, baseline = (batch * TOKENS / min(times) for times in zip(*pairs, strict=True))
        yield {
            "what": f"characters, 2-layer LSTM 512, batch {batch}",
            "ours": f"{ours:,.0f} tokens/s",
            "baseline": f"{baseline:,.0f} tokens/s (nn.LSTM, T = 1)",
            "ratio": f"{ours / baseline:.2f}",
            "bar": f"≥ {bar}" if bar else "",
        }
