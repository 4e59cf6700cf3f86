"""Rewards add up to what the account earned, and the account is the broker's: the same bars, targets, fills, fees and funding."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import InstrumentRules, Order, Refusal
from cryptoalpha.decisions.market_env.bars import BarMarket
from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.env import MarketEnv
from cryptoalpha.decisions.market_env.vector import VectorMarketEnv
from cryptoalpha.execution.broker import bar_steps
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.store.panel import Panel

ROWS, START, NAME = 260, 175, "A0/USDT"
TINY = Decimal("1e-12")


def walk(g: np.random.Generator, *, deviation: float = 0.02) -> tuple[Panel, np.ndarray, np.ndarray]:
    """One instrument; some bars without volume, funding at some opens and inside some bars."""
    close = 100.0 * np.exp(np.cumsum(deviation * g.standard_t(4, (ROWS, 1)), axis=0))
    open_ = np.vstack([np.full((1, 1), 100.0), close[:-1]]) * np.exp(g.normal(0.0, 0.005, (ROWS, 1)))
    spread = np.exp(np.abs(g.normal(0.0, 0.002, (ROWS, 1))))
    volume = g.gamma(2.0, 50_000.0, (ROWS, 1)) * (g.random((ROWS, 1)) > 0.05)
    columns = [np.round(x, 6) for x in (open_, np.maximum(open_, close) * spread, np.minimum(open_, close) / spread, close, volume)]
    times = HOUR * np.arange(1, ROWS + 1, dtype=np.int64)
    nothing, row = np.full((ROWS, 1), np.nan), np.arange(ROWS)[:, None]
    panel = Panel((NAME,), HOUR, times, times + HOUR, *columns, nothing, np.ones((ROWS, 1), dtype=np.bool_), row)
    rates = [np.where(g.random((ROWS, 1)) < 0.2, g.normal(0.0, 1e-3, (ROWS, 1)), np.nan) for _ in range(2)]
    return panel, *rates


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 80),
    deviation=st.sampled_from([0.001, 0.02, 0.2]),
    largest=st.sampled_from([1.0, 3.0]),
    risk_aversion=st.sampled_from([0.0, 5.0]),
)
def test_rewards_add_up_to_the_log_of_equity_less_penalties_and_ruin_is_counted_once(seed, steps, deviation, largest, risk_aversion):
    g = np.random.default_rng(seed)
    panel, *funding = walk(g, deviation=deviation)
    market = BarMarket(panel, ExecutionConfig(), funding=tuple(funding))
    config = EnvironmentConfig(shorts=True, largest=largest, horizon=steps, risk_aversion=risk_aversion, ruin_loss=9.0)
    env = MarketEnv(market, config, CostConfig())
    env.reset(seed=seed, options={"place": [START, 0]})
    before = total = penalties = 0.0
    terminated = truncated = False
    while not (terminated or truncated):
        before = total
        _, reward, terminated, truncated, info = env.step(g.integers(21))
        total, penalties = total + reward, penalties + info["penalty"]
    if terminated:  # a peer's fault is to book the whole loss again in the last reward
        assert abs(total - before + 9.0) < 1e-12
        assert info["equity"] == info["position"] == 0.0
    else:
        assert_allclose(total + penalties, np.log(info["equity"] / config.initial_equity), rtol=1e-12, atol=1e-13)


def through_the_broker(panel, funding, config, grid, actions):
    """Equity after each of the actions, by the event path: orders, `Decimal` fills, the portfolio's own valuation."""
    rules = InstrumentRules(
        happened_at=0, known_at=0, instrument=NAME, venue="test", base="A0", quote="USDT",
        lot=TINY, tick=TINY, min_notional=Decimal(0), perpetual=True,
    )  # fmt: skip
    broker, book = SimulatedBroker(config, {NAME: rules}), Portfolio(config.initial_cash, (NAME,), (NAME,))
    equities, fees = [], []
    for t, step in enumerate(bar_steps(panel, funding)):
        for event in broker.on_bar(step):
            assert not isinstance(event, Refusal), event
            book.apply(event)
        equity, units, price = float(book.mark(step.at, step.close).equity), float(book.position(NAME)), step.close[0]
        if t > START:
            equities.append(equity)
            fees.append(float(book.fees_paid))
        if START <= t < START + len(actions):
            target = grid[actions[t - START]]
            if np.argmin(np.abs(grid - units * price / equity)) != actions[t - START]:
                change = target * equity / price - units
                quantity = Decimal(repr(float(abs(change)))).quantize(TINY)
                side = "buy" if change > 0 else "sell"
                stamp = {"happened_at": step.at, "known_at": step.at, "client_id": f"c{t}"}
                broker.submit(Order(**stamp, instrument=NAME, side=side, quantity=quantity), t)
    return np.array(equities[: len(actions)]), np.array(fees[: len(actions)])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), impact=st.sampled_from([0.0, 1.0]), spread=st.sampled_from([0.0, 0.002]), funded=st.booleans())
def test_the_books_are_those_of_the_simulated_broker(seed, impact, spread, funded):
    g = np.random.default_rng(seed)
    panel, *funding = walk(g)
    config = ExecutionConfig(funding=funded, costs=CostConfig(impact=impact, half_spread=spread, max_participation=None))
    market = BarMarket(panel, config, funding=tuple(funding))
    env = VectorMarketEnv(market, EnvironmentConfig(positions=9, shorts=True, largest=0.6, horizon=70), config.costs, num_envs=2)
    actions = g.integers(9, size=70)
    actions = np.where(g.random(70) < 0.5, actions, actions[0])  # often the same target, so that holding and drifting happen
    env.reset(seed=0, options={"place": [START, 0]})
    ours, costs = np.empty(70), np.zeros(70)
    for step, action in enumerate(actions):
        *_, told = env.step(np.array([action, 4]))
        if step == 69:
            told = told["final_info"]
        ours[step], costs[step] = told["equity"][0], told["costs"][0]
        assert told["equity"][1] == 100_000.0  # a lane that stays flat
    equities, fees = through_the_broker(panel, tuple(funding), config, env.lanes.accounts.positions, actions)
    assert_allclose(ours, equities, rtol=1e-9)
    if impact == spread == 0.0:
        assert_allclose(np.cumsum(costs), fees, rtol=1e-9)
