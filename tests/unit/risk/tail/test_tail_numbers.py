"""Value at risk and expected shortfall against numbers worked out by hand, closed forms, and other people's code."""

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.risk.tail.estimate import METHODS, expected_shortfall, tail_risk, value_at_risk
from cryptoalpha.risk.tail.laws import cornish_fisher_tail, moments, normal_factors, why_not_monotone
from cryptoalpha.risk.tail.losses import tail_of_losses, tails_of_rows
from cryptoalpha.risk.tail.volatility import ewma_variances, simulated_paths

TOY = [0.02, -0.01, 0.015, -0.03, 0.005, 0, 0.04, -0.02, 0.01, -0.005]


@pytest.mark.parametrize(("level", "var", "es"), [(0.8, 0.01, 0.025), (0.9, 0.02, 0.03)])
def test_the_toy_series_by_order_statistics(level, var, es):
    assert value_at_risk(TOY, level=level) == pytest.approx(var, abs=1e-15)  # the second or third worst of ten days
    assert expected_shortfall(TOY, level=level) == pytest.approx(es, abs=1e-15)


def test_the_toy_series_by_the_normal_law():
    found = tail_risk(TOY, level=0.95, method="normal")
    assert found.value_at_risk == pytest.approx(0.03090713509, abs=5e-12)
    assert found.expected_shortfall == pytest.approx(0.03939389516, abs=5e-12)


def test_a_day_at_the_edge_of_the_tail_counts_with_its_share():
    # worst 25 % of ten days: 10, 9 and half of 8
    assert tail_of_losses(np.arange(1.0, 11.0), 0.75) == pytest.approx((8.0, (10 + 9 + 0.5 * 8) / 2.5))


def test_a_level_that_rounding_misses_is_not_pushed_to_the_next_day():
    assert 0.55 * 100 > 55.0  # in floats
    assert tail_of_losses(np.arange(1.0, 101.0), 0.55)[0] == 55.0


def test_normal_factors_at_99_percent():
    assert normal_factors(0.99) == pytest.approx((2.326348, 2.665214), abs=5e-7)


def test_no_losses_and_nan_among_them_are_nan():
    assert all(math.isnan(x) for x in tail_of_losses(np.empty(0), 0.9))
    assert all(math.isnan(x) for x in tail_of_losses(np.array([1.0, math.nan, 2.0]), 0.5))
    rows = np.array([[1.0, math.nan, 2.0], [3.0, 1.0, 2.0]])
    var, es = tails_of_rows(rows, 0.5)
    assert math.isnan(var[0])
    assert math.isnan(es[0])
    assert var[1] == 2.0
    assert es[1] == pytest.approx(2.0 + 1.0 / 1.5)


def test_rows_agree_with_one_at_a_time():
    losses = np.random.default_rng(3).normal(size=(20, 137))
    var, es = tails_of_rows(losses, 0.97)
    assert [(v, e) for v, e in zip(var, es, strict=True)] == [pytest.approx(tail_of_losses(row, 0.97), abs=1e-15) for row in losses]


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_told_is_nan_with_a_reason(method):
    found = tail_risk([], method=method)
    assert math.isnan(found.value_at_risk)
    assert math.isnan(found.expected_shortfall)
    assert "fewer than" in found.reason
    with pytest.raises(DataError, match="expected a finite number"):
        tail_risk([0.01, math.nan], method=method)


@pytest.mark.parametrize("returns", [[0.01], [0.01, -0.02, 0.005, 0.0, -0.01], [0.01, -0.02] * 49])
def test_a_level_beyond_the_worst_day_is_nan_with_a_reason(returns):
    found = tail_risk(returns, level=0.99)
    assert math.isnan(found.value_at_risk)
    assert math.isnan(found.expected_shortfall)
    assert f"{len(returns)} outcomes, fewer than the 100" in found.reason


def test_one_day_beyond_the_level_is_enough():
    r = np.linspace(-0.05, 0.049, 100)
    found = tail_risk(r, level=0.99)  # the ninety-ninth of a hundred losses, and the one beyond it
    assert (found.value_at_risk, found.expected_shortfall) == (pytest.approx(0.049), pytest.approx(0.05))
    assert tail_risk(TOY, level=0.9).reason is None
    assert tail_risk(np.tile(TOY, 7), level=0.99, method="filtered").reason.startswith("70 outcomes")
    assert tail_risk(np.tile(TOY, 7), level=0.99, method="filtered", horizon=2, paths=1_000).reason is None
    assert tail_risk(np.tile(TOY, 7), level=0.99, method="filtered", horizon=2, paths=99).reason.startswith("99 outcomes")


@pytest.mark.parametrize("method", ["cornish_fisher", "filtered", "garch_t"])
def test_a_series_that_never_moves_has_no_shape(method):
    found = tail_risk(np.zeros(200), method=method)
    assert math.isnan(found.value_at_risk)
    assert "volatility" in found.reason


def test_unknown_methods_levels_and_horizons_are_refused():
    with pytest.raises(ConfigError, match="no method"):
        tail_risk(TOY, method="gut_feeling")
    with pytest.raises(ConfigError, match="inside"):
        tail_risk(TOY, level=99.0)
    with pytest.raises(ConfigError, match="horizon") as refusal:
        tail_risk(TOY, horizon=10)
    assert "filtered" in refusal.value.hint
    for horizon in (0, 1.5, math.nan, "2"):
        with pytest.raises(ConfigError, match="horizon"):
            tail_risk(TOY, method="normal", horizon=horizon)
    for paths, decay in ((0, 0.9), (10.5, 0.9), (10, 1.0), (10, math.nan)):
        with pytest.raises(ConfigError, match="paths"):
            tail_risk(TOY, method="filtered", paths=paths, decay=decay)


# Cornish–Fisher


def test_cornish_fisher_of_normal_moments_is_the_normal_law():
    assert cornish_fisher_tail(0.001, 0.02, 0.0, 0.0, 0.99) == pytest.approx((-0.001 + 0.02 * 2.3263478740, -0.001 + 0.02 * 2.6652142203))


@pytest.mark.parametrize(("skew", "kurtosis", "level"), [(-0.5, 2.0, 0.95), (0.3, 1.0, 0.99), (0.0, 4.0, 0.975)])
def test_cornish_fisher_shortfall_is_the_integral_of_its_quantiles(skew, kurtosis, level):
    assert why_not_monotone(skew, kurtosis) is None
    points = level + (1.0 - level) * (np.arange(40_000) + 0.5) / 40_000
    integral = np.mean([cornish_fisher_tail(0.0, 1.0, skew, kurtosis, float(p))[0] for p in points])
    assert cornish_fisher_tail(0.0, 1.0, skew, kurtosis, level)[1] == pytest.approx(integral, rel=2e-4)


def test_cornish_fisher_is_refused_exactly_where_its_quantiles_cross():
    q = np.linspace(-40.0, 40.0, 200_001)
    for skew in np.linspace(-1.5, 1.5, 13):
        for kurtosis in np.linspace(-1.0, 9.0, 21):
            slope = 1 + q * skew / 3 + (3 * q * q - 3) * kurtosis / 24 - (6 * q * q - 5) * skew**2 / 36
            if abs(slope.min()) > 1e-6:  # not on the border itself
                assert (why_not_monotone(skew, kurtosis) is None) == (slope.min() > 0.0), (skew, kurtosis)


def test_a_refusal_says_which_moments():
    found = tail_risk(TOY, method="cornish_fisher")  # excess kurtosis −.46
    assert math.isnan(found.value_at_risk)
    assert "not monotone" in found.reason
    assert "-0.46" in found.reason


# volatility and horizons


def test_ewma_by_hand():
    r = np.array([0.01] * 20 + [0.05, -0.02])
    expected = 0.94 * (0.94 * 0.01**2 + 0.06 * 0.05**2) + 0.06 * 0.02**2
    assert ewma_variances(r)[-1] == pytest.approx(expected, rel=1e-12)
    assert value_at_risk(r, method="ewma") == pytest.approx(2.3263478740 * math.sqrt(expected))
    assert np.isnan(ewma_variances(r[:19])).all()


def test_filtered_days_are_past_days_in_units_of_their_volatility():
    r = np.random.default_rng(5).standard_t(4, 300) * 0.02
    v = ewma_variances(r)
    losses = np.sort([-x / math.sqrt(s) * math.sqrt(v[-1]) for x, s in zip(r, v, strict=False)])
    assert value_at_risk(r, level=0.98, method="filtered") == pytest.approx(losses[293], rel=1e-12)


def test_horizons_of_independent_days_scale_as_their_moments():
    r = np.random.default_rng(6).gamma(9.0, 0.01, 400) - 0.09
    mean, spread, skew, kurtosis = (float(x) for x in moments(r))
    assert value_at_risk(r, method="normal", horizon=9) == pytest.approx(-9 * mean + 3 * spread * 2.3263478740)
    expected = cornish_fisher_tail(9 * mean, 3 * spread, skew / 3, kurtosis / 9, 0.99)[0]
    found = tail_risk(r, method="cornish_fisher", horizon=9)
    assert found.reason is None
    assert found.value_at_risk == pytest.approx(expected)
    assert value_at_risk(r, method="ewma", horizon=4) == pytest.approx(2 * value_at_risk(r, method="ewma"))


def test_simulated_paths_repeat_and_agree_with_one_day():
    r = np.random.default_rng(7).normal(0.0, 0.02, 500)
    ten = tail_risk(r, method="filtered", horizon=10)
    assert ten == tail_risk(r, method="filtered", horizon=10)
    assert ten != tail_risk(r, method="filtered", horizon=10, seed=1)
    # normal independent days, nearly: √10 of one day's deviation, lessened by compounding and by the drawn sample
    assert ten.value_at_risk == pytest.approx(math.sqrt(10) * value_at_risk(r, method="filtered"), rel=0.12)


def test_who_has_lost_everything_has_nothing_more_to_lose():
    paths = simulated_paths(np.array([[-2.0, -2.0], [-0.5, 0.5]]), 1.0, omega=0.0, reaction=0.0, memory=1.0)
    assert paths == pytest.approx([-1.0, 0.5 * 1.5 - 1.0])


# other people's numbers


@pytest.fixture(scope="module")
def spx():
    pytest.importorskip("skfolio")
    from skfolio.datasets import load_sp500_index

    return load_sp500_index().iloc[:, 0].pct_change().dropna().to_numpy()


@pytest.mark.parametrize(
    ("level", "method", "var", "es"),
    [
        (0.95, "historical", 0.01766345821, 0.02753567166),
        (0.99, "historical", 0.03199548095, 0.04634333444),  # skfolio says so too; .04633433444 has been written, two digits swapped
        (0.95, "normal", 0.01860794201, 0.02342394048),
        (0.99, "normal", 0.02646244277, 0.03036801642),
    ],
)
def test_thirty_three_years_of_the_index(spx, level, method, var, es):
    assert len(spx) == 8312
    found = tail_risk(spx, level=level, method=method)
    assert found.value_at_risk == pytest.approx(var, abs=6e-12)
    assert found.expected_shortfall == pytest.approx(es, abs=6e-12)


def test_cornish_fisher_of_the_index_is_known_and_refused(spx):
    mean, spread, skew, kurtosis = (float(x) for x in moments(spx))
    assert (skew, kurtosis) == (pytest.approx(-0.18027907088, abs=5e-12), pytest.approx(10.37630621, abs=5e-9))
    low, high = (cornish_fisher_tail(mean, spread, skew, kurtosis, level) for level in (0.95, 0.99))
    assert low[0] == pytest.approx(0.01677809, abs=5e-9)
    assert high[0] == pytest.approx(0.05580826, abs=5e-9)
    assert tail_risk(spx, method="cornish_fisher").reason is not None


@pytest.mark.parametrize("level", [0.9, 0.95, 0.975, 0.99, 0.999])
def test_skfolio_agrees(spx, level):
    measures = pytest.importorskip("skfolio.measures")
    for r in (spx, spx[:1777], np.random.default_rng(0).standard_t(3, 1000) * 0.01):
        assert value_at_risk(r, level=level) == pytest.approx(measures.value_at_risk(r, level), abs=1e-12)
        assert expected_shortfall(r, level=level) == pytest.approx(measures.cvar(r, level), abs=1e-12)
