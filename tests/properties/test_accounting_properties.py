"""I3: cash and equity recomputed from the fills alone, for any orders on any bars."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Fill, FundingPayment, InstrumentRules, Order
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker

NAMES = ("A/USDT", "B/USDT")


def rules(*, perpetual: bool) -> dict[str, InstrumentRules]:
    return {
        name: InstrumentRules(
            happened_at=0,
            known_at=0,
            instrument=name,
            venue="t",
            base=name[0],
            quote="USDT",
            lot=Decimal("0.001"),
            tick=Decimal("0.01"),
            min_notional=Decimal(1),
            perpetual=perpetual,
        )
        for name in NAMES
    }


def steps(g: np.random.Generator, count: int) -> list[BarStep]:
    close = np.round(100 * np.exp(np.cumsum(g.standard_t(4, (count, 2)) * 0.004, axis=0)), 2)
    open_ = np.round(np.vstack([[100.0, 100.0], close[:-1]]) * (1 + g.normal(0, 0.002, (count, 2))), 2)
    volume = g.gamma(2, 200, (count, 2)) * (g.random((count, 2)) > 0.05)
    out = []
    for t in range(count):
        there = [bool(x) for x in (g.random(2) > 0.05) | (t == 0)]
        rows = [
            [float(v) if p else float("nan") for v, p in zip(row[t], there, strict=True)]
            for row in (open_, np.maximum(open_, close) + 0.05, np.minimum(open_, close) - 0.05, close, volume)
        ]
        funding = [1e-4, -2e-4] if t % 8 == 0 else None
        out.append(BarStep((t + 1) * HOUR, t * HOUR, HOUR, NAMES, *rows, there, funding))
    return out


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), perpetual=st.booleans(), long_only=st.booleans(), cash=st.sampled_from([500, 10_000]))
def test_cash_and_equity_follow_from_the_fills(seed, perpetual, long_only, cash):
    g = np.random.default_rng(seed)
    config = ExecutionConfig(initial_cash=cash, costs=CostConfig(half_spread=0.0005, unknown_volume_slippage=0.002))
    broker = SimulatedBroker(config, rules(perpetual=perpetual))
    portfolio = Portfolio(cash, NAMES, NAMES if perpetual else ())
    happened: list[Fill | FundingPayment] = []
    marks = {name: Decimal(0) for name in NAMES}
    for t, step in enumerate(steps(g, 120)):
        for event in broker.on_bar(step):
            if isinstance(event, Fill | FundingPayment):
                portfolio.apply(event)
                happened.append(event)
        state = portfolio.mark(step.at, step.close)
        marks = {n: Decimal(repr(c)) if c == c else marks[n] for n, c in zip(NAMES, step.close, strict=True)}
        check_i3(happened, state, marks, Decimal(cash), long_only and not perpetual)
        assert broker.account.cash == portfolio.cash
        submit_something(g, broker, portfolio, step, t, long_only)


def check_i3(happened, state, marks, cash, spot_long):
    """`cash = cash₀ − Σ side·q·p − fees + funding`, `equity = cash + Σ position·mark`, from the events alone."""
    fills = [event for event in happened if isinstance(event, Fill)]
    signs = [1 if fill.side == "buy" else -1 for fill in fills]
    fees = sum((fill.fee for fill in fills), Decimal(0))
    funding = sum((event.amount for event in happened if isinstance(event, FundingPayment)), Decimal(0))
    spent = sum((s * fill.quantity * fill.price for s, fill in zip(signs, fills, strict=True)), Decimal(0))
    held = {name: sum((s * f.quantity for s, f in zip(signs, fills, strict=True) if f.instrument == name), Decimal(0)) for name in NAMES}
    assert state.cash == cash - spent - fees + funding
    assert dict(state.positions) == {name: quantity for name, quantity in held.items() if quantity}
    assert state.equity == state.cash + sum((quantity * marks[name] for name, quantity in held.items()), Decimal(0))
    assert (state.fees_paid, state.funding_received) == (fees, funding)
    assert state.peak_equity >= state.equity
    if spot_long:
        assert state.cash >= 0
    for fill in fills[-2:]:
        assert fill.spread_cost >= 0
        assert fill.impact_cost >= 0
        assert fill.fee == (fill.quantity * fill.price * Decimal("0.001")).quantize(Decimal("1e-8"))


def submit_something(g, broker, portfolio, step, t, long_only):
    for name in NAMES:
        if g.random() < 0.4:
            side = "buy" if g.random() < 0.55 else "sell"
            quantity = Decimal(int(g.integers(1, 8000))) / 1000
            if long_only and side == "sell":
                quantity = min(quantity, portfolio.position(name))
                if quantity <= 0:
                    continue
            broker.submit(
                Order(happened_at=step.at, known_at=step.at, client_id=f"ca{t}{name[0]}", instrument=name, side=side, quantity=quantity),
                t,
            )
