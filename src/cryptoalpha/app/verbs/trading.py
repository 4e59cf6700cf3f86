"""`trade`: on paper, on a replay or on live bars; with real orders, where five conditions hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.verbs.research import Data, Instruments, Interval, Simulated, Since, Until, chosen

if TYPE_CHECKING:
    from cryptoalpha.app.venues import Keys


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
    run: Annotated[
        str | None, typer.Option("--run", help="Name of the run [else paper, or live]; the same name goes on where it stopped.")
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Send real orders; also needs execution.allow_live, CRYPTOALPHA_LIVE=1 and a key that cannot withdraw."
        ),
    ] = False,
) -> None:
    """Trade one bar at a time, on paper or with --live, every step durable before an order leaves; killed, it goes on where it was."""
    from cryptoalpha.app.champion import with_champion
    from cryptoalpha.app.deciders import unused_models
    from cryptoalpha.app.runs import JOURNAL, run_directory
    from cryptoalpha.app.safety import halt, told_at_start
    from cryptoalpha.app.trade_session import TradeRequest, run_session

    keys = None
    if live or frame.settings.engine.mode == "live":
        keys = _may_send(
            frame,
            live,
            sources={"--data": data, "--since": since, "--until": until, "--simulated": simulated or None, "--speed": speed or None},
            feed=feed,
        )
    if not frame.settings.engine.auto_trading:
        frame.out.warn("engine.auto_trading is off: decisions are journaled, nothing is sent; --set engine.auto_trading=true lets it trade")
    frame.settings = with_champion(frame.settings, frame.home, say=frame.out.note)
    for unused in unused_models(frame.settings):
        frame.out.note(unused)
    run = run or ("live" if live else "paper")
    killed = told_at_start(run_directory(frame.home, run) / JOURNAL)
    if killed is not None:
        frame.out.warn(killed)
    request = TradeRequest(
        data=data, since=since, until=until, interval=interval, instruments=chosen(instruments), simulated=simulated, speed=speed,
        feed=feed, run=run, keys=keys,
    )  # fmt: skip
    found = run_session(frame.settings, frame.home, request, say=frame.out.note, hide=frame.out.hide)
    frame.out.result(found.as_dict(), found.lines())
    if found.control.stands:
        raise halt(run, found.control, finished=found.is_complete)
    if found.interrupted:
        raise KeyboardInterrupt


def _may_send(frame: Frame, live: bool, *, sources: dict[str, object], feed: str | None) -> Keys:
    """The account's keys, if every condition for real orders holds.

    Raises:
        ConfigError: naming what is missing, or what does not go with real orders.
    """
    import os

    from cryptoalpha.app.live.gates import keys_for_live
    from cryptoalpha.core.errors import ConfigError

    keys = keys_for_live(frame.settings, flag=live, environment=os.environ, hide=frame.out.hide)
    named = [name for name, value in sources.items() if value is not None]
    if named:
        raise ConfigError(f"real orders are sent on live bars only: {', '.join(named)} names something else", hint="leave it out")
    venue = frame.settings.execution.live.venue
    if feed not in (None, venue):
        raise ConfigError(
            f"orders go to {venue}, but --feed names {feed}", hint="leave --feed out: a live run trades on the bars of its own venue"
        )
    return keys
