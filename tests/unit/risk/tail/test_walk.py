"""Forecasts walked along a series and judged as they come true: each is what would have been said that day; no later day matters."""

import json
import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError, LookAheadError
from cryptoalpha.core.time import DAY
from cryptoalpha.risk.tail.backtests import christoffersen_independence, conditional_coverage, kupiec_pof
from cryptoalpha.risk.tail.estimate import METHODS, tail_risk
from cryptoalpha.risk.tail.garch import fit_garch
from cryptoalpha.risk.tail.laws import normal_factors
from cryptoalpha.risk.tail.losses import tail_of_losses
from cryptoalpha.risk.tail.monitor import TailMonitor
from cryptoalpha.risk.tail.volatility import ewma_variances
from cryptoalpha.risk.tail.walk import PORTABLE, walk_forecasts


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(8)
    spread = 0.02 * np.exp(0.4 * np.sin(np.arange(330) / 15.0))
    return rng.standard_t(5, 330) * spread


def test_each_forecast_is_what_would_have_been_said_that_day(series):
    walked = walk_forecasts(series, level=0.95, window=120)
    assert set(walked) == set(PORTABLE)
    for day in range(120, 330, 7):
        for method in ("historical", "normal", "cornish_fisher"):
            said = tail_risk(series[day - 120 : day], level=0.95, method=method)
            assert walked[method].value_at_risk[day - 120] == pytest.approx(said.value_at_risk, rel=1e-10, nan_ok=True)
            assert walked[method].expected_shortfall[day - 120] == pytest.approx(said.expected_shortfall, rel=1e-10, nan_ok=True)
        assert walked["ewma"].value_at_risk[day - 120] == pytest.approx(tail_risk(series[:day], level=0.95, method="ewma").value_at_risk)
        v = ewma_variances(series[:day])
        losses = -(series[:day] / np.sqrt(v[:-1]) * math.sqrt(v[-1]))[-120:]
        assert (walked["filtered"].value_at_risk[day - 120], walked["filtered"].expected_shortfall[day - 120]) == pytest.approx(
            tail_of_losses(losses, 0.95), rel=1e-10
        )


@pytest.mark.parametrize("method", METHODS)
def test_the_future_changes_nothing(series, method):
    if method.startswith("garch"):
        pytest.importorskip("scipy")
    whole = walk_forecasts(series, window=120, methods=[method], refit_every=30, fit_window=200)[method]
    for cut in (121, 300):
        poisoned = series.copy()
        poisoned[cut:] = 0.5 * (-1.0) ** np.arange(330 - cut)
        for other in (series[: cut + 1], poisoned):  # day `cut` itself is what the last forecast is for
            found = walk_forecasts(other, window=120, methods=[method], refit_every=30, fit_window=200)[method]
            upto = cut + 1 - 120
            np.testing.assert_array_equal(found.value_at_risk[:upto], whole.value_at_risk[:upto])
            np.testing.assert_array_equal(found.expected_shortfall[:upto], whole.expected_shortfall[:upto])


def test_garch_keeps_its_parameters_between_fits_and_follows_the_days(series):
    pytest.importorskip("scipy")
    walked = walk_forecasts(series, window=120, methods=["garch"], refit_every=50, fit_window=150)["garch"]
    fit = fit_garch(series[20:170], shocks="normal", start=fit_garch(series[:120], shocks="normal"))
    var_factor, _ = normal_factors(0.99)
    for day in (170, 171, 219):  # the second fit saw days 20 to 169
        h = fit.variances(series[20:day])[-1]
        assert walked.value_at_risk[day - 120] == pytest.approx(math.sqrt(h) * var_factor - fit.mean, rel=1e-12)


def test_garch_makes_no_forecast_of_a_price_that_did_not_move():
    pytest.importorskip("scipy")
    r = np.concatenate([np.zeros(150), np.random.default_rng(1).normal(0.0, 0.02, 150)])
    walked = walk_forecasts(r, window=120, methods=["garch_t"], refit_every=40, fit_window=120)["garch_t"]
    assert (walked.between(120, 160).refused, walked.between(200, 300).refused) == (40, 0)


def test_hits_tests_and_parts_of_the_walk(series):
    walked = walk_forecasts(series, level=0.95, window=120)["historical"]
    by_hand = [-series[day] > tail_risk(series[day - 120 : day], level=0.95).value_at_risk for day in range(120, 330)]
    assert walked.hits.tolist() == by_hand
    assert walked.exceedances == sum(by_hand)
    assert walked.kupiec() == kupiec_pof(sum(by_hand), 210, 0.95)
    assert walked.coverage() == conditional_coverage(np.array(by_hand), 0.95)
    part = walked.between(200, 250)
    assert (part.first, part.hits.tolist()) == (200, by_hand[80:130])
    assert len(walked.between(0, 100).losses) == 0
    assert math.isnan(walked.between(0, 100).mean_pinball())


def test_a_refused_forecast_is_no_hit_and_is_in_no_test():
    r = np.random.default_rng(9).normal(0.0, 0.01, 200)
    r[150] = -0.2  # from day 151 on skew and kurtosis are too wild for Cornish–Fisher
    walked = walk_forecasts(r, window=50, methods=["cornish_fisher"])["cornish_fisher"]
    wild = walked.between(151, 200)
    assert wild.refused == 49
    assert wild.exceedances == 0
    assert wild.kupiec().reason == "no observations"


def test_short_series_and_wrong_settings():
    assert all(len(found.losses) == 0 for found in walk_forecasts(np.zeros(10), window=20).values())
    with pytest.raises(ConfigError, match="window"):
        walk_forecasts(np.zeros(10), window=5)
    with pytest.raises(ConfigError, match=r"window 20\.5"):
        walk_forecasts(np.zeros(30), window=20.5)
    with pytest.raises(ConfigError, match="no method"):
        walk_forecasts(np.zeros(30), window=20, methods=["gut_feeling"])


def test_thirty_three_years_of_the_index():
    pytest.importorskip("skfolio")
    from skfolio.datasets import load_sp500_index

    walked = walk_forecasts(load_sp500_index().iloc[:, 0].pct_change().dropna().to_numpy(), methods=["historical", "ewma"])
    historical, ewma = walked["historical"], walked["ewma"]
    assert (historical.exceedances, ewma.exceedances, len(ewma.losses)) == (125, 164, 7812)
    assert historical.kupiec().p_value == pytest.approx(9.43e-7, rel=1e-3)
    assert historical.independence().p_value == pytest.approx(4.94e-6, rel=1e-3)
    assert ewma.kupiec().p_value == pytest.approx(1.71e-17, rel=5e-3)
    assert ewma.independence().p_value == pytest.approx(0.0313, rel=5e-3)


# the monitor


def watched(monitor, series, forecasts):
    for day, (value, var) in enumerate(zip(series, forecasts, strict=True)):
        monitor.expect(day * DAY, {"flat": var, "wide": 2.0 * var})
        monitor.realise((day + 1) * DAY, value)
    return monitor


def test_a_fit_sees_a_thousand_days_unless_told():
    """What lies before them changes nothing; a window that is longer is refused."""
    pytest.importorskip("scipy")
    r = 0.02 * np.random.default_rng(5).standard_normal(1_030)
    other = np.append(3.0 * r[:20][::-1], r[20:])
    a, b = (walk_forecasts(one, window=1_000, methods=["garch"], refit_every=20)["garch"].value_at_risk for one in (r, other))
    assert a[20:] == pytest.approx(b[20:], rel=1e-4)  # fitted at day 1,020 from days 20 to 1,019; the search began elsewhere
    assert a[:20] != pytest.approx(b[:20], rel=1e-2)
    with pytest.raises(ConfigError, match="fit_window 1000"):
        walk_forecasts(r, window=1_001)


def test_the_monitor_says_what_the_batch_says(series):
    forecasts = np.full(330, 0.045)
    monitor = watched(TailMonitor(level=0.95, window=100), series, forecasts)
    flat, wide = monitor.verdicts()
    hits = -series > forecasts
    assert (flat.method, flat.observations, flat.all_observations, flat.all_hits) == ("flat", 100, 330, hits.sum())
    assert flat.hits == hits[-100:].sum()
    assert flat.kupiec == kupiec_pof(int(hits[-100:].sum()), 100, 0.95)
    assert flat.independence == christoffersen_independence(hits[-100:])
    assert flat.coverage == conditional_coverage(hits[-100:], 0.95)
    assert wide.all_hits == (-series > 0.09).sum()


def test_a_restored_monitor_goes_on_as_if_it_had_not_stopped(series):
    whole = watched(TailMonitor(level=0.95, window=100), series, np.full(330, 0.045))
    first = watched(TailMonitor(level=0.95, window=100), series[:150], np.full(150, 0.045))
    first.expect(200 * DAY, {"flat": 0.045, "wide": math.nan})
    restored = TailMonitor.from_state(json.loads(json.dumps(first.state())))
    assert restored.state() == first.state()
    assert watched(restored, series[150:], np.full(180, 0.045)).verdicts() == whole.verdicts()


def test_a_forecast_must_be_older_than_its_outcome_and_is_judged_once():
    monitor = TailMonitor()
    assert monitor.realise(DAY, -0.5) == {}
    monitor.expect(2 * DAY, {"a": 0.01, "b": math.nan})
    with pytest.raises(LookAheadError, match="cannot forecast"):
        monitor.realise(2 * DAY, -0.05)
    with pytest.raises(DataError, match="finite"):
        monitor.realise(3 * DAY, math.nan)
    assert monitor.realise(3 * DAY, -0.05) == {"a": True}
    assert monitor.realise(4 * DAY, -0.05) == {}
    assert [(v.method, v.observations, v.hits, v.independence.reason) for v in monitor.verdicts()] == [
        ("a", 1, 1, "1 observation has no neighbours")
    ]
    with pytest.raises(ConfigError, match="window"):
        TailMonitor(window=1)
    with pytest.raises(ConfigError, match=r"window is 2\.5"):
        TailMonitor(window=2.5)
