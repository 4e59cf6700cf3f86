"""Builds the engine of a run from settings: the one place that decides which parts meet in the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cryptoalpha.app.deciders import bar_length, build_agent, build_fusion
from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.watchdog import DriftWatchdog
from cryptoalpha.core.clock import Clock, VirtualClock
from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.decisions.council.council import Learner
from cryptoalpha.decisions.fusion.contract import Fusion
from cryptoalpha.execution.broker import Broker, bar_steps, funding_by_bar
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

BrokerFactory = Callable[[Mapping[str, InstrumentRules]], Broker]
"""Makes the broker of a book from lot, tick and minimum of its instruments."""

CHUNK = 4_096
"""Bars turned into Python floats at a time: five hundred days of minutes would be a gigabyte of them."""


def build_engine(
    settings: Settings,
    dataset: Dataset,
    instruments: Sequence[str],
    *,
    clock: Clock,
    journal: Journal,
    auto_trading: bool,
    account: str,
    broker: BrokerFactory | None = None,
    live: bool = False,
    place: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Engine:
    """An engine with fresh fusion, agent, risk gate, broker, portfolio and watch over drift.

    Args:
        broker: makes a broker at a venue, whose trades may be told in another order than they happened; None simulates one.
        live, place, say: as in `deciders.build_fusion`. End the engine with `close`: a fusion may learn beside it.

    Raises:
        DataMissingError: if an instrument has no trading rules.
    """
    missing = [name for name in instruments if name not in dataset.rules]
    if missing:
        raise DataMissingError(f"no lot and tick known for {', '.join(missing)}", hint="import the instruments together with their rules")
    rules = {name: dataset.rules[name] for name in instruments}
    perpetual = [name for name, rule in rules.items() if rule.perpetual]
    drift, interval = settings.monitoring.drift, bar_length(dataset, instruments)
    return Engine(
        clock=clock,
        fusion=build_fusion(
            settings.fusion,
            seed=settings.engine.seed,
            live=live,
            place=place,
            follow_until=journal.read(len(journal))[0] if journal.is_replaying else 0,
            say=say,
            interval=interval,
        ),
        agent=build_agent(settings, instruments, interval=interval),
        gate=RiskGate(settings.risk, rules, account=account),
        broker=SimulatedBroker(settings.execution, rules) if broker is None else broker(rules),
        portfolio=Portfolio(settings.execution.initial_cash, instruments, perpetual, may_overdraw=broker is not None),
        journal=journal,
        auto_trading=auto_trading,
        watchdog=DriftWatchdog(drift, seed=settings.engine.seed) if drift.enabled else None,
    )


def warm_up(fusion: Fusion, tape: SignalTape, learners: Sequence[Learner] = ()) -> None:
    """Let a fusion learn from the bars before a run, and agents fill their pools. Nothing is decided, traded or journaled: it is the past
    when the run starts. Shares in a council stay equal, for nobody was asked then."""
    for t, at in enumerate(tape.panel.known_at.tolist()):
        states, signals = tape.states_at(t), tape.signals_at(t)
        fused = fusion.fuse(at, states, signals, state_events=range(len(states)), signal_events=range(len(signals)))
        for learner in learners:
            learner.learn(at, fused, states, signals)


def show_the_past(gate: RiskGate, dataset: Dataset, since: int, instruments: Sequence[str]) -> int:
    """Let the gate see the market of `risk.tail.history_days` before a run, bar by bar as it would have; returns how many bars it saw.

    Only bars known at `since`: one that became known later is left out for good, and nothing else with it, so the same data always show
    the same past. A bar that came late but by `since` is seen in its place, those after it not before it was known. Nothing is traded or
    journaled. Where the data begin with the run, the gate starts without memory and its scenarios borrow or wait.
    """
    first = (since // DAY - gate.config.tail.history_days - 1) * DAY  # a day's return needs the close of the day before
    used = [name for name in instruments if name in dataset.bars]
    if not any(_opens_between(dataset, name, first, since) for name in used):
        return 0
    panel = build_panel(dataset, since=first, until=since, instruments=used)
    seen = np.flatnonzero(panel.known_at <= since)  # first: one that came later must not hold back those after it
    known_at = np.maximum.accumulate(panel.known_at[seen])
    for start in range(0, len(seen), CHUNK):
        part = slice(start, start + CHUNK)
        rows = seen[part]
        for at, close, volume in zip(known_at[part].tolist(), panel.close[rows].tolist(), panel.volume[rows].tolist(), strict=True):
            gate.observe(at, panel.interval, panel.instruments, close, volume)
    gate.breakers.tick(since)  # what opened and closed before the run is no event of the run; what is open stays so
    return len(seen)


def _opens_between(dataset: Dataset, name: str, since: int, until: int) -> bool:
    times = dataset.bars[name].open_time
    return bool(np.searchsorted(times, since) < np.searchsorted(times, until))


def tape_steps(tape: SignalTape, dataset: Dataset, clock: VirtualClock) -> Iterator[Step]:
    """Every row of a prepared tape as a step, moving the clock to the moment the row is known."""
    for step in tape_rows(tape, dataset):
        clock.advance_to(step.bar.at)
        yield step


def tape_rows(tape: SignalTape, dataset: Dataset) -> Iterator[Step]:
    """Every row of a prepared tape as a step; whoever takes them moves the clock."""
    for t, bar in enumerate(bar_steps(tape.panel, funding_by_bar(tape.panel, dataset))):
        yield Step(bar, tape.references_at(t), tape.states_at(t), tape.signals_at(t))
