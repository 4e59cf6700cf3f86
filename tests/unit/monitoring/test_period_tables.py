"""Measures by year and by regime: the rows are the measures of their own returns, and together they are all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY, parse_time
from cryptoalpha.monitoring import measures as m
from cryptoalpha.monitoring.bootstrap import sharpe_interval

R = np.random.default_rng(1).normal(0.001, 0.02, 400)


def test_rows_are_the_measures_of_their_own_returns():
    labels = ["bull" if k % 3 else "bear" for k in range(400)]
    rows = m.period_table(R, labels, periods_per_year=365, resamples=200, seed=3)
    assert [row.label for row in rows] == ["bear", "bull", "all"]
    for row in rows:
        own = R if row.label == "all" else R[np.array(labels) == row.label]
        assert row.sharpe == sharpe_interval(own, periods_per_year=365, resamples=200, seed=3)
        assert row.sharpe.low < row.sharpe.estimate < row.sharpe.high
        assert row.max_drawdown == m.max_drawdown(own).depth
        assert row.win_rate == m.win_rate(own)
        assert row.profit_factor == m.profit_factor(own)
        assert row.volatility == m.annual_volatility(own, periods_per_year=365)
        assert (row.periods, row.share, row.reasons) == (own.size, own.size / 400, {})
    assert (1 + rows[0].growth) * (1 + rows[1].growth) == pytest.approx(1 + rows[2].growth)


def test_years_are_those_of_utc():
    times = parse_time("2023-12-30") + DAY * np.arange(400)
    rows = m.year_table(R, times, periods_per_year=365, resamples=50)
    assert [(row.label, row.periods) for row in rows] == [("2023", 2), ("2024", 366), ("2025", 32), ("all", 400)]
    assert math.isnan(rows[0].sharpe.estimate)
    assert rows[0].reasons["sharpe_ratio"] == "2 returns, fewer than the 30 it needs"
    assert rows[1].sharpe.estimate == m.sharpe_ratio(R[2:368], periods_per_year=365)


def test_regimes_are_those_believed_in_most_and_doubt_is_a_row_of_its_own():
    beliefs = np.tile([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.4, 0.3, 0.3], [0.9, 0.1, 0.0]], (100, 1))
    rows = {row.label: row for row in m.regime_table(R, beliefs, ["calm", "turbulent", "crisis"], periods_per_year=365, resamples=50)}
    assert {name: row.periods for name, row in rows.items()} == {"calm": 200, "turbulent": 100, "uncertain": 100, "all": 400}
    assert rows["calm"].belief == pytest.approx(0.85)
    assert rows["uncertain"].belief == pytest.approx(0.4)
    assert rows["turbulent"].win_rate == m.win_rate(R[1::4])
    certain = m.regime_table(R, beliefs, ["calm", "turbulent", "crisis"], periods_per_year=365, least_belief=0.0, resamples=50)
    assert {row.label: row.periods for row in certain} == {"calm": 300, "turbulent": 100, "all": 400}


def test_every_measure_of_a_row_that_is_nan_has_a_reason():
    rows = m.period_table([0.01, 0.02, -1.5, 0.0, 0.0], ["up", "up", "ruin", "flat", "flat"], periods_per_year=365, least=2, resamples=20)
    for row in rows:
        values = {
            "sharpe_ratio": row.sharpe.estimate,
            "annual_volatility": row.volatility,
            "win_rate": row.win_rate,
            "profit_factor": row.profit_factor,
            "growth": row.growth,
        }
        assert {name for name, value in values.items() if math.isnan(value)} == set(row.reasons), row.label
    (row,) = m.period_table([], [], periods_per_year=365)
    assert (row.label, row.periods) == ("all", 0)
    assert set(row.reasons.values()) == {"no returns"}
    assert [row.label for row in m.regime_table([], np.empty((0, 2)), ["calm", "crisis"], periods_per_year=365)] == ["all"]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: m.period_table([0.1], [], periods_per_year=365), DataError, "one each"),
        (lambda: m.period_table([0.1], ["all"], periods_per_year=365), DataError, "none of them 'all'"),
        (lambda: m.regime_table([0.1], [[0.5]], ["a", "b"], periods_per_year=365), DataError, "one column per regime"),
        (lambda: m.regime_table([0.1], [[0.5, 0.4]], ["a", "b"], periods_per_year=365), DataError, "sum to 1"),
        (lambda: m.regime_table([0.1], [[0.5, 0.5]], ["a", "b"], periods_per_year=365, least_belief=2), ConfigError, "least_belief"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
