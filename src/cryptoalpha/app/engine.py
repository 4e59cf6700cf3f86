"""The one loop. Backtest, paper and live run exactly this code; they differ in Clock, Source and Broker, and in nothing else.

One step per bar for the whole book: what the broker did with the bar → cash and positions → market state and signals → fused signal
→ decision → risk → orders. Everything a step saw and did becomes one journal row, written before an order leaves (write-ahead): with
a durable journal a killed process finds its intents on restart. A value known after the clock stops the run with `LookAheadError`.

The loop is deterministic: the same steps give the same journal, byte for byte. That is how a killed run is recovered (`Journal` compares
each replayed row with what is stored) and how backtests are compared (`Journal.digest`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import LookAheadError
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.core.values import (
    ROW_SHIFT,
    Decision,
    Fill,
    FundingPayment,
    FusedSignal,
    MarketState,
    ObservationRef,
    Order,
    PortfolioState,
    Refusal,
    Signal,
    Travelling,
)
from cryptoalpha.decisions.fusion import Fusion
from cryptoalpha.decisions.rule_agent import Agent
from cryptoalpha.execution.broker import BarStep, Broker
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.journal import Journal


@dataclass(slots=True)
class Step:
    """What became known with one bar of the book: the bar for the broker, references to it, market states and signals."""

    bar: BarStep
    references: Sequence[ObservationRef]
    states: Sequence[MarketState]
    signals: Sequence[Signal]


@dataclass(slots=True)
class StepOutcome:
    """What one step did, for whoever watches the loop. `row` is the journal row it was written to."""

    row: int
    portfolio: PortfolioState
    fused: Sequence[FusedSignal]
    decisions: Sequence[Decision]
    reviewed: Sequence[Order | Refusal]
    happened: Sequence[Fill | FundingPayment | Refusal]


class Engine:
    """Collect → fuse → decide → risk → journal → execute, one bar at a time.

    Args:
        auto_trading: where False, decisions are journaled and nothing is sent to the broker.

    Raises (from `step`):
        LookAheadError: if a state or signal is known after the clock.
        AccountingError: if cash or positions stop adding up.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        fusion: Fusion,
        agent: Agent,
        gate: RiskGate,
        broker: Broker,
        portfolio: Portfolio,
        journal: Journal,
        auto_trading: bool = True,
    ) -> None:
        self.clock, self.fusion, self.agent, self.gate = clock, fusion, agent, gate
        self.broker, self.portfolio, self.journal = broker, portfolio, journal
        self.auto_trading = auto_trading
        self.steps = 0
        self._day = -1

    def run(self, steps: Iterable[Step], watch: Callable[[Step, StepOutcome], None] | None = None) -> int:
        """Take every step and commit the journal; returns how many were taken. Nothing is ever skipped or truncated."""
        for step in steps:
            outcome = self.step(step)
            if watch is not None:
                watch(step, outcome)
        self.journal.commit()
        return self.steps

    def step(self, step: Step) -> StepOutcome:
        """Take one step; the intents it produced are in the journal before the broker hears of them."""
        now = self.clock.now()
        _refuse_the_future(step, now)
        row = self.journal.next_row
        values: list[Travelling] = [*step.references]
        happened = self.broker.on_bar(step.bar)
        for event in happened:
            if not isinstance(event, Refusal):
                self.portfolio.apply(event)
        values += happened
        portfolio = self.portfolio.mark(now, step.bar.close)
        if happened or now // DAY != self._day:  # between changes it can be recomputed from the bars
            values.append(portfolio)
            self._day = now // DAY
        fused, decisions, reviewed = self._think(now, row << ROW_SHIFT, step, portfolio, values)
        first_order = (row << ROW_SHIFT) + len(values)
        values += reviewed
        self.journal.append(now, values)
        for place, verdict in enumerate(reviewed):
            if type(verdict) is Order:
                self.broker.submit(verdict, first_order + place)
            else:  # what is left of an earlier order no longer serves a target that was refused
                self.broker.cancel(verdict.instrument)
        self.steps += 1
        return StepOutcome(row, portfolio, fused, decisions, reviewed, happened)

    def _think(
        self, now: int, base: int, step: Step, portfolio: PortfolioState, values: list[Travelling]
    ) -> tuple[list[FusedSignal], list[Decision], list[Order | Refusal]]:
        """States and signals → fused → decisions → orders and refusals; appends all but the last to the row in the making."""
        states, signals = step.states, step.signals
        state_events = range(base + len(values), base + len(values) + len(states))
        values += states
        signal_events = range(base + len(values), base + len(values) + len(signals))
        values += signals
        fused = self.fusion.fuse(now, states, signals, state_events=state_events, signal_events=signal_events)
        fused_events = range(base + len(values), base + len(values) + len(fused))
        values += fused
        decisions = self.agent.decide(now, fused, fused_events=fused_events, portfolio=portfolio)
        decision_events = range(base + len(values), base + len(values) + len(decisions))
        values += decisions
        if not self.auto_trading:
            return fused, decisions, []
        reviewed = self.gate.review(
            now,
            decisions,
            events=decision_events,
            states={state.instrument: state for state in states},
            portfolio=portfolio,
            pending=self.broker.pending(),
        )
        return fused, decisions, reviewed


def _refuse_the_future(step: Step, now: int) -> None:
    """Honesty is a type, not a habit: nothing known after the clock may enter a step."""
    if step.bar.at > now:
        raise LookAheadError(f"a bar is known at {iso(step.bar.at)}, but the clock reads {iso(now)}: advance the clock first")
    for state in step.states:
        if state.known_at > now:
            raise LookAheadError(
                f"the market state of {state.instrument} is known at {iso(state.known_at)}, but the clock reads {iso(now)}: "
                "stamp it with the time its bar closed"
            )
    for signal in step.signals:
        if signal.known_at > now:
            raise LookAheadError(
                f"signal {signal.source!r} for {signal.instrument} is known at {iso(signal.known_at)}, but the clock reads {iso(now)}: "
                "stamp it with its publication time, not its event time"
            )
