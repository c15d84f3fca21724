"""Sentence pairs from files: every format, every mistake."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from types import SimpleNamespace

import pytest

from gen.base.errors import UserError
from gen.base.lines import expand_braces, output, read_lines
from gen.datasets.corpus import TokenizerOptions
from gen.datasets.pair_files import PairFiles
from gen.datasets.pairs import PairOptions, build_pairs
from gen.training.config import make_config
from tasks.translate.data import TranslateSplit
from tasks.translate.task import Translate

PAIRS = [("a dog", "ein Hund"), ("the cat", "die Katze"), ("é, yes", 'ja "so"')]


def write(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def sides(tmp_path):
    return write(tmp_path / "p.en", [a for a, _ in PAIRS]), write(tmp_path / "p.de", [b for _, b in PAIRS])


def test_a_table_that_is_named_twice_counts_twice(tmp_path):
    rows = [f"{a}\t{b}\t{part}" for (a, b), part in zip(PAIRS, ("train", "val", "test"), strict=True)]
    table = write(tmp_path / "rows.tsv", ["source\ttarget\tsplit", *rows])
    files = PairFiles([table, table])
    assert list(files) == PAIRS * 2
    assert files.parts.tolist() == ["train", "valid", "test"] * 2
    assert files.folders == [tmp_path] * 6
    assert [len(cells) for cells in files.cells([("--given", "split")])] == [6]


def test_two_files_and_braces(sides, tmp_path):
    assert list(PairFiles(sides)) == PAIRS
    assert list(PairFiles([str(tmp_path / "p.{en,de}")])) == PAIRS
    assert list(PairFiles([*sides, *sides])) == PAIRS * 2
    files = PairFiles(sides)
    assert list(files) == list(files)
    for name, end in (("q", "x"), ("r", "y")):
        for side in ("en", "de"):
            write(tmp_path / f"{name}.{side}", [f"{side} {end}"])
    assert list(PairFiles([str(tmp_path / "{q,r}.{en,de}")])) == [("en x", "de x"), ("en y", "de y")]
    assert expand_braces("{2..0}{a,b}") == ["2a", "2b", "1a", "1b", "0a", "0b"]  # as a shell does
    assert [expand_braces(each) for each in ("{10..9}", "{9..10}", "{009..10}")] == [
        ["10", "9"],
        ["9", "10"],
        ["009", "010"],
    ]


def test_output_packed_by_its_name(tmp_path):
    for name in ("a.txt.gz", "b.txt"):
        with output(str(tmp_path / name)) as file:
            file.write("café\n\nx")
        assert list(read_lines(str(tmp_path / name))) == ["café", "", "x"]
    assert gzip.decompress((tmp_path / "a.txt.gz").read_bytes()) == (tmp_path / "b.txt").read_bytes()
    before = (tmp_path / "a.txt.gz").read_bytes()
    with suppress(ZeroDivisionError), output(str(tmp_path / "a.txt.gz")) as file:
        file.write("half")
        raise ZeroDivisionError
    assert (tmp_path / "a.txt.gz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_tables(tmp_path):
    lines = [f"{a}\t{b}" for a, b in PAIRS]
    assert list(PairFiles([write(tmp_path / "a.tsv", lines)])) == PAIRS
    assert list(PairFiles([write(tmp_path / "a.tsv", lines)], "en", "de")) == PAIRS  # two columns need no header
    assert (
        list(PairFiles([write(tmp_path / "b.tsv", ["de\ten", *(f"{b}\t{a}" for a, b in PAIRS)])], "en", "de"))
        == PAIRS
    )
    assert list(PairFiles([write(tmp_path / "c.tsv", ["source\ttarget", *lines])])) == PAIRS
    assert list(PairFiles([write(tmp_path / "c.tsv", ["Source\tTarget", *lines])])) == PAIRS
    with gzip.open(tmp_path / "d.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    assert list(PairFiles([str(tmp_path / "d.tsv.gz")])) == PAIRS
    rows = ["id,en,de", "1,a dog,ein Hund", "2,the cat,die Katze", '3,"é, yes","ja ""so"""']
    assert list(PairFiles([write(tmp_path / "a.csv", rows)], "en", "de")) == PAIRS
    records = [json.dumps({"en": a, "de": b}) for a, b in PAIRS]
    assert list(PairFiles([write(tmp_path / "a.jsonl", records)], "en", "de")) == PAIRS
    records = [json.dumps({"translation": {"en": a, "de": b}}) for a, b in PAIRS]
    assert list(PairFiles([write(tmp_path / "b.jsonl", ["", *records])], "en", "de")) == PAIRS


IDS = [f"{i}\t{a}\t{i + 7}\t{b}" for i, (a, b) in enumerate(PAIRS)]


def test_columns_of_ids_are_no_sentences(tmp_path):
    name = write(tmp_path / "tatoeba.tsv", IDS)
    files = PairFiles([name])
    assert list(files) == PAIRS
    assert files.columns == [f"2 and 4 of {name}, as they hold text"]
    assert list(PairFiles([name], "2", "4")) == PAIRS
    assert list(PairFiles([name], "4", "2")) == [(b, a) for a, b in PAIRS]
    for fields in (("1", "2"), ("2", "3")):
        with pytest.raises(UserError, match=r"holds numbers, no sentences; .* those of text are '2', '4'"):
            list(PairFiles([name], *fields))
    with pytest.raises(UserError, match=r"tgt=5: no such column; there are '1', '2', '3', '4'"):
        list(PairFiles([name], "2", "5"))
    codes = write(tmp_path / "codes.tsv", [f"{i}\teng\t{a}\tdeu\t{b}" for i, (a, b) in enumerate(PAIRS)])
    assert list(PairFiles([codes])) == PAIRS
    several = write(tmp_path / "more.tsv", [f"{line}\t{'abc'[i]} word" for i, line in enumerate(IDS)])
    with pytest.raises(UserError, match=r"name the columns to use .*; those of text are '2', '4', '5'"):
        list(PairFiles([several]))
    header = write(tmp_path / "header.csv", ["id,en,de", "1,a dog,ein Hund", "2,the cat,die Katze"])
    assert list(PairFiles([header], "2", "3")) == PAIRS[:2]
    with pytest.raises(UserError, match="column 'id' holds numbers"):
        list(PairFiles([header], "id", "de"))


def test_numbers_may_be_learned_where_there_is_nothing_else(tmp_path):
    name = write(tmp_path / "numbers.csv", ["source,target", "one,1", "two,2", "three,3"])
    files = PairFiles([name])
    assert list(files) == [("one", "1"), ("two", "2"), ("three", "3")]
    assert files.columns == [f"target of {name} holds numbers"]
    labels = write(
        tmp_path / "labels.csv", ["text,label,title", *(f"Text {i}.,{i % 2},Title {i}." for i in range(9))]
    )
    assert [b for _, b in PairFiles([labels], "text", "label")] == [str(i % 2) for i in range(9)]


def test_files_of_pairs_with_other_names(tmp_path):
    lines = [f"{a}\t{b}" for a, b in PAIRS]
    assert list(PairFiles([write(tmp_path / "pairs.txt", lines)])) == PAIRS
    assert list(PairFiles([write(tmp_path / "pairs.csv", lines)])) == PAIRS
    tables = [write(tmp_path / f"{n}.txt", [f"{a}|{b}" for a, b in PAIRS]) for n in "ab"]
    assert list(PairFiles(tables, tables=True)) == PAIRS * 2


def test_nulls_are_dropped_and_counted(tmp_path):
    records = [{"en": f"sentence {i}", "de": f"Satz {i}"} for i in range(20)]
    records[3]["de"], records[4]["en"], records[5]["en"] = None, float("nan"), ""
    train = PairFiles([write(tmp_path / "n.jsonl", map(json.dumps, records))], "en", "de")
    assert build_pairs(train, None, options()).dropped == {"an empty side": 3}


def test_classic_line_ends(tmp_path):
    for side, name in enumerate(("c.en", "c.de")):
        (tmp_path / name).write_bytes("".join(pair[side] + "\r" for pair in PAIRS).encode())
    assert list(PairFiles([str(tmp_path / "c.{en,de}")])) == PAIRS


def test_parquet_and_datasets(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the [hub] extra")
    made = datasets.Dataset.from_list([{"en": a, "de": b} for a, b in PAIRS])
    made.to_parquet(tmp_path / "a.parquet")
    assert list(PairFiles([str(tmp_path / "a.parquet")], "en", "de")) == PAIRS
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "validation.parquet")
    assert list(PairFiles([f"{tmp_path / 'set'}:validation"], "en", "de")) == PAIRS
    assert PairFiles([f"{tmp_path / 'set'}:validation"], "en", "de").digest()
    with pytest.raises(UserError, match="cannot be loaded"):
        list(PairFiles([f"{tmp_path / 'set'}:nosuch"]))


@pytest.mark.parametrize(
    ("name", "content", "fields", "message"),
    [
        ("a.tsv", b"a\tb\nno tab\n", (), r"a\.tsv: line 2 has 0 tabs where 1 are needed"),
        ("a.tsv", b"x\ten\tzz\na\tb\tc\n", ("en", "de"), r"a\.tsv: tgt de: .* 'x', 'en', 'zz'"),
        ("a.csv", b"en,de\na\n", ("en", "de"), r"a\.csv: line 2 has no field 'de'"),
        ("a.csv", b"en,fr\na,b\n", ("en", "de"), r"tgt de: no such column; there are 'en', 'fr'"),
        ("a.csv", b"en,fr\na,b\n", (), "name the fields to use with src and tgt"),
        ("a.jsonl", b'{"en": "a", "de": true}\n', ("en", "de"), r"line 1 has no text in field 'de'"),
        ("a.jsonl", b"[1]\n", ("en", "de"), r"line 1 is not an object"),
        ("a.jsonl", b"{\n", ("en", "de"), r"line 1 is not JSON"),
        ("a.tsv", b"a\tb\n\xff\tb\n", (), r"a\.tsv: line 2 is not UTF-8"),
        ("a.tsv", b"", (), r"a\.tsv: is empty"),
        ("a.tsv.gz", b"\x1f\x8b\x08broken", (), "damaged or cut short"),
        ("a.tsv.gz", gzip.compress(b"a\tb\n", mtime=0)[:10] + b"\xff" * 40, (), "damaged or cut short"),
    ],
)
def test_bad_tables(tmp_path, name, content, fields, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(PairFiles([str(tmp_path / name)], *fields))


TMX = """<?xml version="1.0" encoding="{}"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
<tu><note>n</note><tuv xml:lang="en-GB"><seg>A <bpt i="1">&lt;b&gt;</bpt>dog<ept i="1">&lt;/b&gt;</ept> &amp;
<hi>a</hi> cat.</seg></tuv><tuv xml:lang="de"><seg>Ein Hund.</seg></tuv><tuv xml:lang="fr"><seg>É.</seg></tuv></tu>
<tu><tuv lang="en-GB"><seg>A cat.</seg></tuv><tuv xml:lang="fr"><seg>Un chat.</seg></tuv></tu>
</body></tmx>
"""


def test_translation_memories(tmp_path):
    path = tmp_path / "a.tmx"
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(TMX.format(encoding).encode(encoding))
        files = PairFiles([str(path)])
        assert list(files) == [("A dog & a cat.", "Ein Hund."), ("A cat.", "")]
        assert files.columns == [f"en-GB and de of {path}, its first languages"]
        assert list(PairFiles([str(path)], "fr", "en"))[1] == ("Un chat.", "A cat.")
    with pytest.raises(UserError, match="tgt es: no such column; there are 'en-GB', 'de', 'fr'"):
        list(PairFiles([str(path)], "en", "es"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '<!DOCTYPE t [\n<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><tmx>&b;</tmx>',
            "line 2 declares or names entities",
        ),
        ("<tmx><body>\n<tu></body></tmx>", "line 2 is no XML: mismatched tag"),
        ("<tmx><body>", "line 1 is no XML: no element found"),
        ("<tmx><body></body></tmx>", "holds no rows"),
    ],
)
def test_bad_translation_memories(tmp_path, content, message):
    (tmp_path / "a.tmx").write_text(content)
    with pytest.raises(UserError, match=rf"a\.tmx: {message}"):
        list(PairFiles([str(tmp_path / "a.tmx")]))


@pytest.mark.parametrize("first", ['<?xml version="1.0"?>', "<TMX>", '<srcset setid="n">', '\n<refset setid="n">'])
def test_markup_is_no_text_of_pairs(tmp_path, gen, first):
    for name in ("a.sgm", "b.sgm"):
        (tmp_path / name).write_text(f'{first}\n<seg id="1">A dog.</seg>\n')
    names = [str(tmp_path / name) for name in ("a.sgm", "b.sgm")]
    for each in (names, names[:1]):
        with pytest.raises(UserError, match=r"a\.sgm: is XML or SGML.* one per line"):
            PairFiles(each)
    status, _, err = gen("data", *names)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "a.sgm: is XML or SGML" in err


def test_bad_files(tmp_path, sides):
    long = write(tmp_path / "long.de", ["x"] * 1234)
    with pytest.raises(UserError, match=r"p\.en has 3 lines and .*long\.de has 1,234"):
        list(PairFiles([sides[0], long]))
    with pytest.raises(UserError, match=r"long\.de has 1,234 lines and .*p\.en has 3"):
        list(PairFiles([long, sides[0]]))
    with pytest.raises(UserError, match="come in pairs"):
        PairFiles(sides[:1])
    with pytest.raises(UserError, match="no such file"):
        PairFiles([sides[0], str(tmp_path / "missing.de")])
    with pytest.raises(UserError, match="not both"):
        PairFiles([*sides, write(tmp_path / "t.tsv", ["a\tb"])])
    (tmp_path / "bad.de").write_bytes(b"ok\nb\xe4d\nok\n")
    with pytest.raises(UserError, match=r"bad\.de: line 2 is not UTF-8"):
        list(PairFiles([sides[0], str(tmp_path / "bad.de")]))


def options(level="char", **given):
    return PairOptions(TokenizerOptions(level, min_frequency=1, dummy_prefix=True), **given)


@pytest.mark.parametrize(
    ("num_pairs", "options", "most"), [(19_999, {}, 5000), (20_000, {}, 8000), (10, {"vocab_size": 9000}, 9000)]
)
def test_few_pairs_get_few_subwords(num_pairs, options, most):
    chosen = make_config(Translate, {"train": ("a", "b"), **options}).data.pairs.suited(num_pairs)
    assert (chosen.tokenizer.vocab_size or chosen.tokenizer.subwords) == most


def test_pairs_are_filtered_and_counted(tmp_path):
    lines = ["abc\tabc", "\tempty", "ab\t", "abcdefghij\tab", "a\tabcdef", "ab\tba"]
    train = PairFiles([write(tmp_path / "t.tsv", lines)])
    valid = PairFiles([write(tmp_path / "v.tsv", ["abc\tABC", "\tx"])])
    pairs = build_pairs(train, valid, options(max_length=8, length_ratio=3, lowercase=True))
    dropped = {"an empty side": 2, "more than 8 tokens": 1, "a ratio above 3": 1}
    assert pairs.dropped == {**dropped, "an empty side, for validation": 1}
    decode = pairs.target_tokenizer.decode
    assert [decode(pairs.target[i]) for i in range(len(pairs.target))] == ["abc", "ba"]
    assert [decode(pairs.source[i]) for i in range(len(pairs.source))] == ["abc", "ab"]
    assert pairs.source[0][-1] == pairs.source_tokenizer.eos_id
    assert pairs.valid == [("abc", "abc")]  # a reference in the case that the model writes


def test_held_out_pairs_are_a_part_of_the_training_pairs(tmp_path):
    lines = [f"s{i}\tt{i}" for i in range(200)]
    train = PairFiles([write(tmp_path / "t.tsv", lines)])
    pairs = build_pairs(train, None, options(valid_size=1000))
    again = build_pairs(train, None, options(valid_size=1000))
    assert len(pairs.valid) == 20
    assert len(pairs.source) == 180
    assert pairs.valid == again.valid
    seen = {pairs.target_tokenizer.decode(pairs.target[i]) for i in range(180)}
    assert seen.isdisjoint(t for _, t in pairs.valid)


def test_separate_and_joint_vocabularies(tmp_path):
    train = PairFiles([write(tmp_path / "t.tsv", [f"abc{i % 7}\txyz" for i in range(40)])])
    joint = build_pairs(train, None, options())
    assert joint.source_tokenizer is joint.target_tokenizer
    separate = build_pairs(train, None, options(joint=False))
    assert set(separate.target_tokenizer.characters) == set("xyz")
    assert "x" not in separate.source_tokenizer.characters


def test_nothing_to_train_or_validate_on(tmp_path):
    with pytest.raises(UserError, match="no pairs are left for validation"):
        build_pairs(PairFiles([write(tmp_path / "t.tsv", ["a\tb"])]), None, options())
    table = PairFiles([write(tmp_path / "u.tsv", ["a\t", "\tb"])])
    with pytest.raises(UserError, match="no training pairs are left"):
        build_pairs(table, PairFiles([write(tmp_path / "v.tsv", ["a\tb"])]), options())


def test_a_vocabulary_that_is_too_large_says_the_largest(tmp_path):
    train = PairFiles([write(tmp_path / "t.tsv", [f"some words {i}\tand more {i}" for i in range(50)])])
    tokenizer = TokenizerOptions("subword", vocab_size=90_000, dummy_prefix=True)
    with pytest.raises(UserError, match=r"vocab_size 90000 is too large .* at most \d+"):
        build_pairs(train, None, PairOptions(tokenizer))


@pytest.mark.parametrize("level", ["subword", "word"])
def test_a_dummy_prefix_makes_first_words_like_others(level):
    tokenizer = TokenizerOptions(level, 1, dummy_prefix=True).train(["dog eats dog", "cat and dog"] * 20)
    first, second = tokenizer.encode("dog"), tokenizer.encode("dog dog")
    assert second == first * 2
    assert tokenizer.decode(second) == "dog dog"
    assert type(tokenizer).from_bytes(tokenizer.to_bytes()).decode(second) == "dog dog"


def test_subword_dropout_spells_the_same_text_in_many_ways(tmp_path):
    sentences = [f"a dog number {i} eats the green apple" for i in range(60)]
    train = PairFiles([write(tmp_path / "t.tsv", [f"{s}\t{s.upper()}" for s in sentences])])
    valid = PairFiles([write(tmp_path / "v.tsv", ["a dog\tA DOG"])])
    tokenizer = TokenizerOptions("subword", dummy_prefix=True)
    pairs = build_pairs(train, valid, PairOptions(tokenizer, subword_dropout=0.3))
    again = build_pairs(train, valid, PairOptions(tokenizer, subword_dropout=0.3), cache=tmp_path / "other")
    assert len(pairs.source) == len(pairs.target) == 60 * pairs.spellings
    versions = {tuple(pairs.target[60 * k].tolist()) for k in range(pairs.spellings)}
    assert len(versions) > 1
    assert {pairs.target_tokenizer.decode(v) for v in versions} == {sentences[0].upper()}
    assert all((pairs.source[i] == again.source[i]).all() for i in range(len(pairs.source)))
    config = make_config(Translate, {"train": ["t.en", "t.de"], "batch_tokens": 200})
    batches = Translate(config).make_batches(SimpleNamespace(encoder=None), TranslateSplit(pairs), config)
    t = pairs.target_tokenizer
    for epoch in (0, 1, 9):
        read = [row for batch in batches.epoch(epoch) for row in batch.target_ids.tolist()]
        assert sorted(t.decode([i for i in row if i > 2]) for row in read) == sorted(s.upper() for s in sentences)
    firsts = [next(iter(batches.epoch(epoch))).target_ids.shape for epoch in range(4)]
    assert len(set(firsts)) > 1
