"""Measures on cases small enough to work out by hand, and every fault of the seed as a regression test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.monitoring import measures as m

START = parse_time("2024-01-30")


def test_sharpe_is_nan_without_volatility_and_says_why():
    assert math.isnan(m.sharpe_ratio([0.1, 0.1, 0.1], periods_per_year=365))
    assert m.explain_undefined("sharpe_ratio", [0.1, 0.1, 0.1]) == "the returns have no volatility"
    assert math.isnan(m.sharpe_ratio([0.1, 0.2], periods_per_year=365, minimum=30))
    assert m.explain_undefined("sharpe_ratio", [0.1, 0.2], minimum=30) == "2 returns, fewer than the 30 it needs"


def test_sharpe_subtracts_the_riskless_return():
    assert m.sharpe_ratio([0.02, 0.04], periods_per_year=1, rf=0.01) == pytest.approx(0.02 / (0.01 * math.sqrt(2)))
    assert m.sharpe_ratio([0.02, 0.04], periods_per_year=1, rf=[0.0, 0.01]) == pytest.approx(0.025 / (0.005 * math.sqrt(2)))


def test_autocorrelated_returns_have_a_smaller_annual_sharpe():
    shocks = np.random.default_rng(1).normal(0.001, 0.01, 5000)
    returns = np.empty(5000)
    returns[0] = shocks[0]
    for t in range(1, 5000):
        returns[t] = 0.2 * returns[t - 1] + shocks[t]
    plain = m.sharpe_ratio(returns, periods_per_year=24)
    adjusted = m.sharpe_ratio(returns, periods_per_year=24, autocorr_adjust=True)
    assert adjusted / plain == pytest.approx(4.035 / 4.899, rel=0.05)


def test_sortino_divides_by_the_downside_over_all_periods():
    # shortfalls .02 and .02 of four periods: sqrt(2 · .0004 / 4); the deviation of the two losses alone would be zero
    assert m.sortino_ratio([0.03, -0.02, 0.03, -0.02], periods_per_year=1) == pytest.approx(0.005 / math.sqrt(0.0002))
    assert math.isnan(m.sortino_ratio([0.01, 0.02], periods_per_year=1))
    assert m.explain_undefined("sortino_ratio", [0.01, 0.02]) == "no return lies below the threshold"
    assert m.sortino_ratio([0.01, 0.02], periods_per_year=1, mar=0.015) == pytest.approx(0.0)


def test_drawdown_counts_the_initial_wealth_as_a_peak():
    drawdown = m.max_drawdown([-0.5, 0.1])
    assert drawdown == m.Drawdown(depth=0.5, peak=0, trough=1, recovery=None, longest_underwater=2)


def test_drawdown_finds_the_deepest_fall_its_recovery_and_the_longest_wait():
    returns = [0.0, -0.1, 0.0, 0.0, 0.2, -0.5, 1.5]
    drawdown = m.max_drawdown(returns)
    assert drawdown.depth == pytest.approx(0.5)
    assert (drawdown.peak, drawdown.trough, drawdown.recovery) == (5, 6, 7)
    assert drawdown.longest_underwater == 3
    assert_allclose(m.drawdown_curve(returns), [0, 0, 0.1, 0.1, 0.1, 0, 0.5, 0], atol=1e-15)


def test_drawdown_of_a_rising_and_of_an_empty_series_is_zero():
    assert m.max_drawdown([0.1, 0.1]) == m.Drawdown(0.0, 0, 0, 0, 0)
    assert m.max_drawdown([]) == m.Drawdown(0.0, 0, 0, 0, 0)
    assert math.isnan(m.calmar_ratio([0.1, 0.1], periods_per_year=365))


def test_cagr_of_a_doubling_in_half_a_year_and_of_ruin():
    assert m.cagr([1.0], periods_per_year=2) == pytest.approx(3.0)
    assert m.cagr([0.1, -1.0], periods_per_year=365) == -1.0
    assert math.isnan(m.cagr([-3.0, -3.0], periods_per_year=365))  # minus times minus is no profit
    assert m.explain_undefined("cagr", [-3.0, -3.0]) == "wealth fell below zero"
    assert m.explain_undefined("cagr", [9.0]) == "growth per year is too large to represent"


def test_flat_periods_stay_in_the_win_rate():
    assert m.win_rate([0.01, 0.0, -0.01, 0.0]) == 0.25


def test_omega_about_a_threshold():
    assert m.omega_ratio([0.03, 0.0, -0.01], threshold=0.01) == pytest.approx(0.02 / 0.03)
    assert math.isnan(m.profit_factor([0.01]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("measure", [m.win_rate, m.max_drawdown, m.profit_factor, m.probabilistic_sharpe_ratio])
def test_what_is_not_finite_is_refused(measure, bad):
    with pytest.raises(DataError, match=r"returns\[1\]"):
        measure([0.1, bad])


def test_refusals_name_what_was_expected():
    with pytest.raises(DataError, match="one dimension"):
        m.win_rate([[0.1], [0.2]])
    with pytest.raises(ConfigError, match="periods_per_year"):
        m.sharpe_ratio([0.1, 0.2], periods_per_year=0)
    with pytest.raises(ConfigError, match="no measure"):
        m.explain_undefined("sharpe", [0.1])  # type: ignore[arg-type]


# ── daily sampling ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_daily_returns_of_hourly_marks_drop_the_unfinished_day():
    times = START + HOUR * np.arange(1, 60)
    equity = 100.0 + np.arange(1, 60)
    daily = m.daily_returns(times, equity, 100.0)
    assert daily.days.tolist() == [START, START + DAY]
    assert_allclose(daily.equity, [100.0, 124.0, 148.0])
    assert_allclose(daily.returns, [0.24, 24 / 124])


def test_daily_bars_close_the_day_before_their_mark():
    daily = m.daily_returns([START + DAY, START + 2 * DAY], [110.0, 99.0], 100.0)
    assert daily.days.tolist() == [START, START + DAY]
    assert_allclose(daily.returns, [0.1, -0.1])


def test_a_day_without_marks_is_an_idle_day():
    daily = m.daily_returns([START + 5 * HOUR, START + 2 * DAY + HOUR, START + 3 * DAY], [110.0, 121.0, 121.0], 100.0)
    assert_allclose(daily.returns, [0.1, 0.0, 0.1])


def test_no_day_is_lost_in_years_of_marks():
    returns = np.random.default_rng(1).normal(0.0, 0.03, 1500)
    times = START + DAY * np.arange(1, 1501)
    assert_allclose(m.daily_returns(times, 1e4 * np.cumprod(1 + returns), 1e4).returns, returns, atol=1e-12)


def test_a_given_start_counts_the_days_before_the_first_mark():
    daily = m.daily_returns([START + 2 * DAY], [110.0], 100.0, start=START)
    assert_allclose(daily.returns, [0.0, 0.1])


def test_daily_returns_refuse_marks_that_make_no_sense():
    with pytest.raises(DataError, match="do not increase"):
        m.daily_returns([START, START], [1.0, 1.0], 1.0)
    with pytest.raises(DataError, match=r"equity\[0\] is -1"):
        m.daily_returns([START], [-1.0], 1.0)
    with pytest.raises(DataError, match="initial equity"):
        m.daily_returns([START], [1.0], 0.0)
    with pytest.raises(DataError, match="one mark per time"):
        m.daily_returns([START], [1.0, 2.0], 1.0)
    assert len(m.daily_returns([], [], 5.0)) == 0


def test_monthly_returns_compound_and_count_their_days():
    daily = m.daily_returns([START + DAY, START + 2 * DAY, START + 3 * DAY], [110.0, 121.0, 60.5], 100.0)
    january, february = m.monthly_returns(daily)
    assert (january.year, january.month, january.days, february.month, february.days) == (2024, 1, 2, 2, 1)
    assert (january.value, february.value) == (pytest.approx(0.21), pytest.approx(-0.5))


# ── exposure ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_exposures_of_a_long_short_book():
    assert m.gross_exposure([[0.6, -0.4]]).tolist() == [1.0]
    assert m.net_exposure([[0.6, -0.4]]) == pytest.approx([0.2])


def test_holding_has_no_turnover_but_its_purchase():
    weights = [[1.0], [1.0], [1.0], [1.0]]
    returns = [[0.1], [-0.2], [0.3], [0.0]]
    assert m.turnover(weights, returns, periods_per_year=4) == pytest.approx(1.0)
    assert m.turnover(weights, returns, periods_per_year=4, from_cash=False) == pytest.approx(0.0)


def test_turnover_is_half_the_sum_of_changes_against_the_drifted_book():
    # half the book doubles: weights drift to 2/3, 1/3; back to halves moves a sixth
    weights = [[0.5, 0.5], [0.5, 0.5]]
    returns = [[1.0, 0.0], [0.0, 0.0]]
    assert m.turnover(weights, returns, periods_per_year=2, from_cash=False) == pytest.approx(1 / 6)


def test_exposure_refuses_what_is_no_matrix():
    with pytest.raises(DataError, match="periods, assets"):
        m.gross_exposure([1.0])
    with pytest.raises(DataError, match="NaN"):
        m.net_exposure([[math.nan]])
    with pytest.raises(DataError, match="differ in shape"):
        m.drifted_weights([[1.0]], [[0.1, 0.2]])
    with pytest.raises(DataError, match="equity is gone"):
        m.drifted_weights([[1.0]], [[-1.0]])


# ── accuracy ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_flat_outcome_is_neither_right_nor_wrong():
    outcomes = np.array([-1.0, 1.0, 0.0, 0.0])
    always_short = m.directional_accuracy(-np.ones(4), outcomes)
    assert (always_short.rate, always_short.counted, always_short.flat_outcomes) == (0.5, 2, 2)


def test_an_abstention_is_counted_apart():
    accuracy = m.directional_accuracy([1.0, 0.0, 1.0], [1.0, 1.0, -1.0])
    assert (accuracy.hits, accuracy.counted, accuracy.abstained) == (1, 2, 1)
    nothing = m.directional_accuracy([0.0], [1.0])
    assert math.isnan(nothing.rate)
    assert math.isnan(nothing.low)


def test_rank_ic_survives_an_outlier_that_turns_pearson_around():
    rng = np.random.default_rng(3)
    prediction = rng.normal(size=5000)
    outcome = 0.04 * prediction + rng.normal(size=5000)
    before = m.information_coefficient(prediction, outcome)
    prediction[0], outcome[0] = 30.0, -300.0
    after = m.information_coefficient(prediction, outcome)
    assert after.mean == pytest.approx(before.mean, abs=1e-3)
    assert m.information_coefficient(prediction, outcome, method="pearson").mean < 0.0


def test_ic_along_time_is_the_mean_of_spearman_per_asset():
    rng = np.random.default_rng(4)
    p, r = np.round(rng.normal(size=(300, 3)), 1), np.round(rng.normal(size=(300, 3)), 1)  # rounded: ties on purpose
    from scipy.stats import spearmanr

    expected = np.mean([spearmanr(p[:, k], r[:, k]).statistic for k in range(3)])
    measured = m.information_coefficient(p, r)
    assert measured.mean == pytest.approx(expected, abs=1e-12)
    assert (measured.cross_sectional, measured.observations) == (False, 300)


def test_ic_across_assets_is_the_mean_of_spearman_per_moment_over_the_observed():
    rng = np.random.default_rng(5)
    p, r = np.round(rng.normal(size=(40, 7)), 1), np.round(rng.normal(size=(40, 7)), 1)
    seen = rng.random((40, 7)) < 0.9
    p[~seen] = np.nan
    from scipy.stats import spearmanr

    rows = [spearmanr(p[t, seen[t]], r[t, seen[t]]).statistic for t in range(40) if seen[t].sum() >= 5]
    measured = m.information_coefficient(p, r, observed=seen)
    assert measured.cross_sectional
    assert measured.observations == len(rows)
    assert measured.mean == pytest.approx(np.mean(rows), abs=1e-12)
    assert measured.ratio == pytest.approx(np.mean(rows) / np.std(rows, ddof=1))


def test_newey_west_without_lags_is_the_plain_t_and_overlap_shrinks_it():
    x = np.random.default_rng(6).normal(0.1, 1.0, 400)
    assert m.newey_west_t(x, 0) == pytest.approx(x.mean() / (x.std() / 20.0))
    smooth = np.convolve(x, np.ones(10) / 10, mode="valid")
    assert abs(m.newey_west_t(smooth, 9)) < 0.6 * abs(m.newey_west_t(smooth, 0))
    assert m.information_coefficient(x, x, horizon=24).lags == 23


def test_ic_of_predictions_that_never_vary_is_undefined():
    constant = m.information_coefficient(np.ones(50), np.random.default_rng(0).normal(size=50))
    assert math.isnan(constant.mean)
    assert math.isnan(constant.t_statistic)
    assert constant.observations == 0


def test_accuracy_refuses_what_does_not_fit():
    with pytest.raises(DataError, match="differ in shape"):
        m.information_coefficient([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="NaN"):
        m.information_coefficient([1.0, math.nan, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match="horizon"):
        m.information_coefficient([1.0], [1.0], horizon=0)
    with pytest.raises(DataError, match="expected \\[T\\]"):
        m.information_coefficient(1.0, 1.0)
    with pytest.raises(DataError, match="outcomes"):
        m.directional_accuracy([1.0], [1.0, 2.0])


# ── significance ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_trial_deflates_nothing_and_more_trials_deflate_more():
    r = np.random.default_rng(8).normal(0.001, 0.01, 500)
    assert m.deflated_sharpe_ratio(r, trials=1) == m.probabilistic_sharpe_ratio(r)
    deflated = [m.deflated_sharpe_ratio(r, trials=n) for n in (2, 10, 100)]
    assert deflated == sorted(deflated, reverse=True)


def test_trials_may_be_given_as_their_sharpe_ratios():
    r = np.random.default_rng(8).normal(0.001, 0.01, 500)
    sharpes = np.random.default_rng(9).normal(0.0, 0.03, 100)
    spread = float(np.std(sharpes, ddof=1))
    assert m.deflated_sharpe_ratio(r, trials=sharpes) == pytest.approx(m.deflated_sharpe_ratio(r, trials=100, spread=spread), abs=1e-15)


def test_significance_of_a_series_without_volatility_is_undefined():
    assert math.isnan(m.probabilistic_sharpe_ratio([0.1, 0.1]))
    assert math.isnan(m.deflated_sharpe_ratio([0.1], trials=5))
    assert math.isnan(m.min_track_record_length([-0.1, 0.05]))
    with pytest.raises(ConfigError, match="trial"):
        m.expected_max_sharpe(0)


def test_a_sharpe_ratio_without_variance_has_no_probability_and_says_so():
    # two values, the higher one in three: 1 − g₃ sr + (g₄ − 1)/4 sr² = (1 − g₃ sr / 2)², nothing where sr = 2 / g₃
    start, found = math.sqrt(8 / 3) - 1 / 3, 0
    for step in range(-40, 41):
        r = np.array([start, start, start + 1.0]) + step * 2.0**-52
        reasons = {
            m.explain_undefined(name, r) for name in ("probabilistic_sharpe_ratio", "deflated_sharpe_ratio", "min_track_record_length")
        }
        undefined = math.isnan(m.probabilistic_sharpe_ratio(r))
        assert math.isnan(m.min_track_record_length(r)) == undefined
        assert reasons == ({"the returns are so lopsided that their Sharpe ratio has no variance"} if undefined else {None})
        found += undefined
    assert found > 0


def test_a_record_that_lags_its_benchmark_is_never_long_enough_and_says_so():
    r = [0.01, -0.02, 0.01]
    assert math.isnan(m.min_track_record_length(r))
    assert m.explain_undefined("min_track_record_length", r) == "the Sharpe ratio does not exceed the benchmark, however long the record"
    better = [0.02, -0.01, 0.02]
    assert m.explain_undefined("min_track_record_length", better) is None
    assert m.explain_undefined("min_track_record_length", better, threshold=9.0) is not None
    assert math.isnan(m.min_track_record_length(better, benchmark=9.0))
