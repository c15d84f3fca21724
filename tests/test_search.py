"""Search against a fake model: a table of logits by the last token. Readable, exact, both array libraries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from gen.base.errors import UserError
from gen.search import (
    BannedTokens,
    Beam,
    DiverseBeam,
    ForcedPrefix,
    Greedy,
    MinLength,
    NoRepeatNgram,
    Processor,
    RepetitionPenalty,
    Sample,
    SearchOptions,
    StopStrings,
    drain,
    search,
)
from gen.search.ops import NumpyOps, TorchOps

PAD, BOS, EOS = 0, 1, 2


class State:
    """Knows the tokens each row has read, so a wrong `select` shows."""

    def __init__(self, history):
        self.history = history

    def select(self, rows):
        return State([self.history[r] for r in rows.tolist()])

    def keep(self, inputs, rows):
        return self.select(rows)


def table_step(table, ops):
    """A model whose log-probabilities depend on the last two tokens it has really read in this row."""

    def step(token_ids, state):
        read = ops.numpy(token_ids).tolist()
        history = [h + row for h, row in zip(state.history, read, strict=True)]
        rows = [table[(h[-2] if len(h) > 1 else PAD, h[-1])] for h in history]
        return ops.log_softmax(ops.asarray(np.stack(rows), "float32")), State(history), None

    return step


@pytest.fixture(params=["numpy", "torch"])
def ops(request):
    return NumpyOps() if request.param == "numpy" else TorchOps()


def make_table(V=4, seed=0, sharp=2.0):
    return (np.random.default_rng(seed).normal(size=(V, V, V)) * sharp).astype(np.float32)


def run(table, ops, strategy, prompts=((BOS,),), processors=(), max_new_tokens=6):
    running = search(
        table_step(table, ops),
        State([[] for _ in prompts]),
        [list(p) for p in prompts],
        strategy,
        ops=ops,
        eos_id=EOS,
        pad_id=PAD,
        max_new_tokens=max_new_tokens,
        processors=processors,
    )
    return drain(running)


def log_softmax(x):
    x = x.astype(np.float64)
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


def score_of(table, prompt, tokens):
    """The log-probability of tokens after a prompt, by hand."""
    history, total = list(prompt), 0.0
    for token in tokens:
        before = history[-2] if len(history) > 1 else PAD
        total += log_softmax(table[before, history[-1]])[token]
        history.append(token)
    return total


def same(a, b):
    return [[h.token_ids for h in hs] for hs in a] == [[h.token_ids for h in hs] for hs in b]


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy_is_cold_is_top_one(ops, seed):
    table = make_table(9, seed)
    greedy = run(table, ops, Greedy())
    assert same(greedy, run(table, ops, Beam(1)))
    assert same(greedy, run(table, ops, Sample(0.0)))
    assert same(greedy, run(table, ops, Sample(1.0, top_k=1, seed=7)))


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_is_exhaustive_search(ops, seed, penalty):
    table, longest = make_table(4, seed), 4
    free = [t for t in range(4) if t not in (PAD, EOS)]
    everything = [[*body, EOS] for n in range(longest) for body in itertools.product(free, repeat=n)] + [
        list(body) for body in itertools.product(free, repeat=longest)
    ]
    scored = [(score_of(table, [BOS], y) / ((5 + len(y)) / 6) ** penalty, y) for y in everything]
    best = sorted(scored, key=lambda item: -item[0])[:5]
    found = run(table, ops, Beam(64, length_penalty=penalty, n_best=5), max_new_tokens=longest)[0]
    for (value, y), hypothesis in zip(best, found, strict=True):
        assert hypothesis.token_ids == [t for t in y if t != EOS]
        assert hypothesis.finished == (y[-1] == EOS)
        assert hypothesis.score / ((5 + len(y)) / 6) ** penalty == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_narrow_beam_keeps_what_a_list_would(ops, seed, penalty):
    """What has ended competes with what goes on, each by its own length."""
    table, width, longest = make_table(8, seed, sharp=1.0), 3, 7
    kept = [([], 0.0)]
    for _ in range(longest):
        ended = [(y, score) for y, score in kept if y[-1:] == [EOS]]
        longer = [[*y, token] for y, _ in kept if y[-1:] != [EOS] for token in range(8) if token != PAD]
        found = ended + [(y, score_of(table, [BOS], y)) for y in longer]
        kept = sorted(found, key=lambda item: -item[1] / ((5 + len(item[0])) / 6) ** penalty)[:width]
    hypotheses = run(table, ops, Beam(width, length_penalty=penalty, n_best=width), max_new_tokens=longest)[0]
    assert [h.token_ids + [EOS] * h.finished for h in hypotheses] == [y for y, _ in kept]
    assert [h.score for h in hypotheses] == pytest.approx([score for _, score in kept], abs=1e-4)


@pytest.mark.parametrize("strategy", [Greedy(), Sample(1.3, seed=3), Beam(4, n_best=4)])
def test_reported_scores_are_the_models_own(ops, strategy):
    table = make_table(7, 1, sharp=1.0)
    prompts = [[BOS], [BOS, 4, 5]]
    processors = [RepetitionPenalty(1.5), MinLength(3, EOS)]
    for prompt, hypotheses in zip(prompts, run(table, ops, strategy, prompts, processors), strict=True):
        for h in hypotheses:
            tokens = h.token_ids + ([EOS] if h.finished else [])
            assert h.score == pytest.approx(score_of(table, prompt, tokens), abs=1e-4)
            assert len(h.log_probs) == len(tokens)
            assert sum(h.log_probs) == pytest.approx(h.score)


@pytest.mark.parametrize("strategy", [Greedy(), Sample(1.0, seed=5, num_samples=2), Beam(3, n_best=2)])
def test_same_result_alone_or_beside_longer_prompts(ops, strategy):
    table = make_table(8, 2, sharp=1.0)
    prompts = [[BOS], [BOS, 5, 6, 7, 4, 5], [BOS, 3], [BOS, 4, 4, 4]]
    together = run(table, ops, strategy, prompts, max_new_tokens=12)
    for prompt, result in zip(prompts, together, strict=True):
        alone = run(table, ops, strategy, [prompt], max_new_tokens=12)
        assert same([result], alone)
        for a, b in zip(result, alone[0], strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-5)


def test_both_array_libraries_agree():
    table = make_table(30, 3, sharp=1.0)
    prompts = [[BOS], [BOS, 5, 6]]
    ways = (Greedy(), Beam(5, n_best=5), Sample(0.9, top_k=10, top_p=0.9, seed=1, num_samples=3))
    for strategy in ways:
        a, b = run(table, NumpyOps(), strategy, prompts), run(table, TorchOps(), strategy, prompts)
        assert same(a, b)


def test_beams_are_sorted_and_distinct(ops):
    found = run(make_table(6, 4), ops, Beam(8, length_penalty=0.0, n_best=8))[0]
    scores = [h.score for h in found]
    assert scores == sorted(scores, reverse=True)
    assert len({(tuple(h.token_ids), h.finished) for h in found}) == len(found)


def frequencies(ops, logits, n=4000, **how):
    V = len(logits)
    table = np.broadcast_to(np.asarray(logits, np.float32), (V, V, V))
    found = run(table, ops, Sample(num_samples=n, **how), max_new_tokens=1)[0]
    tokens = [h.token_ids[0] if h.token_ids else EOS for h in found]
    return np.bincount(tokens, minlength=V) / n


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_frequencies_match_the_softmax(ops, temperature):
    logits = np.array([-np.inf, -2.0, 0.0, 1.0, 0.5, -1.0])
    expected = np.exp(log_softmax(logits / temperature))
    np.testing.assert_allclose(frequencies(ops, logits, temperature=temperature), expected, atol=0.03)


def test_filters_keep_what_they_should(ops):
    p = np.array([0, 0.05, 0.1, 0.4, 0.3, 0.15])
    with np.errstate(divide="ignore"):
        logits = np.log(p)

    def kept(**how):
        return set(np.flatnonzero(frequencies(ops, logits, **how)).tolist())

    assert kept(top_k=2) == {3, 4}
    assert kept(top_p=0.6) == {3, 4}  # 0.4 does not reach it, 0.7 does
    assert kept(top_p=0.75) == {3, 4, 5}
    assert kept(min_p=0.3) == {3, 4, 5}  # at least 0.12
    assert kept(top_k=3, top_p=0.5) == {3, 4}
    np.testing.assert_allclose(frequencies(ops, logits, top_k=2)[[3, 4]], [4 / 7, 3 / 7], atol=0.03)
    flat = np.array([-np.inf, 0.0, 0.0, 0.0, 0.0])
    assert len(np.flatnonzero(frequencies(ops, flat, top_p=0.45))) == 2  # ties do not all get in


def test_seeds_repeat_and_differ(ops):
    table = make_table(20, 5, sharp=0.3)
    a, b, c = (run(table, ops, Sample(seed=s), max_new_tokens=30) for s in (1, 1, 2))
    assert same(a, b)
    assert not same(a, c)
    two = run(table, ops, Sample(seed=1, num_samples=2), max_new_tokens=30)[0]
    assert two[0].token_ids == a[0][0].token_ids  # the first sample does not depend on how many follow
    assert two[0].token_ids != two[1].token_ids


def test_long_samples_never_run_out_of_random_numbers(ops):
    table = make_table(20, 5, sharp=0.3)
    table[:, :, EOS] = -np.inf
    found = run(table, ops, Sample(seed=1), max_new_tokens=600)[0][0]
    assert len(found.token_ids) == 600
    assert not found.finished


def test_the_length_limit_is_an_ordinary_end(ops):
    table = make_table(6, 6)
    table[:, :, EOS] = -np.inf
    for strategy in (Greedy(), Beam(3), Sample()):
        h = run(table, ops, strategy, [[BOS], [BOS, 3, 4, 5]], max_new_tokens=4)
        assert [len(x[0].token_ids) for x in h] == [4, 4]
        assert not h[0][0].finished


def test_processors(ops):
    table = make_table(6, 7)
    strategies = (Greedy(), Sample(seed=1), Beam(3, n_best=3))
    for strategy in strategies:
        for h in run(table, ops, strategy, processors=[MinLength(4, EOS)])[0]:
            assert len(h.token_ids) >= 4
        for h in run(table, ops, strategy, processors=[BannedTokens([3, BOS])])[0]:
            assert not {3, BOS} & set(h.token_ids)
        again = [NoRepeatNgram(1, forced=3), ForcedPrefix([5, 3, 5])]
        for h in run(table, ops, strategy, processors=again)[0]:
            assert h.token_ids[:3] == [5, 3, 5]
            assert not {3, 5} & set(h.token_ids[3:])
        for h in run(table, ops, strategy, processors=[ForcedPrefix([5, 3, 5])])[0]:
            assert h.token_ids[:3] == [5, 3, 5]
        for h in run(table, ops, strategy, [[BOS, 3, 4]], [NoRepeatNgram(2), MinLength(8, EOS)], 12)[0]:
            whole = [BOS, 3, 4, *h.token_ids]
            pairs = list(itertools.pairwise(whole))
            assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("strategy", [Greedy(), Beam(2)])
def test_the_shortest_output_is_as_long_as_asked_for(ops, strategy):
    table = make_table(6, 7)
    table[:, :, EOS] = 50
    found = run(table, ops, strategy, processors=[MinLength(3, EOS)])[0][0]
    assert (len(found.token_ids), found.finished) == (3, True)


def test_repetition_penalty_makes_what_was_seen_less_likely(ops):
    table = np.broadcast_to(np.array([0, 0, -9, 2.0, 1.9, -5], np.float32), (6, 6, 6))
    plain = run(table, ops, Greedy())[0][0].token_ids
    assert plain == [3] * 6
    other = run(table, ops, Greedy(), processors=[RepetitionPenalty(2.0)])[0][0].token_ids
    assert other[:2] == [3, 4]


@pytest.mark.parametrize("seed", range(3))
def test_what_processors_remember_follows_the_beam(ops, seed):
    """A wide beam finds what an exhaustive search does in which every text remembers its own tokens."""
    table, prompt, longest, penalty, stop = make_table(5, seed, sharp=1.0), [BOS, 3], 4, 1.7, "43"

    def value(y):  # None: no such output
        history, total = list(prompt), 0.0
        for place, token in enumerate(y):
            if stop in "".join(map(str, y[:place])) or (history[-1], token) in itertools.pairwise(history):
                return None
            own = log_softmax(table[history[-2], history[-1]])[token]
            total += own * (penalty if token in history else 1)
            history.append(token)
        return total if len(y) == longest or y[-1] == EOS or stop in "".join(map(str, y)) else None

    every = [
        [*body, last]
        for n in range(longest)
        for body in itertools.product([BOS, 3, 4], repeat=n)
        for last in (BOS, EOS, 3, 4)
    ]
    best = sorted((y for y in every if value(y) is not None), key=value, reverse=True)[:8]
    processors = [
        RepetitionPenalty(penalty),
        NoRepeatNgram(2),
        StopStrings([stop], lambda ids: "".join(map(str, ids))),
    ]
    beam = Beam(128, length_penalty=0.0, n_best=8)
    found = run(table, ops, beam, [prompt], processors, max_new_tokens=longest)[0]
    for y, hypothesis in zip(best, found, strict=True):
        assert hypothesis.token_ids == [token for token in y if token != EOS]
        assert hypothesis.finished == (y[-1] == EOS or stop in "".join(map(str, y)))
        assert hypothesis.score == pytest.approx(score_of(table, prompt, y), abs=1e-4)


def test_when_everything_is_forbidden_a_row_ends(ops):
    table = make_table(5, 8)
    for strategy in (Greedy(), Sample(seed=1), Beam(2)):
        found = run(table, ops, strategy, processors=[BannedTokens(range(5))])[0]
        assert found[0].token_ids == []
        assert not found[0].finished


def test_a_row_without_a_way_on_stays_ended_beside_others(ops):
    """Everything is forbidden in one step, and no longer in the next: other rows still run."""

    class Third(Processor):
        def start(self, ops, prompts, vocab_size):
            self.steps = 0

        def __call__(self, log_probs, lengths):
            self.steps += 1
            if self.steps == 3:
                log_probs[0] = -np.inf
            return log_probs

    table = make_table(6, 3, sharp=1.0)
    table[:, :, EOS] = -50
    for strategy in (Greedy(), Sample(seed=1)):
        alone = run(table, ops, strategy, [[BOS, 3]], [Third()])
        assert len(alone[0][0].token_ids) == 2
        assert same(run(table, ops, strategy, [[BOS, 3], [BOS, 4]], [Third()])[:1], alone)


def test_stop_strings_end_a_row_wherever_tokens_break(ops):
    words = ["", "", "", "a", "b", "ab", "c"]
    table = np.full((7, 7, 7), -9.0, np.float32)
    for last, then in {BOS: 3, 3: 6, 6: 5, 5: 4}.items():  # a c ab b ...
        table[:, last, then] = 9
    stop = StopStrings(["bb"], lambda ids: "".join(words[i] for i in ids))
    found = run(table, ops, Greedy(), processors=[stop])[0][0]
    assert found.token_ids == [3, 6, 5, 4]
    assert found.finished


def test_a_finished_row_waits_with_padding_at_no_cost(ops):
    table = make_table(5, 9)
    table[:, 3, EOS] = 50
    table[:, 4, EOS] = -50
    running = search(
        table_step(table, ops),
        State([[] for _ in range(6)]),
        [[BOS, 3], *[[BOS, 4]] * 5],  # one in six is too few to leave
        Greedy(),
        ops=ops,
        eos_id=EOS,
        pad_id=PAD,
        max_new_tokens=5,
    )
    columns = list(running)
    assert ops.numpy(columns[0].token_ids)[0] == EOS
    assert all(ops.numpy(c.token_ids)[0] == PAD and not bool(c.live[0]) for c in columns[1:])
    assert all(float(c.log_probs[0]) == 0 for c in columns[1:])


@pytest.mark.parametrize(
    "strategy",
    [Greedy(), Sample(seed=3, num_samples=2), Beam(3, n_best=3), DiverseBeam(4, groups=2, n_best=4)],
    ids=lambda s: type(s).__name__,
)
def test_inputs_that_have_ended_leave(strategy):
    """With numpy they do, with torch they stay: the same comes of it, from fewer rows."""
    table = make_table(7, 5)
    prompts = [[BOS, *[3 + (i * j) % 4 for j in range(i % 3)]] for i in range(32)]

    def searched(ops):
        step, sizes = table_step(table, ops), []

        def spied(token_ids, state):
            sizes.append(len(token_ids))
            log_probs, state, _ = step(token_ids, state)
            where = [[len(h), h[-1], h[0]] for h in state.history]
            return log_probs, state, ops.asarray(where, "float32")

        processors = [
            MinLength(2, EOS),
            NoRepeatNgram(3),
            RepetitionPenalty(1.1),
            StopStrings(["55"], lambda ids: "".join(map(str, ids))),
        ]
        running = search(
            spied,
            State([[] for _ in prompts]),
            prompts,
            strategy,
            ops=ops,
            eos_id=EOS,
            pad_id=PAD,
            max_new_tokens=[4 + i for i in range(32)],
            processors=processors,
            keep_attention=True,
        )
        return drain(running), sizes

    (ours, fewer), (theirs, all_rows) = searched(NumpyOps()), searched(TorchOps())
    assert all(size == 32 * strategy.width for size in all_rows[1:])
    assert len(fewer) == len(all_rows)
    assert sum(fewer) < 0.9 * sum(all_rows)
    for a, b in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert (a.token_ids, a.finished) == (b.token_ids, b.finished)
        assert a.score == pytest.approx(b.score, abs=1e-4)
        assert a.attention.tolist() == b.attention.tolist()


@torch.no_grad()
def test_a_beam_carries_the_state_of_its_parents(model):
    """With a real decoder: the beam's scores are those of teacher forcing."""
    for prompt in ("the ", ""):
        for h in model.generate(prompt, beam=4, n_best=4, max_new_tokens=12, length_penalty=0.5):
            ids = [model.tokenizer.bos_id, *model.tokenizer.encode(prompt), *h.token_ids]
            memory = model.encoder(model.encoder.prepare([""]).source)
            logits = model.decoder(torch.tensor([ids]), model.decoder.init_state(memory), memory).logits[0]
            log_probs = logits.log_softmax(-1)
            first = len(ids) - len(h.token_ids)
            total = sum(float(log_probs[i - 1, ids[i]]) for i in range(first, len(ids)))
            total += float(log_probs[-1, EOS]) if h.finished else 0.0
            assert h.score == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_groups_that_do_not_avoid_each_other_are_beams_of_their_own(ops, seed):
    table = make_table(9, seed)
    alone = run(table, ops, Beam(2, n_best=2))[0]
    together = run(table, ops, DiverseBeam(6, groups=3, diversity=0.0, n_best=6))[0]
    assert [h.token_ids for h in together] == [h.token_ids for h in alone for _ in range(3)]


def test_groups_avoid_each_other(ops):
    table, prompts = make_table(9, 1), ((BOS,), (3,))
    best = run(table, ops, Beam(1), prompts)
    diverse = run(table, ops, DiverseBeam(4, groups=4, diversity=9.0, n_best=4), prompts)
    for one, several, prompt in zip(best, diverse, prompts, strict=True):
        assert len({tuple(h.token_ids[:1]) for h in several}) == 4
        assert one[0].token_ids in [h.token_ids for h in several]  # the first group knows of no other
        for h in several:  # scores are the model's own, without the penalty
            assert h.score == pytest.approx(score_of(table, prompt, h.token_ids + [EOS] * h.finished), rel=1e-4)


@pytest.mark.parametrize(("diversity", "thirds"), [(0.4, [[3, 3], [4, 3]]), (0.6, [[3, 4], [4, 4]])])
def test_a_group_pays_for_every_row_before_it_that_took_the_token(ops, diversity, thirds):
    """Both rows of the first go on with 3, which is 1 nat ahead of 4, so that the second pays twice for it."""
    table = np.full((5, 5, 5), -9.0, np.float32)
    table[:, BOS, 3:], table[:, 3:, 3:] = [0, -0.01], [0, -1]
    found = run(table, ops, DiverseBeam(4, groups=2, diversity=diversity, n_best=4), max_new_tokens=2)[0]
    assert sorted(h.token_ids for h in found) == sorted([[3, 3], [4, 3], *thirds])


@pytest.mark.parametrize("reward", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_coverage_and_length_are_rewarded_as_in_an_exhaustive_search(ops, seed, reward):
    table, longest, beta, penalty = make_table(5, seed, sharp=1.0), 4, 0.8, 0.6
    mask = np.array([[True, True, True, False]])

    def weights(history):  # of the token after it
        raw = np.exp(table[history[-1], history[-2] if len(history) > 1 else PAD, :4]) * mask[0]
        return raw / raw.sum()

    step = table_step(table, ops)

    def looking(token_ids, state):
        log_probs, state, _ = step(token_ids, state)
        return log_probs, state, ops.asarray(np.stack([weights(h) for h in state.history]), "float32")

    def value(y):
        covered = sum(weights([BOS, *y[:n]]) for n in range(len(y)))[:3]
        norm = ((5 + len(y)) / 6) ** penalty
        return (score_of(table, [BOS], y) + reward * len(y)) / norm + beta * np.log(np.minimum(covered, 1)).sum()

    free = [t for t in range(5) if t not in (PAD, EOS)]
    everything = [[*body, EOS] for n in range(longest) for body in itertools.product(free, repeat=n)]
    everything += [list(body) for body in itertools.product(free, repeat=longest)]
    best = sorted(everything, key=value, reverse=True)[:3]
    strategy = Beam(256, n_best=3, length_penalty=penalty, coverage_penalty=beta, length_reward=reward)
    strategy.mask = mask
    settings = {"ops": ops, "eos_id": EOS, "pad_id": PAD, "max_new_tokens": longest}
    found = drain(search(looking, State([[]]), [[BOS]], strategy, **settings))[0]
    assert [h.token_ids + [EOS] * h.finished for h in found] == best
    assert found[0].score == pytest.approx(score_of(table, [BOS], best[0]), abs=1e-4)
    with pytest.raises(UserError, match="has no attention"):
        run(table, ops, strategy)


def test_groups_divide_the_beam():
    with pytest.raises(UserError, match="beam_groups 3 does not divide beam=4"):
        DiverseBeam(4, groups=3)
    for wrong in ({"beam": 4, "beam_groups": 3}, {"beam": 4, "diversity": 0.5}, {"beam_groups": 2}):
        assert SearchOptions(**wrong).errors()
    assert not SearchOptions(beam=4, beam_groups=2, diversity=0.5).errors()


def test_independent_samples_of_equal_inputs_differ(ops):
    table, prompts = make_table(9, 2, sharp=0.5), ((BOS,),) * 6
    shared = run(table, ops, Sample(seed=3), prompts)
    assert len({tuple(several[0].token_ids) for several in shared}) == 1
    own = run(table, ops, Sample(seed=3, independent=True), prompts)
    assert len({tuple(several[0].token_ids) for several in own}) > 3
    assert same(own, run(table, ops, Sample(seed=3, independent=True), prompts))
