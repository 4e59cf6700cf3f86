"""Paper trading: the same engine as in a backtest, one bar at a time, every step durable before an order leaves.

A killed run goes on where it stopped. On restart the engine takes the same steps again; the journal compares each with what it holds (a
difference stops the run) until it is past the last stored row, and from there on it is written to. So the final journal of a run that was
killed any number of times equals that of one that was not.

Two sources: a replay of stored history at any speed, or a venue's live bars. Live bars, and what streams brought between them, go into the
store before they are traded, so that a restart finds them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cryptoalpha.app.alarms import Alarms
from cryptoalpha.app.backtest import learn_before, run_identity
from cryptoalpha.app.book import build_engine, tape_steps
from cryptoalpha.app.engine import Engine, Step, StepOutcome
from cryptoalpha.app.live_monitor import LiveMonitor
from cryptoalpha.app.period import Period
from cryptoalpha.app.safety import LIVE_MARK, TRADE_MARK
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.taking import Heard, taken_in
from cryptoalpha.core.clock import SystemClock, VirtualClock
from cryptoalpha.core.time import SECOND, iso
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, ObservationRef, PortfolioState, Refusal, RiskEvent
from cryptoalpha.data.live import LiveBars, LiveBatch, extended
from cryptoalpha.execution.lots import LotBook, Standing
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.store.controls import ARMED, ControlState
from cryptoalpha.store.history import History
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.tables import Dataset

LIVE_PARTITION = "live"
"""Partition named in the journal for bars that came from a live feed: their month's file is still growing, so its hash cannot be cited."""

STALE = "stale_order"
"""Rule of refusals of orders that came too late."""

Say = Callable[[str], None]


class Streams(Protocol):
    """What is heard between two bars (`app.streams.listening`)."""

    def take(self) -> Sequence[Heard]: ...
    def stored(self) -> None: ...
    def priced(self, closes: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class TradeReport:
    """How a session of a run ended."""

    run: str
    recovered: int
    """Rows found in the journal and taken again."""
    steps: int
    """Rows in the journal now."""
    fills: int
    digest: str
    is_complete: bool
    """Whether the source came to its end, rather than being stopped."""
    portfolio: PortfolioState | None
    interrupted: bool = False
    """Whether a person stopped it at the keyboard."""
    control: ControlState = ARMED
    """Whether it is killed."""
    earned: Mapping[str, Standing] = field(default_factory=dict)
    """What was earned since the run began, by instrument."""

    def as_dict(self) -> dict[str, object]:
        last = self.portfolio
        return {
            "run": self.run,
            "recovered": self.recovered,
            "steps": self.steps,
            "fills_this_session": self.fills,
            "journal_hash": self.digest,
            "complete": self.is_complete,
            "equity": last.equity if last else None,
            "cash": last.cash if last else None,
            "positions": dict(last.positions) if last else {},
            "at": iso(last.known_at) if last else None,
            "kill_switch": self.control.mode,
            "instruments": {
                name: {
                    "quantity": one.quantity,
                    "average_cost": one.average_cost,
                    "realised_fifo": one.realised,
                    "realised_average": one.realised_by_average,
                    "fees": one.fees,
                    "funding": one.funding,
                    "transferred": one.transferred,
                }
                for name, one in self.earned.items()
            },
        }

    def lines(self) -> list[str]:
        last = self.portfolio
        held = ", ".join(f"{quantity} {name}" for name, quantity in last.positions) if last and last.positions else "nothing"
        state = f"equity {last.equity:.2f}, holding {held}, at {iso(last.known_at)}" if last else "no bar yet"
        ended = "finished" if self.is_complete else "stopped; start it again to go on"
        return [
            f"run {self.run} {ended}: {self.steps:,} steps ({self.recovered:,} recovered), {self.fills:,} fills in this session",
            state,
            *(_earned_words(name, one) for name, one in self.earned.items()),
        ]


def _earned_words(name: str, one: Standing) -> str:
    held = f"; {one.quantity} held, {one.average_cost:.8g} each on average" if one.average_cost is not None else ""
    return f"  {name}: {one.realised:+.2f} realised (first in, first out), {one.fees:.2f} fees, {one.funding:+.2f} funding{held}"


class SessionStoppedError(Exception):
    """Raised by the wait of a live feed when the session is told to stop; ends the session, not the process."""


class Session:
    """Watches the loop: tells fills, paces a replay, stops when asked; what `alarms` are given goes to people who do not look."""

    def __init__(
        self,
        journal: Journal,
        speed: float,
        stop: threading.Event,
        say: Say,
        monitor: LiveMonitor | None,
        alarms: Alarms | None = None,
    ) -> None:
        self._journal, self._speed, self._stop, self._say, self._monitor, self._alarms = journal, speed, stop, say, monitor, alarms
        self._stored = len(journal)
        self.fills = 0
        self.portfolio: PortfolioState | None = None
        self.lots = LotBook(keep_closed=False)
        """Of the whole run: rows of earlier sessions are taken again."""
        self._stale: dict[str, list[int]] = {}
        """When what came too late was decided, by instrument, until it is said."""

    def paced(self, steps: Iterable[Step]) -> Iterator[Step]:
        """The same steps, each new one `bar length / speed` after the one before; those being recovered come at once."""
        for step in steps:
            if self._stop.is_set():
                return
            if self._speed > 0.0 and not self._journal.is_replaying:
                self._stop.wait(step.bar.interval / SECOND / self._speed)
                if self._stop.is_set():
                    return
            if self._monitor is not None:
                self._monitor.begin()
            yield step

    def watch(self, step: Step, outcome: StepOutcome) -> None:
        self.portfolio = outcome.portfolio
        for event in outcome.happened:
            if isinstance(event, Fill | FundingPayment | Adjustment):
                self.lots.apply(event)
        recovering = outcome.row <= self._stored
        if self._monitor is not None:
            self._monitor.taken()
        if not recovering:
            self._tell(outcome)
            if not any(isinstance(event, Refusal) and event.rule == STALE for event in outcome.happened):
                self._tell_stale()
        if self._monitor is not None:  # after what happened in the bar: alerts speak of how it ended
            self._monitor.watch(step, outcome, recovering=recovering)

    def report(self, run: str, recovered: int, *, is_complete: bool) -> TradeReport:
        """How it ended."""
        self._tell_stale()
        journal = self._journal
        return TradeReport(
            run, recovered, len(journal), self.fills, journal.digest(), is_complete, self.portfolio, earned=self.lots.standings()
        )

    def _tell(self, outcome: StepOutcome) -> None:
        for event in outcome.happened:
            if isinstance(event, Fill):
                self.fills += 1
                self._say(f"{iso(event.happened_at)}  {event.side} {event.quantity} {event.instrument} at {event.price}, fee {event.fee}")
            elif isinstance(event, Refusal) and event.rule == STALE:
                self._stale.setdefault(event.instrument, []).append(event.happened_at)
            elif isinstance(event, Refusal):
                self._say(f"{iso(event.happened_at)}  {event.instrument} {event.rule}: {event.message}")
        for value in outcome.values:
            if isinstance(value, RiskEvent):
                self._say(f"{iso(value.happened_at)}  {value.rule} is {value.state}: {value.message}")
                if self._alarms is not None:
                    self._alarms.of_risk(value)
            elif isinstance(value, Adjustment):
                self._say(f"{iso(value.happened_at)}  not by this run: {value.message}")

    def _tell_stale(self) -> None:
        """One line an instrument: after hours of downtime there is an order too late for every bar that was missed."""
        for name, times in sorted(self._stale.items()):
            count = "1 order" if len(times) == 1 else f"{len(times)} orders"
            self._say(f"{iso(max(times))}  {name} {STALE}: {count} came too late and went nowhere")
        self._stale.clear()


def replay(
    settings: Settings,
    dataset: Dataset,
    period: Period,
    journal_path: Path,
    *,
    run: str,
    speed: float,
    stop: threading.Event,
    say: Say,
    instruments: Sequence[str] | None = None,
    monitor: LiveMonitor | None = None,
) -> TradeReport:
    """Paper trade stored history.

    Args:
        speed: how many times faster than it happened; 0 does not wait at all.
        stop: set it to end the session after the step in hand.
        say: told of recovery and of every new fill.
        monitor: keeps the metrics of the run.

    Raises:
        StoreError: if the journal belongs to another run, or is corrupt.
        JournalDivergenceError: if what the journal holds cannot be reproduced.
    """
    tape = SignalBook(settings.signals).prepare(dataset, since=period.since, until=period.until, instruments=instruments)
    names = tape.panel.instruments
    header = {**run_identity(settings, dataset, period, names), TRADE_MARK: str(settings.engine.auto_trading)}
    with Journal(journal_path, durable=True, header=header) as journal, ExitStack() as ended:
        clock = VirtualClock()
        engine = ended.enter_context(closing(_engine(settings, dataset, names, clock, journal, run, journal_path.parent, say, live=False)))
        learn_before(settings, dataset, period, names, engine)
        if monitor is not None:
            interval = tape.panel.interval
            monitor.follow(names, interval, step_seconds=interval / SECOND / speed if speed > 0.0 else None, market=engine.gate.memory)
        session = Session(journal, speed, stop, say, monitor)
        recovered = tell_recovery(journal, say)
        steps = engine.run(session.paced(tape_steps(tape, dataset, clock)), session.watch)
        return session.report(run, recovered, is_complete=steps == len(tape.panel))


def paper(
    settings: Settings,
    history: History,
    dataset: Dataset,
    bars: LiveBars,
    journal_path: Path,
    *,
    run: str,
    venue: str,
    stop: threading.Event,
    say: Say,
    monitor: LiveMonitor | None = None,
    alarms: Alarms | None = None,
    streams: Streams | None = None,
) -> TradeReport:
    """Paper trade a venue's closed bars as they come.

    Args:
        dataset: stored history up to now, the bars of earlier sessions of this run included.
        bars: the feed; it begins after the newest bar of `dataset`.
        streams: what else is heard between two bars.
    """
    names = tuple(sorted(dataset.bars))
    newest = max(int(table.open_time[-1]) for table in dataset.bars.values())
    interval = dataset.bars[names[0]].interval
    begun = begun_at(journal_path, newest + interval)
    period = Period(begun, newest + interval) if newest >= begun else None
    header = {
        **run_identity(settings, replace(dataset, fingerprint=feed_fingerprint(venue)), Period(begun, begun + interval), names),
        TRADE_MARK: str(settings.engine.auto_trading),
        LIVE_MARK: str(begun),
    }
    with Journal(journal_path, durable=True, header=header) as journal, ExitStack() as ended:
        clock = VirtualClock()
        engine = ended.enter_context(closing(_engine(settings, dataset, names, clock, journal, run, journal_path.parent, say, live=True)))
        learn_before(settings, dataset, Period(begun, begun + interval), names, engine)
        if monitor is not None:
            monitor.follow(names, interval, step_seconds=interval / SECOND, wall=SystemClock(), market=engine.gate.memory)
        session = Session(journal, 0.0, stop, say, monitor, alarms)
        recovered = tell_recovery(journal, say)
        steps = _feed_steps(settings, history, dataset, bars, names, venue, period, clock, stop, streams)
        engine.run(session.paced(steps), session.watch)
        return session.report(run, recovered, is_complete=False)


def _engine(
    settings: Settings,
    dataset: Dataset,
    names: Sequence[str],
    clock: VirtualClock,
    journal: Journal,
    run: str,
    place: Path,
    say: Say,
    *,
    live: bool,
) -> Engine:
    auto = settings.engine.auto_trading
    return build_engine(
        settings, dataset, names, clock=clock, journal=journal, auto_trading=auto, account=run, live=live, place=place, say=say
    )


def feed_fingerprint(venue: str) -> str:
    """Stands for the bars of a feed in a run's identity: they are not there yet when it begins."""
    return f"live {venue}"


def begun_at(journal_path: Path, fresh: int) -> int:
    """Open of the run's first bar: remembered by its journal, else the bar that comes next."""
    if not journal_path.is_file():
        return fresh
    with JournalReader(journal_path) as journal:
        return int(journal.header.get(LIVE_MARK, fresh))


def _feed_steps(
    settings: Settings,
    history: History,
    dataset: Dataset,
    bars: LiveBars,
    names: Sequence[str],
    venue: str,
    earlier: Period | None,
    clock: VirtualClock,
    stop: threading.Event,
    streams: Streams | None,
) -> Iterator[Step]:
    """First the bars of earlier sessions, then each new batch as it comes."""
    book = SignalBook(settings.signals)
    if earlier is not None:
        tape = book.prepare(dataset, since=earlier.since, until=earlier.until, instruments=names)
        yield from map(cite_live, tape_steps(tape, dataset, clock))
    for batch in _until_stopped(bars, stop):
        if not batch.bars:
            continue
        dataset = kept(batch, history, venue, dataset, streams)
        tape = book.prepare(dataset, since=batch.open_time, until=batch.known_at, instruments=names)
        yield from map(cite_live, tape_steps(tape, dataset, clock))


def kept(batch: LiveBatch, history: History, venue: str, dataset: Dataset, streams: Streams | None = None) -> Dataset:
    """The data set with a batch of live bars and what streams brought since the one before. All goes into the store before it is traded
    on, so that a restart finds it."""
    if streams is not None:
        taken = taken_in(dataset, streams.take(), since=batch.known_at - dataset.bars[next(iter(dataset.bars))].interval)
        taken.store(history, origin="live stream")
        streams.stored()
        streams.priced({name: float(table.close[-1]) for name, table in batch.bars.items()})
        dataset = taken.dataset
    for table in batch.bars.values():
        history.write_bars(venue, table, origin=f"{venue} live")
    return extended(dataset, batch)


def _until_stopped(bars: Iterable[LiveBatch], stop: threading.Event) -> Iterator[LiveBatch]:
    try:
        for batch in bars:
            if stop.is_set():
                return
            yield batch
    except SessionStoppedError:
        return


def cite_live(step: Step) -> Step:
    """Name bars by their place in time: the file they lie in is still growing."""
    place = step.bar.open_time // step.bar.interval
    step.references = [
        ObservationRef(happened_at=one.happened_at, known_at=one.known_at, subject=one.subject, partition=LIVE_PARTITION, row=place)
        for one in step.references
    ]
    return step


def tell_recovery(journal: Journal, say: Say) -> int:
    """Say how many rows are taken again; returns their number."""
    stored = len(journal)
    if stored:
        at, _ = journal.read(stored)
        say(f"the journal holds {stored:,} steps up to {iso(at)}: taking them again to check them, then going on")
    return stored
