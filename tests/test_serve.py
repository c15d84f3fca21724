"""`gen serve`, through clients that know nothing of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import http.client
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import pytest
import torch
from libretranslatepy import LibreTranslateAPI

from gen.base.errors import UserError
from gen.inputs.items import item_labels
from gen.inputs.pictures import open_picture
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import WordTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.encoders import CNNEncoder, JoinedEncoder, RNNEncoder
from gen.models.model import Model
from gen.search.info import ModelInfo
from gen.search.labels import label_log_probs
from gen.search.options import SearchOptions
from gen.search.output import Hypothesis
from gen.serve import libretranslate, protocol, server, work
from gen.serve.choices import Choices
from gen.serve.errors import Refusal
from gen.serve.guard import Key
from gen.serve.limits import Limits
from gen.serve.models import _languages
from gen.serve.translation import Translating
from tasks.cli import main
from tasks.translate.lines import translate_lines
from tests.conftest import TEXT, make_model
from tests.serving import (
    SENTENCES,
    WORDS,
    calibrated,
    captioner,
    labeller,
    picture,
    running,
    topics,
    translator,
    writer,
)

ROOT = Path(__file__).parents[1]
MODELS = {"writer": writer(), "en-de": calibrated(translator()), "captions": captioner(), "labels": labeller()}


@pytest.fixture(scope="module")
def served():
    with running(MODELS, Limits(body=2_000_000, pixels=100_000, tokens=5000, rows=64)) as (url, models):
        yield url, models


@pytest.fixture
def url(served):
    return served[0]


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def write(prompt, **options):
    return MODELS["writer"].generate(prompt, **options)


# -- OpenAI ------------------------------------------------------------------------------------------------


def test_models(client):
    assert [model.id for model in client.models.list()] == list(MODELS)
    assert client.models.retrieve("en-de").owned_by == "gen"
    with pytest.raises(openai.NotFoundError, match="did you mean 'writer'"):
        client.models.retrieve("writter")


def test_completions(client):
    options = {"temperature": 0.8, "top_p": 0.9, "seed": 5}
    made = client.completions.create(model="writer", prompt="the ", max_tokens=20, **options)
    expected = write("the ", max_new_tokens=20, **options)
    assert made.choices[0].text == expected.text
    assert made.choices[0].finish_reason == ("stop" if expected.finished else "length")
    assert made.usage.completion_tokens == len(expected.log_probs)
    assert made.usage.prompt_tokens == 4


def test_prompts_texts_and_stops(client):
    options = {"seed": 2, "stop": ["at", "q"]}
    made = client.completions.create(model="writer", prompt=["the ", "a", ""], n=2, max_tokens=30, **options)
    expected = [h for p in ("the ", "a", "") for h in write(p, num_samples=2, max_new_tokens=30, **options)]
    assert [c.text for c in made.choices] == [h.text for h in expected]
    assert [c.index for c in made.choices] == list(range(6))
    assert [c.finish_reason for c in made.choices] == ["stop" if h.finished else "length" for h in expected]


def test_the_best_of_several(client):
    made = client.completions.create(model="writer", prompt="the", n=2, best_of=6, seed=1, max_tokens=8)
    drawn = write("the", num_samples=6, seed=1, max_new_tokens=8)
    best = sorted(drawn, key=lambda h: -h.score / len(h.log_probs))[:2]
    assert [c.text for c in made.choices] == [h.text for h in best]
    same = client.completions.create(model="writer", prompt="the", n=3, temperature=0, max_tokens=5)
    assert [c.text for c in same.choices] == [write("the", temperature=0.0, max_new_tokens=5).text] * 3


@pytest.mark.parametrize("stream", [False, True])
def test_there_are_n_choices_per_prompt_also_of_equal_texts(stream):
    model = make_model(WordTokenizer([" the"]))
    with torch.no_grad():  # nothing is the likeliest, and with n_best 3 hardly anything else may come
        model.decoder.output.bias[model.tokenizer.eos_id] = 99.0
    same = copy.deepcopy(MODELS["en-de"])
    with (
        running({"few": model, "en-de": same}) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        asked = {"model": "few", "prompt": ["the", ""], "n": 3, "max_tokens": 1, "extra_body": {"beam": 3}}
        asked["extra_body"]["ban"] = "the"
        made = client.completions.create(**asked, stream=stream)
        found = [choice for chunk in made for choice in chunk.choices] if stream else made.choices
        assert [(c.index, c.text) for c in found] == [(i, "") for i in range(6)]
        messages = [{"role": "user", "content": " \n"}]
        made = client.chat.completions.create(model="en-de", messages=messages, n=3, stream=stream)
        found = [choice for chunk in made for choice in chunk.choices] if stream else made.choices
        texts = [(c.index, (c.delta if stream else c.message).content, c.finish_reason) for c in found]
        assert texts == [(i, "\n", "stop") for i in range(3)]


def test_what_means_off_to_clients_keeps_a_beam(client):
    messages = [{"role": "user", "content": SENTENCES[1]}]
    off = {"top_p": 1, "extra_body": {"min_p": 0}}
    made = client.chat.completions.create(model="en-de", messages=messages, **off)
    assert made.choices[0].message.content == MODELS["en-de"](SENTENCES[1])
    made = client.completions.create(model="writer", prompt="the ", max_tokens=9, top_p=1, extra_body={"beam": 3})
    assert made.choices[0].text == write("the ", max_new_tokens=9, beam=3).text


def test_search_options_besides(client):
    extra = {"beam": 4, "repetition_penalty": 1.3, "ban": "cat"}
    made = client.completions.create(model="writer", prompt="the ", n=2, max_tokens=9, extra_body=extra)
    expected = write("the ", n_best=2, max_new_tokens=9, **extra)
    assert [c.text for c in made.choices] == [h.text for h in expected]


def test_what_must_come(client):
    options = {"must": ["mat|hat", "dog"], "coverage_penalty": 0, "length_reward": 0.1}
    made = client.completions.create(model="writer", prompt="the ", max_tokens=30, extra_body=options)
    assert made.choices[0].text == write("the ", max_new_tokens=30, **options)[0].text
    assert "dog" in made.choices[0].text
    with pytest.raises(openai.BadRequestError, match="at most 64 are searched"):
        client.completions.create(model="writer", prompt="the ", extra_body={"must": "dog", "beam": 30})


def test_log_probabilities_and_echo(client):
    made = client.completions.create(model="writer", prompt="the", max_tokens=4, seed=1, logprobs=3, echo=True)
    expected = write("the", seed=1, max_new_tokens=4)
    choice = made.choices[0]
    assert choice.text == "the" + expected.text
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset == list(range(len(choice.text)))
    (score,) = MODELS["writer"].score([choice.text])
    assert choice.logprobs.token_logprobs == pytest.approx(score.log_probs[: len(choice.text)], abs=1e-4)
    for token, log_prob, top in zip(
        choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True
    ):
        assert top[token] == log_prob
        assert 3 <= len(top) <= 4
        assert max(top.values()) >= log_prob
    made = client.completions.create(model="writer", prompt="the", max_tokens=0, logprobs=0, echo=True)
    (scored,) = made.choices
    assert (made.usage.completion_tokens, made.usage.total_tokens) == (0, made.usage.prompt_tokens)
    assert scored.text == "the"
    assert scored.logprobs.token_logprobs == choice.logprobs.token_logprobs[:3]


@pytest.mark.parametrize("extra", [{}, {"beam": 3}, {"repetition_penalty": 1.2}])
def test_streams(client, extra):
    asked = {"model": "writer", "prompt": ["the ", "a"], "n": 2, "max_tokens": 25, "seed": 4, "stop": "do"}
    whole = client.completions.create(**asked, extra_body=extra)
    usage = {"include_usage": True}
    chunks = list(client.completions.create(**asked, stream=True, stream_options=usage, extra_body=extra))
    assert chunks[-1].usage == whole.usage
    texts, reasons = [""] * 4, [None] * 4
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason
    assert texts == [c.text for c in whole.choices]
    assert reasons == [c.finish_reason for c in whole.choices]


@pytest.mark.parametrize("options", [{"echo": True}, {"stop": "zq"}, {"stop": "o"}, {"echo": True, "stop": "o"}])
def test_streams_have_log_probabilities(client, options):
    asked = {"model": "writer", "prompt": "the", "max_tokens": 12, "seed": 4, "logprobs": 2, **options}
    whole = client.completions.create(**asked).choices[0]
    assert "".join(whole.logprobs.tokens) == whole.text
    begin = 0 if "echo" in options else len("the")
    assert whole.logprobs.text_offset == list(range(begin, begin + len(whole.text)))
    found = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for chunk in client.completions.create(**asked, stream=True):
        for name, values in found.items():
            values += getattr(chunk.choices[0].logprobs, name)
    assert found == {name: getattr(whole.logprobs, name) for name in found}


@pytest.mark.parametrize("extra", [{"beam": 2}, {"repetition_penalty": 1.3}, {"min_new_tokens": 2}])
def test_searches_of_their_own_echo_as_others_do(client, extra):
    asked = {"model": "writer", "prompt": "the", "max_tokens": 4, "seed": 1, "logprobs": 2, "echo": True}
    own, shared = (client.completions.create(**asked, extra_body=e).choices[0].logprobs for e in (extra, {}))
    assert own.tokens[:3] == ["t", "h", "e"]
    assert own.token_logprobs[:3] == pytest.approx(shared.token_logprobs[:3], abs=1e-5)
    assert [*map(len, own.top_logprobs[:3])] == [*map(len, shared.top_logprobs[:3])]


@pytest.mark.parametrize("options", [{"extra_body": {"beam": 3}}, {"temperature": 0}])
def test_streams_of_what_is_told_at_its_end_have_log_probabilities(client, options):
    asked = {"model": "writer", "prompt": "the", "max_tokens": 6, "n": 2, "logprobs": 1, **options}
    whole = client.completions.create(**asked).choices
    found = [[], []]
    for chunk in client.completions.create(**asked, stream=True):
        found[chunk.choices[0].index] += chunk.choices[0].logprobs.token_logprobs
    assert found == [choice.logprobs.token_logprobs for choice in whole]
    asked = {"model": "en-de", "messages": [{"role": "user", "content": SENTENCES[1]}], "logprobs": True}
    whole = client.chat.completions.create(**asked).choices[0].logprobs.content
    chunks = client.chat.completions.create(**asked, stream=True)
    assert [t for chunk in chunks for t in chunk.choices[0].logprobs.content] == whole


def test_chat_translates(client):
    def ask(text, **options):
        messages = [{"role": "system", "content": "x"}, {"role": "user", "content": text}]
        return client.chat.completions.create(model="en-de", messages=messages, **options)

    one = ask(SENTENCES[1], n=2, logprobs=True, top_logprobs=2)
    expected = MODELS["en-de"].generate(SENTENCES[1], n_best=2)
    assert [c.message.content for c in one.choices] == [h.text for h in expected]
    assert len(one.choices[0].logprobs.content) == len(expected.tokens)
    lines = "\n".join([SENTENCES[0], "", SENTENCES[3]])
    several = ask(lines).choices[0].message.content
    assert several == "\n".join(MODELS["en-de"](s) if s else "" for s in lines.split("\n"))
    streamed = [c.choices[0].delta.content or "" for c in ask(lines, stream=True) if c.choices]
    assert "".join(streamed) == several
    assert len([text for text in streamed if text]) > 1
    sampled = {"temperature": 0.7, "seed": 3}
    streamed = [c.choices[0].delta.content or "" for c in ask(SENTENCES[1], stream=True, **sampled)]
    assert "".join(streamed) == MODELS["en-de"](SENTENCES[1], **sampled)


def test_bytes_of_tokens_that_stand_for_bytes():
    choices = SimpleNamespace(tokenizer=SimpleNamespace(kind="subword"))
    assert Choices.bytes_of(choices, "<0xE6>") == b"\xe6"
    assert Choices.bytes_of(choices, " 漢") == " 漢".encode()
    choices.tokenizer.kind = "word"
    assert Choices.bytes_of(choices, "<0xE6>") == b"<0xE6>"


def test_chat_of_several_sentences_has_as_many_choices_as_are_wanted(client):
    model, lines = MODELS["en-de"], [SENTENCES[1], SENTENCES[0]]
    messages = [{"role": "user", "content": "\n".join(lines)}]
    asked = {"model": "en-de", "messages": messages, "n": 3, "temperature": 0}
    expected = ["\n".join(model(s, temperature=0.0) for s in lines)] * 3
    assert [c.message.content for c in client.chat.completions.create(**asked).choices] == expected
    texts, ended = [""] * 3, set()
    for chunk in client.chat.completions.create(**asked, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        ended |= {choice.index} if choice.finish_reason else set()
    assert (texts, ended) == (expected, {0, 1, 2})
    translating = Translating(
        SimpleNamespace(inputs=model.processors, model=model), "w1\nw2", SearchOptions(), Limits()
    )
    a, b, c = (Hypothesis([], 0.0, [], True, text=text) for text in "abc")
    assert len(translating.joined([[a, b]], whole=False)) == 2
    assert [h.text for _, h in translating.joined([[a, b], [c]])] == ["a\nc", "b\nc"]  # so that both are ended


@pytest.mark.parametrize("options", [{"prefix": " w4"}, {"must": "w4"}])
def test_chat_translates_lines_as_the_command_does(client, options):
    """A prefix begins a line, not each of its sentences, and what must come is not in all of them."""
    lines = [" ".join(SENTENCES * 3), SENTENCES[0]]
    expected = [found.hypotheses[0].text for found in translate_lines(MODELS["en-de"], lines, **options)]
    messages = [{"role": "user", "content": "\n".join(lines)}]
    made = client.chat.completions.create(model="en-de", messages=messages, extra_body=options)
    assert made.choices[0].message.content == "\n".join(expected)


def test_chat_describes_pictures(client):
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": picture("blue")}},
    ]
    messages = [{"role": "user", "content": content}]
    made = client.chat.completions.create(model="captions", messages=messages)
    item = open_picture(b64decode(picture("blue").partition(",")[2]))
    assert made.choices[0].message.content == MODELS["captions"](item)
    content[1]["image_url"]["url"] = "http://127.0.0.1:9/picture.png"
    with pytest.raises(openai.BadRequestError, match="fetches nothing"):
        client.chat.completions.create(model="captions", messages=messages)
    with pytest.raises(openai.BadRequestError, match="reads one picture"):
        client.chat.completions.create(model="captions", messages=[{"role": "user", "content": "hello"}])


def test_sixty_four_at_once_get_what_they_would_get_alone(url):
    """All kinds of requests together, on every model."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:

        def one(i):
            options = {"seed": i, "temperature": (0.0, 0.7, 1.0)[i % 3], "max_tokens": 5 + i}
            extra = {"top_k": 5} if i % 4 == 1 else {}
            if i % 5 == 0:
                options, extra = {"max_tokens": 5 + i}, {"beam": 1 + i % 3}
            prompt = "the cat sat on the mat. "[: i % 20]
            made = client.completions.create(model="writer", prompt=prompt, **options, extra_body=extra)
            options["max_new_tokens"] = options.pop("max_tokens")
            return made.choices[0].text, prompt, {**options, **extra}

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            found = list(pool.map(one, range(64)))
    for text, prompt, options in found:
        assert text == write(prompt, **options).text


# -- LibreTranslate ----------------------------------------------------------------------------------------


def test_libretranslate(url):
    client = LibreTranslateAPI(url)
    assert client.translate(SENTENCES[1], "en", "de") == MODELS["en-de"](SENTENCES[1])
    names = {each["code"]: each["name"] for each in client.languages()}
    assert names == {"en": "English", "de": "German"}
    asked = {"q": SENTENCES[:2], "source": "auto", "target": "de", "alternatives": 2, "format": "text"}
    found = httpx.post(f"{url}/translate", json=asked).json()
    expected = [MODELS["en-de"].generate(s, n_best=3) for s in SENTENCES[:2]]
    assert found["translatedText"] == [output.text for output in expected]
    assert found["alternatives"] == [[h.text for h in output.alternatives] for output in expected]
    assert found["detectedLanguage"][0]["language"] == "en"
    refused = httpx.post(f"{url}/translate", json={**asked, "target": "fr"})
    assert refused.status_code == 400
    assert refused.json() == {"error": "auto to fr is not supported: there is en to de"}
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    for method, path in [
        ("GET", "/translate"),
        ("POST", "/languages"),
        *itertools.product(("GET", "POST"), ("/detect", "/translate_file", "/frontend/settings", "/suggest")),
    ]:
        refused = httpx.request(method, url + path)
        assert refused.status_code in (404, 405)
        assert isinstance(refused.json()["error"], str)


def test_languages_that_are_not_named_may_be_one_alone():
    model = MODELS["en-de"]
    asked = {"q": SENTENCES[1], "target": "de"}
    with running({"en-de": model, "fr-de": model, "other-en-de": model, "en-fr": model}) as (url, _):
        refused = httpx.post(f"{url}/translate", json=asked)
        assert refused.status_code == 400
        assert refused.json()["error"].endswith("name one of en to de, fr to de")
        for further in ({"source": "fr"}, {"target": "fr"}):
            assert httpx.post(f"{url}/translate", json={**asked, **further}).status_code == 200


def test_many_empty_lines_and_texts_are_refused():
    with running({"en-de": MODELS["en-de"]}, Limits(queue=4)) as (url, _):
        for number, status in ((4, 200), (5, 400)):
            messages = [{"role": "user", "content": "\n" * (number - 1)}]
            answers = [httpx.post(f"{url}/v1/chat/completions", json={"model": "en-de", "messages": messages})]
            for q in ("\n" * (number - 1), [""] * number):
                answers.append(httpx.post(f"{url}/translate", json={"q": q, "target": "de"}))
            assert [answer.status_code for answer in answers] == [status] * 3, answers[-1].text
            assert status == 200 or all("at most 4 are" in answer.text for answer in answers)


def test_what_is_over_does_nothing_more(monkeypatch):
    """A request of many texts ends with its time, also where none of them has to be searched."""

    class Slow(Translating):
        def __init__(self, *arguments):
            time.sleep(0.2)
            super().__init__(*arguments)

    monkeypatch.setattr(libretranslate, "Translating", Slow)
    with running({"en-de": MODELS["en-de"]}, Limits(seconds=0.1)) as (url, _):
        answer = httpx.post(f"{url}/translate", json={"q": [""] * 3, "target": "de"})
        assert (answer.status_code, answer.headers["x-should-retry"]) == (408, "false")


# -- ours --------------------------------------------------------------------------------------------------


def test_what_may_come_next(url):
    asked = {"model": "writer", "input": "the ca", "top": 3}
    found = httpx.post(f"{url}/api/next", json=asked).json()["tokens"]
    best = write("the ca", temperature=0.0, max_new_tokens=1)
    assert found[0]["text"] == best.text
    assert found[0]["probability"] == pytest.approx(2.718281828**best.score, rel=1e-4)
    assert [t["probability"] for t in found] == sorted((t["probability"] for t in found), reverse=True)
    further = httpx.post(f"{url}/api/next", json={**asked, "from_ids": [found[0]["id"]]}).json()["tokens"]
    again = httpx.post(f"{url}/api/next", json={**asked, "input": "the ca" + best.text}).json()["tokens"]
    assert [t["id"] for t in further] == [t["id"] for t in again]


def test_many_constraints_are_refused(url):
    for name in ("must", "ban"):
        asked = {"model": "en-de", "input": SENTENCES[1], name: [f"w{n}" for n in range(65)]}
        answer = httpx.post(f"{url}/api/generate", json=asked)
        assert (answer.status_code, f"{name}: at most 64" in answer.text) == (400, True), answer.text


def test_answers_too_large_to_be_written_are_refused(monkeypatch):
    asked = {"model": "en-de", "input": SENTENCES[1], "attention": True}
    with running({"en-de": MODELS["en-de"], "writer": MODELS["writer"]}) as (url, _):
        whole = httpx.post(f"{url}/api/generate", json={**asked, "top": 3}).json()
        monkeypatch.setattr(work, "LARGE", 0)  # beside the event loop: the same
        assert httpx.post(f"{url}/api/generate", json={**asked, "top": 3}).json() == whole
        monkeypatch.setattr(work, "ANSWER", 1000)
        answer = httpx.post(f"{url}/api/generate", json={**asked, "n_best": 3})
        assert (answer.status_code, "do without attention" in answer.text) == (400, True), answer.text
        assert httpx.post(f"{url}/api/generate", json=asked).status_code == 200  # one of a beam's is given
        assert httpx.post(f"{url}/api/generate", json={**asked, "attention": False}).status_code == 200
        asked = {"model": "writer", "prompt": ["a"] * 3, "max_tokens": 10, "logprobs": 3}
        answer = httpx.post(f"{url}/v1/completions", json={**asked, "prompt": ["a"] * 4})
        assert (answer.status_code, "logprobs" in answer.text) == (400, True), answer.text
        assert httpx.post(f"{url}/v1/completions", json=asked).status_code == 200


def test_many_rows_of_a_long_input_are_refused():
    with running({"en-de": MODELS["en-de"]}, Limits(positions=20)) as (url, _):
        asked = {"model": "en-de", "input": SENTENCES[1], "beam": 5}
        answer = httpx.post(f"{url}/api/generate", json=asked)
        assert (answer.status_code, "too much at once" in answer.text) == (400, True), answer.text
        assert httpx.post(f"{url}/api/generate", json={**asked, "beam": 2, "n_best": 1}).status_code == 200


def test_a_line_too_long_to_be_split_is_refused():
    with running({"en-de": MODELS["en-de"]}, Limits(input_tokens=10)) as (url, _):
        for path, asked in (
            ("translate", {"q": "x" * 200, "source": "en", "target": "de"}),
            ("v1/chat/completions", {"model": "en-de", "messages": [{"role": "user", "content": "x" * 200}]}),
        ):
            answer = httpx.post(f"{url}/{path}", json=asked)
            assert (answer.status_code, "200 characters" in answer.text) == (400, True), answer.text


def test_languages_are_those_of_the_training():
    def languages(name, **options):
        return _languages(name, SimpleNamespace(info=SimpleNamespace(options=lambda: options)))

    assert languages("runs/en-de-big", train=["train.{en,de}"]) == ("en", "de")
    assert languages("my-run", train=["a.fr.gz", "a.de", "b.fr", "b.de"]) == ("fr", "de")
    assert languages("runs/en-de", train=["train.src", "train.tgt"]) == languages("en-de") == ("en", "de")
    assert languages("model") is None


def test_generate_with_all_there_is(url):
    asked = {"model": "en-de", "input": SENTENCES[1], "n_best": 3, "attention": True, "tree": True}
    found = httpx.post(f"{url}/api/generate", json=asked).json()
    expected = MODELS["en-de"].generate(SENTENCES[1], n_best=3)
    assert [o["text"] for o in found["outputs"]] == [h.text for h in expected]
    assert found["input_labels"] == item_labels(MODELS["en-de"].processors, SENTENCES[1])
    assert "".join(found["input_parts"]["sentence"]) == WORDS.decode(WORDS.encode(SENTENCES[1]))
    assert len(found["input_parts"]["sentence"]) == len(found["input_labels"])
    for output, hypothesis in zip(found["outputs"], expected, strict=True):
        assert [t["id"] for t in output["tokens"]] == hypothesis.token_ids
        assert output["confidence"] == pytest.approx(hypothesis.confidence, abs=1e-4)
        assert [w["word"] for w in output["words"]] == output["text"].split()
        assert output["attention"] == [pytest.approx(row, abs=1e-4) for row in hypothesis.attention.tolist()]
        assert len(output["attention"][0]) == len(found["input_labels"])
        assert "".join(t["piece"] for t in output["tokens"]) == output["text"]
        nodes = [found["tree"][n] for n in output["path"]]
        assert [n["id"] for n in nodes] == hypothesis.token_ids
        assert [n["parent"] for n in nodes] == [-1, *output["path"][:-1]]
        if nodes:
            length = len(nodes)
            assert nodes[-1]["score"] == pytest.approx(sum(hypothesis.log_probs[:length]), abs=1e-4)


def test_inputs_that_are_not_there_have_no_place():
    torch.manual_seed(0)
    sentences = RNNEncoder(WORDS, embedding_size=12, hidden_size=8)
    parts = {"sentence": sentences, "picture": CNNEncoder("alexnet", "none", memory_size=16)}
    encoder = JoinedEncoder(parts, 16, optional=["picture"])
    joined = Model(encoder, DecoderConfig(len(WORDS), 12, 16, 1, attention="dot"), WORDS, ModelInfo("translate"))
    silent = copy.deepcopy(joined)
    silent.decoder.output.bias.data[WORDS.eos_id] = 99
    joined.decoder.output.bias.data[WORDS.eos_id] = -99
    with running({"joined": joined.eval(), "silent": silent.eval()}) as (url, _):
        asked = {"model": "silent", "input": {"sentence": " w3 w4"}, "attention": True}
        (output,) = httpx.post(f"{url}/api/generate", json=asked).json()["outputs"]
        assert (output["text"], output["attention"]) == ("", [])
        for given, cells in ((None, 0), (picture(), 36)):
            asked = {"input": {"sentence": " w3 w4", "picture": given}, "attention": True, "max_new_tokens": 2}
            asked["model"] = "joined"
            answered = httpx.post(f"{url}/api/generate", json=asked)
            assert answered.status_code == 200, answered.text
            found = answered.json()
            assert list(map(len, found["input_parts"].values())) == [3, cells]
            assert len(found["outputs"][0]["attention"][0]) == 3 + cells


def test_generate_streams_and_goes_on(url):
    asked = {"model": "writer", "input": "the ", "seed": 3, "top": 2, "max_new_tokens": 12}
    whole = httpx.post(f"{url}/api/generate", json=asked).json()
    events = []
    with httpx.stream("POST", f"{url}/api/generate", json={**asked, "stream": True}) as response:
        for line in response.iter_lines():
            if line:
                events.append(json.loads(line.removeprefix("data: ")))
    done = events.pop()
    assert done.pop("type") == "done"
    assert done == whole
    (output,) = whole["outputs"]
    tokens = [e["token"] for e in events if e["token"]["text"]]
    assert tokens == output["tokens"]
    assert all(len(t["top"]) == 2 for t in tokens)
    assert output["text"].startswith("".join(e["piece"] for e in events))
    ids = [t["id"] for t in output["tokens"]][:5]
    best = {"model": "writer", "input": "the ", "temperature": 0, "max_new_tokens": 9, "from_ids": ids}
    on = httpx.post(f"{url}/api/generate", json=best).json()["outputs"][0]
    assert on["text"] == write("the " + output["text"][:5], temperature=0.0, max_new_tokens=9).text


def test_labels(url):
    found = httpx.post(f"{url}/api/classify", json={"model": "labels", "input": SENTENCES[1], "top": 2}).json()
    log_probs, looks = label_log_probs(MODELS["labels"], [SENTENCES[1]])
    labels = MODELS["labels"].tokenizer.labels
    best = sorted(zip(log_probs[0].tolist(), labels, strict=True), reverse=True)[:2]
    assert [each["label"] for each in found["labels"]] == [label for _, label in best]
    assert found["attention"] == pytest.approx(looks[0].tolist(), abs=1e-4)
    assert len(found["input_labels"]) == len(found["attention"])


def test_descriptions(url):
    models = httpx.get(f"{url}/api/models").json()["models"]
    assert [m["name"] for m in models] == list(MODELS)
    assert [m["inputs"] for m in models][:3] == [
        {"prompt": "prompts"},
        {"sentence": "sentences"},
        {"picture": "pictures"},
    ]
    assert models[1]["defaults"] == {"beam": 3, "max_ratio": 2.0}
    schema = httpx.get(f"{url}/openapi.json").json()
    assert "requestBody" in schema["paths"]["/v1/completions"]["post"]
    assert "temperature" in schema["components"]["schemas"]["Completion"]["properties"]
    assert models[2]["pictures"] == {"picture": {"cells": 36, "crop": 0.875}}
    page = httpx.get(f"{url}/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' data: blob:;")
    metrics = httpx.get(f"{url}/metrics").text
    assert re.search(r'gen_requests_total\{path="/api/models",status="200"\} [1-9]', metrics)
    assert 'gen_rows{model="writer"} 0.0' in metrics


def test_a_model_that_may_not_end_yet_has_next_tokens_too():
    model = copy.deepcopy(MODELS["en-de"])
    model.info.search = {**model.info.search, "min_new_tokens": 2}
    with running({"en-de": model}) as (url, _):
        answer = httpx.post(f"{url}/api/next", json={"model": "en-de", "input": SENTENCES[1], "top": 99})
        assert model.tokenizer.eos_id in {token["id"] for token in answer.json()["tokens"]}


def test_what_further_inputs_get():
    model, plain = topics(), {"temperature": 0.8, "seed": 1, "max_tokens": 200}
    with running({"topics": model}) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        found = set()
        for topic in ("news", "sports", None):
            more = {"extra_body": {"given": {"topic": topic}}, "model": "topics", **plain}
            item = {"topic": topic, "prompt": ""}
            expected = model.generate(item, temperature=0.8, seed=1, max_new_tokens=200).text
            assert client.completions.create(prompt="", **more).choices[0].text == expected
            said = client.chat.completions.create(messages=[{**USER, "content": ""}], **more)
            assert said.choices[0].message.content == expected
            found.add(expected)
        assert len(found) > 1
        for given in ({"topic": "cats"}, {"topic": "news", "prompt": "a"}):
            with pytest.raises(openai.BadRequestError):
                client.completions.create(model="topics", prompt="the ", extra_body={"given": given})


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_kept_may_end_within_a_character(stream):
    """What comes completes it, and is the piece of the token that does."""
    tokenizer = SubwordTokenizer.train([TEXT], at_most=True)
    *_, first, second, third = tokenizer.encode("漢")
    model, script = make_model(tokenizer), iter([second, third])
    own = model.decoder.forward

    def forward(token_ids, state, memory, **more):
        output = own(token_ids, state, memory, **more)
        output.logits[:, -1] = -99.0
        output.logits[:, -1, next(script, tokenizer.eos_id)] = 0.0
        return output

    model.decoder.forward = forward
    with running({"subwords": model}) as (url, _):
        begun = [*tokenizer.encode("the cat"), first]
        asked = {"model": "subwords", "from_ids": begun, "temperature": 0, "max_new_tokens": 2, "stream": stream}
        answer = httpx.post(f"{url}/api/generate", json=asked)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line] if stream else [answer.json()]
    (output,) = events[-1]["outputs"]
    assert output["text"] == "漢"
    assert [token["piece"] for token in output["tokens"]] == ["", "漢"]
    if stream:
        assert [event["token"]["piece"] for event in events[:-1]] == ["", "漢"]


def test_alternatives_are_tokens_that_may_come():
    """In a search of its own as in one that shares its steps."""
    model = make_model(WordTokenizer([" the", " cat"]))
    with torch.no_grad():
        model.decoder.output.bias[model.tokenizer.unk_id] = 99.0
    never = {model.tokenizer.unk_id, model.tokenizer.pad_id}
    with running({"words": model}) as (url, _):
        for option in ({}, {"repetition_penalty": 1.1}):
            asked = {"model": "words", "input": "the", "max_new_tokens": 2, "temperature": 0, "top": 9, **option}
            (found,) = httpx.post(f"{url}/api/generate", json=asked).json()["outputs"]
            for token in found["tokens"]:
                assert {each["id"] for each in token["top"]}.isdisjoint(never)


# -- what cannot be answered -------------------------------------------------------------------------------

COMPLETION = {"model": "writer", "prompt": "a"}
USER = {"role": "user"}
CHAT = {"model": "en-de", "messages": [{**USER, "content": "the cat"}], "response_format": {"type": "text"}}
BAD = {
    "no JSON": ("/v1/completions", b'{"model": ', 400, "no JSON"),
    "no UTF-8": ("/v1/completions", b'{"model": "writer", "prompt": "\xff\xfe"}', 400, ""),
    "half a surrogate": ("/v1/completions", b'{"model": "writer", "prompt": "\\ud800"}', 400, ""),
    "deep": ("/v1/completions", b'{"model": "writer", "logit_bias": ' + b"[" * 100_000, 400, ""),
    "a list": ("/v1/completions", [], 400, "Expected `object`"),
    "nothing": ("/v1/completions", b"", 400, ""),
    "no model": ("/v1/completions", {"prompt": "a"}, 400, "model"),
    "unknown model": ("/v1/completions", {**COMPLETION, "model": "writre"}, 404, "did you mean 'writer'"),
    "type": ("/v1/completions", {**COMPLETION, "max_tokens": "many"}, 400, "max_tokens: Expected `int"),
    "n": ("/v1/completions", {**COMPLETION, "n": 10**9}, 400, "n: Expected `int` <= 128"),
    "rows": ("/v1/completions", {**COMPLETION, "n": 100}, 400, "at most 64"),
    "huge": ("/v1/completions", {**COMPLETION, "max_tokens": 10**9}, 400, "max_new_tokens"),
    "more than there may be": ("/v1/completions", {**COMPLETION, "max_tokens": 9999}, 400, "at most 5,000"),
    "temperature": ("/v1/completions", {**COMPLETION, "temperature": -1}, 400, "temperature must be"),
    "coverage": ("/v1/completions", {**COMPLETION, "beam": 3, "coverage_penalty": 0.2}, 400, "no attention"),
    "must": ("/v1/completions", {**COMPLETION, "beam": 3, "must": "mat", "max_tokens": 2}, 400, "'mat' must come"),
    "given": ("/v1/completions", {**COMPLETION, "given": {"topic": "news"}}, 400, "unknown input 'topic'"),
    "stop strings": ("/api/generate", {"model": "writer", "stop": ["a"] * 17}, 400, "stop: at most 16"),
    "long stop": ("/v1/completions", {**COMPLETION, "stop": "a" * 9999}, 400, "of 64 characters"),
    "ngram": ("/v1/completions", {**COMPLETION, "no_repeat_ngram": 65}, 400, "no_repeat_ngram: at most 64"),
    "long prefix": ("/v1/completions", {**COMPLETION, "prefix": "a" * 999_999}, 400, "prefix: 999,999"),
    "long name": ("/api/next", {"model": "en-de", "input": {"a" * 9999: "a"}}, 400, "unknown input 'aaa"),
    "infinite": ("/v1/completions", b'{"model": "writer", "temperature": 1e999}', 400, ""),
    "top_p": ("/v1/completions", {**COMPLETION, "top_p": 2}, 400, "top_p must be"),
    "seed": ("/v1/completions", {**COMPLETION, "seed": -1}, 400, "seed must be"),
    "best_of": ("/v1/completions", {**COMPLETION, "n": 3, "best_of": 2}, 400, "best_of"),
    "penalty": ("/v1/completions", {**COMPLETION, "presence_penalty": 1}, 400, "not supported"),
    "samples": ("/v1/completions", {**COMPLETION, "num_samples": 3, "stream": True}, 400, "n says how many"),
    "n best": ("/v1/completions", {**COMPLETION, "beam": 3, "n_best": 3}, 400, "n says how many"),
    "exclusive": ("/v1/completions", {**COMPLETION, "beam": 2, "temperature": 1}, 400, "exclude each other"),
    "unknown character": ("/v1/completions", {**COMPLETION, "prompt": "☃"}, 400, "☃"),
    "empty stop": ("/v1/completions", {**COMPLETION, "stop": [""]}, 400, "stop"),
    "too many prompts": ("/v1/completions", {**COMPLETION, "prompt": ["a"] * 1000}, 400, "prompt"),
    "long prompt": ("/v1/completions", {**COMPLETION, "prompt": "a" * 20_000}, 400, "tokens"),
    "longer prompt": ("/v1/completions", {**COMPLETION, "prompt": "a" * 1_000_000}, 400, "tokens"),
    "no message": ("/v1/chat/completions", {"model": "en-de", "messages": []}, 400, "messages"),
    "no user": ("/v1/chat/completions", {"model": "en-de", "messages": [{"role": "x"}]}, 400, "messages"),
    "tools": ("/v1/chat/completions", {**CHAT, "tools": [{"type": "function"}]}, 400, "tools: models write text"),
    "json": ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}, 400, "response_format"),
    "audio": (
        "/v1/chat/completions",
        {"model": "en-de", "messages": [{**USER, "content": [{"type": "input_audio"}]}]},
        400,
        "input_audio",
    ),
    "no picture": (
        "/v1/chat/completions",
        {
            "model": "captions",
            "messages": [
                {
                    **USER,
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}],
                }
            ],
        },
        400,
        "no picture",
    ),
    "no base64": ("/api/generate", {"model": "captions", "input": "data:image/png;base64,%%%"}, 400, "base64"),
    "file": ("/api/generate", {"model": "captions", "input": "file:///etc/passwd"}, 400, "fetches nothing"),
    "large picture": ("/api/generate", {"model": "captions", "input": picture(size=(400, 300))}, 400, "pixels"),
    "input name": (
        "/api/generate",
        {"model": "en-de", "input": {"sentense": "a"}},
        400,
        "did you mean 'sentence'",
    ),
    "ids": ("/api/next", {"model": "writer", "from_ids": [10**6]}, 400, "from_ids"),
    "unknown option": ("/api/generate", {"model": "writer", "max_tokens": 3}, 400, "unknown field `max_tokens`"),
    "unknown field": ("/api/next", {"model": "writer", "from_id": [5]}, 400, "unknown field `from_id`"),
    "no labels": ("/api/classify", {"model": "writer", "input": "a"}, 400, "labels"),
    "no target": ("/translate", {"q": "w1"}, 400, "target"),
    "html": ("/translate", {"q": "w1", "source": "en", "target": "de", "format": "html"}, 400, "plain text"),
    "path": ("/v2/completions", {}, 405, ""),
    "method": ("/v1/models", {}, 405, "POST is not answered"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_refused_in_the_interfaces_own_form(url, case):
    path, body, status, phrase = BAD[case]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.post(url + path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    error = response.json()["error"]
    message = error if path == "/translate" else error["message"]
    assert isinstance(message, str)
    assert phrase in message
    assert "\n" not in message
    assert len(message) < 400
    if path != "/translate":
        assert set(error) == {"message", "type", "param", "code"}


def test_errors_of_the_client_package(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="writer", prompt="a", n=10**9)
    assert caught.value.param == "n"
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="nothing", prompt="a")
    assert missing.value.code == "model_not_found"


def test_large_bodies_are_refused_before_they_come(url):
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.putrequest("POST", "/v1/completions")
    connection.putheader("Content-Length", str(100 << 20))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert "bytes" in json.load(response)["error"]["message"]
    connection.close()
    assert httpx.post(f"{url}/v1/completions", content=b"x" * (30 << 20)).status_code == 413
    chunks = (b"x" * (1 << 16) for _ in range(100))
    assert httpx.post(f"{url}/v1/completions", content=chunks).status_code == 413


# -- a service ---------------------------------------------------------------------------------------------


def until(what):
    """Waits until it is so."""
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


ENDLESS = {"model": "writer", "prompt": "the ", "max_tokens": 5000, "min_new_tokens": 5000}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_rows(served, stream):
    url, models = served
    engine = models.served["writer"].engine
    before = engine.tokens
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        body = json.dumps({**ENDLESS, "stream": stream, "n": 2}).encode()
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        until(lambda: engine.rows == 2)
        if stream:
            assert connection.recv(10)
    until(lambda: engine.rows == 0)
    assert engine.tokens == before  # given up, not done


def test_limits_keys_origins_and_the_log(capfd):
    limits = Limits(rows=1, queue=1, seconds=0.5, tokens=200_000)
    settings = {"api_key": "sesame", "cors": ["https://example.org"], "log": "json"}
    with running({"writer": MODELS["writer"], "en-de": MODELS["en-de"]}, limits, **settings) as (url, models):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/health").status_code == 200
        asked = {"q": SENTENCES[0], "source": "en", "target": "de"}
        assert httpx.post(f"{url}/translate", json={**asked, "api_key": "no"}).status_code == 401
        header = {"Authorization": "Bearer sesame", "Origin": "https://example.org"}
        answer = httpx.get(f"{url}/v1/models", headers=header)
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        endless = {"max_tokens": 200_000, "extra_body": {"min_new_tokens": 200_000}}
        with openai.OpenAI(base_url=f"{url}/v1", api_key="sesame", max_retries=0) as client:
            with pytest.raises(openai.APIStatusError, match=r"not done within 0\.5 seconds") as late:
                client.completions.create(model="writer", prompt="the cat sat", **endless)
            assert late.value.status_code == 408
            assert late.value.response.headers["x-should-retry"] == "false"
            engine = models.served["writer"].engine
            until(lambda: engine.rows == 0)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                asked = {"model": "writer", "prompt": "", "max_tokens": 4000}
                tries = [
                    pool.submit(client.completions.create, **asked, extra_body={"ban": "."}) for _ in range(8)
                ]
                errors = [each.exception() for each in tries]
            busy = [e for e in errors if isinstance(e, openai.RateLimitError)]
            assert busy
            assert busy[0].response.headers["retry-after"] == "1"
        client = LibreTranslateAPI(url, api_key="sesame")
        assert client.languages()
    log = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert {"status": 408, "model": "writer", "path": "/v1/completions"}.items() <= next(
        line for line in log if line["status"] == 408
    ).items()
    assert "cat" not in json.dumps(log)


def test_who_does_not_say_how_long_gets_what_is_allowed():
    models = {"writer": copy.deepcopy(MODELS["writer"]), "en-de": copy.deepcopy(MODELS["en-de"])}
    with running(models, Limits(tokens=7)) as (url, _):
        asked = {"q": SENTENCES[1], "source": "en", "target": "de"}
        found = httpx.post(f"{url}/translate", json=asked)
        assert found.json() == {"translatedText": MODELS["en-de"](SENTENCES[1], max_new_tokens=7)}
        asked = {"model": "writer", "prompt": "the ", "seed": 1, "min_new_tokens": 7}
        assert httpx.post(f"{url}/v1/completions", json=asked).json()["usage"]["completion_tokens"] == 7
        assert httpx.post(f"{url}/v1/completions", json={**asked, "max_tokens": 8}).status_code == 400


def test_what_is_read_has_a_queue_too():
    with running({"labels": MODELS["labels"]}) as (url, models):
        asked = {"model": "labels", "input": SENTENCES[0]}
        models.reading += models.limits.queue
        answer = httpx.post(f"{url}/api/classify", json=asked)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        models.reading -= models.limits.queue
        assert httpx.post(f"{url}/api/classify", json=asked).status_code == 200
        assert models.reading == 0


def test_what_is_classified_has_a_longest_length_too():
    with running({"labels": MODELS["labels"]}, Limits(input_tokens=7)) as (url, _):
        statuses = []
        for text in (SENTENCES[1], SENTENCES[1] + " w5"):  # six words and an end, and one more
            found = [httpx.post(url + path, json={"input": text}) for path in ("/api/classify", "/api/next")]
            statuses += [answer.status_code for answer in found]
        assert statuses == [200, 200, 400, 400]
        assert "at most 7 are read" in found[0].json()["error"]["message"]


def test_keys_of_any_letters():
    key = Key("schlüssel")
    key.check("Bearer schlüssel".encode().decode("latin-1"))  # as servers give headers
    key.check("", "schlüssel")
    with pytest.raises(Refusal, match="wrong"):
        key.check("Bearer schlussel")


def exchange(url, data, seconds=30):
    """What a connection answers to ``data``, until it is closed."""
    found = b""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=seconds) as connection:
        connection.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                found += part
    return found


HOSTS = {
    "localhost:1234": 200,
    "LOCALHOST": 200,
    "127.0.0.1": 200,
    "[::1]:80": 200,
    "gpu.example.org:8000": 200,
    "evil.example.org": 403,
    "localhost.evil.example.org:8000": 403,
    "127.0.0.1.evil.example.org": 403,
    "[::1].evil.example.org": 403,
    "192.168.1.1:8000": 403,
    "": 403,
}


def test_names_by_which_it_is_asked():
    names = [*server.local_names("127.0.0.1"), "GPU.example.org"]
    with running({"writer": MODELS["writer"]}, hosts=names) as (url, _):
        for host, status in HOSTS.items():
            for path in ("/v1/models", "/", "/translate"):
                answer = httpx.get(url + path, headers={"Host": host})
                assert answer.status_code == (405 if (status, path) == (200, "/translate") else status), (
                    host,
                    path,
                )
            if status == 403:
                assert "--allow-host" in answer.json()["error"]
        several = b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n%s\r\n"
        for hosts in (b"", b"Host: localhost\r\nHost: evil.example.org\r\n"):
            assert exchange(url, several % hosts).startswith(b"HTTP/1.1 403")
    with running({"writer": MODELS["writer"]}, hosts=[*names, "*"]) as (url, _):
        assert httpx.get(f"{url}/health", headers={"Host": "evil.example.org"}).status_code == 200


def test_pages_of_other_origins_may_not_post():
    """A browser posts plain text for them without asking first."""
    asked = json.dumps({"model": "writer", "prompt": "a", "max_tokens": 1})
    with running({"writer": MODELS["writer"]}, cors=["https://example.org"]) as (url, _):
        for site, origin, status in (
            ("cross-site", "https://evil.example.org", 403),
            ("same-site", "http://localhost:1", 403),
            ("cross-site", None, 403),
            ("cross-site", "https://example.org", 200),
            ("same-origin", url, 200),
            ("none", None, 200),
            (None, None, 200),
            (None, url, 200),
            (None, "http://evil.example.org", 403),  # what a browser tells of addresses in plain http
            (None, "https://example.org", 200),
        ):
            headers = {"Content-Type": "text/plain", "Sec-Fetch-Site": site, "Origin": origin}
            headers = {name: value for name, value in headers.items() if value}
            answer = httpx.post(f"{url}/v1/completions", content=asked, headers=headers)
            assert answer.status_code == status, (site, origin)
            assert status == 200 or "--cors" in answer.json()["error"]["message"]
        assert httpx.get(f"{url}/v1/models", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_who_is_slow_is_let_go(monkeypatch):
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)
    begun = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running({"writer": MODELS["writer"]}, Limits(body_seconds=0.2)) as (url, _):
        assert exchange(url, b"") == b""
        assert exchange(url, begun) == b""
        assert exchange(url, b"\r\n\r\n") == b""
        assert exchange(url, health + begun).endswith(b'{"status":"ok"}')
        late = exchange(url, begun + b"Content-Length: 100\r\n\r\n{")
        assert late.startswith(b"HTTP/1.1 408")
        assert json.loads(late.partition(b"\r\n\r\n")[2])["error"]["code"] == "timeout"


def test_what_is_no_http():
    with running({"writer": MODELS["writer"]}) as (url, _):
        for data, status in (
            (b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 14_000, 431),
            (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        ):
            answer = exchange(url, data)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert set(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]) == {
                "message",
                "type",
                "param",
                "code",
            }


def test_who_reads_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.2)
    body = json.dumps({**ENDLESS, "n": 8, "logprobs": 20, "stream": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        running({"writer": MODELS["writer"]}, Limits(tokens=5000)) as (url, models),
        socket.socket() as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        connection.sendall(head + body)
        engine = models.served["writer"].engine
        until(lambda: engine.rows == 8)
        until(lambda: engine.rows == 0)
        assert engine.tokens == 0  # given up, not done


def test_options_reach_the_server(tmp_path, monkeypatch):
    MODELS["writer"].save(tmp_path / "book")
    seen = []
    monkeypatch.setattr(server, "run", lambda app, listening, seconds: (seen.append(app), listening.close()))
    monkeypatch.setenv("GEN_API_KEY", "sesame")
    names = ("body", "pixels", "tokens", "input", "rows", "waiting")
    limits = [word for number, name in enumerate(names, 11) for word in (f"--max-{name}", str(number))]
    words = ["serve", str(tmp_path / "book"), "--port", "0", *limits, "--timeout", "17"]
    assert main([*words, "--allow-host", "gpu.example.org"]) == 0
    (app,) = seen
    found = app.state.models.limits
    sizes = [found.body, found.pixels, found.tokens, found.input_tokens, found.rows, found.queue, found.seconds]
    assert sizes == [11, 12, 13, 14, 15, 16, 17]
    app.state.key.check("Bearer sesame")
    with pytest.raises(Refusal):
        app.state.key.check("")
    (hosts,) = (each.kwargs["hosts"] for each in app.user_middleware if "hosts" in each.kwargs)
    hosts.check([b"gpu.example.org:80"])
    hosts.check([b"localhost"])
    with pytest.raises(Refusal):
        hosts.check([b"evil.example.org"])


def test_sigterm_finishes_what_is_under_way(tmp_path):
    MODELS["writer"].save(tmp_path / "book")
    words = ["serve", tmp_path / "book", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gen", *map(str, words)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        line = process.stderr.readline()
        port = re.search(r"serving on http://127.0.0.1:(\d+)$", line.strip())[1]
        url = f"http://127.0.0.1:{port}/v1/completions"
        asked = {"model": "book", "prompt": "the ", "seed": 1, "max_tokens": 1500, "min_new_tokens": 1500}
        text, ended = "", False
        with httpx.stream("POST", url, json={**asked, "stream": True}, timeout=60) as response:
            for line in response.iter_lines():
                if not text:
                    process.send_signal(signal.SIGTERM)
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
                ended = ended or line == "data: [DONE]"
        assert ended
        assert text == write("the ", seed=1, max_new_tokens=1500, min_new_tokens=1500).text
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
    finally:
        process.kill()
        process.wait()


def test_the_command_says_what_is_wrong(gen, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = gen("serve", tmp_path, "--port", port)
    assert status == 2
    assert f"--port {port}: cannot listen there" in err
    status, _, err = gen("serve", tmp_path, "--port", "0")
    assert status == 2
    assert "not a model folder" in err
    status, _, err = gen("serve", "--port", "99999", "--max-rows", "0")
    assert status == 2
    assert "name folders" in err
    assert "--port must be" in err
    assert "--max-rows must be" in err
    status, _, err = gen("serve", tmp_path, "--cors", "https://a.org/", "--cors", "*", "--allow-host", "b.org:80")
    assert status == 2
    assert "--cors https://a.org/: give a scheme and a name" in err
    assert "--allow-host b.org:80: give the name alone" in err
    with pytest.raises(UserError, match="cannot listen there"):
        server.listen("no such host", 0)
