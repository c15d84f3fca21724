"""Translation from end to end: training, the command line, ensembles, evaluation, bad input."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import yaml
from tasks.data.sequences import sequence_pairs

import gen as toolkit
from gen.base.errors import UserError
from gen.datasets.corpus import TokenizerOptions
from gen.datasets.pair_files import PairFiles
from gen.datasets.pairs import PairOptions, build_pairs
from gen.inputs.processors import SentenceProcessor
from gen.inputs.sentences import continued, sentence_ends, split_line
from gen.inputs.tokenizer import WordTokenizer
from gen.metrics.scores import translation_metrics
from gen.search.ensemble import Ensemble
from gen.search.generation import GenerationMixin
from gen.training.averages import Averages, copy_of, mean, swapped
from tasks.cli import main
from tasks.translate.data import minimum_risk, read_pairs
from tasks.translate.lines import _words, _words_before, align_words
from tasks.translate.options import TranslateData, TranslateReward

SMALL = (
    *(
        "--level",
        "char",
        "--hidden-size",
        "64",
        "--encoder-size",
        "48",
        "--embedding-size",
        "32",
        "--num-layers",
        "1",
    ),
    *("--encoder-layers", "1", "--dropout", "0", "--embedding-dropout", "0", "--label-smoothing", "0"),
    *("--batch-tokens", "600", "--learning-rate", "1e-2", "--precision", "fp32", "--device", "cpu"),
)


def write_pairs(folder, name, pairs):
    for side, texts in zip(("src", "tgt"), zip(*pairs, strict=True), strict=True):
        (folder / f"{name}.{side}").write_text("".join(t + "\n" for t in texts))
    return folder / f"{name}.src", folder / f"{name}.tgt"


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """A folder with a model that reverses words (`run`), another one (`other`), and their data."""
    folder = tmp_path_factory.mktemp("reverse")
    train = write_pairs(folder, "train", sequence_pairs("reverse", 4000, seed=1, letters="abcdef", lengths=(2, 7)))
    valid = write_pairs(folder, "valid", sequence_pairs("reverse", 100, seed=2, letters="abcdef", lengths=(2, 7)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN_CACHE", str(folder / "cache"))
        for name, budget, seed in (("run", "350 steps", "1"), ("other", "40 steps", "2")):
            words = ["train", "translate", "--train", *train, "--valid", *valid, "--out", folder / name]
            words += ["--budget", budget, "--seed", seed, "--validations", "2", "--ema", "0.98", *SMALL]
            assert main([str(w) for w in words]) == 0
    return folder


@pytest.fixture(scope="session")
def reverser(desk):
    return toolkit.load(desk / "run")


def test_training_ends_with_a_calibration_that_holds(desk, reverser):
    made = reverser.calibration
    assert made.figures["outputs"] == 100
    pairs = sequence_pairs("reverse", 200, seed=3, letters="abcdef", lengths=(2, 7))
    found = reverser.generate([a for a, _ in pairs])
    right = np.mean([h.text == b for h, (_, b) in zip(found, pairs, strict=True)])
    assert np.mean([h.words[0].confidence for h in found]) == pytest.approx(right, abs=0.1)
    assert not list((desk / "run" / "last").glob("confidence*"))


def test_reversing_is_learned(reverser):
    pairs = sequence_pairs("reverse", 200, seed=3, letters="abcdef", lengths=(2, 7))
    found = reverser.generate([a for a, _ in pairs], beam=3, attention=True)
    right = sum(h[0].text == b for h, (_, b) in zip(found, pairs, strict=True))
    assert right >= 190
    looked = found[0][0].alignment  # from the last letter to the first
    n = len(pairs[0][0])
    assert sum(a == n - 1 - i for i, a in enumerate(looked)) >= n - 2


def test_what_a_run_keeps(desk, reverser):
    records = [json.loads(line) for line in (desk / "run" / "metrics.jsonl").read_text().splitlines()]
    validations = [r for r in records if "validation" in r]
    assert [v["weights"] for v in validations] == ["moving average", "moving average", "last"]
    kept = reverser.info.metrics
    assert kept["bleu"] == max(v["validation"]["bleu"] for v in validations)
    assert kept["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert "chrf_signature" in kept
    card = (desk / "run" / "best" / "README.md").read_text()
    assert kept["bleu_signature"].replace("|", "\\|") in card
    samples = (desk / "run" / "samples.md").read_text()
    assert all(word in samples for word in ("source:", "reference:", "hypothesis:"))
    assert (desk / "run" / "plots" / "attention.png").stat().st_size > 1000
    assert (desk / "run" / "plots" / "loss.png").stat().st_size > 1000


def test_ensembles(desk, reverser):
    other = toolkit.load(desk / "other")
    items = ["abc", "fedcab", "aabb"]
    alone = reverser.generate(items, beam=3)
    one = Ensemble([reverser]).generate(items, beam=3)
    assert [h[0].token_ids for h in one] == [h[0].token_ids for h in alone]
    assert [h[0].score for h in one] == pytest.approx([h[0].score for h in alone], abs=1e-4)
    two = Ensemble([reverser, other]).generate(items, beam=3, attention=True)
    assert [h[0].score for h in two] != pytest.approx([h[0].score for h in alone], abs=1e-3)
    assert two[0][0].attention.sum(1) == pytest.approx(1.0, abs=1e-4)
    # By hand, a token at a time.
    text = two[0][0].text
    by_each = [torch.tensor(m.score([text], items[:1])[0].log_probs) for m in (reverser, other)]
    mixed = (torch.stack(by_each).exp().mean(0)).log()
    assert two[0][0].log_probs == pytest.approx(mixed.tolist(), abs=1e-4)
    scores = Ensemble([reverser, other]).score([h[0].text for h in two], items)
    assert [score.log_prob for score in scores] == pytest.approx([h[0].score for h in two], abs=1e-4)


def test_an_ensemble_needs_one_target_vocabulary(desk, reverser, gen, tmp_path):
    pairs = [("abc", "xyz"), ("ab", "xy")] * 30
    train = write_pairs(tmp_path, "t", pairs)
    out = tmp_path / "xyz"
    status, _, err = gen("train", "translate", "--train", *train, "--out", out, "--budget", "1 steps", *SMALL)
    assert status == 0, err
    status, _, err = gen("translate", desk / "run", out, "--text", "ab")
    assert status == 2
    assert "target vocabularies differ" in err
    with pytest.raises(UserError, match="model 1 and model 2"):
        Ensemble([reverser, toolkit.load(out)])


def test_averages():
    a, b = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 6.0])]
    assert mean([a, b])[0].tolist() == [2.0, 4.0]

    model = torch.nn.Linear(1, 1, bias=False)

    def put(value):
        torch.nn.init.constant_(model.weight, value)

    put(0.0)
    averages = Averages(model, ema=0.5, count=2, best=True)
    for step in range(1, 17):
        put(float(step))
        averages.step(model, step)
    # Two updates, after steps 8 and 16, each with the decay of eight steps.
    first, second = (9 / 18) ** 8, 0.5**8
    assert averages.moving[0].item() == pytest.approx((8 * (1 - first)) * second + 16 * (1 - second))
    for goodness, value in ((1.0, 10.0), (3.0, 20.0), (2.0, 40.0)):
        averages.validated([torch.tensor([[value]])], goodness)
    assert averages.mean()[0].item() == 30.0  # of the best two
    last = Averages(model, count=2)
    for value in (10.0, 20.0, 40.0):
        last.validated([torch.tensor([[value]])], -value)
    assert last.mean()[0].item() == 30.0
    assert last.moving is None
    with swapped(model, averages.mean()):
        assert model.weight.item() == 30.0
    assert model.weight.item() == 16.0
    again = Averages(model, ema=0.5, count=2)
    model.device = torch.device("cpu")
    again.load_state_dict(averages.state_dict(), model)
    assert again.mean()[0].item() == 30.0
    assert copy_of(model)[0] is not next(model.parameters())


# -- gen translate ---------------------------------------------------------------------------------------


def test_translate_text_and_files(desk, gen, tmp_path):
    status, out, err = gen("translate", desk / "run", "--text", "abc", "--text", "fed")
    assert (status, out, err) == (0, "cba\ndef\n", "")
    (tmp_path / "in.txt").write_text("abc\n\n  fed \n")
    status, _, err = gen("translate", desk / "run", "-i", tmp_path / "in.txt", "-o", tmp_path / "out.txt")
    assert status == 0, err
    assert (tmp_path / "out.txt").read_text() == "cba\n\ndef\n"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_output_into_links_pipes_and_devices(desk, gen, tmp_path):
    (tmp_path / "link").symlink_to("target.txt")
    (tmp_path / "target.txt").write_text("old")
    assert gen("translate", desk / "run", "--text", "abc", "-o", tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target.txt").read_text() == "cba\n"
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        assert gen("translate", desk / "run", "--text", "abc", "-o", tmp_path / "pipe")[0] == 0
        assert read.result() == "cba\n"
    assert (tmp_path / "pipe").is_fifo()
    assert gen("translate", desk / "run", "--text", "abc", "-o", tmp_path)[0] == 2  # a folder
    with (tmp_path / "log").open("w") as log:
        log.write("before\n")
        log.flush()
        words = [sys.executable, "-m", "tasks.cli", "translate", str(desk / "run"), "--text", "abc"]
        subprocess.run([*words, "-o", "/dev/stdout"], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before\ncba\n"


def test_a_byte_order_mark_is_not_text(desk, gen, tmp_path):
    (tmp_path / "in.txt").write_text("abc\nabc\n", encoding="utf-8-sig")
    assert gen("translate", desk / "run", "-i", tmp_path / "in.txt")[1] == "cba\ncba\n"


def test_what_is_cut_off_is_said(desk, gen):
    words = ("translate", desk / "run", "--text", "abc", "--text", "abcd", "--min-new-tokens", "100")
    status, out, err = gen(*words)
    assert status == 0
    assert out.count("\n") == 2
    assert "cut off at the length limit (--max-ratio, --max-new-tokens): translations of line 1, 2" in err
    assert "cut off" not in gen(*words, "--max-new-tokens", "100")[2]
    assert gen("translate", desk / "run", "--text", "abc", "--max-ratio", "inf")[1] == "cba\n"


def test_fewer_hypotheses_than_asked_for_keep_lines_in_step(desk, gen):
    forced = ("--prefix", "a", "--max-new-tokens", "1", "--beam", "3", "--n-best", "3")
    _, out, _ = gen("translate", desk / "run", "--text", "abc", "--text", "abc", *forced)
    assert out == "a\n\n\na\n\n\n"


def test_a_pipe_is_answered_line_by_line(desk):
    words = [sys.executable, "-m", "tasks.cli", "translate", str(desk / "run"), "--batch-size", "1"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in ("abc\n", "\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line.strip()[::-1] + "\n"
        process.stdin.write("fed")  # the last line may lack its end
        process.stdin.close()
        assert process.stdout.read() == "def\n"
    assert process.returncode == 0


def test_ten_thousand_lines_keep_their_order(desk, gen, tmp_path):
    words = [a for a, _ in sequence_pairs("reverse", 10_000, seed=5, letters="abcdef", lengths=(2, 7))]
    lines = ["" if i % 97 == 0 else word for i, word in enumerate(words)]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    status, out, err = gen(
        "translate", desk / "run", "-i", tmp_path / "in.txt", "--beam", "1", "--batch-size", "256"
    )
    assert status == 0, err
    found = out.split("\n")[:-1]
    assert len(found) == 10_000
    assert [i for i, line in enumerate(found) if not line] == list(range(0, 10_000, 97))
    assert sum(a == b[::-1] for a, b in zip(found, lines, strict=True)) > 9500


def test_output_does_not_depend_on_the_batch(desk, gen, tmp_path):
    words = [a for a, _ in sequence_pairs("reverse", 60, seed=6, letters="abcdef", lengths=(1, 9))]
    (tmp_path / "in.txt").write_text("\n".join(words) + "\n")
    found = {gen("translate", desk / "run", "-i", tmp_path / "in.txt", "--batch-size", n) for n in (1, 7, 64)}
    ((status, out, err),) = found
    assert (status, err) == (0, "")
    assert out.count("\n") == 60
    assert len(set(out.split())) > 30


def test_forms_of_output(desk, gen):
    run = desk / "run"
    status, out, _ = gen("translate", run, "--text", "abc", "--text", "", "--beam", "4", "--n-best", "3")
    lines = out.split("\n")[:-1]
    assert status == 0
    assert len(lines) == 6
    assert lines[0] == "cba"
    assert lines[3:] == ["", "", ""]
    assert len(set(lines[:3])) == 3
    _, out, _ = gen("translate", run, "--text", "abc", "--scores", "--alignments")
    score, text, links = out.rstrip("\n").split("\t")
    assert float(score) < 0
    assert text == "cba"
    assert links == "0-0"  # one word
    _, out, _ = gen("translate", run, "--text", "abc", "--text", "", "--json", "--n-best", "2")
    first, second = map(json.loads, out.splitlines())
    assert first["source"] == "abc"
    assert first["translations"][0]["text"] == "cba"
    assert len(first["translations"]) == 2
    assert first["translations"][0]["score"] == pytest.approx(float(score), abs=1e-3)
    assert second == {"line": 2, "source": "", "translations": []}
    sampled = gen("translate", run, "--text", "abc", "--sample", "--seed", "4")
    assert sampled == gen("translate", run, "--text", "abc", "--sample", "--seed", "4", "--batch-size", "1")
    assert sampled[0] == 0
    assert sampled[1].count("\n") == 1


def test_a_prefix_is_kept(desk, gen, reverser):
    for prefix in ("f", "fe", "abcabc"):
        status, out, _ = gen("translate", desk / "run", "--text", "abc", "--text", "ddd", "--prefix", prefix)
        assert status == 0
        assert all(line.startswith(prefix) for line in out.splitlines())
    forced = reverser.generate("abc", beam=3, prefix="ca")[0]
    assert forced.text.startswith("ca")
    assert forced.score == pytest.approx(reverser.score([forced.text], ["abc"])[0].log_prob, abs=1e-4)
    status, _, err = gen("translate", desk / "run", "--text", "abc", "--prefix", "Z")
    assert status == 2
    assert "'Z'" in err


def test_a_very_long_line_is_translated_in_pieces(desk, gen):
    line = " ".join(["abc."] * 40) + " " + "f" * 30
    status, out, err = gen("translate", desk / "run", "--text", "ab", "--text", line, "--text", "abc")
    assert status == 0
    assert len(out.splitlines()) == 3
    assert "line 2: a sentence is more than twice as long as any in training" in err
    assert out.splitlines()[2] == "cba"


def test_a_line_of_several_sentences_is_translated_one_by_one(desk, gen):
    """The network has learned from single words; of several at once it would leave some out."""
    words = ["abcd.", "fedc.", "bbac.", "cafe."]
    alone = gen("translate", desk / "run", *itertools.chain(*(("--text", word) for word in words)))[1]
    status, out, err = gen("translate", desk / "run", "--text", " ".join(words), "--text", "abc")
    assert (status, err) == (0, "")
    assert out == " ".join(alone.splitlines()) + "\ncba\n"
    _, out, _ = gen("translate", desk / "run", "--text", " ".join(words), "--prefix", "ee")
    assert out.startswith("ee")
    assert out.split()[1:] == alone.split()[1:]  # the line begins so, not each of its sentences


def test_lines_are_split_at_sentences_first(reverser):
    processor = SentenceProcessor(reverser.tokenizer, max_length=7, multi_sentence_p90=10)  # with their ends
    assert split_line(processor, "abc") == (["abc"], False)
    assert split_line(processor, "") == ([], False)
    assert split_line(processor, "aaa. bbb! ccc? ddd.") == (["aaa. bbb!", "ccc? ddd."], False)
    assert split_line(processor, "aaa bbb ccc.") == (["aaa bbb ccc."], False)  # unusual, but one sentence
    assert split_line(processor, "aaa bbb, ccc ddd, eee. f.") == (["aaa bbb,", "ccc ddd, eee.", "f."], True)
    assert split_line(processor, "aaa bbb ccc ddd eee") == (["aaa bbb ccc", "ddd eee"], True)
    processor.multi_sentence_p90 = 1  # hardly a line of several sentences in training
    assert split_line(processor, "A a. B b? C.") == (["A a.", "B b?", "C."], False)
    processor.multi_sentence_p90 = 10
    assert split_line(processor, "a" * 40) == (["a" * 13, "a" * 13, "a" * 13, "a"], True)
    assert split_line(processor, "aaaa 3.1415 bbb. cccc.") == (["aaaa 3.1415", "bbb.", "cccc."], True)
    processor.max_length = processor.multi_sentence_p90 = 0
    assert split_line(processor, "a b. " * 99) == (["a b. " * 99], False)


def test_sentences_end_where_no_abbreviation_does():
    def sentences(text):
        cuts = [0, *sentence_ends(text), len(text)]
        return [text[a:b].strip() for a, b in itertools.pairwise(cuts)]

    for text in ("「行く。」と彼は言った。", "“你好。”他说。"):
        assert sentences(text) == [text]
    assert sentences("え！？本当ですか。はい。") == ["え！？", "本当ですか。", "はい。"]
    assert sentences('A dog. A cat sleeps! "Why?" Nobody knows… Yes.') == [
        "A dog.",
        "A cat sleeps!",
        '"Why?"',
        "Nobody knows…",
        "Yes.",
    ]
    assert sentences("你好。再见。") == ["你好。", "再见。"]
    assert sentences("a dog. a cat.") == ["a dog.", "a cat."]
    assert sentences("Er hat einen Ball. Das ist ein Hund. Er rennt.") == [
        "Er hat einen Ball.",
        "Das ist ein Hund.",
        "Er rennt.",
    ]
    assert sentences("वह दौड़ता है। वह सोता है।") == ["वह दौड़ता है।", "वह सोता है।"]
    assert sentences("أين القط؟ هنا.") == ["أين القط؟", "هنا."]
    for one in (
        "Mr. Smith of St. Paul eats.",
        "Am 2. Mai.",
        "Prof. Dr. Kurz und Abb. Drei.",
        "See Fig. A and Vol. B.",
        "Ask Maj. Smith, Sra. García and Ste. Marie of Corp. Tax, Ziff. 3.",
        "The U.S. Army.",
        "Er steht bzw. sitzt.",
        "Now ... what",
        "",
    ):
        assert sentences(one) == [one]


def test_lines_of_several_sentences_are_known_from_training(tmp_path):
    single = [f"The dog has {i} bones." for i in range(40)]
    several = [f"A dog has {i} bones. It is here." for i in range(10)]
    for lines, expected in ((single, 1), (single + several, 11)):
        (tmp_path / "a.src").write_text("\n".join(lines) + "\n")
        (tmp_path / "a.tgt").write_text("\n".join(lines) + "\n")
        options = PairOptions(TokenizerOptions("word", 1))
        files = PairFiles((str(tmp_path / "a.src"), str(tmp_path / "a.tgt")))
        assert build_pairs(files, None, options, cache=tmp_path / "cache").multi_sentence_p90 == expected


def test_word_alignment(reverser):
    from gen.search import Hypothesis

    class Letters:
        tokenizer = reverser.tokenizer
        encode = staticmethod(lambda text: [*[ord(c) for c in text], 2])

    class Spelling:
        kind = "char"
        decode = staticmethod(lambda ids: "".join(map(chr, ids)))

    class Fake:
        processors = {"sentence": Letters()}
        tokenizer = Spelling()

    Fake.processors["sentence"].tokenizer = Spelling()
    # "ab c" -> "x yz": x looks at c, y at a, z at b.
    attention = torch.zeros(4, 5)
    attention[[0, 1, 2, 3], [3, 3, 0, 1]] = 1
    hypothesis = Hypothesis([ord(c) for c in "x yz"], 0.0, [], True, attention.numpy())
    assert align_words(Fake(), "ab c", hypothesis) == [(1, 0), (0, 1)]
    hypothesis.attention[:2] = [0, 0, 0, 0.4, 0.6]  # x mostly at the end, which is no word
    assert align_words(Fake(), "ab c", hypothesis) == [(0, 1)]


def test_words_are_counted_across_pieces_and_unknown_ones():
    words = WordTokenizer.train(["the dog , the cat"], min_frequency=1)
    assert _words(words, words.encode("the zyx dog zyx")) == [0, 1, 2, 3]
    assert [_words_before("ab cd ef", at) for at in (0, 1, 3, 4, 6)] == [0, 0, 1, 1, 2]
    assert _words_before("你好。世界。", 3) == 0
    assert continued(continued("", "A."), "B.") == "A. B."
    assert continued("你好。", "世界。") == "你好。世界。"
    assert continued("A.", "") == "A."


def test_streaming_spells_what_generate_says(reverser):
    assert isinstance(reverser, GenerationMixin)
    text = reverser.generate("abcd", temperature=0)[0].text
    assert "".join(reverser.stream("abcd", temperature=0)) == text


# -- evaluate, score, plot -------------------------------------------------------------------------------


def test_evaluate(desk, gen):
    status, out, err = gen("evaluate", desk / "run", "--json")
    assert status == 0, err
    held_out = json.loads(out)
    assert held_out["exact"] > 0.9
    files = ("--src", desk / "valid.src", "--ref", desk / "valid.tgt")
    given = json.loads(gen("evaluate", desk / "run", *files, "--json")[1])
    assert given == held_out
    assert {"bleu", "chrf", "ter", "bleu_signature", "chrf_signature", "ter_signature"} <= set(given)
    _, out, _ = gen("evaluate", desk / "run", *files, "--compare", desk / "other", "--json", "--beam", "2")
    compared = json.loads(out)
    assert compared["compare"]["chrf"] < compared["chrf"]
    assert compared["p_value"]["chrf"] < 0.05
    (desk / "blank.tgt").write_text("\n")
    status, _, err = gen("evaluate", desk / "run", "--src", desk / "blank.tgt", "--ref", desk / "blank.tgt")
    assert status == 2
    assert "has only empty lines" in err
    same = json.loads(gen("evaluate", desk / "run", *files, "--compare", desk / "run" / "best", "--json")[1])
    assert same["p_value"]["chrf"] > 0.5
    status, out, _ = gen("evaluate", desk / "run", *files, "--lowercase")
    assert status == 0
    assert "case:lc" in out


def test_lower_case_is_for_both_sides():
    assert translation_metrics(["The CAT"], ["the Cat"], lowercase=True)["exact"] == 1
    assert translation_metrics(["The CAT"], ["the Cat"])["exact"] == 0


def test_scores_that_ignore_case_are_no_worse(desk, gen, tmp_path):
    for end in ("src", "tgt"):
        text = (desk / f"valid.{end}").read_text()
        (tmp_path / f"upper.{end}").write_text(text.upper() if end == "tgt" else text)
    files = ("--src", tmp_path / "upper.src", "--ref", tmp_path / "upper.tgt")
    cased, caseless = (
        json.loads(gen("evaluate", desk / "run", *files, *more, "--json")[1]) for more in ((), ("--lowercase",))
    )
    assert cased["exact"] == 0
    assert caseless["exact"] > 0.5


def test_a_model_that_goes_on_learns_how_long_sentences_are(desk, gen, tmp_path):
    files = (*write_pairs(tmp_path, "long", [("Abcdef abcdef. " * 4, "fa " * 9)] * 30), "--valid")
    files += (desk / "valid.src", desk / "valid.tgt")
    short = (desk / "other.src", desk / "other.tgt")
    write_pairs(desk, "other", sequence_pairs("reverse", 50, seed=5, letters="abcdef", lengths=(2, 7)))
    for begun, made, data in (("run", "long", files), ("long", "short", (*short, *files[2:]))):
        begun = desk / "run" if begun == "run" else tmp_path / begun
        words = ("train", "translate", "--train", *data, "--init-from", begun, "--out", tmp_path / made)
        status, _, err = gen(*words, "--budget", "1 steps", "--device", "cpu", "--validations", "1")
        assert status == 0, err
    runs = (desk / "run", tmp_path / "long", tmp_path / "short")
    before, long, short = (toolkit.load(run).encoder.lengths for run in runs)
    assert max(before) < 10
    assert min(long) > 50
    assert short == long  # it can still read what was so long


def test_coverage_needs_attention(gen, desk, tmp_path):
    words = ("train", "translate", "--data", desk / "valid.src", "--coverage", "1", "--attention", "none")
    status, _, err = gen(*words, "--out", tmp_path / "run")
    assert status == 2
    assert "--coverage needs attention" in err


def test_minimum_risk_may_end_the_longest_sentence(desk, tmp_path):
    data = TranslateData(train=(str(desk / "valid.src"), str(desk / "valid.tgt")), level="char")
    pairs = read_pairs(data, None).pairs
    made = minimum_risk(pairs, lambda output, reference: 0.0, TranslateReward())
    assert made.max_new_tokens == pairs.target.lengths.max() + 1


def test_evaluation_takes_a_tokenizer_and_else_that_of_the_training(desk, gen, tmp_path):
    def signature(*words, run=desk / "run"):
        status, out, err = gen("evaluate", run, "--json", *words)
        assert status == 0, err
        return json.loads(out)["bleu_signature"]

    assert "tok:13a" in signature()
    assert "tok:char" in signature("--bleu-tokenizer", "char")
    shutil.copytree(desk / "run" / "best", tmp_path / "model")
    for value, expected in (("intl", "tok:intl"), (None, "tok:13a")):
        config = yaml.safe_load((tmp_path / "model" / "config.yaml").read_text())
        config["training"]["data"]["bleu_tokenizer"] = value
        (tmp_path / "model" / "config.yaml").write_text(yaml.safe_dump(config))
        assert expected in signature(run=tmp_path / "model")


def test_metrics_are_sacrebleus():
    import sacrebleu

    hypotheses, references = ["the cat sat on a mat", "a dog"], ["the cat sat on the mat", "a dog"]
    found = translation_metrics(hypotheses, references, names=("bleu", "chrf", "ter"))
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score, abs=1e-3)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score, abs=1e-3)
    assert found["ter"] == pytest.approx(sacrebleu.corpus_ter(hypotheses, [references]).score, abs=1e-3)
    assert found["exact"] == 0.5


def test_score_pairs(desk, gen, reverser, tmp_path):
    (tmp_path / "p.tsv").write_text("abc\tcba\nabc\tabc\n")
    status, out, err = gen("score", desk / "run", tmp_path / "p.tsv")
    assert status == 0, err
    good, bad = (line.split("\t") for line in out.splitlines())
    assert good[2:] == ["abc", "cba"]
    assert float(good[0]) > float(bad[0])
    assert float(good[0]) == pytest.approx(reverser.score(["cba"], ["abc"])[0].log_prob, abs=1e-3)
    _, out, _ = gen("score", desk / "run", desk / "valid.src", desk / "valid.tgt", "--json")
    assert len(out.splitlines()) == 100


def test_plot_attention(desk, gen, tmp_path):
    status, out, err = gen("plot", "attention", desk / "run", "--text", "abc", "-o", tmp_path / "a.png")
    assert status == 0, err
    assert out.startswith("cba\n")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_plots_show_what_was_read(desk, gen, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "gen.training.task.plot_attended", lambda model, item, found, to: drawn.append((item, found))
    )
    words = ("plot", "attention", desk / "run", "--text", "abxc", "--unknown", "skip", "-o", tmp_path / "a.png")
    status, out, err = gen(*words)
    assert (status, out.startswith("cba\n")) == (0, True), err
    ((item, found),) = drawn
    assert item == found.read == "abc"


def test_no_attention_at_all(desk, gen, tmp_path):
    out = tmp_path / "none"
    words = [
        "--train",
        desk / "valid.{src,tgt}",
        "--out",
        out,
        "--attention",
        "none",
        "--budget",
        "3 steps",
        *SMALL,
    ]
    status, _, err = gen("train", "translate", *words)
    assert status == 0, err
    assert gen("translate", out, "--text", "abc")[0] == 0
    status, _, err = gen("plot", "attention", out, "--text", "abc", "-o", tmp_path / "a.png")
    assert status == 2
    assert "--attention none" in err


@pytest.mark.parametrize("level", ["word", "subword"])
def test_other_levels(gen, tmp_path, level):
    pairs = [
        (f"the {a} sees {b}", f"{b} sieht der {a}") for a in ("cat", "dog", "cow") for b in ("me", "you", "us")
    ]
    train = write_pairs(tmp_path, "t", pairs * 20)
    out = tmp_path / "run"
    words = [
        "--train",
        *train,
        "--out",
        out,
        "--level",
        level,
        "--separate",
        "--budget",
        "60 steps",
        "--cell",
        "gru",
    ]
    words += [
        "--attention",
        "multihead",
        "--no-bidirectional",
        "--hidden-size",
        "32",
        "--encoder-size",
        "32",
        "--device",
        "cpu",
    ]
    status, said, err = gen("train", "translate", *words, "--learning-rate", "1e-2", "--validations", "1")
    assert status == 0, err
    assert "joint" not in said
    status, text, _ = gen("translate", out, "--text", "the cat sees you", "--alignments")
    assert status == 0
    text, links = text.rstrip("\n").split("\t")
    assert 0 < len(links.split()) <= len(text.split())
    assert not text.startswith(" ")


# -- mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x"], "--train: name two text files"),
        (["--train", "a", "b", "--data", "c.tsv", "--out", "x"], "--train and --data exclude each other"),
        (["--train", "missing.en", "missing.de", "--out", "x"], "missing.en: no such file"),
        (["--train", "missing.en", "--out", "x"], "come in pairs"),
        (["--data", "t.tsv", "--src", "en", "--out", "x"], "--src and --tgt go together"),
        (["--train", "a", "b", "--separate", "--tie", "all", "--out", "x"], "--tie all needs one vocabulary"),
        (["--train", "a", "b", "--num-heads", "3", "--attention", "multihead", "--out", "x"], "does not divide"),
        (["--train", "a", "b"], "--out: name a folder"),
        (
            ["--train", "a", "b", "--out", "x", "--batch-size", "8"],
            "unknown option --batch-size; did you mean --batch-tokens",
        ),
        (["--train", "a", "b", "--out", "x", "--atention", "dot"], "did you mean --attention"),
        (["--train", "a", "b", "--out", "x", "--ema", "1"], "--ema must be at least 0 and below 1"),
    ],
)
def test_bad_options(gen, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = gen("train", "translate", *words)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_bad_use(desk, trained, gen, tmp_path):
    run = desk / "run"
    cases = [
        (
            ["translate", trained, "--text", "a"],
            f"is a text model, and this command is for translate models; use `gen generate {trained}`",
        ),
        (
            ["generate", run, "--prompt", "a"],
            f"is a translate model, and this command is for text models; use `gen translate {run}`",
        ),
        (["translate", run, "--text", "a", "-i", "f"], "--text and --input exclude each other"),
        (["translate", run, "--text", "a", "--sample", "--beam", "3"], "--sample and --beam exclude each other"),
        (["translate", run, "-i", tmp_path / "none.txt"], "none.txt: cannot be read"),
        (["translate", run, "--text", "a", "-o", tmp_path / "no" / "x"], "cannot be written"),
        (["translate", run, "--text", "a", "--n-best", "9"], "--n-best must be between 1 and --beam (5)"),
        (["translate"], "RUN"),
        (["evaluate", run, "--src", desk / "valid.src"], "--src and --ref go together"),
        (["evaluate", run, "--src", desk / "valid.src", "--ref", desk / "train.tgt"], "has 100 lines and"),
        (["evaluate", run, "--images", desk], "--images goes with --data"),
        (["evaluate", trained, "--ref", desk / "valid.src"], "unknown option --ref"),
        (["evaluate", run, "--compare", trained], "is a text model"),
        (["evaluate", run, "--compare", run], "is the same model"),
        (["score", run], "name a FILE to score"),
        (["score", run, desk / "valid.src"], "come in pairs"),
        (["plot", "attention", run], "name one input: ITEM (a picture) or --text (a sentence)"),
        (["plot", "attention", run, "--text", "a", "-o", "a.xyz"], "name a .png, .svg or .pdf"),
        (["plot"], "plot: name a kind; there is: attention"),
    ]
    for words, message in cases:
        status, _, err = gen(*words)
        assert status == 2, words
        assert message in err, (words, err)
        assert "Traceback" not in err


def test_input_that_is_not_utf8(desk, gen, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"abc\nab\xff\n")
    out = tmp_path / "out.txt"
    status, _, err = gen("translate", desk / "run", "-i", tmp_path / "in.txt", "-o", out)
    assert status == 2
    assert "in.txt: line 2 is not UTF-8" in err
    assert not out.exists()
