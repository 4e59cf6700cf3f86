"""`trade`: paper trading on a replay or on live bars."""

from __future__ import annotations

from typing import Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.verbs.research import Data, Instruments, Interval, Simulated, Since, Until, chosen


def register(app: typer.Typer) -> None:
    verb(app)(trade)


def trade(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    speed: Annotated[
        float, typer.Option("--speed", min=0.0, help="Replay this many times faster than it happened; 0 does not wait.")
    ] = 0.0,
    feed: Annotated[str | None, typer.Option("--feed", help="Trade this venue's live bars (ccxt id) instead of a replay.")] = None,
    run: Annotated[str, typer.Option("--run", help="Name of the run; the same name goes on where it stopped.")] = "paper",
    live: Annotated[bool, typer.Option("--live", help="Send real orders. Not available yet.")] = False,
) -> None:
    """Paper trade: the same engine, one bar at a time, every step durable before an order leaves; killed, it goes on where it was."""
    from cryptoalpha.app.runs import JOURNAL, run_directory
    from cryptoalpha.app.safety import halt, told_at_start
    from cryptoalpha.app.trade_session import TradeRequest, run_session
    from cryptoalpha.core.errors import ConfigError

    if live or frame.settings.engine.mode == "live":
        raise ConfigError(
            "this version sends no real orders: only paper trading is built", hint="leave --live away, set engine.mode to paper"
        )
    if not frame.settings.engine.auto_trading:
        frame.out.warn("engine.auto_trading is off: decisions are journaled, nothing is sent; --set engine.auto_trading=true lets it trade")
    killed = told_at_start(run_directory(frame.home, run) / JOURNAL)
    if killed is not None:
        frame.out.warn(killed)
    request = TradeRequest(
        data=data, since=since, until=until, interval=interval, instruments=chosen(instruments), simulated=simulated, speed=speed,
        feed=feed, run=run,
    )  # fmt: skip
    found = run_session(frame.settings, frame.home, request, say=frame.out.note)
    frame.out.result(found.as_dict(), found.lines())
    if found.control.stands:
        raise halt(run, found.control, finished=found.is_complete)
    if found.interrupted:
        raise KeyboardInterrupt
