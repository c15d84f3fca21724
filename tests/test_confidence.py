"""How sure a model is: calibration, the confidence in words and texts, and where it is shown."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import gen as toolkit
from gen.base.errors import UserError
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.metrics.confidence import calibrate, fit_curve, spearman
from gen.search import Hypothesis
from gen.search.confidence import FILE, RAW, Calibration, located, word_log_probs, words_of
from gen.search.output import Word
from tests.serving import CALIBRATION, SENTENCES, calibrated, captioner, translator

quick = settings(derandomize=True, max_examples=50, deadline=None, database=None)
TEXTS = ["the cat, the dog", "Ein Mann läuft.", "一只狗 runs", "naïve 👍🏽 don't stop–go", "कुत्ता दौड़ता है"]


def hypothesis(text, tokenizer, log_probs=None):
    """As a search returns it: its tokens, and EOS."""
    ids = tokenizer.encode(text)
    log_probs = log_probs or [-0.1 * (1 + n % 7) for n in range(len(ids) + 1)]
    return Hypothesis(ids, sum(log_probs), log_probs, True, text=tokenizer.decode(ids))


# -- numbers of words and texts ----------------------------------------------------------------------------


def tokenizers():
    yield CharTokenizer.train(TEXTS)
    yield WordTokenizer.train(TEXTS, min_frequency=1, dummy_prefix=True)
    yield SubwordTokenizer.train(["a cat sat on the mat"] * 9, vocab_size=300, at_most=True, dummy_prefix=True)


@pytest.mark.parametrize("tokenizer", list(tokenizers()), ids=lambda t: t.kind)
@pytest.mark.parametrize("text", TEXTS)
def test_a_word_has_the_log_probability_of_its_tokens(tokenizer, text):
    found = hypothesis(text, tokenizer)
    words, sums = word_log_probs(found, found.text, tokenizer)
    assert words == [word for _, word in words_of(found.text)]
    assert (sums < 0).all()
    if tokenizer.kind == "char":  # each token is a character, and stands where it stands
        places = [(begin, begin + len(word)) for begin, word in words_of(found.text)]
        assert sums == pytest.approx([sum(found.log_probs[a:b]) for a, b in places])
    whole = hypothesis("", tokenizer)
    assert word_log_probs(whole, whole.text, tokenizer)[0] == []
    changed = hypothesis(text, tokenizer, [-2.0 if p == min(found.log_probs) else p for p in found.log_probs])
    assert (word_log_probs(changed, changed.text, tokenizer)[1] <= sums + 1e-9).all()


def test_words_of_several_bytes_and_of_what_was_cut_off():
    tokenizer = SubwordTokenizer.train(["a cat sat on the mat"] * 9, vocab_size=300, at_most=True)
    found = hypothesis("cat 狗 on", tokenizer)
    assert len(found.token_ids) > 5  # 狗 is spelled in bytes
    at = [tokenizer.tokens()[i].startswith("<0x") for i in found.token_ids]
    expected = sum(p for p, is_byte in zip(found.log_probs, at, strict=False) if is_byte)
    assert word_log_probs(found, found.text, tokenizer)[1][1] == pytest.approx(expected)
    found.text = "cat "  # up to a stop string
    assert word_log_probs(found, found.text, tokenizer)[0] == ["cat"]


def test_a_less_probable_word_is_never_more_sure():
    tokenizer = CharTokenizer.train(TEXTS)
    before = hypothesis("the cat", tokenizer)
    CALIBRATION.rate(before, tokenizer)
    for place in range(len(before.log_probs)):
        log_probs = list(before.log_probs)
        log_probs[place] -= 3
        after = hypothesis("the cat", tokenizer, log_probs)
        CALIBRATION.rate(after, tokenizer)
        assert after.confidence < before.confidence
        assert all(a.confidence <= b.confidence for a, b in zip(after.words, before.words, strict=True))
        assert [w.text for w in after.words] == ["the", "cat"]


def test_located_words_and_what_is_between_them_are_the_text():
    found = Hypothesis([], 0.0, [], True, text="Ja, the the end.")
    found.words = [Word("Ja", 0.9), Word("the", 0.2), Word("the", 0.8), Word("end", 0.7)]
    pieces = list(located(found))
    assert "".join(text for text, _ in pieces) == found.text
    assert [sure for _, sure in pieces if sure is not None] == [0.9, 0.2, 0.8, 0.7]


# -- calibration -------------------------------------------------------------------------------------------


@quick
@given(st.lists(st.tuples(st.floats(-30, 0), st.booleans()), min_size=1, max_size=400))
def test_curves_rise_and_stay_between_the_targets(pairs):
    values, targets = (np.array(each, float) for each in zip(*pairs, strict=True))
    curve = fit_curve(values, targets)
    assert all(a < b for a, b in zip(curve.x, curve.x[1:], strict=False))
    assert all(a < b for a, b in zip(curve.y, curve.y[1:], strict=False))
    assert all(targets.min() - 1e-9 <= y <= targets.max() + 1e-9 for y in curve.y)
    assert Calibration.from_bytes(Calibration(curve, curve, "x", {"n": 1.0}).to_bytes()).word == curve


def test_curves_are_scikit_learns():
    isotonic = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)  # 40 groups of 10
    targets = (rng.random(400) < 1 / (1 + np.exp(-values))).astype(float)
    order = np.argsort(values)
    x, y = values[order].reshape(40, 10).mean(1), targets[order].reshape(40, 10).mean(1)
    expected = isotonic.IsotonicRegression().fit_transform(x, y)
    curve = fit_curve(values, targets)
    assert curve.y == pytest.approx(np.unique(expected.round(9)))
    assert curve.x == pytest.approx(
        [x[expected.round(9) == level].mean() for level in np.unique(expected.round(9))]
    )


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 9, 50).astype(float), rng.normal(size=50)
    assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other)[0])
    assert spearman(one, np.ones(50)) == 0


def outputs(count, seed):
    """Outputs whose words are right as often as the square of their probability says; with their references."""
    rng = np.random.default_rng(seed)
    found, references = [], []
    for number in range(count):
        log_probs = -rng.exponential(0.7, 8)
        names = [f"w{number}x{i}" for i in range(8)]
        found.append(Hypothesis([], log_probs.sum(), log_probs.tolist(), True, text=" ".join(names)))
        found[-1].confidence = log_probs.mean()
        found[-1].words = [Word(n, p) for n, p in zip(names, log_probs, strict=True)]
        right = rng.random(8) < np.exp(2 * log_probs)
        references.append([" ".join(n for n, r in zip(names, right, strict=True) if r)])
    return found, references, [len(r[0].split()) / 8 for r in references]


def test_what_is_said_to_be_probable_is_so_often():
    made = calibrate(*outputs(300, 1), "share")
    assert made.figures["words"] == 2400
    assert made.figures["word_ece"] < 0.04
    assert made.figures["spearman"] > 0.3
    found, references, qualities = outputs(300, 2)
    sure = made.word([w.confidence for h in found for w in h.words])
    right = [w.text in r[0].split() for h, r in zip(found, references, strict=True) for w in h.words]
    assert abs(sure.mean() - np.mean(right)) < 0.03
    assert made.word(-0.05) > 0.8 > 0.2 > made.word(-2.0)
    assert abs(made.text([h.confidence for h in found]).mean() - np.mean(qualities)) < 0.03
    with pytest.raises(UserError, match="39 outputs"):
        calibrate(*outputs(39, 1), "share")
    for hypothesis in found[::2]:
        hypothesis.words = []
    with pytest.raises(UserError, match="1200 words"):
        calibrate(found, references, qualities, "share")
    found, references, qualities = outputs(40, 1)
    found[1].words[0] = Word("never", -np.inf)
    found[0].confidence = -np.inf
    assert calibrate(found, references, qualities, "share").figures["outputs"] == 40


# -- models ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a translation model: calibrated, exported, and without a calibration."""
    pytest.importorskip("onnxscript")
    from gen.models.export import export

    folder, model = tmp_path_factory.mktemp("confidence"), translator()
    model.save(folder / "plain")
    calibrated(model).save(folder / "run")
    export(model, folder / "exported")
    (folder / "lines").write_text("\n".join([*SENTENCES, "", "w1. w2 w3."]) + "\n")
    return folder


def test_alone_in_a_batch_and_exported_it_is_the_same(folders):
    run, exported = toolkit.load(folders / "run"), toolkit.load(folders / "exported")
    assert run.calibration == exported.calibration == CALIBRATION
    together = run.generate(SENTENCES, n_best=2)
    for sentence, several in zip(SENTENCES, together, strict=True):
        for model in (run, exported):
            alone = model.generate(sentence, n_best=2)
            assert alone.confidence == alone[0].confidence
            for a, b in zip(alone, several, strict=True):
                assert a.confidence == pytest.approx(b.confidence, abs=1e-5)
                assert [w.text for w in a.words] == [w.text for w in b.words] == a.text.split()
                assert [w.confidence for w in a.words] == pytest.approx([w.confidence for w in b.words], abs=1e-5)
    plain = toolkit.load(folders / "plain").generate(SENTENCES[0])
    assert (plain.confidence, plain.words) == (None, [])


def test_raw_numbers_are_log_probabilities_and_never_saved(tmp_path):
    model = translator()
    model.calibration = RAW
    found = model.generate(SENTENCES[1])
    assert found.confidence == pytest.approx(found.score / len(found.log_probs))
    assert [w.confidence for w in found.words] == pytest.approx(found.log_probs[: len(found.words)], abs=1e-5)
    model.save(tmp_path / "model")
    assert not (tmp_path / "model" / FILE).exists()


BAD = {
    "no JSON": "{",
    "a list": "[1]",
    "NaN": CALIBRATION.to_bytes().decode().replace("-9.0", "NaN"),
    "falls": CALIBRATION.to_bytes().decode().replace("0.6", "0.99"),
    "outside": CALIBRATION.to_bytes().decode().replace("0.95", "1.5"),
    "knots": CALIBRATION.to_bytes().decode().replace("-9.0", "5.0"),
    "missing": CALIBRATION.to_bytes().decode().replace("[-9.0, ", "["),
    "text": CALIBRATION.to_bytes().decode().replace("-9.0", '"a"'),
    "endless": CALIBRATION.to_bytes().decode().replace("-9.0", "-1" + "0" * 400),
    "deep": "[" * 99_999,
    "newer": CALIBRATION.to_bytes().decode().replace('"format": 1', '"format": 9'),
    "large": " " * (1 << 21),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["run", "exported"])
def test_foreign_files_get_a_line(gen, folders, tmp_path, bad, kind):
    shutil.copytree(folders / kind, tmp_path / "copy")
    (tmp_path / "copy" / FILE).write_text(BAD[bad])
    status, out, err = gen("translate", tmp_path / "copy", "--text", "w1")
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert FILE in err
    assert "--calibrate" in err


# -- commands ----------------------------------------------------------------------------------------------


def test_translations_with_their_confidence(gen, folders):
    status, out, err = gen("translate", folders / "run", "-i", folders / "lines", "--confidence", "--scores")
    assert status == 0, err
    plain = gen("translate", folders / "run", "-i", folders / "lines", "--scores")[1].splitlines()
    lines = out.splitlines()
    assert lines[4] == "\t\t"  # an empty line has the columns of the others
    for line, before in zip(lines, plain, strict=True):
        if line.strip():
            score, sure, text = line.split("\t")
            assert 0 <= float(sure) <= 1
            assert f"{score}\t{text}" == before
    records = gen("translate", folders / "exported", "-i", folders / "lines", "--confidence", "--json")[
        1
    ].splitlines()
    for line, record in zip(lines, map(json.loads, records), strict=True):
        for found in record["translations"]:
            assert float(line.split("\t")[1]) == pytest.approx(found["confidence"], abs=0.006)
            assert [w["word"] for w in found["words"]] == [w for _, w in words_of(found["text"])]
            assert all(0 <= w["confidence"] <= 1 for w in found["words"])
    assert "confidence" not in gen("translate", folders / "run", "--text", "w1", "--json")[1]


def test_what_a_person_should_look_at(gen, folders):
    records = [
        json.loads(line)
        for line in gen("translate", folders / "run", "-i", folders / "lines", "--confidence", "--json")[
            1
        ].splitlines()
    ]
    sure = {r["line"]: r["translations"][0]["confidence"] for r in records if r["translations"]}
    limit = sorted(sure.values())[2]
    status, out, err = gen("translate", folders / "run", "-i", folders / "lines", "--below", limit)
    assert status == 0
    listed = [line.split("\t") for line in out.splitlines()]
    assert [int(number) for number, *_ in listed] == [n for n, value in sure.items() if value < limit]
    for number, confidence, source, text in listed:
        assert float(confidence) == pytest.approx(sure[int(number)], abs=0.006)
        assert (source, text) == (
            records[int(number) - 1]["source"],
            records[int(number) - 1]["translations"][0]["text"],
        )
    assert f"{len(listed)} of {len(records)} lines" in err
    out = gen("translate", folders / "run", "-i", folders / "lines", "--below", limit, "--json")[1]
    assert [json.loads(line)["line"] for line in out.splitlines()] == [int(number) for number, *_ in listed]
    assert gen("translate", folders / "run", "-i", folders / "lines", "--below", 0)[1] == ""


@pytest.mark.parametrize(
    ("run", "words", "message"),
    [
        ("plain", ["--confidence"], "gen evaluate"),
        ("plain", ["--below", "0.5"], "--below: "),
        ("run", ["--below", "5"], "--below must be between 0 and 1"),
        ("run", ["--below", "nan"], "--below"),
        ("run", ["--below", "0.5", "--scores"], "leave out --scores"),
        ("run", ["--below", "0.5", "--n-best", "2"], "leave out --n-best"),
    ],
)
def test_what_does_not_work_gets_a_line(gen, folders, run, words, message):
    status, out, err = gen("translate", folders / run, "--text", "w1", *words)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert message in err


def test_an_exported_model_and_an_ensemble_without_a_calibration(gen, folders, tmp_path):
    shutil.copytree(folders / "exported", tmp_path / "exported")
    (tmp_path / "exported" / FILE).unlink()
    status, _, err = gen("translate", tmp_path / "exported", "--confidence", "--text", "w1")
    assert (status, "export that again" in err) == (2, True)
    status, _, err = gen("translate", folders / "run", folders / "plain", "--confidence", "--text", "w1")
    assert (status, "ensemble" in err) == (2, True)


@pytest.mark.parametrize("variable", ["", "NO_COLOR"])
def test_doubtful_words_have_colours_on_a_terminal(gen, folders, monkeypatch, variable):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    plain = gen("translate", folders / "run", "--text", SENTENCES[1], "--confidence")[1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    out = gen("translate", folders / "run", "--text", SENTENCES[1], "--confidence")[1]
    words = toolkit.load(folders / "run").generate(SENTENCES[1]).words
    doubtful = [w.text for w in words if w.confidence < 0.5]
    if variable:
        assert out == plain
    else:
        assert out.count("\x1b[0m") == len(doubtful)
        assert out.replace("\x1b[33m", "").replace("\x1b[31;4m", "").replace("\x1b[0m", "") == plain


def test_captions(gen, tmp_path):
    calibrated(captioner()).save(tmp_path / "run")
    for name in ("red", "blue"):
        Image.new("RGB", (40, 30), name).save(tmp_path / f"{name}.png")
    where = [tmp_path / "run", tmp_path / "red.png", tmp_path / "blue.png", "--confidence"]
    status, out, err = gen("caption", *where, "--show", tmp_path / "page.html")
    assert status == 0, err
    numbers = [float(line.split("\t")[1]) for line in out.splitlines()]
    records = [json.loads(line) for line in gen("caption", *where, "--json")[1].splitlines()]
    assert numbers == pytest.approx([r["captions"][0]["confidence"] for r in records], abs=0.006)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<small>confidence 0.") == 2
    doubtful = [w for r in records for w in r["captions"][0]["words"] if w["confidence"] < 0.5]
    assert page.count('<span class="token"') == len(doubtful)
    header, *rows = gen("caption", *where, "--csv")[1].splitlines()
    assert header == "image,caption,score,confidence"
    assert [float(row.split(",")[-1]) for row in rows] == pytest.approx(numbers, abs=0.006)
    status, _, err = gen("caption", *where, "--search", "w1")
    assert (status, "--confidence" in err) == (2, True)


def test_a_model_is_calibrated_by_the_command(gen, folders, tmp_path):
    shutil.copytree(folders / "plain", tmp_path / "run")
    model = toolkit.load(folders / "plain")
    rng = np.random.default_rng(0)
    sources = [" ".join(f"w{i}" for i in rng.integers(0, 60, rng.integers(1, 8))) for _ in range(60)]
    targets = [text if n % 2 else " ".join(text.split()[::2]) for n, text in enumerate(model(sources))]
    (tmp_path / "src").write_text("\n".join(sources) + "\n")
    (tmp_path / "ref").write_text("\n".join(targets) + "\n")
    data = ["--src", tmp_path / "src", "--ref", tmp_path / "ref"]
    status, out, err = gen("evaluate", tmp_path / "run", "--calibrate", *data)
    assert status == 0, err
    assert "Spearman" in out
    made = json.loads((tmp_path / "run" / FILE).read_text())
    assert made["quality"] == "chrF"
    assert made["figures"]["outputs"] == 60
    figures = json.loads(gen("evaluate", tmp_path / "run", "--calibrate", *data, "--json")[1])
    assert figures["confidence_word_ece"] == pytest.approx(made["figures"]["word_ece"])
    found = list(toolkit.load(tmp_path / "run").generate_many(sources))
    known = [w.text in t.split() for h, t in zip(found, targets, strict=True) for w in h.words]
    assert np.mean([w.confidence for h in found for w in h.words]) == pytest.approx(np.mean(known), abs=0.05)
    (tmp_path / "src").write_text("w1\n")
    (tmp_path / "ref").write_text("w1\n")
    status, _, err = gen("evaluate", tmp_path / "run", "--calibrate", *data)
    assert (status, err.count("\n"), "1 outputs" in err) == (2, 1, True)
    assert json.loads((tmp_path / "run" / FILE).read_text()) == made


def test_texts_have_nothing_to_be_compared_with(gen, model, book, tmp_path):
    model.save(tmp_path / "model")
    status, _, err = gen("evaluate", tmp_path / "model", "--calibrate", "--data", book)
    assert (status, err.count("\n"), "text model" in err) == (2, 1, True), err
    assert not (tmp_path / "model" / FILE).exists()
