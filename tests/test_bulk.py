"""Large jobs: chunks that a worker reads by itself, shards that are whole or absent, and Ray."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from gen import bulk
from gen.base.errors import UserError
from gen.base.hub_data import dataset_rows, load_dataset
from gen.bulk import Job, Writer, run_job
from gen.bulk.inputs import Failed, find_chunks, read_chunk
from tasks.commands.large import LargeJob
from tasks.commands.score import ScoreCommand, large_work

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")

LINES = ["one", "", "two words", "three", "ünï", "six", "seven"]


def write_input(path, lines):
    """Rows of text in the format of the file's name."""
    rows = "".join(json.dumps({"text": line}) + "\n" for line in lines)
    if path.suffix == ".parquet":
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.table({"text": lines}), path, row_group_size=2)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    else:
        path.write_text(rows if path.suffix == ".jsonl" else "".join(line + "\r\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a.jsonl", "a.parquet"])
def test_chunks_are_the_rows(tmp_path, name):
    names = [write_input(tmp_path / f"{n}{name}", LINES) for n in range(2)]
    chunks = find_chunks(names, 3)
    assert [(c.number, c.row, c.count) for c in chunks] == [
        *((0, 1, 3), (1, 4, 3), (2, 7, 1), (3, 8, 3), (4, 11, 3), (5, 14, 1)),
    ]
    assert [item for chunk in chunks for item in read_chunk(chunk, ["text"])] == LINES * 2


def test_empty_lines_are_rows_of_text_alone(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n  \n{"text": "b"}\n\n{"text": "c"}\n\n')
    (tmp_path / "a.txt").write_text("a\n\nb\n")
    for name, rows in (("a.jsonl", ["a", "b", "c"]), ("a.txt", ["a", "", "b"])):
        chunks = find_chunks([str(tmp_path / name)], 2)
        assert sum(chunk.count for chunk in chunks) == 3
        assert [item for chunk in chunks for item in read_chunk(chunk, ["text"])] == rows


def test_what_is_no_utf8_is_refused_at_once(tmp_path):
    (tmp_path / "a.txt").write_text("the cat\n" * 9, encoding="utf-16")
    with pytest.raises(UserError, match=r"a\.txt: is UTF-16 text"):
        find_chunks([str(tmp_path / "a.txt")], 2)


def test_a_chunk_of_parquet_reads_only_its_row_groups_and_columns(tmp_path, monkeypatch):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"a": LINES, "b": LINES[::-1], "other": [[i] for i in range(len(LINES))]})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    read, iter_batches = [], parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        parquet.ParquetFile,
        "iter_batches",
        lambda file, size, groups, columns: (
            read.append((*groups, columns)) or iter_batches(file, size, groups, columns)
        ),
    )
    _, chunk, last = find_chunks([str(tmp_path / "in.parquet")], 3)  # row groups 0 1, 1 2, and 3
    assert list(read_chunk(chunk, ["b", "a"])) == list(zip(LINES[::-1], LINES, strict=True))[3:6]
    assert list(read_chunk(last, ["a"])) == LINES[6:]
    assert read == [(1, ["a", "b"]), (2, ["a", "b"]), (3, ["a"])]
    missing = [item for columns in (["none"], ["a", "none"]) for item in read_chunk(chunk, columns)]
    assert all(isinstance(item, Failed) for item in missing)
    assert missing == ["no text in field 'none'"] * 6


def test_chunks_of_pictures(tmp_path):
    for name in ("b.jpg", "a/c.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    chunks = find_chunks([str(tmp_path), "more.jpg"][:1], 1, pictures=True)
    assert [list(read_chunk(chunk, [])) for chunk in chunks] == [[str(tmp_path / n)] for n in ("a/c.png", "b.jpg")]


def test_rows_that_cannot_be_read_are_told(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "x", "b": "y"}\n[1]\n{"a": 1, "b": "y"}\n{\n{"a": "\xff"}\n')
    (chunk,) = find_chunks([str(path)], 10)
    first, *others = read_chunk(chunk, ["a", "b"])
    assert first == ("x", "y")
    assert all(isinstance(item, Failed) for item in others)
    assert [str(item).split(" (")[0] for item in others] == [
        "no text in field 'a'",
        "no text in field 'a'",
        "not JSON",
        "not UTF-8",
    ]


def test_texts_of_parquet_that_are_not_utf8_are_told(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = pa.array([b"one", b"\xbf", b"two"]).view(pa.string())
    parquet.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    (chunk,) = find_chunks([str(tmp_path / "a.parquet")], 10)
    first, broken, last = read_chunk(chunk, ["text"])
    assert (first, last) == ("one", "two")
    assert isinstance(broken, Failed)
    with pytest.raises(UserError, match="row 2 is damaged"):
        list(dataset_rows("a.parquet", load_dataset(str(tmp_path / "a.parquet"))))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.txt", "no such file"),
        ("folder", "is a folder"),
        ("empty.txt", "no rows are there"),
        ("a.csv", "of tables, a large job reads"),
        ("cut.gz", "damaged or cut short"),
        ("no.parquet", "damaged or cut short"),
    ],
)
def test_inputs_that_are_none(tmp_path, name, said):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "a.csv").write_text("a,b\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"one\n" * 100)[:-9])
    (tmp_path / "no.parquet").write_text("text\n")
    with pytest.raises(UserError, match=f"{name}.*{said}"):
        find_chunks([str(tmp_path / name)], 10)


def load():
    """Work that fails where a row says so, and dies once where a file says so."""

    def work(items):
        for item in items:
            if item == "bad":
                raise ValueError("a bad row")
            if item.startswith("die:") and not os.path.exists(item[4:]):
                Path(item[4:]).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if item.startswith("slow:"):
                time.sleep(0.2)
            yield {"output": item[::-1]}

    return work


def job(folder, lines, size=3, **more):
    path = write_input(folder / "in.txt", lines)
    return Job(load, find_chunks([path], size), folder / "out", **more)


def rows(out):
    return [json.loads(line) for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_a_row_that_fails_is_the_only_one(tmp_path):
    made = job(tmp_path, ["one", "bad", "two", "bad", "three"], 10)
    for chunk in made.open():
        made.write(chunk, load())
    assert rows(tmp_path / "out") == [
        {"row": 1, "output": "eno"},
        {"row": 2, "error": "ValueError: a bad row"},
        {"row": 3, "output": "owt"},
        {"row": 4, "error": "ValueError: a bad row"},
        {"row": 5, "output": "eerht"},
    ]


def test_another_job_does_not_write_there(tmp_path):
    first = job(tmp_path, LINES, record={"run": "a"})
    assert len(first.open()) == 3
    first.write(first.chunks[1], load())
    assert [chunk.number for chunk in job(tmp_path, LINES, record={"run": "a"}).open()] == [0, 2]
    others = [(LINES, 3, "b", "run"), (LINES, 2, "a", "input"), ([*LINES, "more"], 3, "a", "input")]
    for lines, size, run, what in others:
        with pytest.raises(UserError, match=rf"holds another job \(other {what}\)"):
            job(tmp_path, lines, size, record={"run": run}).open()
    edited = [line.upper() for line in LINES[:-1]] + ["SEVEN"]  # of the same size
    with pytest.raises(UserError, match=r"holds another job \(other input\)"):
        job(tmp_path, edited, record={"run": "a"}).open()
    (tmp_path / "out" / "job.json").write_text("[]")
    with pytest.raises(UserError, match=r"job\.json: cannot be read"):
        first.open()
    (tmp_path / "out" / "job.json").unlink()
    with pytest.raises(UserError, match="is not an empty folder"):
        first.open()


@pytest.mark.parametrize("pictures", [False, True])
def test_a_job_is_known_from_another_folder_until_a_file_of_it_changes(tmp_path, monkeypatch, trained, pictures):
    assert trained == tmp_path / "run"
    monkeypatch.setattr(bulk, "run_job", lambda job, **_: len(job.open()) and 0)
    names = ["in.txt", "lexicon.tsv", "run/best/config.yaml"]
    for name in names[:2]:
        (tmp_path / name).write_text("a\tb\n")

    def run(folder):
        """The job as somebody in that folder asks for it."""
        monkeypatch.chdir(folder)
        at = os.path.relpath(tmp_path)
        record = {"run": f"{at}/run", "lexicon": f"{at}/lexicon.tsv", "top": 3}
        LargeJob().run(
            load, [f"{at}/in.txt"], f"{at}/out", pictures=pictures, batch_size=2, record=record, columns=("text",)
        )

    run(tmp_path)
    run(trained)
    for name, what in zip(names, ("input", "lexicon", "run"), strict=True):
        before, about = (tmp_path / name).read_bytes(), (tmp_path / name).stat()
        (tmp_path / name).write_bytes(before.swapcase())  # of the same size
        with pytest.raises(UserError, match=rf"holds another job \(other {what}\)"):
            run(tmp_path)
        (tmp_path / name).write_bytes(before)
        os.utime(tmp_path / name, ns=(about.st_atime_ns, about.st_mtime_ns))
    run(tmp_path)


def test_a_writer_for_data_of_ones_own(trained):
    batch = {"text": np.array(["the cat", "the dog"], dtype=object), "id": np.array([7, 8])}
    found = Writer(str(trained), max_new_tokens=5, temperature=0.0)(batch)
    assert found["id"].tolist() == [7, 8]
    assert found["error"].tolist() == ["", ""]
    assert all(isinstance(text, str) and text for text in found["output"].tolist())
    assert (found["score"] < 0).all()


def test_a_worker_scores_as_the_command_does(gen, trained, tmp_path):
    lines = ["the cat sat", "a dog ran to the mat"]
    status, out, err = gen("score", trained, write_input(tmp_path / "in.txt", lines), "--json", "--device", "cpu")
    assert status == 0, err
    rows = list(large_work(ScoreCommand(str(trained), device="cpu"))(lines))
    for row, line in zip(rows, out.splitlines(), strict=True):
        expected = json.loads(line)
        assert row["log_prob"] == pytest.approx(expected.pop("log_prob"), abs=1e-4)
        assert expected.pop("perplexity") > 1
        assert {k: v for k, v in row.items() if k != "log_prob"} == expected


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["translate", "RUN", "--ray"], ["with --output", "not standard input"]),
        (["translate", "RUN", "--ray", "-i", "a", "-o", "b", "--json"], ["--ray does not go with --json"]),
        (["translate", "RUN", "--workers", "3"], ["--workers goes with --ray"]),
        (["score", "RUN", "a.txt", "-o", "b"], ["--output goes with --ray"]),
        (["classify", "RUN", "--ray", "-o", "b"], ["not standard input"]),
        (["caption", "RUN", "a.jpg", "--ray", "-o", "b", "--csv", "--sidecar"], ["--csv, --sidecar"]),
    ],
)
def test_options_that_do_not_go_with_it(gen, argv, said):
    status, out, err = gen(*argv)
    assert (status, out) == (2, "")
    assert all(text in err for text in said)


def drive(made):
    run_job(made, workers=2)


@needs_ray
def test_kills_of_a_worker_and_of_the_driver_change_nothing(tmp_path):
    """The driver is killed when some shards are done, and then a worker dies: nothing twice, nothing lost."""
    lines = [f"slow: {n}" for n in range(16)] + ["bad", f"die:{tmp_path / 'died'}", "last"]
    made = job(tmp_path, lines, 2)
    driver = multiprocessing.get_context("spawn").Process(target=drive, args=(made,))
    driver.start()
    while len(list((tmp_path / "out").glob("*.jsonl"))) < 2:
        assert driver.is_alive()
        time.sleep(0.05)
    driver.kill()
    driver.join()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.jsonl")}
    assert len(kept) < 10
    seen = []
    assert run_job(made, workers=2, progress=lambda done, total: seen.append((done, total))) == 1
    assert (tmp_path / "died").exists()
    assert seen[-1] == (19, 19)
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    expected = [{"row": n, "output": line[::-1]} for n, line in enumerate(lines, 1)]
    expected[16] = {"row": 17, "error": "ValueError: a bad row"}
    assert rows(tmp_path / "out") == expected
