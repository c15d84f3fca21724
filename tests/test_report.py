"""The report of `gen demo` and the gallery of `gen caption --show`: what they hold, and in a browser."""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from gen.metrics.plots import COLOURS
from tasks import report
from tasks.caption.gallery import write_gallery
from tasks.demo.patterns import drawn
from tests.browsing import DESK, PHONE, needs_browser, nothing_serious, sync_api

expect = sync_api.expect
ODD = '</script><script>document.title = "run"</script><i>&amp;'
CAPTIONS = ["a dog in the snow", "Ein Mädchen läuft", "एक कुत्ता", f"two dogs {ODD}"]
SCREENS = [("light", DESK), ("dark", DESK), ("light", PHONE), ("dark", PHONE)]
screens = pytest.mark.parametrize(("scheme", "size"), SCREENS, ids=[f"{s}{d['width']}" for s, d in SCREENS])

RECORDS = [
    *({"seconds": float(i), "loss": 4 / i, "step": i} for i in range(1, 9)),
    *({"seconds": float(i), "validation": {"loss": 5 / i, "bleu": 9.0 * i}} for i in (2, 5, 8)),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report with every part that there is, of awkward content."""
    tmp_path = tmp_path_factory.mktemp("report")
    picture = tmp_path / f"{'long-name-' * 9}.png"
    Image.new("RGB", (400, 300), "teal").save(picture)
    words = [f" word{i}{'-long' * (i % 3)}" for i in range(16)]
    weights = np.random.default_rng(0).dirichlet(np.full(16, 0.2), 16)
    pixels = np.full((32, 32, 3), 200, np.uint8)
    rows = [(f"French: a sentence that somebody asked {ODD}", "une phrase " * 5, "should be: " + "x" * 90)]
    numbers = report.numbers(
        ("", *list(report.METRICS)[:3]), [("network", 1.5, 2.2, 4.6), ("Markov chain", 1, 2, 3)]
    )
    sections = [
        report.section(
            "Four patterns",
            ODD,
            drawn(
                [
                    ("One to many", "a picture → words", (1, 4), report.small_picture(picture), "a"),
                    ("Many to many", "words → words", (4, 4), "b", ODD),
                ]
            ),
        ),
        report.section("Learning", "said", numbers, report.loss_curve(RECORDS, 1.0, "bleu", "BLEU")),
        report.section("Writing", "", report.samples([("Greedy", "loops", "=" * 400), ("Lively", "", ODD)])),
        report.section("Surprise", "", report.surprise([("a", -0.1), ("b" * 80, -9.0)])),
        report.section("Sentences", "", report.texts(("asked", "answered", ""), rows)),
        report.section(
            "Attention", "", report.heat_map(weights, words, words), report.heat_map(weights, words, words)
        ),
        report.section("Looks", "", report.looks(pixels, np.full((30, 16), 1 / 16), words * 2)),
        report.section("Pictures", "", report.gallery([report.card(picture, tmp_path / "r.html", [ODD])])),
        report.section("Next", "", report.commands(["gen generate " + "y" * 200])),
    ]
    report.write_page(tmp_path / "report.html", f"Title {ODD}", ODD, sections)
    return tmp_path / "report.html"


@pytest.fixture
def gallery(tmp_path):
    shown = []
    for i, caption in enumerate(CAPTIONS):
        path = tmp_path / f"{i % 2}" / f"photo-{'x' * 70}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (300 + 99 * i, 300), "teal").save(path)
        shown.append((path, [caption, "or this"], -i / 3))
    write_gallery(tmp_path / "gallery.html", ODD, shown, language="de")
    return tmp_path / "gallery.html"


@pytest.fixture
def see(browser):
    """Opens a page. At the end nothing must have gone wrong or been fetched."""
    contexts, wrong = [], []

    def open_page(path, scheme="light", size=DESK):
        context = browser.new_context(viewport=size, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith((path.as_uri(), "data:")) else wrong.append(r.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def luminance(page, selector, of):
    """The relative luminance of a colour of an element, from 0 to 1."""
    red, green, blue = page.locator(selector).first.evaluate(
        """(element, of) => {
            const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
            pen.fillStyle = getComputedStyle(element)[of];
            pen.fillRect(0, 0, 1, 1);
            return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }""",
        of,
    )
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


# -- without a browser ---------------------------------------------------------------------------------------


def test_the_colours_of_plots_are_those_of_pages():
    light = files("gen.serve").joinpath("page/theme.css").read_text().partition("@media")[0]
    assert COLOURS.items() <= dict(re.findall(r"--([\w-]+): (#\w+);", light)).items()


def test_plots_take_text_and_colours_from_the_page(made):
    text = made.read_text()
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 2 + 3
    for plot in plots[2:]:
        assert "<text" in plot
        assert set(re.findall(r"#[0-9a-f]{6}\b", plot)) <= {"#ffffff"}
        assert "var(--accent)" in plot
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_every_metric_is_explained(made):
    text = made.read_text()
    for name in list(report.METRICS)[:3]:
        assert f"<dt>{name}</dt> <dd>{report.METRICS[name]}".replace("'", "&#x27;") in text
    with pytest.raises(KeyError):
        report.numbers(("", "an unknown metric"), [])


# -- in a browser --------------------------------------------------------------------------------------------


@needs_browser
@screens
def test_a_report_is_for_everybody(see, made, scheme, size):
    page = see(made, scheme, size)
    nothing_serious(page)
    links = page.locator("nav a")
    expect(links).to_have_text(page.locator("main section h2").all_text_contents())
    for link in links.all():
        assert page.locator(link.get_attribute("href")).count() == 1
    dark = scheme == "dark"
    for selector in (".plot svg text", "pre", "td", "body"):
        assert (luminance(page, selector, "color") > 0.5) is dark
    assert (luminance(page, "body", "backgroundColor") < 0.5) is dark
    assert page.locator(".plot svg text").first.evaluate("(e) => getComputedStyle(e).fontFamily") == page.locator(
        "body"
    ).evaluate("(e) => getComputedStyle(e).fontFamily")
    assert page.title() == f"Title {ODD}"
    assert page.locator("i").count() == 0


@needs_browser
def test_plots_and_tables_on_a_phone(see, made):
    page = see(made, size=PHONE)
    plot = page.locator(".plot > svg")
    scale = plot.bounding_box()["width"] / plot.evaluate("(e) => e.viewBox.baseVal.width")
    assert 10 * scale > 9.9  # pixels of the text
    cells = [cell.bounding_box() for cell in page.locator(".texts tbody tr > *").all()]
    assert all(cell["width"] > 250 for cell in cells)
    assert [cell["y"] for cell in cells] == sorted({cell["y"] for cell in cells})
    for scroller in page.locator(".scroll").all():
        assert scroller.evaluate("(e) => e.getBoundingClientRect().right") <= PHONE["width"]


@needs_browser
@screens
def test_a_gallery_is_for_everybody(see, gallery, scheme, size):
    page = see(gallery, scheme, size)
    nothing_serious(page)
    boxes = [name.bounding_box() for name in page.locator("figure").all()]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            beside = one["x"] >= other["x"] + other["width"] or other["x"] >= one["x"] + one["width"]
            assert beside or one["y"] >= other["y"] + other["height"]
    assert (luminance(page, "figcaption p", "color") > 0.5) is (scheme == "dark")
    assert page.locator("figcaption p").first.get_attribute("lang") == "de"
    assert page.locator("i").count() == 0
    assert page.title() == "Captions"


@needs_browser
def test_the_search_field(see, gallery):
    page = see(gallery, size=PHONE)
    field, status = page.get_by_role("searchbox", name="Search captions"), page.get_by_role("status")
    shown = page.locator("figure:visible figcaption p:first-child")
    expect(status).to_have_text("")
    for typed, found in (
        ("dog", [0, 3]),
        ("SNOW dog", [0]),
        ("madchen", [1]),
        ("Mädchen", [1]),
        ("कुत्ता", [2]),
        ("<i>", [3]),
        ("no such thing", []),
        (" ", [0, 1, 2, 3]),
    ):
        field.fill(typed)
        expect(shown).to_have_text([CAPTIONS[i] for i in found])
        expect(status).to_have_text(f"{len(found)} of 4 pictures" if typed.strip() else "")


@needs_browser
def test_a_picture_opens_its_file(see, gallery):
    page = see(gallery)
    hrefs = page.locator("figure a").evaluate_all("(all) => all.map((e) => e.href)")
    assert hrefs == [(gallery.parent / f"{i % 2}" / f"photo-{'x' * 70}.png").as_uri() for i in range(4)]
