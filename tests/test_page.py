"""The page of `gen serve` and of `gen export --web`, in a browser: one front end, two back ends."""

from __future__ import annotations

import copy
import time
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
import torch

from gen.inputs.labels import LabelTokenizer
from gen.inputs.pictures import open_picture
from gen.inputs.tokenizer import CharTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.encoders import CNNEncoder, JoinedEncoder, LabelEncoder
from gen.models.model import Model
from gen.search.info import ModelInfo
from gen.search.labels import label_log_probs
from gen.serve.engine import Engine
from tests.browsing import DESK, PHONE, needs_browser, nothing_serious, sync_api
from tests.conftest import make_model
from tests.serving import (
    SENTENCES,
    WORDS,
    calibrated,
    folder_served,
    page_models,
    picture,
    running,
    translator,
    writer,
)

expect = sync_api.expect
pytestmark = needs_browser
ODD = "<i>other</i>"
LENGTH = 60


def endless(seed=0):
    model = writer() if seed == 0 else make_model(CharTokenizer.train(["<b>the cat</b>. \n"]), seed)
    model.info = replace(model.info, search={"max_new_tokens": LENGTH})
    with torch.no_grad():
        model.decoder.output.bias[model.tokenizer.eos_id] = -1e9
    return model


MODELS = {
    "writer": endless(),
    ODD: endless(1),
    "en-de": calibrated(translator()),
    **page_models(),
}


@pytest.fixture(scope="module", params=["server", "static"])
def served(request):
    """The address of a page with `MODELS`, and the server's; None where the page computes alone."""
    if request.param == "server":
        with running(MODELS) as (url, models):
            yield url, models
    else:
        with folder_served(request.getfixturevalue("site")) as url:
            yield url, None


@pytest.fixture(scope="module")
def write_page(cache, page_exports, tmp_path_factory):
    """Writes a page of some of `MODELS` as `gen export --web` does."""
    from gen.models.export import export
    from gen.web.site import write_site

    folder, exported = tmp_path_factory.mktemp("exported"), dict(page_exports)

    def write(names, output, **options):
        for name in names:
            if name not in exported:
                exported[name] = folder / str(len(exported))
                export(MODELS[name], exported[name])
        write_site({name: exported[name] for name in names}, output, **options)
        return output

    return write


@pytest.fixture(scope="module")
def site(write_page, tmp_path_factory):
    return write_page(list(MODELS), tmp_path_factory.mktemp("page") / "site")


@pytest.fixture
def see(served, browser):
    """Opens the page with some models. At the end nothing must have gone wrong or been fetched elsewhere."""
    contexts, wrong = [], []

    def open_page(*names, url=served[0], size=DESK, slow=False, **settings):
        context = browser.new_context(viewport=size, reduced_motion="reduce", **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda request: None if request.url.startswith((url, "data:")) else wrong.append(request.url),
        )
        if slow:  # the worker; a server is slowed where it is
            page.route("**/engine/worker.js", slowed)
        page.goto(f"{url}/#{'+'.join(map(encoded, names))}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [each for each in wrong if "400 (Bad Request)" not in each and "401 (Unauthorized)" not in each] == []


@pytest.fixture
def slow_server(monkeypatch):
    tick = Engine._tick
    monkeypatch.setattr(Engine, "_tick", lambda self, taken: (time.sleep(0.02), tick(self, taken)))


def slowed(route):
    response = route.fetch()
    text = response.text().replace("SLICE = 12", "SLICE = 0")
    assert "await pause();" in text
    wait = "await new Promise((go) => setTimeout(go, 20));"
    route.fulfill(response=response, body=text.replace("await pause();", wait))


def encoded(name):
    return name.replace("<", "%3C").replace(">", "%3E").replace("/", "%2F")


def settled(page):
    """Waits until no model is at work."""
    page.wait_for_timeout(50)
    expect(page.locator(".panel[aria-busy]")).to_have_count(0, timeout=20_000)


def written(page):
    """The output once the model has stopped."""
    settled(page)
    return page.locator(".text .tokens").first.text_content()


def write(prompt, **options):
    return MODELS["writer"].generate(
        prompt, **{"max_new_tokens": LENGTH, "temperature": 0.8, "seed": 1, **options}
    )


def best(prompt, count=10):
    """The likeliest next characters."""
    model, found = MODELS["writer"], {}
    for text, score in zip(
        texts := model.tokenizer.tokens(), model.score([prompt + t for t in texts]), strict=True
    ):
        if text:
            found[text] = score.log_probs[len(prompt)]
    return sorted(found, key=found.get, reverse=True)[:count]


def heats(tokens, name="--heat"):
    return tokens.evaluate_all("(all, name) => all.map((e) => Number(e.style.getPropertyValue(name)))", name)


# -- text --------------------------------------------------------------------------------------------------


def test_type_write_and_slide(see):
    page = see("writer")
    page.get_by_label("prompt").fill("the ")
    page.get_by_role("button", name="Write").click()
    output = write("the ")
    assert written(page) == output.text
    assert page.locator(".prompt").text_content() == "the "
    expect(page.get_by_role("status")).to_contain_text(f"{LENGTH} tokens")
    expected = np.minimum(1, -np.array(output.log_probs) / np.log(2) / 8)
    assert heats(page.locator(".text .token")) == pytest.approx(expected.tolist(), abs=0.002)
    page.get_by_label("Temperature").press("Home")  # a slider that is let go writes anew
    assert written(page) == write("the ", temperature=0.0).text
    page.get_by_label("Temperature").press("End")
    page.get_by_label("Top-k").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.get_by_label("Seed").press("ArrowRight")
    page.get_by_label("Length").press("Home")
    assert written(page) == write("the ", temperature=2.0, top_k=3, seed=2, max_new_tokens=10).text


def test_the_bars_follow_the_cursor(see):
    page = see("writer")
    bars = page.get_by_role("complementary")
    expect(bars.get_by_role("heading")).to_have_text("At the beginning")
    area = page.get_by_label("prompt")
    area.fill("the ca")
    expect(bars.get_by_role("heading")).to_have_text("After “the ca”")
    shown = [text.replace("␣", " ") for text in bars.locator(".name").all_text_contents()]
    assert [text for text in shown if text not in ("end", "↵")] == [t for t in best("the ca") if t != "\n"][
        : len(shown)
    ]
    area.press("ArrowLeft")
    expect(bars.get_by_role("heading")).to_have_text("After “the c”")
    second = best("the c")[1]
    bars.get_by_role("button").nth(1).click()  # what is pressed is written where the cursor is
    expect(area).to_have_value(f"the c{second}a")
    page.get_by_role("button", name="Write").click()
    written(page)
    page.locator(".text .token").nth(5).hover()
    expect(bars.locator(".current .name")).to_have_text(written(page)[5].replace(" ", "␣").replace("\n", "↵"))


def test_another_token(see):
    page = see("writer")
    page.get_by_label("prompt").fill("the ")
    page.get_by_role("button", name="Write").click()
    text = written(page)
    page.locator(".text .token").nth(3).click()
    bars = page.get_by_role("complementary").get_by_role("button")
    other = next(t for t in best("the " + text[:3]) if t not in (text[3], " ", "\n"))
    bars.filter(has_text=other).filter(has=page.get_by_text(other, exact=True)).click()
    changed = written(page)
    assert changed.startswith(text[:3] + other)
    assert len(changed) == 4 + LENGTH
    page.get_by_label("Temperature").press("Home")  # a slider begins anew
    assert written(page) == write("the ", temperature=0.0).text


def test_by_keyboard(see):
    page = see("writer")
    page.get_by_label("prompt").fill("the ")
    page.keyboard.press("Control+Enter")
    text = written(page)
    tokens = page.locator(".text .token")
    assert tokens.evaluate_all("(all) => all.filter((e) => e.tabIndex === 0).length") == 1
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(2)).to_be_focused()
    page.keyboard.press("Enter")
    bars = page.get_by_role("complementary").get_by_role("button")
    expect(bars.first).to_be_focused()
    page.keyboard.press("Escape")
    expect(tokens.nth(2)).to_be_focused()
    page.keyboard.press("Enter")  # once more: it is let go
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    expect(bars.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    assert written(page)[:2] == text[:2]


def test_stop(see, served, slow_server):
    page = see("writer", slow=True)
    page.get_by_label("Length").press("End")
    page.get_by_role("button", name="Write").click()
    expect(page.locator(".text .token").nth(5)).to_be_attached()
    engine = served[1] and served[1].served["writer"].engine
    before = engine and engine.tokens
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    assert 5 < page.locator(".text .token").count() < 900
    end = time.monotonic() + 60
    while engine and engine.rows:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not engine or engine.tokens == before  # given up, not done
    page.get_by_label("Length").press("Home")
    page.get_by_role("button", name="Write").click()  # and it goes on working
    assert len(written(page)) == 10


def test_side_by_side(see):
    page = see("writer")
    page.get_by_label("prompt").fill("the ")
    page.get_by_role("button", name="Write").click()
    written(page)
    page.get_by_role("checkbox", name=ODD).check()
    expect(page.locator(".panel")).to_have_count(2)
    expect(page.get_by_role("heading", level=2).nth(1)).to_have_text(ODD)
    written(page)
    first, second = (page.locator(".panel").nth(i) for i in range(2))
    assert first.locator(".text .tokens").text_content() == write("the ").text
    other = MODELS[ODD].generate("the ", max_new_tokens=LENGTH, temperature=0.8, seed=1)
    assert second.locator(".text .tokens").text_content() == other.text
    assert page.locator("i, main b").count() == 0  # nothing that is foreign is markup
    for size in (DESK, PHONE):
        page.set_viewport_size(size)
        one, two = first.bounding_box(), second.bounding_box()
        assert (one["y"] == two["y"]) == (size is DESK)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= size["width"]
    page.get_by_role("checkbox", name="en-de").check()  # reads something else: it is shown alone
    expect(page.locator(".panel")).to_have_count(1)
    expect(page.get_by_role("checkbox", name="writer")).not_to_be_checked()


def test_a_label_to_write_about(see):
    page = see("topics")
    page.get_by_role("combobox").select_option("sports")
    page.get_by_role("button", name="Write").click()
    options = {"max_new_tokens": 200, "temperature": 0.8, "seed": 1}
    text = written(page).removesuffix(" end")
    assert text == MODELS["topics"].generate({"topic": "sports", "prompt": ""}, **options).text
    assert text != MODELS["topics"].generate({"topic": "news", "prompt": ""}, **options).text


def test_what_the_server_refuses_is_said(see):
    page = see("writer")
    page.get_by_role("button", name="Write").click()
    written(page)
    wrong, bars = page.locator(".wrong"), page.get_by_role("complementary")
    page.get_by_label("prompt").fill("€")
    expect(wrong).to_contain_text("'€'")  # and not the bars of the text before
    expect(bars).to_be_hidden()
    page.get_by_label("prompt").fill("the")
    expect(bars.get_by_role("heading")).to_have_text("After “the”")
    expect(wrong).to_be_hidden()
    page.get_by_label("prompt").fill("€")
    page.get_by_role("button", name="Write").click()
    expect(wrong).to_contain_text("'€'")
    expect(page.locator(".text .token")).to_have_count(0)


def test_a_server_may_ask_for_a_key(see):
    with running({"writer": MODELS["writer"]}, api_key="sesame") as (url, _):
        page = see(url=url)
        for wrong in ("no", "schlüssel €"):
            page.get_by_label("API key").fill(wrong)
            page.get_by_role("button", name="Use it").click()
            expect(page.get_by_text("This key is wrong.")).to_be_visible()
            expect(page.get_by_label("API key")).to_be_focused()
        page.get_by_label("API key").fill("sesame")
        page.get_by_role("button", name="Use it").click()
        page.get_by_label("prompt").fill("the ")
        page.get_by_role("button", name="Write").click()
        assert written(page) == write("the ").text


def test_a_key_of_any_letters(see):
    with running({"writer": MODELS["writer"]}, api_key="schlüssel €") as (url, _):
        page = see(url=url)
        page.get_by_label("API key").fill("schlüssel €")
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("button", name="Write")).to_be_visible()
        page.close()


def test_another_model_beside_one_that_writes(see, slow_server):
    page = see("writer", slow=True)
    page.get_by_label("prompt").fill("the ")
    page.get_by_role("button", name="Write").click()
    expect(page.locator(".text .token").nth(2)).to_be_attached()
    page.get_by_role("checkbox", name=ODD).check()
    expect(page.locator(".panel")).to_have_count(2)
    assert written(page) == write("the ").text


def test_sliders_are_those_of_the_models_that_are_shown(see):
    models = {name: copy.copy(MODELS["writer"]) for name in ("a", "b")}
    for count, model in zip((20, 40), models.values(), strict=True):
        model.info = replace(model.info, search={"max_new_tokens": count})
    with running(models) as (url, _):
        page = see("a", url=url)
        page.get_by_role("button", name="Write").click()
        assert len(written(page)) == 20
        page.get_by_role("checkbox", name="b").check()
        page.get_by_role("checkbox", name="a").uncheck()
        expect(page.get_by_label("Length")).to_have_value("40")
        expect(page.locator(".text .token")).to_have_count(40)
        page.close()


# -- translations, pictures, labels --------------------------------------------------------------------------


def test_translations(see):
    page = see("en-de")
    page.get_by_label("sentence").fill(SENTENCES[1])
    output = MODELS["en-de"].generate(SENTENCES[1], n_best=3, attention=True)
    expect(page.locator(".others button span")).to_have_text([h.text for h in output])
    tokens, source = page.locator(".text .token"), page.locator(".answer .source .token")
    assert page.locator(".answer .source").text_content() == f"{WORDS.decode(WORDS.encode(SENTENCES[1]))} end"
    tokens.nth(2).hover()
    weights = output.attention[2]
    expect(source.nth(int(weights.argmax()))).to_have_attribute("style", "--heat: 0.000; --look: 1.000;")
    assert heats(source, "--look") == pytest.approx((weights / weights.max()).tolist(), abs=0.002)
    tokens.nth(2).press("ArrowRight")  # by keyboard, too
    weights = output.attention[3]
    assert heats(source, "--look") == pytest.approx((weights / weights.max()).tolist(), abs=0.002)
    assert "looked at" in tokens.nth(3).get_attribute("aria-label")
    doubtful = [word for word, sure in output.words if sure < 0.5]
    expect(page.locator(".text .doubtful")).to_have_text(doubtful)
    expect(page.locator("header .status")).to_contain_text("confidence")
    source.nth(1).hover()  # and from a word to where it was looked at
    column = output.attention[: len(output.token_ids), 1]
    assert heats(tokens, "--look") == pytest.approx((column / column.max()).tolist(), abs=0.002)
    expect(page.locator("header .status")).not_to_contain_text("one sentence")
    page.get_by_role("textbox", name="sentence").fill("w3\nw4")
    expect(page.locator("header .status")).to_contain_text("read as one sentence")


def test_alternatives_and_the_tree(see):
    page = see("en-de")
    page.get_by_label("sentence").fill(SENTENCES[1])
    output = MODELS["en-de"].generate(SENTENCES[1], n_best=3)
    third = page.locator(".others button").nth(2)
    third.click()
    expect(third).to_have_attribute("aria-pressed", "true")
    assert page.locator(".text .tokens").text_content() == list(output)[2].text
    chosen = page.locator(".tree .node.chosen text").all_text_contents()
    words = [text.strip() for text in MODELS["en-de"].tokenizer.tokens()]
    path = [words[i] for i in list(output)[2].token_ids]
    assert chosen[: len(path)] == path
    assert set(chosen) <= {*words, "end"}
    assert page.locator(".tree .node").count() > len(path)
    page.locator(".text .token").nth(1).click()
    expect(page.get_by_role("complementary").get_by_role("heading")).to_contain_text(path[0])
    bars = page.get_by_role("complementary").get_by_role("button")
    other = bars.nth(1).locator(".name").text_content().strip("␣ ")
    bars.nth(1).click()
    written(page)
    assert page.locator(".text .tokens").text_content().split()[:2] == [path[0], other]


def test_a_picture_is_dropped(see):
    page = see("captions")
    drop = """async (zone, url) => {
        const bytes = Uint8Array.from(atob(url.split(",")[1]), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "blue.png", { type: "image/png" }));
        zone.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    page.locator(".drop").evaluate(drop, picture("blue"))
    item = open_picture(b64decode(picture("blue").partition(",")[2]))
    output = MODELS["captions"].generate(item, n_best=3, attention=True)
    expect(page.locator(".text .tokens")).to_have_text(output.text)
    canvas = page.locator(".photo canvas")
    expect(canvas).not_to_have_class("lit")
    page.locator(".text .token").first.hover()
    expect(canvas).to_have_class("lit")
    shade = """(canvas, side) => {
        const pen = canvas.getContext("2d");
        const [width, height] = [canvas.width / side, canvas.height / side];
        const middle = (i) => [((i % side) + 0.5) * width, (Math.floor(i / side) + 0.5) * height];
        return [...Array(side * side).keys()].map((i) => pen.getImageData(...middle(i), 1, 1).data[3]);
    }"""
    weights = output.attention[0]
    shades = canvas.evaluate(shade, round(len(weights) ** 0.5))
    assert shades[int(weights.argmax())] == min(shades)
    assert max(shades) > min(shades)


def test_a_label_that_is_needed(see):
    """Nothing is asked for without a picture, and one of the labels is always chosen."""
    label = LabelEncoder({"label": LabelTokenizer(["de", "en"])}, 16, prompt=False)
    encoder = JoinedEncoder({"picture": CNNEncoder("alexnet", "none", memory_size=16), "label": label}, 16)
    model = Model(
        encoder, DecoderConfig(len(WORDS), 12, 16, 2, attention="dot"), WORDS, ModelInfo("caption")
    ).eval()
    with running({"both": model}) as (url, _):
        page = see("both", url=url)
        assert page.get_by_role("combobox").locator("option").all_text_contents() == ["de", "en"]
        page.get_by_role("button", name="Describe").click()
        assert page.locator("input[type=file]").evaluate("field => field.validity.valueMissing")
        page.locator("input[type=file]").set_input_files(png())
        options = {"beam": 4, "n_best": 3, "length_penalty": 1.0}
        for label in ("de", "en"):
            page.get_by_role("combobox").select_option(label)
            page.get_by_role("button", name="Describe").click()
            item = {"picture": open_picture(png()["buffer"]), "label": label}
            expect(page.locator(".others button span").first).to_have_text(model.generate(item, **options).text)
        page.close()


def test_a_picture_may_be_taken_away_again(see):
    parts = {"sentence": MODELS["en-de"].encoder, "picture": CNNEncoder("alexnet", "none", memory_size=16)}
    encoder = JoinedEncoder(parts, 16, optional=["picture"])
    model = Model(encoder, DecoderConfig(len(WORDS), 12, 16, 2, attention="dot"), WORDS, ModelInfo("translate"))
    with running({"seeing": model.eval()}) as (url, _):
        page = see("seeing", url=url)
        page.get_by_label("sentence").fill(SENTENCES[1])
        page.locator("input[type=file]").set_input_files(png())
        expect(page.locator(".drop img")).to_be_visible()
        expect(page.locator(".photo")).to_have_count(1)
        page.get_by_role("button", name="Remove the picture").click()
        expect(page.locator(".drop img")).to_be_hidden()
        expect(page.locator(".photo")).to_have_count(0)
        expect(page.get_by_role("button", name="Remove the picture")).to_be_hidden()
        page.close()


def png():
    """A picture as a file that is chosen."""
    return {"name": "blue.png", "mimeType": "image/png", "buffer": b64decode(picture("blue").partition(",")[2])}


def test_labels(see):
    page = see("labels")
    page.get_by_label("sentence").fill(SENTENCES[1])
    log_probs, looks = label_log_probs(MODELS["labels"], [SENTENCES[1]])
    order = np.argsort(-log_probs[0])
    names = page.locator(".bar .name")
    expect(names).to_have_text([MODELS["labels"].tokenizer.labels[i] for i in order])
    shares = [float(share.strip("< %")) for share in page.locator(".share").all_text_contents()]
    assert shares == pytest.approx((100 * np.exp(log_probs[0][order])).tolist(), abs=0.6)
    expected = looks[0] / looks[0].max()
    assert heats(page.locator(".answer .source .token"), "--look") == pytest.approx(expected.tolist(), abs=0.002)


def test_the_tour(see):
    page = see("writer", "en-de")
    page.get_by_label("prompt").fill("the ")
    page.get_by_text("A short tour").click()
    page.get_by_role("button", name="Begin").click()
    assert written(page) == write("the ", temperature=0.0).text
    expect(page.locator(".tour p")).to_contain_text("1 of 5. Why does greedy text loop?")
    page.get_by_role("button", name="Next").click()
    assert written(page) == write("the ", temperature=0.3).text
    for _ in range(3):
        page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Again").click()
    assert written(page) == write("the ", temperature=0.0).text
    page.get_by_role("checkbox", name="en-de").check()
    page.get_by_label("sentence").fill(SENTENCES[1])
    page.get_by_text("A short tour").click()
    page.get_by_role("button", name="Begin").click()
    assert written(page) == MODELS["en-de"].generate(SENTENCES[1], beam=1).text


def test_what_single_units_do(see, served):
    page = see("writer")
    if served[1]:  # the server keeps the states to itself
        expect(page.get_by_text("What single units do")).to_have_count(0)
        return
    page.get_by_label("prompt").fill("the cat")
    page.get_by_label("Temperature").press("Home")
    page.get_by_role("button", name="Write").click()
    text = "the cat" + written(page)
    page.get_by_text("What single units do").click()
    cells = page.get_by_role("group", name="The text, coloured by the unit").locator(".token")
    expect(cells).to_have_count(len(text))
    follows = page.get_by_label("A unit that follows")
    follows.select_option("the place in a word")
    unit = page.get_by_label("Unit", exact=True)
    chosen, shades = unit.input_value(), heats(cells)
    assert f"unit {chosen}, " in follows.locator("option:checked").text_content()
    assert len(set(shades)) > 5
    unit.fill("1" if chosen != "1" else "2")
    expect(follows).to_have_value("")
    assert heats(cells) != shades
    cells.nth(3).focus()
    expect(page.get_by_role("status").last).to_contain_text("after this")


def test_what_single_units_do_while_it_translates(see, served):
    if served[1]:
        pytest.skip("the server keeps the states to itself")
    page = see("en-de")
    page.get_by_label("sentence").fill(SENTENCES[1])
    page.get_by_role("button", name="Translate").click()
    written(page)
    page.get_by_text("What single units do").click()
    cells = page.get_by_role("group", name="The text, coloured by the unit").locator(".token")
    expect(cells.first).to_be_visible()
    assert cells.all_text_contents() == page.locator(".text .token").all_text_contents()
    assert len(set(heats(cells))) > 1


def test_one_file_without_a_network(write_page, browser, tmp_path):
    page_file = write_page(["writer", "en-de"], tmp_path / "page.html", single=True)
    context = browser.new_context(offline=True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
    page.goto(page_file.as_uri())
    page.get_by_label("prompt").fill("the ")
    page.get_by_role("button", name="Write").click()
    assert written(page) == write("the ").text
    page.get_by_role("checkbox", name="en-de").check()
    page.get_by_label("sentence").fill(SENTENCES[1])
    output = MODELS["en-de"].generate(SENTENCES[1], n_best=3)
    expect(page.locator(".others button span")).to_have_text([h.text for h in output])
    context.close()
    assert wrong == []


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("models/0-writer.bin", "models/0-writer.bin is missing"),
        ("engine/ort.wasm", "engine/ort.wasm is missing"),
        ("engine/worker.js", "worker"),
        ("engine/ort.js", "worker"),
    ],
)
def test_what_is_missing_beside_the_page_is_said(write_page, browser, tmp_path, file, said):
    folder = write_page(["writer"], tmp_path / "site")
    (folder / file).unlink()
    with folder_served(folder) as url:
        page = browser.new_page()
        page.goto(url)
        for _ in range(2):
            page.get_by_role("button", name="Write").click()
            expect(page.locator(".wrong")).to_contain_text(said)
        page.close()


# -- for everybody -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)], ids=["light", "dark"])
def test_nothing_keeps_anybody_out(see, scheme, size):
    """axe finds nothing serious, by day on a desk and by night on a phone; nothing is wider than it."""
    page = see("writer", color_scheme=scheme, size=size)
    if size is PHONE:
        page.locator(".settings summary").click()
    page.get_by_label("Length").press("Home")
    buttons = {"writer": "Write", "en-de": "Translate", "captions": "Describe", "labels": "Classify"}
    for name, button in buttons.items():
        page.get_by_role("checkbox", name=name, exact=True).check()
        if name == "captions":
            file = {"name": "red.png", "mimeType": "image/png", "buffer": b64decode(picture().partition(",")[2])}
            page.locator("input[type=file]").set_input_files(file)
        else:
            page.get_by_role("textbox").fill("the cat " if name == "writer" else SENTENCES[3])
            page.get_by_role("button", name=button).click()
        expect(page.locator(".answer")).to_be_visible()
        settled(page)
        if name in ("writer", "en-de"):
            page.locator(".text .token").nth(1).click()
        nothing_serious(page)
