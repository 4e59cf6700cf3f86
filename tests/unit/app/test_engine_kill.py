"""What the loop does with kill and resume: row by row, on a journal file."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.core.clock import VirtualClock
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
    Travelling,
)
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.controls import control_state, request_control
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


class Run:
    """An engine on a journal file, one bar after another."""

    def __init__(self, path: Path, weights: Sequence[float], *, auto_trading: bool = True, max_drawdown: float = 0.9) -> None:
        self.path, self.t, self.clock = path, 0, VirtualClock()
        self.journal = Journal(path, durable=True, header={})
        limits = RiskConfig.model_validate(
            {"volatility_target": None, "max_position": 0.9, "max_drawdown": max_drawdown, "tail": {"max_expected_shortfall": None}}
        )
        self.gate = RiskGate(limits, RULES)
        self.broker = SimulatedBroker(ExecutionConfig(), RULES)
        self.engine = Engine(
            clock=self.clock, fusion=EqualWeights(), agent=Wanting(weights), gate=self.gate, broker=self.broker,
            portfolio=Portfolio(100_000.0, [NAME]), journal=self.journal, auto_trading=auto_trading,
        )  # fmt: skip

    def step(self, price: float = 100.0, volume: float = 1e6) -> list[Travelling]:
        """Take a bar; the values of its row."""
        at, t = (self.t + 1) * HOUR, self.t
        bar = BarStep(at, t * HOUR, HOUR, (NAME,), [price], [price], [price], [price], [volume], [True])
        state = MarketState(happened_at=t * HOUR, known_at=at, instrument=NAME, price=price, volatility=0.3)
        opinion = Signal(
            happened_at=t * HOUR, known_at=at, source="test", type="price", instrument=NAME, value=1.0, confidence=1.0,
            predicted_impact=0.0, proposed_action="buy", horizon=HOUR,
        )  # fmt: skip
        self.t += 1
        self.clock.advance_to(at)
        self.engine.step(Step(bar, (), (state,), (opinion,)))
        return self.journal.read(self.t)[1]

    def kill(self, *, flatten: bool = False) -> None:
        request_control(self.path, "kill", by="ann", reason="odd", at=1, flatten=flatten)


def of(kind: type, values: Sequence[Travelling]) -> list:
    return [value for value in values if isinstance(value, kind)]


def changes(values: Sequence[Travelling]) -> list[str]:
    return [event.state for event in of(RiskEvent, values) if event.rule == "kill_switch"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_a_kill_cancels_what_is_left_of_an_entry_before_the_bar_can_fill_it(path):
    run = Run(path, [0.5] * 4)
    assert of(Order, run.step())
    assert of(Fill, run.step(volume=10.0))  # a tenth of it: 1 of 500
    run.kill()
    values = run.step()
    assert of(Fill, values) == []
    (cancelled, *_) = of(Refusal, values)
    assert cancelled.rule == "kill_switch"
    assert "still to be filled is cancelled, killed since 1970-01-01T03:00:00Z by ann: odd" in cancelled.message
    assert changes(values) == ["tripping", "tripped"]
    assert run.broker.pending() == {}
    assert control_state(path).mode == "tripped"
    run.journal.close()


def test_while_killed_entries_are_refused_and_reductions_pass(path):
    run = Run(path, [0.5, 0.5, 0.8, 0.2, 0.2, 0.0, 0.0])
    run.step()
    run.step()
    run.kill()
    refused = run.step()
    assert [verdict.rule for verdict in of(Refusal, refused)] == ["kill_switch"]
    assert of(Order, refused) == []
    (smaller,) = of(Order, run.step())
    assert (smaller.side, smaller.reduce_only) == ("sell", True)
    assert of(Fill, run.step())
    assert of(Order, run.step())[0].reduce_only
    run.step()
    assert run.engine.portfolio.positions == ()
    run.journal.close()


def test_flatten_closes_whatever_the_agent_wants_and_a_resume_lets_it_enter_again(path):
    run = Run(path, [0.5] * 8)
    run.step()
    run.step()
    run.kill(flatten=True)
    values = run.step()
    (closing,) = of(Order, values)
    assert (closing.side, closing.reduce_only, changes(values)) == ("sell", True, ["tripping"])
    assert control_state(path).mode == "tripping"
    values = run.step()
    assert (changes(values), run.engine.portfolio.positions) == (["tripped"], ())
    request_control(path, "resume", by="bob", reason="fine", at=2)
    values = run.step()
    assert changes(values) == ["armed"]
    assert not of(Order, values)[0].reduce_only
    run.journal.close()


def test_the_runs_own_limit_is_a_kill_like_any_other_and_survives_a_restart(path):
    weights, prices = [0.9] * 6, [100.0, 100.0, 60.0, 60.0]
    run = Run(path, weights, max_drawdown=0.2)
    rows = [run.step(price) for price in prices]
    assert changes(rows[2]) == ["tripping"]
    state = control_state(path)
    assert (state.mode, state.by, state.flatten, state.taken_row) == ("tripped", "risk", True, 3)
    run.journal.close()
    again = Run(path, weights, max_drawdown=0.2)
    assert [again.step(price) for price in prices] == rows
    assert again.gate.kill_switch.state == "tripped"
    assert control_state(path).kills == 1
    request_control(path, "resume", by="bob", reason="fine", at=2)
    assert of(Order, again.step(60.0))  # losses count from here
    again.journal.close()


def test_without_auto_trading_a_kill_is_taken_and_settled_all_the_same(path):
    run = Run(path, [0.5] * 3, auto_trading=False)
    run.step()
    run.kill(flatten=True)
    assert changes(run.step()) == ["tripping", "tripped"]
    assert control_state(path).mode == "tripped"
    run.journal.close()


def test_a_quiet_run_tells_where_the_book_stands_once_a_day(path):
    """At its first bar, and from then on at the first known at or after 00:00 UTC."""
    run = Run(path, [0.0] * 51)
    rows = [run.step() for _ in range(51)]
    assert [t + 1 for t, values in enumerate(rows) if of(PortfolioState, values)] == [1, 24, 48]
    run.journal.close()


def test_a_kill_between_the_look_and_the_bar_lets_what_is_pending_be_filled_by_that_bar_and_by_no_other(path):
    run = Run(path, [0.5] * 5)
    run.step()
    on_bar, asked = run.broker.on_bar, []

    def slow(bar: BarStep) -> object:
        if not asked:
            asked.append(run.kill())
        return on_bar(bar)

    run.broker.on_bar = slow
    values = run.step(volume=10.0)  # a tenth of it may be filled by a bar
    assert [fill.quantity for fill in of(Fill, values)] == [Decimal(1)]
    assert (of(Order, values), changes(values)) == ([], ["tripping"])
    assert [refusal.rule for refusal in of(Refusal, values)] == ["kill_switch"]  # with which what is left is cancelled
    values = run.step()
    assert (of(Fill, values), of(Order, values), changes(values)) == ([], [], ["tripped"])
    assert run.broker.pending() == {}
    run.journal.close()
