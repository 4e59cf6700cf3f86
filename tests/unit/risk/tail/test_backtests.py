"""Tests of tail forecasts: known examples, likelihoods written out, and their false alarms under the null."""

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.risk.tail.backtests import (
    christoffersen_independence,
    compare_pinball,
    conditional_coverage,
    es_backtest,
    kupiec_pof,
    pinball_losses,
    transitions,
)
from cryptoalpha.risk.tail.laws import normal_factors


@pytest.mark.parametrize(
    ("hits", "observations", "statistic"),
    [(7, 255, 5.316341), (18, 1000, 5.225141), (0, 250, 5.025168)],
)
def test_known_examples_of_kupiec(hits, observations, statistic):
    assert kupiec_pof(hits, observations, 0.99).statistic == pytest.approx(statistic, abs=1e-6)


def test_the_p_value_of_seven_in_255():
    assert kupiec_pof(7, 255, 0.99).p_value == pytest.approx(0.021126, abs=5e-7)


@pytest.mark.parametrize(
    ("observations", "level", "least", "most"),
    [(250, 0.99, 1, 6), (365, 0.99, 1, 7), (500, 0.99, 2, 9), (1000, 0.99, 5, 16), (365, 0.95, 11, 26)],
)
def test_how_many_hits_pass(observations, level, least, most):
    accepted = [hits for hits in range(observations + 1) if kupiec_pof(hits, observations, level).accepts()]
    assert accepted == list(range(least, most + 1))


def test_independence_is_the_ratio_of_two_likelihoods_written_out():
    hits = np.array([0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    # counted along the row
    n00, n01, n10, n11 = 10, 3, 3, 3
    p, p0, p1 = 6 / 19, 3 / 13, 3 / 6
    together = math.log((1 - p) ** 13 * p**6)
    apart = math.log((1 - p0) ** n00 * p0**n01 * (1 - p1) ** n10 * p1**n11)
    assert christoffersen_independence(hits).statistic == pytest.approx(2 * (apart - together), rel=1e-12)
    both = conditional_coverage(hits, 0.8)
    assert both.statistic == pytest.approx(2 * (apart - together) + kupiec_pof(6, 20, 0.8).statistic)
    assert both.p_value == pytest.approx(math.exp(-both.statistic / 2))


def test_states_are_counted_from_the_day_before():
    assert transitions(np.array([False, False, True, False, True, True])) == (1, 2, 1, 1)  # n00, n01, n10, n11


def test_tails_of_chi_squared():
    special = pytest.importorskip("scipy.special")
    hits = np.random.default_rng(0).random(300) < 0.05
    for found, degrees in (
        (kupiec_pof(9, 300, 0.99), 1),
        (christoffersen_independence(hits), 1),
        (conditional_coverage(hits, 0.99), 2),
    ):
        assert found.p_value == pytest.approx(special.chdtrc(degrees, found.statistic), rel=1e-10)


def test_no_hits_and_only_hits_are_defined():
    assert christoffersen_independence(np.zeros(50, dtype=bool)).p_value == 1.0
    assert christoffersen_independence(np.ones(50, dtype=bool)).p_value == 1.0
    assert kupiec_pof(50, 50, 0.99).p_value < 1e-50


def test_too_little_to_judge_is_nan_with_a_reason_and_not_accepted():
    for found in (
        kupiec_pof(0, 0, 0.99),
        christoffersen_independence(np.ones(1, dtype=bool)),
        conditional_coverage(np.ones(1, dtype=bool), 0.9),
    ):
        assert math.isnan(found.statistic)
        assert math.isnan(found.p_value)
        assert found.reason
        assert not found.accepts()


def test_what_is_no_hit_series_is_refused():
    with pytest.raises(DataError, match="booleans"):
        christoffersen_independence([0.01, -0.02])
    for hits, observations in ((1.5, 100), (1, 100.5)):
        with pytest.raises(ConfigError, match="whole numbers"):
            kupiec_pof(hits, observations, 0.99)
    with pytest.raises(ConfigError, match="3 hits in 2"):
        kupiec_pof(3, 2, 0.99)


def test_kupiec_rejects_a_right_model_in_one_case_of_twenty():
    counts = np.random.default_rng(11).binomial(1000, 0.05, 20_000)
    rejects = {hits: not kupiec_pof(int(hits), 1000, 0.95).accepts() for hits in np.unique(counts)}
    assert np.mean([rejects[hits] for hits in counts]) == pytest.approx(0.05, abs=0.01)


def test_independence_finds_clusters_and_seldom_finds_what_is_not_there():
    rng = np.random.default_rng(12)
    false_alarms = np.mean([not christoffersen_independence(rng.random(2000) < 0.05).accepts() for _ in range(2000)])
    assert 0.02 < false_alarms < 0.09
    clustered = np.repeat(rng.random(1000) < 0.05, 2)
    assert christoffersen_independence(clustered).p_value < 1e-20


def flat(level, count):
    var, es = normal_factors(level)
    return np.full(count, var), np.full(count, es)


def test_the_critical_value_of_a_normal_model():
    # −0.70 at 5 %, level .975 and 250 days (Acerbi & Szekely, table)
    var, es = flat(0.975, 250)
    rng = np.random.default_rng(13)
    draws = rng.standard_normal((20_000, 250))
    statistics = 1 - np.where(draws > var, draws / es, 0.0).sum(axis=1) / (250 * 0.025)
    assert np.mean(statistics) == pytest.approx(0.0, abs=0.01)
    assert np.quantile(statistics, 0.05) == pytest.approx(-0.70, abs=0.02)


def test_es_backtest_accepts_the_right_law_and_refuses_one_that_is_too_mild():
    var, es = flat(0.975, 250)

    def simulate(rng):
        return rng.standard_normal(250)

    rng = np.random.default_rng(14)
    right = [es_backtest(rng.standard_normal(250), var, es, level=0.975, simulate=simulate, resamples=200).accepts() for _ in range(200)]
    assert np.mean(right) == pytest.approx(0.95, abs=0.045)
    mild = es_backtest(2.0 * rng.standard_normal(250), var, es, level=0.975, simulate=simulate)
    assert mild.statistic < -0.7
    assert mild.p_value < 0.001


def test_es_backtest_by_hand():
    found = es_backtest([3.0, 0.0, 0.0, 0.0], [2.0] * 4, [2.5] * 4, level=0.75, simulate=lambda rng: np.zeros(4), resamples=10)
    assert found.statistic == pytest.approx(1 - (3.0 / 2.5) / (4 * 0.25))
    assert found.p_value == pytest.approx(1 / 11)  # the null never lost a thing
    same = es_backtest([3.0, 0.0], [2.0] * 2, [2.5] * 2, level=0.75, simulate=lambda rng: np.array([3.0, 0.0]), resamples=10)
    assert same.p_value == 1.0  # what the null itself does is no evidence against it
    with pytest.raises(DataError, match="positive"):
        es_backtest([1.0], [0.0], [0.0], level=0.9, simulate=lambda rng: np.zeros(1))
    with pytest.raises(DataError, match="equally many"):
        es_backtest([1.0, 2.0], [0.1], [0.2], level=0.9, simulate=lambda rng: np.zeros(2))
    assert es_backtest([], [], [], level=0.9, simulate=lambda rng: np.zeros(0)).reason == "no observations"


def test_the_pinball_loss_is_least_at_the_true_quantile():
    losses = np.random.default_rng(15).standard_normal(200_000)
    scores = {v: pinball_losses(losses, np.full(losses.size, v), 0.9).mean() for v in (1.0, 1.2, 1.2816, 1.4, 1.6)}
    assert min(scores, key=scores.get) == 1.2816
    assert pinball_losses([3.0, 1.0], [2.0, 2.0], 0.9) == pytest.approx([0.9, 0.1])


def test_two_methods_are_compared_by_blocks():
    losses = np.random.default_rng(16).standard_normal(1500)
    good, bad = np.full(1500, 2.33), np.full(1500, 6.0)
    found = compare_pinball(losses, good, bad, level=0.99, resamples=300)
    assert found.high < 0.0
    assert found.estimate == pytest.approx(pinball_losses(losses, good, 0.99).mean() - pinball_losses(losses, bad, 0.99).mean())
