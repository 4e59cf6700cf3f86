"""Live bars by polling: one batch per bar of the whole book, each only after it has closed.

A bar is asked for shortly after its end; the batch goes out when all instruments have it, or when a time of grace is over, naming who is
missing. Bars that come later than that are dropped: they were not known when the book decided. Batches never run backwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.time import SECOND, iso
from cryptoalpha.data.candles import CandleClient, Wait, fetch_page
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.data.joining import join_bars
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.tables import BarTable, Dataset

_CATCH_UP = 500
_SILENT_BARS = 3

Pauses = Callable[[], Iterator[float]]
"""Waits between attempts at one bar, in seconds; asked for anew at every bar."""


@dataclass(frozen=True)
class LiveBatch:
    """Bars of the book that open at `open_time`, one row per instrument that has one. Known at `known_at`, the end of the bar."""

    open_time: int
    known_at: int
    bars: Mapping[str, BarTable]
    missing: tuple[str, ...]


class LiveBars:
    """Closed bars of all instruments, batch by batch, for ever; iterate over it.

    Args:
        client: the venue, from `app.venues`.
        known: bars known so far by instrument (`Dataset.bars`): the gate judges new bars by them, and batches start after the newest.
        notice: told in words about missing bars and failing venues.
        gives_up: whether a venue that fails at the start, or brings nothing for three bars, ends the feed. One that does not give up goes
            on asking; batches without bars say that time passes.
        pauses: waits between attempts at one bar, from the second attempt on; None: always `config.backoff_seconds`.

    Raises (while iterating):
        VenueError: if the venue fails before the first batch, or brings nothing for three bars; never where the feed does not give up.
        BarGateError: if the gate is strict and a bar is bad.
    """

    def __init__(
        self,
        client: CandleClient,
        known: Mapping[str, BarTable],
        *,
        gate: BarGate,
        config: ExchangeConfig | None = None,
        clock: Clock | None = None,
        wait: Wait = time.sleep,
        notice: Callable[[str], None] | None = None,
        gives_up: bool = True,
        pauses: Pauses | None = None,
    ) -> None:
        self._gives_up, self._pauses = gives_up, pauses or self._even_pauses
        self._client, self._gate = client, gate
        self._config, self._clock, self._wait = config or ExchangeConfig(), clock or SystemClock(), wait
        self._notice = notice or (lambda text: None)
        window = gate.config.window + 1
        self._context = {name: table.take(slice(-window, None)) for name, table in sorted(known.items())}
        self._interval = next(iter(known.values())).interval
        self._next = max(int(table.open_time[-1]) for table in known.values()) + self._interval
        self._ahead: dict[str, BarTable] = {}

    def __iter__(self) -> Iterator[LiveBatch]:
        silent, begun = 0, not self._gives_up
        while True:
            batch = self._batch(patient=begun)
            silent = 0 if batch.bars else silent + 1
            if silent >= _SILENT_BARS and self._gives_up:
                raise VenueError(
                    f"{self._client.id} brought no bar for {silent} bar lengths, the last due at {iso(batch.known_at)}",
                    hint="check the network and the venue's status, then start again: the journal goes on where it stopped",
                )
            begun = True
            yield batch

    def _batch(self, *, patient: bool) -> LiveBatch:
        """Wait for the next bar's end and gather it from all instruments."""
        opens, known_at = self._next, self._next + self._interval
        self._sleep_until(known_at + int(self._config.venue_lag_seconds * SECOND))
        deadline = known_at + int(self._config.grace_seconds * SECOND)
        pauses = self._pauses()
        while True:
            for name in self._context:
                if name not in self._ahead or not bool(np.any(self._ahead[name].open_time >= opens)):
                    self._poll(name, opens, patient=patient)
            bars = {name: row for name, table in self._ahead.items() if len(row := table.take(table.open_time == opens))}
            late = [name for name in self._context if name not in bars]
            # a newer bar without this one means that this one never comes
            waiting = [name for name in late if not bool(np.any(self._newest(name) > opens))]
            if not waiting or self._clock.now() >= deadline:
                break
            self._wait(min(next(pauses), max((deadline - self._clock.now()) / SECOND, 0.0)))
        if late:
            self._notice(f"no bar of {', '.join(late)} at {iso(opens)}")
        self._next += self._interval
        self._ahead = {name: table.take(table.open_time > opens) for name, table in self._ahead.items()}
        return LiveBatch(opens, known_at, bars, tuple(late))

    def _newest(self, name: str) -> int:
        table = self._ahead.get(name)
        return int(table.open_time[-1]) if table is not None and len(table) else -1

    def _poll(self, name: str, opens: int, *, patient: bool) -> None:
        """Fetch what the venue has from `opens` on and keep what has closed and passes the gate."""
        try:
            page = fetch_page(self._client, name, self._interval, opens, limit=_CATCH_UP, config=self._config, wait=self._wait)
        except VenueError as error:
            if not patient:
                raise
            self._notice(str(error))
            return
        lag = int(self._config.venue_lag_seconds * SECOND)
        closed = page.take(page.open_time + self._interval + lag <= self._clock.now())
        if not len(closed):
            return
        passed, report = self._gate.check(join_bars([self._context[name], closed]), now=self._clock.now())
        fresh = passed.take(passed.open_time >= opens)
        if not report.is_clean and len(fresh) < len(closed):
            self._notice("; ".join(report.lines()[1:]).strip())
        self._ahead[name] = fresh
        self._context[name] = passed.take(slice(-(self._gate.config.window + 1), None))

    def _even_pauses(self) -> Iterator[float]:
        return repeat(max(self._config.backoff_seconds, 0.05))

    def _sleep_until(self, moment: int) -> None:
        while (left := moment - self._clock.now()) > 0:
            self._wait(min(left / SECOND, 60.0))


def extended(dataset: Dataset, batch: LiveBatch) -> Dataset:
    """The dataset with a batch's bars added at the end."""
    return replace(
        dataset, bars={name: join_bars([table, batch.bars[name]]) if name in batch.bars else table for name, table in dataset.bars.items()}
    )
