"""Exported models: the same results as with torch, without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from itertools import chain
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
import torch

import gen
from gen import runtime
from gen.base.errors import UserError
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.models import export, quantization
from gen.models.decoder import DecoderConfig
from gen.models.encoders import CNNEncoder, Encoder, RNNEncoder
from gen.models.memory import Memory
from gen.models.model import Model
from gen.search import Beam, Greedy, Sample
from gen.search.datastore import Datastore
from gen.search.ensemble import Ensemble
from gen.search.info import ModelInfo
from gen.search.ops import NumpyOps
from gen.search.phrase import phrase_fits
from gen.search.remember import write_pairs, write_text
from tasks.cli import main
from tasks.commands.export import quantization_check
from tasks.text.task import Text
from tests import torchfree

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

WORDS = WordTokenizer([f" w{i}" for i in range(60)])
SENTENCES = ["".join(f" w{i}" for i in row) for row in ([3], [5, 9, 2, 7, 7, 1], [40, 41], [8, 8, 30, 12, 59])]


def sharpen(model):
    """Makes choices clear, so that the last bit decides nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3
    return model.eval()


def translator(cell="lstm", attention="dot", bidirectional=True, **decoder):
    torch.manual_seed(0)
    encoder = RNNEncoder(
        WORDS, embedding_size=12, hidden_size=8, num_layers=2, cell=cell, bidirectional=bidirectional, max_length=9
    )
    config = DecoderConfig(len(WORDS), 12, 16, 2, cell=cell, attention=attention, **decoder)
    search = {"beam": 3, "max_ratio": 2.0}
    return sharpen(Model(encoder, config, WORDS, ModelInfo("translate", search=search, metrics={"bleu": 1.5})))


def writer():
    torch.manual_seed(0)
    tokenizer = CharTokenizer.train(["abcdefghij klm.\n"])
    config = DecoderConfig(len(tokenizer), embedding_size=12, hidden_size=24, num_layers=2, layer_norm=True)
    return sharpen(Model({"name": "none"}, config, tokenizer, ModelInfo("text", ends_with_eos=False)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An exported translator, its int8 sibling, and an exported writer of text."""
    root = tmp_path_factory.mktemp("exported")
    export.export(translator(), root / "translate")
    quantization.quantize(root / "translate", root / "int8")
    export.export(writer(), root / "text")
    return root


def flat(results):
    return [(h.token_ids, h.text, h.finished) for hypotheses in results for h in hypotheses]


def test_a_memory_is_that_of_torch(folders, tmp_path):
    pairs = [(source, " w7 w8") for source in SENTENCES[1:]]
    (tmp_path / "pairs").mkdir()
    write_pairs(tmp_path / "pairs", runtime.load(folders / "translate"), pairs)
    found = []
    for model in (runtime.load(folders / "translate"), translator()):
        model.datastore = Datastore(tmp_path / "pairs", model, weight=0.7, temperature=0.3)
        found.append(flat(model.generate([*SENTENCES, " w5 w9 w2", " w40"])))
    assert found[0] == found[1]
    with pytest.raises(UserError, match="memory of another model"):
        Datastore(tmp_path / "pairs", runtime.load(folders / "int8"))  # it computes other features


def test_a_memory_of_text_is_that_of_torch(folders, tmp_path):
    found = []
    for number, model in enumerate((runtime.load(folders / "text"), writer())):
        (tmp_path / str(number)).mkdir()
        write_text(tmp_path / str(number), model, ["a bad kid made jam.\n" * 3])
        model.datastore = Datastore(tmp_path / str(number), model)
        found.append((model("a b", temperature=0, max_new_tokens=20), model.score(["jam."])[0].log_prob))
    assert found[0] == (found[1][0], pytest.approx(found[1][1], abs=1e-3))


def test_words_fit_as_well_as_with_torch(folders):
    found, expected = (
        phrase_fits(model, SENTENCES, "w7 w8") for model in (runtime.load(folders / "translate"), translator())
    )
    assert [f.text for f in found] == [f.text for f in expected]
    assert [f.score for f in found] == pytest.approx([f.score for f in expected], abs=1e-4)


WAYS = {
    "greedy": {"temperature": 0.0},
    "beam": {"beam": 4, "n_best": 3, "length_penalty": 1.2},
    "mbr": {"beam": 4, "n_best": 3, "mbr": True},
    "diverse": {"beam": 4, "beam_groups": 2, "n_best": 4},
    "sampling": {"temperature": 0.9, "top_k": 9, "top_p": 0.9, "num_samples": 3, "seed": 5},
    "processors": {
        "beam": 3,
        "min_new_tokens": 4,
        "no_repeat_ngram": 2,
        "repetition_penalty": 1.3,
        "ban": (" w3",),
    },
    "prefix": {"beam": 2, "prefix": " w7 w8"},
    "coverage": {"beam": 4, "n_best": 3, "coverage_penalty": 0.4, "length_reward": 0.3},
    "coverage of groups": {"beam": 4, "beam_groups": 2, "n_best": 4, "coverage_penalty": 2.0},
    "must": {"beam": 3, "n_best": 2, "must": ("w4 w11|w5 w2", "w3")},
}


@pytest.mark.parametrize("way", WAYS)
def test_translations_are_those_of_torch(folders, way):
    model, exported = translator(), runtime.load(folders / "translate")
    ours = model.generate(SENTENCES, attention=True, max_new_tokens=12, **WAYS[way])
    theirs = exported.generate(SENTENCES, attention=True, max_new_tokens=12, **WAYS[way])
    assert flat(theirs) == flat(ours)
    for a, b in zip(chain(*ours), chain(*theirs), strict=True):
        assert b.score == pytest.approx(a.score, abs=1e-4)
        np.testing.assert_allclose(b.attention, a.attention, atol=1e-5)
        assert b.alignment == a.alignment


@pytest.mark.parametrize("strategy", [Greedy(), Beam(3), Sample(seed=3, num_samples=2)])
def test_text_is_that_of_torch(folders, strategy):
    model, exported = writer(), runtime.load(folders / "text")
    prompts = ["", "a", "abcabc klm", "bad"]
    ours = model.generate(prompts, strategy=strategy, max_new_tokens=40)
    assert flat(exported.generate(prompts, strategy=strategy, max_new_tokens=40)) == flat(ours)
    streamed = "".join(exported.stream("abc", temperature=0.7, seed=2, max_new_tokens=30))
    assert streamed == model.generate("abc", temperature=0.7, seed=2, max_new_tokens=30)[0].text


def test_the_batch_changes_nothing(folders):
    exported = runtime.load(folders / "translate")
    for how in ({}, WAYS["coverage"], WAYS["must"]):
        together = exported.generate(SENTENCES, max_new_tokens=12, **how)
        alone = [exported.generate(s, max_new_tokens=12, **how) for s in SENTENCES]
        many = list(exported.generate_many(SENTENCES * 5, batch_size=3, max_new_tokens=12, **how))
        assert flat(together) == flat(alone)
        assert flat(many) == flat(together) * 5


def test_scores_are_those_of_torch(folders):
    texts = [" w1 w2 w3", " w9", "", " w8 w8 w8 w8"]
    for name, model, items in (("translate", translator(), SENTENCES), ("text", writer(), None)):
        asked = texts if items else ["abc", "", "klm. a"]
        ours, theirs = model.score(asked, items), runtime.load(folders / name).score(asked, items)
        for a, b in zip(ours, theirs, strict=True):
            assert b.num_tokens == a.num_tokens
            np.testing.assert_allclose(b.log_probs, a.log_probs, atol=1e-4)
    assert runtime.load(folders / "text").score([]) == []


@pytest.mark.parametrize(
    "kinds",
    [
        {"cell": "gru", "attention": "additive", "bidirectional": False, "copy": True},
        {"cell": "rnn", "attention": "none", "tie_embeddings": True},
    ],
    ids=lambda kinds: kinds["attention"],
)
def test_every_kind_of_layer_can_be_exported(tmp_path, kinds):
    model = translator(**kinds)
    export.export(model, tmp_path / "out")
    exported = runtime.load(tmp_path / "out")
    for options in ({"beam": 3}, {"temperature": 0.0}):
        ours = model.generate(SENTENCES, max_new_tokens=10, **options)
        assert flat(exported.generate(SENTENCES, max_new_tokens=10, **options)) == flat(ours)


def test_captions_are_those_of_torch(tmp_path):
    torch.manual_seed(0)
    encoder = CNNEncoder("alexnet", "none", memory_size=16)  # few layers: tracing takes its time
    config = DecoderConfig(len(WORDS), 12, 16, 2, attention="multihead", num_heads=4, residual=True)
    model = Model(encoder, config, WORDS, ModelInfo("caption", search={"beam": 3})).eval()
    with torch.no_grad():
        model.decoder.output.weight *= 30
    export.export(model, tmp_path / "out")
    exported = runtime.load(tmp_path / "out")
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (3, 224, 224), np.uint8) for _ in range(5)]  # more than were traced
    ours = model.generate(pictures, max_new_tokens=8, attention=True)
    theirs = exported.generate(pictures, max_new_tokens=8, attention=True)
    assert flat(theirs) == flat(ours)
    assert theirs[0][0].attention.shape == ours[0][0].attention.shape
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    from PIL import Image

    for path, picture in zip(paths, pictures, strict=False):
        Image.fromarray(picture.transpose(1, 2, 0)).save(path)
    names = [str(path) for path in paths]
    assert flat(exported.generate(names, max_new_tokens=8)) == flat(model.generate(names, max_new_tokens=8))
    assert main(["caption", str(tmp_path / "out"), *map(str, paths), "--max-new-tokens", "8"]) == 0


def test_int8_is_smaller_and_close(folders):
    plain, small = (runtime.load(folders / name) for name in ("translate", "int8"))
    assert small.precision == "int8"
    sizes = [(folders / name / runtime.STEP).stat().st_size for name in ("translate", "int8")]
    assert sizes[1] < sizes[0]
    exact = np.concatenate([s.log_probs for s in plain.score(SENTENCES, SENTENCES)])
    rough = np.concatenate([s.log_probs for s in small.score(SENTENCES, SENTENCES)])
    assert 0 < np.abs(exact - rough).max() < 0.5 * np.abs(exact).max()


def test_int8_does_not_depend_on_the_rest_of_the_batch(folders):
    small = runtime.load(folders / "int8")
    together = small.score(SENTENCES, SENTENCES)
    for sentence, among in zip(SENTENCES, together, strict=True):
        (alone,) = small.score([sentence], [sentence])
        np.testing.assert_allclose(alone.log_probs, among.log_probs, atol=1e-5)


def test_a_folder_says_what_it_is(folders):
    exported = gen.load(str(folders / "translate"))
    assert isinstance(exported, runtime.Runtime)
    assert exported.info.task == "translate"
    assert exported.info.metrics == {"bleu": 1.5}
    assert exported.processors["sentence"].max_length == 9
    assert "| bleu | 1.5 |" in (folders / "translate" / "README.md").read_text()


def test_commands_take_exported_folders(folders, tmp_path, capsys, monkeypatch):
    lines = tmp_path / "in.txt"
    lines.write_text("\n".join([SENTENCES[1], "", SENTENCES[3]]) + "\n")
    assert main(["translate", str(folders / "translate"), "-i", str(lines), "--alignments"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert out[1] == "\t"  # an empty line keeps its columns
    text, links = out[0].split("\t")
    assert [int(link.split("-")[1]) for link in links.split()] == list(range(len(text.split())))
    assert main(["generate", str(folders / "text"), "--prompt", "abc", "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("abc")
    assert main(["generate", str(folders / "translate")]) == 2
    assert "gen translate" in capsys.readouterr().err
    assert main(["generate", str(folders / "text"), "--device", "cuda"]) == 2
    assert "--device cuda" in capsys.readouterr().err
    assert main(["generate", str(folders / "text"), "--precision", "bf16"]) == 2
    assert "--precision bf16" in capsys.readouterr().err
    two = [str(folders / "translate")] * 2
    assert main(["translate", *two, "-i", str(lines)]) == 0  # the same twice is what it is alone
    assert [line.split("\t")[0] for line in out] == capsys.readouterr().out.splitlines()


# -- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, folders, monkeypatch):
    """A saved translator and held-out pairs. Tracing takes its time: what it makes is there already."""

    def copied(model, folder):
        shutil.copytree(folders / model.info.task, folder)

    monkeypatch.setattr("tasks.commands.export.export", copied)
    translator().save(tmp_path / "model")
    for name in ("src", "ref"):
        (tmp_path / name).write_text("\n".join(SENTENCES) + "\n")
    return tmp_path


def test_int8_is_judged_before_it_is_written(saved, capsys):
    command = ["export", str(saved / "model"), "-o", str(saved / "out"), "--int8"]
    judged = ["--src", str(saved / "src"), "--ref", str(saved / "ref")]
    assert main(command) == 2  # nothing to judge by
    assert "--src and --ref" in capsys.readouterr().err
    assert not (saved / "out").exists()
    assert main([*command, *judged, "--max-loss", "100"]) == 0
    figures = json.loads((saved / "out" / runtime.CONFIG).read_text())["metrics"]
    assert {"BLEU, float32", "BLEU, int8"} <= set(figures)
    assert "BLEU, int8" in (saved / "out" / "README.md").read_text()
    assert runtime.load(saved / "out").precision == "int8"


def test_int8_of_text_is_judged_in_bits(monkeypatch):
    bits = {"plain": 1.0, "small": 1.01}
    monkeypatch.setattr("tasks.commands.export.runtime.load", lambda folder: folder)
    monkeypatch.setattr(Text, "measure", lambda task, model, examples, limit: (bits[model], "9 pieces"))
    figures = quantization_check(Text(), ["a text"], "plain", "small", None)
    assert figures == {"bits per character, float32": 1.0, "bits per character, int8": 1.01}
    with pytest.raises(UserError, match="bits per character 1 in float32"):
        quantization_check(Text(), ["a text"], "plain", "small", 0.001)


def test_a_run_whose_data_has_moved(saved, capsys, monkeypatch):
    model = translator()
    files = ("gone/val.en", "gone/val.de")
    model.info.training = {"data": {"train": files, "valid": files}, "split": 2}
    model.save(saved / "run" / "best")
    (saved / "run" / "valid.src").write_text("w1\n")
    monkeypatch.setattr("tasks.commands.export.quantize", pytest.fail)  # before minutes of work
    for words in (["export", "RUN", "-o", saved / "out", "--int8"], ["evaluate", "RUN"]):
        assert main([str(saved / "run") if word == "RUN" else str(word) for word in words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "gone/val.en: no such file, as training recorded it: name other held-out data" in error
        assert f"with --src and --ref ({saved / 'run' / 'valid.src'}: held out by training)" in error
        assert ("(without --int8 none is needed)" in error) == (words[0] == "export")


def test_int8_that_loses_too_much_is_refused(saved, capsys, monkeypatch):
    figures = iter([30.0, 29.0])
    monkeypatch.setattr("tasks.translate.task.Translate.measure", lambda *_: (next(figures), "x"))
    judged = ["--src", str(saved / "src"), "--ref", str(saved / "ref"), "--max-loss", "0.5"]
    assert main(["export", str(saved / "model"), "-o", str(saved / "out"), "--int8", *judged]) == 2
    error = capsys.readouterr().err
    assert "30" in error
    assert "29" in error
    assert "--max-loss 0.5" in error
    assert not (saved / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["MODEL"], "-o FOLDER"),
        (["MODEL", "-o", "OUT", "--max-loss", "1"], "goes with --int8"),
        (["MODEL", "-o", "OUT", "--int8", "--nonsense", "x"], "unknown option --nonsense"),
        (["MODEL", "-o", "OUT", "--int8", "--src", "x"], "--src and --ref go together"),
        (["MODEL", "-o", "MODEL"], "is no exported model"),
        (["MODEL", "-o", "NOTES"], "is no exported model"),
        (["MODEL", "-o", "MODEL/config.yaml/x"], "cannot be written"),
        (["MODEL", "-o", "OUT", "--int8", "--src", "EMPTY", "--ref", "EMPTY"], "empty: is empty"),
        (["NOWHERE", "-o", "OUT"], "no such model folder"),
    ],
)
def test_wrong_options_are_one_line(saved, capsys, words, says):
    names = {"MODEL": str(saved / "model"), "OUT": str(saved / "out"), "NOWHERE": str(saved / "nowhere")}
    names |= {"MODEL/config.yaml/x": str(saved / "model" / "config.yaml" / "x"), "EMPTY": str(saved / "empty")}
    (saved / "empty").write_text("")
    (saved / "notes").mkdir(exist_ok=True)
    (saved / "notes" / "README.md").write_text("mine")
    names |= {"NOTES": str(saved / "notes")}
    assert main(["export", *(names.get(word, word) for word in words)]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (saved / "out").exists()


def test_text_is_judged_by_bits_per_character(saved, capsys):
    writer().save(saved / "writer")
    (saved / "text.txt").write_text("abc klm. " * 200)
    command = ["export", str(saved / "writer"), "-o", str(saved / "out"), "--int8", "--max-loss", "1"]
    assert main([*command, "--data", str(saved / "text.txt")]) == 0
    assert "bits per character" in capsys.readouterr().err


class Odd(Encoder):
    """An encoder without a processor."""

    name = "odd"
    memory_size = 4

    def forward(self, source):
        return Memory(source["x"], source["x"][..., 0] > 0, source["x"][:, 0])


def test_an_encoder_without_processors_is_refused(tmp_path):
    model = Model(Odd(), DecoderConfig(len(WORDS), 8, 8, attention="dot"), WORDS)
    with pytest.raises(UserError, match="has no `processors`"):
        export.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- folders that are not whole --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [runtime.CONFIG, runtime.TOKENIZER, runtime.STEP, runtime.ENCODER, "processor-sentence-tokenizer.bin"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_damaged_folders_are_one_line(folders, tmp_path, name, damage):
    shutil.copytree(folders / "translate", tmp_path / "out")
    path = tmp_path / "out" / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        runtime.load(tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": float("inf")},
        {"tokenizer": 3},
        {"processors": {"sentence": {"kind": "sounds"}}},
        {"processors": {"sentence": {"kind": "prompts"}}},
        {"search": {"beam": "5"}},
        {"search": {"no_such_option": 1}},
        {"metrics": []},
    ],
    ids=str,
)
def test_wrong_values_are_one_line(folders, tmp_path, changes):
    shutil.copytree(folders / "translate", tmp_path / "out")
    config = json.loads((tmp_path / "out" / runtime.CONFIG).read_text())
    (tmp_path / "out" / runtime.CONFIG).write_text(json.dumps({**config, **changes}))
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        runtime.load(tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [runtime.STEP, runtime.ENCODER, runtime.TOKENIZER])
def test_files_of_another_model_are_one_line(folders, tmp_path, name):
    shutil.copytree(folders / "translate", tmp_path / "out")
    shutil.copy(folders / "text" / name, tmp_path / "out" / name)
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        runtime.load(tmp_path / "out")
    assert "\n" not in str(error.value)


def test_exported_and_trained_models_write_together(folders):
    first = translator(cell="gru")
    trained, exported = (
        Ensemble([first, second]).generate(SENTENCES, beam=3, max_new_tokens=9)
        for second in (translator(), runtime.load(folders / "translate"))
    )
    assert flat(trained) == flat(exported)
    assert flat(trained) != flat(first.generate(SENTENCES, beam=3, max_new_tokens=9))


@pytest.mark.parametrize(("size", "k"), [(1003, 5), (5000, 5), (5000, 16), (5000, 40), (7, 9), (2000, 1)])
def test_the_largest_of_many(size, k):
    x = np.random.default_rng(0).normal(size=(40, size)).astype(np.float32)
    x[0, 3:] = -np.inf  # fewer than k of them finite
    values, found = NumpyOps().topk(x, k)
    expected = -np.sort(-x, axis=-1)[:, :k]
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(np.take_along_axis(x, found, 1), expected)
    assert all(len(set(row)) == len(row) for row in found.tolist())


def test_a_newer_format_says_so(folders, tmp_path):
    shutil.copytree(folders / "text", tmp_path / "out")
    config = json.loads((tmp_path / "out" / runtime.CONFIG).read_text())
    (tmp_path / "out" / runtime.CONFIG).write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(UserError, match="99 is newer"):
        runtime.load(tmp_path / "out")
    with pytest.raises(UserError, match="no such folder"):
        runtime.load(tmp_path / "nowhere")


# -- the small distribution ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    return torchfree.build_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_runtime_works_where_there_is_no_torch(folders, wheel, tmp_path):
    python = torchfree.make(tmp_path / "venv", wheel)
    code = (
        "import importlib.util, sys\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "import gen\n"
        "model = gen.load(sys.argv[1])\n"
        "print([h[0].token_ids for h in model.generate(sys.argv[2:], beam=3, max_new_tokens=9)])\n"
    )
    done = subprocess.run(
        [python, "-I", "-c", code, folders / "translate", *SENTENCES], capture_output=True, text=True, cwd=tmp_path
    )
    expected = [h[0].token_ids for h in translator().generate(SENTENCES, beam=3, max_new_tokens=9)]
    assert done.stdout == f"{expected}\n", done.stderr


def test_the_command_line_works_where_there_is_no_torch(folders, wheel, tmp_path):
    python = torchfree.make(tmp_path / "venv", wheel, extra="cli")

    def run(*words):
        command = [python, "-I", "-m", "gen", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run("translate", folders / "translate", "--text", SENTENCES[1])
    expected = runtime.load(folders / "translate").generate(SENTENCES[1].strip())[0].text
    assert done.stdout == f"{expected}\n", done.stderr
    words = run("suggest", folders / "text", "--prompt", "ab")
    assert (words.returncode, words.stdout.count("%")) == (0, 5), words.stderr
    (tmp_path / "pairs.tsv").write_text("w1 w2\tw7 w8\n")
    recalled = run("translate", folders / "translate", "--text", SENTENCES[1], "--memory", "pairs.tsv")
    assert (recalled.returncode, recalled.stdout.count("\n")) == (0, 1), recalled.stderr
    refused = run("train", "text", "--data", "x", "--out", "y")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "pip install gen-toolkit" in refused.stderr
    writer().save(tmp_path / "model")
    assert "holds no exported model" in run("generate", tmp_path / "model").stderr


def test_the_distribution_holds_what_it_imports(wheel):
    """Not less, which would not run; and all of its whole folders runs without torch."""

    with zipfile.ZipFile(wheel) as archive:
        held = {
            n[:-3].replace("/", ".").removesuffix(".__init__") for n in archive.namelist() if n.endswith(".py")
        }
    code = (
        "import sys; from importlib import import_module\n"
        "sys.modules['torch'] = sys.modules['fcntl'] = None\n"
        "import gen.runtime, tasks.cli, tasks.completion\n"
        "import tasks.text.generate, tasks.text.suggest, tasks.translate.command, tasks.caption.command\n"
        "import tasks.classify.command, tasks.commands.serve\n"
        "for name in sys.argv[1:]: import_module(name)\n"
        "print(*[n for n in sys.modules if n.split('.')[0] in ('gen', 'tasks')])"
    )
    command = [sys.executable, "-c", code]
    needed = subprocess.run(command, capture_output=True, text=True, cwd=torchfree.ROOT)
    assert needed.returncode == 0, needed.stderr
    assert set(needed.stdout.split()) <= held
    done = subprocess.run([*command, *sorted(held)], capture_output=True, text=True, cwd=torchfree.ROOT)
    assert set(done.stdout.split()) == held, done.stderr


def test_the_server_works_where_there_is_no_torch(folders, wheel, tmp_path):
    pytest.importorskip("starlette")
    python = torchfree.make(tmp_path / "venv", wheel, extra="serve")
    command = [
        python,
        "-I",
        "-m",
        "gen",
        "serve",
        folders / "text",
        f"en-de={folders / 'translate'}",
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        url = process.stderr.readline().split()[-1]
        text = json.dumps({"model": "text", "prompt": "abc", "temperature": 0, "max_tokens": 20}).encode()
        with urlopen(f"{url}/v1/completions", text) as answer:
            expected = writer().generate("abc", temperature=0.0, max_new_tokens=20).text
            assert json.load(answer)["choices"][0]["text"] == expected
        with urlopen(f"{url}/translate", urlencode({"q": SENTENCES[1], "target": "de"}).encode()) as answer:
            assert json.load(answer)["translatedText"] == translator()(SENTENCES[1].strip())
        with urlopen(f"{url}/") as page:
            assert b"<title>" in page.read()
        with urlopen(f"{url}/main.js") as module:
            assert module.headers["Content-Type"].startswith("text/javascript")
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_protected_spans_come_through(folders):
    model, exported = translator(), runtime.load(folders / "translate")
    lines, kinds = (
        ["w3 {name} w5", "w5 w9 https://example.org/ä w2", "w1 w2 (a@example.org) w4."],
        ("urls", "emails"),
    )
    for options in ({"protect_only": (*kinds, "placeholders")}, {"protect_only": kinds, "beam": 1}):
        found = [(output.text, output[0].kept) for output in exported.generate(lines, **options)]
        assert found == [(output.text, output[0].kept) for output in model.generate(lines, **options)]
        assert all(
            part in text
            for part, (text, _) in zip(("", "https://example.org/ä", "(a@example.org)"), found, strict=True)
        )


@pytest.mark.parametrize("given", [None, "0"])
def test_onnxruntime_does_not_report_on_its_use_unless_the_user_says_so(given):
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    env |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
    code = "import os, gen.runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (given or "1")
