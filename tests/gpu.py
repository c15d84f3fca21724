"""Figures of a machine with CUDA, in under four minutes: `python -m tests.gpu [FILE]` (default: runs/gpu.json).

Runs the tests marked ``cuda``, and measures training in every precision, torch's recurrent layers, a step of
search as a captured graph, what happens when memory runs out, and the sizes that a budget of time gets. All data
is generated. Without CUDA the same code runs on the CPU, tiny, and the file says what was skipped. A part that
fails has an "error"; then the exit status is 1.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tasks.data.phrasebook import phrase_book
from tasks.data.prose import python_documentation
from tasks.data.shapes import write_shapes
from torch import nn

import gen
from gen.base.config import flat
from gen.inputs.tokenizer import WordTokenizer
from gen.models.batch import Batch
from gen.models.decoder import Decoder, DecoderConfig
from gen.models.device import autocast, pick_device
from gen.models.memory import Memory
from gen.models.model import Model
from gen.models.recurrent import RecurrentStack
from gen.training.config import make_config
from gen.training.options import TrainOptions
from gen.training.registry import find_task
from gen.training.session import Session
from gen.training.step import Stepper
from gen.training.task import Task

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SECONDS = 6  # of training, per task and precision
TINY = {"hidden_size": 16, "embedding_size": 8, "dropout": 0.0, "embedding_dropout": 0.0, "learning_rate": 0.01}


class Machine:
    """A device, the folder of the data that is generated for it, and the options of each task."""

    def __init__(self, device, folder):
        self.device, self.cuda = device, device.type == "cuda"
        (folder / "text.txt").write_text(python_documentation()[: None if self.cuda else 4000])
        for name, held_out, size in (("train", False, 20_000), ("valid", True, 200)):
            pairs = phrase_book(size if self.cuda else 20, held_out=held_out)
            lines = [f"{english}\t{french}\n" for english, french, _ in pairs]
            (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
        write_shapes(folder / "pictures", *((2000, 100) if self.cuda else (3, 1)))
        self.folder = folder
        self.options = {
            "text": {"data": folder / "text.txt"},
            "translate": {"data": folder / "train.tsv", "valid": folder / "valid.tsv"},
            "caption": {"images": folder / "pictures"},
        }
        if not self.cuda:
            self.options["text"] |= {**TINY, "batch_size": 2, "chunk": 16}
            self.options["translate"] |= {**TINY, "encoder_size": 8, "level": "word"}
            self.options["caption"] |= {**TINY, "memory_size": 8, "weights": "none", "augment": 0}

    def skipped(self, what):
        return {"skipped": f"{what} needs CUDA"}

    def seconds(self, work, rounds):
        """Seconds of a call: the median, after calls that compile and fill caches."""
        times = []
        for _ in range(rounds + 3 if self.cuda else 2):
            began = time.perf_counter()
            work()
            if self.cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        times = times[3:] or times[1:]
        return sorted(times)[len(times) // 2]


def marked_tests(machine):
    """The tests marked ``cuda``."""
    if not machine.cuda:
        return machine.skipped("the tests")
    # Other files may import libraries that are only needed to test a server or documents.
    files = [
        str(path) for path in Path(__file__).parent.glob("test_*.py") if "mark.cuda" in path.read_text("utf-8")
    ]
    words = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", *sorted(files)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-500:])
    return {"summary": done.stdout.strip().splitlines()[-1]}


def training(machine):
    """Target tokens per second, validation loss in nats, peak memory, and the options that the first training of
    each task chose: task, precision → … Products of "fp32" are TF32 on CUDA."""
    found = {}
    for task, options in machine.options.items():
        chosen: dict = {}
        # The first training loads kernels, and chooses the options for all.
        for precision in ("fp32", *DTYPES):
            if precision != "fp32" and not machine.cuda:
                found[f"{task} {precision}"] = machine.skipped(precision)
                continue
            if machine.cuda:
                gc.collect()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            run = gen.train(
                task,
                budget=f"{SECONDS}s" if machine.cuda else "2 steps",
                precision=precision,
                device=machine.device.type,
                validations=1,
                **{**options, **chosen},
            )
            chosen = chosen or {name: run.config[name] for name in run.reasons}
            rates = sorted(record["tokens_per_second"] for record in run.history)
            found[f"{task} {precision}"] = {
                "tokens_per_second": rates[len(rates) // 2],
                "nats": run.metrics["loss"],
                "steps": run.history[-1]["step"],
                "peak_memory_mb": torch.cuda.max_memory_allocated() >> 20 if machine.cuda else None,
                "chosen": chosen,
            }
    return found


def recurrent_layers(machine):
    """An LSTM of 512 over 64 × 128 positions, forward and backward: which dtype comes out, and how fast. "ours" is
    what training does."""
    B, T, H = (64, 128, 512) if machine.cuda else (2, 3, 8)
    device, found = machine.device, {}

    def measure(name, layer, x, dtype):
        def work():
            layer.zero_grad(set_to_none=True)
            with autocast(device, dtype):
                outputs = layer(x)
                work.dtype = str(outputs.dtype).removeprefix("torch.")
            outputs.float().sum().backward()

        try:
            found[name] = {"ms": 1e3 * machine.seconds(work, 20), "outputs": work.dtype}
        except RuntimeError as error:  # no kernel for it
            found[name] = {"error": str(error).splitlines()[0]}

    class Plain(nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0]

    class Ours(RecurrentStack):
        def forward(self, x):
            return super().forward(x, self.zero_state(len(x)))[0]

    x = torch.randn(B, T, H, device=device)
    for name, dtype in DTYPES.items():
        if not machine.cuda and name != "fp32":
            found[name] = machine.skipped(name)
            continue
        measure(f"autocast {name}", Plain(H, H, batch_first=True).to(device), x, dtype)
        measure(f"ours {name}", Ours(H, H, 1).to(device).train(), x, dtype)
        by_hand = Plain(H, H, batch_first=True).to(device, dtype)
        measure(f"by hand {name}", by_hand, x.to(dtype), torch.float32)
    return found


def captured_step(machine):
    """Greedy steps of a decoder with attention: one by one, and as replays of one captured CUDA graph."""
    R, S, H, V, steps = (64, 20, 512, 8000, 100) if machine.cuda else (2, 3, 8, 20, 4)
    torch.manual_seed(0)
    config = DecoderConfig(V, embedding_size=H, hidden_size=H, num_layers=2, attention="dot")
    decoder = Decoder(config, H).to(machine.device).eval()
    values = torch.randn(R, S, H, device=machine.device)
    mask = torch.ones(R, S, dtype=torch.bool, device=machine.device)

    def step(token_ids, state):
        output = decoder(token_ids, state, memory)
        return output.logits.argmax(-1), output.state

    def eager():
        token_ids, state, written = first, decoder.init_state(memory), []
        for _ in range(steps):
            token_ids, state = step(token_ids, state)
            written.append(token_ids)
        return torch.cat(written, 1)

    with torch.no_grad():
        memory = decoder.prepare(Memory(values, mask, values.mean(1)))
        first = torch.full((R, 1), 1, device=machine.device)
        found = {"eager_steps_per_second": steps / machine.seconds(eager, 3)}
        if not machine.cuda:
            return {**found, "captured": machine.skipped("a graph")}
        token_ids, state = first.clone(), decoder.init_state(memory)
        held = [s.clone() for layer in state.layers for s in layer]
        two = len(held) // config.num_layers
        state = type(state)(tuple(tuple(held[i : i + two]) for i in range(0, len(held), two)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            best, after = step(token_ids, state)
            token_ids.copy_(best)
            for kept, new in zip(held, (s for layer in after.layers for s in layer), strict=True):
                kept.copy_(new)

        def captured():
            token_ids.copy_(first)
            begun = decoder.init_state(memory)
            for kept, new in zip(held, (s for layer in begun.layers for s in layer), strict=True):
                kept.copy_(new)
            written = []
            for _ in range(steps):
                graph.replay()
                written.append(token_ids.clone())
            return torch.cat(written, 1)

        same = float((captured() == eager()).float().mean())  # of nearly equal logits another may win
        if same < 0.9:
            raise RuntimeError(f"the captured step writes other tokens: {1 - same:.0%}")
        return {**found, "captured_steps_per_second": steps / machine.seconds(captured, 3), "same_tokens": same}


class Cramped(Task):
    """A loss for which rows beyond a limit are too many."""

    def loss(self, model, batch, *rest):
        if len(batch) > 3:
            raise torch.OutOfMemoryError("as if the memory were full")
        return super().loss(model, batch, *rest)


def out_of_memory(machine):
    """A step that does not fit is done in pieces, with the same loss; on the CPU full memory is only pretended."""
    B, T, H = (1024, 128, 512) if machine.cuda else (8, 4, 8)
    tokenizer = WordTokenizer([f" w{i}" for i in range(100)])
    torch.manual_seed(0)
    ids = torch.randint(4, len(tokenizer), (B, T + 1))
    batch = Batch({}, ids[:, :-1], ids[:, 1:])

    def step(task):
        torch.manual_seed(1)
        model = Model({"name": "none"}, DecoderConfig(len(tokenizer), H, H, 2), tokenizer)
        stepper = Stepper(model.to(machine.device).train(), task, TrainOptions(precision="fp32"))
        result = stepper([batch], None, 0.0)
        return stepper.pieces, float(result.loss_sum) / result.num_tokens

    if not machine.cuda:
        (_, whole), (pieces, split) = step(Task()), step(Cramped())
    else:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _, whole = step(Task())
        peak = torch.cuda.max_memory_reserved()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(machine.device).total_memory
        torch.cuda.set_per_process_memory_fraction(0.6 * peak / total)
        try:
            pieces, split = step(Task())
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    if pieces == 1 or abs(whole - split) > 1e-3:
        raise RuntimeError(f"{pieces} pieces, loss {split}, whole {whole}")
    return {"pieces": pieces, "loss_whole": whole, "loss_in_pieces": split, "pretended": not machine.cuda}


def budgets(machine):
    """What is chosen for a budget of time after a few measured steps: the machine's speed, and options."""
    found = {}
    for task in machine.options if machine.cuda else ("text",):
        for budget in ("2m", "4h") if machine.cuda else ("1s",):
            data = {name: value for name, value in machine.options[task].items() if name not in TINY}
            kind = find_task(task)
            config = make_config(kind, {**data, "budget": budget, "device": machine.device.type})
            session = Session(kind, config, writes=False)
            session.prepare()
            resolved = session.resolved
            chosen = flat(resolved.to_dict()["options"])
            found[f"{task} {budget}"] = {**resolved.measured, **{name: chosen[name] for name in resolved.reasons}}
    return found


PARTS = (marked_tests, training, recurrent_layers, captured_step, out_of_memory, budgets)


def main(words):
    """Writes the figures, after each part anew; returns 1 if a part failed."""
    path = Path(words[0] if words else "runs/gpu.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    device = pick_device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    report = {"device": name, "torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        machine = Machine(device, Path(folder))
        for part in PARTS:
            try:
                report[part.__name__] = part(machine)
            except Exception as error:  # the other parts are measured all the same
                report[part.__name__] = {"error": f"{type(error).__name__}: {error}"}
            report["seconds"] = round(time.perf_counter() - began, 1)
            path.write_text(json.dumps(report, indent=2, default=str) + "\n")
            print(json.dumps({part.__name__: report[part.__name__]}, indent=2, default=str), flush=True)
    return int(any("error" in report[part.__name__] for part in PARTS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
