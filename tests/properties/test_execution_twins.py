"""The event path (gate, broker, `Decimal` portfolio) and the compiled path do the same with the same weights."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Decision, Fill, InstrumentRules, MarketState, Order, Refusal
from cryptoalpha.execution.broker import bar_steps
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.execution.vectorised import simulate_weights
from cryptoalpha.risk.config import BreakerConfig, LadderConfig, OrderLimitsConfig, RiskConfig, TailConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.panel import Panel

TINY = Decimal("1e-12")
NO_CAPS = RiskConfig(
    max_position=1.0,
    max_gross=1.0,
    volatility_target=None,
    allow_short=True,
    max_drawdown=1.0,
    no_trade_band=0.01,
    max_state_age_minutes=0,
    tail=TailConfig(max_expected_shortfall=None),
    ladder=LadderConfig(rungs=()),
    orders=OrderLimitsConfig(max_entries_per_hour=None, collar=None, max_liquidation_days=None),
    breakers=BreakerConfig(
        daily_loss_reduce=None, daily_loss_kill=None, bad_tick_score=1e9, bad_tick_jump=1e9, slippage_run_length_days=None
    ),
).model_copy(update={"max_gross": 1e9, "max_cluster": 1e9})  # a rotation would wait for what it sells


def random_panel(g: np.random.Generator, rows: int, instruments: int, *, absent: float, thin: float) -> Panel:
    """Bars with gaps between close and open, some absent, some thin or without volume."""
    close = 100.0 * np.exp(np.cumsum(g.standard_t(4, (rows, instruments)) * 0.004, axis=0))
    open_ = np.vstack([np.full((1, instruments), 100.0), close[:-1]]) * np.exp(g.normal(0, 0.001, (rows, instruments)))
    spread = np.exp(np.abs(g.normal(0, 0.002, (rows, instruments))))
    high, low = np.maximum(open_, close) * spread, np.minimum(open_, close) / spread
    volume = g.gamma(2, 5000, (rows, instruments)) * np.where(g.random((rows, instruments)) < thin, 0.001, 1.0)
    volume[g.random((rows, instruments)) < 0.01] = 0.0
    present = g.random((rows, instruments)) >= absent
    present[0] = True
    columns = [np.where(present, np.round(x, 6), np.nan) for x in (open_, high, low, close, volume)]
    times = HOUR * np.arange(1, rows + 1, dtype=np.int64)
    nothing = np.full(close.shape, np.nan)
    row = np.where(present, np.arange(rows)[:, None], -1)
    names = tuple(f"A{i}/USDT" for i in range(instruments))
    return Panel(names, HOUR, times, times + HOUR, *columns, nothing, present, row)


def rules_of(panel: Panel, *, perpetual: bool) -> dict[str, InstrumentRules]:
    return {
        name: InstrumentRules(
            happened_at=0, known_at=0, instrument=name, venue="test", base=name[:2], quote="USDT",
            lot=TINY, tick=TINY, min_notional=Decimal(0), perpetual=perpetual,
        )
        for name in panel.instruments
    }  # fmt: skip


def event_path(panel, weights, config, gate_config, rules, funding):
    """The smallest honest loop: bar, book, mark, decide, review, submit."""
    broker, portfolio = SimulatedBroker(config, rules), Portfolio(config.initial_cash, panel.instruments, panel.instruments)
    gate = RiskGate(gate_config, rules)
    equity, ordered, filled = [], np.zeros(weights.shape), np.zeros(weights.shape)
    for t, step in enumerate(bar_steps(panel, funding)):
        for event in broker.on_bar(step):
            if isinstance(event, Refusal):
                continue
            portfolio.apply(event)
            if isinstance(event, Fill):
                filled[t, panel.instruments.index(event.instrument)] = float(event.quantity) * (1 if event.side == "buy" else -1)
        book = portfolio.mark(step.at, step.close)
        equity.append(float(book.equity))
        stamp = {"happened_at": step.at, "known_at": step.at}
        names = [(a, name) for a, name in enumerate(panel.instruments) if step.present[a] and not np.isnan(weights[t, a])]
        decisions = [
            Decision(**stamp, instrument=name, agent="test", target_weight=float(weights[t, a]), confidence=1.0, reason="")
            for a, name in names
        ]
        states = {
            name: MarketState(**stamp, instrument=name, price=step.close[a], volatility=0.5)
            for a, name in enumerate(panel.instruments)
            if step.present[a]
        }
        verdicts = gate.review(step.at, decisions, events=range(len(decisions)), states=states, portfolio=book, pending=broker.pending())
        for verdict in verdicts.verdicts:
            if isinstance(verdict, Order):
                ordered[t, panel.instruments.index(verdict.instrument)] = float(verdict.quantity) * (1 if verdict.side == "buy" else -1)
                broker.submit(verdict, t)
            else:
                assert verdict.rule in ("superseded", "lot"), verdict
                broker.cancel(verdict.instrument)
    assert portfolio.positions == broker.account.positions
    assert portfolio.cash == broker.account.cash
    return np.array(equity), ordered, filled, portfolio


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    instruments=st.integers(1, 4),
    kind=st.sampled_from(["some held", "short", "all in"]),
    participation=st.sampled_from([None, 0.1, 0.01]),
    impact=st.sampled_from([0.0, 1.0]),
    with_funding=st.booleans(),
)
def test_both_paths_give_the_same_orders_and_equity(seed, instruments, kind, participation, impact, with_funding):
    compare(np.random.default_rng(seed), 300, instruments, kind, participation, impact, with_funding)


@pytest.mark.parametrize(("seed", "kind"), [(1, "some held"), (2, "short")])
def test_both_paths_agree_over_two_thousand_bars(seed, kind):
    compare(np.random.default_rng(seed), 2000, 3, kind, 0.1, 1.0, True)


def random_weights(g: np.random.Generator, rows: int, instruments: int, kind: str) -> np.ndarray:
    """Weights whose gross stays below 1 even where some are held; `all in` decides on everything and leaves next to no cash."""
    if kind == "all in":
        return g.dirichlet(np.ones(instruments), rows) * 0.9999
    weights = g.uniform(0.0, 0.9 / instruments, (rows, instruments)) * (0.5 if kind == "short" else 1.0)
    if kind == "short":
        weights *= g.choice([-1.0, 1.0], weights.shape)
    weights[g.random(weights.shape) < 0.2] = 0.0
    weights[g.random(weights.shape) < 0.5] = np.nan
    return weights


def compare(g, rows, instruments, kind, participation, impact, with_funding):
    panel = random_panel(g, rows, instruments, absent=0.0 if kind == "all in" else 0.04, thin=0.05)
    weights = random_weights(g, rows, instruments, kind)
    rates = np.where(g.random(weights.shape) < 0.1, g.normal(0, 1e-4, weights.shape), np.nan)
    funding = (rates, rates[::-1].copy()) if with_funding else None
    config = ExecutionConfig(initial_cash=100_000, costs=CostConfig(max_participation=participation, impact=impact))
    fast = simulate_weights(panel, weights, config, band=0.01, funding=funding)
    equity, ordered, filled, portfolio = event_path(panel, weights, config, NO_CAPS, rules_of(panel, perpetual=True), funding)
    assert_array_equal(np.sign(fast.ordered), np.sign(ordered))
    assert_allclose(fast.ordered, ordered, rtol=1e-6, atol=1e-9)
    assert_allclose(fast.filled, filled, rtol=1e-6, atol=1e-9)
    assert_allclose(fast.equity, equity, rtol=1e-6)
    assert_allclose(fast.fees.sum(), float(portfolio.fees_paid), rtol=1e-6)
    assert_allclose(fast.funding.sum(), float(portfolio.funding_received), rtol=1e-6, atol=1e-6)
    assert fast.order_count == np.count_nonzero(ordered)
