"""Caption scores: worked examples from the papers, and the COCO caption code itself."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gen.inputs.ptb import plain_caption, ptb_tokens
from gen.metrics.captions import CaptionScorer, CiderD, bleu, caption_metrics, rouge_l


def words(text):
    return text.split()


WORDS = words("a the dog cat man woman runs jumps sits red blue ball water grass in on over with two")


def test_papineni_clips_repeated_words():
    hypothesis = words("the the the the the the the")
    references = [words("the cat is on the mat"), words("there is a cat on the mat")]
    assert bleu([hypothesis], [references])[0][0] == pytest.approx(2 / 7)


def test_papineni_second_example():
    hypothesis = words(
        "it is a guide to action which ensures that the military always obeys the commands of the party"
    )
    references = [
        words("it is a guide to action that ensures that the military will forever heed party commands"),
        words(
            "it is the guiding principle which guarantees the military forces always being under the command "
            "of the party"
        ),
        words("it is the practical guide for the army always to heed the directions of the party"),
    ]
    corpus, _ = bleu([hypothesis], [references])
    assert corpus[0] == pytest.approx(17 / 18)
    assert corpus[1] == pytest.approx((17 / 18 * 10 / 17) ** 0.5)


def test_brevity_is_measured_against_the_closest_reference():
    corpus, _ = bleu([["a", "b"]], [[words("a b c"), words("a b c d e f")]])
    assert corpus[0] == pytest.approx(np.exp(1 - 3 / 2))


@pytest.mark.parametrize(
    ("candidate", "common"), [("police kill the gunman", 3 / 4), ("the gunman kill police", 2 / 4)]
)
def test_lin_rouge_example(candidate, common):
    assert rouge_l(candidate.split(), [words("police killed the gunman")]) == pytest.approx(common)


def test_cider_rewards_what_is_rare():
    cider = CiderD([[words("a dog runs")], [words("a dog sits")], [words("a cat sits")]])
    assert cider.score(words("a dog runs"), 0) > cider.score(words("a dog sits"), 0) > 0
    assert cider.score(["a"], 0) == pytest.approx(0)  # every picture has it


def corpus(seed, pictures=40):
    rng = random.Random(seed)

    def sentence():
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 14)))

    references = [[sentence() for _ in range(rng.randint(1, 5))] for _ in range(pictures)]
    # Some hypotheses are like a reference, some are anything, one is empty and one is a single word.
    hypotheses = [rng.choice(r) if rng.random() < 0.3 else sentence() for r in references]
    hypotheses[3], hypotheses[4] = "", "dog"
    hypotheses[5] = references[5][0] + " " + sentence()
    return hypotheses, references


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_coco_caption_code(seed):
    pytest.importorskip("pycocoevalcap", reason="the reference code is not installed")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    hypotheses, references = corpus(seed)
    wanted = dict(enumerate(references))
    written = {i: [h] for i, h in enumerate(hypotheses)}
    figures, each = caption_metrics(hypotheses, references), CaptionScorer(references).each(hypotheses)
    scores, lists = Bleu(4).compute_score(wanted, written, verbose=0)
    for n in range(4):
        assert figures[f"bleu{n + 1}"] == pytest.approx(100 * scores[n], abs=1e-6)
        np.testing.assert_allclose(each[f"bleu{n + 1}"], 100 * np.array(lists[n]), atol=1e-6)
    for scorer, name in ((Cider(), "cider"), (Rouge(), "rouge_l")):
        score, scored = scorer.compute_score(wanted, written)
        assert figures[name] == pytest.approx(100 * score, abs=1e-6)
        np.testing.assert_allclose(each[name], 100 * np.array(scored), atol=1e-6)


def test_case_and_punctuation_do_not_count():
    assert caption_metrics(["A dog's ball."], [["a dog 's ball"]])["bleu3"] == pytest.approx(100)


def test_marks_of_other_scripts_do_not_count_either():
    assert plain_caption("Ein Hund „Rex“ läuft – schnell.") == "ein hund rex läuft schnell"
    assert plain_caption("¿Dónde está el perro? «Allí»") == "dónde está el perro allí"
    assert caption_metrics(["एक कुत्ता है"], [["एक कुत्ता है।"]])["bleu1"] == pytest.approx(100)


def test_captions_in_a_script_without_spaces_count_beside_others():
    english = [["a black dog runs over the green grass"], ["two men are sitting on a wooden bench"]] * 4
    chinese = [["一只黑狗在绿色的草地上跑"], ["两个男人坐在长椅上"]]
    scores = CaptionScorer([*english, *chinese])
    near = scores.corpus([each[0] for each in english] + ["一只黑狗在草地上跑", "两个男人坐在椅子上"])
    wrong = scores.corpus([each[0] for each in english] + ["红色的汽车", "天空"])
    assert near["cider"] > wrong["cider"]
    assert near["bleu1"] > wrong["bleu1"]
    assert CaptionScorer(english).tokenizer == "ptb"


def test_a_picture_without_references_is_an_error():
    with pytest.raises(ValueError, match="reference"):
        caption_metrics(["a dog"], [[]])


# What stanford-corenlp 3.4.1 makes of each, as the COCO caption code calls it.
STANFORD = {
    "It's 5:30 p.m. and Mr. Smith can't go.": "it 's 5:30 p.m. and mr. smith ca n't go",
    "The U.S. team (in white) won 3-2!": "the u.s. team -lrb- in white -rrb- won 3-2",
    "He paid $5.50 for a 1/2 price T-shirt -- wow...": "he paid $ 5.50 for a 1/2 price t-shirt wow",
    "\"Hello,\" she said; 'hi' he said.": "hello she said hi he said",
    "rock 'n' roll in the '90s": "rock 'n' roll in the '90s",
    "cannot gonna wanna gotta": "can not gon na wan na got ta",
    "they've we're I'm he'll she'd it's dogs' kids'": "they 've we 're i 'm he 'll she 'd it 's dogs kids",
    "a man/woman and/or dog & cat": "a man/woman and/or dog & cat",
    "No. 23 at 50% off, 1,000 people 1st 2nd": "no. 23 at 50 % off 1,000 people 1st 2nd",
    "e-mail me@x.com or www.x.com": "e-mail me@x.com or www.x.com",
    "don't won't isn't couldn't ain't": "do n't wo n't is n't could n't ai n't",
    "St. Bernard vs. poodle, etc.": "st. bernard vs. poodle etc.",
    "half-eaten ... ice-cream": "half-eaten ice-cream",
    "A Texas A&amp;M player on a 4-wheeler": "a texas a&m player on a 4-wheeler",
}


@pytest.mark.parametrize("text", STANFORD)
def test_tokens_are_those_of_the_stanford_tokenizer(text):
    assert " ".join(ptb_tokens(text)) == STANFORD[text]


def test_plain_captions_read_like_text():
    assert plain_caption("A man's dog (brown) doesn't \"sit\" .") == "a man's dog brown doesn't sit"
