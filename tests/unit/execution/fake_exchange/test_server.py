"""The fake exchange's door: signatures, windows, weights, addresses; its life as thread, as process, by the wall clock, over restarts."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import threading
import time
from decimal import Decimal
from urllib.parse import urlencode, urlsplit

import ccxt
import pytest

from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fake_exchange.__main__ import main, prepare
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.process import FakeExchange, Handle, build
from cryptoalpha.execution.fake_exchange.server import Server, signed_payload, split_host

BTC = "BTC/USDT"
PRICE = {"symbol": "BTCUSDT"}


def ask(fake, method, path, params=None, *, key="key", secret="secret", stamp=None, window=5000, signature=None, body=False):
    """A request made by hand: status, JSON, headers."""
    given = dict(params or {})
    if secret is not None:
        given |= {"timestamp": int(time.time() * 1000) if stamp is None else stamp, "recvWindow": window}
    text = urlencode(given)
    if secret is not None:
        text += "&signature=" + (signature or hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest())
    connection = http.client.HTTPConnection(urlsplit(fake.url).netloc, timeout=10)
    try:
        headers = {} if key is None else {"X-MBX-APIKEY": key}
        if body:
            connection.request(method, path, text, headers | {"Content-Type": "application/x-www-form-urlencoded"})
        else:
            connection.request(method, f"{path}?{text}", headers=headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read()), dict(reply.getheaders())
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/api/v3/account", "/api.binance.com/api/v3/account"])
def test_a_host_in_the_path_may_be_left_out(spot, path):
    status, account, _ = ask(spot, "GET", path)
    assert (status, account["accountType"]) == (200, "SPOT")


def test_query_and_body_are_signed_as_they_were_sent(spot):
    order = {**PRICE, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "9000"}
    for body in (False, True):
        status, reply, _ = ask(spot, "POST", "/api/v3/order", order, body=body)
        assert (status, reply["status"]) == (200, "NEW")
        assert ask(spot, "DELETE", "/api/v3/order", {**PRICE, "orderId": reply["orderId"]})[0] == 200
    assert signed_payload("a=1&signature=xx&b=2", "c=3&signature=yy") == "a=1&b=2c=3"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"key": None}, 401, -2014),
        ({"key": "stranger"}, 401, -2015),
        ({"secret": "wrong"}, 400, -1022),
        ({"signature": "0" * 64}, 400, -1022),
        ({"secret": None}, 400, -1102),
        ({"stamp": 1_500_000_000_000}, 400, -1021),
        ({"stamp": 4_000_000_000_000}, 400, -1021),
        ({"stamp": ""}, 400, -1102),
        ({"stamp": "x"}, 400, -1100),
    ],
)
def test_who_is_not_who_he_says_is_refused(spot, changes, status, code):
    got, reply, _ = ask(spot, "GET", "/api/v3/account", **changes)
    assert (got, reply["code"]) == (status, code)


def test_the_receive_window_is_counted_by_the_servers_clock(spot):
    old = int(time.time() * 1000) - 3000
    assert ask(spot, "GET", "/api/v3/account", stamp=old, window=5000)[0] == 200
    assert ask(spot, "GET", "/api/v3/account", stamp=old, window=1000)[1]["code"] == -1021
    spot.control("skew", ms=-5000)
    assert ask(spot, "GET", "/api/v3/account")[1]["code"] == -1021  # ahead of the server
    assert abs(ask(spot, "GET", "/api/v3/time", secret=None)[1]["serverTime"] + 5000 - time.time() * 1000) < 2000
    spot.control("skew", ms=0)
    assert ask(spot, "GET", "/api/v3/account")[0] == 200


def test_weights_run_out_and_say_when_to_come_back(spot):
    used = int(ask(spot, "GET", "/api/v3/time", secret=None)[2]["X-MBX-USED-WEIGHT-1M"])
    spot.control("weight_limit", limit=used + 25)
    try:
        status, _, headers = ask(spot, "GET", "/api/v3/account")
        assert (status, int(headers["X-MBX-USED-WEIGHT-1M"])) == (200, used + 20)
        status, reply, headers = ask(spot, "GET", "/api/v3/account")
        assert (status, reply["code"]) == (429, -1003)
        assert 0 < int(headers["Retry-After"]) <= 60
        assert ask(spot, "GET", "/fapi/v1/time", secret=None)[0] == 200  # a budget of its own
    finally:
        spot.control("weight_limit", limit=None)


def test_requests_are_counted_private_ones_apart(spot):
    before = spot.state(brief=True)
    ask(spot, "GET", "/api/v3/time", secret=None, key=None)
    ask(spot, "GET", "/nowhere", secret=None, key=None)
    assert spot.state(brief=True)["private_requests"] == before["private_requests"]
    ask(spot, "GET", "/api/v3/openOrders", {})
    ask(spot, "POST", "/api/v3/unheard/of", {}, key=None)
    ask(spot, "GET", "/api/v3/time", secret=None, key="stranger")
    after = spot.state(brief=True)
    assert after["private_requests"] - before["private_requests"] == 3
    assert after["requests"]["GET /api/v3/openOrders"] - before["requests"].get("GET /api/v3/openOrders", 0) == 1
    assert ask(spot, "GET", "/nowhere", secret=None)[0] == 404


def test_another_hand_trades_on_the_account(spot, plain_client):
    client = plain_client(spot)
    client.load_markets()
    placed = spot.control("order", instrument="ETH/USDT", side="buy", quantity="0.5")
    resting = spot.control("order", instrument="ETH/USDT", side="buy", quantity="0.5", price="100")
    spot.advance()
    assert client.fetch_order(str(placed["order_id"]), "ETH/USDT")["status"] == "closed"
    assert spot.control("cancel", order_id=resting["order_id"])["status"] == "CANCELED"
    theirs = [order for order in spot.state()["accounts"]["key"]["orders"] if order["foreign"]]
    assert [order["order_id"] for order in theirs] == [placed["order_id"], resting["order_id"]]
    before = client.fetch_balance()["BNB"]["total"] if "BNB" in client.fetch_balance() else 0.0
    spot.control("transfer", asset="BNB", amount="2.5")
    assert client.fetch_balance()["BNB"]["total"] == before + 2.5
    client.close()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("order", {"instrument": "NO/USDT", "side": "buy", "quantity": "1"}),
        ("order", {"instrument": BTC, "side": "buy", "quantity": "1000"}),
        ("transfer", {"key": "stranger", "asset": "BNB", "amount": "1"}),
        ("transfer", {}),
        ("nothing", {}),
    ],
)
def test_control_says_what_it_cannot_do(spot, name, body):
    with pytest.raises(VenueError, match="refuses"):
        spot.control(name, **body)


def test_control_is_at_the_public_port_too(spot):
    connection = http.client.HTTPConnection(urlsplit(spot.url).netloc, timeout=10)
    connection.request("GET", "/control/state")
    assert json.loads(connection.getresponse().read())["pid"] == os.getpid()
    connection.close()


def test_two_accounts_do_not_see_each_other(fake_book, plain_client):
    settings = [AccountSettings(key="a"), AccountSettings(key="b", secret="other")]
    with FakeExchange(fake_book(perpetual=False), accounts=settings, start=300) as fake:
        first, second = plain_client(fake, key="a"), plain_client(fake, key="b", secret="other")
        for client in (first, second):
            client.load_markets()
        sent = first.create_order(BTC, "market", "buy", 0.5)
        fake.advance()
        assert first.fetch_balance()["BTC"]["total"] == 0.5
        assert second.fetch_balance()["total"] == {"USDT": 100_000.0}
        assert second.fetch_my_trades(BTC) == []
        with pytest.raises(ccxt.OrderNotFound):
            second.fetch_order(sent["id"], BTC)
    with pytest.raises(ConfigError, match="already"):
        build(fake_book(perpetual=False), ExecutionConfig(), [AccountSettings(), AccountSettings()])


def test_a_restart_keeps_the_books_and_refuses_meanwhile(fake_book, plain_client):
    with FakeExchange(fake_book(perpetual=False), start=300) as fake:
        client = plain_client(fake)
        client.load_markets()
        sent = client.create_order(BTC, "limit", "buy", 0.1, 9_000.0)
        down = threading.Thread(target=fake.control, args=("restart",), kwargs={"down_seconds": 0.4})
        down.start()
        with pytest.raises(ccxt.NetworkError):
            _ = [client.fetch_open_orders(BTC) for _ in iter(down.is_alive, False)]
        down.join()
        assert [order["id"] for order in client.fetch_open_orders(BTC)] == [sent["id"]]


def test_a_process_of_its_own_answers_alike_and_leaves_nothing(fake_book, plain_client):
    settings = [AccountSettings(balances={"USDT": Decimal("5000.5"), "BNB": Decimal(1)}, wallet=Decimal(7), fees="third")]
    with FakeExchange(fake_book(perpetual=False), accounts=settings, start=300, run_as="process") as fake:
        client = plain_client(fake)
        client.load_markets()
        client.create_order(BTC, "market", "buy", 0.1)
        assert fake.advance(2)["bars"] == 2
        state = fake.state()
        assert state["pid"] != os.getpid()
        pid = state["pid"]
        theirs = state["accounts"]["key"]
    with FakeExchange(fake_book(perpetual=False), accounts=settings, start=300) as same:
        client = plain_client(same)
        client.load_markets()
        client.create_order(BTC, "market", "buy", 0.1)
        same.advance(2)
        ours = same.state()["accounts"]["key"]
    assert {name: ours[name] for name in ("balances", "wallet")} == {name: theirs[name] for name in ("balances", "wallet")}
    assert [trade["price"] for trade in ours["trades"]] == [trade["price"] for trade in theirs["trades"]]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [thread for thread in threading.enumerate() if thread.name == "fake-exchange" and not thread.daemon] == []


def test_by_the_wall_clock_bars_open_and_close_by_themselves(fake_book, plain_client):
    length = 200_000_000
    asked = time.time_ns()
    with FakeExchange(fake_book(perpetual=False), start=300, timed=length) as fake:
        started = time.time_ns()
        client = plain_client(fake)
        client.load_markets()
        panel = fake.server.exchange.market.panel
        assert panel.interval == length
        assert asked - length <= panel.known_at[299] <= started
        taking = client.create_order(BTC, "market", "buy", 0.1)
        taken = time.time_ns()
        row = fake.server.exchange.market.row
        resting = client.create_order(
            BTC, "limit", "buy", 0.01, round(float(panel.high[row : row + 4, panel.instruments.index(BTC)].max()) * 0.999, 2)
        )
        deadline = time.time() + 20
        while client.fetch_order(taking["id"], BTC)["status"] == "open" and time.time() < deadline:
            time.sleep(0.02)
        trade = client.fetch_my_trades(BTC, params={"orderId": taking["id"]})[-1]
        while client.fetch_order(resting["id"], BTC)["status"] == "open" and time.time() < deadline:
            time.sleep(0.02)
        assert client.fetch_order(resting["id"], BTC)["status"] == "closed"
        assert trade["timestamp"] * 1_000_000 in panel.open_time
        assert started - length <= trade["timestamp"] * 1_000_000 <= taken + length
        with pytest.raises(VenueError, match="wall clock"):
            fake.advance()


def test_a_taken_port_is_said_so(spot, fake_book):
    import asyncio

    async def start() -> None:
        server: Server = build(fake_book(perpetual=False), ExecutionConfig(), []).server
        await server.start(port=urlsplit(spot.url).port)

    with pytest.raises(VenueError, match="cannot be listened on"):
        asyncio.run(start())


def test_hosts_and_paths():
    assert split_host("/api.binance.com/api/v3/time") == ("api.binance.com", "/api/v3/time")
    assert split_host("/api/v3/time") == ("", "/api/v3/time")
    assert split_host("/ws") == ("", "/ws")


def described(folder, fake_book, **options):
    """The two files that a child process is started with, as arguments."""
    fake_book(perpetual=False).save(folder / "market.npz")
    account = {"key": "k", "secret": "s", "balances": {"USDT": "12.5"}, "wallet": "3", "fees": "base", "fee_asset": "BNB"}
    config = ExecutionConfig(initial_cash=77.0).model_dump(mode="json")
    text = json.dumps({"config": config, "accounts": [account], "options": {"start": 300, "weight_limit": 9, "timed": None, **options}})
    (folder / "settings.json").write_text(text)
    return ["--market", str(folder / "market.npz"), "--settings", str(folder / "settings.json")]


def test_a_child_reads_what_its_parent_wrote(tmp_path, fake_book):
    described(tmp_path, fake_book)
    server = prepare(tmp_path / "market.npz", tmp_path / "settings.json")
    account = server.exchange.accounts["k"]
    assert (account.totals, account.wallet, account.settings.fees) == ({"USDT": Decimal("12.5")}, Decimal(3), "base")
    assert (server.exchange.market.row, server.weight_limit, server.exchange.config.initial_cash) == (299, 9, 77.0)


@pytest.mark.parametrize("ends_by", ["signal", "parent"])
def test_a_child_serves_until_it_is_told_or_left(tmp_path, fake_book, monkeypatch, ends_by):
    arguments = described(tmp_path, fake_book)
    read, write = os.pipe()
    said = []

    class Listener:
        """Standard output that ends the child once it has said where it listens."""

        def write(self, text: str) -> None:
            said.append(text)
            if ends_by == "signal":
                signal.raise_signal(signal.SIGTERM)
            else:
                os.close(write)

        def flush(self) -> None: ...

    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", Listener())
        main(arguments)
    if ends_by == "signal":
        os.close(write)
    where = json.loads(said[0])
    assert where["pid"] == os.getpid()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(urlsplit(where["url"]).netloc, timeout=5).connect()


def test_a_child_that_cannot_start_is_said_so(fake_book, capfd):
    fake = FakeExchange(fake_book(perpetual=False), start=9999, run_as="process")
    with pytest.raises(VenueError, match="did not start"):
        fake.open()
    assert "cannot begin with 9999" in capfd.readouterr().err


def test_control_connects_anew_after_the_connection_was_lost(spot):
    spot.state(brief=True)
    spot._connection.sock.shutdown(socket.SHUT_RDWR)  # as after a long silence
    assert spot.state(brief=True)["pid"] == os.getpid()
    gone = Handle(spot.url, "http://127.0.0.1:9")
    with pytest.raises(ConnectionError):
        gone.state()
