"""One session of `fake-exchange`: stored bars made into a market that trades now, until somebody says stop.

`timed`: the newest known bar closes now and each further one lasts as long as asked for (`--as 1s` makes an hour of history a second).
`step`: nothing moves until `POST /control/advance`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal

from msgspec import structs

from cryptoalpha.app.period import period_of
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.sources import open_dataset
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import interval_name, parse_interval
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.fault_script import as_entries, read_script
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import build
from cryptoalpha.execution.fake_exchange.recordings import RecordedFeed, merged, read_recording
from cryptoalpha.execution.fake_exchange.stream_wiring import Wiring

KEY, SECRET = "key", "secret"
KNOWN_SHARE = 0.75
"""Share of the bars that are past when the exchange opens, unless told otherwise."""

BINANCE_INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w")
"""Bar lengths of Binance's candles, but for the month, which is no length."""


@dataclass(frozen=True, kw_only=True)
class FakeRequest:
    """What `fake-exchange` was asked for."""

    data: Path | None = None
    since: str | None = None
    until: str | None = None
    interval: str = "1h"
    instruments: Sequence[str] | None = None
    simulated: bool = False
    futures: bool = False
    port: int = 0
    lasts: str | None = None
    """How long a bar lasts on the clock; None for its own length."""
    clock: Literal["timed", "step"] = "timed"
    known: int | None = None
    """Bars that are past at the beginning; None for `KNOWN_SHARE` of them."""
    faults: Path | None = None
    chaos: int | None = None
    cash: float | None = None
    """What the account starts with; None for `execution.initial_cash`."""
    may_withdraw: bool = False
    """Whether its key may withdraw, which live trading must refuse."""
    recordings: Sequence[Path] = ()
    speed: float = 1.0
    """How many times faster than recorded the recordings are sent; 0 does not wait."""


def prepare(settings: Settings, home: Path, request: FakeRequest) -> Wiring:
    """The exchange that was asked for, not yet listening.

    Raises:
        ConfigError: options that contradict each other, no such fault, not enough bars, a recording of what is not listed.
        DataMissingError: there are no bars.
    """
    book = _book(settings, home, request)
    bars = len(book.panel)
    known = request.known if request.known is not None else max(1, min(bars - 1, int(KNOWN_SHARE * bars)))
    if request.clock == "step" and request.lasts is not None:
        raise ConfigError("--as has no meaning with --clock step", hint="leave it out: bars keep their own stamps, and you move them")
    length = book.panel.interval if request.lasts is None else _bar_length(request.lasts)
    quotes = {rule.quote for rule in book.rules.values()}
    cash = Decimal(repr(settings.execution.initial_cash if request.cash is None else request.cash))
    account = AccountSettings(
        key=KEY, secret=SECRET, balances=dict.fromkeys(sorted(quotes), cash), wallet=cash, may_withdraw=request.may_withdraw
    )
    wiring = build(book, settings.execution, [account], start=known, timed=length if request.clock == "timed" else None)
    if request.faults is not None:
        wiring.faults.load(as_entries(read_script(request.faults)))
    if request.chaos is not None:
        wiring.faults.load_seed(request.chaos, faults=40, reach=200)
    return wiring


def _bar_length(text: str) -> int:
    """How long a bar shall last, ns.

    Raises:
        ConfigError: if Binance has no such bars: clients would not know their name.
    """
    if text not in BINANCE_INTERVALS:
        raise ConfigError(f"--as {text}: Binance has no such bars", hint=f"one of {', '.join(BINANCE_INTERVALS)}")
    return parse_interval(text)


def _book(settings: Settings, home: Path, request: FakeRequest) -> Book:
    dataset = open_dataset(
        settings, home, data=request.data, simulated=request.simulated, interval=request.interval, instruments=request.instruments
    )
    if request.instruments is not None:
        dataset = replace(dataset, bars={name: table for name, table in dataset.bars.items() if name in request.instruments})
        if not dataset.bars:
            raise ConfigError(f"{dataset.origin} has no bars of {', '.join(request.instruments)}", hint="leave --instruments away for all")
    dataset = replace(dataset, rules={name: structs.replace(rule, perpetual=request.futures) for name, rule in dataset.rules.items()})
    period = period_of(dataset, request.since, request.until)
    return Book.of(dataset, since=period.since, until=period.until)


def serve(
    settings: Settings, home: Path, request: FakeRequest, *, listening: Callable[[Mapping[str, object]], None], note: Callable[[str], None]
) -> None:
    """Run it until SIGINT or SIGTERM.

    Args:
        listening: told once, when it answers: `url`, `control_url`, `instruments`, `key`, `secret`, `clock`, `interval`.
        note: told what people may like to know.

    Raises:
        VenueError: the port is taken. Else as `prepare`.
    """
    wiring = prepare(settings, home, request)
    feed = _recorded(wiring, request)
    asyncio.run(_run(wiring, feed, request, listening, note))


async def _run(
    wiring: Wiring,
    feed: RecordedFeed | None,
    request: FakeRequest,
    listening: Callable[[Mapping[str, object]], None],
    note: Callable[[str], None],
) -> None:
    server, stop = wiring.server, asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks: list[asyncio.Task[None]] = []
    try:
        await server.start(port=request.port)
        market = server.exchange.market
        listening(
            {
                "url": server.url,
                "control_url": server.control_url,
                "key": KEY,
                "secret": SECRET,
                "kind": "futures" if request.futures else "spot",
                "instruments": list(market.panel.instruments),
                "interval": interval_name(market.panel.interval),
                "clock": request.clock,
                "bars_known": market.row + 1,
                "bars_to_come": market.left,
            }
        )
        if server.clockwork is not None:
            tasks.append(asyncio.create_task(tell_end(server.clockwork, note)))
        if feed is not None:
            tasks.append(asyncio.create_task(_replay(feed, note)))
        waiting = asyncio.create_task(stop.wait())
        left: set[asyncio.Task[bool] | asyncio.Task[None]] = {waiting, *tasks}
        while waiting in left:  # bars and recordings may end; the exchange stays until it is told to stop, or something failed
            ended, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
    finally:
        for running in tasks:
            running.cancel()
        await wiring.hub.close()
        await server.stop()
    orders = sum(len(account.orders) for account in server.exchange.accounts.values())
    happened = ", ".join(f"{name} {count}" for name, count in sorted(wiring.faults.counts.items())) or "none"
    note(f"stopped: {sum(server.requests.values())} requests, {orders} orders, {wiring.hub.sent} messages; faults: {happened}")


async def tell_end(clockwork: asyncio.Task[None], note: Callable[[str], None]) -> None:
    """Wait for the end of the bars, and say so."""
    await clockwork
    note("the bars are at their end: the market stands still from here on")


async def _replay(feed: RecordedFeed, note: Callable[[str], None]) -> None:
    await feed.run()
    note(f"the recordings are at their end: {feed.sent} messages sent, {feed.skipped} from before their snapshot left out")


def _recorded(wiring: Wiring, request: FakeRequest) -> RecordedFeed | None:
    """What is to be replayed; every file is opened and its first message checked now."""
    if not request.recordings:
        return None
    market = wiring.exchange.market
    for path in request.recordings:
        symbol = next(iter(read_recording(path))).symbol
        if market.listing(symbol, perpetual=request.futures) is None:
            listed = ", ".join(listing.symbol for listing in market.listings)
            raise ConfigError(f"{path.name} is of {symbol}, which is not listed here", hint=f"listed: {listed}; choose other bars")
    lines = merged([read_recording(path) for path in request.recordings])
    return RecordedFeed(wiring.hub, lines, futures=request.futures, speed=request.speed)
