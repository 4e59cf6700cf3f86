"""The probability of backtest overfitting against a plain loop over all halves, and on trials whose answer is known."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring import measures as m


def by_the_book(x, blocks):
    """The steps of the paper one by one, on the rows themselves."""
    rows = len(x) // blocks
    parts = np.split(x[len(x) - rows * blocks :], blocks)
    logits, inside, outside = [], [], []
    for chosen in combinations(range(blocks), blocks // 2):
        train = np.concatenate([parts[k] for k in chosen])
        test = np.concatenate([parts[k] for k in range(blocks) if k not in chosen])
        first, second = train.mean(0) / train.std(0, ddof=1), test.mean(0) / test.std(0, ddof=1)
        best = int(np.argmax(first))
        omega = sum(1 for value in second if value <= second[best]) / (len(second) + 1)
        logits.append(math.log(omega / (1 - omega)))
        inside.append(first[best])
        outside.append(second[best])
    return np.array(logits), np.array(inside), np.array(outside)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), trials=st.integers(2, 12), blocks=st.sampled_from([2, 4, 6, 8]), spare=st.integers(0, 5))
def test_it_equals_the_loop_over_all_halves(seed, trials, blocks, spare):
    x = np.random.default_rng(seed).normal(0.001, 0.02, (blocks * 7 + spare, trials))
    ours = m.probability_of_backtest_overfitting(x, blocks=blocks)
    logits, inside, outside = by_the_book(x, blocks)
    np.testing.assert_allclose(ours.logits, logits, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.inside, inside, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(ours.outside, outside, rtol=1e-10, atol=1e-13)
    assert ours.probability == np.mean(logits <= 0)
    assert ours.loss_probability == np.mean(outside < 0)
    assert ours.degradation == pytest.approx(np.polyfit(inside, outside, 1)[0], rel=1e-8, abs=1e-10)


def test_a_pick_among_worthless_trials_is_as_good_as_a_coin():
    rng = np.random.default_rng(3)
    found = [m.probability_of_backtest_overfitting(rng.normal(size=(320, 20)), blocks=10).probability for _ in range(60)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.09)  # a single history scatters by about .2


def test_one_truly_better_trial_is_found_again():
    rng = np.random.default_rng(4)
    x = rng.normal(0.0, 0.01, (1000, 30))
    x[:, 7] += 0.004
    found = m.probability_of_backtest_overfitting(x)
    assert len(found.logits) == math.comb(16, 8)
    assert found.probability < 0.01
    assert found.loss_probability < 0.01
    assert (found.trials, found.blocks, found.rows) == (30, 16, 992)


def test_trials_that_only_mirror_each_other_are_always_overfitted():
    # of a series and its negative over zero-sum halves: what won inside must lose outside
    x = np.random.default_rng(5).normal(size=200)
    x -= x.mean()
    found = m.probability_of_backtest_overfitting(np.stack((x, -x), axis=1), blocks=8)
    assert found.probability == 1.0
    assert found.degradation < 0.0


def test_idle_trials_have_a_sharpe_of_zero_and_ties_share_a_rank():
    found = m.probability_of_backtest_overfitting(np.zeros((40, 3)), blocks=4)
    assert found.logits.tolist() == [0.0] * 6  # rank 2 of 3: the middle
    assert found.loss_probability == 0.0
    assert math.isnan(found.probability)
    assert math.isnan(found.degradation)
    assert found.reason == "all trials are alike: there is nothing to pick"
    idle = np.random.default_rng(6).normal(0.1, 0.01, (40, 2)) * [1.0, 0.0]
    assert m.probability_of_backtest_overfitting(idle, blocks=4).probability == 0.0


def test_chunks_do_not_change_the_answer(monkeypatch):
    from cryptoalpha.monitoring import overfitting

    x = np.random.default_rng(8).normal(size=(64, 5))
    whole = m.probability_of_backtest_overfitting(x, blocks=8)
    monkeypatch.setattr(overfitting, "_CELLS_AT_ONCE", 17)
    parts = m.probability_of_backtest_overfitting(x, blocks=8)
    assert parts.logits.tobytes() == whole.logits.tobytes()
    assert parts.degradation == whole.degradation


@pytest.mark.parametrize(
    ("shape", "blocks", "error", "words"),
    [
        ((40, 3), 5, ConfigError, "even"),
        ((40, 3), 22, ConfigError, "even"),
        ((40,), 4, DataError, "shape"),
        ((40, 1), 4, DataError, "two trials"),
        ((7, 3), 4, DataError, "two per block"),
    ],
)
def test_what_makes_no_sense_is_refused(shape, blocks, error, words):
    with pytest.raises(error, match=words):
        m.probability_of_backtest_overfitting(np.ones(shape), blocks=blocks)


def test_a_missing_return_is_refused():
    x = np.ones((40, 3))
    x[3, 1] = math.nan
    with pytest.raises(DataError, match="NaN"):
        m.probability_of_backtest_overfitting(x, blocks=4)
