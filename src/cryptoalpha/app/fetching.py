"""Download history into the store: candles from the first venue that serves them all, funding rates beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.venues import Factory, Venues, ccxt_client
from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.time import DAY, iso, parse_interval
from cryptoalpha.data.exchange import Fetched, FetchReport, Progress, fetch
from cryptoalpha.data.funding_history import fetch_funding
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.history import Coverage, History
from cryptoalpha.store.home import Home
from cryptoalpha.store.lock import StoreLock

USUAL = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT", "LINK/USDT", "LTC/USDT")
"""What is fetched into an empty store if nothing is named: large, long-listed instruments."""
USUAL_DAYS = 730
"""How far back an empty store is filled if no date is named: two years, enough to warm up the slowest feature and judge one year."""


@dataclass(frozen=True)
class Wanted:
    """What to fetch; empty or None leaves the choice to what is stored and configured. Times are UTC ns."""

    instruments: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    interval: str = "1h"
    venues: tuple[str, ...] = ()
    funding: bool = True


@dataclass(frozen=True)
class FetchedHistory:
    """What came of it. `problems` are what the reader should know although the fetch went through."""

    report: FetchReport
    funding: dict[str, int]
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        return {
            "venue": self.report.venue,
            "instruments": self.report.instruments,
            "passed_over": self.report.passed_over,
            "funding_added": self.funding,
        }

    def lines(self) -> list[str]:
        lines = [_line(fetched) for fetched in self.report.instruments]
        if self.funding:
            lines.append("funding rates added: " + ", ".join(f"{asset} {count:,}" for asset, count in self.funding.items()))
        return lines


def fetch_history(
    home: Path,
    settings: Settings,
    wanted: Wanted,
    *,
    note: Callable[[str], None] = lambda text: None,
    tell: Progress | None = None,
    factory: Factory = ccxt_client,
    clock: Clock | None = None,
) -> FetchedHistory:
    """Bring the store up to date, under one lock.

    Args:
        note: told in words what is about to be fetched.
        tell: told of progress: bars done, bars in all, what.
        factory: builds venue clients; tests pass their own.

    Raises:
        VenueError: if no venue served the candles. Missing funding is a problem told, not an error.
        StoreLockedError: if another process holds the store.
    """
    clock = clock or SystemClock()
    exchange = settings.data.exchange
    if wanted.venues:
        exchange = exchange.model_copy(update={"venues": wanted.venues})
    venues = Venues(exchange, factory=factory)
    problems: list[str] = []
    funding: dict[str, int] = {}
    store = Home(home)
    with StoreLock(store) as lock, History(store, lock=lock) as history:
        instruments, since = _choose(wanted, history.coverage(), clock.now())
        note(f"fetching {', '.join(instruments)} since {iso(since)[:10]} from {' or '.join(exchange.venues)}")
        report = fetch(
            history,
            venues.candle_clients(),
            instruments=instruments,
            since=since,
            until=wanted.until,
            interval=wanted.interval,
            gate=BarGate(settings.store.bar_gate),
            config=exchange,
            clock=clock,
            progress=tell,
        )
        client = venues.funding_client() if wanted.funding else None
        if client is not None:
            try:
                funding = fetch_funding(history, client, instruments=instruments, since=since, config=exchange, clock=clock)
            except VenueError as error:
                problems.append(f"no funding rates: {error}")
    problems = [*(f"passed over: {reason}" for reason in report.passed_over), *problems]
    for fetched in report.instruments:
        if fetched.conflicts:
            problems.append(f"{fetched.instrument}: {fetched.conflicts} bars contradict stored ones and were not stored")
    return FetchedHistory(report, funding, tuple(problems))


def _choose(wanted: Wanted, coverage: Sequence[Coverage], now: int) -> tuple[tuple[str, ...], int]:
    """The instruments and the first bar to fetch."""
    length = parse_interval(wanted.interval)
    bars = [found for found in coverage if found.series.kind == "bars" and found.series.interval == length and not found.simulated]
    instruments = wanted.instruments or tuple(sorted({found.series.subject for found in bars})) or USUAL
    firsts = [found.first for found in bars if found.series.subject in instruments]
    return instruments, wanted.since if wanted.since is not None else min(firsts, default=(now - USUAL_DAYS * DAY) // DAY * DAY)


def _line(fetched: Fetched) -> str:
    span = f", {iso(fetched.first)[:10]} to {iso(fetched.last)[:10]}" if fetched.first is not None and fetched.last is not None else ""
    faults = "; ".join(f"{count} {fault}" for fault, count in fetched.faults.items())
    return f"{fetched.venue} {fetched.instrument}: {fetched.added:,} bars added{span}{'; ' + faults if faults else ''}"
