"""`make soak`: `gen serve` under 64 clients, a third of which hang up, read slowly, or send rubbish. Some of it is
made by schemathesis from the OpenAPI description (`pip install schemathesis`).

    python -m tests.soak_serve [minutes]

No answer may be lost, mixed up or a 5xx; memory must not grow by 5% after the first minute; and SIGTERM in the
middle of it all must lose nothing that was accepted.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core import NotSet

from gen import runtime
from gen.serve.app import ENDPOINTS
from gen.serve.schema import describe
from tests.bench.serve import memory, serving, write_model

CLIENTS = 64
TEXT = "It was the best of times, it was the worst of times"
_PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
RUBBISH = (
    *(b"", b"{", b"[]", b"null", b'"a"', b"\xff\xfe", b"[" * 50_000, b"x" * 100_000, b'{"model": "float32"'),
    *(
        b'{"prompt": "\\ud800"}',
        b'{"model": "float32", "temperature": 1e400}',
        b'{"q": "a", "target": "\xc3\xa9"}',
    ),
    *(
        json.dumps({"model": "float32", **wrong}).encode()
        for wrong in (
            {"model": 3},
            {"prompt": ["a", 3]},
            {"n": 10**9},
            {"stop": [""]},
            {"seed": -1, "max_tokens": -5},
            {"messages": [_PICTURE]},
        )
    ),
)
PATHS = (
    "/v1/completions",
    "/v1/chat/completions",
    "/translate",
    "/api/next",
    "/api/generate",
    "/api/classify",
    "/x",
)


def malformed(most=40):
    """(path, body) pairs that schemathesis makes from the OpenAPI description, half of them as it allows; where a
    body names a model, half the time it is the one that is there."""
    schema = schemathesis.openapi.from_dict(describe(ENDPOINTS))
    found = []
    for operation in (each.ok() for each in schema.get_all_operations()):
        for mode in GenerationMode if operation.method.upper() == "POST" else ():

            @settings(
                max_examples=most,
                database=None,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy(generation_mode=mode))
            def collect(case):
                body = None if isinstance(case.body, NotSet) else case.body
                if isinstance(body, dict) and "model" in body and len(found) % 2:
                    body = {**body, "model": "float32"}
                found.append((case.path, body if isinstance(body, bytes) else json.dumps(body).encode()))

            collect()
    return found


def requests(model, count, rng):
    """(request, its text) pairs."""
    asked = []
    for i in range(count):
        options = {"max_new_tokens": rng.randint(1, 80)}
        kinds = ({"seed": i}, {"seed": i, "top_k": 9}, {"temperature": 0.0}, {"beam": 3}, {"seed": i, "stop": "e"})
        options |= kinds[i % len(kinds)] if i % 7 else {"seed": i, "repetition_penalty": 1.2}
        prompt = TEXT[: rng.randint(0, len(TEXT))]
        output = model.generate(prompt, attention=False, **options)
        asked.append(({"input": prompt, **options}, output.text))
    return asked


class Soak:
    """The clients, and what went wrong with them."""

    def __init__(self, url, asked, rubbish):
        self.url, self.asked, self.rubbish = url, asked, rubbish
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.stopping = False

    async def client(self, number, until):
        rng = random.Random(number)
        async with httpx.AsyncClient(base_url=self.url, timeout=120) as client:
            while time.monotonic() < until and not self.stopping:
                way = rng.choice(("whole", "whole", "stream", "stream", "hang up", "slow", "rubbish"))
                try:
                    await getattr(self, "_" + way.replace(" ", "_"))(client, rng)
                except httpx.TransportError as error:
                    # At the end the server takes no new connections, and closes idle ones.
                    if not self.stopping or isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                        self._note(f"{way}: {type(error).__name__}: {error}")
                    return
                self.counts[way] += 1

    def _note(self, problem):
        self.wrong.append(problem)
        print(problem, flush=True)

    async def _whole(self, client, rng):
        asked, text = rng.choice(self.asked)
        answer = await client.post("/api/generate", json=asked)
        if answer.status_code != 200 or answer.json()["outputs"][0]["text"] != text:
            self._note(f"{answer.status_code} for {asked}: {answer.text[:200]}, not {text!r}")

    async def _stream(self, client, rng, pause=0.0):
        asked, text = rng.choice(self.asked)
        found = None
        async with client.stream("POST", "/api/generate", json={**asked, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    found = json.loads(line[6:])
                    await asyncio.sleep(pause)
        if not found or found["type"] != "done" or found["outputs"][0]["text"] != text:
            self._note(f"stream of {asked}: ended with {found}")

    async def _slow(self, client, rng):
        await self._stream(client, rng, pause=0.05)

    async def _hang_up(self, client, rng):
        asked, _ = rng.choice(self.asked)
        body = json.dumps({**asked, "max_new_tokens": 2000, "stream": rng.random() < 0.5}).encode()
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        head = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        data = head + body
        writer.write(data[: rng.randint(1, len(data))] if rng.random() < 0.2 else data)
        await asyncio.sleep(rng.random() * 0.2)
        writer.close()

    async def _rubbish(self, client, rng):
        path, content = rng.choice(self.rubbish)
        if rng.random() < 0.25:  # a request with a byte changed
            data = bytearray(json.dumps(rng.choice(self.asked)[0]).encode())
            data[rng.randrange(len(data))] = rng.randrange(256)
            content = bytes(data)
        answer = await client.post(path, content=content)
        if answer.status_code >= 500 or (answer.status_code >= 400 and "error" not in answer.json()):
            self._note(f"{answer.status_code} for {content[:200]!r}: {answer.text[:200]}")


async def soak(url, process, asked, rubbish, seconds):
    """Runs the clients, with a SIGTERM at the end; returns what went wrong."""
    run = Soak(url, asked, rubbish)
    began = time.monotonic()
    clients = [asyncio.create_task(run.client(i, began + seconds + 60)) for i in range(CLIENTS)]
    sizes = []
    while (passed := time.monotonic() - began) < seconds:
        await asyncio.sleep(min(5, seconds - passed))
        sizes.append((time.monotonic() - began, memory(process.pid)))
    after = [size for at, size in sizes if at > min(60, seconds / 2)]
    grown = max(after) / after[0] - 1
    metrics = httpx.get(f"{url}/metrics").text
    print(f"memory {after[0] >> 20} MB, then at most {max(after) >> 20} MB ({100 * grown:+.1f}%)", flush=True)
    run.stopping = True
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    print(dict(run.counts), *[line for line in metrics.splitlines() if line.startswith("gen_tokens{")], flush=True)
    status = await asyncio.to_thread(process.wait, 200)
    said = "".join(process.said)
    problems = run.wrong + [f"memory grew by {100 * grown:.1f}%"] * (grown > 0.05)
    problems += [f"exit status {status}"] * (status != 0) + [said] * ("Traceback" in said)
    return problems


def main() -> int:
    seconds = 60 * float(sys.argv[1] if len(sys.argv) > 1 else 10)
    with tempfile.TemporaryDirectory(prefix="gen-soak-serve-") as name:
        folder = write_model(Path(name)).parent / "float32"  # in int8, rows depend a little on the others
        asked = requests(runtime.load(folder, 1), 300, random.Random(0))
        rubbish = [*malformed(), *((path, content) for path in PATHS for content in RUBBISH)]
        with serving(folder) as (port, process, _):
            problems = asyncio.run(soak(f"http://127.0.0.1:{port}", process, asked, rubbish, seconds))
    print(*problems[:20], f"{len(problems)} problems", sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
