"""`gen serve`: 64 clients at once against one offline batch of 64, and the time to the first token; a 2-layer LSTM
of size 512 on characters, exported in int8."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from gen import runtime
from gen.models.decoder import DecoderConfig
from gen.models.model import Model
from gen.search.info import ModelInfo
from tests.bench.decode import EXPORT, SIZE, TOKENIZER

TOKENS, CLIENTS, PROMPT = 100, 64, "It was the best of times, "
SECONDS = float(os.environ.get("GEN_BENCH_SECONDS", "60"))


def write_model(folder):
    """An exported model without ends; returns its folder."""
    config = DecoderConfig(len(TOKENIZER), embedding_size=SIZE, hidden_size=SIZE, num_layers=2)
    model = Model({"name": "none"}, config, TOKENIZER, ModelInfo("text", ends_with_eos=False)).eval()
    with torch.no_grad():
        model.decoder.output.bias[TOKENIZER.eos_id] = -1e4
    folders = [folder / part for part in ("model", "float32", "int8")]
    model.save(folders[0])
    subprocess.run([sys.executable, "-W", "ignore", "-c", EXPORT, *folders], check=True)
    return folders[2]


@contextmanager
def serving(*words):
    """A server in a process of its own: (port, process, seconds until it listened)."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "gen", "serve", *map(str, words), "--port", "0", "--log", "none"]
    process = subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        seconds = time.perf_counter() - began
        process.said = []
        threading.Thread(target=lambda: process.said.extend(process.stderr), daemon=True).start()
        yield int(re.search(r":(\d+)$", line.strip())[1]), process, seconds
        process.send_signal(signal.SIGTERM)
        process.wait(200)
    finally:
        process.kill()
        process.wait()


class Client:
    """A connection that is kept: as little work as there can be, since it shares the machine with the server."""

    def __init__(self, port):
        self.port = port

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    def send(self, **asked):
        body = json.dumps({"model": "int8", "prompt": PROMPT, "temperature": 0.8, **asked}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)

    async def complete(self):
        """Tokens of one answer."""
        self.send(max_tokens=TOKENS)
        head = await self.reader.readuntil(b"\r\n\r\n")
        body = await self.reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
        return json.loads(body)["usage"]["completion_tokens"]

    async def stream(self):
        """Tokens of one answer that is streamed."""
        self.send(max_tokens=TOKENS, stream=True)
        await self.reader.readuntil(b"[DONE]")
        await self.reader.readuntil(b"0\r\n\r\n")
        return TOKENS

    async def first(self):
        """Seconds until the first token of a stream."""
        began = time.perf_counter()
        self.send(max_tokens=5, stream=True)
        await self.reader.readuntil(b'"text":')
        seconds = time.perf_counter() - began
        await self.reader.readuntil(b"[DONE]")
        await self.reader.readuntil(b"0\r\n\r\n")
        return seconds


async def load(port, clients, seconds, ask=Client.complete):
    """Tokens per second, and the seconds of every request."""
    until, tokens, took = time.perf_counter() + seconds, 0, []

    async def one():
        nonlocal tokens
        client = await Client(port).open()
        while (began := time.perf_counter()) < until:
            written = await ask(client)
            tokens += written
            took.append(time.perf_counter() - began)
        client.writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return tokens / (time.perf_counter() - began), sorted(took)


async def firsts(port, count=100):
    client = await Client(port).open()
    found = sorted([await client.first() for _ in range(count)])
    client.writer.close()
    return found


def offline(folder, seconds):
    """Tokens per second of one batch of as many prompts."""
    model = runtime.load(folder, 1)
    rates, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        model.generate([PROMPT] * CLIENTS, temperature=0.8, max_new_tokens=TOKENS, attention=False)
        rates.append(CLIENTS * TOKENS / (time.perf_counter() - began))
    return median(rates)


def memory(pid):
    """Bytes of a process."""
    return int(re.search(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def row(what, ours, baseline, ratio, bar):
    return {"what": f"gen serve, {what}", "ours": ours, "baseline": baseline, "ratio": ratio, "bar": bar}


def run():
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(Path(name))
        with serving(folder) as (port, process, started):
            began = time.perf_counter()
            asyncio.run(load(port, 1, 0.01))
            answered = started + time.perf_counter() - began
            yield row("start to first answer", f"{answered:.2f} s", "", "", "≤ 1 s")
            yield row("memory of the server", f"{memory(process.pid) >> 20} MB", "", "", "≤ 150 MB")
            first = asyncio.run(firsts(port))
            yield row("first token alone, p50", f"{1000 * median(first):.1f} ms", "", "", "≤ 20 ms")
            yield row("first token alone, p99", f"{1000 * first[98]:.1f} ms", "", "", "")
            # In turn, so that changes of the machine's speed affect all alike.
            rounds = [
                (
                    offline(folder, SECONDS / 6),
                    asyncio.run(load(port, 1, SECONDS / 6))[0],
                    asyncio.run(load(port, CLIENTS, SECONDS / 2)),
                    asyncio.run(load(port, CLIENTS, SECONDS / 2, Client.stream))[0],
                )
                for _ in range(2)
            ]
            batch, alone = (max(r[i] for r in rounds) for i in (0, 1))
            rate, took = max(r[2] for r in rounds)
            streamed = max(r[3] for r in rounds)
            against = f"{batch:,.0f} tokens/s (offline batch of {CLIENTS})"
            yield row(f"{CLIENTS} clients", f"{rate:,.0f} tokens/s", against, f"{rate / batch:.2f}", "≥ 0.80")
            yield row(
                f"{CLIENTS} streams", f"{streamed:,.0f} tokens/s", against, f"{streamed / batch:.2f}", "≥ 0.80"
            )
            against = f"{alone:,.0f} tokens/s (one client)"
            yield row(f"{CLIENTS} clients", f"{rate:,.0f} tokens/s", against, f"{rate / alone:.1f}", "≥ 8")
            p99 = took[int(0.99 * (len(took) - 1))]
            yield row(f"p99 of {CLIENTS} clients", f"{1000 * p99:.0f} ms for {TOKENS} tokens", "", "", "")
            yield row("memory after the load", f"{memory(process.pid) >> 20} MB", "", "", "≤ 150 MB")
