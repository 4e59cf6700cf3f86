"""What makes no sense is refused with the house's errors; what cannot be told is NaN with a reason."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, DataError
from cryptoalpha.monitoring import measures as m
from cryptoalpha.monitoring.calibration import brier_score
from cryptoalpha.monitoring.drift.cusum import cusum_run_length, cusum_threshold
from cryptoalpha.monitoring.drift.two_samples import ks_test, psi

R = [0.01, -0.02, 0.03]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: m.sharpe_ratio(R, periods_per_year=365, rf=[0.0, 0.0]), DataError),
        (lambda: m.sharpe_ratio(R, periods_per_year=365, rf=[[0.0, 0.0, 0.0]]), DataError),
        (lambda: m.sharpe_ratio(R, periods_per_year=365, rf=math.nan), DataError),
        (lambda: m.sharpe_ratio(R, periods_per_year=365, rf="much"), DataError),
        (lambda: m.sharpe_ratio(["a", "b"], periods_per_year=365), DataError),
        (lambda: m.max_drawdown([[0.1], [0.1, 0.2]]), DataError),
        (lambda: m.rolling_win_rate(["a", "b", "c"], 2), DataError),
        (lambda: m.rolling_win_rate(R, 2.5), ConfigError),
        (lambda: m.rolling_sharpe(R, 2.0, periods_per_year=365), ConfigError),
        (lambda: m.information_coefficient(R, R, horizon=1.5), ConfigError),
        (lambda: m.information_coefficient("up", R), DataError),
        (lambda: m.newey_west_t(R, -1), ConfigError),
        (lambda: m.newey_west_t(R, 1.5), ConfigError),
        (lambda: m.wilson_interval(5, 3), ConfigError),
        (lambda: m.wilson_interval(-1, 3), ConfigError),
        (lambda: m.wilson_interval(1, 3, level=1.0), ConfigError),
        (lambda: m.deflated_sharpe_ratio(R, trials=1.5), ConfigError),
        (lambda: m.deflated_sharpe_ratio(R, trials=0), ConfigError),
        (lambda: m.probability_of_backtest_overfitting([["a"] * 2] * 40), DataError),
        (lambda: brier_score(["a"], [1]), DataError),
        (lambda: psi(R, R, bins=0), ConfigError),
        (lambda: psi(R, R, bins=2.5), ConfigError),
        (lambda: psi(R, R, effective=(0.0, 3.0)), ConfigError),
        (lambda: ks_test(R, R, effective=(3.0, -1.0)), ConfigError),
        (lambda: ks_test(R, R, effective=(3.0, math.nan)), ConfigError),
        (lambda: cusum_run_length(0.0, 4.0), ConfigError),
        (lambda: cusum_run_length(-0.5, 4.0), ConfigError),
        (lambda: cusum_run_length(math.nan, 4.0), ConfigError),
        (lambda: cusum_run_length(0.5, -1.0), ConfigError),
        (lambda: cusum_run_length(0.5, math.nan), ConfigError),
        (lambda: cusum_run_length(0.5, 4.0, shift=math.nan), ConfigError),
    ],
)
def test_what_makes_no_sense_is_refused(call, error):
    with pytest.raises(CryptoAlphaError) as refusal:
        call()
    assert type(refusal.value) is error


def test_one_number_of_trials_must_be_whole_and_says_what_else_there_is():
    with pytest.raises(ConfigError, match=r"1\.5, expected a whole number, or the ratio of each"):
        m.deflated_sharpe_ratio(R, trials=1.5)


def test_a_run_too_long_to_represent_is_infinite():
    assert cusum_run_length(0.5, 1_000.0) == math.inf
    assert math.isfinite(cusum_threshold(0.5, 1e290))


def test_a_deviation_that_overflows_is_nan_with_a_reason():
    huge, large = [1e300, -1e300], [1e153, -1e153]
    for name in ("annual_volatility", "sharpe_ratio"):
        measure = getattr(m, name)
        assert math.isnan(measure(huge, periods_per_year=365))
        assert m.explain_undefined(name, huge) == "the returns are too large to square"
        assert math.isfinite(measure(large, periods_per_year=365))
        assert m.explain_undefined(name, large) is None
    assert math.isnan(m.probabilistic_sharpe_ratio(huge))
    assert m.explain_undefined("probabilistic_sharpe_ratio", huge) == "the returns are too large to square"


@pytest.mark.parametrize("alike", [np.random.default_rng(2).normal(size=(64, 1)) * np.ones(4), np.ones((64, 4)) * [0.1, 0.0, -0.2, 0.3]])
def test_trials_that_are_alike_leave_nothing_to_overfit(alike):
    found = m.probability_of_backtest_overfitting(alike, blocks=4)
    assert math.isnan(found.probability)
    assert math.isnan(found.degradation)
    assert found.reason == "all trials are alike: there is nothing to pick"
    other = alike.copy()
    other[:, 1] += np.random.default_rng(3).normal(size=64)
    assert math.isfinite(m.probability_of_backtest_overfitting(other, blocks=4).probability)


def test_a_drawdown_below_zero_is_deeper_than_all_in_batch_and_undefined_in_a_stream():
    assert m.max_drawdown([-1.5]).depth == 1.5
    assert math.isnan(m.rolling_drawdown([-1.5], 1)[0])
    stream = m.StreamingMetrics()
    stream.update(-1.5)
    assert math.isnan(stream.max_drawdown())
