"""Sizes: known numbers, a slow search for the best growth, and simulated drawdowns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError, ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.risk.sizing import (
    binary_growth,
    drawdown_probability,
    kelly_binary,
    kelly_continuous,
    shrunk_towards_zero,
    volatility_target,
)

probability = st.floats(0.01, 0.99)
amount = st.floats(0.1, 5.0)


def test_known_fractions_and_growth():
    assert kelly_binary(0.53, calibration_error=0.0) == pytest.approx(0.06)
    assert binary_growth(0.06, 0.53) == pytest.approx(0.001801, abs=5e-7)
    assert binary_growth(0.20, 0.53) == pytest.approx(-0.008247, abs=5e-7)  # what a claimed 0.60 would bet
    assert binary_growth(0.03, 0.53) == pytest.approx(0.001350, abs=5e-7)
    assert kelly_binary(0.5, calibration_error=0.0, win=2.0) == pytest.approx(0.25)  # ½ − ½ / 2


def test_one_expected_return_stands_for_all_assets():
    c = [[0.04, 0.01], [0.01, 0.09]]
    assert_array_equal(kelly_continuous(0.001, c), kelly_continuous([0.001, 0.001], c))
    assert_array_equal(kelly_continuous(0.001, c, rf=[0.0, 0.001]), kelly_continuous([0.001, 0.0], c))
    assert_allclose(kelly_continuous(0.001, c, standard_errors=[0.0, 0.1], prior_deviation=0.0), kelly_continuous([0.001, 0.0], c))


@settings(max_examples=50)
@given(probability, amount, amount)
def test_no_other_fraction_grows_faster(p, win, loss):
    best = kelly_binary(p, calibration_error=0.0, win=win, loss=loss)
    growth = binary_growth(best, p, win=win, loss=loss)
    assert growth >= 0.0 - 1e-12
    for other in np.linspace(-1.0 / win, 1.0 / loss, 203)[1:-1]:
        assert binary_growth(float(other), p, win=win, loss=loss) <= growth + 1e-12


def test_a_coin_simulated():
    wins = stream(0, "coin").random(400_000) < 0.53
    growth = {f: float(np.mean(np.log1p(np.where(wins, f, -f)))) for f in (0.0, 0.03, 0.06, 0.09, 0.12, 0.20)}
    assert max(growth, key=lambda f: growth[f]) == 0.06
    assert growth[0.06] == pytest.approx(0.001801, abs=3e-4)
    assert growth[0.20] < 0.0


@settings(max_examples=40)
@given(probability, amount, amount)
def test_the_other_side_of_a_bet_has_the_other_sign(p, win, loss):
    mirrored = kelly_binary(1.0 - p, calibration_error=0.0, win=loss, loss=win)
    assert kelly_binary(p, calibration_error=0.0, win=win, loss=loss) == pytest.approx(-mirrored, abs=1e-12)


@pytest.mark.parametrize("error", [0.03, 0.021, math.nan, math.inf])
def test_a_probability_that_is_not_calibrated_is_refused(error):
    with pytest.raises(ModelError, match="calibration error"):
        kelly_binary(0.6, calibration_error=error)
    assert kelly_binary(0.6, calibration_error=0.02) == pytest.approx(0.2)


def test_ruin_is_minus_infinity():
    assert binary_growth(1.0, 0.9) == -math.inf
    assert binary_growth(-1.0, 0.9) == -math.inf
    assert binary_growth(1.0, 1.0) == pytest.approx(math.log(2.0))
    assert binary_growth(-1.0, 0.0) == pytest.approx(math.log(2.0))


def test_one_asset_is_excess_return_over_variance():
    assert_allclose(kelly_continuous(0.08, 0.04, rf=0.02, scale=1.0), [1.5])
    assert_allclose(kelly_continuous(0.08, 0.04, rf=0.02), [0.375])  # a quarter


def test_the_index_of_skfolio():
    datasets = pytest.importorskip("skfolio.datasets")
    returns = datasets.load_sp500_index().pct_change().iloc[1:].to_numpy()[:, 0]
    assert kelly_continuous(returns.mean(), returns.var(ddof=1), scale=1.0)[0] == pytest.approx(2.632, abs=5e-4)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(0.05, 1.0))
def test_no_other_book_grows_faster(seed, n, scale):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(4 * n, n)) * 0.02
    c, mu = np.cov(x.T).reshape(n, n), generator.normal(size=n) * 1e-3

    def growth(w: np.ndarray) -> float:
        return float(mu @ w - w @ c @ w / 2.0)

    best = kelly_continuous(mu, c, scale=1.0)
    for _ in range(20):
        assert growth(best + generator.normal(size=n) * 0.1 * (1.0 + np.abs(best))) <= growth(best) + 1e-12
    assert_allclose(kelly_continuous(mu, c, scale=scale), scale * best, rtol=1e-12)


def test_an_uncertain_edge_is_bet_less():
    # τ² / (τ² + se²) = 4 / (4 + 12) for the second
    assert_allclose(shrunk_towards_zero([0.02, 0.02], [0.0, math.sqrt(12e-4)], 0.02), [0.02, 0.005])
    full = kelly_continuous([0.02, 0.02], np.eye(2) * 0.04, scale=1.0)
    shrunk = kelly_continuous([0.02, 0.02], np.eye(2) * 0.04, scale=1.0, standard_errors=[0.0, math.sqrt(12e-4)], prior_deviation=0.02)
    assert_allclose(shrunk / full, [1.0, 0.25])
    # estimates no further from zero than their errors leave nothing to bet on
    assert_array_equal(shrunk_towards_zero([0.01, -0.01], [0.02, 0.02]), [0.0, 0.0])
    # mean(x²) − mean(se²) = 5e-4 − 1e-4: each keeps four fifths
    assert_allclose(shrunk_towards_zero([0.03, -0.01], [0.01, 0.01]), [0.024, -0.008])


def test_shrinking_recovers_true_means_better_than_believing_them():
    generator = stream(0, "shrinking")
    true, error = generator.normal(0.0, 0.01, 2_000), 0.02
    seen = true + generator.normal(0.0, error, 2_000)
    shrunk = shrunk_towards_zero(seen, np.full(2_000, error))
    assert np.mean((shrunk - true) ** 2) < 0.3 * np.mean((seen - true) ** 2)  # theory: a fifth
    assert np.mean((shrunk - true) ** 2) == pytest.approx(1e-4 * 4e-4 / 5e-4, rel=0.1)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25])
def test_simulated_drawdowns_meet_the_theory(scale):
    """Log wealth is a Brownian motion with drift c − c²/2 and deviation c (time in units of the squared Sharpe ratio). Between two steps
    the lowest point of the bridge is drawn exactly, so that coarse steps miss nothing."""
    expected = {1.0: 0.5, 0.5: 0.125, 0.25: 0.0078125}[scale]
    assert drawdown_probability(0.5, scale) == pytest.approx(expected)
    generator, paths, step = stream(0, "drawdown", str(scale)), 40_000, 0.5
    level, lowest = np.zeros(paths), np.zeros(paths)
    for _ in range(160):
        after = level + (scale - scale**2 / 2) * step + scale * math.sqrt(step) * generator.normal(size=paths)
        bridge = (level + after - np.sqrt((after - level) ** 2 - 2.0 * scale**2 * step * np.log(generator.random(paths)))) / 2.0
        lowest, level = np.minimum(lowest, bridge), after
    found = float(np.mean(lowest <= math.log(0.5)))
    assert abs(found - expected) <= 4.0 * math.sqrt(expected * (1.0 - expected) / paths) + 1e-4


def test_drawdowns_at_the_ends():
    assert drawdown_probability(1.0, 0.25) == 1.0
    assert drawdown_probability(0.5, 2.0) == drawdown_probability(0.5, 3.0) == 1.0


def test_the_volatility_target_by_hand():
    assert volatility_target(math.inf, 0.6, target=0.3) == 0.5
    assert volatility_target(-math.inf, 0.6, target=0.3) == -0.5
    assert volatility_target(0.2, 0.6, target=0.3) == 0.2
    assert volatility_target(2.0, 0.01, target=0.3, cap=3.0, floor=0.2) == pytest.approx(1.5)
    assert volatility_target(1.0, 0.0, target=0.3) == 1.0
    assert volatility_target(0.5, 0.6, target=0.3, current=0.49, band=0.02) == 0.49
    assert volatility_target(0.5, 0.6, target=0.3, current=0.47, band=0.02) == 0.5
    assert volatility_target(0.0, 0.6, target=0.3, current=0.01, band=0.02) == 0.0  # closing is always worth it


@settings(max_examples=50)
@given(st.floats(-3, 3), st.floats(0, 5), st.floats(0.01, 2), st.floats(0, 2), st.floats(0.01, 1))
def test_a_size_is_within_both_limits_and_keeps_its_sign(wanted, volatility, target, cap, floor):
    weight = volatility_target(wanted, volatility, target=target, cap=cap, floor=floor)
    assert abs(weight) <= min(abs(wanted), cap)
    assert abs(weight) * max(volatility, floor) <= target * (1.0 + 1e-12)
    assert weight * wanted >= 0.0


def test_what_cannot_be_sized_is_refused():
    for bad in ({"p": 1.2}, {"p": 0.5, "win": 0.0}, {"p": 0.5, "loss": -1.0}, {"p": math.nan}):
        with pytest.raises(ConfigError, match="probability"):
            kelly_binary(**bad, calibration_error=0.0)
    with pytest.raises(ConfigError, match="scale"):
        kelly_continuous(0.1, 0.04, scale=1.5)
    with pytest.raises(DataError, match="mu of shape"):
        kelly_continuous([0.1, 0.1], 0.04)
    for rf in ([0.1], [[0.1, 0.1]], math.nan, "none"):
        with pytest.raises(DataError, match="rf"):
            kelly_continuous([0.1, 0.1], np.eye(2), rf=rf)
    with pytest.raises(ConfigError, match=r"calibration_error is -0\.1"):
        kelly_binary(0.5, calibration_error=-0.1)
    with pytest.raises(DataError, match="singular"):
        kelly_continuous([0.1, 0.1], [[0.04, 0.04], [0.04, 0.04]])
    with pytest.raises(DataError, match="standard errors"):
        shrunk_towards_zero([0.1], [-0.1])
    with pytest.raises(ConfigError, match="prior_deviation"):
        shrunk_towards_zero([0.1], [0.1], -1.0)
    with pytest.raises(ConfigError, match="remaining"):
        drawdown_probability(0.0, 0.5)
    with pytest.raises(ConfigError, match="target"):
        volatility_target(1.0, 0.5, target=0.0)
    with pytest.raises(DataError, match="not known"):
        volatility_target(1.0, math.nan, target=0.3)
