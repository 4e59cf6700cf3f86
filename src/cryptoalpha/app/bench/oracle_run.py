"""The oracle rule through the real loop: signal → fusion → agent → risk → journal → broker, with every check on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from cryptoalpha.app.bench.oracle_market import CASH, FEE, INSTRUMENT, SLOW
from cryptoalpha.app.engine import Engine, Step, StepOutcome
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import MINUTE
from cryptoalpha.core.values import Decision, Fill, FusedSignal, InstrumentRules, MarketState, ObservationRef, Order, PortfolioState, Signal
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.broker import bar_steps
from cryptoalpha.execution.config import CostConfig, ExecutionConfig, FillRule
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.config import BreakerConfig, RiskConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats

RULES = InstrumentRules(
    happened_at=0, known_at=0, instrument=INSTRUMENT, venue="oracle", base="ORACLE", quote="USDT",
    lot=Decimal(1), tick=Decimal("0.01"), min_notional=Decimal(0),
)  # fmt: skip


class OneUnit:
    """Hold one unit while the fused direction is positive, else nothing."""

    name = "one-unit"

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
        return [
            Decision(
                happened_at=at, known_at=at, instrument=signal.instrument, agent="one-unit",
                target_weight=1.0 if signal.direction > 0.0 else 0.0, confidence=signal.confidence, reason="EMA cross",
                fused=fused_events[place],
            )
            for place, signal in enumerate(fused)
        ]  # fmt: skip


class OracleRun(NamedTuple):
    """What the loop did: equity at every bar, orders as (row of the bar decided on, side, quantity), fills, and the journal's digest."""

    equity: Floats
    orders: list[tuple[int, str, Decimal]]
    fills: list[Fill]
    digest: str
    rows: int


def wanted_units(fast: Floats, slow: Floats) -> Floats:
    """1 where the rule holds a unit, else 0."""
    return np.where((np.arange(len(fast)) >= SLOW) & (fast > slow), 1.0, 0.0)


def oracle_steps(panel: Panel, units: Floats, clock: VirtualClock) -> Iterator[Step]:
    """The market as the loop sees it, with the rule as its only signal."""
    move = clock.advance_to
    for row, (bar, unit) in enumerate(zip(bar_steps(panel), units.tolist(), strict=True)):
        at, opened = bar.at, bar.open_time
        move(at)
        yield Step(
            bar,
            (ObservationRef(happened_at=opened, known_at=at, subject=INSTRUMENT, partition="oracle", row=row),),
            (MarketState(happened_at=opened, known_at=at, instrument=INSTRUMENT, price=bar.close[0], volatility=0.5),),
            (
                Signal(
                    happened_at=opened, known_at=at, source="ema", type="price", instrument=INSTRUMENT, value=unit, confidence=1.0,
                    predicted_impact=0.0, proposed_action="buy" if unit else "hold", horizon=MINUTE,
                ),
            ),
        )  # fmt: skip


def run_loop(panel: Panel, units: Floats, journal: Journal, *, fill: FillRule, fee: float = FEE) -> OracleRun:
    """Drive the whole market through the engine."""
    costs = CostConfig(taker_fee=fee, maker_fee=fee, half_spread=0.0, impact=0.0, max_participation=None, unknown_volume_slippage=0.0)
    limits = RiskConfig(
        sizing="units", volatility_target=None, max_position=1.0, max_gross=1.0, max_cluster=1.0, max_drawdown=1.0, no_trade_band=0.0,
        # the market has moves that nobody would believe, and trades them; what a fill costs is the oracle's own business
        breakers=BreakerConfig(bad_tick_score=1e9, bad_tick_jump=1e9, slippage_run_length_days=None),
    )  # fmt: skip
    clock = VirtualClock()
    engine = Engine(
        clock=clock,
        fusion=EqualWeights(),
        agent=OneUnit(),
        gate=RiskGate(limits, {INSTRUMENT: RULES}, account="oracle"),
        broker=SimulatedBroker(ExecutionConfig(costs=costs, fill=fill, initial_cash=CASH), {INSTRUMENT: RULES}),
        portfolio=Portfolio(CASH, [INSTRUMENT]),
        journal=journal,
    )
    equity: list[float] = []
    last, last_float = Decimal(0), 0.0
    orders: list[tuple[int, str, Decimal]] = []
    fills: list[Fill] = []

    def watch(step: Step, outcome: StepOutcome) -> None:
        nonlocal last, last_float
        now = outcome.portfolio.equity
        if now is not last:  # the very same object while nothing is held: a Decimal becomes a float through text
            last, last_float = now, float(now)
        equity.append(last_float)
        if outcome.review.verdicts:
            orders.extend((engine.steps - 1, order.side, order.quantity) for order in outcome.review.verdicts if isinstance(order, Order))
        if outcome.happened:
            fills.extend(event for event in outcome.happened if isinstance(event, Fill))

    rows = engine.run(oracle_steps(panel, units, clock), watch)
    return OracleRun(np.array(equity, dtype=np.float64), orders, fills, journal.digest(), rows)
