"""Measures of one short series worked out by hand, and the published numbers of the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.monitoring import measures as m
from cryptoalpha.monitoring.significance import SharpeMoments, sharpe_moments

TOY = [0.02, -0.01, 0.015, -0.03, 0.005, 0.0, 0.04, -0.02, 0.01, -0.005]


def close(value: float) -> object:
    return pytest.approx(value, rel=0.0, abs=5e-11)


def test_toy_series():
    drawdown = m.max_drawdown(TOY)
    assert m.sharpe_ratio(TOY, periods_per_year=365) == close(2.35165963317)
    assert m.sortino_ratio(TOY, periods_per_year=365) == close(4.00109634098)
    assert m.cagr(TOY, periods_per_year=365) == close(1.32579914492)
    assert m.profit_factor(TOY) == close(1.38461538462)
    assert m.win_rate(TOY) == 0.5
    assert drawdown.depth == close(0.03)
    assert drawdown.longest_underwater == 3
    assert (drawdown.peak, drawdown.trough, drawdown.recovery) == (3, 4, 7)


def test_toy_significance():
    moments = sharpe_moments(TOY)
    assert moments.skewness == pytest.approx(0.17299977, abs=5e-9)
    assert moments.kurtosis - 3.0 == pytest.approx(-0.46165357, abs=5e-9)
    assert m.probabilistic_sharpe_ratio(TOY) == pytest.approx(0.64511461, abs=5e-9)
    assert m.min_track_record_length(TOY) == pytest.approx(176.80, abs=5e-3)


def test_probabilistic_sharpe_ratio_of_bailey_and_lopez_de_prado():
    moments = SharpeMoments(sharpe=0.458, observations=24, skewness=-2.448, kurtosis=10.164)
    assert m.probabilistic_sharpe_ratio(moments) == pytest.approx(0.913361, abs=5e-7)


def test_deflated_sharpe_ratio_of_bailey_and_lopez_de_prado():
    spread = math.sqrt(0.5 / 250)
    moments = SharpeMoments(sharpe=2.5 / math.sqrt(250), observations=1250, skewness=-3.0, kurtosis=10.0)
    assert m.expected_max_sharpe(100, spread=spread) == pytest.approx(0.113172, abs=5e-7)
    assert m.deflated_sharpe_ratio(moments, trials=100, spread=spread) == pytest.approx(0.900397, abs=5e-7)


@pytest.mark.parametrize(
    ("years", "trials", "expected"),
    [
        (1, 10, 1.57), (1, 50, 2.28), (1, 200, 2.77), (1, 1000, 3.26),
        (4, 10, 0.79), (4, 50, 1.14), (4, 200, 1.38), (4, 1000, 1.63),
    ],
)  # fmt: skip
def test_expected_best_of_worthless_trials(years, trials, expected):
    assert m.expected_max_sharpe(trials, spread=1 / math.sqrt(years)) == pytest.approx(expected, abs=0.005)


def test_expected_best_of_worthless_trials_to_three_digits():
    assert m.expected_max_sharpe(50) == pytest.approx(2.276, abs=5e-4)
    assert m.expected_max_sharpe(100) == pytest.approx(2.531, abs=5e-4)
    assert m.expected_max_sharpe(50, spread=math.sqrt(365 / 30)) == pytest.approx(7.94, abs=5e-3)  # a 30-day window


def test_track_record_for_an_annual_sharpe_of_one_is_almost_three_years():
    daily = SharpeMoments(sharpe=1 / math.sqrt(365), observations=100)
    assert m.min_track_record_length(daily) / 365 == pytest.approx(2.71, abs=5e-3)


def test_lo_scaling_of_an_autoregression_from_hours_to_a_day():
    from cryptoalpha.monitoring.ratios import autocorrelation_scale

    assert autocorrelation_scale(0.2 ** np.arange(1, 24), 24) == pytest.approx(4.035, abs=5e-4)
    assert autocorrelation_scale([], 24) == pytest.approx(math.sqrt(24))


def test_wilson_interval_of_530_in_1000():
    low, high = m.wilson_interval(530, 1000)
    assert (low, high) == (pytest.approx(0.4990, abs=5e-5), pytest.approx(0.5608, abs=5e-5))
