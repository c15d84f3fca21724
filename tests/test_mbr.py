"""Minimum Bayes risk: which of a beam's outputs comes first."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from gen.base.errors import ConfigError
from gen.search import SearchOptions
from gen.search.mbr import MOST, SHARPNESS, expected_bleu

NUMBERS = np.random.default_rng(0)
OUTPUTS = [NUMBERS.integers(0, 5, size).tolist() for size in (1, 3, 4, 7, 9, 12, 12)]


def spelled(token_ids):
    return " ".join(map(str, token_ids))


def test_it_is_the_mean_of_sacrebleus_scores():
    """Of sentences, weighted with the probabilities of the references."""
    scores = NUMBERS.normal(-9, 3, len(OUTPUTS))
    raw = np.exp(SHARPNESS * scores / [(5 + len(output) + 1) / 6 for output in OUTPUTS])
    metric = BLEU(smooth_method="add-k", smooth_value=1, tokenize="none")
    judged = [
        [metric.sentence_score(spelled(output), [spelled(reference)]).score / 100 for reference in OUTPUTS]
        for output in OUTPUTS
    ]
    # sacrebleu leaves out the orders of n-grams that shorter ones lack.
    long = [i for i, output in enumerate(OUTPUTS) if len(output) > 3]
    np.testing.assert_allclose(expected_bleu(OUTPUTS, scores)[long], (judged @ raw / raw.sum())[long], rtol=1e-6)


def test_outputs_without_tokens_are_worth_nothing_and_no_warning():
    assert expected_bleu([[]], [-1.0]).tolist() == [0.0]
    first, second = expected_bleu([[], [5, 6]], [-1.0, -2.0])
    assert first == 0 < second < 1


def test_a_wide_beam_is_ordered_by_its_most_probable_outputs(model):
    plain = model.generate("the ", beam=100, n_best=100, max_new_tokens=5)
    ordered = model.generate("the ", beam=100, n_best=100, max_new_tokens=5, mbr=True)
    assert len(plain) > MOST
    assert sorted(h.text for h in ordered[:MOST]) == sorted(h.text for h in plain[:MOST])
    assert [h.text for h in ordered[MOST:]] == [h.text for h in plain[MOST:]]
    assert np.isfinite(expected_bleu([[5], [6]], [-np.inf, -np.inf])).all()


def test_what_others_agree_with_comes_first(model):
    plain = model.generate("the ", beam=8, n_best=8, max_new_tokens=12)
    ordered = model.generate("the ", beam=8, n_best=8, max_new_tokens=12, mbr=True)
    assert sorted(h.text for h in ordered) == sorted(h.text for h in plain)
    expected = expected_bleu([h.token_ids for h in ordered], [h.score for h in ordered])
    assert (np.diff(expected) <= 0).all()
    assert [h.text for h in ordered] != [h.text for h in plain]
    (best,) = model.generate("the ", beam=8, max_new_tokens=12, mbr=True)
    assert best.text == ordered.text


def test_what_has_to_come_counts_more(model):
    found = model.generate("the ", beam=6, n_best=6, must="dog", mbr=True, max_new_tokens=12)
    assert [len(h.missing) for h in found] == sorted(len(h.missing) for h in found)
    assert "dog" in found.text


def test_turned_off_it_goes_with_sampling():
    defaults = {"beam": 5, "mbr": True}
    assert SearchOptions.make(defaults, {"mbr": False, "temperature": 0.5}).samples
    assert SearchOptions.make(defaults, {"mbr": False}).given() == {"beam": 5, "mbr": False}
    with pytest.raises(ConfigError, match="mbr and temperature exclude each other"):
        SearchOptions.make(defaults, {"mbr": True, "temperature": 0.5})


def test_it_needs_a_beam(gen, trained):
    status, _, err = gen("generate", trained, "--mbr")
    assert status == 2
    assert "--mbr needs --beam" in err
