"""The planning agent's small print, worked out by hand: costs, units, dust, gaps, the garrote, what an episode pays, what a gate asks."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import FusedSignal, MarketState, PortfolioState
from cryptoalpha.decisions.alphazero.config import AlphaZeroConfig
from cryptoalpha.decisions.alphazero.episodes import judged, play
from cryptoalpha.decisions.alphazero.market import Dynamics, Taste, TradingModel
from cryptoalpha.decisions.alphazero.memory import MarketMemory
from cryptoalpha.decisions.alphazero.scenarios import Garch
from cryptoalpha.decisions.alphazero.state import COST_RATE, HOME, IMPACT, LOG_VOLATILITY, UNIT, WIDTH
from cryptoalpha.decisions.alphazero.trader import Trader
from cryptoalpha.decisions.config import AgentConfig
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.execution.costs import impact_fraction
from cryptoalpha.learn.search.contract import Budget, Floats

approx = pytest.approx
COSTS = CostConfig(taker_fee=0.001, half_spread=0.0002, impact=0.8)
NOBODY = np.zeros(6)


def trader(name="bootstrap", **settings) -> Trader:
    config = AlphaZeroConfig(branching=(4, 3), positions=9, **settings)
    return Trader(name, AgentConfig(long_only=False), config, COSTS, book_size=1, seed=1)


def told(*, volatility: float = 0.6, move: float = 0.0, recent_cost: float | None = None):
    stamp = {"happened_at": 0, "known_at": HOUR, "instrument": "A", "volatility": volatility}
    fused = FusedSignal(
        **stamp, sentiment=0.0, direction=0.0, confidence=0.5, urgency=0.0, weights=(), expected_move=move, horizon=24 * HOUR
    )
    return [fused], [MarketState(**stamp, price=100.0, recent_cost=recent_cost)]


def row(**settings) -> np.ndarray:
    fused, states = told(**settings)
    (found,) = trader().rows(HOUR, fused, states, ())
    assert found is not None
    return found[0].astype(np.float64)


def test_a_trade_is_expected_to_cost_what_trades_cost_lately_but_no_less_than_fee_and_half_spread():
    assert row()[COST_RATE] == approx(0.0012)
    assert row(recent_cost=0.003)[COST_RATE] == approx(0.003)
    assert row(recent_cost=0.0001)[COST_RATE] == approx(0.0012)


def test_no_unit_is_larger_than_the_largest_weight():
    target = AgentConfig().target_volatility
    assert row()[UNIT] == approx(target / 0.6)
    assert row(volatility=0.01)[UNIT] == 1.0


def test_impact_is_that_of_the_brokers_for_a_trade_of_that_share_of_the_daily_volume():
    """A weight w of equity e in a market of volume V trades w·e/V of a day: `impact_fraction` of the price, on w."""
    states = row()[None].astype(np.float32)
    model = TradingModel(np.array([0.0, 0.5, 1.0]), Garch(4.0), Dynamics(0.9, 0.0, 1.0), Taste("log", 2.0, 0.99))
    unit, daily = float(states[0, UNIT]), 0.6 / math.sqrt(365.0)
    for place, share in ((1, 0.5), (2, 1.0)):
        traded = share * unit
        moved = impact_fraction(0.8, daily, 1.0, traded * AlphaZeroConfig().equity_over_volume)
        assert model.costs(states)[0, 0, place] == approx(traded * (0.0012 + moved), rel=1e-5)
    assert states[0, IMPACT] > 0.0


def test_what_is_nearer_to_nothing_than_to_a_step_is_closed_where_the_plan_is_flat():
    fused, states = told()
    held = (("A", Decimal("0.5")),)  # 50 of 10,000
    money = Decimal(10_000)
    book = PortfolioState(happened_at=HOUR, known_at=HOUR, cash=money, positions=held, equity=money, peak_equity=money)
    (decision,) = trader().decide(HOUR, fused, fused_events=(0,), portfolio=book, states=states, signals=())
    assert decision.target_weight == 0.0


def test_only_garch_lets_the_variance_react_to_a_shock():
    assert trader("garch").model().dynamics.garch == (0.05, 0.93)
    assert trader("bootstrap").model().dynamics.garch is None


def remembered(bars, prices, drifts=None, volatility: float = 0.01) -> MarketMemory:
    """A memory that saw closes of one instrument at these bars."""
    memory = MarketMemory(AlphaZeroConfig(refresh_bars=1), book_size=1)
    for place, (bar, price) in enumerate(zip(bars, prices, strict=True)):
        memory.observe("A", bar * HOUR, HOUR, price, math.log(volatility), NOBODY)
        drift = 0.0 if drifts is None else drifts[place]
        memory.believed("A", bar * HOUR, HOUR, price, drift, drift, math.log(volatility), NOBODY)
        memory.end_bar()
    return memory


def test_a_move_over_a_gap_is_no_residual():
    whole, gapped = remembered((0, 1, 2), (100.0, 101.0, 101.0)), remembered((0, 2, 3), (100.0, 101.0, 101.0))
    assert whole._z[: whole._rows].tolist() == approx([1.0, 0.0])
    assert gapped._z[: gapped._rows].tolist() == [0.0]


def test_opinions_answer_to_returns_only_where_that_is_more_than_chance():
    """Drifts that move by half of each shock; and drifts that go their own way at the expected persistence."""
    rng = np.random.default_rng(3)
    shocks = rng.standard_normal(400)
    clear = remembered(range(400), 100.0 * np.cumprod(1.0 + 0.01 * shocks), 0.5 * shocks).fitted()
    assert clear.response == approx(0.5, abs=0.15)
    found = []
    for _ in range(20):
        prices, drifts = 100.0 * np.cumprod(1.0 + 0.01 * rng.standard_normal(60)), np.zeros(60)
        for t in range(1, 60):
            drifts[t] = 0.5 ** (1.0 / 24.0) * drifts[t - 1] + 0.02 * rng.standard_normal()
        found.append(remembered(range(60), prices, drifts).fitted().response)
    assert found.count(0.0) >= 15


class Daring(TradingModel):
    """Believes that a full position pays at every leaf, and is at once long."""

    def values(self, states: Floats) -> np.ndarray:
        return np.tile(np.array([0.0, 0.0, 1.0]), (len(states), 1))


def test_an_episode_pays_every_trade_and_its_own_closing_but_luck_neither_pays_nor_costs():
    rows = np.zeros((3, WIDTH), dtype=np.float32)
    rows[:, UNIT], rows[:, COST_RATE], rows[:, IMPACT] = 0.5, 0.01, 0.02
    rows[:, LOG_VOLATILITY] = rows[:, HOME] = math.log(0.02)
    positions = np.array([-1.0, 0.0, 1.0])
    world = TradingModel(positions, Garch(4.0), Dynamics(0.0, 0.0, 1.0), Taste("linear", 2.0, 1.0, "zero"))
    planner = Daring(positions, Garch(4.0), Dynamics(0.0, 0.0, 1.0), Taste("linear", 2.0, 1.0, "zero"))
    earned = play(planner, world, rows, Budget(branching=(4,)), bars=5, seed=1)
    trade = 0.5 * (0.01 + 0.02 * math.sqrt(0.5))
    assert earned == approx(np.full(3, -2.0 * trade - 5 * (0.5 * 0.02) ** 2), rel=1e-6)


def test_a_challenger_that_is_ahead_within_chance_does_not_pass():
    noise = np.random.default_rng(5).standard_normal(200)
    ahead = judged(noise - noise.mean() + 0.02, np.zeros(200), seed=1)
    assert ahead.interval.estimate == approx(0.02)
    assert not ahead.passed
    assert judged(noise - noise.mean() + 1.0, np.zeros(200), seed=1).passed
