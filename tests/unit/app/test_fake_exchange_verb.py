"""`cryptoalpha fake-exchange` as a user starts it: it says where it listens, trades in real time, fails as told, and goes when asked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt
import pytest

from cryptoalpha.app.fake_session import FakeRequest, prepare, tell_end
from cryptoalpha.app.settings import load_settings
from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.execution.fake_exchange.intake import Wish
from cryptoalpha.execution.fake_exchange.process import Handle

COMMAND = [sys.executable, "-m", "cryptoalpha", "fake-exchange"]


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with 80 hourly bars of BTC/USDT, the close one dollar higher each hour."""
    folder = tmp_path_factory.mktemp("bars")
    stamps = [f"2023-11-{14 + k // 24:02d}T{k % 24:02d}:00:00Z" for k in range(80)]
    rows = [f"{stamps[k]},{1000 + k},{1002 + k},{999 + k},{1001 + k},50" for k in range(80)]
    (folder / "BTCUSDT.csv").write_text("\n".join(["ts,open,high,low,close,volume", *rows]) + "\n")
    return folder


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The verb as a process of its own, and the line it printed."""
    child = subprocess.Popen(
        [*COMMAND, "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, child.stderr.read() if child.stderr is not None else ""
        yield child, json.loads(line)
    finally:
        child.kill()
        child.communicate()


def client_of(url: str) -> ccxt.binance:
    client = ccxt.binance({"apiKey": "key", "secret": "secret", "enableRateLimit": False, "timeout": 3000})
    client.options |= {"fetchCurrencies": False, "fetchMargins": False, "fetchMarkets": {"types": ["spot"]}}
    client.urls["api"] = {
        name: address.replace("https://", url + "/") for name, address in client.urls["api"].items() if type(address) is str
    }
    return client


def test_a_user_trades_in_real_time_meets_a_fault_and_stops_it(bars: Path, tmp_path: Path):
    script = tmp_path / "faults.yaml"
    script.write_text("- {action: drop_after, nth: 2}\n")
    with started("--data", str(bars), "--as", "1s", "--faults", str(script), "--cash", "5000") as (child, said):
        assert (said["instruments"], said["interval"], said["clock"], said["kind"]) == (["BTC/USDT"], "1s", "timed", "spot")
        assert (said["bars_known"], said["bars_to_come"]) == (60, 20)
        client = client_of(said["url"])
        (market,) = client.load_markets()
        assert client.fetch_balance()["USDT"]["free"] == 5000
        order = client.create_order(market, "market", "buy", 0.5)
        with pytest.raises(ccxt.NetworkError):
            client.create_order(market, "limit", "buy", 0.5, 900)
        assert len(client.fetch_open_orders(market)) == 2  # it was taken all the same
        before = client.fetch_ohlcv(market, "1s", limit=2)[-1]
        assert abs(before[0] / 1000 + 1 - time.time()) < 2.5  # the newest bar closed just now
        end = time.monotonic() + 5
        while client.fetch_order(order["id"], market)["status"] != "closed" and time.monotonic() < end:
            time.sleep(0.05)
        (trade,) = client.fetch_my_trades(market)
        assert trade["timestamp"] % 1000 == 0
        assert abs(trade["timestamp"] / 1000 - time.time()) < 3
        handle = Handle(said["url"], said["control_url"])
        assert handle.state()["faults"]["counts"] == {"drop_after": 1}
        handle.disconnect()
        child.send_signal(signal.SIGTERM)
        rest, noted = child.communicate(timeout=10)
        assert (child.returncode, rest) == (0, "")
        assert "stopped: " in noted
        assert "drop_after 1" in noted


def test_ctrl_c_ends_it_while_a_stream_is_open(bars: Path):
    with started("--data", str(bars), "--clock", "step", "--futures", "--chaos", "5", "--port", "0") as (child, said):
        assert said["kind"] == "futures"

        async def listen_and_stop() -> str:
            import aiohttp

            async with aiohttp.ClientSession() as session, session.ws_connect(said["url"] + "/market/ws/btcusdt@kline_1h") as stream:
                assert json.loads((await stream.receive()).data)["e"] == "kline"
                child.send_signal(signal.SIGINT)
                return (await asyncio.wait_for(stream.receive(), 5)).type.name

        assert asyncio.run(listen_and_stop()) in ("CLOSE", "CLOSED", "CLOSING")
        assert child.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--clock", "sundial"], 2, "is no clock"),
        (["--clock", "step", "--as", "1s"], 2, "has no meaning"),
        (["--as", "soon"], 2, "--as soon: Binance has no such bars"),
        (["--as", "7s"], 2, "one of 1s, 1m, 3m, 5m, 15m,"),
        (["--known", "5000"], 2, "cannot begin with 5000"),
        (["--instruments", "DOGE/USDT"], 3, ""),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    bars: Path, options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
):
    from cryptoalpha.app.frame import run
    from cryptoalpha.app.verbs import build

    assert run(build(), ["fake-exchange", "--data", str(bars), "-q", *options]) == code
    assert message in capsys.readouterr().err


def test_a_taken_port_is_an_error_of_the_network(bars: Path, capsys: pytest.CaptureFixture[str]):
    from cryptoalpha.app.frame import run
    from cryptoalpha.app.verbs import build

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(build(), ["fake-exchange", "--data", str(bars), "--port", str(port)]) == 5
    assert f"port {port} cannot be listened on" in capsys.readouterr().err


@pytest.mark.parametrize("may", [False, True])
def test_the_gate_can_be_tried_with_a_key_that_may_withdraw(bars: Path, tmp_path: Path, may: bool):
    wiring = prepare(load_settings(None, overrides=()), tmp_path, FakeRequest(data=bars, clock="step", may_withdraw=may))
    assert [account.settings.may_withdraw for account in wiring.exchange.accounts.values()] == [may]


def test_a_recording_of_what_is_not_listed_is_refused(bars: Path, tmp_path: Path):
    from cryptoalpha.app.fake_session import serve

    path = tmp_path / "feed.txt"
    path.write_text('1 {"e"}\n1723161253937085768 {"stream":"dogeusdt@trade","data":{"e":"trade","s":"DOGEUSDT"}}\n')
    request = FakeRequest(data=bars, recordings=[path])
    with pytest.raises(ConfigError, match="DOGEUSDT, which is not listed"):
        serve(load_settings(None, overrides=()), tmp_path, request, listening=lambda found: None, note=lambda text: None)


def test_time_is_kept_to_the_end_of_the_bars(bars: Path, tmp_path: Path):
    """Two bars of one second from a start inside a bar: at the end all are known, and the market stands still. Until then it is never
    later at the market than on the wall, and what rests is not tried before the bar in which it may trade has passed."""
    wiring = prepare(load_settings(None, overrides=()), tmp_path, FakeRequest(data=bars, lasts="1s", known=78))
    server, exchange = wiring.server, wiring.exchange
    with pytest.raises(VenueError, match="wall clock"):
        server.control["advance"]({})
    assert wiring.faults.state()["rules"] == []
    (listing,), (account,) = exchange.market.listings, exchange.accounts.values()
    wish = Wish(listing=listing, side="BUY", type="LIMIT", quantity=Decimal(1), price=Decimal("1077.5"), time_in_force="GTC")
    notes: list[str] = []
    traded: list[float] = []
    exchange.listeners.append(lambda event: traded.append(time.time()) if event.kind == "trade" else None)

    async def run() -> None:
        exchange.place(account, wish)
        await server.start()
        assert server.clockwork is not None
        await tell_end(server.clockwork, notes.append)
        await server.stop()

    began = time.time()
    asyncio.run(run())
    assert exchange.market.left == 0
    assert 1.0 < time.time() - began < 3.5  # the rest of this second and one more
    assert abs(exchange.market.now / 1e9 - time.time()) < 1.0
    assert [second >= int(began) + 1 for second in traded] == [True]  # bar 78 opens at 1078 and falls to 1077: known once it has closed
    assert notes == ["the bars are at their end: the market stands still from here on"]


@pytest.mark.parametrize("futures", [False, True])
def test_all_are_listed_where_they_were_asked_for(bars: Path, tmp_path: Path, futures: bool):
    """Stored spot bars may be traded as perpetuals (and perpetuals, such as the simulated market's, as spot: see below)."""
    server = prepare(load_settings(None, overrides=()), tmp_path, FakeRequest(data=bars, futures=futures, cash=7.0)).server
    assert {listing.perpetual for listing in server.exchange.market.listings} == {futures}
    (account,) = server.exchange.accounts.values()
    assert (account.totals, account.wallet) == ({"USDT": 7}, 7)


def test_the_simulated_market_is_traded_as_spot():
    with started("--simulated", "--clock", "step", "--instruments", "SIM1/USDT") as (_, said):
        client = client_of(said["url"])
        (market,) = client.load_markets()
        order = client.create_order(market, "market", "buy", client.markets[market]["limits"]["amount"]["min"] * 1000)
        handle = Handle(said["url"], said["control_url"])
        assert handle.advance(1)["bars"] == 1
        handle.disconnect()
        (trade,) = client.fetch_my_trades(market)
        assert (trade["order"], trade["amount"]) == (order["id"], order["amount"])
        assert client.fetch_balance()["SIM1"]["total"] == order["amount"]
