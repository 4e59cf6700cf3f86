"""One session of `trade`: the lock, the run's folder, the signals that stop it, and the source it was asked for."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from cryptoalpha.app.alarms import Alarms
from cryptoalpha.app.credentials import Hide
from cryptoalpha.app.live.gates import fingerprint
from cryptoalpha.app.live_monitor import LiveMonitor
from cryptoalpha.app.output import plain
from cryptoalpha.app.period import period_of
from cryptoalpha.app.run_settings import differing_settings, keep_settings
from cryptoalpha.app.runs import CONFIG, JOURNAL, METRICS, run_directory
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.sources import open_dataset, open_venue
from cryptoalpha.app.trade import SessionStoppedError, TradeReport, paper, replay
from cryptoalpha.app.venues import Keys, Venues
from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.values import Alarm, InstrumentRules
from cryptoalpha.data.candles import Wait
from cryptoalpha.data.live import LiveBars
from cryptoalpha.monitoring.alerts import AlertChange
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.controls import control_state
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal import Journal, refuse_lost_journal
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.kill_files import kill_files
from cryptoalpha.store.lock import StoreLock
from cryptoalpha.store.whole_file import write_whole

if TYPE_CHECKING:
    from cryptoalpha.app.streams.listening import Listening
    from cryptoalpha.execution.live.broker import LiveBroker
    from cryptoalpha.store.tables import Dataset


@dataclass(frozen=True)
class TradeRequest:
    """What `trade` was asked for. `feed` is a ccxt id for live bars; without it stored history is replayed. With `keys` real orders are
    sent to `execution.live.venue`, whose bars are the feed; `app.live.gates` gives them out."""

    data: Path | None
    since: str | None
    until: str | None
    interval: str
    instruments: list[str] | None
    simulated: bool
    speed: float
    feed: str | None
    run: str
    keys: Keys | None = None


def run_session(
    settings: Settings, home: Path, request: TradeRequest, *, say: Callable[[str], None], hide: Hide = lambda found: None
) -> TradeReport:
    """Trade until the source ends or the process is told to stop (SIGINT, SIGTERM: the step in hand is finished first).

    Args:
        hide: told every secret before anybody sees it.

    Raises:
        ConfigError, VenueError: of a live run, if the venue does not answer or the key may not do what it must.
        StoreLockedError: if another process holds the store.
        RiskHaltError: if the run has traded and its journal is gone.
        ConfigError: if the port for metrics is taken.
    """
    store = Home(home)
    journal = run_directory(home, request.run) / JOURNAL
    with (
        StoreLock(store) as lock,
        Alarms(settings, say, hide) as alarms,
        LiveMonitor(
            settings, say, alarms, act=_own_alerts(settings, home, request, say), home=home, drift=_of_drift(settings, home, request, say)
        ) as monitor,
        stopping() as stop,
    ):
        refuse_lost_journal(journal)
        if request.keys is not None:
            report = _real(settings, store, lock, request, request.keys, journal, stop, say, monitor, alarms)
        elif request.feed is not None:
            report = _paper(settings, store, lock, request, journal, stop, say, monitor, alarms)
        else:
            report = _replay(settings, home, request, journal, stop, say, monitor)
        report = dataclasses.replace(report, control=control_state(journal), interrupted=stop.by_keyboard)
        if report.is_complete:  # what `status` calls a finished run
            write_whole(journal.parent / METRICS, json.dumps(plain(report.as_dict()), indent=2))
        return report


def _own_alerts(settings: Settings, home: Path, request: TradeRequest, say: Callable[[str], None]) -> Callable[[AlertChange], None] | None:
    """Of a session on live bars: proposes retraining where accuracy was found too low. What a replay finds is of the past."""
    if request.feed is None and request.keys is None:
        return None
    from cryptoalpha.lifecycle.alerts.book import BOOK, AlertBook
    from cryptoalpha.lifecycle.alerts.proposals import OwnAlerts, into_the_book_of_retraining
    from cryptoalpha.lifecycle.alerts.rules import LOW_ACCURACY

    return OwnAlerts(
        AlertBook(home / BOOK), settings.lifecycle.alerts, now=time.time_ns, propose=into_the_book_of_retraining(home), say=say,
        only=frozenset({LOW_ACCURACY}),
    )  # fmt: skip


def _of_drift(settings: Settings, home: Path, request: TradeRequest, say: Callable[[str], None]) -> Callable[[Alarm], None] | None:
    """Of a session on live bars: proposes retraining. What a replay finds is of the past."""
    if request.feed is None and request.keys is None:
        return None
    from cryptoalpha.app.retrain_proposals import DriftProposals

    return DriftProposals(home, settings.lifecycle.retrain, say)


def _beside(settings: Settings, store: Home, request: TradeRequest, say: Callable[[str], None]) -> AbstractContextManager[None]:
    """Campaigns of retraining on the data that the session adds to, where they are switched on."""
    from cryptoalpha.app.retrain_proposals import campaigns_beside

    names = ["--instruments", ",".join(request.instruments)] if request.instruments else []
    return campaigns_beside(settings, store.root, ["--interval", request.interval, *names], say)


def _replay(
    settings: Settings, home: Path, request: TradeRequest, journal: Path, stop: Stop, say: Callable[[str], None], monitor: LiveMonitor
) -> TradeReport:
    dataset = open_dataset(
        settings, home, data=request.data, simulated=request.simulated, interval=request.interval, instruments=request.instruments
    )
    period = period_of(dataset, request.since, request.until)
    with _room_for(journal, settings):
        return replay(
            settings, dataset, period, journal, run=request.run, speed=request.speed, stop=stop.event, say=say,
            instruments=request.instruments, monitor=monitor,
        )  # fmt: skip


@contextmanager
def _room_for(journal: Path, settings: Settings) -> Iterator[None]:
    """A folder for the journal and the settings it begins with. What a refused start of a new run made is removed again: a journal that
    holds the refused settings and not one row would refuse the mended ones.

    Raises:
        StoreError: if the folder cannot be written, or the run began with other settings.
    """
    is_new = not journal.exists()
    if not is_new and (differing := differing_settings(journal.parent, settings)):
        raise StoreError(
            f"the journal {journal} belongs to another run: {', '.join(differing)}",
            hint="start a new run under another id (--run), or continue with the settings it began with",
        )
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        if is_new:
            keep_settings(journal.parent, settings)
    except OSError as error:
        raise StoreError(f"cannot write {journal.parent}: {error.strerror}", hint="set CRYPTOALPHA_HOME to a writable folder") from None
    try:
        yield
    except BaseException:
        if is_new and _is_blank(journal):
            for file in journal.parent.glob(f"{journal.name}*"):  # and what SQLite keeps beside it
                file.unlink()
            (journal.parent / CONFIG).unlink(missing_ok=True)
            if not any(journal.parent.iterdir()):
                journal.parent.rmdir()
        raise


def _is_blank(journal: Path) -> bool:
    """Whether nothing was done and nothing was asked in this journal, nor by a file beside it."""
    if kill_files(journal):
        return False
    if not journal.exists():
        return True
    with JournalReader(journal) as reader:
        return len(reader) == 0 and not control_state(journal).stands


def _paper(
    settings: Settings,
    store: Home,
    lock: StoreLock,
    request: TradeRequest,
    journal: Path,
    stop: Stop,
    say: Callable[[str], None],
    monitor: LiveMonitor,
    alarms: Alarms,
) -> TradeReport:
    assert request.feed is not None
    dataset = open_venue(store.root, venue=request.feed, interval=request.interval, instruments=request.instruments, now=time.time_ns())
    client = Venues(settings.data.exchange).client(request.feed)
    gate = BarGate(settings.store.bar_gate)
    with (
        History(store, lock=lock) as history,
        _room_for(journal, settings),
        _beside(settings, store, request, say),
        _streams(settings, store, dataset, say, alarms, monitor) as streams,
    ):
        bars = LiveBars(client, dataset.bars, gate=gate, config=settings.data.exchange, wait=_wait(stop.event, monitor.idle), notice=say)
        return paper(
            settings, history, dataset, bars, journal, run=request.run, venue=request.feed, stop=stop.event, say=say, monitor=monitor,
            alarms=alarms, streams=streams,
        )  # fmt: skip


@contextmanager
def _streams(
    settings: Settings, store: Home, dataset: Dataset, say: Callable[[str], None], alarms: Alarms, monitor: LiveMonitor
) -> Iterator[Listening | None]:
    """The live sources of a session, where it has any."""
    if not settings.data.streams.listen:
        yield None
        return
    from cryptoalpha.app.streams.listening import Listening
    from cryptoalpha.app.streams.standing import set_metrics

    with Listening(settings, store.root, tuple(dataset.bars), say=say, alert=alarms) as listening:
        listening.priced({name: float(table.close[-1]) for name, table in dataset.bars.items()})
        monitor.listen_to(
            lambda put: set_metrics(put, listening.health(), listening.counts, now=time.time_ns(), is_open=not listening.trouble)
        )
        yield listening


def _real(
    settings: Settings,
    store: Home,
    lock: StoreLock,
    request: TradeRequest,
    keys: Keys,
    journal: Path,
    stop: Stop,
    say: Callable[[str], None],
    monitor: LiveMonitor,
    alarms: Alarms,
) -> TradeReport:
    """The one place from which real orders can come."""
    from cryptoalpha.app.live.broker import live_broker
    from cryptoalpha.app.live.session import LiveRun, trade_live
    from cryptoalpha.app.venues import request_budget

    config, venue = settings.data.exchange, settings.execution.live.venue
    budget = request_budget(settings.execution.live)  # the feed's thread and the venue's spend from one
    dataset = open_venue(store.root, venue=venue, interval=request.interval, instruments=request.instruments, now=time.time_ns())
    client, gate = Venues(config, budgets={venue: budget}).client(venue), BarGate(settings.store.bar_gate)

    def feed(wait: Wait) -> LiveBars:
        return LiveBars(
            client, dataset.bars, gate=gate, config=config, wait=wait, notice=say, gives_up=False, pauses=lambda: growing_pauses(settings)
        )

    def make(rules: Mapping[str, InstrumentRules], kept: Journal) -> LiveBroker:
        return live_broker(settings, rules, kept, journal, keys, alert=alarms, budget=budget)

    account = fingerprint(keys, settings.execution.live.account)
    say(f"REAL ORDERS go to {venue}, account {account}" + (f", at {config.endpoint}" if config.endpoint else ""))
    with (
        History(store, lock=lock) as history,
        _room_for(journal, settings),
        _beside(settings, store, request, say),
        _streams(settings, store, dataset, say, alarms, monitor) as streams,
    ):
        live = LiveRun(request.run, venue, account, journal, make, feed, alarms, streams)
        return trade_live(settings, history, dataset, live, stop=stop.event, say=say, monitor=monitor)


def growing_pauses(settings: Settings) -> Iterator[float]:
    """Waits between attempts at one bar: from `data.exchange.backoff_seconds` to `execution.live.retry_limit_seconds`, with jitter."""
    live = settings.execution.live
    first = min(max(settings.data.exchange.backoff_seconds, 0.05), live.retry_limit_seconds)
    backoff = Backoff(first, live.retry_limit_seconds, random=stream(settings.engine.seed, "feed", str(time.time_ns())))
    while True:
        yield backoff.wait()


def _wait(stop: threading.Event, idle: Callable[[], None]) -> Callable[[float], None]:
    """Sleep that ends, and the feed with it, when the session is told to stop. `idle` is told of every sleep."""

    def wait(seconds: float) -> None:
        idle()
        if stop.wait(seconds):
            raise SessionStoppedError

    return wait


class Stop:
    """Whether the session was told to stop, and by what."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.by_keyboard = False


@contextmanager
def stopping() -> Iterator[Stop]:
    """What SIGINT and SIGTERM set; a second signal interrupts at once. Handlers are put back afterwards."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.event.is_set():
            raise KeyboardInterrupt
        stop.by_keyboard = number == signal.SIGINT
        stop.event.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
