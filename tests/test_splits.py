"""Automatic validation parts: nothing in them is trained on."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from gen.base.errors import UserError
from gen.base.files import TextFiles
from gen.base.tables import Table
from gen.datasets.corpus import TokenizerOptions, build_corpus
from gen.datasets.pair_files import PairFiles
from gen.datasets.pairs import PairOptions, build_pairs
from gen.datasets.splits import PairKeys, connected, hold_out_pairs, text_key
from gen.datasets.streamed import PairHead
from tasks.caption.data import read_split
from tasks.caption.options import CaptionData
from tasks.text.data import TextSplit, read_corpus
from tasks.text.options import TextData
from tasks.translate.data import TranslateSplit

settings.register_profile("same", derandomize=True, deadline=None, max_examples=150, database=None)
settings.load_profile("same")

OPTIONS = PairOptions(TokenizerOptions("char", dummy_prefix=True))


def written(path, pairs):
    path.write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    return PairFiles([str(path)])


def trained_on(pairs):
    a, b = pairs.source_tokenizer.decode, pairs.target_tokenizer.decode
    return [(a(pairs.source[i][:-1]), b(pairs.target[i])) for i in range(len(pairs.source))]


def normal(texts):
    return {text_key(text) for text in texts}


SENTENCE = st.integers(0, 40).map(lambda n: f"Sentence {n}.")


@given(
    st.lists(st.tuples(SENTENCE, SENTENCE | st.just("")), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_any_split_is_without_leaks_and_the_same_in_any_order(pairs, rng):
    keys = PairKeys.of(pairs)
    held_out = hold_out_pairs(keys, 1000)
    valid = [pair for pair, out in zip(pairs, held_out, strict=True) if out]
    train = [pair for pair, out in zip(pairs, held_out, strict=True) if not out and all(pair)]
    assert all(map(all, valid))
    for side in (0, 1):
        assert not {pair[side] for pair in valid} & {pair[side] for pair in train}
    assert train or not valid
    other = pairs.copy()
    rng.shuffle(other)
    chosen = hold_out_pairs(PairKeys.of(other), 1000)
    assert sorted(valid) == sorted(pair for pair, out in zip(other, chosen, strict=True) if out)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=30))
def test_groups_are_the_connected_rows(rows):
    a, b = np.array(rows).T
    groups = connected(a, b)
    reached = [{i} for i in range(len(rows))]
    for _ in rows:
        reached = [{j for i in each for j in range(len(rows)) if a[i] == a[j] or b[i] == b[j]} for each in reached]
    assert groups.tolist() == [min(each) for each in reached]


def test_long_chains_are_one_group():
    numbers = np.random.default_rng(0).permutation(100_001)
    order = np.random.default_rng(1).permutation(200_000)
    sources, targets = np.repeat(numbers, 2)[:200_000][order], np.repeat(numbers, 2)[1:200_001][order]
    assert len(np.unique(connected(sources, targets))) == 1


def test_repeated_sentences_stay_on_one_side(tmp_path):
    rng = random.Random(0)
    pairs = [(f"Sentence {i // 3}.", f"Satz {i // 2 + rng.randrange(2)}.") for i in range(0, 600, 5)]
    pairs += [(a.upper(), f" {b}") for a, b in pairs[:50]]  # case and spaces make no difference
    split = build_pairs(written(tmp_path / "t.tsv", pairs), None, OPTIONS)
    train = trained_on(split)
    assert len(split.valid) == 17
    assert len(split.valid) + len(train) == len(pairs)
    for side in (0, 1):
        assert not normal(pair[side] for pair in split.valid) & normal(pair[side] for pair in train)
    repeated = len(train) - len({(text_key(a), text_key(b)) for a, b in train})
    assert TranslateSplit(split).table()["repeated"] == f"{repeated:,} training pairs occur before"
    assert "trained on" not in split.notes
    rng.shuffle(pairs)
    again = build_pairs(written(tmp_path / "u.tsv", pairs), None, OPTIONS)
    assert sorted(again.valid) == sorted(split.valid)


def test_labels_may_recur_but_sources_may_not(tmp_path):
    pairs = [(f"Sentence {i % 150}.", "yes" if i % 150 % 2 else "no") for i in range(300)]
    split = build_pairs(written(tmp_path / "t.tsv", pairs), None, OPTIONS)
    assert len(split.valid) == 30
    assert not {a for a, _ in split.valid} & {a for a, _ in trained_on(split)}
    assert split.notes["trained on"] == "30 of 30 targets to validate on"


def test_pairs_that_are_all_connected_cannot_be_split(tmp_path):
    with pytest.raises(UserError, match=r"name a file with valid; all are connected by equal sources or targets"):
        build_pairs(written(tmp_path / "t.tsv", [("a", "b")] * 40), None, OPTIONS)


def test_given_validation_pairs_that_are_trained_on_are_counted(tmp_path):
    train = written(tmp_path / "t.tsv", [(f"Sentence {i}.", f"Satz {i}.") for i in range(9)])
    valid = written(tmp_path / "v.tsv", [("sentence 3.", "x"), ("Sentence 4.", "Satz 4."), ("new", "neu")])
    table = TranslateSplit(build_pairs(train, valid, OPTIONS)).table()
    assert table["trained on"] == "2 of 3 sources and 1 of 3 targets to validate on"


def corpus_of(tmp_path, lines):
    (tmp_path / "lines.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    files = TextFiles([str(tmp_path / "lines.txt")])
    corpus = build_corpus(files, None, TokenizerOptions(), unit="line", cache=tmp_path / "cache")
    offsets = np.asarray(corpus.train.offsets).tolist()
    train = [corpus.tokenizer.decode(corpus.train.tokens.read(a, b - a)) for a, b in pairwise(offsets)]
    return corpus, train, corpus.held_out[0].read_text(encoding="utf-8").splitlines()


def test_a_column_split_is_followed_whatever_is_read(tmp_path):
    """By several tables of which one has it, by streams, and by texts."""
    parts = ["train", "valid", "", "test"]
    split = [{"en": f"dog {i}", "de": f"Hund {i}", "split": parts[i % 4]} for i in range(80)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in split))
    (tmp_path / "b.jsonl").write_text("".join(f'{{"en": "cat {i}", "de": "Katze {i}"}}\n' for i in range(10)))
    both = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    found = PairFiles(both, "en", "de").parts
    assert [int((found == part).sum()) for part in ("train", "valid", "test")] == [50, 20, 20]
    assert [pair[0] for pair in PairHead(both[:1], "en", "de")] == [f"dog {i}" for i in range(80) if not i % 2]
    chars = {"level": "char", "unit": "line", "column": "en"}
    corpus = read_corpus(TextData(data=tuple(both), **chars)).corpus
    assert corpus.notes["not used"] == "20 rows of other parts"
    assert [len(part.offsets) - 1 for part in (corpus.train, corpus.valid)] == [50, 20]
    assert len(read_corpus(TextData(data=tuple(both), valid=(both[0],), **chars)).corpus.valid.offsets) - 1 == 80
    times = [{"en": f"dog {i}", "split": f"1:0{i}" if i else ""} for i in range(9)]  # it names no parts
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in times))
    assert Table(str(tmp_path / "c.jsonl")).split is None


def test_lines_stay_on_one_side(tmp_path):
    lines = [f"the name {chr(97 + i % 13)}{chr(97 + i % 7)}" for i in range(300)]
    corpus, train, valid = corpus_of(tmp_path, lines)
    assert 0 < len(valid) <= 30
    assert sorted(train + valid) == sorted(lines)
    assert not normal(train) & normal(valid)
    assert TextSplit(corpus).table()["repeated"] == f"{len(train) - len(set(train)):,} training lines occur before"


@given(st.lists(st.text("abc ", min_size=1, max_size=3), min_size=20, max_size=60))
def test_any_lines_stay_on_one_side(tmp_path_factory, lines):
    assume(len({text_key(line) for line in lines}) > 1)
    _, train, valid = corpus_of(tmp_path_factory.mktemp("lines"), lines)
    assert sorted(train + valid) == sorted(lines)
    assert not normal(train) & normal(valid)


def picture_split(tmp_path, rows):
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_split(CaptionData(images=str(tmp_path / "images"), captions=(str(tmp_path / "c.jsonl"),)))


def test_a_picture_under_two_names_stays_on_one_side(tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for i in range(60):
        name = f"{i // 2}-{i % 2}.png"
        Image.fromarray(np.full((4, 4, 3), i // 2, np.uint8)).save(tmp_path / "images" / name)
        rows.append({"image": name, "caption": "a square"})
    split = picture_split(tmp_path, rows)
    train, valid = ({c.picture.name.partition("-")[0] for c in part} for part in (split.train, split.valid))
    assert (len(split.train), len(split.valid)) == (54, 6)
    assert not train & valid
    assert split.table()["repeated"] == "27 training pictures occur before"
    turned = picture_split(tmp_path, rows[::-1])
    assert {c.picture for c in turned.valid} == {c.picture for c in split.valid}
    given = [{**row, "split": "val" if i < 10 else "train"} for i, row in enumerate(rows)]
    assert "trained on" not in picture_split(tmp_path, given).table()
    table = picture_split(tmp_path, [{**given[0], "split": "train"}, *given[1:]]).table()
    assert table["trained on"] == "1 of 9 pictures to validate on"


TINY = (
    "--hidden-size",
    "8",
    "--embedding-size",
    "8",
    "--validations",
    "1",
    "--device",
    "cpu",
    "--budget",
    "2 steps",
)


def test_a_run_keeps_its_validation_pairs(gen, tmp_path):
    lines = [f"{i}\tSentence {i // 2}.\t{i + 7}\tSatz {i}." for i in range(60)]
    (tmp_path / "tatoeba.tsv").write_text("".join(line + "\n" for line in lines))
    words = (
        "--data",
        tmp_path / "tatoeba.tsv",
        "--level",
        "char",
        "--out",
        tmp_path / "run",
        "--encoder-size",
        "8",
    )
    status, out, err = gen("train", "translate", *words, *TINY)
    assert status == 0, err
    assert "2 and 4 of" in out
    valid = [(tmp_path / "run" / f"valid.{side}").read_text().splitlines() for side in ("src", "tgt")]
    assert len(valid[0]) == len(valid[1]) == 6
    assert {len([a for a in valid[0] if a == source]) for source in valid[0]} == {2}  # both translations
    assert all(f"\t{a}\t" in "\n".join(lines) for a in valid[0])
    status, out, err = gen("evaluate", tmp_path / "run", "--json")
    assert (status, err) == (0, "")
    given = ("--src", tmp_path / "run" / "valid.src", "--ref", tmp_path / "run" / "valid.tgt")
    assert json.loads(gen("evaluate", tmp_path / "run", *given, "--json")[1]) == json.loads(out)
    config = tmp_path / "run" / "best" / "config.yaml"
    config.write_text(config.read_text().replace("split: 2", "splat: 2"))
    assert "an older version trained the model and held out other examples" in gen("evaluate", tmp_path / "run")[2]


def test_a_run_keeps_its_validation_lines(gen, tmp_path):
    rows = "".join(f'{i},"A title, number {i // 2}"\n' for i in range(60))
    (tmp_path / "t.csv").write_text("id,title\n" + rows)
    words = ("--data", tmp_path / "t.csv", "--column", "title", "--unit", "line", "--out", tmp_path / "run")
    status, out, err = gen("train", "text", *words, *TINY)
    assert status == 0, err
    assert "27 training lines occur before" in out
    assert len(set((tmp_path / "run" / "valid.txt").read_text().splitlines())) == 3
    assert gen("evaluate", tmp_path / "run", "--data", tmp_path / "t.csv", "--json")[0] == 0
    status, _, err = gen(
        "evaluate", tmp_path / "run", "--data", tmp_path / "run" / "valid.txt", "--column", "title"
    )
    assert status == 2
    assert err == "gen: --column goes with tables: .tsv, .csv, .jsonl, .ndjson, .json, .parquet, .tmx\n"
