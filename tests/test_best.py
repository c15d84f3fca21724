"""Which weights are best: ties, `--best`, metrics that cannot judge; BLEU and CIDEr-D by script; NaN weights."""

from __future__ import annotations

import math

import pytest
import torch

import gen as toolkit
from gen import runtime
from gen.base.errors import UserError
from gen.datasets.batches import TokenFile
from gen.datasets.streams import StreamBatches
from gen.inputs.ptb import ptb_tokens
from gen.metrics.captions import caption_metrics
from gen.metrics.scores import bleu_tokenizer, paired_bootstrap, share_of_short, translation_metrics
from gen.models.export import export
from gen.models.model import Model
from gen.search import Hypothesis
from gen.training.averages import Averages
from gen.training.config import config_class
from gen.training.interfaces import Evaluation, Metric, is_better
from gen.training.options import TrainOptions
from gen.training.task import Task
from gen.training.trainer import Trainer
from gen.training.validation import broken_tie
from tasks.caption.batches import caption_reward
from tasks.commands.export import quantization_check
from tasks.translate.task import Translate
from tests.conftest import TEXT, make_model
from tests.test_translate import SMALL, write_pairs

BLEU, CHRF, LOSS = Metric("bleu", higher_is_better=True), Metric("chrf", higher_is_better=True), Metric("loss")


def test_ties_are_broken_in_order_and_nan_is_worst():
    metrics = [BLEU, CHRF, LOSS]
    best = {"bleu": 0.0, "chrf": 5.0, "loss": 2.0}
    assert is_better(metrics, {"bleu": 0.1, "chrf": 0.0, "loss": 9.0}, best)
    assert is_better(metrics, {"bleu": 0.0, "chrf": 6.0, "loss": 9.0}, best)
    assert is_better(metrics, {"bleu": 0.0, "chrf": 5.0, "loss": 1.0}, best)
    assert not is_better(metrics, best, best)
    assert not is_better(metrics, {"bleu": math.nan, "chrf": 9.0, "loss": 0.0}, best)
    assert is_better(metrics, best, {"bleu": math.nan, "chrf": 9.0, "loss": 0.0})
    assert is_better(metrics, {"bleu": 1.0, "chrf": 1.0, "loss": 1.0}, {"bleu": 0.5})  # from an older version


class Scripted(Task):
    """A task whose validations give the figures of a list."""

    metric, further_metrics = BLEU, (CHRF,)

    def __init__(self, tokens, figures):
        super().__init__()
        self.batches = StreamBatches(tokens, 4, 8, 1, seed=1)
        self.figures, self.said = iter(figures), []
        self.say = self.said.append

    def validate(self, model, *, quick=False):
        names = ("bleu", "chrf", "loss")
        return Evaluation(
            dict.fromkeys(names, 0.0) if quick else dict(zip(names, next(self.figures), strict=True))
        )

    def sample(self, model, evaluation):
        return ""


@pytest.fixture
def train(tmp_path, tokenizer):
    """Trains for ten steps with nine validations, whose figures are given."""
    path = tmp_path / "tokens.bin"
    tokenizer.encode_array(TEXT * 20).astype("uint16").tofile(path)

    def run(figures, folder="run", watch=lambda event, model: None, **options):
        options = {"budget": "10 steps", "validations": 10, "precision": "fp32", **options}
        task = Scripted(TokenFile(path, "uint16"), figures)
        model = make_model(tokenizer).train()
        trainer = Trainer(
            model,
            task,
            TrainOptions(**options),
            out=tmp_path / folder,
            config={},
            callbacks=[lambda event: watch(event, model)],
        )
        return trainer, trainer.fit()

    return run


def test_the_best_weights_are_those_that_the_next_metric_prefers(train):
    chrf = [1.0, 3.0, 2.0, 3.0, 3.0, 5.0, 4.0, 1.0, 5.0]
    trainer, run = train([(0.0, value, 2.0) for value in chrf])
    assert run.metrics["chrf"] == 5.0
    assert run.metrics["step"] == [r["step"] for r in run.history if "validation" in r][5]
    assert trainer.now.best_figures == {"bleu": 0.0, "chrf": 5.0, "loss": 2.0}
    (said,) = trainer.task.said
    assert said.startswith("Note: bleu was 0 at all 9 validations and cannot tell weights apart; chrf decided")


def test_patience_sees_the_ties_that_are_broken(train):
    losses = [9.0, 8.0, 7.0, 6.0, 5.0, 5.0, 5.0, 5.0]
    trainer, run = train([(0.0, 0.0, loss) for loss in losses], patience=3)
    assert trainer.now.done
    assert run.metrics["loss"] == 5.0
    assert run.metrics["step"] == [r["step"] for r in run.history if "validation" in r][4]
    assert "bleu was 0 and chrf was 0 at all 8 validations and cannot tell weights apart" in trainer.task.said[0]
    assert "; loss decided" in trainer.task.said[0]
    trainer, run = train([(float(i), 0.0, 1.0) for i in range(10)], "other")
    assert run.metrics["step"] == 10
    assert trainer.task.said == []


def test_a_state_of_an_older_version_is_resumed(train):
    """It knows one figure of the best weights, and one number per averaged ones."""
    trainer, _ = train([(0.5, 1.0, 1.0)] * 5, budget="5 steps", validations=5)
    path = trainer.folder.path
    state = torch.load(path / "last" / "training.pt", weights_only=True)
    assert state["progress"].pop("best_figures")
    state["progress"].update(done=False, step=2, next_validation=0.5)
    torch.save(state, path / "last" / "training.pt")
    trainer, run = train([(0.5, 9.0, 0.0), (0.6, 0.0, 2.0), (0.5, 9.0, 0.0)], budget="5 steps", validations=5)
    assert trainer.now.best == 0.6
    assert run.metrics["bleu"] == 0.6


def test_averages_of_an_older_state(model):
    averages = Averages(model, count=2, best=True)
    weights = [torch.ones_like(p) for p in model.parameters()]
    averages.load_state_dict({"moving": None, "kept": [(0.0, weights)]}, model)
    for rank in ((0.0, 1.0), (0.0, 3.0), (0.0, 2.0)):
        averages.validated(weights, rank)
    assert [rank for rank, _ in averages.kept] == [(0.0, 3.0), (0.0, 2.0)]


def test_a_metric_that_varies_is_not_reported():
    def records(*figures):
        each = [{"step": 10 * i, "validation": {"bleu": a, "loss": b}} for i, (a, b) in enumerate(figures)]
        return [{"step": 1}, *each]

    assert broken_tie([BLEU, LOSS], records((0.0, 1.0), (0.1, 1.0))) is None
    assert broken_tie([BLEU, LOSS], records((0.0, 1.0))) is None
    assert broken_tie([BLEU, LOSS], records((0.0, 1.0), (0.0, 2.0)))[0] == "loss"
    assert broken_tie([BLEU, Metric("none"), LOSS], records((0.0, 1.0), (0.0, 2.0)))[0] == "loss"


def test_best_names_the_metric(tmp_path, gen):
    pairs = [("ab", "ba"), ("abc", "cba"), ("bc", "cb"), ("ca", "ac")] * 10
    train = write_pairs(tmp_path, "train", pairs)
    command = ("train", "translate", "--train", *train, "--budget", "4 steps", "--validations", "2", *SMALL)
    command = (*command, "--out", tmp_path / "run")
    status, _, err = gen(*command, "--best", "bloe")
    assert status == 2
    assert "--best bloe: must be one of bleu, chrf, exact, loss" in err
    status, out, err = gen(*command)
    assert status == 0, err
    assert out.count("Note: BLEU was 0 at all") == out.count("chosen by") == 1
    status, out, err = gen(*command[:-1], tmp_path / "loss", "--best", "loss")
    assert status == 0, err
    assert "chosen by" not in out
    run = toolkit.Run(tmp_path / "loss")
    assert run.metrics["loss"] == pytest.approx(
        min(r["validation"]["loss"] for r in run.history if "validation" in r), abs=1e-4
    )
    assert run.config["bleu_tokenizer"] == "13a"
    assert "spaces between words" in run.reasons["bleu_tokenizer"]


@pytest.mark.parametrize(
    ("targets", "level", "best"),
    [
        (["кошка", "собака", "May 3"], "char", "chrf"),
        (["猫", "一只狗", "小鸟"], "char", "chrf"),
        (["a dog runs over grass", "two cats sleep here", "three"], "word", None),
        (["一只狗在草地上跑", "猫在睡觉吗"], "char", None),
    ],
)
def test_where_most_targets_are_too_short_for_bleu_chrf_decides(tmp_path, gen, targets, level, best):
    """BLEU would prefer weights that write long nonsense to those that are always right."""
    train = write_pairs(tmp_path, "train", [(f"w{i}", text) for i, text in enumerate(targets)] * 15)
    command = ("--train", *train, "--level", level, "--budget", "2 steps", "--validations", "1", *SMALL)
    status, _, err = gen("train", "translate", *command, "--min-frequency", "1", "--out", tmp_path / "run")
    assert status == 0, err
    run = toolkit.Run(tmp_path / "run")
    assert run.config["best"] == best
    assert ("fewer than four words" in run.reasons.get("best", "")) == (best is not None)


def test_bleu_of_short_targets_counts_what_is_wrong():
    right = [f"слово{i}" for i in range(30)]
    wrong = [*right[:10], *["а . а , а"] * 20]
    all_right, mostly_wrong = (translation_metrics(outputs, right) for outputs in (right, wrong))
    assert all_right["bleu"] == 0 < mostly_wrong["bleu"]
    assert all_right["chrf"] > mostly_wrong["chrf"]
    assert share_of_short(right) == 1
    assert share_of_short(["一只狗在跑"]) == 1
    assert share_of_short(["一只狗在跑"], "zh") == share_of_short([]) == 0


def test_each_task_names_its_metrics():
    names = {"translate": ["bleu", "chrf", "exact", "loss"], "text": ["loss"]}
    for name, expected in names.items():
        assert [m.name for m in toolkit.training.registry.find_task(name)().metrics] == expected
    config = config_class(Translate)(train=TrainOptions(best="exact"))
    assert [m.name for m in Translate(config).metrics] == ["exact", "bleu", "chrf", "loss"]


# -- guards --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "refused"), [(60.0, True), (79.9, False)])
def test_int8_is_judged_by_the_next_metric(monkeypatch, capsys, after, refused):
    chrf = iter([80.0, after])
    monkeypatch.setattr("gen.runtime.load", lambda path: path)
    monkeypatch.setattr(Translate, "measure", lambda *_: (0.0, "x"))
    monkeypatch.setattr(
        Translate, "evaluate", lambda *_: Evaluation({"bleu": 0.0, "chrf": next(chrf), "exact": 0.5})
    )
    if refused:
        with pytest.raises(UserError, match="chrF 80 in float32, 60 in int8"):
            quantization_check(Translate(), [1], "a", "b", None)
    else:
        assert "chrF, int8" in quantization_check(Translate(), [1], "a", "b", None)
    assert "BLEU is 0 in float32 and in int8, which says nothing: judged by chrF" in capsys.readouterr().err


def test_int8_is_judged_by_the_metric_that_chose_the_weights(monkeypatch):
    """BLEU of short targets falls where nonsense becomes short."""
    figures = iter([{"bleu": 8.0, "chrf": 90.0, "exact": 0.5}, {"bleu": 0.0, "chrf": 90.0, "exact": 0.5}] * 3)
    monkeypatch.setattr("gen.runtime.load", lambda path: path)
    monkeypatch.setattr(Translate, "evaluate", lambda *_: Evaluation(next(figures), count=1))
    assert quantization_check(Translate(), [1], "a", "b", None, best="chrf")["chrF, int8"] == 90
    with pytest.raises(UserError, match="BLEU 8 in float32, 0 in int8"):
        quantization_check(Translate(), [1], "a", "b", None, best="bleu")


def test_int8_without_any_figure_says_so(monkeypatch, capsys):
    monkeypatch.setattr("gen.runtime.load", lambda path: path)
    monkeypatch.setattr(Translate, "measure", lambda *_: (0.0, "x"))
    monkeypatch.setattr(Translate, "evaluate", lambda *_: Evaluation({"chrf": 0.0, "exact": 0.0}))
    quantization_check(Translate(), [1], "a", "b", None)
    assert "the loss in quality is unknown" in capsys.readouterr().err


def test_equal_scores_are_never_significant():
    references = ["12 May", "3 June", "one", "two"] * 5
    good, bad = references, [text[::-1] for text in references]
    found = paired_bootstrap(good, bad, references)
    assert found["bleu"] == 1.0  # 0 and 0
    assert found["chrf"] < 0.05


# -- scripts -------------------------------------------------------------------------------------------

WRITTEN = {
    "13a": ["a dog runs", "собака бежит", "कुत्ता दौड़ता है", "كلب يجري", "σκύλος τρέχει", "", "12 + 3"],
    "zh": ["一只狗在跑", "3 只狗 (dog) 在草地上跑"],
    "char": ["หมาวิ่ง", "ໝາແລ່ນ", "ឆ្កែរត់", "ခွေးပြေး", "ཁྱི་རྒྱུག"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRITTEN.items() for text in texts])
def test_bleu_tokenizer_follows_the_script(name, text):
    assert bleu_tokenizer([text, text])[0] == name


@pytest.mark.parametrize(
    ("text", "module", "name"), [("犬が走っている", "MeCab", "ja-mecab"), ("개가 달린다", "mecab_ko", "ko-mecab")]
)
def test_mecab_where_it_is_installed(monkeypatch, text, module, name):
    monkeypatch.setattr("gen.metrics.scores.find_spec", lambda asked: None)
    assert bleu_tokenizer([text])[0] == "char"
    with pytest.raises(UserError, match=rf"bleu_tokenizer {name}: needs sacrebleu\["):
        translation_metrics([text], [text], tokenize=name)
    monkeypatch.setattr("gen.metrics.scores.find_spec", lambda asked: asked == module or None)
    assert bleu_tokenizer([text])[0] == name


def test_unspaced_translations_get_a_score():
    right, near = "一只棕色的狗在草地上跑", "一只棕色的狗在雪地上跑"
    scores = [translation_metrics([text], [right], tokenize="zh")["bleu"] for text in (right, near)]
    assert 100 == scores[0] > scores[1] > 20
    assert translation_metrics([near], [right])["bleu"] == 0
    with pytest.raises(UserError, match="must be one of 13a, "):
        translation_metrics([near], [right], tokenize="flores200")


@pytest.mark.parametrize(
    ("right", "near"),
    [
        ("一只狗在草地上跑。", "一只狗在雪地上跑"),
        ("หมาวิ่งบนหญ้า", "หมาวิ่งบนหิมะ"),
        ("犬が草の上を走る", "犬が雪の上を走る"),
    ],
)
def test_captions_of_unspaced_scripts_are_scored_by_characters(right, near):
    references = [[right], ["x" * 3 + right[::-1]]]
    exact = caption_metrics([right, right[::-1]], references)
    close = caption_metrics([near, right[::-1]], references)
    assert exact["cider_signature"] == "tok:char"
    assert exact["cider"] > close["cider"] > 0
    assert exact["bleu4"] > close["bleu4"] > 10
    reward, signature = caption_reward(references)
    assert signature == "CIDEr-D, tok:char|eos:yes"
    rewards = [reward(Hypothesis([], 0.0, [], True, text=text), 0) for text in (right, near, "x y z")]
    assert rewards[0] > rewards[1] > rewards[2]


def test_captions_of_spaced_scripts_keep_their_words():
    assert caption_metrics(["a dog runs"], [["a dog runs"]])["cider_signature"] == "tok:ptb"
    assert ptb_tokens("एक काला कुत्ता") == ["एक", "काला", "कुत्ता"]
    assert ptb_tokens("cafe\u0301 noir") == ["cafe\u0301", "noir"]


# -- weights that are not finite -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_model_with_such_weights_is_not_loaded(model, tmp_path, gen, value):
    with torch.no_grad():
        model.decoder.embedding.weight[3, 1] = value
    model.save(tmp_path / "model")
    with pytest.raises(UserError, match=r"embedding\.weight holds NaN or infinite values"):
        Model.load(tmp_path / "model")
    with pytest.raises(UserError, match="cannot be exported"):
        export(model, tmp_path / "exported")
    (tmp_path / "text.txt").write_text(TEXT)
    for words in (
        ("generate", tmp_path / "model", "--prompt", "the"),
        ("score", tmp_path / "model", tmp_path / "text.txt"),
        ("evaluate", tmp_path / "model", "--data", tmp_path / "text.txt"),
        ("export", tmp_path / "model", "-o", tmp_path / "exported"),
    ):
        status, out, err = gen(*words)
        assert (status, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert "holds NaN or infinite values" in err


@pytest.mark.parametrize("where", ["embedding.weight", "output.weight", "output.bias"])
@pytest.mark.parametrize(
    "options",
    [
        {"beam": 3},
        {"temperature": 0},
        {"temperature": 1.0, "top_k": 3, "seed": 1},
        {"temperature": 1.0, "seed": 1},
    ],
)
def test_a_model_that_computes_nan_says_so(model, where, options):
    assert model.generate("the", max_new_tokens=3, **options).text is not None
    with torch.no_grad():
        model.decoder.get_parameter(where).fill_(math.nan)
    with pytest.raises(UserError, match="computes NaN"):
        model.generate("the", max_new_tokens=3, **options)
    with pytest.raises(UserError, match="computes NaN"):
        list(model.stream("the", max_new_tokens=3))
    with pytest.raises(UserError, match="computes NaN"):
        model.score(["the cat"])


def test_an_exported_model_that_computes_nan_says_so(model, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    export(model, tmp_path / "exported")
    path = tmp_path / "exported" / runtime.STEP
    graph = onnx.load(str(path))
    for weight in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == "float32":
            weight.CopyFrom(onnx.numpy_helper.from_array(values * math.nan, weight.name))
    path.write_bytes(graph.SerializeToString())
    small = runtime.load(tmp_path / "exported")
    for use in (lambda: small.generate("the", max_new_tokens=3), lambda: small.score(["the cat"])):
        with pytest.raises(UserError, match="computes NaN"):
            use()


def test_a_training_goes_back_before_it_validates_such_weights(train, capsys):
    broken = []

    def watch(event, model):
        if event.progress.step == 1 and not broken:
            broken.append(model.decoder.output.bias.data.fill_(math.nan))

    _, run = train([(1.0, 1.0, 1.0)] * 9, watch=watch)
    assert "going back to step 0" in capsys.readouterr().err
    assert all(weight.isfinite().all() for weight in run.model.state_dict().values())
