"""Exported pages: the JavaScript that searches, tokenizes and resizes is compared with Python, under Node."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from gen import runtime
from gen.base.errors import UserError
from gen.inputs.pictures import Preprocessing
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.models.export import export
from gen.models.memory import Memory
from gen.models.quantization import quantize
from gen.search.labels import label_log_probs
from gen.web.bundle import bundle
from gen.web.pack import pack, saved_tokenizer
from gen.web.site import write_site
from tests.conftest import TEXT, make_model
from tests.serving import SENTENCES, calibrated, translator, writer
from tests.test_joined import joined
from tests.test_saved import ARCHIVE

pytest.importorskip("onnxscript")
if not shutil.which("node") or not shutil.which("npm"):
    pytest.skip("there is no Node.js to run the page's code with", allow_module_level=True)

PASSES_BY_SIZE = int(PIL.__version__.split(".")[0]) >= 13  # older ones resize in another order
DRIVER = Path(__file__).with_name("web.mjs")
TEXTS = [
    "",
    " ",
    "the cat sat on the mat.\n",
    "  two  spaces\tand a tab \n\n",
    "don't stop-gap ''quoted'' - 3.14 x_y 2nd\r\nline",
    "café naïve e\u0301 Straße ﬁ №5 İstanbul",
    "कुत्ता दौड़ता है। नमस्ते",
    "日本語のテキスト、中文文本。",
    "😀👩‍👩‍👧 🇩🇪! 👍🏽 a\u200db © ™",
    "สวัสดีครับ ✓ ½ Ⅷ ٣",
    "a\u0301b \u0301c x\x1cy\x85z\u2028w",
    "မြန်မာနိုင်ငံသည် အာရှတွင် ရှိသည်။",
]


@pytest.fixture(scope="module")
def exported(page_exports, tmp_path_factory):
    """Folders of exported models by name."""
    folder = tmp_path_factory.mktemp("exported")
    subwords = SubwordTokenizer.train([TEXT * 3], vocab_size=300, at_most=True)
    made = {
        "writer": calibrated(writer()),
        "subwords": calibrated(make_model(subwords)),
        "words": calibrated(make_model(WordTokenizer.train([TEXT * 3]))),
        "en-de": calibrated(translator(copy=True)),
        "both": joined(),
    }
    for name, model in made.items():
        export(model, folder / name)
    quantize(folder / "writer", folder / "small")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder / "old", filter="data")
    old = {name: folder / "old" / name for name in ("text-exported", "translate-exported")}
    return {**page_exports, **{name: folder / name for name in [*made, "small"]}, **old}


@pytest.fixture(scope="module")
def site(exported, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "site"
    write_site(exported, folder)
    return folder


@pytest.fixture(scope="module")
def ask(site):
    """The engine's answers to a list of (call, body)."""

    def answers(*asked):
        given = json.dumps([{"call": call, "body": body} for call, body in asked])
        done = subprocess.run(
            ["node", DRIVER, site], input=given, capture_output=True, text=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return answers


@pytest.fixture(scope="module")
def load(exported):
    models = {name: runtime.load(folder, threads=1) for name, folder in exported.items()}
    return models.__getitem__


def as_picture(image):
    image = image.convert("RGBA")
    return {"width": image.width, "height": image.height, "data": list(image.tobytes())}


def noise(width, height, mode="RGB"):
    rng = np.random.default_rng(width)
    return Image.fromarray(rng.integers(0, 256, (height, width, len(mode)), np.uint8), mode)


# -- the parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "row"), [(0, 0), (1, 3), (2**32 - 1, 1), (2**70 + 5, 2)])
def test_random_numbers_are_numpys(ask, seed, row):
    given = seed if seed < 2**53 else str(seed)
    (found,) = ask(("drawn", {"seed": given, "row": row, "count": 300}))
    assert found == np.random.default_rng((seed, row)).random(300, dtype=np.float32).tolist()


def tokenizers():
    corpus = [text * 3 for text in TEXTS] + [TEXT * 9]
    yield CharTokenizer.train(corpus[:5])
    yield WordTokenizer.train(corpus, min_frequency=1)
    yield WordTokenizer.train(corpus, min_frequency=1, dummy_prefix=True, normalization="nfkc")
    yield WordTokenizer.train(corpus, min_frequency=1, pattern="captions", normalization="none")
    for model_type in ("bpe", "unigram"):
        for fallback in (True, False):
            yield SubwordTokenizer.train(
                corpus, vocab_size=400, at_most=True, model_type=model_type, byte_fallback=fallback,
                dummy_prefix=fallback,
            )  # fmt: skip


def test_tokenizers_are_pythons(ask):
    rng = random.Random(0)
    letters = "".join(TEXTS) + "qzß漢字🙂"
    texts = [*TEXTS, *("".join(rng.choices(letters, k=rng.randrange(1, 30))) for _ in range(200))]
    known = list(tokenizers())
    written = [[[rng.randrange(len(t)) for _ in range(rng.randrange(12))] for _ in range(200)] for t in known]
    asked = [
        {"saved": saved_tokenizer(tokenizer), "texts": texts, "ids": ids}
        for tokenizer, ids in zip(known, written, strict=True)
    ]
    for tokenizer, ids, found in zip(known, written, ask(*(("spelled", each) for each in asked)), strict=True):
        for text, got in zip(texts, found["ids"], strict=True):
            assert got == tokenizer.encode(text), (tokenizer, text)
        for each, got in zip(ids, found["texts"], strict=True):
            assert got == tokenizer.decode(each), (tokenizer, each)
        assert found["tokens"] == tokenizer.tokens()


def test_pictures_are_pillows(ask):
    sizes = [(40, 30), (31, 64), (224, 224), (700, 90), (8, 8)]
    images = [noise(*size, *mode) for size in sizes for mode in ((), ("RGBA",))]
    ways = [
        Preprocessing(size=32, resize=resize, bicubic=bicubic) for resize in (0, 40) for bicubic in (False, True)
    ]
    cases = list(itertools.product(ways, images))
    asked = [("pixels", {"picture": as_picture(i), "preprocessing": way.to_dict()}) for way, i in cases]
    for (way, image), found in zip(cases, ask(*asked), strict=True):
        expected = way.pixels(image).reshape(-1).astype(int)
        assert abs(np.array(found) - expected).max() <= (PASSES_BY_SIZE is False), (way, image.size, image.mode)


def test_modules_that_cannot_be_joined_are_named():
    with pytest.raises(ValueError, match=r"b\.js: cannot be joined: export default"):
        bundle({"a.js": 'import { b } from "./b.js";', "b.js": "export default 3;"}, "a.js")


# -- the search --------------------------------------------------------------------------------------------

WAYS = [{}, {"beam": 5, "n_best": 5}, {"temperature": 0}, {"temperature": 1, "seed": 2}]
SEARCHES = [
    ("writer", "the ", {"temperature": 0}),
    ("writer", "the ", {"seed": 3}),
    ("writer", "", {"seed": 3, "temperature": [0.5, 0, 1.5], "num_samples": 2}),
    ("writer", "the ", {"seed": 4, "top_k": 5}),
    ("writer", "the ", {"seed": 4, "top_p": 0.8, "temperature": 1.3}),
    ("writer", "the ", {"seed": 4, "top_p": 0.9, "top_k": 20, "min_p": 0.05}),
    ("writer", "the ", {"seed": 4, "min_p": 0.1}),
    ("writer", "the ", {"seed": 5, "stop": ["cat", "at."]}),
    ("writer", "the ", {"seed": 6, "repetition_penalty": 1.3, "min_new_tokens": 30}),
    ("writer", "the ", {"seed": 7, "no_repeat_ngram": 3, "prefix": "the the "}),
    ("writer", "the ", {"seed": 8, "ban": ["t"]}),
    ("writer", "the €", {"seed": 8, "unknown": "skip"}),
    ("writer", "the ", {"strategy": "greedy"}),
    ("writer", "the ", {"beam": 5, "n_best": 3}),
    ("writer", "the ", {"beam": 3, "length_penalty": 0, "no_repeat_ngram": 2}),
    ("writer", "the ", {"beam": 6, "mbr": True}),
    ("writer", "the ", {"beam": 70, "mbr": True, "n_best": 70, "stop": "cat", "max_new_tokens": 12}),
    ("en-de", SENTENCES[0], {"beam": 5, "mbr": True, "n_best": 4}),
    ("writer", "the ", {"beam": 4, "repetition_penalty": 1.2, "prefix": "cat", "stop": "mat"}),
    ("small", "the ", {"temperature": 0}),
    ("small", "the ", {"seed": 3, "temperature": 0.7}),
    ("subwords", "the c", {"seed": 1}),
    ("subwords", "", {"temperature": 0, "stop": "on"}),
    ("topics", {"topic": "sports", "prompt": ""}, {"seed": 1}),
    ("topics", {"topic": None, "prompt": "the"}, {"seed": 1}),
    *(("en-de", SENTENCES[i % 4], WAYS[i // 4]) for i in range(16)),
    *(("words", "the cat ", {"temperature": t, "seed": 1}) for t in (0, 1)),
    ("text-exported", "the ", {"temperature": 0}),
    ("translate-exported", "The little boy runs.", {"beam": 3}),
]


def test_searches_are_pythons(ask, load):
    options = [{"max_new_tokens": 60, **given} for _, _, given in SEARCHES]
    found = ask(
        *(
            ("generate", {"model": name, "input": item, "attention": True, **given})
            for (name, item, _), given in zip(SEARCHES, options, strict=True)
        )
    )
    for (name, item, _), given, answer in zip(SEARCHES, options, found, strict=True):
        expected = load(name).generate(item, **given)
        assert [each["text"] for each in answer["outputs"]] == [each.text for each in expected], (name, given)
        for output, hypothesis in zip(answer["outputs"], expected, strict=True):
            about = (name, given)
            assert [token["id"] for token in output["tokens"]] == hypothesis.token_ids, about
            assert output["score"] == pytest.approx(hypothesis.score, abs=1e-4 if name != "small" else 1e-2), about
            assert output["finished"] == hypothesis.finished, about
            assert {n: output[n] for n in ("seed", "temperature") if n in output} == hypothesis.drawn(), about
            assert output.get("confidence") == pytest.approx(hypothesis.confidence, abs=1e-3), about
            assert [each["word"] for each in output.get("words", [])] == [word for word, _ in hypothesis.words]
            assert [each["confidence"] for each in output.get("words", [])] == pytest.approx(
                [sure for _, sure in hypothesis.words], abs=1e-3 if name != "small" else 1e-2
            ), about
            if hypothesis.attention is not None and hypothesis.attention.size:
                np.testing.assert_allclose(output["attention"], hypothesis.attention, atol=2e-5)


def test_numbers_are_those_of_score(ask, load):
    model = load("writer")
    (answer,) = ask(("generate", {"model": "writer", "input": "", "seed": 1, "max_new_tokens": 40, "top": 5}))
    (output,) = answer["outputs"]
    (score,) = model.score([output["text"]])
    tokens = output["tokens"]
    assert [token["log_prob"] for token in tokens] == pytest.approx(score.log_probs[: len(tokens)], abs=1e-4)
    assert "".join(token["piece"] for token in tokens) == output["text"]
    for token in tokens:
        likely = [each["probability"] for each in token["top"]]
        assert likely == sorted(likely, reverse=True)
        assert len(likely) == 5
    first, second = ask(
        ("next", {"model": "writer", "input": output["text"][:7], "top": 1000}),
        ("next", {"model": "writer", "input": "", "from_ids": [t["id"] for t in tokens[:7]], "top": 1000}),
    )
    assert first == second
    texts = [output["text"][:7] + token["text"] for token in first["tokens"] if token["text"]]
    expected = [np.exp(each.log_probs[7]) for each in model.score(texts)]
    assert [t["probability"] for t in first["tokens"] if t["text"]] == pytest.approx(expected, abs=1e-4)


def test_states_are_pythons(ask):
    model = writer()
    text = "the cat"
    ids = model.tokenizer.encode(text)
    rest = [*ids[4:], model.tokenizer.eos_id]
    (found,) = ask(("cells", {"model": "writer", "input": text[:4], "from_ids": rest}))
    assert found["pieces"] == list(text)
    memory = Memory.empty(1)
    state, expected = model.decoder.init_state(memory), []
    for token_id in [model.tokenizer.bos_id, *ids]:
        state = model.decoder(torch.tensor([[token_id]]), state, memory).state
        expected.append(torch.cat([part[0] for layer in state.layers for part in layer]).tanh())
    values = np.array([found["values"][str(i)] for i in range(len(found["values"]))]).reshape(-1, found["units"])
    np.testing.assert_allclose(values, torch.stack(expected[1:]).detach(), atol=1e-5)


def test_a_text_goes_on_from_any_token(ask):
    bodies = [
        {"model": "subwords", "input": "the ", "temperature": 0, "max_new_tokens": 30},
        {"model": "en-de", "input": SENTENCES[1], "temperature": 0},
    ]
    ids = [
        [token["id"] for token in answer["outputs"][0]["tokens"]]
        for answer in ask(*(("generate", b) for b in bodies))
    ]
    rest = ask(*(("generate", {**body, "from_ids": each[:2]}) for body, each in zip(bodies, ids, strict=True)))
    for answer, each in zip(rest, ids, strict=True):
        assert [token["id"] for token in answer["outputs"][0]["tokens"]][: len(each) - 2] == each[2:]


def test_a_space_that_a_prompt_has_is_not_written_twice(ask):
    body = {"model": "words", "input": "the cat ", "temperature": 0, "max_new_tokens": 5}
    first, written = ask(("next", {"model": "words", "input": "the cat "}), ("generate", body))
    assert not any(token["piece"].startswith(" ") for token in first["tokens"])
    (output,) = written["outputs"]
    assert "".join(token["piece"] for token in output["tokens"]) == output["text"]
    ids = [token["id"] for token in output["tokens"]]
    (rest,) = ask(("generate", {**body, "from_ids": ids[:2], "max_new_tokens": 3}))
    begun = "".join(token["piece"] for token in output["tokens"][:2])
    assert begun + rest["outputs"][0]["text"] == output["text"]


def test_two_inputs_are_pythons(ask, load):
    """Each has its attention."""
    item = {"first": "abc", "second": "hgf"}
    options = {"temperature": 0, "max_new_tokens": 6, "min_new_tokens": 6}
    (answer,) = ask(("generate", {"model": "both", "input": item, "attention": True, **options}))
    expected = load("both").generate(item, **options)
    (found,) = answer["outputs"]
    assert found["text"] == expected.text != ""
    looked = np.array(found["attention"])
    np.testing.assert_allclose(looked, expected.attention, atol=1e-4)
    np.testing.assert_allclose(looked.sum(1), 2, atol=1e-3)


def test_captions_and_labels_are_pythons(ask, load):
    images = [noise(300, 200), noise(90, 260), Image.new("RGB", (64, 64), "blue")]
    size = load("captions").processors["picture"].preprocessing.size
    found = ask(
        *(("generate", {"model": "captions", "input": as_picture(image), "beam": 5}) for image in images),
        *(("classify", {"model": "labels", "input": f"\x85 {sentence} "}) for sentence in SENTENCES),
    )
    for image, answer in zip(images, found, strict=False):
        expected = load("captions").generate(image, beam=5)
        assert answer["outputs"][0]["text"] == expected.text
        assert answer["outputs"][0]["score"] == pytest.approx(expected.score, abs=1e-3)
        assert len(answer["input_parts"]["picture"]) == load("captions").processors["picture"].num_cells
    assert size > 0
    log_probs, looks = label_log_probs(load("labels"), SENTENCES)
    labels = load("labels").tokenizer.labels
    for answer, row, look in zip(found[len(images) :], log_probs, looks, strict=True):
        shares = {each["label"]: each["probability"] for each in answer["labels"]}
        assert [shares[label] for label in labels] == pytest.approx(np.exp(row).tolist(), abs=1e-4)
        assert answer["attention"] == pytest.approx(look.tolist(), abs=2e-5)


def test_what_cannot_be_done_is_said(ask):
    wrong = [
        ({"model": "writer", "input": "the €"}, "'€'"),
        ({"model": "writer", "input": "the ", "n_best": 2}, "n_best needs beam"),
        ({"model": "writer", "input": "the ", "beam": 2, "top_k": 3}, "exclude each other"),
        ({"model": "writer", "input": "the ", "top_p": 1.5}, "top_p must be between"),
        ({"model": "topics", "input": {"topic": "weather", "prompt": ""}}, "unknown label 'weather'"),
        ({"model": "en-de", "input": {}}, "'sentence' is missing"),
    ]
    for (_, message), answer in zip(wrong, ask(*(("generate", body) for body, _ in wrong)), strict=True):
        assert message in answer["error"], answer


# -- the command -------------------------------------------------------------------------------------------


def test_the_command_writes_a_page(gen, trained, exported, cache, monkeypatch, tmp_path):
    monkeypatch.setenv("GEN_CACHE", os.path.join(tempfile.gettempdir(), "gen-tests-web"))
    site = tmp_path / "site"
    status, out, err = gen("export", trained, f"de={exported['en-de']}", "--web", "-o", site)
    assert (status, "2 models" in out) == (0, True), err
    known = json.loads((site / "models.json").read_text())
    assert [model["name"] for model in known] == ["run", "de"]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', (site / "index.html").read_text())[1]
    assert "default-src &#x27;none&#x27;" in policy
    assert "unsafe-inline" not in policy
    assert (site / "engine" / "onnxruntime-LICENSE.txt").read_text().startswith("ONNX Runtime")
    places = re.compile(rb"""(?:src|href|from|import|fetch|url)\s*[=(]?\s*["'](?:https?:)?//""")
    ours = [path for path in site.rglob("*.*") if path.suffix in (".js", ".css", ".html")]
    assert [path for path in ours if places.search(path.read_bytes())] == []
    page = tmp_path / "new" / "page.html"
    status, out, err = gen("export", exported["en-de"], "--web", "--single-file", "-o", page)
    assert (status, page.stat().st_size > 1e6) == (0, True), err
    assert gen("export", exported["en-de"], "--web", "-o", site)[0] == 0  # written anew
    assert len(json.loads((site / "models.json").read_text())) == 1
    (site / "CNAME").write_text("example.org")
    status, _, err = gen("export", exported["en-de"], "--web", "-o", site)
    assert (status, "holds other things" in err, (site / "CNAME").exists()) == (2, True, True)


def test_what_is_no_page_is_not_replaced(gen, exported, cache, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "mine.html").write_text("mine")
    for name, more in (("mine", ()), ("mine.html", ("--single-file",)), ("new.html", ())):
        status, _, err = gen("export", exported["en-de"], "--web", *more, "-o", tmp_path / name)
        assert (status, err.count("\n")) == (2, 1)
        assert "--output" in err
    assert (tmp_path / "mine.html").read_text() == (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_options_that_do_not_go_together(gen, exported):
    for words, message in (
        (("--single-file", "-o", "x"), "--single-file goes with --web"),
        ((exported["labels"], "-o", "x"), "several go with --web"),
    ):
        status, _, err = gen("export", exported["en-de"], *words)
        assert (status, message in err) == (2, True), err


def test_without_npm_a_line_says_how(gen, exported, monkeypatch, tmp_path):
    monkeypatch.setattr("gen.web.assets.shutil.which", lambda name: None)
    status, _, err = gen("export", exported["en-de"], "--web", "-o", tmp_path / "site")
    assert (status, err.count("\n")) == (2, 1)
    assert "nodejs.org" in err
    assert not (tmp_path / "site").exists()
    failing = tmp_path / "npm"
    failing.write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr("gen.web.assets.shutil.which", lambda name: str(failing))
    status, _, err = gen("export", exported["en-de"], "--web", "-o", tmp_path / "site")
    assert (status, "no such package" in err) == (2, True), err


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_a_package_a_line_says_which(gen, exported, monkeypatch, tmp_path, missing):
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    monkeypatch.setattr("gen.web.assets._fetch", lambda folder: None)
    status, _, err = gen("export", exported["en-de"], "--web", "-o", tmp_path / "site")
    assert (status, err) == (2, f"gen: gen export needs {missing}: pip install 'gen-toolkit[export]'\n")
    assert not (tmp_path / "site").exists()


def test_what_the_page_does_not_know_is_refused(exported, tmp_path):
    model = runtime.load(exported["writer"])
    model.info.search["beam_groups"] = 2
    with pytest.raises(UserError, match="beam_groups"):
        pack(model, exported["writer"])
