"""`trade --live` as its users run it: the command in a process of its own, one-second bars, a fake exchange that gives nothing away.

Told to end, killed at any moment, started again, stopped by a person and let go on: after all of it journal and venue agree to the last
digit. A run on paper beside it, with every condition for real orders but the flag, asks for nothing private.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Fill, InstrumentRules, Order
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import FakeExchange, Handle
from cryptoalpha.store.controls import control_state
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.order_ledger import OrderLedger
from cryptoalpha.store.tables import BarTable, Dataset, ReadingTable

NAMES = {"BTC/USDT": 30_000.0, "ETH/USDT": 2_000.0}
KNOWN = 400
"""Bars known when the exchange opens."""
BARS = 1_000
DAY_SECONDS = 86_400.0
KEY, SECRET = "canary-key-8c2ad1", "canary-secret-5d1f07"
COSTS = {"half_spread": 0.0, "impact": 0.0}
MOOD_SECONDS = 3
SETTINGS: dict[str, Any] = {
    "engine": {"auto_trading": True},
    "signals": {
        "sources": ["fear_greed", "momentum_short"],
        "keep_features": False,
        "momentum": {"short_look_back_days": 6 / DAY_SECONDS, "short_horizon_days": 6 / DAY_SECONDS},
        "mood": {"history_days": 300 / DAY_SECONDS, "extreme": 0.0, "stale_after_days": 1.0},
    },
    "fusion": {"method": "equal"},
    "agent": {"dead_band": 0.02, "smoothing_half_life_bars": 0},
    "risk": {
        "no_trade_band": 0.02,
        "volatility_target": None,
        "tail": {"max_expected_shortfall": None},
        "orders": {"max_entries_per_hour": 100_000},
    },
    "execution": {
        "costs": COSTS,
        "allow_live": True,
        "stale_after_intervals": 3.0,
        "live": {
            "timeout_seconds": 2, "reconcile_seconds": 2, "absence_seconds": 0.5, "receive_window_seconds": 1, "retry_seconds": 0.1,
            "retry_limit_seconds": 1, "settle_seconds": 0.5, "close_seconds": 5,
        },
    },
    "monitoring": {"drift": {"enabled": False}},
}  # fmt: skip
EXCHANGE = {
    "venue_lag_seconds": 0.05, "grace_seconds": 0.8, "backoff_seconds": 0.1, "attempts": 2, "timeout_seconds": 2, "venues": ["binance"],
    "funding_venue": "",
}  # fmt: skip


def market(first: int) -> Dataset:
    """Prices that wander by less than their tick costs, and a mood that swings every few seconds: something to trade on."""
    random = np.random.default_rng(1)
    bars = {}
    for name, price in NAMES.items():
        close = np.round(price * np.exp(np.cumsum(random.normal(0.0, 5e-5, BARS))), 2)
        opened = np.concatenate([[price], close[:-1]])
        high, low = np.maximum(opened, close), np.minimum(opened, close)
        bars[name] = BarTable(name, SECOND, first + SECOND * np.arange(BARS), opened, high, low, close, np.full(BARS, 1e3))
    rules = {
        name: InstrumentRules(
            happened_at=0, known_at=0, instrument=name, venue="binance", base=name[:3], quote="USDT", lot=Decimal("0.00001"),
            tick=Decimal("0.01"), min_notional=Decimal(5),
        )
        for name in NAMES
    }  # fmt: skip
    swings = BARS // MOOD_SECONDS
    at = first + MOOD_SECONDS * SECOND * np.arange(swings) + SECOND // 2
    mood = ReadingTable(
        "*", "fear_greed", "test", at, at, 50.0 + 40.0 * np.sign(np.sin(2.0 * np.arange(swings))) + random.normal(size=swings)
    )
    return Dataset("made up", bars, rules=rules, readings={("*", "fear_greed"): mood})


class World:
    """A fake exchange whose market goes on by itself, and the command line of a user of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.began = root, time.time_ns() // SECOND * SECOND
        self.data = market(self.began - KNOWN * SECOND)
        self.exchange = FakeExchange(
            Book.of(self.data),
            ExecutionConfig.model_validate({"costs": COSTS}),
            start=KNOWN,
            run_as="thread",
            accounts=[AccountSettings(key=KEY, secret=SECRET)],
        )
        self._stop = threading.Event()
        self._market = threading.Thread(target=self._go_on)
        self.started: list[subprocess.Popen[str]] = []
        self.err = root / "said.txt"

    def __enter__(self) -> World:
        self.exchange.open()
        self._market.start()
        chosen = {**SETTINGS, "data": {"exchange": {**EXCHANGE, "endpoint": self.exchange.url}}}
        (self.root / "chosen.yaml").write_text(yaml.safe_dump(chosen))
        return self

    def __exit__(self, *failure: object) -> None:
        for process in self.started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._stop.set()
        self._market.join()
        self.exchange.close()

    def _go_on(self) -> None:
        handle, row = Handle(self.exchange.url, self.exchange.control_url), KNOWN
        while not self._stop.wait(max(0.0, (self.began + (row - KNOWN + 1) * SECOND - time.time_ns()) / SECOND)) and row < BARS:
            handle.advance(1)
            row += 1
        handle.disconnect()

    def store(self, name: str) -> Path:
        """A store with the history up to a few seconds ago."""
        home = self.root / name
        with History(Home(home)) as history:
            for bars in self.data.bars.values():
                history.write_bars("binance", bars.take(bars.open_time < time.time_ns() - 3 * SECOND), origin="test")
            for readings in self.data.readings.values():
                history.write_readings(readings, origin="test")
            history.write_rules(self.data.rules.values())
        return home

    def command(self, home: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
        environment = {
            **os.environ, "CRYPTOALPHA_HOME": str(home), "CRYPTOALPHA_LIVE": "1", "CRYPTOALPHA_CREDENTIALS__API_KEY": KEY,
            "CRYPTOALPHA_CREDENTIALS__API_SECRET": SECRET, "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return [sys.executable, "-m", "cryptoalpha", *arguments, "--config", str(self.root / "chosen.yaml"), "--json"], environment

    def start(self, home: Path, *arguments: str) -> subprocess.Popen[str]:
        command, environment = self.command(home, "trade", "--interval", "1s", *arguments)
        with self.err.open("a") as said:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
        self.started.append(process)
        return process

    def run(self, home: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
        command, environment = self.command(home, *arguments)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, json.loads(done.stdout)

    @property
    def account(self) -> dict[str, Any]:
        found: dict[str, Any] = self.exchange.state()["accounts"][KEY]
        return found

    def held(self) -> Decimal:
        return sum((Decimal(self.account["balances"].get(name[:3], "0")) for name in NAMES), Decimal(0))

    def until(self, what: Callable[[], bool], seconds: float = 30.0) -> float:
        """Wait for it; how long it took."""
        begun = time.monotonic()
        while not what():
            assert time.monotonic() - begun < seconds, f"not within {seconds} s; said so far:\n{self.err.read_text()[-4000:]}"
            for process in self.started:
                assert process.poll() in (None, 0, 4, -9), self.err.read_text()[-4000:]
            time.sleep(0.05)
        return time.monotonic() - begun


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    return process.returncode, json.loads(out)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as found:
        yield found


def trades(world: World) -> int:
    return len(world.account["trades"])


@pytest.mark.slow
def test_a_live_run_survives_whatever_ends_it(world: World):
    home = world.store("live")
    journal = home / "runs" / "live" / "journal.sqlite"

    first = world.start(home, "--live")
    world.until(lambda: trades(world) >= 4)
    code, told = ended(first)
    assert (code, told["result"]["kill_switch"]) == (0, "armed")
    rows = told["result"]["steps"]

    second = world.start(home, "--live")
    before = trades(world)
    world.until(lambda: trades(world) >= before + 2)
    second.kill()
    second.communicate()

    third = world.start(home, "--live")
    before = trades(world)
    world.until(lambda: trades(world) >= before + 2 and world.held() > 0)
    code, told = world.run(home, "kill", "--run", "live", "--flatten", "--reason", "test")
    assert code == 0
    world.until(lambda: world.held() == 0, 10.0)
    world.until(lambda: control_state(journal).mode == "tripped", 10.0)
    before = len(world.account["orders"])
    time.sleep(3.0)
    assert len(world.account["orders"]) == before, "nothing is sent while the kill stands"
    code, told = ended(third)
    assert code == 4
    assert told["error"]["type"] == "RiskHaltError"

    code, _ = world.run(home, "resume", "--run", "live", "--reason", "test", "--confirm", "resume live")
    assert code == 0
    fourth = world.start(home, "--live")
    before = trades(world)
    world.until(lambda: trades(world) > before)
    code, told = ended(fourth)
    assert code == 0
    assert told["result"]["recovered"] > rows

    assert_books_agree(world, journal)
    code, told = world.run(home, "status", "--venue")
    assert code == 0
    (live,) = told["result"]["live"]
    assert (live["run"], live["ended"], live["oldest_unknown_seconds"]) == ("live", True, None)
    assert told["result"]["venue"]["may_withdraw"] is False
    told_all = json.dumps(told)
    code, told = world.run(home, "explain", world.account["trades"][0]["client_id"], "--run", "live")
    assert (code, told["result"]["venue"]["state"]) == (0, "filled")
    said = world.err.read_text()
    assert "Traceback" not in said
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    for secret in (KEY, SECRET):
        assert secret not in said + told_all + json.dumps(told)
        assert secret.encode() not in kept


def assert_books_agree(world: World, journal: Path) -> None:
    """Orders and trades of the venue are those of the run, each once, and every figure follows from them."""
    with JournalReader(journal) as reader:
        header = reader.header
        values = [value for _, _, row in reader.rows() for value in row]
    assert (header["mode"], header["venue"]) == ("live", "binance")
    with OrderLedger(journal) as ledger:
        fills = [booking.fill for booking in ledger.fills()]
        summary = ledger.summary()
    account = world.account
    orders = {value.client_id for value in values if isinstance(value, Order)}
    sent = [order["client_id"] for order in account["orders"]]
    assert len(set(sent)) == len(sent), "no order is sent twice"
    assert set(sent) <= orders, "nothing is sent that the journal does not hold"
    booked = sorted((fill.instrument, fill.trade_id) for fill in fills)
    assert sorted((trade["instrument"], str(trade["trade_id"])) for trade in account["trades"]) == booked
    told = [(value.instrument, value.trade_id) for value in values if isinstance(value, Fill)]
    assert len(told) == len(set(told))
    assert set(told) <= set(booked)
    assert len(booked) - len(told) <= summary.waiting, "what the engine was not told waits for it"
    signed = [(fill, fill.quantity if fill.side == "buy" else -fill.quantity) for fill in fills]
    for name in NAMES:
        mine = sum((quantity for fill, quantity in signed if fill.instrument == name), Decimal(0))
        assert mine == Decimal(account["balances"].get(name[:3], "0"))
    cash = Decimal(100_000) - sum((quantity * fill.price + fill.fee for fill, quantity in signed), Decimal(0))
    assert cash == Decimal(account["balances"]["USDT"])
    assert set(summary.states) <= {"filled", "canceled", "expired", "rejected"}


@pytest.mark.slow
def test_a_paper_run_asks_for_nothing_private_though_it_could(world: World):
    """Keys, variable and setting are all there; only the flag is not given."""
    home = world.store("paper")
    paper = world.start(home, "--feed", "binance")
    journal = home / "runs" / "paper" / "journal.sqlite"

    def has_traded() -> bool:
        if not journal.with_name(f"{journal.name}.begun").is_file():
            return False
        with JournalReader(journal) as reader:
            return any(isinstance(value, Fill) for _, _, row in reader.rows() for value in row)

    world.until(has_traded)
    code, _ = ended(paper)
    assert code == 0
    public = {"GET /api/v3/time", "GET /api/v3/exchangeInfo", "GET /api/v3/klines"}
    asked = world.exchange.state()["requests"]
    assert asked["GET /api/v3/klines"] > 0
    assert set(asked) <= public
    assert not world.account["orders"]
