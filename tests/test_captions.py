"""Captions in every format, and what is wrong with them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gen.base.errors import UserError
from gen.datasets.captions import CAPTION_WORDS, Captioned, build_captions, read_captions
from gen.datasets.corpus import TokenizerOptions
from gen.inputs.tokenizer import WordTokenizer

CAPTIONS = {"a.jpg": ["A dog runs .", "The dog is running"], "b.jpg": ["Two men sit ."], "c.png": ["A red ball"]}
SPLITS = {"a.jpg": "train", "b.jpg": "val", "c.png": "test"}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, name in enumerate(CAPTIONS):
        Image.new("RGB", (8, 8), (i * 80, 0, 0)).save(folder / name)
    return folder


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


FORMATS = {
    "captions.jsonl": jsonl({"image": n, "captions": c, "split": SPLITS[n]} for n, c in CAPTIONS.items()),
    "rows.jsonl": jsonl({"file_name": n, "text": t, "split": SPLITS[n]} for n, c in CAPTIONS.items() for t in c),
    "captions.csv": "image,caption,split\n"
    + "".join(f'{n},"{t}",{SPLITS[n]}\n' for n, c in CAPTIONS.items() for t in c),
    "captions.txt": "image,caption\n" + "".join(f"{n},{t}\n" for n, c in CAPTIONS.items() for t in c),
    "Flickr8k.token.txt": "".join(f"{n}#{i}\t{t}\n" for n, c in CAPTIONS.items() for i, t in enumerate(c)),
    "dataset_flickr8k.json": json.dumps(
        {
            "dataset": "flickr8k",
            "images": [
                {
                    "filename": n,
                    "split": {"train": "restval"}.get(SPLITS[n], SPLITS[n]),
                    "sentences": [{"raw": t, "tokens": t.lower().split()} for t in c],
                }
                for n, c in CAPTIONS.items()
            ],
        }
    ),
    "captions_train2017.json": json.dumps(
        {
            "images": [{"id": i, "file_name": n} for i, n in enumerate(CAPTIONS)],
            "annotations": [
                {"image_id": i, "id": 7, "caption": t} for i, c in enumerate(CAPTIONS.values()) for t in c
            ],
        }
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(tmp_path, images, name):
    (tmp_path / name).write_text(FORMATS[name])
    found = read_captions(str(images), str(tmp_path / name))
    assert {c.picture.name: c.captions for c in found.pictures} == CAPTIONS
    assert not found.dropped
    if "split" in FORMATS[name]:
        assert [c.split for c in found.pictures] == ["train", "valid", "test"]


def test_coco_pictures_in_subfolders(tmp_path, images):
    (images / "val2014").mkdir()
    (images / "a.jpg").rename(images / "val2014" / "a.jpg")
    data = {
        "images": [{"filepath": "val2014", "filename": "a.jpg", "split": "val", "sentences": [{"raw": "A dog"}]}]
    }
    (tmp_path / "dataset_coco.json").write_text(json.dumps(data))
    assert read_captions(str(images), str(tmp_path / "dataset_coco.json")).pictures[0].picture.is_file()


def test_an_imagefolder_brings_its_captions(images):
    (images / "metadata.jsonl").write_text(FORMATS["rows.jsonl"])
    assert len(read_captions(str(images)).pictures) == 3
    (images / "metadata.jsonl").unlink()
    for split in ("train", "validation"):
        (images / split).mkdir()
        (images / split / "metadata.jsonl").write_text('{"file_name": "x.jpg", "text": "A dog"}\n')
        shutil.copy(images / "a.jpg", images / split / "x.jpg")
    found = read_captions(str(images))
    assert [(c.picture.parent.name, c.split) for c in found.pictures] == [
        ("train", "train"),
        ("validation", "valid"),
    ]
    shutil.rmtree(images / "train")
    shutil.rmtree(images / "validation")
    with pytest.raises(UserError, match="name the captions file"):
        read_captions(str(images))


def test_parquet(tmp_path, images):
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    rows = {"picture": [str(images / n) for n in CAPTIONS], "caption": list(CAPTIONS.values())}
    features = datasets.Features({"picture": datasets.Image(), "caption": datasets.List(datasets.Value("string"))})
    # Like those of the hub, the file holds the pictures themselves.
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "all.parquet"))
    found = read_captions("", str(tmp_path / "all.parquet"))
    assert [c.captions for c in found.pictures] == list(CAPTIONS.values())
    assert all(c.picture.is_file() for c in found.pictures)


def test_what_is_missing_is_reported(tmp_path, images):
    rows = [
        {"image": "a.jpg", "captions": ["A dog", "  ", "", "...", "🙂"]},
        {"image": "gone.jpg", "captions": ["nothing"]},
        {"image": "b.jpg", "captions": []},
    ]
    (tmp_path / "c.jsonl").write_text(jsonl(rows))
    found = read_captions(str(images), str(tmp_path / "c.jsonl"))
    assert [c.captions for c in found.pictures] == [["A dog", "🙂"]]
    said = "\n".join(found.dropped)
    assert said.count("line 1: an empty caption of a.jpg") == 3
    assert "b.jpg: has no caption" in said
    assert f"gone.jpg: is not in {images}" in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"captions": ["a"]}\n', "line 1 names no picture"),
        ("x.jsonl", '{"image": "a.jpg", "captions": [3]}\n', "line 1: captions must be a text"),
        ("x.jsonl", '{"image": "a.jpg", "caption": "a", "split": "trian"}\n', "line 1 has a split 'trian'"),
        ("x.jsonl", '{"image": "a.jpg"\n', "line 1 is not JSON"),
        ("x.jsonl", "[" * 100_000 + "\n", "line 1 is not JSON"),
        ("x.jsonl", '{"image": "a.jpg", "caption": "half a smile \\ud83d"}\n', "line 1 contains half a character"),
        ("x.csv", "image,caption\na.jpg,A man, a dog and a cat\n", "line 2 has more fields than the header"),
        ("x.jsonl", '{"image": "gone.jpg", "caption": "a"}\n', "no picture with a caption is left"),
        ("x.txt", "a.jpg#0 A dog\n", "line 1 has no tab"),
        ("x.json", "[1]", "has no list of images"),
        ("x.json", "{", "is not JSON"),
        ("x.json", '{"images": [{"id": 1}], "annotations": []}', "lacks 'file_name'"),
    ],
)
def test_errors_name_file_and_line(tmp_path, images, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_captions(str(images), str(tmp_path / name))
    assert name in str(caught.value)


def test_files_that_are_not_there(tmp_path, images):
    with pytest.raises(UserError, match=r"none\.jsonl: no such file"):
        read_captions(str(images), str(tmp_path / "none.jsonl"))
    (tmp_path / "c.jsonl").write_text(FORMATS["captions.jsonl"])
    with pytest.raises(UserError, match=r"images .*nowhere: no such folder"):
        read_captions(str(tmp_path / "nowhere"), str(tmp_path / "c.jsonl"))


def pictures():
    return [Captioned(name, captions) for name, captions in CAPTIONS.items()]


def test_tokens_on_disk_and_again_from_the_cache():
    options = TokenizerOptions("word", 1, dummy_prefix=True, pattern=CAPTION_WORDS)
    for _ in range(2):
        corpus = build_captions(pictures(), options)
        assert corpus.pictures.tolist() == [0, 0, 1, 2]
        texts = [corpus.tokenizer.decode(corpus.captions[i].tolist()) for i in range(4)]
        assert texts == ["a dog runs", "the dog is running", "two men sit", "a red ball"]


def test_verbatim_and_cut():
    options = TokenizerOptions("char")
    corpus = build_captions(pictures(), options, verbatim=True, max_length=10)
    assert corpus.tokenizer.decode(corpus.captions[0].tolist()) == "A dog runs"
    assert corpus.cut == 3


def test_a_given_vocabulary_is_kept():
    tokenizer = WordTokenizer([" a", " dog"], CAPTION_WORDS, dummy_prefix=True)
    corpus = build_captions(pictures(), TokenizerOptions("word", 1), tokenizer=tokenizer)
    assert len(corpus.tokenizer) == 6
    np.testing.assert_array_equal(corpus.captions[0], [4, 5, tokenizer.unk_id])


def test_clitics_are_tokens_and_come_back():
    tokenizer = WordTokenizer.train(
        ["a man's dog doesn't sit"], min_frequency=1, pattern=CAPTION_WORDS, dummy_prefix=True
    )
    ids = tokenizer.encode("a man's dog doesn't sit")
    assert [tokenizer.decode([i]) for i in ids] == ["a", "man", "'s", "dog", "doesn", "'t", "sit"]
    assert tokenizer.decode(ids) == "a man's dog doesn't sit"
