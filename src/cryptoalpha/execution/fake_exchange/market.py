"""The bars a fake exchange trades, what is listed, and where the market's clock stands.

Row t of the panel is known at `known_at[t]`; what lies after the present row is the future and is never shown. `step` mode moves one row at
a time when told to. For `timed` mode the stored bars are stamped anew (`restamped`), so that the present row closes now and each bar lasts
as long as wanted: stored hours can pass as seconds.

Times inside are UTC nanoseconds; what goes over the wire is milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import MILLISECOND, iso
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.execution.broker import BarStep, bar_steps, funding_by_bar
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import Dataset, Floats

_COLUMNS = ("open", "high", "low", "close", "volume", "taker_buy_volume")


@dataclass(frozen=True)
class Listing:
    """One thing that can be traded. `place` is its column in the panel."""

    place: int
    name: str
    symbol: str
    base: str
    quote: str
    lot: Decimal
    tick: Decimal
    min_notional: Decimal
    perpetual: bool


@dataclass(frozen=True, eq=False)
class Book:
    """Bars, rules and funding rates of one market; everything a fake exchange is started with.

    Shapes: `funding_at_open` and `funding_inside` `[T, A]`, NaN where nothing settles.
    """

    panel: Panel
    rules: Mapping[str, InstrumentRules]
    funding_at_open: Floats
    funding_inside: Floats

    @classmethod
    def of(cls, dataset: Dataset, *, since: int | None = None, until: int | None = None) -> Book:
        """The bars of a data set on their common grid, with the funding that perpetuals settle.

        Raises:
            DataMissingError: if there are no bars in the period.
            ConfigError: if an instrument has no rules.
        """
        first = min(int(t.open_time[0]) for t in dataset.bars.values() if len(t)) if since is None else since
        last = max(int(t.open_time[-1]) for t in dataset.bars.values() if len(t)) + 1 if until is None else until
        panel = build_panel(dataset, since=first, until=last)
        lacking = [name for name in panel.instruments if name not in dataset.rules]
        if lacking:
            raise ConfigError(f"no rules for {', '.join(lacking)}", hint="give lot, tick and smallest order in the data set")
        at_open, inside = funding_by_bar(panel, dataset)
        return cls(panel, {name: dataset.rules[name] for name in panel.instruments}, at_open, inside)

    def save(self, path: Path) -> None:
        """Write it as one `.npz`, to be read by another process."""
        rules = {name: msgspec.to_builtins(rule) for name, rule in self.rules.items()}
        columns = {name: getattr(self.panel, name) for name in (*_COLUMNS, "open_time", "known_at", "present")}
        np.savez(
            path,
            funding_at_open=self.funding_at_open,
            funding_inside=self.funding_inside,
            header=np.array(json.dumps({"instruments": self.panel.instruments, "interval": self.panel.interval, "rules": rules})),
            **columns,
        )

    @classmethod
    def load(cls, path: Path) -> Book:
        """The inverse of `save`.

        Raises:
            DataError: if it is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as kept:
                header = json.loads(str(kept["header"]))
                columns = {name: kept[name] for name in (*_COLUMNS, "open_time", "known_at", "present")}
                at_open, inside = kept["funding_at_open"], kept["funding_inside"]
        except (KeyError, ValueError, OSError) as problem:
            raise DataError(f"{path} holds no market: {problem}", hint="write it with Book.save") from None
        panel = Panel(
            instruments=tuple(header["instruments"]),
            interval=header["interval"],
            source_row=np.where(columns["present"], np.arange(len(columns["open_time"]))[:, None], -1),
            **columns,
        )
        return cls(panel, msgspec.convert(header["rules"], dict[str, InstrumentRules]), at_open, inside)

    def restamped(self, *, row: int, now: int, length: int) -> Book:
        """The same bars, `length` ns each, so that the bar of `row` closes at `now` (rounded down to the grid)."""
        closes = now - now % length
        open_time = closes + length * (np.arange(len(self.panel), dtype=np.int64) - row - 1)
        return replace(self, panel=replace(self.panel, open_time=open_time, known_at=open_time + length, interval=length))


class Market:
    """What has happened so far, and the next bar.

    Args:
        book: bars, rules, funding.
        start: how many bars are known at the beginning (≥ 1).

    Raises:
        ConfigError: if there are not as many bars.
    """

    def __init__(self, book: Book, *, start: int = 1) -> None:
        panel = book.panel
        if not 1 <= start <= len(panel):
            raise ConfigError(f"a market of {len(panel)} bars cannot begin with {start} of them known", hint="choose 1 or more")
        self.book, self.panel, self.rules = book, panel, book.rules
        self.listings = tuple(_listing(i, book.rules[name]) for i, name in enumerate(panel.instruments))
        self._by_symbol = {(listing.perpetual, listing.symbol): listing for listing in self.listings}
        self.clock: Callable[[], int] | None = None
        """The wall clock, where it moves the market; None where bars alone do."""
        self.row = start - 1
        """The last bar that is known."""
        self._open_ms = panel.open_time // MILLISECOND
        self._last = [float("nan")] * len(self.listings)
        self._steps = bar_steps(panel, (book.funding_at_open, book.funding_inside))
        self.history: list[BarStep] = []
        """The steps known at the beginning: what a fill model may have learnt before the first order."""
        for _ in range(start):
            step = next(self._steps)
            self._know(step)
            self.history.append(step)
        self._coming: BarStep | None = None

    def _know(self, step: BarStep) -> None:
        for i, price in enumerate(step.close):
            if price == price:
                self._last[i] = price

    @property
    def coming(self) -> BarStep | None:
        """The next bar, which nobody outside may see yet; None at the end."""
        if self._coming is None and self.left:
            self._coming = next(self._steps)
        return self._coming

    @property
    def now(self) -> int:
        """The market's clock, UTC ns: when the present row became known, or the wall clock where that moves the market."""
        return int(self.panel.known_at[self.row]) if self.clock is None else self.clock()

    @property
    def now_ms(self) -> int:
        return self.now // MILLISECOND

    @property
    def left(self) -> int:
        """Bars that are still to come."""
        return len(self.panel) - 1 - self.row

    def advance(self) -> BarStep:
        """The next bar becomes known.

        Raises:
            DataError: after the last one.
        """
        step = self.coming
        if step is None:
            raise DataError(f"the market ends at {iso(self.now)}", hint="give it more bars")
        self._coming = None
        self._know(step)
        self.row += 1
        return step

    def listing(self, symbol: str, *, perpetual: bool) -> Listing | None:
        """What is listed under a venue's symbol (`BTCUSDT`)."""
        return self._by_symbol.get((perpetual, symbol))

    def named(self, name: str) -> Listing:
        """What is listed under our name.

        Raises:
            ConfigError: if nothing is.
        """
        for listing in self.listings:
            if listing.name == name:
                return listing
        raise ConfigError(f"{name} is not listed here", hint=f"listed: {', '.join(self.panel.instruments)}")

    def last_price(self, listing: Listing) -> float:
        """The last close; NaN before the first bar."""
        return self._last[listing.place]

    def asset_price(self, asset: str, quote: str) -> float:
        """The last spot price of an asset, from whatever is listed; 1 for the quote itself, NaN where nobody trades it."""
        if asset == quote:
            return 1.0
        found = [listing for listing in self.listings if (listing.base, listing.quote) == (asset, quote)]
        return self._last[min(found, key=lambda listing: listing.perpetual).place] if found else float("nan")

    def bars(self, listing: Listing, *, since_ms: int | None, until_ms: int | None, limit: int) -> npt.NDArray[np.int64]:
        """Rows of the known bars that open within the bounds (both inclusive): the first `limit` from `since_ms` on, else the last."""
        known = self._open_ms[: self.row + 1]
        low = 0 if since_ms is None else int(np.searchsorted(known, since_ms, side="left"))
        high = len(known) if until_ms is None else int(np.searchsorted(known, until_ms, side="right"))
        present = self.panel.present[:, listing.place]
        first, last = (max(low, high - limit), high) if since_ms is None else (low, min(high, low + limit))
        rows: npt.NDArray[np.int64] = np.flatnonzero(present[first:last]) + first
        if len(rows) < limit and (first, last) != (low, high):  # some were missing: look at all of them
            rows = np.flatnonzero(present[low:high]) + low
        return rows[-limit:] if since_ms is None else rows[:limit]

    def describe(self) -> str:
        """One line for people."""
        return f"{len(self.panel)} bars of {', '.join(self.panel.instruments)}, now at {iso(self.now)}"


def _listing(place: int, rules: InstrumentRules) -> Listing:
    return Listing(
        place=place,
        name=rules.instrument,
        symbol=rules.base + rules.quote,
        base=rules.base,
        quote=rules.quote,
        lot=rules.lot,
        tick=rules.tick,
        min_notional=rules.min_notional,
        perpetual=rules.perpetual,
    )
