"""The loop's own promises: nothing from the future enters, nothing leaves before it is written, what is refused is cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest

from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import LookAheadError
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Decision, Fill, FusedSignal, InstrumentRules, MarketState, Order, PortfolioState, Refusal, Signal
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.broker import BarStep, Outcome
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.journal import Journal

NAME = "BTC/USDT"
RULES = {
    NAME: InstrumentRules(
        happened_at=0, known_at=0, instrument=NAME, venue="test", base="BTC", quote="USDT", lot=Decimal("0.001"), tick=Decimal("0.01"),
        min_notional=Decimal(5),
    )
}  # fmt: skip


class Wanting:
    """An agent that wants one weight after another."""

    name = "wanting"

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = iter(weights)

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
                happened_at=at, known_at=at, instrument=one.instrument, agent=self.name, target_weight=next(self._weights), confidence=1.0,
                reason="test", fused=event,
            )
            for one, event in zip(fused, fused_events, strict=True)
        ]  # fmt: skip


class Witness(SimulatedBroker):
    """The real broker, noting what the journal held whenever an order arrived."""

    journal: Journal
    seen: list[tuple[Order, object]]

    def submit(self, order: Order, event: int) -> None:
        self.seen.append((order, self.journal.get(event)))
        super().submit(order, event)

    def on_bar(self, step: BarStep) -> list[Outcome]:
        return list(super().on_bar(step))


def step(t: int, price: float, *, late: int = 0, signal_late: int = 0) -> Step:
    at = (t + 1) * HOUR
    bar = BarStep(at, t * HOUR, HOUR, (NAME,), [price], [price], [price], [price], [1e6], [True])
    state = MarketState(happened_at=t * HOUR, known_at=at + late, instrument=NAME, price=price, volatility=0.3)
    opinion = Signal(
        happened_at=t * HOUR, known_at=at + signal_late, source="test", type="price", instrument=NAME, value=1.0, confidence=1.0,
        predicted_impact=0.0, proposed_action="buy", horizon=HOUR,
    )  # fmt: skip
    return Step(bar, (), (state,), (opinion,))


def engine(weights: Sequence[float], clock: VirtualClock, *, auto_trading: bool = True, **risk: object) -> tuple[Engine, Witness]:
    journal = Journal(None, durable=False, header={})
    broker = Witness(ExecutionConfig(), RULES)
    broker.journal, broker.seen = journal, []
    limits = RiskConfig.model_validate({"volatility_target": None, "max_position": 0.9, **risk})
    built = Engine(
        clock=clock, fusion=EqualWeights(), agent=Wanting(weights), gate=RiskGate(limits, RULES), broker=broker,
        portfolio=Portfolio(100_000.0, [NAME]), journal=journal, auto_trading=auto_trading,
    )  # fmt: skip
    return built, broker


def take(built: Engine, clock: VirtualClock, steps: Sequence[Step]) -> list[object]:
    """Run the steps; returns every value journaled."""
    for one in steps:
        clock.advance_to(one.bar.at)
        built.step(one)
    built.journal.commit()
    return [value for _, _, values in built.journal.rows() for value in values]


def test_an_order_is_in_the_journal_before_the_broker_hears_of_it():
    clock = VirtualClock()
    built, broker = engine([0.5, 0.5], clock)
    take(built, clock, [step(0, 100.0), step(1, 100.0)])
    ((order, journaled),) = broker.seen
    assert journaled == order


def test_a_decision_at_a_close_fills_at_the_next_open_and_its_parents_lead_back():
    clock = VirtualClock()
    built, _ = engine([0.5, 0.5], clock)
    values = take(built, clock, [step(0, 100.0), step(1, 105.0)])
    (fill,) = [value for value in values if isinstance(value, Fill)]
    assert (fill.happened_at, fill.known_at) == (HOUR, 2 * HOUR)
    assert float(fill.price) == pytest.approx(105.0, rel=2e-3)  # the next open, moved by spread and slippage
    order = built.journal.get(fill.order)
    decision = built.journal.get(order.decision)
    fused = built.journal.get(decision.fused)
    assert isinstance(built.journal.get(fused.signals[0]), Signal)
    assert isinstance(built.journal.get(fused.market_state), MarketState)


@pytest.mark.parametrize(("late", "signal_late", "culprit"), [(1, 0, "market state"), (0, 1, "signal 'test'")])
def test_a_value_known_after_the_clock_stops_the_run(late: int, signal_late: int, culprit: str):
    clock = VirtualClock()
    built, _ = engine([0.5], clock)
    with pytest.raises(LookAheadError, match=culprit):
        take(built, clock, [step(0, 100.0, late=late, signal_late=signal_late)])
    assert len(built.journal) == 0


def test_a_bar_before_the_clock_has_reached_it_stops_the_run():
    built, _ = engine([0.5], VirtualClock())
    with pytest.raises(LookAheadError, match="bar"):
        built.step(step(0, 100.0))


def test_a_refusal_cancels_what_is_left_of_the_order_before():
    clock = VirtualClock()
    built, broker = engine([0.5, float("nan"), float("nan")], clock)
    thin = step(1, 100.0)
    thin.bar.volume = [10.0]  # a tenth of it may be taken: 1 of 500
    values = take(built, clock, [step(0, 100.0), thin, step(2, 100.0)])
    fills = [value for value in values if isinstance(value, Fill)]
    assert [float(fill.quantity) for fill in fills] == [1.0]
    assert {value.rule for value in values if isinstance(value, Refusal)} == {"not_finite"}
    assert broker.pending() == {}


def test_a_refusal_leaves_a_way_out_alone():
    """Half is held and to be closed; the second bar of the exit is thin, and then the agent's output is no number."""
    clock = VirtualClock()
    built, broker = engine([0.5, 0.0, float("nan"), float("nan"), float("nan")], clock)
    thin = step(2, 100.0)
    thin.bar.volume = [10.0]  # a tenth of it may be taken
    values = take(built, clock, [step(0, 100.0), step(1, 100.0), thin, step(3, 100.0)])
    assert {value.rule for value in values if isinstance(value, Refusal)} == {"not_finite"}
    fills = [(value.side, float(value.quantity)) for value in values if isinstance(value, Fill)]
    bought = fills[0][1]
    assert fills == [("buy", bought), ("sell", 1.0), ("sell", bought - 1.0)]
    assert built.portfolio.positions == ()
    assert broker.pending() == {}


def test_without_auto_trading_nothing_is_reviewed_or_sent():
    clock = VirtualClock()
    built, broker = engine([0.5, 0.5], clock, auto_trading=False)
    values = take(built, clock, [step(0, 100.0), step(1, 100.0)])
    assert sum(isinstance(value, Decision) for value in values) == 2
    assert not any(isinstance(value, Order | Fill | Refusal) for value in values)
    assert broker.seen == []
