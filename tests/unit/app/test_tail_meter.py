"""Value at risk of each instrument as metrics of a running trade: counted by hand, an alert that comes, and one that does not."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.app.run_metrics import too_many
from cryptoalpha.app.tail_meter import TailMeter
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.monitoring.alert_rules import alert_rules
from cryptoalpha.monitoring.alerts import AlertBoard
from cryptoalpha.monitoring.config import AlertsConfig
from cryptoalpha.monitoring.metrics import Metrics
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.risk.market_memory import MarketMemory

NAMES = ("QUIET", "WILD")
LEARNT, JUDGED = 100, 120
CRASHES = (10, 11, 12, 40, 60, 80, 90, 95, 100, 110)
"""Days on which the wild one falls further than ever before: ten of 120 where three are forecast."""


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    returns = 0.02 * stream(3, "tail meter").standard_normal((LEARNT + JUDGED, 2))
    returns[LEARNT:, 0] = np.abs(returns[LEARNT:, 0])  # never falls again
    for k, day in enumerate(CRASHES):
        returns[LEARNT + day, 1] = -0.3 - 0.05 * k
    prices = 100.0 * np.cumprod(np.vstack([np.ones(2), 1.0 + returns]), axis=0)
    memory, found = MarketMemory(TailConfig(least_days=LEARNT, method="historical")), Metrics()
    meter = TailMeter(memory, found)
    for day, row in enumerate(prices.tolist()):
        for at in ((day + 1) * DAY, (day + 1) * DAY + HOUR):
            memory.observe(at, HOUR, NAMES, row, [1.0, 1.0])
            meter.look()
    return found


def test_every_day_counts_once_for_each_instrument_and_method(metrics):
    forecasts = dict(metrics.labelled("cryptoalpha_instrument_forecasts_total"))
    assert set(forecasts) == {(name, method) for name in NAMES for method in ("historical", "normal", "ewma", "filtered")}
    assert set(forecasts.values()) == {float(JUDGED)}
    exceedances = dict(metrics.labelled("cryptoalpha_instrument_exceedances_total"))
    assert exceedances["QUIET", "historical"] == exceedances["QUIET", "filtered"] == 0.0
    assert exceedances["WILD", "historical"] >= len(CRASHES)


def test_p_values_are_kupiecs_and_the_gates_method_is_judged_for_too_many(metrics):
    exceeded = metrics.value("cryptoalpha_instrument_exceedances_total", "WILD", "historical")
    assert exceeded is not None
    told = metrics.value("cryptoalpha_instrument_exceedance_p_ratio", "WILD")
    assert told == too_many(int(exceeded), JUDGED, 0.975) < 0.01
    assert told == metrics.value("cryptoalpha_instrument_test_p_ratio", "WILD", "historical", "kupiec")
    # none in 120 days where three are forecast: −2 · 120 · ln .975 = 6.0763, and χ² with one degree exceeds that with 1.37 %
    assert metrics.value("cryptoalpha_instrument_test_p_ratio", "QUIET", "historical", "kupiec") == pytest.approx(0.0137, abs=1e-4)
    assert metrics.value("cryptoalpha_instrument_exceedance_p_ratio", "QUIET") == 1.0


def test_too_many_are_told_of_the_instrument_that_had_them(metrics):
    changes = AlertBoard(alert_rules(AlertsConfig())).judge(0, metrics)
    assert [(change.rule.name, change.labels) for change in changes] == [("instrument_risk_exceeded", ("WILD",))]
