"""A strategy against baselines: what is said must follow from the intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAY, parse_time
from cryptoalpha.monitoring.comparison import EquitySeries, compare
from cryptoalpha.monitoring.ratios import sharpe_ratio

START = parse_time("2022-01-01")


def series(name: str, returns: np.ndarray, *, start: int = START) -> EquitySeries:
    times = start + DAY * np.arange(1, len(returns) + 1)
    return EquitySeries.of_marks(name, times, 10_000 * np.cumprod(1 + returns), 10_000.0, costs=0.02, turnover=5.0)


@pytest.fixture(scope="module")
def market() -> np.ndarray:
    draw = np.random.default_rng(1).normal(size=700)
    return 0.0008 + 0.03 * (draw - draw.mean()) / draw.std(ddof=1)  # an annual Sharpe of .51


def test_each_outcome_gets_its_words(market):
    noise = np.random.default_rng(2).normal(0.0, 0.001, 700)
    comparison = compare(
        series("strategy", market),
        {
            "worse": series("x", market - 0.003 + noise),
            "a bit less, on other days": series("x", market[::-1] - 0.0003),
            "better": series("x", market + 0.003 + noise),
            "idle": series("x", np.zeros(700)),
        },
        trials=10,
        resamples=500,
    )
    outcomes = {d.baseline: d.outcome for d in comparison.differences}
    assert outcomes["worse"] == "beats"
    assert outcomes["a bit less, on other days"] == "ahead, within the noise"
    assert outcomes["better"] == "loses to"
    assert outcomes["idle"] == "cannot be compared with"
    assert "Beats: worse." in comparison.verdict
    assert "Loses to: better." in comparison.verdict
    assert "the returns have no volatility" in comparison.differences[3].words
    loss = comparison.differences[2]
    assert loss.words.startswith("loses to better: Sharpe ")
    assert f"difference {loss.sharpe.estimate:+.2f} [{loss.sharpe.low:+.2f}, {loss.sharpe.high:+.2f}]" in loss.words


def test_behind_by_less_than_the_noise_does_not_beat(market):
    better = series("x", np.random.default_rng(4).normal(0.0015, 0.03, 700))
    comparison = compare(series("strategy", market), {"hold": better}, trials=1, resamples=300)
    assert comparison.differences[0].words.startswith("does not beat hold: ")
    assert "Does not beat: hold." in comparison.verdict


def test_measures_of_the_comparison_are_the_measures(market):
    own = compare(series("strategy", market), {}, trials=20, resamples=300).strategy
    daily = series("strategy", market).daily
    assert own.sharpe.estimate == pytest.approx(sharpe_ratio(daily.returns, periods_per_year=365.0), rel=1e-12)
    assert own.sharpe.low < own.sharpe.estimate < own.sharpe.high
    assert own.max_drawdown.estimate == pytest.approx(own.drawdown.depth)
    assert own.total_return == pytest.approx(float(np.prod(1 + market)) - 1)
    assert (own.days, own.costs, own.turnover) == (700, 0.02, 5.0)
    assert own.deflated_sharpe < own.probabilistic_sharpe


def test_fewer_than_thirty_days_conclude_nothing():
    comparison = compare(series("strategy", np.full(29, 0.01)), {"hold": series("hold", np.full(29, -0.01))}, trials=1)
    assert math.isnan(comparison.strategy.sharpe.estimate)
    assert math.isnan(comparison.strategy.deflated_sharpe)
    assert "29 returns, fewer than the 30 it needs" in comparison.verdict
    assert comparison.differences[0].outcome == "cannot be compared with"
    assert comparison.strategy.cagr.estimate > 0


def test_a_loss_beyond_chance_is_called_one():
    comparison = compare(series("strategy", np.random.default_rng(5).normal(-0.005, 0.01, 400)), {}, trials=1, resamples=300)
    assert "below zero: it loses money" in comparison.verdict


def test_baselines_must_cover_the_same_days(market):
    with pytest.raises(DataError, match="'hold' covers 2022-01-02 to"):
        compare(series("strategy", market), {"hold": series("hold", market, start=START + DAY)}, trials=1)
    with pytest.raises(DataError, match="no full day"):
        compare(series("strategy", market[:0]), {}, trials=1)
