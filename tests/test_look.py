"""`gen data`: the numbers are those of training, and what is odd is found."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from data.shapes import write_shapes
from gen.datasets.look import oddities
from gen.training.config import config_class
from gen.training.registry import find_task
from tasks.commands.guess import task_for
from tests.conftest import TEXT


@pytest.fixture
def look(gen):
    def run(*words):
        status, out, err = gen("data", *words, "--json")
        assert status == 0, err
        return json.loads(out)

    return run


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a\x07b", "control characters"),
        ("caf\ufffd", "replacement characters (U+FFFD)"),
        ("a\u200bb", "zero-width spaces"),
        ("\ufeffa", "zero-width spaces"),
        ("a\u200db", "zero-width joiners"),
        ("a\u202eb", "direction marks"),
        ("a\u00adb", "soft hyphens"),
        ("10\u00a0km", "unusual spaces"),
        ("a\u2028b", "unusual spaces"),
        ("\ue000", "private or unassigned characters"),
        ("R&amp;D", "markup"),
        ("a <br/> b", "markup"),
        ("fÃ¼r", "mojibake (UTF-8 read as another encoding)"),
        ("itâ€™s", "mojibake (UTF-8 read as another encoding)"),
        ("cafe\u0301", "decomposed characters (not NFC)"),
    ],
)
def test_odd_characters_are_found(text, kind):
    assert kind in oddities(f"well, {text} then")


@pytest.mark.parametrize(
    "text",
    ["a < b & c > d", "Grüße aus Köln – „schön“", "我\u3000爱你", "नमस्ते", "a\tb", "R&D; AT&T", "naïve café"],
)
def test_plain_text_is_not_odd(text):
    assert oddities(text) == {}


def test_pairs(look, gen, tmp_path):
    pairs = [f"a dog {i} runs\tein Hund {i} rennt\ttrain\n" for i in range(30)]
    pairs += ["\tleer\ttrain\n", f"a {'b ' * 40}\tkurz\ttrain\n", "a dog 3 runs\tein Hund 4 rennt\tval\n"]
    pairs += [
        "a cat\teine M\u00c3\u00a4use\tval\n",
        "a dog 5 runs\tein Hund 5 rennt\ttest\n",
        "A  DOG 6 runs\tx\ttest\n",
    ]
    table = tmp_path / "pairs.tsv"
    table.write_text("source\ttarget\tsplit\n" + "".join(pairs))
    options = {"level": "char", "max_length": 40}
    found = look(table, "--level", "char", "--max-length", 40)
    task = find_task("translate")
    data = task.Data(data=(str(table),), **options)
    split = task(config_class(task)(data=data)).read(data)
    assert found["task"] == "translate"
    assert found["table"] == split.table()
    assert sorted(found["dropped"]) == ["1 pairs with an empty side", "1 pairs with more than 40 tokens"]
    parts = found["parts"]
    assert {name: part["texts"]["source"]["rows"] for name, part in parts.items()} == {
        "training": 30,
        "validation": 2,
        "test": 2,
        "left out": 2,
    }
    source, target = (parts["training"]["texts"][side] for side in ("source", "target"))
    assert target["lengths"]["characters"]["total"] == split.num_tokens
    assert source["lengths"]["characters"]["total"] == len(split.pairs.source.tokens) - 30  # EOS
    assert source["lengths"]["words"]["median"] == 4
    assert source["scripts"] == {"Latin": 1.0}
    leaks = {(each["what"], each["part"], each["other"]): each["count"] for each in found["leaks"]}
    assert leaks == {
        ("source", "training", "validation"): 1,
        ("target", "training", "validation"): 1,
        ("source", "training", "test"): 2,
        ("target", "training", "test"): 1,
        ("pair", "training", "test"): 1,
    }
    odd = parts["validation"]["texts"]["target"]["odd"]
    assert [(kind.split()[0], each["rows"], each["first"]) for kind, each in odd.items()] == [("mojibake", 1, 2)]
    assert found["vocabulary"]["characters"]["source"] == len(split.tokenizer)


def test_text_and_its_page(look, gen, tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("".join(f"line {i} <b>\n" for i in range(300)) + TEXT * 5)
    found = look(book)
    assert found["task"] == "text"
    assert set(found["vocabulary"]) == {"characters", "words", "subwords"}
    lines = [part["texts"]["text"]["rows"] for part in found["parts"].values()]
    assert sum(lines) in (305, 306)  # the border may cut one in two
    assert found["parts"]["validation"]["texts"]["text"]["repeated"] > 0
    page = tmp_path / "page.html"
    other = tmp_path / "other.txt"
    other.write_text("line 7 <b>\nnew\n")
    status, out, err = gen("data", "text", book, "--unit", "line", "--test", other, "--page", page)
    assert status == 0, err
    assert "Read as" not in out
    assert "text of test" in out
    html = page.read_text()
    assert html.count("<svg") == 3  # a level each
    assert "line 0 &lt;b&gt;" in html
    assert "<script" not in html


def test_standard_input_is_read_once(gen, monkeypatch, tmp_path):
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((TEXT * 20).encode())))
    status, out, err = gen("data", "-", "--json", "--page", tmp_path / "page.html")
    assert status == 0, err
    assert json.loads(out)["parts"]["training"]["texts"]["text"]["rows"] > 10
    assert (tmp_path / "page.html").exists()


def test_captions(look, tmp_path):
    captions = write_shapes(tmp_path / "photos", training=12, held_out=3)
    first = next(iter(sorted((tmp_path / "photos").glob("*.png"))))
    (tmp_path / "photos" / "again.png").write_bytes(first.read_bytes())
    (tmp_path / "photos" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with captions.open("a") as file:
        for name in ("again", "bad", "gone"):
            file.write(json.dumps({"image": f"{name}.png", "captions": ["a circle"], "split": "train"}) + "\n")
    found = look(tmp_path / "photos", captions)
    assert found["task"] == "caption"
    training = found["parts"]["training"]
    assert training["pictures"] == 14
    assert training["repeated"] == 1
    assert len(training["unreadable"]) == 1
    assert any("gone.png" in line for line in found["dropped"])
    assert any("bad.png" in line for line in found["dropped"])
    assert training["shorter_side"]["min"] > 10


def test_labels_of_the_test_part_alone(gen, tmp_path):
    captions = write_shapes(tmp_path / "photos", training=12, held_out=3)
    words = (
        "data",
        "caption",
        "--images",
        tmp_path / "photos",
        "--captions",
        captions,
        "--test",
        f"de={captions}",
    )
    status, out, err = gen(*words)
    assert status == 0, err
    assert re.search(r"^de +45 *$", out, re.MULTILINE)


def test_labels(look, tmp_path):
    table = tmp_path / "news.csv"
    rows = [f"{('cat', 'dog')[i % 2]},about number {i}" for i in range(40)]
    table.write_text("label,title\n" + "\n".join([*rows, ",nothing", "cat,"]) + "\n")
    found = look(table, "--test", table)
    assert found["task"] == "classify"
    counts = [part["labels"]["label"] for part in found["parts"].values()]
    assert sum(counts[0].values()) + sum(counts[1].values()) == 40
    assert {(leak["what"], leak["part"], leak["count"]) for leak in found["leaks"] if leak["other"] == "test"} == {
        ("text", "training", 36),
        ("text", "validation", 4),
    }
    assert len(found["dropped"]) == 2


def test_a_task_of_ones_own(look, gen, tmp_path):
    from tests import own_task  # noqa: F401

    words = tmp_path / "words.txt"
    words.write_text("\n".join(f"word{i:03}" for i in range(300)))
    found = look("reverse", "--words", words)
    assert found["parts"]["training"]["texts"]["target"]["rows"] == 200
    status, _, err = gen("data", "reverse", words)
    assert (status, "--data" in err) == (2, True)
    assert gen("data", "reverse", "--words", words, "--test", words)[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name the data"),
        (("gone.txt",), "gone.txt: no such file"),
        (("translate", "c.en", "c.de", "--train", "a.en", "a.de"), "FILE and --train exclude each other"),
        (("book.txt", "--page", "page.pdf"), "name an .html file"),
        (("book.txt", "--levle", "word"), "--level"),
        (("film.srt",), "`gen translate RUN -i film.srt` translates; `gen data text film.srt`"),
        (("model",), "`gen info model`"),
        (("photos",), "name both, `gen data FOLDER captions.jsonl`"),
        (("photos/a.jpg",), "is a picture; name the folder"),
        (("captions.jsonl",), "a.jpg: is not in the current folder); --images names the folder"),
    ],
)
def test_what_cannot_be_looked_at(gen, book, monkeypatch, words, message):
    monkeypatch.chdir(book.parent)
    for name, text in {
        "film.srt": "1\n00:00:01,000 --> 00:00:02,000\nHello.\n",
        "model/config.yaml": "format: 3\n",
        "model/model.safetensors": "",
        "photos/a.jpg": "",
        "captions.jsonl": '{"image": "a.jpg", "caption": "a dog"}\n',
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    status, out, err = gen("data", *words)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_task_is_told_from_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "pairs.tsv": "a dog\tein Hund\na cat\teine Katze\n",
        "named.csv": "src,tgt\na,b\n",
        "labels.jsonl": '{"text": "a b", "label": "x"}\n',
        "captions.json": '{"images": [], "annotations": []}',
        "flickr.csv": "image,caption\na.jpg,a dog\n",
        "tokens.txt": "a.jpg#0\ta dog\n",
        "results.token": "a.jpg#0\ta dog\n",
        "deu.txt": "Go.\tGeh.\nHi.\tHallo!\n",
        "sms.tsv": "".join(f"{('ham', 'spam')[i % 2]}\tmessage {i} of them\n" for i in range(20)),
        "languages.csv": "id,en,de-AT\n1,a dog,ein Hund\n2,a cat,eine Katze\n",
        "nested.jsonl": '{"translation": {"en": "a dog", "de": "ein Hund"}}\n'
        '{"translation": {"en": "a cat", "de": "eine Katze"}}\n',
        "questions.csv": "question,answer\nwhat is it,a dog\nwho is it,a cat\n",
        "src.txt": "a dog\na cat\n",
        "tgt.txt": "ein Hund\neine Katze\n",
        "book.txt": "a dog\n",
        "titles.csv": "title\na dog\n",
    }
    for name, text in files.items():
        Path(name).write_text(text)
    for name in ("train.en.gz", "train.de.gz"):
        Path(name).write_bytes(gzip.compress(b"a\nb\n"))
    for name in ("by-label/cat", "by-label/dog"):
        Path(name).mkdir(parents=True)
    for name in ("beside/a", "parts/train/a", "parts/Testing/a", "boxes/dog/a", "boxes/cat/a"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        for ending in (".jpg", ".txt"):
            Path(name).with_suffix(ending).write_text("a dog")
    expected = {
        ("beside",): "caption",
        ("parts",): "caption",
        ("boxes",): "classify",
        ("pairs.tsv",): "translate",
        ("named.csv",): "translate",
        ("labels.jsonl",): "classify",
        ("captions.json",): "caption",
        ("flickr.csv",): "caption",
        ("tokens.txt",): "caption",
        ("titles.csv",): "text",
        ("by-label",): "classify",
        ("train.{en,de}",): "translate",
        ("train.en", "train.de"): "translate",
        ("a.txt", "b.txt"): "text",
        ("src.txt", "tgt.txt"): "translate",
        ("src.txt", "book.txt"): "text",
        ("train.en.gz", "train.de.gz"): "translate",
        ("deu.txt",): "translate",
        ("sms.tsv",): "classify",
        ("languages.csv",): "translate",
        ("nested.jsonl",): "translate",
        ("questions.csv",): "text",
        ("results.token",): "caption",
        ("beside", "results.token"): "caption",
        ("beside", "titles.csv"): "caption",
        ("memory.tmx",): "translate",
    }
    assert {names: task_for(names) for names in expected} == expected
    assert task_for(["titles.csv"], ["--src=en"]) == "translate"
