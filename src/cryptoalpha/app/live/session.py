"""One session of a live run: the engine on a venue's closed bars, with a broker that sends real orders.

What a session promises:

* The journal's header names venue and account (by a fingerprint). A journal of a paper run, of another venue or account is refused.
* Started again, the run takes its stored rows once more, interim steps and what the venue told included, and goes on. Bars that it missed
  are stepped through; what is decided on them comes too late and is refused by the broker, not sent.
* The feed runs in a thread of its own and does not end because a venue fails. An instrument without a bar for
  `execution.live.stale_intervals` bars takes no entries, what waits of them is taken back, and a person is told.
* A kill is obeyed within a fraction of a second (`app.live.interim`).
* Told to end (SIGTERM, SIGINT), it sends nothing new, takes back entries (`execution.live.cancel_on_exit`), waits
  `execution.live.close_seconds` for what is under way and closes. What is unanswered then is asked for at the next start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cryptoalpha.app.alarms import Alarms
from cryptoalpha.app.backtest import learn_before, run_identity
from cryptoalpha.app.book import build_engine, tape_rows
from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.app.live.feed import Feed, SilenceWatch
from cryptoalpha.app.live.heartbeat import Heartbeat
from cryptoalpha.app.live.interim import Interims
from cryptoalpha.app.live.status import ACCOUNT_MARK, LIVE, MODE_MARK, VENUE_MARK
from cryptoalpha.app.live_monitor import LiveMonitor
from cryptoalpha.app.period import Period
from cryptoalpha.app.safety import LIVE_MARK, TRADE_MARK
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.trade import Say, Session, Streams, TradeReport, begun_at, cite_live, feed_fingerprint, kept, tell_recovery
from cryptoalpha.core.clock import Clock, SystemClock, VirtualClock
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.data.candles import Wait
from cryptoalpha.data.live import LiveBatch
from cryptoalpha.execution.broker import Broker
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.store.history import History
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import read_summary
from cryptoalpha.store.tables import Dataset

POLL_SECONDS = 0.1
"""How often the engine's thread looks for a kill while it waits for a bar."""


class VenueBroker(Broker, Protocol):
    """A broker at a real venue."""

    def start(self) -> None:
        """Open the venue and take up what an earlier session left.

        Raises:
            ConfigError: if the key may withdraw or may not trade, or the account holds too little.
            VenueError: if the venue does not answer.
        """
        ...

    def cancel_entries_now(self) -> None:
        """Take back at the venue what could still enter; what comes of it is told like everything else."""
        ...

    def demand_well(self) -> None:
        """Raises what ended it, if nobody looks after orders any more. Waits for nothing."""
        ...

    def standing(self) -> Mapping[str, object]:
        """How it stands with the venue, for people; without waiting."""
        ...

    def close(self, *, cancel_entries: bool = False, timeout_seconds: float = 30.0) -> None:
        """Send nothing new, wait for what is under way, end the thread."""
        ...


@dataclass(frozen=True)
class LiveRun:
    """What a live session is made of, besides settings and data.

    `make_broker` makes the broker of a journal; `feed` the bars, given the wait to use; `alarms` tell people; `streams` is what else is
    heard between two bars.
    """

    run: str
    venue: str
    account: str
    journal: Path
    make_broker: Callable[[Mapping[str, InstrumentRules], Journal], VenueBroker]
    feed: Callable[[Wait], Iterable[LiveBatch]]
    alarms: Alarms
    streams: Streams | None = None


def trade_live(
    settings: Settings,
    history: History,
    dataset: Dataset,
    live: LiveRun,
    *,
    stop: threading.Event,
    say: Say,
    monitor: LiveMonitor | None = None,
    wall: Clock | None = None,
) -> TradeReport:
    """Trade at a venue until told to stop.

    Args:
        dataset: stored history up to now, the bars of earlier sessions of this run included; the feed begins after its newest bar.
        stop: set it to end the session after the step in hand.

    Raises:
        StoreError: if the journal belongs to another run, or is corrupt.
        JournalDivergenceError: if what the journal holds cannot be reproduced.
        ConfigError, VenueError: as `VenueBroker.start`.
    """
    wall = wall or SystemClock()
    names = tuple(sorted(dataset.bars))
    newest = max(int(table.open_time[-1]) for table in dataset.bars.values())
    interval = dataset.bars[names[0]].interval
    begun = begun_at(live.journal, newest + interval)
    first = Period(begun, begun + interval)
    with Journal(live.journal, durable=True, header=_header(settings, dataset, live, first, names)) as journal:
        clock = VirtualClock()
        brokers: list[VenueBroker] = []

        def make(rules: Mapping[str, InstrumentRules]) -> VenueBroker:
            brokers.append(live.make_broker(rules, journal))
            return brokers[0]

        engine = build_engine(
            settings, dataset, names, clock=clock, journal=journal, auto_trading=settings.engine.auto_trading, account=live.run,
            broker=make, live=True, place=live.journal.parent, say=say,
        )  # fmt: skip
        learn_before(settings, dataset, first, names, engine)
        if monitor is not None:
            monitor.follow(names, interval, step_seconds=interval / SECOND, wall=wall, market=engine.gate.memory)
        session = Session(journal, 0.0, stop, say, monitor, live.alarms)
        recovered = tell_recovery(journal, say)
        loop = _Loop(settings, history, dataset, live, engine, clock, wall, brokers[0], stop, say, monitor)
        earlier = Period(begun, newest + interval) if newest >= begun else None
        with closing(engine), loop:
            engine.run(session.paced(loop.steps(earlier)), session.watch)
        return session.report(live.run, recovered, is_complete=False)


def _header(settings: Settings, dataset: Dataset, live: LiveRun, first: Period, names: Sequence[str]) -> dict[str, str]:
    return {
        **run_identity(settings, replace(dataset, fingerprint=feed_fingerprint(live.venue)), first, names),
        TRADE_MARK: str(settings.engine.auto_trading),
        LIVE_MARK: str(first.since),
        MODE_MARK: LIVE,
        VENUE_MARK: live.venue,
        ACCOUNT_MARK: live.account,
    }


class _Loop:
    """The steps of one session, and what is watched between them; a context manager around the broker and the feed."""

    def __init__(
        self,
        settings: Settings,
        history: History,
        dataset: Dataset,
        live: LiveRun,
        engine: Engine,
        clock: VirtualClock,
        wall: Clock,
        broker: VenueBroker,
        stop: threading.Event,
        say: Say,
        monitor: LiveMonitor | None,
    ) -> None:
        self._config, self._history, self._dataset, self._live = settings.execution.live, history, dataset, live
        self._clock, self._wall, self._broker, self._stop, self._say, self._monitor = clock, wall, broker, stop, say, monitor
        self._book = SignalBook(settings.signals)
        self._names = tuple(sorted(dataset.bars))
        self._interval = dataset.bars[self._names[0]].interval
        self._interims = Interims(engine, clock, wall, self._names, self._interval, has_news=engine.journal.has_outcomes)
        self._feed = Feed(live.feed)
        self._heartbeat = Heartbeat(live.journal)
        heard = {name: int(table.open_time[-1]) + table.interval for name, table in dataset.bars.items()}
        lag = settings.data.exchange.venue_lag_seconds
        self._silence = SilenceWatch(heard, self._interval, self._config.stale_intervals, slack_seconds=lag, now=wall.now())

    def __enter__(self) -> None:
        self._broker.start()
        self._feed.__enter__()

    def __exit__(self, *failure: object) -> None:
        """Whatever ended the session, the broker is closed cleanly; entries are taken back where that was chosen."""
        self._feed.__exit__(None, None, None)
        try:
            self._broker.close(cancel_entries=self._config.cancel_on_exit, timeout_seconds=self._config.close_seconds)
        finally:
            self._heartbeat.beat(self._wall.now(), self._broker.standing(), is_last=True)

    def steps(self, earlier: Period | None) -> Iterator[Step]:
        """First what earlier sessions stored, bars and moments between them, then each batch as it comes."""
        if earlier is not None:
            tape = self._book.prepare(self._dataset, since=earlier.since, until=earlier.until, instruments=self._names)
            for step in tape_rows(tape, self._dataset):
                yield from self._interims.stored(step.bar.at)
                yield self._at_its_time(step)
        yield from self._interims.stored(None)
        due = self._next_known_at()
        while not (self._stop.is_set() or self._feed.is_over):
            batch = self._feed.next(POLL_SECONDS)
            self._look_around(batch)
            if batch is None:
                moment = self._interims.due(due)
                if moment is not None:
                    yield moment
                continue
            due = batch.known_at + self._interval
            if batch.bars:
                yield from self._taken(batch)

    def _taken(self, batch: LiveBatch) -> Iterator[Step]:
        self._dataset = kept(batch, self._history, self._live.venue, self._dataset, self._live.streams)
        tape = self._book.prepare(self._dataset, since=batch.open_time, until=batch.known_at, instruments=self._names)
        yield from map(self._at_its_time, tape_rows(tape, self._dataset))

    def _at_its_time(self, step: Step) -> Step:
        self._clock.advance_to(step.bar.at)
        return cite_live(step)

    def _next_known_at(self) -> int:
        """When the bar after the newest stored one will be known."""
        newest = max(int(table.open_time[-1]) for table in self._dataset.bars.values())
        return newest + 2 * self._interval

    def _look_around(self, batch: LiveBatch | None) -> None:
        """Between two steps: the sign of life, the metrics, who has fallen silent, and whether anybody looks after the orders."""
        self._broker.demand_well()
        now = self._wall.now()
        changes = [] if batch is None else self._silence.hear(batch, now)
        changes += self._silence.look(now)
        for change in changes:
            if change.is_silent:
                self._live.alarms("stale_feed", change.text)
            else:
                self._say(change.text)
        if any(change.is_silent for change in changes):
            self._broker.cancel_entries_now()
        if batch is None and self._monitor is not None:
            self._monitor.idle()
        standing = self._broker.standing()
        if self._heartbeat.beat(now, standing) and self._monitor is not None:
            self._monitor.at_venue(now, read_summary(self._live.journal), standing)
