"""What fills cost and what a venue refuses reach the breakers by the loop: entries stop, ways out stay open, honest costs do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cryptoalpha.app.backtest import run_backtest
from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import (
    Decision,
    Fill,
    FusedSignal,
    InstrumentRules,
    MarketState,
    Order,
    PortfolioState,
    Refusal,
    RiskEvent,
    Signal,
)
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.broker import REJECTED, BarStep, Outcome
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.config import BreakerConfig, RiskConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.journal import Journal

NAME = "BTC/USDT"
RULES = {
    NAME: InstrumentRules(
        happened_at=0, known_at=0, instrument=NAME, venue="test", base="BTC", quote="USDT", lot=Decimal("0.001"), tick=Decimal("0.01"),
        min_notional=Decimal(5),
    )
}  # fmt: skip


class Turning:
    """An agent that wants a little more, a little less and nothing in turn, so that every bar has a fill."""

    name = "turning"

    def decide(
        self,
        at: int,
        fused: Sequence[FusedSignal],
        *,
        fused_events: Sequence[int],
        portfolio: PortfolioState,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
    ) -> list[Decision]:
        wanted = (0.2, 0.1, 0.2, 0.1, 0.0)[at // HOUR % 5]
        return [
            Decision(
                happened_at=at, known_at=at, instrument=one.instrument, agent=self.name, target_weight=wanted, confidence=1.0,
                reason="test", fused=event,
            )
            for one, event in zip(fused, fused_events, strict=True)
        ]  # fmt: skip


class Dear(SimulatedBroker):
    """A venue at which every trade costs 50 basis points more than it says."""

    def on_bar(self, step: BarStep) -> list[Outcome]:
        return [self._dearer(event) if isinstance(event, Fill) else event for event in super().on_bar(step)]

    def _dearer(self, fill: Fill) -> Fill:
        return msgspec.structs.replace(fill, price=fill.price * (Decimal("1.005") if fill.side == "buy" else Decimal("0.995")))


class Refusing(SimulatedBroker):
    """A venue that refuses five orders with the tenth bar. `rule` is what it calls that."""

    rule = REJECTED
    bars = 0

    def on_bar(self, step: BarStep) -> list[Outcome]:
        self.bars += 1
        refused = [Refusal(happened_at=step.at, known_at=step.at, instrument=NAME, rule=self.rule, message="no") for _ in range(5)]
        return super().on_bar(step) + (refused if self.bars == 10 else [])


class GivingUp(Refusing):
    rule = "insufficient_cash"


def step(t: int, price: float) -> Step:
    at = (t + 1) * HOUR
    bar = BarStep(at, t * HOUR, HOUR, (NAME,), [price], [price], [price], [price], [1e6], [True])
    state = MarketState(happened_at=t * HOUR, known_at=at, instrument=NAME, price=price, volatility=0.3)
    opinion = Signal(
        happened_at=t * HOUR, known_at=at, source="test", type="price", instrument=NAME, value=1.0, confidence=1.0, predicted_impact=0.0,
        proposed_action="buy", horizon=HOUR,
    )  # fmt: skip
    return Step(bar, (), (state,), (opinion,))


def values_of(broker: type[SimulatedBroker], prices: Sequence[float], path: Path | None = None) -> list[object]:
    """All that a loop over these prices journals; every bar opens and closes at its price."""
    clock = VirtualClock()
    with Journal(path, durable=False, header={}) as journal:
        engine = Engine(
            clock=clock, fusion=EqualWeights(), agent=Turning(), gate=RiskGate(RiskConfig(volatility_target=None), RULES),
            broker=broker(ExecutionConfig(), RULES), portfolio=Portfolio(100_000.0, [NAME]), journal=journal,
        )  # fmt: skip
        for t, price in enumerate(prices):
            clock.advance_to((t + 1) * HOUR)
            engine.step(step(t, price))
        journal.commit()
        return [value for _, _, values in journal.rows() for value in values]


def random_walk(bars: int, seed: int) -> list[float]:
    return (100.0 * np.exp(np.cumsum(2e-3 * stream(seed, "fill costs").standard_normal(bars)))).tolist()


def states_of(values: Sequence[object], rule: str) -> list[str]:
    return [value.state for value in values if isinstance(value, RiskEvent) and value.rule == rule]


def test_trades_that_cost_more_than_modelled_stop_entries_and_let_exits_pass():
    values = values_of(Dear, random_walk(200, 1))
    assert states_of(values, "slippage")[:3] == ["open", "half_open", "closed"]
    opened = next(place for place, value in enumerate(values) if isinstance(value, RiskEvent) and value.rule == "slippage")
    assert 20 < sum(isinstance(value, Fill) for value in values[:opened]) < 80
    state, blocked = "closed", []
    for value in values:
        state = value.state if isinstance(value, RiskEvent) else state
        blocked += [value] if state == "open" and isinstance(value, Order | Refusal) else []
    assert {order.side for order in blocked if isinstance(order, Order)} == {"sell"}
    refused = [value for value in blocked if isinstance(value, Refusal)]
    assert {refusal.rule for refusal in refused} == {"slippage"}
    assert "fills cost more than modelled" in refused[0].message


@pytest.mark.parametrize("seed", range(4))
def test_honest_trades_trip_nothing(seed):
    assert states_of(values_of(SimulatedBroker, random_walk(800, seed)), "slippage") == []  # 3,200 fills, one alarm in 8,760 is promised


def test_trades_at_the_modelled_price_to_the_last_digit_are_no_slippage():
    values = values_of(SimulatedBroker, [100.0] * 400)
    assert sum(isinstance(value, Fill) for value in values) > 300
    assert states_of(values, "slippage") == []


def test_five_refusals_of_the_venue_within_a_minute_stop_entries():
    values = values_of(Refusing, random_walk(60, 2))
    assert states_of(values, "venue") == ["open", "half_open", "closed"]
    assert {value.rule for value in values if isinstance(value, Refusal)} == {REJECTED, "venue"}
    assert states_of(values_of(GivingUp, random_walk(60, 2)), "venue") == []  # the broker's own reasons are no fault of the venue


def test_a_restart_judges_the_same_fills_again(tmp_path):
    prices = random_walk(120, 1)
    whole = values_of(Dear, prices)
    values_of(Dear, prices[:70], tmp_path / "journal.sqlite")
    assert values_of(Dear, prices, tmp_path / "journal.sqlite") == whole  # a difference would have stopped it
    assert "open" in states_of(whole, "slippage")


def test_the_watch_over_costs_can_be_left_out():
    gate = RiskGate(RiskConfig(breakers=BreakerConfig(slippage_run_length_days=None)), RULES)
    for fill in range(500):
        gate.note_fill(fill * HOUR, realised=0.01, modelled=0.0)
    assert gate.breakers.tick(500 * HOUR) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_an_honest_year_of_a_busy_book_pauses_at_most_once(seed):
    settings = Settings.model_validate(
        {
            "signals": {"sources": ["trend", "momentum_short"], "keep_features": False},
            "fusion": {"method": "equal"},
            "agent": {"dead_band": 0.0, "smoothing_half_life_bars": 1},
            "risk": {"no_trade_band": 0.005},
        }
    )
    market = simulate(SimulatedConfig(assets=4, bars=24 * 425), seed).dataset
    year = Period(0, 2**62).last_bars(market, 24 * 365)
    found = run_backtest(settings, market, year, run="test", journal_path=None).recorder
    assert len(found.fills) > 5_000
    assert sum(event.rule == "slippage" and event.state == "open" for _, event in found.risk_events) <= 1
