"""Search by words: how well they fit what a model would write."""

from __future__ import annotations

import math

import pytest

from gen.base.errors import UserError
from gen.search.phrase import phrase_fits
from tests.serving import SENTENCES, translator


@pytest.mark.parametrize("phrase", [["w7"], ["w7", "w8", "w40"]])
def test_the_words_are_tried_at_every_place(phrase):
    """The score is the best of teacher forcing after every beginning of the greedy output."""
    model = translator()
    fits = phrase_fits(model, SENTENCES, " ".join(phrase))
    for fit, sentence in zip(fits, SENTENCES, strict=True):
        greedy = model.generate(sentence, temperature=0, max_new_tokens=40)
        assert fit.text.startswith(greedy.text.strip())  # which ends early, where the sentence is short
        words = fit.text.split()
        ends = ["".join(f" {w}" for w in words[:t] + phrase) for t in range(len(words) + 1)]
        scores = model.score(ends, [sentence] * len(ends))
        tried = [sum(s.log_probs[-1 - len(phrase) : -1]) / len(phrase) for s in scores]
        assert fit.score == pytest.approx(max(tried[:40]), abs=1e-4)
        assert not math.isclose(max(tried), min(tried))


def test_neighbours_change_nothing():
    model = translator()
    together = phrase_fits(model, SENTENCES, "w3 w4")
    alone = [phrase_fits(model, [sentence], "w3 w4")[0] for sentence in SENTENCES]
    assert [f.score for f in together] == pytest.approx([f.score for f in alone], abs=1e-5)
    assert [f.text for f in together] == [f.text for f in alone]


@pytest.mark.parametrize(("phrase", "message"), [("w3 zebra", "'zebra': not in the voc"), ("", "no words")])
def test_words_that_nobody_can_find(phrase, message):
    with pytest.raises(UserError, match=message):
        phrase_fits(translator(), SENTENCES, phrase)
