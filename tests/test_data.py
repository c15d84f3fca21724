from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from gen.base.cache import cache_folder, cached
from gen.base.errors import UserError
from gen.base.files import TextFiles, read_whole
from gen.base.lines import read_lines
from gen.datasets.batches import Background, SequenceBatches, Sequences, TokenFile, length_buckets
from gen.datasets.corpus import TokenizerOptions, build_corpus, tokenize
from gen.datasets.shard_files import find_shards
from gen.datasets.streams import StreamBatches, stream_evaluation
from gen.inputs.pictures import PictureError, open_picture
from gen.inputs.tokenizer import CharTokenizer, Tokenizer
from gen.models.batch import pad

BOS, EOS, PAD = 1, 2, 0


@pytest.fixture
def tokens(tmp_path):
    """1,000 different numbers, so that every one can be told where it stood."""
    path = tmp_path / "tokens.bin"
    np.arange(10, 1010, dtype=np.uint16).tofile(path)
    return TokenFile(path, "uint16")


def read(*names, **options):
    return "".join("<eof>" if piece is None else piece for piece in TextFiles([str(n) for n in names], **options))


def test_streams_are_contiguous_and_every_order_is_computed(tokens):
    batches = StreamBatches(tokens, batch_size=3, chunk=7, bos_id=BOS, seed=5)
    epoch = list(batches.epoch(2))
    assert len(epoch) == batches.batches_per_epoch == 1000 // 3 // 7
    assert [b.continues for b in epoch] == [False] + [True] * (len(epoch) - 1)
    assert (epoch[0].input_ids[:, 0] == BOS).all()
    for before, after in itertools.pairwise(epoch):
        assert (after.input_ids[:, 0] == before.target_ids[:, -1]).all()
        assert (after.input_ids[:, 1:] == after.target_ids[:, :-1]).all()
        steps = (after.target_ids - before.target_ids) % 1000
        assert (steps == 7).all()
    resumed = list(batches.epoch(2, start=4))
    for a, b in zip(epoch[4:], resumed, strict=True):
        assert (a.input_ids == b.input_ids).all()
        assert a.continues == b.continues
    other = next(iter(batches.epoch(3)))
    assert not (other.target_ids == epoch[0].target_ids).all()


@pytest.mark.parametrize("n", [1, 5, 100, 999, 1000])
@pytest.mark.parametrize(("chunk", "lead"), [(7, 3), (64, 10), (256, 512)])
def test_evaluation_counts_every_token_once(tokens, n, chunk, lead):
    counted = []
    rows = set()
    for batch in stream_evaluation(tokens, BOS, PAD, limit=n, chunk=chunk, lead=lead):
        rows.add(len(batch.input_ids))
        keep = batch.target_ids != PAD
        counted += batch.target_ids[keep].tolist()
        before = batch.input_ids[keep]
        first = batch.target_ids[keep] == 10
        assert (before[~first] == batch.target_ids[keep][~first] - 1).all()
        assert (before[first] == BOS).all()
    assert sorted(counted) == list(range(10, 10 + n))
    assert len(rows) == 1


def test_evaluation_rows_arrive_in_the_carried_state(tokens):
    """Each row but the first has read at least ``lead`` tokens before one counts."""
    batches = list(stream_evaluation(tokens, BOS, PAD, chunk=50, lead=20))
    inputs = np.concatenate([b.input_ids.numpy() for b in batches], 1)
    targets = np.concatenate([b.target_ids.numpy() for b in batches], 1)
    assert len(inputs) > 1
    for i, row in enumerate(targets):
        first = np.flatnonzero(row != PAD)[0]
        assert first == (0 if i == 0 else 20)
        assert (inputs[i, : first + 1] != PAD).all()


def test_buckets_hold_the_budget_and_everything_once():
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    batches = length_buckets(lengths, 200, (1, 2))
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(b) * lengths[b].max() <= 200 for b in batches)
    large = length_buckets(lengths, 900, (1, 2))
    assert sorted(np.concatenate(large).tolist()) == list(range(500))
    assert any(len(b) > 16 for b in large)
    assert sum(len(b) > 16 and len(b) % 16 != 0 for b in large) <= 1  # the last of them has what is left
    assert [b.tolist() for b in length_buckets(lengths, 200, (1, 2))] == [b.tolist() for b in batches]
    assert [b.tolist() for b in length_buckets(lengths, 200, (1, 3))] != [b.tolist() for b in batches]
    assert [len(b) for b in length_buckets(np.array([500, 3]), 10, (0,))] in ([1, 1],)


def test_lines_begin_with_bos_and_end_with_eos(tmp_path):
    path = tmp_path / "lines.bin"
    np.array([5, 6, 7, 8, 9, 9], dtype=np.uint16).tofile(path)
    lines = Sequences(TokenFile(path, "uint16"), np.array([0, 2, 3, 6]))
    batches = SequenceBatches(lines, 100, Tokenizer)
    (batch,) = batches.epoch(0)
    rows = {tuple(r.tolist()): tuple(t.tolist()) for r, t in zip(batch.input_ids, batch.target_ids, strict=True)}
    assert rows == {
        (BOS, 7, PAD, PAD): (7, EOS, PAD, PAD),
        (BOS, 5, 6, PAD): (5, 6, EOS, PAD),
        (BOS, 8, 9, 9): (8, 9, 9, EOS),
    }
    assert not batch.continues
    assert pad([[1], []], 0).tolist() == [[1], [0]]
    assert pad([[1], [1, 2, 3]], 0, multiple=2).tolist() == [[1, 0, 0, 0], [1, 2, 3, 0]]


def test_batches_made_ahead_are_the_same(tokens):
    batches = StreamBatches(tokens, batch_size=3, chunk=7, bos_id=BOS, seed=5)
    ahead = Background(batches)
    assert ahead.batches_per_epoch == batches.batches_per_epoch
    for start in (0, 3, batches.batches_per_epoch):
        for a, b in zip(batches.epoch(2, start), ahead.epoch(2, start), strict=True):
            assert torch.equal(a.target_ids, b.target_ids)
            assert a.continues == b.continues


def test_what_fails_ahead_fails_in_its_turn():
    class Broken:
        batches_per_epoch = 9

        def epoch(self, epoch, start=0):
            yield from range(start, 5)
            raise UserError("a.jpg: damaged")

    batches = Background(Broken()).epoch(0, start=1)
    assert list(itertools.islice(batches, 4)) == [1, 2, 3, 4]
    with pytest.raises(UserError, match=r"a\.jpg: damaged"):
        next(batches)


def test_all_ways_to_name_text(tmp_path, monkeypatch):
    (tmp_path / "b.txt").write_text("two\n")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\nline\r")
    with gzip.open(tmp_path / "c.txt.gz", "wt") as file:
        file.write("three é\n")
    (tmp_path / "ignored.bin").write_bytes(b"\xff\xfe")
    assert read(tmp_path) == "one\nline\n<eof>two\n<eof>three é\n"
    assert read(tmp_path / "?.txt") == "one\nline\n<eof>two\n"
    assert read(tmp_path / "b.txt", tmp_path / "c.txt.gz") == "two\n<eof>three é\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"typed\n")))
    files = TextFiles(["-"])
    assert list(files) == list(files) == ["typed\n"]


def test_folders_name_what_they_skip(tmp_path):
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("B.TXT", "a.txt", "._a.txt", "__MACOSX/a.txt", ".git/log.txt", "c.pdf", "d.docx"):
        (tmp_path / name).write_text(f"{name}\n")
    files = TextFiles([str(tmp_path)])
    assert "".join(piece or "" for piece in files) == "B.TXT\na.txt\n"
    assert files.skipped == ["c.pdf", "d.docx"]


def test_folders_may_be_links_and_files_in_them_empty(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "b.txt").write_text("b\n")
    (tmp_path / "near" / "inner").mkdir(parents=True)
    (tmp_path / "near" / "a.txt").write_text("a\n")
    (tmp_path / "near" / "empty.txt").write_text("")
    (tmp_path / "near" / "inner" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "inner" / "again").symlink_to(tmp_path / "near")  # without end
    (tmp_path / "near" / "also").symlink_to(tmp_path / "near" / "inner")  # a detour
    files = TextFiles([str(tmp_path / "near")])
    assert "".join(piece or "" for piece in files) == "a\nb\n"
    assert files.skipped == ["empty.txt"]
    assert files.paths[-1] == tmp_path / "near" / "inner" / "far" / "b.txt"
    (tmp_path / "near" / "a.txt").unlink()
    (tmp_path / "far" / "b.txt").unlink()
    with pytest.raises(UserError, match=r"empty\.txt: is empty"):
        TextFiles([str(tmp_path / "near")])


TITLES = ["One dog", "Two\ncats", "", "Three, or four"]
TABLES = {
    "t.csv": 'id,title\n1,One dog\n2,"Two\ncats"\n3,\n4,"Three, or four"\n',
    "t.jsonl": "".join(json.dumps({"title": t or None, "n": 1}) + "\n" for t in TITLES),
    "t.json": json.dumps([{"title": t} for t in TITLES]),
    "only.csv": "title\n" + "".join(f'"{t}"\n' for t in TITLES),
}


@pytest.mark.parametrize("name", TABLES)
def test_text_in_columns(tmp_path, name):
    (tmp_path / name).write_text(TABLES[name])
    assert read(tmp_path / name, column="title") == "One dog\nTwo\ncats\nThree, or four\n"
    assert read(tmp_path / name, one_line=True) == "One dog\nTwo cats\nThree, or four\n"  # the only one of text
    with pytest.raises(UserError, match=rf"{name}: column text: no such column; there are .*'title'"):
        read(tmp_path / name, column="text")


def test_a_column_asked_for_by_name_tells_a_header_from_a_row(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\na dog\tx\na cat\ty\n")
    assert read(tmp_path / "t.tsv", column="a", one_line=True).split("\n") == ["a dog", "a cat", ""]


def test_text_in_parquet_and_the_choice_of_a_column(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the [hub] extra")
    rows = [{"title": "One dog", "text": "It runs."}, {"title": "A cat", "text": None}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", column="text") == "It runs.\n"
    assert read(tmp_path / "t.parquet", column="1") == "One dog\nA cat\n"
    with pytest.raises(UserError, match=r"name the column of the text with column; there are 'title', 'text'"):
        read(tmp_path / "t.parquet")
    first, second = (TextFiles([str(tmp_path / "t.parquet")], column=c).digest() for c in ("title", "text"))
    assert first != second


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
def test_bytes_that_are_not_utf8_are_replaced_in_tables_too(tmp_path, name):
    rows = {"jsonl": '{"title": "café"}\n', "json": '[{"title": "café"}]'}
    path = tmp_path / name
    path.write_bytes(rows.get(name.partition(".")[2], "title\ncafé\n").encode("latin-1"))
    assert "".join(filter(None, TextFiles([str(path)], "replace", "title"))) == "caf\ufffd\n"
    assert list(find_shards([str(path)], "replace")[0].rows(0)) == [{"title": "caf\ufffd"}]
    with pytest.raises(UserError, match="not UTF-8"):
        list(TextFiles([str(path)], column="title"))


def test_bad_text_names_the_file_and_the_place(tmp_path):
    bad = tmp_path / "bad.txt"
    good = ("é" * 700_000 + "\n").encode()  # a character that lies across two blocks
    bad.write_bytes(good + b"ab\xffcd")
    with pytest.raises(UserError, match=rf"bad.txt: not UTF-8 at byte {len(good) + 2} \(0xff\).*encoding_errors"):
        read(bad)
    assert read(bad, encoding_errors="replace").endswith("ab\ufffdcd")
    assert read(bad, encoding_errors="replace").count("é") == 700_000
    bad.write_bytes(b"abc\xc3")
    with pytest.raises(UserError, match="not UTF-8 at byte 3"):
        read(bad)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "spoiled.gz").write_bytes(gzip.compress(b"x")[:10] + b"\xff" * 40)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"x" * 10_000)[:30])
    for name, message in {
        "empty.txt": "is empty",
        "none.txt": "no such file",
        "folder": "holds no .txt",
        "*.csv": "no file matches",
        "cut.gz": "damaged or cut short",
        "spoiled.gz": "damaged or cut short",
    }.items():
        with pytest.raises(UserError, match=message):
            read(tmp_path / name)


def corpus_of(path, tmp_path, **how):
    options = {k: how.pop(k) for k in ("level", "min_frequency") if k in how}
    return build_corpus(TextFiles([str(path)]), None, TokenizerOptions(**options), cache=tmp_path / "cache", **how)


def text_of(corpus, part):
    return corpus.tokenizer.decode(part.tokens.read(0, len(part.tokens)))


def test_several_at_once_fill_the_cache_once(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {i} of many\n" for i in range(2000)))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: corpus_of(path, tmp_path), range(6)))
    assert len({text_of(corpus, corpus.train) for corpus in found}) == 1
    assert len({corpus.train.tokens.path.stat().st_ino for corpus in found}) == 1


@pytest.mark.parametrize("harm", ["cut", "gone", "sizes"])
def test_a_damaged_cache_is_made_again(tmp_path, harm):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {i} of many\n" for i in range(200)))
    corpus = corpus_of(path, tmp_path)
    before = text_of(corpus, corpus.train)
    (folder,) = (tmp_path / "cache").glob("[!.]*")
    if harm == "cut":
        (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:100])
    elif harm == "gone":
        (folder / "tokenizer.bin").unlink()
    else:
        (folder / "sizes.json").write_text("{")
    again = corpus_of(path, tmp_path)
    assert text_of(again, again.train) == before
    assert list((tmp_path / "cache").glob("[!.]*")) == [folder]


def test_a_corpus_is_split_and_cached_and_rebuilt_when_the_text_changes(tmp_path):
    path = tmp_path / "text.txt"
    text = "".join(f"line {i} of many\n" for i in range(200))
    path.write_text(text)
    corpus = corpus_of(path, tmp_path)
    at = int(len(text) * 0.9)
    assert text_of(corpus, corpus.train) == text[:at]
    assert text_of(corpus, corpus.valid) == text[at:]
    assert (corpus.train.characters, corpus.valid.characters) == (at, len(text) - at)
    folders = set((tmp_path / "cache").glob("[!.]*"))
    stamp = corpus.train.tokens.path.stat().st_mtime_ns
    assert corpus_of(path, tmp_path).train.tokens.path.stat().st_mtime_ns == stamp  # found again
    path.write_text(text.replace("many", "MANY"))
    changed = corpus_of(path, tmp_path)
    assert "MANY" in text_of(changed, changed.train)
    assert len(set((tmp_path / "cache").glob("[!.]*"))) == len(folders) + 1


def test_the_vocabulary_comes_from_the_training_part_alone(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abc" * 300 + "Z" * 100)
    corpus = corpus_of(path, tmp_path)
    assert corpus.tokenizer.characters == ["a", "b", "c"]
    assert corpus.valid.unknown == 100


def test_line_units_are_split_between_lines(tmp_path):
    path = tmp_path / "names.txt"
    names = [f"name number {i}" for i in range(100)]
    path.write_text("\n".join(names) + "\n\n")
    corpus = corpus_of(path, tmp_path, unit="line", max_line=13)
    found = []
    for part in (corpus.train, corpus.valid):
        ids = part.tokens.read(0, len(part.tokens))
        found += [corpus.tokenizer.decode(ids[a:b]) for a, b in itertools.pairwise(part.offsets)]
    assert found == [n[:13] for n in names]
    assert corpus.train.cut + corpus.valid.cut == 90
    characters = sum(len(name[:13]) + 1 for name in names)  # what is left out has no bits
    assert corpus.train.characters + corpus.valid.characters == characters


def test_files_are_parted_by_an_end_of_text(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name * 4)
    tokenizer = CharTokenizer.train(["ab"])
    part = tokenize(TextFiles([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]), tokenizer, "stream", tmp_path)
    assert part.tokens.read(0, 20).tolist() == [4, 4, 4, 4, EOS, 5, 5, 5, 5]


def test_reading_gives_memory_back_and_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(TokenFile, "RELEASE_EVERY", 64)
    path = tmp_path / "tokens.bin"
    np.arange(5000, dtype=np.uint32).tofile(path)
    tokens = TokenFile(path, "uint32")
    for start in range(0, 5000, 100):
        assert tokens.read(start, 100).tolist() == list(range(start, min(start + 100, 5000)))
    (tmp_path / "none.bin").touch()
    assert len(TokenFile(tmp_path / "none.bin", "uint16")) == 0


def test_a_line_without_end_is_named_and_not_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"short\n" + b"x" * 50)
    lines = read_lines(str(path), max_bytes=20)
    assert next(lines) == "short"
    with pytest.raises(UserError, match=r"a\.txt: line 2 has more than 20 bytes"):
        next(lines)


def test_every_command_takes_the_limit_of_a_line(gen, tmp_path):
    (tmp_path / "pairs.tsv").write_text("a\tb\n" + "long " * 20 + "\tc\n")
    command = ("train", "translate", "--data", tmp_path / "pairs.tsv", "--out", tmp_path / "run")
    status, _, err = gen(*command, "--max-line-bytes", "50")
    assert status == 2
    assert "pairs.tsv: line 2 has more than 50 bytes" in err
    assert "--max-line-bytes" in err
    assert "pairs.tsv: line" not in gen(*command, "--dry-run")[2]  # the limit was of that call only
    assert gen("info", tmp_path, "--max-line-bytes", "0")[2].startswith("gen: --max-line-bytes must be")


def test_only_regular_files_of_a_known_size_are_read_whole(tmp_path):
    (tmp_path / "file").write_bytes(b"four")
    os.mkfifo(tmp_path / "pipe")
    assert read_whole(tmp_path / "file", 4) == b"four"
    with pytest.raises(ValueError, match="has 4 bytes, and at most 3 are read"):
        read_whole(tmp_path / "file", 3)
    with pytest.raises(ValueError, match="is no regular file"):
        read_whole(tmp_path / "pipe", 4)


def test_a_cache_whose_bytes_changed_is_made_again(tmp_path, capsys):
    def fill(folder):
        (folder / "tokens").write_bytes(b"abcd")

    folder = cached(["a recipe"], fill, tmp_path)
    (folder / "tokens").write_bytes(b"abXd")
    assert (cached(["a recipe"], fill, tmp_path) / "tokens").read_bytes() == b"abcd"
    assert "was changed or damaged, and is made again" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_not_blamed_on_the_data(gen, trained, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "file" / "cache"))
    status, _, err = gen("evaluate", trained)
    assert (status, err.count("\n")) == (2, 1)
    assert "the cache cannot be written" in err
    assert "--data" not in err


def test_a_cache_needs_no_home_where_its_folder_is_named(tmp_path, monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", home)
    monkeypatch.setenv("GEN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    for name in ("GEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="set GEN_CACHE"):
        cache_folder()


@pytest.mark.parametrize(("size", "said"), [(1 << 29, "at most 268,435,456 are read"), (None, "no regular file")])
def test_a_picture_without_end_is_not_opened(tmp_path, size, said):
    path = tmp_path / "a.png"
    if size is None:
        os.mkfifo(path)
    else:
        path.touch()
        os.truncate(path, size)
    with pytest.raises(PictureError, match=said):
        open_picture(path)
