"""Captioning from files to captions: training, the commands, what is wrong with pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import gen as toolkit
from data.shapes import OPPOSITES, Scene, Thing, draw, scenes, write_shapes
from gen.inputs.tokenizer import CharTokenizer
from gen.metrics.captions import CiderD
from gen.metrics.plots import plot_looks
from gen.models.batch import Batch
from gen.models.decoder import DecoderConfig
from gen.models.encoders import Encoder, Prepared
from gen.models.memory import Memory
from gen.models.model import Model
from gen.search.info import ModelInfo
from gen.training.self_critical import SelfCritical
from tasks.caption.task import Caption
from tasks.cli import main


def words(text):
    return text.split()


SMALL = words(
    "--memory-size 64 --embedding-size 32 --hidden-size 64 --num-layers 2 --dropout 0.05 --embedding-dropout 0 "
    "--label-smoothing 0 --ema 0.98 --validations 2 --batch-tokens 500 --augment 0 --device cpu"
)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Drawn pictures, and a caption model trained on them; the cache of features is theirs."""
    folder = tmp_path_factory.mktemp("shapes")
    patch = pytest.MonkeyPatch()
    patch.setenv("GEN_CACHE", str(folder / "cache"))
    try:
        torch.manual_seed(0)
        write_shapes(folder / "pictures", training=240, held_out=40)
        run = folder / "run"
        command = ["train", "caption", "--images", str(folder / "pictures"), "--out", str(run)]
        assert main([*command, "--budget", "600 steps", "--learning-rate", "0.007", *SMALL]) == 0
    finally:
        patch.undo()
    return folder


@pytest.fixture(autouse=True)
def _cache(shapes, monkeypatch):
    """Features are looked up where they were made."""
    monkeypatch.setenv("GEN_CACHE", str(shapes / "cache"))


@pytest.fixture(scope="session")
def model(shapes):
    return toolkit.load(shapes / "run")


def pictures(shapes, split="val"):
    return sorted((shapes / "pictures").glob(f"{split}-*.png"))


# -- learning --------------------------------------------------------------------------------------------


def test_shapes_are_learned(shapes, model):
    """Colours and relations on training pictures, far above what a model without eyes could say."""
    lines = [json.loads(line) for line in (shapes / "pictures" / "captions.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"][:60]
    captions = [
        h[0].text for h in model.generate([shapes / "pictures" / line["image"] for line in train], temperature=0)
    ]
    colours = 0
    for text, line in zip(captions, train, strict=True):
        first, second = (c.split()[2] for c in line["captions"][:2])
        colours += first in text.split() and second in text.split()
    assert colours > 0.4 * len(train)  # two of eight colours by chance: one in 28


def test_two_pictures_get_two_captions(shapes, model):
    captions = [h[0].text for h in model.generate(pictures(shapes))]
    assert len(set(captions)) > 0.6 * len(captions)


def test_captions_do_not_depend_on_the_batch(shapes, model):
    names = pictures(shapes)[:9]
    items = [model.encoder.preprocessing.pixels(name) for name in names]
    with torch.no_grad():
        features = [model.encoder.features(torch.from_numpy(item[None]))[0].float().numpy() for item in items]
    together = [h[0].token_ids for h in model.generate(features)]
    assert together == [model.generate([f])[0][0].token_ids for f in features]
    assert together[::-1] == [h[0].token_ids for h in model.generate(features[::-1])]


def test_a_picture_is_a_path_bytes_or_an_image(shapes, model):
    path = pictures(shapes)[0]
    said = {model.generate([item])[0][0].text for item in (path, str(path), path.read_bytes(), Image.open(path))}
    assert len(said) == 1


def test_attention_rows_sum_to_one(shapes, model):
    hypothesis = model.generate(pictures(shapes)[0], attention=True)[0]
    assert hypothesis.attention.shape == (len(hypothesis.token_ids), 49)
    np.testing.assert_allclose(hypothesis.attention.sum(1), 1, atol=1e-5)


class Vectors(Encoder):
    """Items are vectors, and a memory of one place."""

    memory_size = 4

    def prepare(self, items):
        return Prepared({"vector": torch.from_numpy(np.stack(items))}, [""] * len(items))

    def forward(self, source):
        vectors = source["vector"]
        return Memory(vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool), vectors)


@pytest.mark.parametrize(("baseline", "samples", "length"), [("mean", 8, 5), ("greedy", 16, 5)])
def test_self_critical_training_raises_the_reward(baseline, samples, length):
    """Reward: how many letters are the item's own. What is sampled gets better."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer.train(["abcd"])
    config = DecoderConfig(len(tokenizer), embedding_size=8, hidden_size=24, attention="dot")
    model = Model(Vectors(), config, tokenizer, ModelInfo())
    wanted = "abcd"

    def reward(hypothesis, item):
        return sum(c == wanted[item] for c in hypothesis.text) / length

    objective = SelfCritical(reward, samples=samples, baseline=baseline, max_new_tokens=length)
    batch = Batch(
        {"vector": torch.eye(4)}, torch.zeros(4, 0).long(), torch.zeros(4, 0).long(), rows=torch.arange(4)
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.01)

    def mean_reward():
        drawn = model.generate(list(np.eye(4, dtype=np.float32)), num_samples=50, max_new_tokens=length, seed=9)
        return np.mean([[reward(h, i) for h in several] for i, several in enumerate(drawn)])

    before = mean_reward()
    for _ in range(100):
        optimizer.zero_grad()
        output = objective(model, batch)
        (output.loss_sum / output.num_tokens).backward()
        optimizer.step()
    assert mean_reward() > max(0.6, before + 0.3)


def test_the_self_critical_loss_is_the_policy_gradient():
    """Against the definition: Σ advantage · −log p, the log-probabilities those of the samples themselves, which
    were drawn without dropout."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer.train(["abcd"])
    config = DecoderConfig(len(tokenizer), embedding_size=8, hidden_size=8, attention="dot", dropout=0.5)
    model = Model(Vectors(), config, tokenizer, ModelInfo()).train()
    with torch.no_grad():  # what is never sampled has no probability, or scores would count it
        model.decoder.output.bias[[tokenizer.pad_id, tokenizer.bos_id, tokenizer.unk_id]] = -1e4
    batch = Batch(
        {"vector": torch.eye(4)[:2]}, torch.zeros(2, 0).long(), torch.zeros(2, 0).long(), rows=torch.arange(2)
    )
    seen = []

    def reward(hypothesis, item):
        seen.append(hypothesis)
        return float(len(hypothesis.token_ids))

    loss = objective_loss = SelfCritical(reward, samples=3, max_new_tokens=6)(model, batch)
    rewards = np.array([len(h.token_ids) for h in seen], float).reshape(2, 3)
    advantages = rewards - (rewards.sum(1, keepdims=True) - rewards) / 2
    wanted = -sum(a * h.score for a, h in zip(advantages.flatten(), seen, strict=True))
    assert float(loss.loss_sum.detach()) == pytest.approx(wanted, rel=1e-4)
    assert model.training
    assert model.decoder.lower.training
    assert objective_loss.num_tokens == sum(len(h.log_probs) for h in seen)


def test_a_reward_that_counts_the_end():
    """Without its end a caption that stops early would score as well as a whole one."""
    whole, cut = words("a dog runs </s>"), words("a dog runs")
    cider = CiderD([[whole], [["a", "cat", "sits", "</s>"]]])
    assert cider.score(whole, 0) > cider.score(cut, 0)


# -- commands --------------------------------------------------------------------------------------------


def test_caption_prints_a_line_a_picture(gen, shapes):
    names = pictures(shapes)[:5]
    status, out, _ = gen("caption", shapes / "run", *names)
    assert status == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert [name for name, _ in lines] == [str(n) for n in names]
    assert all(text for _, text in lines)
    assert gen("caption", shapes / "run", *names, "--batch-size", "2")[1] == out


def test_folders_json_csv_and_sidecars(gen, shapes, tmp_path):
    for i in range(3):
        draw(next(scenes(1, seed=i)), i).save(tmp_path / f"{i}.png")
    status, out, _ = gen("caption", shapes / "run", tmp_path, "--json", "--num-captions", "3")
    assert status == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [len(r["captions"]) for r in records] == [3, 3, 3]
    assert all(len({found["text"] for found in r["captions"]}) == 3 for r in records)
    _, out, _ = gen("caption", shapes / "run", tmp_path, "--csv", "--sidecar")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(tmp_path / f"{i}.txt").read_text().strip() for i in range(3)] == [row["caption"] for row in rows]


def test_samples_differ_and_repeat(gen, shapes):
    name = pictures(shapes)[0]
    command = (
        "caption",
        shapes / "run",
        name,
        "--num-captions",
        "6",
        "--sample",
        "--seed",
        "3",
        "--temperature",
        "2",
    )
    _, out, _ = gen(*command)
    assert len(set(out.splitlines())) > 2
    assert gen(*command)[1] == out


def test_paths_from_standard_input(gen, shapes, monkeypatch, tmp_path):
    names = pictures(shapes)[:2]
    (tmp_path / "list").write_text("".join(f"{n}\n" for n in names))
    before = os.dup(0)
    with (tmp_path / "list").open() as file:
        os.dup2(file.fileno(), 0)
        try:
            status, out, err = gen("caption", shapes / "run", "--stdin")
        finally:
            os.dup2(before, 0)
            os.close(before)
    assert status == 0, err
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(n) for n in names]


def test_a_gallery(gen, shapes, tmp_path):
    page = tmp_path / "page.html"
    assert gen("caption", shapes / "run", *pictures(shapes)[:3], "--show", page)[0] == 0
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 3


def test_pictures_that_cannot_be_used_do_not_stop_the_others(gen, shapes, tmp_path):
    good = pictures(shapes)[0]
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:500])
    (tmp_path / "text.jpg").write_text("no picture")
    names = [tmp_path / "cut.png", good, tmp_path / "text.jpg", tmp_path / "gone.jpg"]
    status, out, err = gen("caption", shapes / "run", *names)
    assert status == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(good)]
    assert all(name in err for name in ("cut.png", "text.jpg", "gone.jpg", "3 of 4 pictures"))
    assert "Traceback" not in err
    assert gen("caption", shapes / "run", tmp_path / "gone.jpg")[0] == 2
    status, out, _ = gen("caption", shapes / "run", *names, "--json")
    assert [("error" in json.loads(line)) for line in out.splitlines()] == [True, False, True, True]


def test_texts_beside_pictures(gen, shapes, tmp_path):
    """One picture's text never overwrites another's, and a folder without room for it ends nothing."""
    for name in ("a.png", "b.png"):
        shutil.copy(pictures(shapes)[0], tmp_path / name)
    draw(next(scenes(1)), seed=4).save(tmp_path / "a.jpg")
    (tmp_path / "b.txt").mkdir()
    names = [tmp_path / name for name in ("a.jpg", "a.png", "b.png")]
    status, out, err = gen("caption", shapes / "run", *names, "--sidecar")
    assert status == 1
    lines = [line.split("\t")[1] for line in out.splitlines()]
    assert (tmp_path / "a.txt").read_text() == lines[0] + "\n"
    assert "a.txt already has the caption of another picture" in err
    assert "b.txt: is no file of its own" in err
    assert "could not be used" not in err
    (tmp_path / "a.txt").write_text("my own words")
    status, _, err = gen("caption", shapes / "run", names[0], "--sidecar")
    assert status == 1
    assert "a.txt: exists; --overwrite replaces it" in err
    assert (tmp_path / "a.txt").read_text() == "my own words"
    assert gen("caption", shapes / "run", names[0], "--sidecar", "--overwrite")[0] == 0
    assert (tmp_path / "a.txt").read_text() == lines[0] + "\n"


def test_scoring_goes_on_without_pictures_that_cannot_be_used(gen, shapes, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"")
    good = f"{pictures(shapes)[0]}\ta red circle\n"
    bad = f"{tmp_path / 'cut.png'}\ta red circle\n"
    for lines, expected in ((good + bad + good, 1), (good, 0), (bad, 2)):
        (tmp_path / "pairs.tsv").write_text(lines)
        status, out, err = gen("score", shapes / "run", tmp_path / "pairs.tsv")
        assert status == expected
        assert out.count("\n") == lines.count(good)
        assert err.count("cut.png") == lines.count(bad)


def test_names_that_are_not_utf8(gen, shapes, tmp_path):
    """As old archives have them."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    shutil.copy(pictures(shapes)[0], name)
    status, _, err = gen("caption", shapes / "run", name, "-o", tmp_path / "out.txt")
    assert status == 0, err
    assert (tmp_path / "out.txt").read_bytes().startswith(os.fsencode(name) + b"\t")
    assert gen("caption", shapes / "run", name, "--show", tmp_path / "page.html", "-o", tmp_path / "o")[0] == 0
    assert "caf\N{REPLACEMENT CHARACTER}.png" in (tmp_path / "page.html").read_text()


def test_no_picture_can_be_used(gen, tmp_path):
    (tmp_path / "pictures").mkdir()
    rows = []
    for i in range(12):
        (tmp_path / "pictures" / f"{i}.jpg").write_bytes(b"ftypheic")
        rows.append({"image": f"{i}.jpg", "captions": ["a cat"], "split": "val" if i < 4 else "train"})
    (tmp_path / "pictures" / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = gen("train", "caption", "--images", tmp_path / "pictures", "--out", tmp_path / "out", *SMALL)
    assert status == 2
    assert err.count("left out: ") == 12
    assert "no pictures are left to train on" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name pictures"),
        (("--stdin", "a.jpg"), "exclude each other"),
        (("a.jpg", "--json", "--csv"), "--json and --csv exclude each other"),
        (("a.jpg", "--sample", "--beam", "2"), "--sample and --beam exclude each other"),
        (("a.jpg", "--num-captions", "0"), "--num-captions must be at least 1"),
        (("a.jpg", "--show", "page.txt"), "name an .html file"),
        (("a.jpg", "--show", "nowhere/page.html"), "there is no folder nowhere"),
        (("a.jpg", "--beam", "0"), "--beam must be between 1 and 1,000"),
        (("a.jpg", "--num-caption", "2"), "did you mean --num-captions"),
    ],
)
def test_wrong_options(gen, shapes, words, message):
    status, out, err = gen("caption", shapes / "run", *words)
    assert (status, out) == (2, "")
    assert message in err


def test_an_empty_folder_and_another_task(gen, shapes, tmp_path, trained):
    (tmp_path / "empty").mkdir()
    status, _, err = gen("caption", shapes / "run", tmp_path / "empty")
    assert status == 2
    assert "holds no picture" in err
    status, out, err = gen("caption", shapes / "run", tmp_path / "empty", pictures(shapes)[0])
    assert status == 1
    assert "holds no picture" in err
    assert len(out.splitlines()) == 1
    status, _, err = gen("caption", trained, "a.jpg")
    assert status == 2
    assert "is a text model" in err
    assert "gen generate" in err
    status, _, err = gen("generate", shapes / "run")
    assert "gen caption" in err


def test_evaluate(gen, shapes):
    status, out, err = gen("evaluate", shapes / "run", "--json")
    assert status == 0, err
    held_out = json.loads(out)
    assert held_out["pictures"] == 40
    assert held_out["cider"] > 50
    folder = shapes / "pictures"
    status, out, _ = gen("evaluate", shapes / "run", "--images", folder, "--split", "valid", "--json")
    assert json.loads(out) == held_out
    status, out, _ = gen("evaluate", shapes / "run", "--split", "valid", "--json")
    assert json.loads(out) == held_out
    status, _, err = gen("evaluate", shapes / "run", "--split", "test")
    assert status == 2
    assert "--split test: the training left no record of these" in err
    assert "CIDEr-D" in gen("evaluate", shapes / "run")[1]
    rows = [{"image": sorted(p.name for p in folder.glob("*.png"))[0], "caption": "a red square"}]
    (folder.parent / "some.jsonl").write_text(
        "\n".join(map(json.dumps, [*rows, {"image": "gone.png", "caption": "x"}]))
    )
    some = ("--images", folder, "--captions", folder.parent / "some.jsonl")
    status, _, err = gen("evaluate", shapes / "run", *some)
    assert status == 1
    assert "gone.png: is not in" in err
    status, _, err = gen("evaluate", shapes / "run", "--src", "a")
    assert status == 2
    assert "unknown option --src" in err


def test_score(gen, shapes, tmp_path):
    """What is in the picture is more probable than what is not."""
    scene = Scene(Thing("large", "red", "square"), "above", Thing("small", "blue", "circle"))
    draw(scene, 5).save(tmp_path / "a.png")
    right = scene.captions()[0]
    wrong = Scene(Thing("large", "green", "square"), "above", Thing("small", "yellow", "circle")).captions()[0]
    (tmp_path / "pairs.tsv").write_text(f"{tmp_path}/a.png\t{right}\n{tmp_path}/a.png\t{wrong}\n")
    status, out, err = gen("score", shapes / "run", tmp_path / "pairs.tsv")
    assert status == 0, err
    first, second = (float(line.split("\t")[0]) for line in out.splitlines())
    assert first > second


def test_a_plot_of_no_words(tmp_path):
    plot_looks(np.zeros((8, 8, 3), np.uint8), np.zeros((0, 49)), [], tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_plot_attention(gen, shapes, tmp_path):
    status, _, err = gen("plot", "attention", shapes / "run", pictures(shapes)[0], "-o", tmp_path / "a.png")
    assert status == 0, err
    assert Image.open(tmp_path / "a.png").size[0] > 600
    assert (shapes / "run" / "plots" / "attention.png").exists()
    status, _, err = gen("plot", "attention", shapes / "run", "--text", "a dog")
    assert status == 2
    assert "a dog: no such file" in err


def test_self_critical_from_a_run(gen, shapes, tmp_path):
    command = ["train", "caption", "--images", shapes / "pictures", "--budget", "4 steps", "--validations", "1"]
    own = ["--self-critical", "--init-from", shapes / "run", "--pictures", "8", "--samples", "3"]
    status, _, err = gen(*command, *own, "--out", tmp_path / "own", "--device", "cpu")
    assert status == 0, err
    assert Model.load(tmp_path / "own").decoder.config == Model.load(shapes / "run").decoder.config
    status, _, err = gen(*command, "--self-critical", "--hidden-size", "9", "--out", tmp_path / "other")
    assert status == 2
    assert "name its run with --init-from" in err
    status, _, err = gen(*command, *own, "--hidden-size", "9", "--out", tmp_path / "other")
    assert "--hidden-size: cannot be set with --init-from, which takes the model's own" in err
    assert not (tmp_path / "other").exists()


def test_characters_are_not_words(gen, shapes, tmp_path):
    """Captions of 50 letters are whole, and may have the same three letters twice."""
    command = ["train", "caption", "--images", shapes / "pictures", "--level", "char", "--validations", "1"]
    status, _, err = gen(*command, "--budget", "4 steps", "--out", tmp_path / "begun", *SMALL)
    assert status == 0, err
    assert "no_repeat_ngram" not in Model.load(tmp_path / "begun").info.search
    model = Model.load(tmp_path / "begun")
    with torch.no_grad():  # it never ends
        model.decoder.output.bias[model.tokenizer.eos_id] = -1e4
    assert len(model(pictures(shapes)[0])) > 200
    task = Caption.from_options(images=str(shapes / "pictures"), level="char", max_length=20)
    task.tokenizers(task.split)
    assert (task.corpus.cut, task.corpus.captions.lengths.max() > 50) == (0, True)


def test_finetuning_and_views(gen, shapes, tmp_path):
    command = ["train", "caption", "--images", shapes / "pictures", "--budget", "2 steps", *SMALL]
    status, _, err = gen(
        *command, "--finetune", "2", "--augment", "1", "--batch-tokens", "60", "--out", tmp_path / "f"
    )
    assert status == 0, err
    tuned = Model.load(tmp_path / "f" / "last").encoder.trunk.state_dict()
    frozen = Model.load(shapes / "run").encoder.trunk.state_dict()
    assert any(not torch.equal(tuned[n], frozen[n]) for n in frozen)
    sized = {"--memory-size", "--embedding-size", "--hidden-size", "--num-layers"}
    kept = [word for i, word in enumerate(command) if not {str(command[i - 1]), word} & sized]
    more = (
        "--init-from",
        shapes / "run",
        "--finetune",
        "2",
        "--batch-tokens",
        "60",
        "--freeze",
        "encoder.trunk.*",
    )
    status, _, err = gen(*kept, *more, "--out", tmp_path / "g")
    assert status == 0, err
    again = Model.load(tmp_path / "g" / "last").encoder.trunk.named_parameters()
    assert all(torch.equal(weight, frozen[name]) for name, weight in again)


def test_bad_pictures_in_training_are_named(gen, shapes, tmp_path):
    folder = tmp_path / "few"
    write_shapes(folder, training=12, held_out=3)
    (folder / "train-00003.png").write_bytes(b"broken")
    status, out, err = gen(
        "train", "caption", "--images", folder, "--out", tmp_path / "r", "--budget", "1 steps", *SMALL
    )
    assert status == 0, err
    assert "11 pictures, 33 captions" in out
    assert "train-00003.png" in out.replace("\n", "")


def test_train_errors(gen, tmp_path):
    for words, message in [
        ((), "--images: name the folder"),
        (("--images", tmp_path, "--backbone", "resnet5"), "name the captions file"),
        (("--images", tmp_path, "--augment", "-1"), "--augment must be between"),
        (("--images", tmp_path, "--finetune", "-1"), "--finetune must be 0 or more"),
        (("--images", tmp_path, "--coverage", "-1"), "--coverage must be 0 or more"),
        (("--images", tmp_path, "--scheduled-sampling", "2"), "--scheduled-sampling must be between"),
    ]:
        status, _, err = gen("train", "caption", "--out", tmp_path / "x", *words)
        assert status == 2
        assert message in err
    assert not (tmp_path / "x").exists()


# -- options of training that every task has -------------------------------------------------------------


def teach(model, **options):
    from gen.models.batch import sequence_batch

    t = model.tokenizer
    texts = [t.encode_array(text) for text in ("abca", "bd")]
    return model.loss(sequence_batch({"vector": torch.eye(4)[:2]}, texts, t.bos_id, t.eos_id, t.pad_id), **options)


def vectors_model():
    torch.manual_seed(0)
    tokenizer = CharTokenizer.train(["abcd"])
    config = DecoderConfig(len(tokenizer), embedding_size=8, hidden_size=8, attention="dot")
    return Model(Vectors(), config, tokenizer, ModelInfo()).eval()


def test_coverage_penalty():
    """A memory of one place is looked at in every step: 5 and 3 times, where once is wanted."""
    model = vectors_model()
    plain, more = teach(model), teach(model, coverage=0.5)
    assert (more.loss_sum - plain.loss_sum).item() == pytest.approx(0.5 * ((5 - 1) ** 2 + (3 - 1) ** 2), rel=1e-4)


def test_scheduled_sampling_leaves_what_is_not_finite_to_the_step():
    model = vectors_model()
    with torch.no_grad():
        model.decoder.output.bias[5] = float("nan")
    assert not teach(model, scheduled_sampling=1.0).loss_sum.isfinite()


def test_scheduled_sampling_feeds_back_what_the_model_says():
    model = vectors_model()
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    teach(model, scheduled_sampling=1.0)
    given, fed = seen
    assert torch.equal(given[:, 0], fed[:, 0])  # BOS stays
    real = given != model.tokenizer.pad_id
    assert torch.equal(given[~real], fed[~real])
    assert not torch.equal(given, fed)
    assert (fed[real] >= 3).sum() == real.sum() - 2  # nothing but BOS is special


# -- the drawn pictures ----------------------------------------------------------------------------------


def test_held_out_combinations_are_never_in_training():
    def pairs(some):
        return {frozenset([(t.colour, t.shape) for t in (s.first, s.second)]) for s in some}

    train, held_out = pairs(scenes(3000)), pairs(scenes(300, held_out=True))
    assert not train & held_out
    assert {thing for pair in held_out for thing in pair} <= {thing for pair in train for thing in pair}


def test_scenes_are_as_their_captions_say():
    for i, scene in enumerate(scenes(20)):
        array = np.asarray(draw(scene, i), int)
        at = []
        for thing in (scene.first, scene.second):
            from data.shapes import COLOURS

            near = np.abs(array - np.array(COLOURS[thing.colour])).sum(-1) < 12
            assert near.sum() > 100
            at.append(np.argwhere(near).mean(0))  # row, column
        (y1, x1), (y2, x2) = at
        seen = {"above": y1 < y2, "below": y1 > y2, "left of": x1 < x2, "right of": x1 > x2}
        assert seen[scene.relation]
        assert not seen[OPPOSITES[scene.relation]]


@pytest.mark.parametrize("way", ["scheduled sampling", "self-critical"])
def test_a_pass_without_gradients_leaves_gradients_to_the_next(way):
    """Autocast keeps the weights that it has cast; those of a pass without gradients must not be used again."""
    model = vectors_model().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if way == "self-critical":
            nothing = torch.zeros(4, 0).long()
            batch = Batch({"vector": torch.eye(4)}, nothing, nothing, rows=torch.arange(4))
            loss = SelfCritical(lambda h, i: float(len(h.token_ids)), max_new_tokens=4)(model, batch)
        else:
            loss = teach(model, scheduled_sampling=0.5)
    loss.loss_sum.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.decoder.lower.parameters())
    assert model.decoder.attention.query.weight.grad is not None
