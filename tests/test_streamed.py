"""Training on shards while they are read: orders, resuming, several processes, what is left out."""

from __future__ import annotations

import io
import json
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import gen as toolkit
from data.sequences import sequence_pairs
from gen.base.errors import UserError
from gen.datasets import shards as shards_module
from gen.datasets.corpus import TokenizerOptions
from gen.datasets.shard_files import Shard, find_shards, is_streamed
from gen.datasets.shards import Shards
from gen.datasets.splits import text_key
from gen.datasets.streamed import PairHead, StreamedBatches, leave_out_pairs, stream_corpus, text_shards
from gen.datasets.streamed_pictures import hold_out_pictures, picture_blocks, picture_head, picture_shards
from gen.inputs.pictures import Preprocessing
from gen.inputs.tokenizer import CharTokenizer
from tasks.caption.data import read_split
from tasks.caption.options import CaptionData
from tasks.translate.data import read_pairs
from tasks.translate.options import TranslateData
from tests import faults
from tests.faults import PAIRS, PICTURES, TEXT, Trainings
from tests.test_distributed import EXACT, losses, read

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "dogs", "ran", "to", "her", "hats", "while", "men", "sang")


def texts(count, seed=0, words=12):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, words)) + f" {i}." for i in range(count)]


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_tar(path, rows):
    """A tar as of webdataset: rows of {extension: bytes}."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for number, row in enumerate(rows):
            for kind, content in row.items():
                add(tar, f"./{number:05}.{kind}", content)


def write_shards(folder, parts, kind="jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        path = folder / f"{number:03}.{kind}"
        if kind == "tar":
            write_tar(path, [{"txt": text.encode()} for text in part])
        elif kind == "jsonl":
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
        elif kind == "txt":
            path.write_text("".join(text + "\n" for text in part))
        else:
            pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            parquet.write_table(pa.table({"text": part}), path, row_group_size=7)
    return [str(path) for path in sorted(folder.iterdir())]


PARTS = [texts(20, seed) for seed in range(3)]
ALL = [text for part in PARTS for text in part]


@pytest.mark.parametrize("kind", ["jsonl", "tar", "txt", "parquet"])
def test_a_pass_has_every_text_once_and_goes_on_from_anywhere(tmp_path, kind):
    names = write_shards(tmp_path / "data", PARTS, kind)
    found = text_shards(names, by_line=True, buffer=7)
    place, blocks, places = (0, 0, 0), [], []
    while place[0] < 2:
        places.append(place)
        block, place = found.block(place, seed=1)
        blocks.append(block)
    passes = [
        [text for p, block in zip(places, blocks, strict=True) if p[0] == n for text in block] for n in range(2)
    ]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(ALL)
    assert passes[0] != passes[1]
    assert max(map(len, blocks)) == 7
    for place, block in zip(places, blocks, strict=True):  # each from a reader that has read nothing yet
        assert text_shards(names, by_line=True, buffer=7).block(place, seed=1)[0] == block


def test_the_dataset_library_streams_the_same(tmp_path):
    pytest.importorskip("datasets")
    write_shards(tmp_path / "data", PARTS)
    found = text_shards([f"hf:{tmp_path / 'data'}"], buffer=100)
    assert len(found.shards) == 3
    assert sorted(found.block((0, 0, 0))[0]) == sorted(ALL)
    assert [*found.items(found.shards[1], 18)] == PARTS[1][18:]


def test_memory_is_that_of_a_block(tmp_path, monkeypatch):
    """A block ends at a number of characters, however long its texts are; a shard is opened once a pass."""
    monkeypatch.setattr(shards_module, "BLOCK", 500)
    opened = []

    def rows(skip):
        opened.append(skip)
        return iter(range(skip, 100))

    found = Shards([Shard("", rows)], lambda shard, skip: ("x" * 100 for _ in shard.rows(skip)), len)
    place = (0, 0, 0)
    for _ in range(19):
        block, place = found.block(place)
        assert len(block) == 5
    assert opened == [0]


def test_texts_to_validate_on_are_never_trained_on(tmp_path):
    """Also those that come again, with other spaces, in a shard that the beginning does not reach."""
    parts = [*PARTS, [f" {text.upper()} " for text in PARTS[0]]]
    found = text_shards(write_shards(tmp_path / "data", parts), buffer=1000)
    corpus = stream_corpus(found, None, TokenizerOptions(), valid_fraction=0.2)
    valid = corpus.tokenizer.decode(corpus.valid.tokens.read(0, len(corpus.valid.tokens)).tolist())
    trained, _ = found.block((0, 0, 0))
    keys = {text_key(text) for text in trained}
    held_out = [text for text in ALL if text_key(text) not in keys]
    assert held_out
    assert all(text in valid for text in held_out if text_key(text) not in map(text_key, PARTS[0]))
    assert sorted(trained) == sorted(t.strip() for part in parts for t in part if text_key(t) in keys)


def test_a_single_text_needs_another_to_validate_on(tmp_path):
    found = text_shards(write_shards(tmp_path / "data", [["the same"] * 5]))
    with pytest.raises(UserError, match="a single text, and none to validate on"):
        stream_corpus(found, None, TokenizerOptions(), valid_fraction=0.1)


def test_files_of_a_tar_that_share_a_name_are_a_row(tmp_path):
    path = tmp_path / "a.tar.gz"
    write_tar(path, [{"json": b'{"en": "a dog", "n": 1}', "de.txt": b"ein Hund\n", "jpg": b"\xff\xd8"}])
    (shard,) = find_shards([str(path)])
    assert list(shard.rows(0)) == [{"en": "a dog", "n": 1, "de.txt": "ein Hund", "jpg": b"\xff\xd8"}]
    assert list(shard.rows(1)) == []


def test_a_field_does_not_replace_a_file_of_its_row(tmp_path):
    write_tar(tmp_path / "a.tar", [{"txt": b"a file", "json": b'{"txt": "a field", "more": 1}'}])
    (shard,) = find_shards([str(tmp_path / "a.tar")])
    assert list(shard.rows(0)) == [{"txt": "a file", "more": 1}]


def test_a_hard_link_in_a_tar_is_named(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "0.txt", b"a dog")
        link = tarfile.TarInfo("1.txt")
        link.type, link.linkname = tarfile.LNKTYPE, "0.txt"
        tar.addfile(link)
        add(tar, "2.txt", b"a cat")
    (shard,) = find_shards([str(tmp_path / "a.tar")])
    first, linked, last = shard.rows(0)
    assert (first, last) == ({"txt": "a dog"}, {"txt": "a cat"})
    assert "1.txt: is a hard link to 0.txt" in str(linked["txt"])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda p: p.write_bytes(b"no tar"), "damaged or cut short"),
        (lambda p: write_tar(p, [{"json": b"{"}]), r"00000.json: is not JSON"),
        (lambda p: write_tar(p, [{"json": b"[1]"}]), "is not an object"),
        (lambda p: write_tar(p, [{"txt": b"a", "json": b'{"other": "b"}'}]), "name the column of the text"),
        (lambda p: write_tar(p, []), "holds no rows"),
        (lambda p: None, "no such file"),
    ],
)
def test_bad_shards_are_named(tmp_path, write, said):
    path = tmp_path / "a.tar"
    write(path)
    with pytest.raises(UserError, match=f"a.tar.*{said}"):
        text_shards([str(path)]).block((0, 0, 0))


def test_a_tar_that_is_cut_short_is_named(tmp_path):
    (name,) = write_shards(tmp_path / "data", [texts(200)], "tar")
    whole = os.path.getsize(name)
    for size in (whole // 2 + 7, whole // 2 // 512 * 512, whole // 2 // 1024 * 1024):  # in and between its members
        os.truncate(name, size)
        with pytest.raises(UserError, match=r"000\.tar: damaged or cut short"):
            text_shards([name]).block((0, 0, 0))


def test_what_is_always_streamed():
    assert [is_streamed(n) for n in ("a.tar", "a.tar.gz", "a.tgz", "hf:a/b", "a.jsonl", "a/b", "a.txt.gz")] == [
        *[True] * 4,
        *[False] * 3,
    ]


def test_options_that_do_not_go_with_it(gen, tmp_path):
    names = write_shards(tmp_path / "data", PARTS)
    status, _, err = gen(
        *("train", "text", "--data", *names, "-", "--shuffle-buffer", "10", "--given", "topic"),
        *("--budget", "2 epochs", "--out", tmp_path / "run"),
    )
    assert status == 2
    assert "--given does not go with data that is streamed" in err
    assert "standard input cannot be streamed" in err
    assert "--budget 2 epochs" in err
    assert not (tmp_path / "run").exists()


def test_pairs_that_share_a_side_with_validation_are_never_trained_on(tmp_path):
    pairs = [(f"a {i}", f"b {i}") for i in range(40)]
    again = [*((a.upper(), f"other {a}") for a, _ in pairs), *((f"other {b}", b) for _, b in pairs)]
    names = []
    for number, part in enumerate((pairs, again)):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps({"translation": {"en": a, "de": b}}) + "\n" for a, b in part))
        names.append(str(path))
    head = PairHead(names, "en", "de")
    assert list(head) == pairs + again
    leave_out_pairs(head.shards, pairs[:4])
    trained, _ = head.shards.block((0, 0, 0))
    assert len(trained) == 3 * 40 - 3 * 4
    assert not {side for pair in pairs[:4] for side in pair} & {side.lower() for pair in trained for side in pair}


def test_pairs_whose_fields_are_not_named_say_which_there_are(tmp_path):
    write_tar(
        tmp_path / "a.tar", [{"en": f"a dog {i}".encode(), "de": f"ein Hund {i}".encode()} for i in range(4)]
    )
    (tmp_path / "b.csv").write_text("english,german\na dog,ein Hund\na cat,eine Katze\n")
    for name, fields in (("a.tar", "'en', 'de'"), ("b.csv", "'english', 'german'")):
        with pytest.raises(UserError) as error:
            PairHead([str(tmp_path / name)])
        said = f"{name}: name the fields to use with src and tgt; there are {fields}"
        assert said in str(error.value)


def test_bad_rows_are_named_and_left_out(tmp_path, capsys):
    rows = [{"json": json.dumps({"text": f"text {i}", "to": f"a {i}"}).encode()} for i in range(150)]
    bad = {
        b"{": "00150.json: is not JSON",
        b'{"text": "a"}': "no field 'to'",
        b'{"text": "b", "to": true}': "no text in field 'to'",
    }
    rows[:0] = [{"json": b"[1]"}]
    write_tar(
        tmp_path / "a.tar", [*rows[1:], *({"json": each} for each in bad), {"json": b'{"text": "z", "to": 7}'}]
    )
    write_tar(tmp_path / "b.tar", rows)  # the first one is bad
    for _ in range(2):
        pairs = PairHead([str(tmp_path / "a.tar")], "text", "to").pairs
        assert (len(pairs), pairs[-1]) == (151, ("z", "7"))
    assert len(text_shards([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")], column="text").head()) == 303
    told = capsys.readouterr().err
    assert "left out" in told
    assert [said for said in bad.values() if said not in told] == []
    assert "b.tar: ./00000.json: is not an object" in told


def test_shards_whose_rows_are_all_bad_are_an_error(tmp_path):
    write_tar(tmp_path / "a.tar", [*[{"json": b'{"to": true}'}] * 9, {"json": b'{"text": null}'}])
    with pytest.raises(UserError, match=r"a\.tar: no pair is there"):
        PairHead([str(tmp_path / "a.tar")], "to", "text")


def test_a_byte_order_mark_in_a_tar_is_no_text(tmp_path):
    write_tar(tmp_path / "a.tar", [{"txt": "\ufeffa dog".encode()}])
    assert text_shards([str(tmp_path / "a.tar")]).head() == ["a dog"]


# -- pictures --------------------------------------------------------------------------------------------


def png(number):
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_pictures(folder, count=20):
    """Two tars of pictures with captions as JSON and as text, one of them with a picture that is none and one with
    no caption."""
    rows = [
        {"png": png(i), "json": json.dumps({"captions": [f"red {i}", f"a red {i}"]}).encode()}
        if i % 2
        else {"png": png(i), "txt": f"red {i}".encode()}
        for i in range(count)
    ]
    folder.mkdir(exist_ok=True)
    write_tar(
        folder / "0.tar", [*rows[::2], {"png": b"none", "txt": b"a bad one"}, {"png": png(200), "txt": b" "}]
    )
    write_tar(
        folder / "1.tar",
        [
            *rows[1::2],
            {"txt": b"alone"},
            {"png": png(99), "json": b'{"captions": null}'},
            {"png": png(98), "json": b"{"},
        ],
    )
    return str(folder / "{0..1}.tar")


def test_pictures_come_with_their_captions_and_what_is_none_is_named(tmp_path, capsys):
    names = [write_pictures(tmp_path)]
    found = picture_shards(names, buffer=6)
    expected = [(i, f"red {i}") for i in range(20)] + [(i, f"a red {i}") for i in range(1, 20, 2)]
    tokenizer = CharTokenizer.train(text for _, text in expected)
    make = picture_blocks(
        tokenizer, Preprocessing(size=4), verbatim=True, max_length=9, batch_tokens=30, views=1, seed=0
    )
    place, seen, blocks = (0, 0, 0), [], {}
    while place[0] < 1:
        start = place
        items, place = blocks[start] = found.block(place)
        for batch in make(items).epoch(0):
            colours = batch.source["picture"][:, 0, 0, 0].tolist()
            seen += zip(colours, map(tokenizer.decode, batch.input_ids[:, 1:].tolist()), strict=True)
    assert sorted(seen) == sorted(expected)
    told = capsys.readouterr().err
    for what in (
        "0.tar: ./00010 (png)",
        "0.tar: ./00011 has no caption",
        "1.tar: ./00010 has no picture",
        "1.tar: ./00011 has no caption",
        "1.tar: ./00012.json: is not JSON",
    ):
        assert told.count(f"{tmp_path}/{what}") == 1
    for start, block in blocks.items():  # each from a reader that has read nothing yet
        assert picture_shards(names, buffer=6).block(start) == block


def test_of_many_that_are_left_out_the_first_are_named(tmp_path, capsys):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    write_tar(tmp_path / "a.tar", [{"png": picture.getvalue()}] * 300)
    found = picture_shards([str(tmp_path / "a.tar")])
    for _ in range(2):
        assert not found.block((0, 0, 0))[0]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 101
    assert "further ones" in said[-1]


def test_pictures_to_validate_on_are_never_trained_on(tmp_path, monkeypatch):
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    found = picture_shards([write_pictures(tmp_path / "a"), write_pictures(tmp_path / "b")], buffer=1000)
    valid, keys = hold_out_pictures(found, picture_head(found), 1000)
    assert len(valid) == len(keys) == 2  # a tenth
    kept = {picture.data for picture in found.block((0, 0, 0))[0]}
    assert len(kept) == 19
    assert all(c.picture.read_bytes() not in kept and len(c.captions) in (2, 4) for c in valid)


def test_a_table_does_not_say_that_nothing_is_left_out_of_a_stream(tmp_path, monkeypatch):
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    pictures = read_split(CaptionData(data=[write_pictures(tmp_path)], shuffle_buffer=5))
    assert pictures.table()["left out"] == "named when they are read"
    write_tar(tmp_path / "pairs.tar", [{"src": str(i).encode(), "tgt": str(i).encode()} for i in range(40)])
    pairs = read_pairs(TranslateData(data=[str(tmp_path / "pairs.tar")], src="src", tgt="tgt"))
    assert pairs.table()["dropped"] == "none at the beginning"


# -- whole trainings -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Commands by kind, and what starts processes. The blocks are so small that a training reads many of them."""
    folder = tmp_path_factory.mktemp("streamed")
    many = [texts(60, seed) for seed in range(3)]
    write_shards(folder / "texts", many, "tar")
    shards = str(folder / "texts" / "{000..002}.tar")
    commands = {
        "texts": ["train", "text", "--data", shards, "--shuffle-buffer", "25", *TEXT],
        "lines": [
            *("train", "text", "--data", shards, "--shuffle-buffer", "25", "--unit", "line"),
            *("--batch-tokens", "300", *TEXT),
        ],
    }
    pairs = sequence_pairs("reverse", 120, seed=1, letters="abcdef", lengths=(2, 7))
    rows = [{"src": a.encode(), "tgt": b.encode()} for a, b in pairs]
    for number in range(2):
        write_tar(folder / f"pairs-{number}.tar", rows[number::2])
    pairs = str(folder / "pairs-{0..1}.tar")
    commands["pairs"] = ["train", "translate", "--data", pairs, "--shuffle-buffer", "25", *PAIRS]
    commands["pictures"] = [
        *("train", "caption", "--data", write_pictures(folder / "pictures"), "--shuffle-buffer", "5"),
        *("--backbone", "shufflenet_v2_x0_5", "--weights", "none", *PICTURES),
        *("--batch-tokens", "30", "--budget", "16 steps", "--r-drop", "0"),
    ]
    return folder, Trainings(folder / "cache"), commands


@pytest.mark.parametrize("kind", ["texts", "pairs", "pictures"])
def test_a_killed_training_ends_as_an_undisturbed_one(desk, tmp_path, kind):
    _, trainings, commands = desk
    argv = commands[kind]
    assert trainings.finish(argv, tmp_path / "one") == 0
    trainings.killed_at(argv, tmp_path / "two", ["step:9"])
    one, two = faults.outcome(tmp_path / "one"), faults.outcome(tmp_path / "two")
    assert faults.differences(one, two) == []
    assert one["records"][-1]["epoch"] > 3
    state = torch.load(tmp_path / "two" / "last" / "training.pt", weights_only=True)
    assert state["place"] != (0, 0, 0)


def test_a_run_that_is_done_goes_on_with_a_larger_budget(tmp_path):
    options = {
        "data": write_shards(tmp_path / "data", [texts(60, seed) for seed in range(3)]),
        "shuffle_buffer": 25,
    }
    options |= {
        "hidden_size": 8,
        "embedding_size": 8,
        "batch_size": 2,
        "chunk": 16,
        "validations": 1,
        "device": "cpu",
    }
    first = toolkit.train("text", out=tmp_path / "run", budget="200 steps", **options)
    assert first.history[-1]["epoch"] > 1  # a block that only reading finds
    assert toolkit.train("text", out=tmp_path / "run", budget="220 steps", **options).history[-1]["step"] == 220


@pytest.mark.parametrize("kind", ["lines", "pairs", "pictures"])
def test_two_processes_are_one(desk, tmp_path, kind):
    _, trainings, commands = desk
    argv = [*commands[kind], *EXACT]
    assert trainings.finish(argv, tmp_path / "one") == 0
    argv = [*argv, "--out", str(tmp_path / "two")]
    assert trainings.together(argv, tmp_path / "logs") == [0, 0], read(tmp_path / "logs")
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    torch.testing.assert_close(torch.tensor(one), torch.tensor(two), atol=1e-5, rtol=0)


def test_a_place_that_was_not_saved_is_found_by_reading(desk, tmp_path):
    """So a training also goes on from a state that has none."""
    found = text_shards([str(p) for p in sorted((desk[0] / "texts").iterdir())], buffer=25)
    whole = StreamedBatches(found, Blocks, seed=3)
    for number in range(9):
        list(whole.epoch(number))
    other = StreamedBatches(found, Blocks, seed=3)
    assert list(other.epoch(8)) == list(whole.epoch(8))
    assert other.place(8) == whole.place(8)


class Blocks:
    """The items of a block as its batches."""

    def __init__(self, items):
        self.items, self.batches_per_epoch = items, len(items)

    def epoch(self, epoch, start=0):
        return iter(self.items[start:])
