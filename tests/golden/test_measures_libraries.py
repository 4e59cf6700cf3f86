"""Thirty-three years of the S&P 500 index, and the same measures by other people's libraries.

The series is the one that skfolio ships: 8312 daily returns, 1990-01-03 to 2022-12-28, 252 per year. Without skfolio these tests skip.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from cryptoalpha.monitoring import measures as m
from cryptoalpha.monitoring.significance import sharpe_moments

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import empyrical


def random_series():
    """Heavy tails, a drift, a quiet series and a short one."""
    rng = np.random.default_rng(0)
    return [
        0.02 * rng.standard_t(4, 1500),
        rng.normal(0.002, 0.03, 900),
        1e-6 * rng.normal(size=400),
        np.array([0.02, -0.01, 0.015, -0.03, 0.005, 0.0, 0.04, -0.02, 0.01, -0.005]),
    ]


@pytest.fixture(scope="module")
def index():
    pytest.importorskip("skfolio")
    from skfolio.datasets import load_sp500_index

    return load_sp500_index().iloc[:, 0].pct_change().dropna().to_numpy()


def test_the_known_numbers_of_the_index(index):
    drawdown, moments = m.max_drawdown(index), sharpe_moments(index)
    assert len(index) == 8312
    digits = {"rel": 0.0, "abs": 6e-12}
    assert m.sharpe_ratio(index, periods_per_year=252) == pytest.approx(0.48161858185, **digits)
    assert m.sortino_ratio(index, periods_per_year=252) == pytest.approx(0.67984587882, **digits)
    assert m.cagr(index, periods_per_year=252) == pytest.approx(0.07394632539, **digits)
    assert drawdown.depth == pytest.approx(0.56775388940, **digits)
    assert drawdown.longest_underwater == 1802
    assert m.calmar_ratio(index, periods_per_year=252) == pytest.approx(0.13024362628, **digits)
    assert m.profit_factor(index) == pytest.approx(1.09537167167, **digits)
    assert m.win_rate(index) == pytest.approx(0.53440808, abs=5e-9)
    assert moments.skewness == pytest.approx(-0.18027907, abs=5e-9)
    assert moments.kurtosis - 3.0 == pytest.approx(10.37630621, abs=5e-9)
    assert m.probabilistic_sharpe_ratio(index) == pytest.approx(0.99706023, abs=5e-9)
    assert m.min_track_record_length(index) == pytest.approx(2964.78, abs=5e-3)


def test_streaming_and_rolling_measures_of_the_index_are_the_same_numbers(index):
    metrics = m.StreamingMetrics()
    metrics.extend(index)
    drawdown = m.max_drawdown(index)
    assert (metrics.max_drawdown(), metrics.longest_underwater()) == (drawdown.depth, 1802)
    pairs = [
        (metrics.sharpe_ratio(periods_per_year=252), m.rolling_sharpe(index, 8312, periods_per_year=252)[-1], 0.48161858185),
        (metrics.sortino_ratio(periods_per_year=252), m.rolling_sortino(index, 8312, periods_per_year=252)[-1], 0.67984587882),
        (metrics.max_drawdown(), m.rolling_drawdown(index, 8312)[-1], 0.56775388940),
        (metrics.win_rate(), m.rolling_win_rate(index, 8312)[-1], m.win_rate(index)),
        (m.probabilistic_sharpe_ratio(metrics.moments()), m.probabilistic_sharpe_ratio(index), 0.99706023),
        (m.min_track_record_length(metrics.moments()), m.min_track_record_length(index), 2964.779467481),
    ]
    for streamed, rolled, known in pairs:
        assert streamed == pytest.approx(rolled, rel=1e-12)
        assert rolled == pytest.approx(known, rel=1e-8)


def assert_empyrical_agrees(r, per_year):
    close = {"rel": 1e-12, "abs": 1e-12}
    assert m.sharpe_ratio(r, periods_per_year=per_year) == pytest.approx(empyrical.sharpe_ratio(r, annualization=per_year), **close)
    assert m.sortino_ratio(r, periods_per_year=per_year) == pytest.approx(empyrical.sortino_ratio(r, annualization=per_year), **close)
    assert m.annual_volatility(r, periods_per_year=per_year) == pytest.approx(
        empyrical.annual_volatility(r, annualization=per_year), **close
    )
    assert m.cagr(r, periods_per_year=per_year) == pytest.approx(empyrical.annual_return(r, annualization=per_year), **close)
    assert m.max_drawdown(r).depth == pytest.approx(-empyrical.max_drawdown(r), **close)
    calmar = empyrical.calmar_ratio(r, annualization=per_year)
    assert m.calmar_ratio(r, periods_per_year=per_year) == pytest.approx(calmar, abs=1e-12 / m.max_drawdown(r).depth)
    assert m.omega_ratio(r) == pytest.approx(empyrical.omega_ratio(r, annualization=per_year), **close)


def test_empyrical_agrees():
    for r in random_series():
        assert_empyrical_agrees(r, 365)


def test_empyrical_agrees_on_the_index(index):
    assert_empyrical_agrees(index, 252)


def test_skfolio_agrees_on_luck(index):
    theirs = pytest.importorskip("skfolio.measures")
    trials = np.random.default_rng(0).normal(0.0, 0.03, 100)
    for r in (index, *random_series()):
        for benchmark in (0.0, 0.02):
            assert m.probabilistic_sharpe_ratio(r, benchmark=benchmark) == pytest.approx(
                theirs.probabilistic_sharpe_ratio(r, benchmark), rel=1e-12, abs=1e-12
            )
        assert m.deflated_sharpe_ratio(r, trials=trials) == pytest.approx(theirs.deflated_sharpe_ratio(r, trials), rel=1e-12, abs=1e-12)
    for count in (1, 2, 10, 50, 100, 10_000):
        assert m.expected_max_sharpe(count, spread=0.7) == pytest.approx(theirs.expected_max_sharpe_ratio(count, 0.7), rel=1e-12)


def test_skfolio_agrees_on_moments_and_the_deepest_fall(index):
    theirs = pytest.importorskip("skfolio.measures")
    for r in (index, *random_series()):
        moments = sharpe_moments(r)
        assert moments.skewness == pytest.approx(float(theirs.skew(r)), rel=1e-10, abs=1e-12)
        assert moments.kurtosis == pytest.approx(float(theirs.kurtosis(r)), rel=1e-11)
        fall = theirs.max_drawdown(theirs.get_drawdowns(r, compounded=True))
        assert m.max_drawdown(r).depth == pytest.approx(float(fall), rel=1e-11)


# the faults of the seed, with the number that each would have told


def test_the_seed_annualised_bitcoin_by_trading_days_and_forgot_the_degree_of_freedom():
    r = random_series()[3]
    told = r.mean() / r.std() * math.sqrt(252)
    assert m.sharpe_ratio(r, periods_per_year=365) / told == pytest.approx(math.sqrt(365 / 252) * math.sqrt(9 / 10), rel=1e-12)
    assert 1.19202684090 * math.sqrt(252 / 365) == pytest.approx(0.990, abs=5e-4)  # its figure for the Bitcoin series


def test_the_seed_took_the_spread_of_losses_for_the_downside():
    steady = np.array([0.03, -0.02] * 10)  # losses all alike: their deviation is nothing, and the ratio without bound
    assert steady[steady < 0].std() == pytest.approx(0.0, abs=1e-15)
    assert m.sortino_ratio(steady, periods_per_year=1) == pytest.approx(0.005 / math.sqrt(0.0002))


def test_the_seed_lost_the_first_fall_and_the_sign_of_its_limit():
    wealth = np.cumprod(1 + np.array([-0.5, 0.1]))  # without the wealth before the first return
    assert (wealth / np.maximum.accumulate(wealth) - 1).min() == 0.0
    assert m.max_drawdown([-0.5, 0.1]).depth == 0.5
    assert m.max_drawdown([-0.5, 0.1]).depth > 0.20  # a limit of 20 % trips; a negative drawdown never did


def test_the_seed_called_thirty_percent_of_flat_outcomes_down():
    rng = np.random.default_rng(2)
    outcome = np.where(rng.random(10_000) < 0.3, 0.0, rng.choice([-0.01, 0.01], 10_000))
    short = np.full(10_000, -1.0)
    assert np.mean((short > 0) == (outcome > 0)) == pytest.approx(0.65, abs=0.015)
    judged = m.directional_accuracy(short, outcome)
    assert judged.low < 0.5 < judged.high
    assert judged.flat_outcomes == (outcome == 0).sum()
