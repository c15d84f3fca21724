"""Labels to write about; pictures, sentences and labels beside a sentence: trained, left out, exported, wrong."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import gen as toolkit
from gen.datasets.examples import NamedSources
from gen.datasets.pair_files import PairFiles
from gen.inputs.items import memory_slices
from gen.inputs.labels import LabelTokenizer
from gen.inputs.tokenizer import CharTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.encoders import CNNEncoder, JoinedEncoder, LabelEncoder, RNNEncoder
from gen.models.model import Model
from tasks.cli import main
from tasks.commands.models import further_inputs
from tasks.translate.data import read_pairs
from tasks.translate.inputs import Further, further_sources, read_rows
from tasks.translate.options import FurtherInputs, TranslateData

QUICK = ("--device", "cpu", "--precision", "fp32", "--validations", "1")
SIZES = ("--hidden-size", "32", "--embedding-size", "16", "--dropout", "0", "--embedding-dropout", "0")


def write_table(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


# -- text about a label ----------------------------------------------------------------------------------

WORDS = {"sea": ("fish", "ship", "wave", "salt"), "land": ("road", "tree", "corn", "wolf")}


def titles(path, count=160):
    rng = np.random.default_rng(0)
    labels = [("sea", "land")[i % 2] for i in range(count)]
    return write_table(path, ("topic", "title"), [(t, " ".join(rng.choice(WORDS[t], 3))) for t in labels])


@pytest.fixture(scope="module")
def about(tmp_path_factory):
    """A run on titles, which lie beside it, told their topic."""
    folder = tmp_path_factory.mktemp("about")
    data, said = titles(folder / "titles.csv"), io.StringIO()
    words = ("train", "text", "--data", str(data), "--given", "topic", "--out", str(folder / "about"))
    sizes = ("--budget", "240 steps", "--batch-tokens", "400", "--learning-rate", "0.02", *SIZES, *QUICK)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("GEN_CACHE", str(folder / "cache"))
        assert main([*words, *sizes, "--input-dropout", "0.3"]) == 0
    assert "--given land" in said.getvalue()
    return folder / "about"


def share(texts, topic):
    """The share of the words that are of a topic."""
    words = [word for text in texts for word in text.split()]
    return sum(word in WORDS[topic] for word in words) / max(len(words), 1)


def test_text_is_about_its_label(gen, about, tmp_path):
    written = {}
    for topic in WORDS:
        status, said, err = gen("generate", about, "--given", topic, "--num-samples", "20", "--seed", "1")
        assert status == 0, err
        written[topic] = said
        assert share([said], topic) > 0.8
    assert (
        gen("generate", about, "--given", "topic=sea", "--num-samples", "20", "--seed", "1")[1] == written["sea"]
    )
    status, said, _ = gen("generate", about, "--given", "sea", "--prompt", "road ", "--seed", "1", "--stream")
    assert status == 0
    assert said.startswith("road ")
    free = toolkit.load(about).generate("", temperature=1.0, num_samples=30, seed=3)
    both = [share([hypothesis.text for hypothesis in free], topic) for topic in WORDS]
    assert min(both) > 0.15  # without a label: either
    assert "sea: " in (about / "samples.md").read_text()


def test_labels_make_held_out_text_likelier(gen, about, tmp_path):
    with_labels = json.loads(gen("evaluate", about, "--json")[1])["bits_per_char"]
    table = about.parent / "titles.csv"
    assert json.loads(gen("evaluate", about, "--data", table, "--json")[1])["bits_per_char"] < with_labels + 0.2
    plain = tmp_path / "plain.txt"
    plain.write_text("\n".join(row[1] for row in csv.reader(table.open())) + "\n")
    without = json.loads(gen("evaluate", about, "--data", plain, "--json")[1])["bits_per_char"]
    assert without > with_labels + 0.05


def test_exported_it_is_told_as_well(gen, about, tmp_path):
    pytest.importorskip("onnxscript")
    assert gen("export", about, "-o", tmp_path / "x")[0] == 0
    for words in (("--given", "land"), ("--given", "sea", "--prompt", "w"), ()):
        options = (*words, "--num-samples", "3", "--seed", "2")
        assert gen("generate", tmp_path / "x", *options) == gen("generate", about, *options)


def test_resumed_it_leaves_out_the_same_labels():
    sources = {"topic": lambda rows, epoch: torch.full((len(rows), 1), 5)}
    made = NamedSources(sources, 200, ["topic"], 0.3, seed=1)
    rows = np.arange(200)
    first, again = (
        made(rows, 0)["topic"],
        NamedSources(sources, 200, ["topic"], 0.3, seed=1)(rows[50:], 0)["topic"],
    )
    assert torch.equal(first[50:], again)
    assert 30 < int((first == 0).sum()) < 90
    assert not torch.equal(first, made(rows, 1)["topic"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--given", "see"), "unknown label 'see': did you mean 'sea'?"),
        (("--given", "sea", "--given", "land"), "one label each of topic"),
        (("--given", "topic=moon"), "unknown label 'moon' (known: land, sea)"),
    ],
)
def test_labels_that_are_not_known(gen, about, words, message):
    status, said, err = gen("generate", about, *words)
    assert (status, said) == (2, "")
    assert message in err


def test_a_model_without_labels_is_told_none(gen, trained):
    status, _, err = gen("generate", trained, "--given", "sea")
    assert status == 2
    assert "trained without labels" in err


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        ([("a", f"text {i}") for i in range(30)], (), "all labels are 'a'"),
        ([(f"l{i}", f"text {i}") for i in range(30)], (), "30 different labels"),
        ([("a" if i % 2 else "b", f"text {i}") for i in range(30)], ("--given", "kind"), "no such column"),
        ([("a" if i % 2 else "b", f"text {i}") for i in range(30)], ("--given", "label"), "names the same column"),
    ],
)
def test_labels_that_cannot_be_learned(gen, tmp_path, rows, words, message):
    table = write_table(tmp_path / "t.csv", ("label", "text"), rows)
    if "different" in message:
        message = "different labels for"
    command = ("train", "text", "--data", table, "--column", "text", "--given", "label", *words)
    status, _, err = gen(*command, "--out", tmp_path / "run", "--budget", "1 steps", *SIZES)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_labels_only_in_the_validation_part(gen, tmp_path):
    train = write_table(
        tmp_path / "t.csv", ("label", "text"), [("a" if i % 2 else "b", f"t {i}") for i in range(30)]
    )
    valid = write_table(tmp_path / "v.csv", ("label", "text"), [("c", "t")] * 3)
    command = ("train", "text", "--data", train, "--valid", valid, "--column", "text", "--given", "label")
    status, _, err = gen(*command, "--out", tmp_path / "run", "--budget", "1 steps", *SIZES)
    assert status == 2
    assert "'c' is only in the validation part" in err


# -- translation with further inputs ---------------------------------------------------------------------

COLOURS = {"rot": (220, 30, 30), "gelb": (230, 220, 40), "blau": (40, 60, 220), "weiss": (250, 250, 250)}


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """Sentences whose translation depends on a picture, a model trained on them, and the cache of features."""
    folder = tmp_path_factory.mktemp("pictured")
    rows = []
    for i in range(120):
        name, colour = list(COLOURS.items())[i % 4]
        file = f"{name}{i // 4 % 5}.png"
        noise = np.random.default_rng(i).integers(-12, 12, (48, 48, 3))
        if not (folder / file).exists():
            Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(folder / file)
        thing = ("boat", "car", "hat", "cup", "door")[i % 5]
        part = "val" if i % 10 == 0 else "train"
        image = None if i % 24 == 1 else file
        rows.append({"en": f"a {thing}", "de": f"{name} {thing}", "image": image, "split": part})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    patch = pytest.MonkeyPatch()
    patch.setenv("GEN_CACHE", str(folder / "cache"))
    command = ["train", "translate", "--data", str(folder / "rows.jsonl"), "--src", "en", "--tgt", "de"]
    sizes = ["--encoder-size", "16", "--level", "word", "--min-frequency", "1", "--batch-tokens", "200"]
    try:
        torch.manual_seed(0)
        options = ["--image", "image", "--out", str(folder / "run"), "--budget", "150 steps", *SIZES, *QUICK]
        assert main([*command, *options, *sizes, "--learning-rate", "0.02"]) == 0
    finally:
        patch.undo()
    return folder


def test_the_picture_decides(gen, pictured):
    for name in COLOURS:
        picture = pictured / f"{name}1.png"
        status, said, err = gen(
            "translate", pictured / "run", "--image", picture, "--text", "a boat", "--text", "a hat"
        )
        assert status == 0, err
        assert said.split() == [name, "boat", name, "hat"]
    status, said, err = gen("translate", pictured / "run", "--text", "a boat")  # learned as well
    assert status == 0, err
    assert "boat" in said


def test_views_of_pictures_take_turns(pictured, monkeypatch):
    monkeypatch.setenv("GEN_CACHE", str(pictured / "cache"))
    encoder = toolkit.load(pictured / "run").encoder
    paths = [pictured / f"{name}1.png" for name in COLOURS]
    further = Further({"image": "image"}, {"image": [*paths[:3], None]}, {"image": [paths[3], None]})
    once, held_out = further_sources(encoder, further, 1, lambda *_: None)
    several, same = further_sources(encoder, further, 3, lambda *_: None)
    rows = np.arange(4)
    views = [several["image"](rows, epoch) for epoch in range(4)]
    assert torch.equal(views[0], views[3])
    for row in range(3):  # the view of row r in epoch e is the (r + e)-th
        assert torch.equal(views[-row % 3][row], once["image"](rows, 0)[row])
        assert not torch.equal(views[0][row], views[1][row])
    assert not any(view[3].any() for view in views)
    assert np.array_equal(held_out["image"][0], same["image"][0])
    assert same["image"][1] is None


def test_evaluated_with_and_without_the_picture(gen, pictured):
    with_it = json.loads(gen("evaluate", pictured / "run", "--json")[1])["exact"]
    without = json.loads(gen("evaluate", pictured / "run", "--without", "image", "--json")[1])["exact"]
    assert with_it > 0.7 > without
    table = (pictured / "run", "--data", pictured / "rows.jsonl", "--images", pictured, "--json")
    of_split = json.loads(gen("evaluate", *table, "--split", "valid")[1])["exact"]
    assert of_split == pytest.approx(with_it, abs=0.1)  # computed features in place of cached ones
    status, _, err = gen("evaluate", pictured / "run", "--without", "picture")
    assert status == 2
    assert "no such further input; it has image" in err


def test_both_plots_are_drawn(gen, pictured, tmp_path):
    assert (pictured / "run" / "plots" / "attention.png").exists()
    assert (pictured / "run" / "plots" / "attention-image.png").exists()
    words = ("--text", "a cup", "--image", pictured / "rot1.png", "-o", tmp_path / "a.svg")
    assert gen("plot", "attention", pictured / "run", *words)[0] == 0
    assert {path.name for path in tmp_path.glob("*.svg")} == {"a.svg", "a-image.svg"}


def test_a_column_split_is_followed(pictured):
    files = PairFiles([str(pictured / "rows.jsonl")], "en", "de")
    assert files.parts.tolist().count("valid") == 12
    run = json.loads((pictured / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert run
    assert len((pictured / "run" / "valid.src").read_text().splitlines()) == 12


def test_what_is_not_used_is_counted(tmp_path):
    rows = [(f"a {i}", f"b {i}", ("train", "val", "test")[i % 3]) for i in range(30)]
    table = str(write_table(tmp_path / "rows.csv", ("source", "target", "split"), rows))
    (tmp_path / "val.tsv").write_text("c\td\n")
    other = read_pairs(TranslateData(data=(table,), valid=(str(tmp_path / "val.tsv"),)), None)
    assert other.pairs.notes["not used"] == "10 pairs to test on, 10 pairs to validate on"
    assert read_pairs(TranslateData(data=(table,)), None).pairs.notes["not used"] == "10 pairs to test on"


def test_pictures_lie_where_their_table_does(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.tsv").write_text(f"src\ttgt\timg\n{name}\tx\tmy  1.jpg\n{name}\ty\t\n")
    tables = [str(tmp_path / name / "t.tsv") for name in "ab"]
    found = read_rows(PairFiles(tables, "src", "tgt"), FurtherInputs(image=("img",)))
    assert found == {"img": [tmp_path / "a" / "my  1.jpg", None, tmp_path / "b" / "my  1.jpg", None]}


def test_a_misspelt_part_is_an_error(tmp_path):
    def parts(*cells):
        rows = [{"source": "a", "target": "b", "split": cell} for cell in cells]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = PairFiles([str(tmp_path / "rows.jsonl")]).parts
        return None if found is None else found.tolist()

    assert parts("train ", " Val", "TEST", None) == ["train", "valid", "test", "train"]
    assert parts("training_set", "Eval", "testing") == ["train", "test", "test"]
    assert parts("row", "column") is None  # it is about something else
    with pytest.raises(toolkit.UserError, match="line 2 has a split 'tset': it must be one of train, "):
        parts("train", "tset", "val")


def test_exported_pictures_count_too(gen, pictured, tmp_path):
    pytest.importorskip("onnxscript")
    assert gen("export", pictured / "run", "-o", tmp_path / "x")[0] == 0
    for words in (("--image", pictured / "rot1.png"), ()):
        options = ("--text", "a cup", "--text", "a door", "--alignments", *words)
        assert gen("translate", tmp_path / "x", *options) == gen("translate", pictured / "run", *options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image", "nowhere.png"), "nowhere.png: no such file"),
        (("--image", "a.png", "--image", "b.png"), "--image b.png: this model takes 1 of them"),
        (("--context", "before"), "--context before: this model was trained without --context"),
        (("--given", "x"), "trained without labels"),
    ],
)
def test_inputs_that_are_wrong(gen, pictured, words, message):
    status, said, err = gen("translate", pictured / "run", "--text", "a hat", *words)
    assert (status, said) == (2, "")
    assert message in err


def test_no_picture_at_all(gen, pictured, tmp_path):
    command = ("train", "translate", "--data", pictured / "rows.jsonl", "--src", "en", "--tgt", "de", *SIZES)
    status, _, err = gen(*command, "--image", "image", "--images", tmp_path, "--out", tmp_path / "run")
    assert status == 2
    assert "none of the pictures is there" in err
    status, _, err = gen(*command, "--augment", "2", "--out", tmp_path / "run")
    assert (status, "--augment goes with --image" in err) == (2, True)
    status, _, err = gen("train", "translate", "--train", "a.en", "a.de", "--image", "image")
    assert status == 2
    assert "give it with --data" in err


def test_a_sentence_before_and_a_style(gen, tmp_path):
    """The form of address depends on a label, the pronoun on the sentence before."""
    rows = []
    for i in range(160):
        thing, pronoun = (("die Tür", "sie"), ("der Hut", "er"))[i % 2]
        style, you = (("polite", "Sie"), ("close", "du"))[i // 2 % 2]
        noun = {"die Tür": "door", "der Hut": "hat"}[thing]
        rows.append((f"the {noun}", f"you see it {i % 9}", f"{you} sehen {pronoun} {i % 9}", style))
    table = write_table(tmp_path / "t.csv", ("before", "en", "de", "style"), rows)
    out = tmp_path / "run"
    status, _, err = gen(
        *("train", "translate", "--data", table, "--src", "en", "--tgt", "de", "--context", "before"),
        *("--given", "style", "--level", "word", "--min-frequency", "1", "--budget", "250 steps"),
        *(
            "--encoder-size",
            "16",
            "--learning-rate",
            "0.02",
            "--batch-tokens",
            "300",
            *SIZES,
            *QUICK,
            "--out",
            out,
        ),
    )
    assert status == 0, err
    for before, style, wanted in (
        ("the door", "polite", "Sie sehen sie"),
        ("the hat", "close", "du sehen er"),
        ("the hat", "polite", "Sie sehen er"),
    ):
        words = ("--context", before, "--given", style, "--text", "you see it 4")
        status, said, err = gen("translate", out, *words)
        assert status == 0, err
        assert said.startswith(f"{wanted} ")


def joined(seed=0):
    """An untrained model of a sentence, a picture and a label, its choices sharpened."""
    torch.manual_seed(seed)
    letters = CharTokenizer.train(["abcdefgh "])
    parts = {
        "sentence": RNNEncoder(letters, embedding_size=8, hidden_size=6, num_layers=1),
        "view": CNNEncoder("shufflenet_v2_x0_5", "none", memory_size=12),
        "style": LabelEncoder({"style": LabelTokenizer(["old", "new"])}, 12, prompt=False),
    }
    encoder = JoinedEncoder(parts, 12, optional=["view", "style"])
    model = Model(encoder, DecoderConfig(len(letters), 8, 12, 1, attention="dot"), letters).eval()
    with torch.no_grad():
        model.decoder.output.weight *= 6
        model.decoder.output.bias[letters.eos_id] = -2
    return model


def items():
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 224, 224)).astype(np.uint8)
    return [
        {"sentence": "abc", "view": pixels[0], "style": "old"},
        {"sentence": "h"},
        {"sentence": "gfedcba", "style": "new"},
        {"sentence": "cc", "view": pixels[1]},
    ]


def test_what_is_missing_changes_nothing_for_the_others():
    model = joined()
    together = model.generate(items(), temperature=0, max_new_tokens=8)
    for item, output in zip(items(), together, strict=True):
        alone = model.generate(item, temperature=0, max_new_tokens=8)
        assert alone.text == output.text
        np.testing.assert_allclose(alone[0].attention, output[0].attention, atol=1e-5)
        positions = memory_slices(model.processors, item)
        assert set(positions) == set(item) - {"style"}  # a label has none
        assert output[0].attention.shape[1] == max(each.stop for each in positions.values())
    assert model.generate("h", temperature=0, max_new_tokens=8).text == together[1].text  # a bare sentence


def test_saved_with_its_optional_inputs(tmp_path):
    model = joined()
    model.save(tmp_path / "m")
    again = toolkit.load(tmp_path / "m")
    assert [p.optional for p in again.processors.values()] == [False, True, True]
    assert again(items()[1:3], temperature=0, max_new_tokens=6) == model(
        items()[1:3], temperature=0, max_new_tokens=6
    )
    with pytest.raises(toolkit.UserError, match="the input 'sentence' is missing"):
        again.generate({"style": "old"})


def test_inputs_of_the_command_in_their_order():
    found = further_inputs(joined(), [], [], ["new"])
    assert found == {"style": "new"}


# -- captions in two languages ---------------------------------------------------------------------------


def test_one_model_writes_captions_in_two_languages(gen, pictured, tmp_path, monkeypatch):
    monkeypatch.setenv("GEN_CACHE", str(pictured / "cache"))
    english = {"rot": "red", "gelb": "yellow", "blau": "blue", "weiss": "white"}
    files = {"de": tmp_path / "captions.de.jsonl", "en": tmp_path / "captions.en.jsonl"}
    for language, path in files.items():
        lines = []
        for name in COLOURS:
            for i in range(5):
                text = f"alles ist {name}" if language == "de" else f"all is {english[name]}"
                split = "val" if i == 4 else "train"
                lines.append({"image": f"{name}{i}.png", "captions": [text], "split": split})
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ("train", "caption", "--images", pictured, "--captions", *(f"{n}={p}" for n, p in files.items()))
    sizes = ("--memory-size", "32", "--label-smoothing", "0", "--augment", "0", "--batch-tokens", "100", *SIZES)
    out = tmp_path / "run"
    status, _, err = gen(
        *(*command, "--out", out, "--budget", "120 steps", "--learning-rate", "0.02", "--min-frequency", "1"),
        *(*sizes, *QUICK),
    )
    assert status == 0, err
    held_out = [f"{n}={out / f'valid.{n}.jsonl'}" for n in files]
    figures = [gen("evaluate", out, "--json", *more)[1] for more in ((), ("--captions", *held_out))]
    assert figures[0] == figures[1] != ""
    for language, wanted in (("de", "alles ist rot"), ("en", "all is red")):
        status, said, err = gen("caption", out, pictured / "rot4.png", "--given", language)
        assert status == 0, err
        assert said.strip().split("\t")[1] == wanted
        chosen = ("--images", pictured, "--captions", f"{language}={files[language]}", "--json")
        assert json.loads(gen("evaluate", out, *chosen)[1])["bleu1"] > 90
    looks = tmp_path / "looks.png"
    assert gen("plot", "attention", out, pictured / "rot4.png", "--given", "de", "-o", looks)[0] == 0
    assert looks.stat().st_size > 1000
    status, _, err = gen("caption", out, pictured / "rot4.png")
    assert status == 2
    assert "--given: this model needs a label: de, en" in err
    status, _, err = gen("caption", out, pictured / "rot4.png", "--given", "fr")
    assert status == 2
    assert "unknown label 'fr'" in err
    status, _, err = gen(*command, files["de"], "--out", tmp_path / "other")
    assert status == 2
    assert "or none" in err


# -- minimum risk ----------------------------------------------------------------------------------------


def test_minimum_risk_from_a_run(gen, tmp_path):
    rows = [
        (f"a {a} {b}", f"ein {b} {a}") for a in ("cat", "dog", "cow", "hen") for b in ("big", "red", "old", "shy")
    ]
    table = write_table(tmp_path / "t.csv", ("src", "tgt"), rows * 3)
    command = ("train", "translate", "--data", table, "--encoder-size", "16", "--level", "word", *QUICK)
    small = ("--min-frequency", "1", "--batch-tokens", "200")
    status, _, err = gen(*command, *small, *SIZES, "--out", tmp_path / "first", "--budget", "40 steps")
    assert status == 0, err
    risk = ("--minimum-risk", "--init-from", tmp_path / "first", "--samples", "3", "--reward", "chrf")
    command = ("train", "translate", "--data", table, *QUICK, *small, "--budget", "4 steps")
    status, _, err = gen(*command, *risk, "--out", tmp_path / "own")
    assert status == 0, err
    before, after = (toolkit.load(tmp_path / name) for name in ("first", "own"))
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    status, _, err = gen(*command, "--self-critical", "--coverage", "1", "--out", tmp_path / "other")
    assert status == 2
    assert "--coverage does not go with --self-critical" in err
    assert "name its run with --init-from" in err
    status, _, err = gen(*command, "--samples", "3", "--average-of", "best", "--out", tmp_path / "other")
    assert status == 2
    assert "--samples: only with --self-critical" in err
    assert "--average-of best goes with --average" in err


def test_ids_are_read_as_the_sentence_they_spell():
    model = joined()
    processor = model.processors["sentence"]
    ids = processor.read(["abc", "gfedcba"])
    assert processor.read(list(ids)).tolist() == ids.tolist()
    options = {"temperature": 0, "max_new_tokens": 6}
    assert model([{"sentence": row} for row in ids], **options) == model(["abc", "gfedcba"], **options)


def test_labels_of_a_decoder_that_has_none_are_no_input():
    encoder = LabelEncoder({"topic": LabelTokenizer(["a", "b"])}, 4)
    memory = encoder({"prompt": torch.zeros(3)})
    none = encoder(encoder.prepare([{"topic": None}] * 3).source)
    assert torch.equal(memory.values, none.values)
    assert replace(memory).mask.all()
