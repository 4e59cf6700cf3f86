"""`listen`: live sources and signal agents without a book, on this machine or as one of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.output import Table
from cryptoalpha.app.verbs.research import Instruments, Interval, chosen

if TYPE_CHECKING:
    from cryptoalpha.app.streams.station import StationCounts
    from cryptoalpha.store.tables import Dataset


def register(app: typer.Typer) -> None:
    verb(app)(listen)


def listen(
    frame: Frame,
    venue: Annotated[str, typer.Option("--venue", help="Whose stored history agents begin with (ccxt id).")] = "binance",
    interval: Interval = "1h",
    instruments: Instruments = None,
    sources: Annotated[bool, typer.Option("--sources/--no-sources", help="Whether live sources run here.")] = True,
    agents: Annotated[bool, typer.Option("--agents/--no-agents", help="Whether signal agents run here.")] = True,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0.0, help="End after so long [else when told to].")] = None,
) -> None:
    """Run live sources and the agents that read them; print signals as they come. Killed, it goes on where it stood."""
    import asyncio
    import time

    from cryptoalpha.app.streams.station import Station
    from cryptoalpha.app.trade_session import stopping
    from cryptoalpha.core.errors import ConfigError
    from cryptoalpha.core.time import iso_second
    from cryptoalpha.core.values import Signal

    if not sources and not agents:
        raise ConfigError("neither sources nor agents would run", hint="leave out --no-sources or --no-agents")
    start = _history(frame, venue, interval, instruments) if agents else None
    names = tuple(start.bars) if start is not None else tuple(chosen(instruments) or ("BTC/USDT", "ETH/USDT"))

    def heard(signal: Signal) -> None:
        frame.out.note(
            f"{iso_second(signal.known_at)}  {signal.source} {signal.instrument} {signal.value:+.3f}, confidence {signal.confidence:.2f}"
        )

    async def run() -> None:
        end = asyncio.Event()
        station = Station(
            frame.settings, frame.home, instruments=names, start=start, listens=sources, say=frame.out.note,
            alert=lambda subject, text: frame.out.warn(text), heard=heard,
        )  # fmt: skip
        working = asyncio.create_task(station.run(end))
        begun = time.monotonic()
        while not working.done():
            await asyncio.wait({working}, timeout=0.1)
            if stop.event.is_set() or (seconds is not None and time.monotonic() - begun >= seconds):
                end.set()
        await working
        frame.out.result(station.counts.as_dict(), _tables(station.counts) or ["nothing ran"])

    with stopping() as stop:
        asyncio.run(run())
    if stop.by_keyboard:
        raise KeyboardInterrupt


def _history(frame: Frame, venue: str, interval: str, instruments: str | None) -> Dataset:
    """What agents begin with.

    Raises:
        DataMissingError: if there is none; sources alone need none.
    """
    import time

    from cryptoalpha.app.sources import open_venue
    from cryptoalpha.core.errors import DataMissingError

    try:
        return open_venue(frame.home, venue=venue, interval=interval, instruments=chosen(instruments), now=time.time_ns())
    except DataMissingError as error:
        hint = f"{error.hint}; or --no-agents, which runs sources alone"
        raise DataMissingError(f"agents look back and find nothing: {error}", hint=hint) from None


def _tables(counts: StationCounts) -> list[str | Table]:
    """What sources and agents did."""
    from cryptoalpha.app.streams.standing import in_short

    told = [(name, one.state, f"{one.messages:,}", f"{one.dead:,}", in_short(one.reason)) for name, one in counts.health.items()]
    done = [
        (name, f"{counts.handled[name]:,}", f"{counts.repeats[name]:,}", f"{counts.dead[name]:,}", f"{counts.signals[name]:,}")
        for name in counts.handled
    ]
    tables: list[str | Table] = [Table(("source", "state", "messages", "unreadable", "why"), told, "sources")] if told else []
    return tables + ([Table(("agent", "handled", "repeats", "dead", "signals"), done, "agents")] if done else [])
