"""Rolling measures equal the measure of each window; the compiled kernels equal their NumPy twin bit for bit; no digits are lost."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring import measures as m
from cryptoalpha.monitoring import rolling_kernels, rolling_plain

moves = st.one_of(st.floats(-0.9, 0.9).map(lambda x: round(x, 4)), st.sampled_from([0.0, 0.0, 0.01, -1.0]))
series = st.lists(moves, min_size=1, max_size=40).map(np.array)
PPY = 365


def each_window(returns, window, measure):
    """The batch measure of every window, the slow way."""
    return np.array([measure(returns[t - window + 1 : t + 1]) if t >= window - 1 else math.nan for t in range(len(returns))])


CASES = {
    "rolling_sharpe": (lambda r, w: m.rolling_sharpe(r, w, periods_per_year=PPY, rf=0.001), 2,
                       lambda r: m.sharpe_ratio(r, periods_per_year=PPY, rf=0.001), 0.001),
    "rolling_sortino": (lambda r, w: m.rolling_sortino(r, w, periods_per_year=PPY, mar=0.002), 1,
                        lambda r: m.sortino_ratio(r, periods_per_year=PPY, mar=0.002), 0.002),
    "rolling_volatility": (lambda r, w: m.rolling_volatility(r, w, periods_per_year=PPY), 2,
                           lambda r: m.annual_volatility(r, periods_per_year=PPY), 0.0),
    "rolling_win_rate": (m.rolling_win_rate, 1, m.win_rate, 0.0),
    "rolling_drawdown": (m.rolling_drawdown, 1, lambda r: m.max_drawdown(r).depth, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None)
@given(returns=series, window=st.integers(1, 20))
def test_each_window_has_its_own_measure_and_a_reason_where_it_has_none(name, returns, window):
    rolled, least, measure, threshold = CASES[name]
    window = max(window, least)
    found = rolled(returns, window)
    assert_allclose(found, each_window(returns, window, measure), rtol=1e-9, atol=1e-10)
    for place in range(len(returns)):
        assert np.isnan(found[place]) == (m.explain_rolling(name, returns, window, place, threshold=threshold) is not None)
    assert_array_equal(rolled(returns[: len(returns) // 2], window), found[: len(returns) // 2])  # what comes later changes nothing


def wild(seed, size):
    """Heavy tails, a long stand-still, a level, and one value that swamps all others."""
    rng = np.random.default_rng(seed)
    x = np.clip(0.02 * rng.standard_t(3, size), -0.9, None)
    x[size // 3 : size // 2] = 0.0
    x[size // 2 : size // 2 + 40] = 0.01
    x[rng.integers(size)] = 1e5
    return x


@pytest.mark.parametrize(("window", "block"), [(2, 16), (3, 64), (50, 50), (720, 1000), (4000, 8192)])
def test_the_kernels_and_their_twin_give_the_same_numbers(window, block):
    for seed in range(3):
        x = wild(seed, 4000)
        for name, arguments in (
            ("sharpe", (1e-4, 19.1, block)),
            ("volatility", (19.1, block)),
            ("sortino", (1e-4, 19.1, block)),
            ("drawdown", ()),
        ):
            ours, plain = np.full(x.size, np.nan), np.full(x.size, np.nan)
            getattr(rolling_kernels, name)(x, window, *arguments, ours)
            getattr(rolling_plain, name)(x, window, *arguments, plain)
            assert_array_equal(ours, plain, err_msg=name)


@pytest.mark.parametrize("level", [0.0, 1e4])
def test_a_level_under_the_returns_costs_no_digits(level):
    r = np.random.default_rng(3).normal(0.0005, 0.02, 12_000)
    window, x = 720, r + level
    exact = np.std(np.lib.stride_tricks.sliding_window_view(x, window), axis=1, ddof=1)
    found = m.rolling_volatility(x, window, periods_per_year=1)[window - 1 :]
    error = np.max(np.abs(found - exact)) / 0.02
    assert error < 1e-13
    sums, squares = (np.concatenate(([0.0], np.cumsum(v))) for v in (x, x * x))
    cumulative = (squares[window:] - squares[:-window] - (sums[window:] - sums[:-window]) ** 2 / window) / (window - 1)
    if level:  # what ours is safe from
        assert np.max(np.abs(np.sqrt(np.abs(cumulative)) - exact)) / 0.02 > 1e-3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("value", [1e9, -1e9, 3e5, -3e5])
def test_one_bad_print_leaves_no_trace_once_it_has_left_the_window(value, seed):
    r = np.random.default_rng(seed).normal(0.0, 0.02, 3000)
    bad = r.copy()
    bad[500] = value
    for rolled in (m.rolling_sharpe, m.rolling_sortino, m.rolling_volatility):
        clean, hit = rolled(r, 100, periods_per_year=365), rolled(bad, 100, periods_per_year=365)
        assert_array_equal(hit[:500], clean[:500])
        assert_allclose(hit[600:], clean[600:], rtol=1e-9)


def test_a_constant_window_has_no_sharpe_ratio_and_no_volatility():
    r = np.concatenate((np.random.default_rng(1).normal(size=50), np.full(30, 0.1), [0.2]))
    sharpe = m.rolling_sharpe(r, 10, periods_per_year=365)
    assert np.isnan(sharpe[59:80]).all()
    assert np.isfinite(sharpe[[58, 80]]).all()
    assert m.rolling_volatility(r, 10, periods_per_year=365)[59:80].tolist() == [0.0] * 21
    assert m.explain_rolling("rolling_sharpe", r, 10, 70) == "the returns have no volatility"
    assert m.explain_rolling("rolling_sharpe", r, 10, 3) == "4 returns, fewer than the 10 of the window"


def test_wealth_below_zero_has_no_drawdown_while_it_is_in_the_window():
    found = m.rolling_drawdown([0.1, -1.5, 0.1, 0.1, -0.5], 2)
    assert_array_equal(found, [np.nan, np.nan, np.nan, 0.0, 0.5])
    assert m.explain_rolling("rolling_drawdown", [0.1, -1.5], 2, 1) == "wealth fell below zero"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 9000, 9999])
@pytest.mark.parametrize("name", CASES)
def test_what_is_not_finite_is_refused_wherever_it_stands(name, place, bad):
    r = np.full(10_000, 0.01)
    r[place] = bad
    with pytest.raises(DataError, match=rf"returns\[{place}\]"):
        CASES[name][0](r, 20)
    with pytest.raises(DataError, match=rf"returns\[{place}\]"):
        CASES[name][0](r, 20_000)


def test_refusals_say_what_was_expected():
    with pytest.raises(ConfigError, match="window is 1, expected a whole number of at least 2"):
        m.rolling_sharpe([0.1, 0.2], 1, periods_per_year=365)
    with pytest.raises(ConfigError, match="periods_per_year"):
        m.rolling_sharpe([0.1, 0.2], 2, periods_per_year=0)
    with pytest.raises(DataError, match="too large to square"):
        m.rolling_sharpe([1e200, -1e200], 2, periods_per_year=365)
    with pytest.raises(DataError, match="one dimension"):
        m.rolling_win_rate([[0.1], [0.2]], 1)
    with pytest.raises(ConfigError, match="place 2 of 2"):
        m.explain_rolling("rolling_sharpe", [0.1, 0.2], 2, 2)


def test_pandas_and_bottleneck_agree():
    bottleneck, pandas = pytest.importorskip("bottleneck"), pytest.importorskip("pandas")
    r = np.random.default_rng(9).normal(0.0005, 0.02, 20_000)
    found = m.rolling_sharpe(r, 720, periods_per_year=365)
    rolling = pandas.Series(r).rolling(720)
    assert_allclose(found, (rolling.mean() / rolling.std() * np.sqrt(365)).to_numpy(), rtol=0, atol=1e-11)
    assert_allclose(found, bottleneck.move_mean(r, 720) / bottleneck.move_std(r, 720, ddof=1) * np.sqrt(365), rtol=0, atol=1e-11)


def test_importing_the_measures_does_not_pay_for_a_compiler():
    code = "import sys, cryptoalpha.monitoring.measures; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_changed_constant_changes_the_file_that_compiles_it():
    """Numba's cache checks the file of a kernel, not the files its constants come from."""
    from cryptoalpha.monitoring import ratios, rolling_kernels, rolling_plain

    assert (rolling_plain.FALL, ratios.FLOOR, ratios.NOISE) == rolling_kernels.COMPILED_WITH
