from __future__ import annotations

import numpy as np
import pytest

from gen.inputs.tokenizer import CharTokenizer
from gen.metrics.markov import MarkovChain
from gen.search.suggest import suggest
from tests.conftest import TEXT


def naive(text, order, V, bos):
    """Interpolated Witten-Bell from dictionaries: the oracle."""
    counts = [{} for _ in range(order + 1)]
    padded = [bos] * order + text
    for i in range(order, len(padded)):
        for n in range(order + 1):
            followers = counts[n].setdefault(tuple(padded[i - n : i]), {})
            followers[padded[i]] = followers.get(padded[i], 0) + 1

    def probability(history, token):
        p = 1 / V
        for n in range(order + 1):
            followers = counts[n].get(tuple(history[len(history) - n :]))
            if followers is None:
                break
            kinds, total = len(followers), sum(followers.values())
            p = (followers.get(token, 0) + kinds * p) / (total + kinds)
        return p

    return probability


@pytest.mark.parametrize("order", [0, 1, 3])
def test_fast_counts_equal_dictionaries(order):
    tokenizer = CharTokenizer.train([TEXT])
    ids = tokenizer.encode(TEXT)
    chain = MarkovChain.fit(np.array(ids), tokenizer, order)
    assert chain.order == order
    probability = naive(ids, order, len(tokenizer), tokenizer.bos_id)
    test = tokenizer.encode("the dog sat. mmm, the")
    padded = [tokenizer.bos_id] * order + test
    expected = [np.log(probability(padded[: order + i], token)) for i, token in enumerate(test)]
    np.testing.assert_allclose(chain.log_probs(np.array(test)), expected, rtol=1e-9)


def test_it_is_a_distribution_and_the_search_loop_drives_it():
    tokenizer = CharTokenizer.train([TEXT])
    chain = MarkovChain.fit(tokenizer.encode_array(TEXT * 3), tokenizer, 3)
    assert chain._next(np.array(tokenizer.encode("the"))).sum() == pytest.approx(1)
    assert chain._next(np.array(tokenizer.encode("zzz"))).sum() == pytest.approx(1)
    for how in ({"temperature": 0}, {"beam": 3}, {"seed": 1}):
        found = chain.generate("the ", max_new_tokens=15, **how)[0]
        ids = np.array(tokenizer.encode("the ") + found.token_ids)
        assert found.score == pytest.approx(chain.log_probs(ids)[4:].sum(), abs=1e-4)
        assert "".join(chain.stream("the ", max_new_tokens=15, **how)) == found.text


@pytest.mark.parametrize("kind", ["char", "word", "subword"])
def test_suggestions_complete_the_word(kind):
    from gen.inputs.subword import SubwordTokenizer
    from gen.inputs.tokenizer import WordTokenizer

    text = "the start of the state. the staff start. the stairs, the start, the cat stays.\n" * 5
    tokenizer = {
        "char": lambda: CharTokenizer.train([text]),
        "word": lambda: WordTokenizer.train([text], min_frequency=1),
        "subword": lambda: SubwordTokenizer.train([text], at_most=True),
    }[kind]()
    chain = MarkovChain.fit(tokenizer.encode_array(text), tokenizer, 3)
    found = suggest(chain, "the sta", n_best=4)
    words = [word for word, _ in found]
    assert words[0] == "start"
    assert all(word.startswith("sta") for word in words)
    assert len(set(words)) == len(words) == 4
    probabilities = [p for _, p in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) <= 1 + 1e-6


def test_suggested_probabilities_are_exact_for_characters():
    """All words a chain can write after a prompt, by hand: their probabilities add up to one."""
    text = "a ab abc. "
    tokenizer = CharTokenizer.train([text])
    chain = MarkovChain.fit(tokenizer.encode_array(text * 50), tokenizer, 4)
    found = dict(suggest(chain, ". a", n_best=20, width=64))

    def p(after, token):
        ids = np.array(tokenizer.encode(after + token))
        return float(np.exp(chain.log_probs(ids)[-1]))

    assert found["a"] == pytest.approx(p(". a", " ") + p(". a", "."), rel=0.05)  # and EOS, which is rare
    assert 0.9 < sum(found.values()) <= 1 + 1e-6
