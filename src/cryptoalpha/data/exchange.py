"""History from exchanges: public candles, fetched month by month into the store, resumed where an interruption left off.

One venue serves all instruments of a fetch, because prices of two venues are no single series: venues that already hold part of the answer
are asked first, then the others in their order; one that fails part-way leaves what it gave in the store under its name.

A month is written when it is complete, so that an interruption loses at most one. Months before what is stored are fetched backwards:
whatever stops the fetch, what is stored has no hole that a later fetch would not see.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import ConfigError, DataMissingError, VenueError
from cryptoalpha.core.time import SECOND, interval_name, iso, parse_interval
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.data.candles import CandleClient, Wait, fetch_page, markets_of
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.data.joining import join_bars
from cryptoalpha.data.rules import split_instrument
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.history import History
from cryptoalpha.store.tables import BarTable

Progress = Callable[[int, int, str], None]
"""Told after each month: bars dealt with, bars in all, and what is being fetched."""


@dataclass
class Fetched:
    """What a fetch brought for one instrument. `faults` counts what the bar gate found; `conflicts` bars that differ from stored ones."""

    instrument: str
    venue: str
    added: int = 0
    already_there: int = 0
    conflicts: int = 0
    first: int | None = None
    last: int | None = None
    faults: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FetchReport:
    """What a fetch brought, and why venues before the one that served were passed over."""

    venue: str
    instruments: tuple[Fetched, ...]
    passed_over: tuple[str, ...] = ()


class _Job:
    """One fetch from one venue."""

    def __init__(
        self,
        history: History,
        client: CandleClient,
        interval: int,
        gate: BarGate,
        config: ExchangeConfig,
        clock: Clock,
        wait: Wait,
    ) -> None:
        self.history, self.client, self.interval, self.gate = history, client, interval, gate
        self.config, self.clock, self.wait = config, clock, wait

    def stored(self, instrument: str) -> tuple[int, int] | None:
        """Opens of the first and last stored bar."""
        for entry in self.history.coverage():
            key = entry.series
            if key.kind == "bars" and (key.source, key.subject, key.interval) == (self.client.id, instrument, self.interval):
                return entry.first, entry.last
        return None

    def months(self, instrument: str, since: int, until: int) -> list[tuple[int, int]]:
        """Periods still to fetch, in the order to fetch them: backwards before what is stored, forwards after it."""
        stored = self.stored(instrument)
        if stored is None:
            return list(_months(since, until))
        before = list(_months(since, min(stored[0], until)))[::-1]
        return before + list(_months(max(stored[1] + self.interval, since), until))

    def fetch(self, instrument: str, periods: list[tuple[int, int]], tell: Callable[[int], None]) -> Fetched:
        """Fetch and store the periods of one instrument."""
        result = Fetched(instrument, self.client.id)
        forward_from = -1
        for k, (begin, end) in enumerate(periods):
            if end > forward_from:  # else the venue has just said that its first bar is later
                table, next_open = self._period(instrument, begin, end)
                if next_open is not None and k + 1 < len(periods) and periods[k + 1][0] > begin:
                    forward_from = next_open
                self._store(result, table, begin)
            tell((end - begin) // self.interval)
        return result

    def _period(self, instrument: str, begin: int, end: int) -> tuple[BarTable | None, int | None]:
        """Closed bars that open in [begin, end), and, where there are none at all, the open of the venue's next one."""
        pages: list[BarTable] = []
        cursor = begin
        while cursor < end:
            limit = max(2, min(self.config.page_bars, (end - cursor) // self.interval))
            page = fetch_page(self.client, instrument, self.interval, cursor, limit=limit, config=self.config, wait=self.wait)
            if not len(page):
                break
            inside = page.take(page.open_time < end)
            pages.append(inside)
            if not len(inside) and not any(len(p) for p in pages):
                return None, int(page.open_time[0])
            cursor = int(page.open_time[-1]) + self.interval
        if not pages:
            return None, None
        table = join_bars(pages)
        lag = int(self.config.venue_lag_seconds * SECOND)
        return table.take(table.open_time + self.interval + lag <= self.clock.now()), None

    def _store(self, result: Fetched, table: BarTable | None, begin: int) -> None:
        if table is None or not len(table):
            return
        context = self._before(result.instrument, begin)
        joined = table if context is None else join_bars([context, table])
        passed, report = self.gate.check(joined, now=self.clock.now())
        for finding in report.findings:
            found = sum(moment >= begin for moment in finding.times)
            if found:
                result.faults[finding.fault] = result.faults.get(finding.fault, 0) + found
        fresh = passed.take(passed.open_time >= begin)
        if not len(fresh):
            return
        written = self.history.write_bars(self.client.id, fresh, origin=f"public candles of {self.client.id}")
        result.added += written.added
        result.already_there += written.already_there
        result.conflicts += len(written.conflicts)
        first, last = int(fresh.open_time[0]), int(fresh.open_time[-1])
        result.first = first if result.first is None else min(result.first, first)
        result.last = last if result.last is None else max(result.last, last)

    def _before(self, instrument: str, begin: int) -> BarTable | None:
        """Stored bars just before a period: the gate judges jumps by what came before."""
        since = begin - (self.gate.config.window + 1) * self.interval
        try:
            stored = self.history.load(
                interval=self.interval, venue=self.client.id, instruments=[instrument], sources=[], since=since, until=begin
            )
        except DataMissingError:
            return None
        return stored.bars[instrument]


def fetch(
    history: History,
    clients: Sequence[CandleClient],
    *,
    instruments: Sequence[str],
    since: int,
    until: int | None = None,
    interval: str = "1h",
    gate: BarGate,
    config: ExchangeConfig | None = None,
    clock: Clock | None = None,
    wait: Wait = time.sleep,
    progress: Progress | None = None,
) -> FetchReport:
    """Bring the store up to date with bars that open in [`since`, `until`) and have closed.

    Args:
        clients: venues in the order to try them; those that hold some of it already come first.
        until: now by default.

    Raises:
        ConfigError: if nothing was asked for.
        VenueError: if no venue served all instruments. What was fetched until then is in the store; a repetition goes on from there.
        BarGateError: if the gate is strict and a bar is bad.
    """
    config, clock = config or ExchangeConfig(), clock or SystemClock()
    length = parse_interval(interval)
    closed = (clock.now() - int(config.venue_lag_seconds * SECOND)) // length * length  # the bar that opens here is still forming
    begin, end = -(-since // length) * length, closed if until is None else min(closed, -(-until // length) * length)
    if not instruments or begin >= end or not clients:
        raise ConfigError(
            f"nothing to fetch: {len(instruments)} instruments from {iso(begin)} until {iso(end)} at {len(clients)} venues",
            hint="name instruments, a period that has begun, and venues",
        )
    failures: list[str] = []
    jobs = [_Job(history, client, length, gate, config, clock, wait) for client in clients]
    for job in sorted(jobs, key=lambda job: -sum(job.stored(name) is not None for name in instruments)):
        try:
            results = _from_venue(job, instruments, begin, end, progress)
        except VenueError as error:
            failures.append(str(error))
        else:
            return FetchReport(job.client.id, results, tuple(failures))
    raise VenueError(
        f"no venue served {', '.join(instruments)}: {'; '.join(failures)}",
        hint="what was fetched is in the store and the next fetch goes on from there; check the network or name other venues",
    )


def _from_venue(job: _Job, instruments: Sequence[str], begin: int, end: int, progress: Progress | None) -> tuple[Fetched, ...]:
    markets = markets_of(job.client, config=job.config, wait=job.wait)
    missing = [name for name in instruments if name not in markets]
    if missing:
        raise VenueError(f"{job.client.id} does not list {', '.join(missing)}", hint="check the names, or name another venue")
    todo = {name: job.months(name, begin, end) for name in instruments}
    total = sum((stop - start) // job.interval for periods in todo.values() for start, stop in periods)
    done = 0
    job.history.write_rules([market_rules(job.client.id, name, markets[name]) for name in instruments])
    results: list[Fetched] = []
    for name, periods in todo.items():

        def tell(bars: int, name: str = name) -> None:
            nonlocal done
            done += bars
            if progress is not None:
                progress(done, total, f"{job.client.id} {name} {interval_name(job.interval)}")

        results.append(job.fetch(name, periods, tell))
    return tuple(results)


def market_rules(venue: str, instrument: str, market: Any) -> InstrumentRules:
    """Lot, tick and smallest order as the venue states them (ccxt's precision as step sizes); cautious ones where it does not."""
    base, quote = split_instrument(instrument)
    precision, limits = market.get("precision") or {}, market.get("limits") or {}
    cost = (limits.get("cost") or {}).get("min")
    return InstrumentRules(
        happened_at=0,
        known_at=0,
        instrument=instrument,
        venue=venue,
        base=base,
        quote=quote,
        lot=Decimal(str(precision.get("amount") or "0.001")),
        tick=Decimal(str(precision.get("price") or "0.01")),
        min_notional=Decimal(str(cost or "5")),
        perpetual=bool(market.get("swap")),
    )


def _months(since: int, until: int) -> Iterator[tuple[int, int]]:
    """[since, until) cut at the first of every UTC month."""
    while since < until:
        moment = datetime.fromtimestamp(since // SECOND, UTC)
        after = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
        end = min(until, int(np.datetime64(after.replace(tzinfo=None), "ns").astype(np.int64)))
        yield since, end
        since = end
