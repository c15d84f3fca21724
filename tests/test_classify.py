"""Classification: texts and pictures, their labels, calibration, the command, exported models, bad input."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import gen as toolkit
from gen import UserError
from gen.inputs.labels import LabelProcessor, LabelTokenizer
from gen.metrics.classification import (
    calibration_error,
    classification_metrics,
    reliability_gap,
    temperature_of,
)
from gen.metrics.plots import plot_confusion
from gen.search.labels import label_log_probs
from gen.training.interfaces import Example
from tasks.classify.data import check_kind, read_split
from tasks.classify.options import ClassifyData
from tasks.classify.task import Classify
from tasks.cli import main
from tests.serving import translator

ANIMALS = {"dog": "barks runs fetches", "cat": "purrs sleeps climbs", "Bird of prey": "flies hunts nests"}
WHO = ("it", "she", "he", "the old one", "a young one", "ours", "theirs", "this one", "that one", "one of them")
TINY = ("--encoder-size", "16", "--hidden-size", "16", "--embedding-size", "16", "--batch-size", "8")


def rows():
    """90 texts of three labels, told apart by one word."""
    return [
        (label, f"{who} {verb} here", f"today, {who} {verb}")
        for who in WHO
        for label, verbs in ANIMALS.items()
        for verb in verbs.split()
    ]


def table(path, header=("label", "title", "description"), found=None):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([header] if header else [])
        writer.writerows(found or rows())
    return path


def train(folder):
    """Trains on texts beside the run; the output."""
    command = ("train", "classify", "--data", str(folder / "animals.csv"), "--out", str(folder / "run"), *TINY)
    options = ("--word-dropout", "0", "--dropout", "0.1", "--embedding-dropout", "0", "--min-frequency", "1")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert (
            main([*command, *options, "--budget", "150 steps", "--learning-rate", "0.03", "--validations", "2"])
            == 0
        )
    return said.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run on texts, which lie beside it."""
    folder = tmp_path_factory.mktemp("animals")
    table(folder / "animals.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN_CACHE", str(folder / "cache"))
        assert "accuracy" in train(folder)
    return folder / "run"


def test_a_label_is_one_token_whatever_is_in_it() -> None:
    tokenizer = LabelTokenizer(["b c", "a", "<unk>"])
    assert [tokenizer.decode(tokenizer.encode(label)) for label in tokenizer.labels] == tokenizer.labels
    assert LabelTokenizer.from_bytes(tokenizer.to_bytes()).labels == tokenizer.labels
    with pytest.raises(UserError, match=r"unknown label 'b d': did you mean 'b c'\?"):
        tokenizer.encode("b d", strict=True)
    processor = LabelProcessor(tokenizer)
    again = LabelProcessor.from_config(processor.config(), processor.files().__getitem__)
    digits = LabelProcessor(LabelTokenizer(["0", "1"]))
    assert digits.read([0, 1, "0", None]).tolist() == [[4], [5], [4], [0]]
    assert again.read(["a", None, ""]).tolist() == processor.read(["a", "", None]).tolist()


def test_figures() -> None:
    log_probs = np.log(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]))
    figures = classification_metrics(log_probs, np.array([0, 1, 1, 0]))
    assert figures["accuracy"] == 0.75
    assert figures["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    # Each in a bin of its own: |1 - 0.9|, |0 - 0.6|, |1 - 0.8|, |1 - 0.7|.
    assert figures["ece"] == pytest.approx((0.1 + 0.6 + 0.2 + 0.3) / 4)


def test_hits_and_misses_of_one_bin_make_up_for_each_other() -> None:
    """In the last of the 15 bins 1.0 and 0.95, in the ninth 0.55 and 0.59; 0.61 and 0.69 in two."""
    sure = np.array([1.0, 0.95, 0.55, 0.59, 0.61, 0.69])
    right = np.array([False, True, True, False, True, False])
    gaps = [abs(1 - 1.95), abs(1 - 1.14), abs(1 - 0.61), abs(0 - 0.69)]
    assert reliability_gap(sure, right) == pytest.approx(sum(gaps) / 6)


def test_temperature_makes_a_sure_model_honest() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 4))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = np.array([rng.choice(4, p=p) for p in chances])
    too_sure = logits * 3 - np.logaddexp.reduce(logits * 3, axis=1, keepdims=True)
    temperature = temperature_of(too_sure, targets)
    assert temperature == pytest.approx(3, rel=0.1)
    honest = too_sure / temperature - np.logaddexp.reduce(too_sure / temperature, axis=1, keepdims=True)
    assert calibration_error(honest, targets) < 0.03 < calibration_error(too_sure, targets)


def test_a_label_with_a_tab_is_one_field_of_one_line(gen, tmp_path) -> None:
    translator(tokenizer=LabelTokenizer(["a\tb\n", "\x1b[31mred"])).save(tmp_path / "m")
    status, said, err = gen("classify", tmp_path / "m", "w3 w5", "--top", "2")
    assert status == 0, err
    assert sorted(said.removesuffix("\n").split("\t")[::2]) == ["\\x1b[31mred", "a\\tb\\n"]


def test_trained_evaluated_and_used(run, gen, tmp_path) -> None:
    status, said, err = gen("evaluate", run, "--json")
    assert status == 0, err
    figures = json.loads(said)
    assert figures["accuracy"] > 0.8
    status, said, _ = gen("classify", run, "she purrs here", "it barks here today, it barks", "--top", "3")
    assert status == 0
    first, second = (line.split("\t") for line in said.splitlines())
    assert (first[0], second[0]) == ("cat", "dog")
    assert sum(map(float, first[1::2])) == pytest.approx(1, abs=1e-3)
    status, said, _ = gen("classify", run, "she  purrs\there", "--json")
    record = json.loads(said)
    assert record["item"] == "she  purrs\there"
    assert record["labels"][0]["label"] == "cat"
    assert sum(weight for _, weight in record["attention"]) == pytest.approx(1, abs=0.01)
    assert [text.strip() for text, _ in record["attention"]][:3] == ["she", "purrs", "here"]
    model = toolkit.load(run)
    assert model("it hunts here") == "Bird of prey"
    assert (run / "plots" / "confusion.png").stat().st_size > 1000
    assert gen("plot", "attention", run, "--text", "she purrs here", "-o", tmp_path / "a.svg")[0] == 0


def test_the_same_command_again_changes_no_weight(run) -> None:
    before = (run / "best" / "model.safetensors").read_bytes()
    assert "before the temperature" in train(run.parent)
    assert (run / "best" / "model.safetensors").read_bytes() == before


def test_batch_and_padding_change_no_probability(run) -> None:
    model = toolkit.load(run)
    items = ["she purrs here", "it barks", "theirs nests over there and this one does not, of course, ever"]
    items += ["it barks " * 200]  # read alone
    together, _ = label_log_probs(model, items)
    alone = np.concatenate([label_log_probs(model, [item])[0] for item in items])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_exported_it_says_the_same(run, gen, tmp_path) -> None:
    status, _, err = gen("export", run, "-o", tmp_path / "onnx")
    assert status == 0, err
    items = ["she purrs here", "it barks here"]
    expected, _ = label_log_probs(toolkit.load(run), items)
    found, _ = label_log_probs(toolkit.load(tmp_path / "onnx"), items)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert gen("classify", tmp_path / "onnx", *items)[1] == gen("classify", run, *items)[1]
    status, _, err = gen("export", run, "-o", tmp_path / "int8", "--int8", "--max-loss", "1")
    assert status == 0, err
    assert "accuracy" in err


def test_a_table_as_it_comes(gen, tmp_path) -> None:
    """AG News has no header, and numbers as labels."""
    numbers = {label: str(i) for i, label in enumerate(ANIMALS, 1)}
    data = table(tmp_path / "plain.csv", None, [(numbers[label], *texts) for label, *texts in rows()])
    split = read_split(ClassifyData(data=(str(data),)))
    assert split.tokenizer.labels == ["1", "2", "3"]
    assert {e.item.split()[0] for e in split.train} & {"it", "she"}  # title and description
    assert all("today" in e.item and "here" in e.item for e in split.train)
    split = read_split(ClassifyData(data=(str(data),), label="1", column=("3",)))
    assert all(e.item.startswith("today") for e in split.train)


def test_all_files_are_read_as_the_first_table(gen, tmp_path) -> None:
    """A column that holds text there may hold one value elsewhere; a column "split" is followed."""
    parts = ["train", "train", " Val", "test"]
    found = [
        (f"{text} {i}", ("the bbc", "the cnn")[i % 2], label, parts[i % 4])
        for i, (label, text, _) in enumerate(rows())
    ]
    data = str(table(tmp_path / "a.csv", ("title", "source", "label", "split"), found))
    split = read_split(ClassifyData(data=(data,)))
    assert split.columns == {"column": ("title", "source"), "label": "label"}
    assert (len(split.train), len(split.valid)) == (46, 22)
    assert {e.item.split()[-1] for e in split.train} == {"bbc", "cnn"}
    command = ("train", "classify", "--data", data, "--out", tmp_path / "run", *TINY, "--budget", "2 steps")
    status, out, err = gen(*command)
    assert status == 0, err
    assert "--column             title, source" in out
    model = toolkit.load(tmp_path / "run")
    one = table(tmp_path / "b.csv", ("title", "source", "label"), [(row[0], "the bbc", row[2]) for row in found])
    (first, *_) = Classify().held_out(model, Classify.HeldOut(data=(str(one),)))
    assert first.item == f"{found[0][0]} the bbc"
    (tmp_path / "c.csv").write_text("title,source,label\na,b,wolf\n")
    status, _, err = gen("evaluate", tmp_path / "run", "--data", tmp_path / "c.csv")
    assert (status, "c.csv: unknown label 'wolf'" in err) == (2, True), err
    table(tmp_path / "a.csv", ("title", "source", "label", "split"), [*found, ("x", "bbc", "dog", "tset")])
    with pytest.raises(UserError, match=r"a\.csv: line 92 has a split 'tset': it must be one of train"):
        read_split(ClassifyData(data=(data,)))


def test_a_folder_of_parquet_is_a_table(tmp_path) -> None:
    pytest.importorskip("datasets")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "data").mkdir()
    found = [{"label": label, "title": f"{title} {i}"} for i, (label, title, _) in enumerate(rows())]
    parquet.write_table(pa.Table.from_pylist(found), tmp_path / "data" / "train-00000.parquet")
    split = read_split(ClassifyData(data=(str(tmp_path),)))
    assert split.columns == {"column": ("title",), "label": "label"}
    assert (len(split.train), len(split.valid)) == (81, 9)


def test_folders_named_by_label(tmp_path) -> None:
    for number, (label, text, _) in enumerate(rows()):
        folder = tmp_path / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(text + "\n")
    split = read_split(ClassifyData(data=(str(tmp_path),)))
    assert {(e.target, e.item) for e in [*split.train, *split.valid]} == {(a, b) for a, b, _ in rows()}


def test_folders_of_parts_hold_folders_named_by_label(tmp_path) -> None:
    """As in aclImdb, and in most picture sets: train and test are no labels."""
    for number, (label, text, _) in enumerate(rows()):
        folder = tmp_path / ("train", "train", "Val", "test")[number % 4] / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(text)
    (tmp_path / "train" / "cat" / "empty.txt").write_text(" \n")
    (tmp_path / "train" / "dog" / "empty.txt").write_text("")
    split = read_split(ClassifyData(data=(str(tmp_path),)))
    assert split.tokenizer.labels == sorted(ANIMALS)
    assert (len(split.train), len(split.valid), len(split.dropped)) == (46, 22, 2)
    assert split.notes["not used"] == "22 examples of other parts"
    (tmp_path / "dev").mkdir()  # without labels: left out, and no label itself
    split = read_split(ClassifyData(data=(str(tmp_path),)))
    assert (split.tokenizer.labels, len(split.dropped)) == (sorted(ANIMALS), 3)
    assert any("dev: holds no folders named by label" in line for line in split.dropped)
    (tmp_path / "dev").rmdir()
    (tmp_path / "test").rename(tmp_path / "tests")
    with pytest.raises(
        UserError, match=r"Val, tests and 1 more hold the same folders \(bird.*look like parts|train"
    ):
        read_split(ClassifyData(data=(str(tmp_path),)))
    (tmp_path / "tests").rename(tmp_path / "test")
    (tmp_path / "test" / "cat" / "1.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(UserError, match=r"1\.txt: line 1 is not UTF-8 \(byte 3 of the line\); convert the file$"):
        read_split(ClassifyData(data=(str(tmp_path),)))


@pytest.mark.parametrize(
    "parts",
    [
        ("Training", "Testing"),
        ("training", "evaluation", "validation"),
        ("training_set", "test_set"),
        ("seg_train/seg_train", "seg_test/seg_test", "seg_pred/seg_pred"),
    ],
)
def test_usual_names_of_parts(tmp_path, parts) -> None:
    for number, (label, text, _) in enumerate(rows()):
        folder = tmp_path / parts[number % 2] / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(text)
    for part in parts[2:]:
        (tmp_path / part).mkdir(parents=True)
    split = read_split(ClassifyData(data=(str(tmp_path),)))
    assert split.tokenizer.labels == sorted(ANIMALS)
    assert split.notes["not used"] == "45 examples of other parts"
    assert len(split.dropped) == len(parts[2:])


def test_an_odd_folder_among_those_of_labels_is_left_out(tmp_path) -> None:
    for number, (label, text, _) in enumerate(rows()):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{number}.txt").write_text(text)
    for name in ("empty", "code"):
        (tmp_path / name).mkdir()
    (tmp_path / "code" / "a.py").write_text("")
    split = read_split(ClassifyData(data=(str(tmp_path),)))
    assert split.tokenizer.labels == sorted(ANIMALS)
    assert split.dropped == [
        f"{tmp_path}/{name}: the folder holds no .txt or .txt.gz file, and no picture"
        for name in ("code", "empty")
    ]


def test_what_save_to_disk_wrote(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"text": [r[1] for r in rows()], "label": [r[0] for r in rows()]})
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made, "validation": made}).save_to_disk(tmp_path / "parts")
    for name in ("one", "parts", "parts:validation"):
        split = read_split(ClassifyData(data=(f"{tmp_path}/{name}",)))
        assert split.tokenizer.labels == sorted(ANIMALS)
        assert len(split.train) + len(split.valid) == len(rows())
    with pytest.raises(UserError, match="parts:test: has no part 'test', but train, validation"):
        read_split(ClassifyData(data=(f"{tmp_path}/parts:test",)))


def test_a_column_that_tells_the_label_is_not_read(tmp_path) -> None:
    """The name of a label beside its number; two columns that may be the label; lists."""
    numbers = {label: i for i, label in enumerate(ANIMALS)}
    found = [(text, numbers[label], label) for label, text, _ in rows()]
    data = table(tmp_path / "a.csv", ("text", "label", "label_text"), found)
    assert read_split(ClassifyData(data=(str(data),))).columns == {"column": ("text",), "label": "label"}
    data = table(tmp_path / "b.csv", ("category", "text", "label"), [(b, a, c) for a, b, c in found])
    with pytest.raises(UserError, match="name the column of the labels"):
        read_split(ClassifyData(data=(str(data),)))
    lists = [{"text": text, "words": text.split(), "labels": [label]} for text, _, label in found]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists))
    for more in ({}, {"label": "text", "column": ("words",)}):
        with pytest.raises(UserError, match="holds lists"):
            read_split(ClassifyData(data=(str(tmp_path / "c.jsonl"),), **more))


def test_parquet_of_pictures_with_named_labels(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    colours, names = [(200, 0, 0), (0, 0, 200)], ["red one", "blue one"]
    pictures = [Image.new("RGB", (8, 8), tuple(c + i for c in colours[i % 2])) for i in range(30)]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"img": pictures, "label": [i % 2 if i else -1 for i in range(30)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    split = read_split(ClassifyData(data=(str(tmp_path / "a.parquet"),)))
    assert split.columns == {"label": "label", "image": "img"}
    assert split.tokenizer.labels == sorted(names)
    assert len(split.dropped) == 1
    for example in [*split.train, *split.valid]:
        red, _, blue = Image.open(example.item).getpixel((0, 0))
        assert example.target == names[blue > red]


def test_a_picture_under_two_names_is_on_one_side(tmp_path) -> None:
    for number in range(20):
        picture = Image.new("RGB", (8, 8), (number * 10, 0, 0))
        for name in "ab":
            (folder := tmp_path / ("red", "dark")[number % 2]).mkdir(exist_ok=True)
            picture.save(folder / f"{name}{number}.png")
    split = read_split(ClassifyData(data=(str(tmp_path),)))
    names = [{e.item.stem[1:] for e in part} for part in (split.train, split.valid)]
    assert len(split.valid) == 4
    assert not names[0] & names[1]


def test_pictures_are_no_texts(gen, run, tmp_path) -> None:
    """A model of texts neither classifies pictures, nor goes on with them; nor the other way round."""
    for label in ANIMALS:
        (tmp_path / "p" / label).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (8, 8 + number)).save(tmp_path / "p" / label / f"{number}.png")
    status, _, err = gen("evaluate", run, "--data", tmp_path / "p")
    assert (status, "the model reads texts, and the data has pictures" in err) == (2, True), err
    words = ("--init-from", run, "--out", tmp_path / "out", "--budget", "1 steps")
    status, _, err = gen("train", "classify", "--data", tmp_path / "p", *words)
    assert (status, "that model reads texts, and the data has pictures" in err) == (2, True), err
    picture = SimpleNamespace(processors={"picture": None})
    with pytest.raises(UserError, match="the model reads pictures, and the data has texts"):
        check_kind(picture, [Example("a red one", "red")], "the model")


def test_pictures(gen, tmp_path) -> None:
    """Red ones and blue ones, by the CNN that comes with it; one is damaged."""
    rng = np.random.default_rng(0)
    for number in range(40):
        label = ("red", "blue")[number % 2]
        (tmp_path / "p" / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (48, 48, 3), np.uint8)
        pixels[..., 0 if label == "red" else 2] += 180
        Image.fromarray(pixels).save(tmp_path / "p" / label / f"{number}.png")
    (tmp_path / "p" / "red" / "bad.png").write_bytes(b"no picture")
    status, said, err = gen(
        *("train", "classify", "--data", tmp_path / "p", "--out", tmp_path / "r", "--budget", "40 steps", *TINY),
        *("--dropout", "0", "--learning-rate", "0.01"),
    )
    assert status == 0, err
    picture = tmp_path / "p" / "blue" / "1.png"
    status, said, err = gen("classify", tmp_path / "r", picture, tmp_path / "p" / "red" / "bad.png")
    assert status == 1
    assert said.splitlines()[0].split("\t")[0] in ("red", "blue")
    assert "bad.png" in err
    assert gen("plot", "attention", tmp_path / "r", picture, "-o", tmp_path / "look.png")[0] == 0
    (tmp_path / "list.txt").write_text(f"{picture}\n\n{'long' * 200}\n{picture}\n")
    status, said, err = gen("classify", tmp_path / "r", "-i", tmp_path / "list.txt")
    assert (status, len(said.splitlines()), err.count("\n")) == (1, 3, 1), err
    status, said, err = gen("evaluate", tmp_path / "r", "--data", tmp_path / "p", "--json")
    assert status == 1
    assert json.loads(said)["accuracy"] > 0.8
    assert "left out" in err
    assert "bad.png" in err
    for good in (tmp_path / "p").rglob("[0-9]*.png"):
        good.write_bytes(b"")
    status, said, err = gen("evaluate", tmp_path / "r", "--data", tmp_path / "p")
    assert (status, said) == (2, "")
    assert "no usable pictures" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: [*found, ("lion", "it roars", "")], "'lion'"),
        (lambda found: [(f"label {i}", *texts) for i, (_, *texts) in enumerate(found)], "no column of labels"),
        (lambda found: [("dog", *texts) for _, *texts in found], "nothing to learn"),
        (lambda found: found[:4], "too few examples"),
    ],
)
def test_labels_that_cannot_be_learned(gen, tmp_path, change, message) -> None:
    data = table(tmp_path / "bad.csv", found=change(rows()))
    status, _, err = gen("train", "classify", "--data", data, "--out", tmp_path / "r", "--dry-run", *TINY)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_without_scikit_learn(gen, tmp_path, monkeypatch) -> None:
    """It says so before any data is read."""
    import sys

    monkeypatch.setitem(sys.modules, "sklearn", None)
    status, _, err = gen("train", "classify", "--data", tmp_path / "none.csv", "--out", tmp_path / "run")
    assert (status, err.splitlines()[-1].count("gen-toolkit[classify]")) == (2, 1), err
    assert "none.csv" not in err


def test_labels_only_in_the_validation_part(tmp_path) -> None:
    data = table(tmp_path / "a.csv")
    valid = table(tmp_path / "b.csv", found=[("lion", "it roars", ""), *rows()[:5]])
    with pytest.raises(UserError, match="the label 'lion' is only in the validation part"):
        read_split(ClassifyData(data=(str(data),), valid=(str(valid),)))


def test_rows_without_label_or_text_are_left_out(tmp_path) -> None:
    data = table(tmp_path / "a.csv", found=[*rows(), ("", "no label", "x"), ("dog", "", "")])
    split = read_split(ClassifyData(data=(str(data),)))
    assert split.dropped == [f"{data}: line 92 has no label", f"{data}: line 93: has no text"]


def test_balanced_weights_count_every_label_alike(tmp_path) -> None:
    few = [row for row in rows() if row[0] == "dog"][:8]
    data = table(tmp_path / "a.csv", found=[*(row for row in rows() if row[0] != "dog"), *few])
    task = Classify.from_options(data=str(data), class_weights="balanced", valid_size=4, budget="1 steps")
    model = task.build(task.config.model, task.split)
    task.make_batches(model, task.split, task.config)
    counts = {label: sum(e.target == label for e in task.split.train) for label in ANIMALS}
    assert task.weights is not None
    total = {label: counts[label] * float(task.weights[model.tokenizer.encode(label)[0]]) for label in ANIMALS}
    assert max(total.values()) == pytest.approx(min(total.values()), rel=1e-5)
    assert sum(total.values()) == pytest.approx(len(task.split.train), rel=1e-5)


def test_weights_of_labels_and_r_drop_exclude_each_other(gen, tmp_path) -> None:
    data = table(tmp_path / "a.csv")
    words = ("train", "classify", "--data", data, "--out", tmp_path / "r", *TINY, "--class-weights", "balanced")
    status, _, err = gen(*words, "--r-drop", "1")
    assert (status, err) == (2, "gen: --r-drop does not go with --class-weights balanced\n")


def test_other_data_under_the_same_name_is_refused(gen, tmp_path) -> None:
    """The same labels and as many words: the ids of the words would be mixed up without a sign of it."""
    data = {"data": table(tmp_path / "a.csv"), "out": tmp_path / "run", "min_frequency": 1, "device": "cpu"}
    options = {**data, "encoder_size": 16, "hidden_size": 16, "embedding_size": 16, "budget": "20 steps"}
    toolkit.train("classify", **options, callbacks=[lambda event: event.stop()])
    changed = [(label, title, text.replace("today", "tonight")) for label, title, text in rows()]
    table(tmp_path / "a.csv", found=changed)
    with pytest.raises(UserError, match="the data has changed since this run was started"):
        toolkit.train("classify", **options)


def test_labels_that_no_font_has_are_told(tmp_path, capsys) -> None:
    for label, said in (("a", ""), ("\U000f0000", "some characters are drawn as boxes")):
        plot_confusion(np.array([[3, 1], [0, 2]]), [label, "b"], tmp_path / "confusion.png")
        assert said in capsys.readouterr().err
    plot_confusion(np.array([[3, 1], [0, 2]]), ["a", "b"], tmp_path / "confusion.png")
    assert capsys.readouterr().err == ""
