"""`fake-exchange`: a venue on this machine, for trying a bot, its faults included, without anybody's money."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.verbs.research import Data, Instruments, Interval, Simulated, Since, Until, chosen

if TYPE_CHECKING:
    from collections.abc import Mapping


def register(app: typer.Typer) -> None:
    verb(app, "fake-exchange")(fake_exchange)


def fake_exchange(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    lasts: Annotated[str | None, typer.Option("--as", help="How long a bar lasts, such as 1s or 1m [else as long as it did].")] = None,
    clock: Annotated[str, typer.Option("--clock", help="timed: bars come by the clock; step: when /control/advance is asked.")] = "timed",
    known: Annotated[int | None, typer.Option("--known", min=1, help="Bars that are past at the start [else three quarters].")] = None,
    faults: Annotated[Path | None, typer.Option("--faults", help="Script of faults, JSON or YAML.")] = None,
    chaos: Annotated[int | None, typer.Option("--chaos", min=0, help="Draw faults from this seed.")] = None,
    cash: Annotated[float | None, typer.Option("--cash", min=0.0, help="What the account holds [else execution.initial_cash].")] = None,
    may_withdraw: Annotated[
        bool, typer.Option("--may-withdraw", help="The key may withdraw: `trade --live` must refuse it, for trying that.")
    ] = False,
    futures: Annotated[bool, typer.Option("--futures", help="List the instruments as USD-M perpetuals instead of spot.")] = False,
    recording: Annotated[list[Path] | None, typer.Option("--recording", help="Recorded messages to send; repeatable.")] = None,
    speed: Annotated[float, typer.Option("--speed", min=0.0, help="Send recordings this many times faster; 0 does not wait.")] = 1.0,
) -> None:
    """Be an exchange on this machine: Binance's REST and WebSockets over stored bars, with faults on request. Ctrl-C ends it."""
    from cryptoalpha.app.fake_session import FakeRequest, serve
    from cryptoalpha.core.errors import ConfigError

    if clock not in ("timed", "step"):
        raise ConfigError(f"--clock {clock} is no clock", hint="timed or step")
    way: Literal["timed", "step"] = "timed" if clock == "timed" else "step"
    request = FakeRequest(
        data=data, since=since, until=until, interval=interval, instruments=chosen(instruments), simulated=simulated, futures=futures,
        port=port, lasts=lasts, clock=way, known=known, faults=faults, chaos=chaos, cash=cash, may_withdraw=may_withdraw,
        recordings=recording or (), speed=speed,
    )  # fmt: skip
    serve(frame.settings, frame.home, request, listening=lambda found: frame.out.line(found, _told(found)), note=frame.out.note)


def _told(found: Mapping[str, object]) -> str:
    """What people are told once it listens."""
    url, names = str(found["url"]), found["instruments"]
    listed = ", ".join(names) if isinstance(names, list) else ""
    websocket = url.replace("http", "ws", 1)
    lines = [
        f"listening on {url} ({found['kind']}; key {found['key']!r}, secret {found['secret']!r})",
        f"  market       {listed}: {found['bars_known']:,} bars of {found['interval']} known, {found['bars_to_come']:,} to come",
        f"  ccxt         in exchange.urls['api'], recursively: https:// becomes {url}/ and wss:// becomes {websocket}/",
        f"  cryptoalpha  --set data.exchange.endpoint={url}",
        f"  control      POST {found['control_url']}/control/state" + (", /control/advance" if found["clock"] == "step" else ""),
        "Ctrl-C ends it",
    ]
    return "\n".join(lines)
