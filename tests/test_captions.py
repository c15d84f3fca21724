"""Captions in every format, and what is wrong with them."""

from __future__ import annotations

import json
import resource
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from gen.base.errors import UserError
from gen.datasets.captions import CAPTION_WORDS, Captioned, build_captions, read_captions, read_labelled
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
    "list.json": json.dumps([{"image": n, "captions": c, "split": SPLITS[n]} for n, c in CAPTIONS.items()]),
    "data.json": json.dumps({"data": [{"Image": n, "caption": c} for n, c in CAPTIONS.items()]}, indent=1),
    "pairs.json": json.dumps([[n, t] for n, c in CAPTIONS.items() for t in c]),
    "names.json": json.dumps(CAPTIONS),
    "texts.jsonl": jsonl([n, t] for n, c in CAPTIONS.items() for t in c),
    "list.txt": "".join(f"{n}\t{t}\n" for n, c in CAPTIONS.items() for t in c),
    "commas.txt": "".join(f'{n},"{t}"\n' for n, c in CAPTIONS.items() for t in c),
    "results.csv": "image_name| comment_number| comment\n"
    + "".join(f"{n}| {i}| {t}\n" for n, c in CAPTIONS.items() for i, t in enumerate(c)),
    "wide.csv": "image;caption_1;caption_2\n"
    + "".join(f"{n};{';'.join([*c, ''][:2])}\n" for n, c in CAPTIONS.items()),
    "cells.tsv": "image\tcaptions\n" + "".join(f"{n}\t{json.dumps(c)}\n" for n, c in CAPTIONS.items()),
    "python.tsv": "image\tcaptions\n" + "".join(f"{n}\t{c}\n" for n, c in CAPTIONS.items()),
    "numpy.csv": "image,captions\n" + "".join(f'{n},"[{" ".join(map(repr, c))}]"\n' for n, c in CAPTIONS.items()),
    "odd.csv": ",photo_id,seen\n" + "".join(f'{len(t)},{n}#0,"{t}"\n' for n, c in CAPTIONS.items() for t in c),
    "dataset_tokens.json": json.dumps(
        {
            "images": [
                {"filename": n, "split": SPLITS[n], "sentences": [{"tokens": t.split()} for t in c]}
                for n, c in CAPTIONS.items()
            ]
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


def test_what_is_missing_in_rows_and_annotations_is_named(tmp_path, images):
    nulls = [
        {"image": "a.jpg", "caption": "A dog"},
        {"image": "b.jpg", "caption": None},
        {"image": None, "caption": "x"},
    ]
    (tmp_path / "n.jsonl").write_text(jsonl(nulls))
    found = read_captions(str(images), str(tmp_path / "n.jsonl"))
    assert [c.captions for c in found.pictures] == [["A dog"]]
    said = "\n".join(found.dropped)
    assert "line 2: an empty caption of b.jpg" in said
    assert "line 3 names no picture" in said
    short = "image,caption\na.jpg,A dog\nb.jpg\n"
    (tmp_path / "s.csv").write_text(short)
    assert "line 3: an empty caption of b.jpg" in read_captions(str(images), str(tmp_path / "s.csv")).dropped[0]
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2}, "b.jpg", {"id": [3], "file_name": "c.png"}],
        "annotations": [
            {"image_id": 1, "caption": "A dog"},
            {"image_id": 999, "caption": "A ghost"},
            {"image_id": 1},
            {"image_id": 1, "caption": 7},
            None,
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    found = read_captions(str(images), str(tmp_path / "coco.json"))
    assert [c.captions for c in found.pictures] == [["A dog"]]
    assert [line.partition("coco.json: ")[2] for line in found.dropped] == [
        "image 1 lacks 'file_name'",
        "image 2 is no object",
        "image 3 lacks 'id'",
        "annotation 1 is about image 999, which is not in the list of images",
        "annotation 2 lacks 'caption'",
        "annotation 3 has a caption that is no text",
        "annotation 4 is no object",
    ]


def test_the_split_files_of_flickr8k(tmp_path, images):
    (tmp_path / "Flickr8k.token.txt").write_text(FORMATS["Flickr8k.token.txt"])
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("c.png\n")
    (tmp_path / "Flickr_8k.testImages.txt").write_text("\n")
    found = read_captions(str(images), str(tmp_path / "Flickr8k.token.txt"))
    assert [(c.picture.name, c.split) for c in found.pictures] == [("a.jpg", "train"), ("c.png", "valid")]
    assert [line.partition("txt: ")[2] for line in found.dropped] == [
        "line 3 names b.jpg, which is in no file of a split"
    ]


def test_names_of_pictures_from_elsewhere(tmp_path, capsys):
    folder = tmp_path / "photos"
    names = [
        "Sub/c.jpg",
        unicodedata.normalize("NFD", "café.jpg"),
        "F.JPG",
        "x/1.jpg",
        "y/1.jpg",
        "y/2.jpg",
        "z.png",
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    asked = [
        "Sub\\c.jpg",
        "café.jpg",
        "/data/photos/f.jpg",
        "photos/x/1.jpg",
        "2.jpg",
        "z",
        "1.jpg",
        "x/2.jpg",
        "w/2.jpg",  # a folder that is not there
        "q",
    ]
    rows = [{"image": name, "caption": name} for name in asked]
    (tmp_path / "x.jsonl").write_text(jsonl([*rows, {"image": "z.png", "caption": "its own name"}]))
    found = read_captions(str(folder), str(tmp_path / "x.jsonl"))
    expected = [names[0], names[1], names[2], "x/1.jpg", "y/2.jpg", "z.png"]
    assert [str(c.picture.relative_to(folder)) for c in found.pictures] == expected
    assert found.pictures[-1].captions == ["z", "its own name"]
    # There are two 1.jpg; and what is not in x is not the picture of that name in y.
    assert found.dropped == [f"{name}: is not in {folder}" for name in ("1.jpg", "x/2.jpg", "w/2.jpg", "q")]
    told = capsys.readouterr().err
    assert "photos: 6 pictures have another name there" in told
    assert len(told.splitlines()) == 1


def test_captions_beside_pictures(images):
    (images / "a.txt").write_text("a dog\n\na brown  dog\n")
    (images / "b.txt").write_text("\n")
    (images / "Testing").mkdir()
    for kind, content in (("jpg", b""), ("txt", b"a cat")):
        (images / "Testing" / f"d.{kind}").write_bytes(content)
    found = read_captions(str(images))
    assert [(c.picture.name, c.captions, c.split) for c in found.pictures] == [
        ("d.jpg", ["a cat"], "test"),
        ("a.jpg", ["a dog", "a brown dog"], "train"),
    ]
    assert "b.jpg: has no caption" in found.dropped
    (images / "a.txt").write_bytes(b"\xff")
    assert any("a.txt: line 1 is not UTF-8" in line for line in read_captions(str(images)).dropped)
    (images / "captions.csv").write_text("image,caption\na.jpg,a wolf\n")  # goes first
    assert [c.captions for c in read_captions(str(images)).pictures] == [["a wolf"]]


@pytest.mark.parametrize("shape", ["struct", "no path", "bytes", "jpg"])
def test_parquet_of_pictures_by_pandas_and_spark(images, tmp_path, monkeypatch, shape):
    pytest.importorskip("datasets")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    content = [(images / name).read_bytes() for name in ("a.jpg", "b.jpg")]
    cells = content
    if shape in ("struct", "no path"):  # the path is that of another machine: the bytes win
        cells = [{"bytes": each, "path": "b.jpg" if shape == "struct" else None} for each in content]
    table = {"jpg" if shape == "jpg" else "image": cells, "caption": ["a dog", "a cat"]}
    parquet.write_table(pa.table(table), tmp_path / "x.parquet")
    found = read_captions(str(images), str(tmp_path / "x.parquet")).pictures
    assert [(c.picture.read_bytes(), c.captions) for c in found] == [
        (content[0], ["a dog"]),
        (content[1], ["a cat"]),
    ]


def test_parquet_of_pictures_without_a_usual_name_of_captions(images, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    table = {"image": [(images / "a.jpg").read_bytes()], "answer": [["a dog", "a wolf"]], "split": ["train"]}
    parquet.write_table(pa.table(table), tmp_path / "x.parquet")
    (found,) = read_captions("", str(tmp_path / "x.parquet")).pictures
    assert found.captions == ["a dog", "a wolf"]
    parquet.write_table(pa.table(table | {"question": ["what?"]}), tmp_path / "y.parquet")
    with pytest.raises(UserError, match=r"which field has the captions.* 'image', 'answer', 'split', 'question'"):
        read_captions("", str(tmp_path / "y.parquet"))


def test_columns_of_captions_and_pictures(tmp_path, images):
    tables = {
        "a.csv": "filename,split,beschreibung\na.jpg,train,Ein Hund\nb.jpg,val,Ein Wolf\n",
        "b.csv": "raw,sentids,split,filename\n"
        + '"[""Ein Hund""]",[0],train,a.jpg\n"[""Ein Wolf""]",[1],val,b.jpg\n',
        "c.csv": "image,filename,caption,split\nx://a.jpg,a.jpg,Ein Hund,\nx://b.jpg,b.jpg,Ein Wolf,val\n",
        "d.csv": "image,file_name,caption,split\n123,a.jpg,Ein Hund,\n124,b.jpg,Ein Wolf,val\n",
    }
    for name, content in tables.items():
        (tmp_path / name).write_text(content)
        found = read_captions(str(images), str(tmp_path / name)).pictures
        assert [(c.picture.name, c.captions, c.split) for c in found] == [
            ("a.jpg", ["Ein Hund"], "train"),
            ("b.jpg", ["Ein Wolf"], "valid"),
        ]


def test_metadata_of_an_imagefolder_in_parquet(images):
    pytest.importorskip("datasets")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"file_name": ["a.jpg"], "text": ["a dog"]}), images / "metadata.parquet")
    assert [c.captions for c in read_captions(str(images)).pictures] == [["a dog"]]


def test_numbers_are_texts_and_what_is_none_costs_no_other_caption(tmp_path, images):
    (tmp_path / "x.jsonl").write_text(
        '{"image": "a.jpg", "captions": ["a dog", 3, true]}\n{"image": "b.jpg", "caption": 1984}\n'
    )
    found = read_captions(str(images), str(tmp_path / "x.jsonl"))
    assert [c.captions for c in found.pictures] == [["a dog", "3"], ["1984"]]
    assert found.dropped == [f"{tmp_path}/x.jsonl: line 1: an empty caption of a.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "photo,title,text_a\na.jpg,A dog,b\n", "which field has the captions"),
        ("x.jsonl", '{"captions": ["a"]}\n', "line 1 names no picture"),
        ("x.jsonl", '{"image": "a.jpg", "captions": [true]}\n', "line 1: captions must be a text"),
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


@pytest.mark.parametrize("most", [8, 20, 60])
def test_a_disk_that_gets_full_leaves_no_part_in_the_cache(most, tmp_path):
    """Also where only the last bytes of a file, or all of a small one, find no room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(UserError, match="the cache cannot be written"):
            build_captions(pictures(), TokenizerOptions("char"), cache=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert build_captions(pictures(), TokenizerOptions("char"), cache=tmp_path).pictures.tolist() == [0, 0, 1, 2]


def test_a_picture_belongs_to_one_part(tmp_path, images):
    """Rows split by chance: a picture's other captions are left out. A name may hold a #."""
    (images / "a#1.jpg").write_bytes((images / "a.jpg").read_bytes())
    rows = "a#1.jpg#0,a dog,train\na#1.jpg#1,a cat,test\n"
    (tmp_path / "c.csv").write_text("image,caption,split\n" + rows)
    found = read_captions(str(images), str(tmp_path / "c.csv"))
    assert [(c.picture.name, c.captions, c.split) for c in found.pictures] == [("a#1.jpg", ["a dog"], "train")]
    assert "belongs to the part 'train' already" in found.dropped[0]


def test_files_that_describe_the_same_pictures_are_one(tmp_path, images):
    for number in (1, 2):
        rows = [{"image": name, "caption": f"file {number}"} for name in CAPTIONS]
        (tmp_path / f"{number}.jsonl").write_text(jsonl(rows))
    files = [str(tmp_path / "1.jsonl"), str(tmp_path / "2.jsonl")]
    found = read_labelled(str(images), files).pictures
    assert len(found) == len(CAPTIONS)
    assert all(each.captions == ["file 1", "file 2"] for each in found)
    labelled = read_labelled(str(images), [f"a={files[0]}", f"b={files[1]}"]).pictures
    assert sorted((each.label, *each.captions) for each in labelled) == sorted(
        [("a", "file 1"), ("b", "file 2")] * len(CAPTIONS)
    )
