"""The ablation: which stages there are, that the last is the run, and that limits are really out of reach before it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from cryptoalpha.app import book
from cryptoalpha.app.ablation import Unexplained, stages_of, without_limits
from cryptoalpha.app.backtest import BacktestResult, run_backtest
from cryptoalpha.app.decision_summary import decision_lines, run_deciders
from cryptoalpha.app.output import Table
from cryptoalpha.app.period import Period
from cryptoalpha.app.report.build import build_report
from cryptoalpha.app.report.metrics import metrics_of
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.summary import report_content
from cryptoalpha.core.time import DAY
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.alphazero.config import AlphaZeroConfig
from cryptoalpha.decisions.config import AgentConfig, FusionConfig
from cryptoalpha.decisions.council.council import Learner
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.tables import Dataset

SETTINGS = Settings().model_copy(
    update={
        "signals": SignalsConfig(sources=("momentum", "trend")),
        "fusion": FusionConfig(method="hedge", warmup_days=10.0),
        "agent": AgentConfig(dead_band=0.0, smoothing_half_life_bars=2.0),
        "risk": RiskConfig(max_position=0.02),
    }
)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=24 * 60), 3).dataset


@pytest.fixture(scope="module")
def period(market: Dataset) -> Period:
    last = max(int(table.known_at[-1]) for table in market.bars.values())
    end = last // DAY * DAY
    return Period(end - 33 * DAY, end)


@pytest.fixture(scope="module")
def taken(market: Dataset, period: Period) -> BacktestResult:
    return run_backtest(SETTINGS, market, period, run="ablation", journal_path=None, ablation=True)


def test_stages_follow_the_settings_and_what_is_left_out_is_said() -> None:
    stages, missing = stages_of(Settings())
    assert [stage.name for stage in stages] == ["signals only", "+ fusion"]
    assert len(missing) == 2
    rich = Settings().model_copy(update={"agent": AgentConfig(members=("rule", "garch"))})
    stages, missing = stages_of(rich)
    assert [(stage.name, stage.members) for stage in stages[2:]] == [("+ agent", ("garch",)), ("+ council", ("rule", "garch"))]
    assert missing == []
    plain = Settings().model_copy(update={"fusion": FusionConfig(method="equal")})
    assert [stage.name for stage in stages_of(plain)[0]] == ["signals only"]


def test_the_run_is_not_touched_by_the_stages_beside_it(market: Dataset, period: Period, taken: BacktestResult) -> None:
    alone = run_backtest(SETTINGS, market, period, run="alone", journal_path=None)
    assert alone.digest == taken.digest
    assert alone.stages == ()
    assert np.array_equal(alone.recorder.equity_array(), taken.recorder.equity_array())


def test_every_stage_is_measured_and_the_last_one_is_the_run(taken: BacktestResult) -> None:
    first, fused, risk = taken.stages
    assert (first.name, fused.name, risk.name) == ("signals only", "+ fusion", "+ risk")
    assert first.added is None
    assert risk.sharpe.estimate == taken.comparison.strategy.sharpe.estimate
    assert risk.costs == taken.strategy.costs
    assert risk.turnover == taken.turnover
    assert fused.added is not None
    assert fused.added.estimate == pytest.approx(fused.sharpe.estimate - first.sharpe.estimate)
    assert risk.added is not None
    assert risk.added.low <= risk.added.estimate <= risk.added.high
    assert fused.turnover > 2.0 * risk.turnover > 0.0  # positions of 2 % at most, against those the agent wanted


def test_a_stage_trades_as_a_run_without_limits_would(market: Dataset, period: Period, taken: BacktestResult) -> None:
    free = SETTINGS.model_copy(update={"risk": without_limits(SETTINGS.risk)})
    alone = run_backtest(free, market, period, run="free", journal_path=None)
    assert taken.stages[1].total_return == alone.comparison.strategy.total_return
    assert taken.stages[1].costs == pytest.approx(alone.strategy.costs, rel=1e-12)
    assert taken.stages[1].turnover == pytest.approx(alone.turnover, rel=1e-12)


def test_planning_stages_are_the_runs_that_their_settings_would_be(
    market: Dataset, period: Period, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The council beside the run, against a run of its own: same warm-up, same fused signals, no limits, no Kelly fraction."""
    free = without_limits(SETTINGS.risk)
    agent = SETTINGS.agent.model_copy(update={"planner": AlphaZeroConfig(typical_ic=1.0, positions=5, branching=(4, 3))})
    settings = SETTINGS.model_copy(update={"agent": agent.model_copy(update={"members": ("rule", "garch")})})
    taken = run_backtest(settings, market, period, run="council", journal_path=None, ablation=True)
    names = ["signals only", "+ fusion", "+ agent", "+ council", "+ risk"]
    assert [one.name for one in taken.stages] == names
    for before, after in pairwise(taken.stages):
        assert after.added is not None
        assert after.added.estimate == pytest.approx(after.sharpe.estimate - before.sharpe.estimate)
    build = book.build_agent
    monkeypatch.setattr(book, "build_agent", lambda *args, **named: _Quiet(build(*args, **named)))
    alone = run_backtest(settings.model_copy(update={"risk": free}), market, period, run="alone", journal_path=None)
    assert taken.stages[3].total_return == alone.comparison.strategy.total_return
    assert taken.stages[3].costs == pytest.approx(alone.strategy.costs, rel=1e-12)
    assert alone.recorder.fills
    assert len({one.total_return for one in taken.stages}) == 5


class _Quiet(Unexplained):
    """An agent whose expected returns are kept back, but which is shown the past."""

    def learn(self, *args: Any) -> None:
        if isinstance(self.agent, Learner):
            self.agent.learn(*args)


def test_limits_are_out_of_reach() -> None:
    free = without_limits(RiskConfig(max_position=0.1, risk_tolerance=0.02, max_heat=0.1, max_concentration=0.3))
    assert free == RiskConfig.model_validate(free.model_dump())  # what a person could have written
    assert (free.max_position, free.max_drawdown, free.max_gross, free.no_trade_band) == (1.0, 1.0, 0.98, 0.02)
    assert {free.volatility_target, free.risk_tolerance, free.max_heat, free.max_concentration} == {None}
    assert set(free.ladder.regime_exposure) == {1.0}
    assert free.ladder.rungs == ()
    assert free.tail.max_expected_shortfall is None
    assert not {free.orders.max_notional, free.orders.max_entries_per_hour, free.orders.collar, free.orders.max_liquidation_days} - {None}
    assert not {free.breakers.daily_loss_reduce, free.breakers.daily_loss_kill, free.breakers.slippage_run_length_days} - {None}


def test_the_ablation_is_printed_reported_and_in_the_metrics(taken: BacktestResult) -> None:
    table = decision_lines(taken)[0]
    assert isinstance(table, Table)
    content = report_content(taken, command="")
    page = build_report(content)
    assert "What each stage added" in page
    assert "+ fusion" in page
    found = metrics_of(content)["deciders"]
    assert isinstance(found, dict)
    assert isinstance(found["ablation"], list)
    assert [one["name"] for one in found["ablation"] if isinstance(one, dict)] == ["signals only", "+ fusion", "+ risk"]
    assert math.isclose(run_deciders(taken).stages[2].total_return, taken.comparison.strategy.total_return)
