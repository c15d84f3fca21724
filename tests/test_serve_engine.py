"""Continuous batching: what a request gets is what `generate` gives, whoever else is there."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from gen import runtime
from gen.models import export
from gen.models.memory import Memory
from gen.models.model import Model
from gen.search import Processor
from gen.serve.engine import Busy, Engine
from gen.serve.job import Job
from gen.serve.limits import Limits
from gen.serve.models import Served, names_of
from gen.serve.rows import Rows
from tests.serving import SENTENCES, captioner, together, translator, writer

WAYS = {
    "greedy": {"temperature": 0.0},
    "sampling": {"seed": 3},
    "cut": {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 4},
    "top-p": {"temperature": 1.2, "top_p": 0.8, "min_p": 0.02, "seed": 5},
    "several": {"temperature": (0.5, 0.0, 1.0), "num_samples": 2, "seed": 6},
    "strategy": {"strategy": "greedy"},
    "stop": {"seed": 7, "stop": ("t", " c")},
    "beam": {"beam": 4, "n_best": 3, "length_penalty": 1.2},
    "diverse": {"beam": 4, "beam_groups": 2, "n_best": 4},
    "processors": {
        "seed": 8,
        "num_samples": 2,
        "min_new_tokens": 9,
        "no_repeat_ngram": 2,
        "repetition_penalty": 1.3,
    },
    "banned beam": {"beam": 3, "ban": ("a",), "min_new_tokens": 5},
    "prefix": {"beam": 2, "prefix": "the"},
    "must": {"beam": 3, "n_best": 2, "must": ("mat|zz", "dog")},
}
PROMPTS = ["", "t", "the cat ", "the dog ran to the cat, and"]


def flat(output):
    return [(h.token_ids, h.text, h.finished, h.seed, h.temperature, len(h.log_probs)) for h in output]


@pytest.fixture(scope="module")
def model():
    return writer()


@pytest.fixture(scope="module")
def engine(model):
    engine = Engine(model)
    yield engine
    engine.close()


def ways(most=40):
    return [{"max_new_tokens": length, **way} for way in WAYS.values() for length in (9, 13, most)]


@pytest.mark.parametrize("way", WAYS)
def test_alone(engine, model, way):
    options = {**WAYS[way], "max_new_tokens": 30}
    for prompt in PROMPTS:
        (found,) = together(engine, model, [(prompt, options)])
        expected = model.generate(prompt, **options)
        assert flat(found) == flat(expected)
        np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], rtol=1e-5)


def test_among_others(engine, model):
    asked = [(prompt, options) for prompt in PROMPTS for options in ways()]
    random.Random(0).shuffle(asked)
    found = together(engine, model, asked)
    for (prompt, options), output in zip(asked, found, strict=True):
        assert flat(output) == flat(model.generate(prompt, **options))
    assert engine.rows == engine.waiting == 0


def test_few_rows_make_others_wait(model):
    """A request wider than all rows together is refused earlier; the engine itself takes it alone."""
    engine = Engine(model, most_rows=3)
    asked = [
        ("the", {"beam": 4, "max_new_tokens": 5}),
        *[("", {"seed": i, "max_new_tokens": 9}) for i in range(8)],
    ]
    for (prompt, options), output in zip(asked, together(engine, model, asked), strict=True):
        assert flat(output) == flat(model.generate(prompt, **options))
    engine.close()


@pytest.mark.parametrize("attention", ["dot", "additive", "multihead", "none"])
def test_memories_of_different_lengths(attention):
    model = translator(attention)
    ways = [{}, {"temperature": 0.0}, {"temperature": 1.0, "num_samples": 3, "seed": 1}, {"beam": 2, "n_best": 2}]
    asked = [(s, way) for way in ways for s in [*SENTENCES, " ".join(SENTENCES * 3)]] * 2
    engine = Engine(model)
    for (sentence, options), output in zip(asked, together(engine, model, asked, True), strict=True):
        expected = model.generate(sentence, **options)
        assert flat(output) == flat(expected)
        for ours, theirs in zip(output, expected, strict=True):
            if attention == "none":
                assert ours.attention is None
            else:
                np.testing.assert_allclose(ours.attention, theirs.attention, atol=1e-5)
    engine.close()


def test_exported_models(tmp_path):
    pytest.importorskip("onnxscript")
    export.export(translator(), tmp_path / "out")
    model = runtime.load(tmp_path / "out", 1)
    asked = [(s, way) for way in ({}, {"temperature": 0.8, "seed": 2}) for s in [*SENTENCES, " ".join(SENTENCES)]]
    engine = Engine(model)
    for (sentence, options), output in zip(asked, together(engine, model, asked), strict=True):
        assert flat(output) == flat(model.generate(sentence, **options))
    engine.close()


def test_pictures():
    model = captioner()
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (3, 224, 224), np.uint8) for _ in range(3)]
    engine = Engine(model)
    found = together(engine, model, [(p, {}) for p in pictures], True)
    for picture, output in zip(pictures, found, strict=True):
        expected = model.generate(picture)
        assert flat(output) == flat(expected)
        np.testing.assert_allclose(output.attention, expected.attention, atol=1e-5)
    engine.close()


def test_memories_are_padded():
    long, short = torch.rand(1, 5, 4), torch.rand(2, 3, 4)
    memories = [
        Memory(v, torch.ones(v.shape[:2], dtype=torch.bool), v[:, 0], (v.transpose(1, 2),)) for v in (long, short)
    ]
    joined = Memory.join(memories)
    assert joined.mask.tolist() == [[True] * 5] + [[True] * 3 + [False] * 2] * 2
    assert torch.equal(joined.values[1:, :3], short)
    assert joined.values[1:, 3:].abs().sum() == 0
    assert torch.equal(joined.attention_cache[0], joined.values.transpose(1, 2))


def test_rows_of_a_request_that_goes_are_free(engine, model):
    async def go():
        jobs = [
            Job(
                model.prepare([""], max_new_tokens=100_000, min_new_tokens=least, seed=1, attention=False),
                streams=True,
            )
            for least in (0, 100_000)  # in shared rows, and with a processor in a search of its own
        ]
        for job in jobs:
            job.search.never = (*job.search.never, model.tokenizer.eos_id)
            engine.submit(job)
        for job in jobs:
            while not job.said:
                await job.news.wait()
                job.news.clear()
        assert engine.rows == 2
        for job in jobs:
            engine.cancel(job)
        while engine.rows:
            await asyncio.sleep(0.001)
        assert not any(job.done for job in jobs)
        assert engine._memories == ([], None)

    asyncio.run(go())


class Broken(Processor):
    def __call__(self, log_probs, lengths):
        raise ZeroDivisionError("broken")


def test_what_fails_is_said_and_others_go_on(model):
    engine = Engine(model)
    options = {"seed": 1, "max_new_tokens": 9}

    def unable():
        raise ValueError("before a step")
        yield

    async def go():
        bad = Job(model.prepare([""], processors=[Broken()]))
        worse = Job(model.prepare([""], beam=2, max_new_tokens=9))
        worse.search.unroll = unable
        good = [Job(model.prepare([""], **options)), Job(model.prepare([""], beam=2, max_new_tokens=9))]
        for job in (good[0], bad, worse, good[1]):
            engine.submit(job)
        while not all(job.done for job in (bad, worse, *good)):
            await asyncio.sleep(0.001)
        return bad, worse, good

    bad, worse, good = asyncio.run(go())
    assert bad.error == "ZeroDivisionError: broken"
    assert worse.error == "ValueError: before a step"
    assert good[0].hypotheses[0].text == model.generate("", **options).text
    assert good[1].hypotheses[0].text == model.generate("", beam=2, max_new_tokens=9).text
    engine.close()


def test_a_step_that_fails_is_the_error_of_all_in_it(model):
    engine = Engine(model)
    options = {"seed": 1, "max_new_tokens": 9}

    def broken(*_):
        raise MemoryError("no room")

    async def go():
        job = Job(model.prepare([""], **options))
        job.search.start = replace(job.search.start, step=broken)
        engine.submit(job)
        await job.news.wait()
        return job

    assert asyncio.run(go()).error == "MemoryError: no room"
    assert flat(together(engine, model, [("", options)])[0]) == flat(model.generate("", **options))
    engine.close()


def test_what_is_done_before_a_step_fails_is_told(model, monkeypatch):
    engine = Engine(model)
    observe = Rows.observe

    def broken(self, *arguments):
        if done := observe(self, *arguments):
            raise MemoryError(f"after {len(done)}")
        return done

    monkeypatch.setattr(Rows, "observe", broken)

    async def go():
        jobs = [Job(model.prepare([""], seed=1, max_new_tokens=length)) for length in (2, 30)]
        with engine._condition:  # so that both begin with the same step
            for job in jobs:
                engine.submit(job)
        for job in jobs:
            await asyncio.wait_for(job.news.wait(), 60)
        return jobs

    short, long = asyncio.run(go())
    assert short.hypotheses[0].text == model.generate("", seed=1, max_new_tokens=2).text
    assert (short.error, long.error) == ("", "MemoryError: after 1")
    engine.close()


def test_texts_to_come_have_their_rows(model):
    """While a prompt is read it has one row, and then as many as texts."""
    engine = Engine(model, most_rows=4)
    rows = []

    async def go():
        jobs = []
        for i in range(6):
            job = Job(model.prepare(["the cat sat "], num_samples=2, seed=i, max_new_tokens=20, attention=False))
            step = job.search.start.step
            job.search.start = replace(
                job.search.start, step=lambda ids, state, step=step: rows.append(len(ids)) or step(ids, state)
            )
            jobs.append(job)
        for job in jobs:
            engine.submit(job)
        while not all(job.done for job in jobs):
            await asyncio.sleep(0.001)

    asyncio.run(go())
    assert max(rows) == 4
    engine.close()


def test_a_long_memory_waits_until_it_fits():
    """Each row has a copy of the longest."""
    model, sentences = translator(), [SENTENCES[0]] * 2 + [" ".join(SENTENCES)] * 2
    longest = model.prepare(sentences[2:]).mask.shape[1]
    engine = Engine(model, most_positions=2 * longest - 1)
    steps = []

    async def go():
        jobs = []
        for sentence in sentences:
            job = Job(model.prepare([sentence], temperature=0.0))
            step = job.search.start.step
            job.search.start = replace(
                job.search.start,
                step=lambda ids, state, step=step: steps.append(state.memory.mask.shape) or step(ids, state),
            )
            jobs.append(job)
        with engine._condition:  # so that all wait for the same step
            for job in jobs:
                engine.submit(job)
        while not all(job.done for job in jobs):
            await asyncio.sleep(0.001)
        return jobs

    jobs = asyncio.run(go())
    assert [job.hypotheses[0].text for job in jobs] == [model(s, temperature=0.0) for s in sentences]
    assert {rows for rows, positions in steps if positions == longest} == {1}
    assert 2 in {rows for rows, _ in steps}
    engine.close()


def test_tokens_of_a_stream_are_told_together(model, monkeypatch):
    monkeypatch.setattr("gen.serve.engine.TELL_SECONDS", 3600)
    engine, told = Engine(model), []

    async def go():
        job = Job(model.prepare([""], seed=1, max_new_tokens=50, min_new_tokens=50), streams=True)
        engine.submit(job)
        while not job.done or job.said:
            await job.news.wait()
            job.news.clear()
            told.append(len(job.said))
            job.said.clear()

    asyncio.run(go())
    assert sum(told) == 50
    assert len(told) <= 2  # the first at once, the others with the end
    engine.close()


def test_nan_is_the_error_of_its_own_request():
    model = translator("none")
    engine = Engine(model)
    bad = Job(model.prepare([SENTENCES[0]], temperature=0.0))
    state = bad.search.start.state.decoder
    state.layers[0][0].fill_(float("nan"))
    good = Job(model.prepare([SENTENCES[1]], temperature=0.0))

    async def go():
        for job in (bad, good):
            engine.submit(job)
        while not (bad.done and good.done):
            await asyncio.sleep(0.001)

    asyncio.run(go())
    assert "NaN" in bad.error
    assert good.hypotheses[0].text == model.generate(SENTENCES[1], temperature=0.0).text
    engine.close()


def test_the_queue_has_an_end(model):
    engine = Engine(model, most_rows=1, most_waiting=2)

    async def go():
        options = {"max_new_tokens": 100_000, "min_new_tokens": 100_000, "seed": 1, "attention": False}
        jobs = [Job(model.prepare([""], **options)) for _ in range(4)]
        engine.submit(jobs[0])
        while engine.waiting:
            await asyncio.sleep(0.001)
        engine.submit(jobs[1])
        engine.submit(jobs[2])
        with pytest.raises(Busy):
            engine.submit(jobs[3])
        engine.cancel(jobs[1])  # leaves its place to another
        engine.submit(jobs[3])
        assert engine.waiting == 2
        for job in jobs:
            engine.cancel(job)

    asyncio.run(go())
    engine.close()


def test_a_better_model_takes_over(tmp_path, monkeypatch):
    run = tmp_path / "book"
    writer(0).save(run / "best")
    served = Served("book", str(run), Model.load, Limits())
    options = {"temperature": 0.0, "max_new_tokens": 12}
    assert not served.reload()
    old, old_model = served.engine, served.model
    writer(1).save(run / "best")
    assert served.reload()
    assert not served.reload()
    (found,) = together(served.engine, served.model, [("the ", options)])
    assert flat(found) == flat(writer(1).generate("the ", **options))
    (before,) = together(old, old_model, [("the ", options)])  # who had it in hand may still use it
    assert flat(before) == flat(writer(0).generate("the ", **options))
    (run / "best" / "config.yaml").write_text("{")  # damaged: the one that works stays
    assert not served.reload()
    defaults = served.defaults
    bad = writer(2)
    bad.info.search = {"beam": 3}
    with monkeypatch.context() as patch:
        patch.setattr(served, "_load", lambda run: bad)
        patch.setattr("gen.serve.models.Engine", lambda *_: 1 / 0)
        (run / "best" / "config.yaml").write_text("{ }")
        assert not served.reload()
        assert served.defaults is defaults
    monkeypatch.setattr(served, "_load", lambda run: 1 / 0)  # what nobody foresaw
    (run / "best" / "config.yaml").write_text("{}")
    assert not served.reload()
    assert flat(together(served.engine, served.model, [("the ", options)])[0]) == flat(found)
    served.engine.close()


def test_a_run_that_goes_on_is_loaded_again(tmp_path):
    run = tmp_path / "book"
    writer(0).save(run / "last")
    (run / "config.yaml").write_text("data: book.txt\n")  # what was asked of the training
    served = Served("book", str(run), Model.load, Limits())
    assert not served.reload()
    options = {"temperature": 0.0}
    for seed in (1, 2):  # the first that is the best, and a better one
        writer(seed).save(run / "best")
        assert served.reload()
        assert not served.reload()
        (found,) = together(served.engine, served.model, [("the ", options)])
        assert flat(found) == flat(writer(seed).generate("the ", **options))
    shutil.copy(run / "last" / "model.safetensors", run / "best")  # as who copies files over a folder does
    assert served.reload()
    served.engine.close()


def test_names():
    assert names_of(["runs/a", "b=runs/a/best", "hf:user/c"]) == {
        "a": "runs/a",
        "b": "runs/a/best",
        "c": "hf:user/c",
    }
    assert list(names_of(["x/run", "y/run"])) == ["x/run", "y/run"]
