"""What stands beside a strategy is measured by the strategy's own rules: costs, funding, and the count of trials."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.app.backtest import median_run, run_backtest, run_baselines
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.execution.vectorised import WeightsRun
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

QUICK = Settings(signals=SignalsConfig(sources=("momentum_short",), keep_features=False), fusion={"method": "equal"})


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=62 * 24), 3).dataset


def run_that_ends_at(equity: float) -> WeightsRun:
    one, wide = np.array([equity]), np.zeros((1, 1))
    return WeightsRun(one, wide, wide, wide, wide, one, one, one, one)


def test_the_random_signal_is_the_copy_in_the_middle():
    ends = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert median_run([run_that_ends_at(end) for end in ends]).equity.tolist() == [3.0]


def test_baselines_pay_the_funding_of_what_they_hold(market: Dataset):
    """Second way: what a rate of 0.1 % at every settlement takes from one unit after the other, added up by hand."""
    panel = build_panel(market, since=0, until=2**62)
    table = market.readings["SIM1", "funding_rate"]
    dear = replace(market, readings={("SIM1", "funding_rate"): replace(table, value=np.full(len(table), 0.001))})
    free = replace(market, readings={})
    own = np.zeros(panel.close.shape)
    with_funding = run_baselines(QUICK, dear, panel, own)["hold SIM1"]
    without = run_baselines(QUICK, free, panel, own)["hold SIM1"]
    rows = np.flatnonzero(np.isin(panel.open_time, table.happened_at) & (np.arange(len(panel)) > 1))  # held from the open of row 1 on
    units = (without.daily.equity[-1] - without.daily.equity[-2]) / (panel.close[-1, 0] - panel.close[-25, 0])
    paid = units * 0.001 * panel.open[rows, 0].sum()
    assert with_funding.costs - without.costs == pytest.approx(paid / QUICK.execution.initial_cash, rel=1e-6)
    assert with_funding.daily.equity[-1] == pytest.approx(without.daily.equity[-1] - paid, rel=1e-6)


def test_the_trials_told_deflate_the_result(market: Dataset):
    period = Period(0, 2**62).last_bars(market, 960)
    once, often = (run_backtest(QUICK, market, period, run="test", journal_path=None, trials=trials).comparison for trials in (1, 50))
    assert (once.trials, often.trials) == (1, 50)
    assert often.strategy.deflated_sharpe < once.strategy.deflated_sharpe == once.strategy.probabilistic_sharpe
