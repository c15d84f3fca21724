"""`gen caption`: files beside pictures, search by words, the gallery."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
import sys
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from PIL import Image

from gen.datasets.captions import labelled
from gen.inputs.labels import LabelProcessor, LabelTokenizer
from gen.models.model import Model
from gen.search.info import ModelInfo
from gen.search.phrase import phrase_fits
from tasks.caption.command import _language
from tests.serving import captioner
from tests.test_xmp import captions

pytest.importorskip("exiv2")

COLOURS = {"a/red.png": "red", "a/same.jpg": "blue", "b/same.jpg": "green", "b/white.webp": "white"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    captioner().save(folder / "model")
    return folder / "model"


@pytest.fixture
def photos(tmp_path):
    """A folder of pictures in two folders, of which two have the same name."""
    for name, color in COLOURS.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), color).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def said(out):
    return dict(line.split("\t") for line in out.splitlines())


# -- XMP -------------------------------------------------------------------------------------------------------


def test_sidecars(gen, model, photos):
    before = contents(photos)
    status, out, err = gen("caption", model, photos, "--xmp", "--language", "de")
    assert status == 0, err
    after = contents(photos)
    assert {n: after[n] for n in before} == before
    assert after.keys() - before.keys() == {f"{n}.xmp" for n in before}
    for path, caption in said(out).items():
        with open(f"{path}.xmp", "rb") as file:
            assert captions(file.read()) == {"x-default": caption, "de": caption}


def test_a_sidecar_of_others_is_kept(gen, model, photos):
    one, two, three = (photos / f"{name}.xmp" for name in ("a/red.png", "a/same.jpg", "b/same.jpg"))
    one.write_text("half a sid")
    two.symlink_to(photos / "elsewhere.xmp")
    three.mkdir()
    status, _, err = gen("caption", model, photos, "--xmp")
    assert status == 1
    assert "red.png.xmp: is damaged" in err
    assert "a/same.jpg.xmp: is no file of its own" in err
    assert "b/same.jpg.xmp: is no file of its own" in err
    assert one.read_text() == "half a sid"
    assert not (photos / "elsewhere.xmp").exists()
    assert (photos / "b" / "white.webp.xmp").exists()
    assert not [p for p in photos.rglob("*") if ".gen-" in p.name]
    assert "could not be used" not in err


def test_overwrite_replaces_captions(gen, model, photos):
    picture = photos / "a" / "red.png"
    assert gen("caption", model, picture, "--xmp")[0] == 0
    first = contents(photos)
    assert gen("caption", model, picture, "--xmp", "--beam", "1", "--max-new-tokens", "2")[0] == 1
    assert contents(photos) == first
    command = ("caption", model, picture, "--xmp", "--max-new-tokens", "2")
    status, _, err = gen(*command)
    assert (status, "red.png.xmp: has a caption; --overwrite replaces it" in err) == (1, True)
    status, out, _ = gen(*command, "--overwrite")
    assert status == 0
    assert captions(contents(photos)["a/red.png.xmp"]) == {"x-default": next(iter(said(out).values()))}


def test_copies(gen, model, photos, tmp_path):
    before, copies = contents(photos), tmp_path / "copies"
    command = ("caption", model, photos, "--xmp-copies", copies)
    status, out, err = gen(*command)
    assert status == 0, err
    assert contents(photos) == before
    assert contents(copies).keys() == before.keys()
    for path, caption in said(out).items():
        copy = Image.open(copies / os.path.relpath(path, photos))
        assert captions(copy.info.get("xmp") or copy.info["XML:com.adobe.xmp"]) == {"x-default": caption}
    made = contents(copies)
    status, _, err = gen(*command, "--max-new-tokens", "2")
    assert (status, err.count("exists; --overwrite replaces it")) == (1, 4)
    assert contents(copies) == made
    assert gen(*command, "--max-new-tokens", "2", "--overwrite")[0] == 0
    assert contents(copies) != made


def test_copies_never_reach_the_pictures(gen, model, photos, tmp_path):
    before = contents(photos)
    for extra in ((), ("--overwrite",)):
        status, _, err = gen("caption", model, photos, "--xmp-copies", photos, *extra)
        assert (status, err.count("is the picture itself")) == (1, 4)
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "a").symlink_to(photos / "b")
    status, _, err = gen("caption", model, photos, "--xmp-copies", tmp_path / "copies", "--overwrite")
    assert (status, err.count("is behind a link")) == (1, 2)
    assert contents(photos) == before


def test_a_format_without_captions_and_equal_names(gen, model, photos, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.bmp")
    names = [photos / "a" / "same.jpg", photos / "b" / "same.jpg", tmp_path / "a.bmp"]
    status, out, err = gen("caption", model, *names, "--xmp-copies", tmp_path / "copies")
    assert (status, len(out.splitlines())) == (1, 3)
    assert "a.bmp: takes no caption" in err
    assert "same.jpg already has the caption of another picture" in err
    assert contents(tmp_path / "copies").keys() == {"same.jpg"}


def test_labels_of_captions(tmp_path):
    """A code of a language is one; the name of a file that is there is none."""
    assert labelled("pt-BR=a.jsonl") == ("pt-BR", "a.jsonl")
    assert labelled("a b=c.jsonl") == ("", "a b=c.jsonl")
    (path := tmp_path / "a=b.jsonl").write_text("")
    assert labelled(str(path)) == ("", str(path))


def test_the_language_of_captions():
    """Of a label, where all labels are codes of languages; else that in the name of the training file."""
    labels = {labels: LabelProcessor(LabelTokenizer(labels.split())) for labels in ("de en pt-BR", "de cat dog")}
    for files, given, expected in (
        (["x/captions.de.jsonl"], {}, "de"),
        (["captions.jsonl"], {}, ""),
        (["a.de.json", "a.fr.json"], {}, ""),
        (["a.de.json", "a.fr.json"], {"de en pt-BR": "pt-BR"}, "pt-BR"),
        (["a.de.json", "a.fr.json"], {"de cat dog": "de"}, ""),
        ("a.de.json", {}, ""),
        (None, {}, ""),
    ):
        info = ModelInfo("caption", training={"data": {"captions": files}})
        assert _language(SimpleNamespace(info=info, processors=labels), given) == expected


# -- search ----------------------------------------------------------------------------------------------------


def test_search(gen, model, photos):
    status, out, err = gen("caption", model, photos, "--search", "W7, w8!", "--precision", "fp32")
    assert status == 0, err
    names = [str(photos / name) for name in COLOURS]
    fits = dict(zip(names, phrase_fits(Model.load(model), names, "w7 w8"), strict=True))
    ranked = sorted(names, key=lambda name: -fits[name].score)
    assert len({fit.score for fit in fits.values()}) == 4
    assert out == "".join(f"{name}\t{fits[name].score:.4f}\n" for name in ranked)
    top = ("caption", model, photos, "--search", "w7 w8", "--top", "2", "--batch-size", "3", "--precision", "fp32")
    found = [json.loads(line) for line in gen(*top, "--json")[1].splitlines()]
    assert [each["image"] for each in found] == ranked[:2]
    assert [each["score"] for each in found] == pytest.approx([fits[n].score for n in ranked[:2]], abs=1e-5)
    assert [each["caption"] for each in found] == [fits[n].text for n in ranked[:2]]
    rows = list(csv.DictReader(io.StringIO(gen(*top, "--csv")[1])))
    assert [row["image"] for row in rows] == ranked[:2]
    assert rows[0].keys() == {"image", "caption", "score"}


def test_search_goes_on_without_pictures_that_cannot_be_used(gen, model, photos):
    (photos / "a" / "cut.png").write_bytes(b"")
    status, out, err = gen("caption", model, photos, "--search", "w7")
    assert (status, len(out.splitlines())) == (1, 4)
    assert "cut.png: is empty" in err
    assert "1 of 5 pictures" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--search", "zebra w3"), "--search: 'zebra': not in the vocabulary"),
        (("--search", "!"), "--search: there are no words"),
        (("--top", "3"), "--top goes with --search"),
        (("--search", "w3", "--top", "0"), "--top must be at least 1"),
        (("--search", "w3", "--xmp", "--beam", "2"), "does not go with --xmp, --beam"),
        (("--overwrite",), "--overwrite goes with --sidecar, --xmp and --xmp-copies"),
        (("--xmp", "--language", "de_DE!"), "--language de_DE!"),
        (("--xmp-copies", "photos/a/red.png"), "--xmp-copies photos/a/red.png: is no folder"),
    ],
)
def test_wrong_options(gen, model, photos, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    status, out, err = gen("caption", model, "photos", *words)
    assert (status, out) == (2, "")
    assert message in err
    assert contents(tmp_path) == before


def test_without_the_library(gen, model, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "exiv2", None)
    for words in (("--xmp",), ("--xmp-copies", photos.parent / "copies")):
        status, out, err = gen("caption", model, photos, *words)
        assert (status, out) == (2, "")
        assert "pip install exiv2" in err


# -- the gallery -----------------------------------------------------------------------------------------------


def links(page):
    return [unquote(html.unescape(link)) for link in re.findall(r'<a href="([^"]*)"', page.read_text())]


def test_the_gallery_links_to_the_pictures(gen, model, photos, tmp_path):
    shutil.copy(photos / "a" / "red.png", photos / 'b: "c" #1 <i>?100%.png')
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / "page.html"
    assert gen("caption", model, photos, "--show", page)[0] == 0
    assert [(page.parent / link).resolve() for link in links(page)] == sorted(
        p.resolve() for p in photos.rglob("*") if p.is_file()
    )
    text = page.read_text()
    assert text.count("same.jpg</small>") == 2
    assert "<small>a/same.jpg</small>" in text
    assert "<small>b/same.jpg</small>" in text
    assert "<i>" not in text


def test_the_gallery_of_a_search_is_in_its_order(gen, model, photos, tmp_path):
    page = tmp_path / "page.html"
    status, out, _ = gen("caption", model, photos, "--search", "w7", "--top", "3", "--show", page)
    assert status == 0
    assert [str(tmp_path / link) for link in links(page)] == list(said(out))
    shown = re.findall(r"<small>score (−[\d.]+)</small>", page.read_text())
    assert shown == [f"−{-float(score):.2f}" for score in said(out).values()]
