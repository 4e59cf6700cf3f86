"""The one loop. Backtest, paper and live run exactly this code; they differ in Clock, Source and Broker, and in nothing else.

One step per bar for the whole book: what the broker did with the bar → cash and positions → market state and signals → fused signal
→ decision → risk → orders. Everything a step saw and did becomes one journal row, written before an order leaves (write-ahead): with
a durable journal a killed process finds its intents on restart. A value known after the clock stops the run with `LookAheadError`.

A durable journal also carries kill and resume from other processes. They are taken twice a step: immediately before the bar reaches the
broker, so that what was pending is cancelled, and in one transaction with risk's review and the row, so that no entry is written after a
kill. An entry sent earlier may be filled by the bar that was on its way when the kill came, as at any venue; by no later one.

At a real venue a kill does not wait for the next bar: an *interim* step (`app.live.interim`) is taken at once. It has a moment, no bar;
nothing is decided in it, but what the venue told is booked, a kill is obeyed, entries are taken back and, where that was asked for,
closings sent.

The loop is deterministic: the same steps give the same journal, byte for byte. That is how a killed run is recovered (`Journal` compares
each replayed row with what is stored) and how backtests are compared (`Journal.digest`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Protocol

import msgspec

from cryptoalpha.app.fill_costs import FillCosts
from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import LookAheadError
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.core.values import (
    ROW_SHIFT,
    Alarm,
    Decision,
    FusedSignal,
    FusionSearch,
    MarketState,
    ObservationRef,
    Order,
    PortfolioState,
    Refusal,
    RiskEvent,
    Signal,
    Travelling,
)
from cryptoalpha.decisions.fusion.contract import Fusion
from cryptoalpha.decisions.rule_agent import Agent
from cryptoalpha.execution.broker import BarStep, Broker, Outcome
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.risk.gate import QUIET, Review, RiskGate
from cryptoalpha.risk.kill_switch import NAME as KILL_SWITCH
from cryptoalpha.risk.kill_switch import may_enter
from cryptoalpha.risk.orders import is_cancelled_by
from cryptoalpha.store.controls import Control
from cryptoalpha.store.journal import Journal

ZERO = Decimal(0)
NOTHING: tuple[RiskEvent, ...] = ()
NO_EVENTS = range(0)


class Step(msgspec.Struct, gc=False):
    """What became known with one bar of the book: the bar for the broker, references to it, market states and signals."""

    bar: BarStep
    references: Sequence[ObservationRef]
    states: Sequence[MarketState]
    signals: Sequence[Signal]
    is_interim: bool = False
    """Whether it lies between two bars: every bar of it is absent, and nothing is decided."""


class StepOutcome(msgspec.Struct, gc=False):
    """What one step did, for whoever watches the loop. `row` is the journal row it was written to."""

    row: int
    portfolio: PortfolioState
    fused: Sequence[FusedSignal]
    decisions: Sequence[Decision]
    review: Review
    happened: Sequence[Outcome]
    values: Sequence[Travelling] = ()
    """Everything the row holds, in its order."""
    search: FusionSearch | None = None
    """What the fusion searched in this step; None where it did not."""


class Watchdog(Protocol):
    """Looks for drift while the loop runs. It may say something; it changes nothing."""

    def look(
        self,
        step: Step,
        portfolio: PortfolioState,
        fused: Sequence[FusedSignal],
        happened: Sequence[Outcome],
    ) -> Sequence[Alarm]:
        """What is not as it was. The same steps must give the same alarms: they are journaled with the step."""
        ...


class Engine:
    """Collect → fuse → decide → risk → journal → execute, one bar at a time.

    Args:
        auto_trading: where False, decisions are journaled and nothing is sent to the broker.
        watchdog: looks for drift; None looks for none.

    Raises (from `step`):
        LookAheadError: if a state or signal is known after the clock.
        AccountingError: if cash or positions stop adding up.
        RiskHaltError: if the row has an entry although the run is killed: risk let it through, or the kill came as a file after the
            transaction had looked for it. The journal does not take the row; started again, the engine takes the kill.
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
        watchdog: Watchdog | None = None,
    ) -> None:
        self.clock, self.fusion, self.agent, self.gate = clock, fusion, agent, gate
        self.broker, self.portfolio, self.journal = broker, portfolio, journal
        self.auto_trading, self.watchdog = auto_trading, watchdog
        self.steps = 0
        self._midnight = 0
        self._kill_switch = gate.kill_switch
        self._costs = FillCosts(gate)
        self._is_asked = journal.takes_controls

    def run(self, steps: Iterable[Step], watch: Callable[[Step, StepOutcome], None] | None = None) -> int:
        """Take every step and commit the journal; returns how many were taken. Nothing is ever skipped or truncated."""
        with _rare_collections():
            for step in steps:
                outcome = self.step(step)
                if watch is not None:
                    watch(step, outcome)
            self.journal.commit()
        return self.steps

    def close(self) -> None:
        """End what runs beside the loop: a fusion that learns in a process of its own. Closing twice does nothing."""
        end = getattr(self.fusion, "close", None)
        if end is not None:
            end()

    def step(self, step: Step) -> StepOutcome:
        """Take one step; the intents it produced are in the journal before the broker hears of them."""
        now = self.clock.now()
        states = _known_by(now, step)
        row = self.journal.next_row
        told = self._obey(now, self.journal.controls()) if self._is_asked else NOTHING
        cancelled = [] if self._kill_switch.tripped_at is None else self._cancel_entries(now)
        bar = step.bar
        happened: Sequence[Outcome] = self.broker.on_bar(bar)
        if happened:
            for event in happened:
                if not isinstance(event, Refusal):
                    self.portfolio.apply(event)
            self._costs.judge(now, happened)
        if cancelled:
            happened = [*cancelled, *happened]
        portfolio = self.portfolio.mark(now, bar.close)
        values: list[Travelling] = [*step.references, *happened]
        if happened or now >= self._midnight:  # between changes it can be recomputed from the bars
            values.append(portfolio)
            self._midnight = (now // DAY + 1) * DAY
        fused: Sequence[FusedSignal] = ()
        decisions: Sequence[Decision] = ()
        alarms: Sequence[Alarm] = ()
        events = NO_EVENTS
        if not step.is_interim:
            self.gate.observe(bar.at, bar.interval, bar.instruments, bar.close, bar.volume)
            fused, decisions, events = self._think(now, row << ROW_SHIFT, step, portfolio, values)
            alarms = () if self.watchdog is None else self.watchdog.look(step, portfolio, fused, happened)
        if self._is_asked:
            with self.journal.turn() as late:
                told = [*told, *self._obey(now, late)]
                review = self._review(now, decisions, events, states, portfolio)
                self._record(now, told, review, values, alarms)
        else:
            review = self._review(now, decisions, events, states, portfolio)
            self._record(now, told, review, values, alarms)
        if review.verdicts:
            self._send(review.verdicts, (row << ROW_SHIFT) + len(values) - len(review.verdicts), states)
        self.steps += 1
        return StepOutcome(row, portfolio, fused, decisions, review, happened, values, self.fusion.search if fused else None)

    def _obey(self, now: int, asked: Sequence[Control]) -> list[RiskEvent]:
        """Do what people asked of the run, in their order; what changed by it."""
        changes = []
        for control in asked:
            if control.kind == "resume":
                changes.append(self._kill_switch.resume(now, by=control.by, reason=control.reason))
            else:
                change = self._kill_switch.trip(now, by=control.by, reason=control.reason, flatten=control.flatten)
                changes += [] if change is None else [change]
        return changes

    def _cancel_entries(self, now: int) -> list[Refusal]:
        """While killed: take back what is left of orders that could enlarge a position, before a bar can fill them."""
        held = dict(self.portfolio.positions)
        cancelled = []
        for name, quantity in self.broker.pending().items():
            if may_enter(quantity, held.get(name, ZERO)):
                self.broker.cancel(name)
                why = f"{name}: {quantity} still to be filled is cancelled, {self._kill_switch.message}"
                cancelled.append(Refusal(happened_at=now, known_at=now, instrument=name, rule=KILL_SWITCH, message=why))
        return cancelled

    def _record(self, now: int, told: Sequence[RiskEvent], review: Review, values: list[Travelling], alarms: Sequence[Alarm]) -> None:
        """Complete the row and write it: what people and risk changed, where the book stands, what is alarming, the verdicts last."""
        if review is QUIET:
            values += told
            values += alarms
        else:
            values += review.sizings
            values += told
            values += review.events
            for event in review.events:
                if event.rule == KILL_SWITCH and event.state == "tripping":
                    self.journal.record_trip(now, event.message, flatten=self._kill_switch.flatten)
            if review.state is not None:
                values.append(review.state)
            values += alarms
            values += review.verdicts
        if self._is_asked and self._kill_switch.state == "tripped":
            self.journal.record_settled()
        self.journal.append(now, values)

    def _send(self, reviewed: Sequence[Order | Refusal], first: int, states: dict[str, MarketState]) -> None:
        """Hand the orders to the broker. `first` is the event id of the first verdict, `states` are those it was decided on."""
        pending = self.broker.pending()
        held = dict(self.portfolio.positions) if pending else {}
        for place, verdict in enumerate(reviewed):
            name = verdict.instrument
            if isinstance(verdict, Order):
                self._costs.sent(verdict, states)
                self.broker.submit(verdict, first + place)
            elif name in pending and is_cancelled_by(verdict.rule, pending[name], held.get(name, ZERO)):
                self.broker.cancel(name)  # what is left of an earlier entry no longer serves a target that was refused

    def _think(
        self,
        now: int,
        base: int,
        step: Step,
        portfolio: PortfolioState,
        values: list[Travelling],
    ) -> tuple[list[FusedSignal], list[Decision], range]:
        """States and signals → fused → decisions and their event ids; appends all to the row in the making.

        `base` is the event id of the row's first value: what is appended at place i has the id `base + i`.
        """
        first_state = base + len(values)
        first_signal = first_state + len(step.states)
        first_fused = first_signal + len(step.signals)
        fused = self.fusion.fuse(
            now,
            step.states,
            step.signals,
            state_events=range(first_state, first_signal),
            signal_events=range(first_signal, first_fused),
        )
        after_fused = first_fused + len(fused)
        decisions = self.agent.decide(
            now, fused, fused_events=range(first_fused, after_fused), portfolio=portfolio, states=step.states, signals=step.signals
        )
        values += step.states
        values += step.signals
        values += fused
        if self.fusion.search is not None:
            values.append(self.fusion.search)
        first_decision = base + len(values)
        values += decisions
        return fused, decisions, range(first_decision, first_decision + len(decisions))

    def _review(
        self, now: int, decisions: Sequence[Decision], events: range, states: dict[str, MarketState], portfolio: PortfolioState
    ) -> Review:
        """Decisions → orders and refusals."""
        if self.auto_trading:
            return self.gate.review(now, decisions, events, states, portfolio, self.broker.pending())
        settled = self._kill_switch.settle(now, pending=False, flat=not portfolio.positions)
        return Review([], events=[] if settled is None else [settled])


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage in cycles a hundred times less often while the loop runs, then as before.

    The loop makes none: its values are structs without a collector header. But a chunk of bars is a hundred thousand lists, and Python's
    default starts a collection after every 700 of them: 8 % of the loop's time, measured on the oracle. Not switched off: a `trade` may
    run for months, and what watches it may make cycles.
    """
    before = gc.get_threshold()
    gc.set_threshold(70_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _known_by(now: int, step: Step) -> dict[str, MarketState]:
    """The market states by instrument. Honesty is a type, not a habit: nothing known after the clock may enter a step."""
    if step.bar.at > now:
        raise LookAheadError(f"a bar is known at {iso(step.bar.at)}, but the clock reads {iso(now)}: advance the clock first")
    states = {}
    for state in step.states:
        if state.known_at > now:
            raise LookAheadError(
                f"the market state of {state.instrument} is known at {iso(state.known_at)}, but the clock reads {iso(now)}: "
                "stamp it with the time its bar closed"
            )
        states[state.instrument] = state
    for signal in step.signals:
        if signal.known_at > now:
            raise LookAheadError(
                f"signal {signal.source!r} for {signal.instrument} is known at {iso(signal.known_at)}, but the clock reads {iso(now)}: "
                "stamp it with its publication time, not its event time"
            )
    return states
