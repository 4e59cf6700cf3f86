"""A live session in this process: the real engine, broker and ccxt client against a fake exchange; only bars and clocks are the test's."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptoalpha.app.alarms import Alarms
from cryptoalpha.app.live.broker import live_broker
from cryptoalpha.app.live.gates import fingerprint
from cryptoalpha.app.live.heartbeat import read_heartbeat
from cryptoalpha.app.live.order_story import order_story
from cryptoalpha.app.live.session import LiveRun, trade_live
from cryptoalpha.app.live.status import known_orders, live_statuses
from cryptoalpha.app.live.venue_checks import check_venue, look_for
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.sources import open_store
from cryptoalpha.app.trade import TradeReport
from cryptoalpha.app.venues import Keys
from cryptoalpha.core.errors import ConfigError, StoreError, VenueError
from cryptoalpha.core.time import HOUR, MINUTE
from cryptoalpha.core.values import Fill, InstrumentRules, Order, Refusal, Travelling
from cryptoalpha.data.candles import Wait
from cryptoalpha.data.live import LiveBatch
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import FakeExchange
from cryptoalpha.execution.live.broker import LiveBroker
from cryptoalpha.store.controls import control_state, request_control
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.tables import BarTable, Dataset, ReadingTable

NAMES = {"BTC/USDT": 30_000.0, "ETH/USDT": 2_000.0}
KNOWN, BARS = 600, 660
FIRST = 1_700_000_400_000_000_000 // HOUR * HOUR
COSTS = {"half_spread": 0.0, "impact": 0.0}
KEYS = Keys("key", "secret")


def settings(endpoint: str, **live: object) -> Settings:
    return Settings.model_validate(
        {
            "engine": {"auto_trading": True},
            "signals": {
                "sources": ["fear_greed", "momentum_short"],
                "keep_features": False,
                "mood": {"history_days": 12.0, "extreme": 0.0},
            },
            "fusion": {"method": "equal"},
            "agent": {"dead_band": 0.02, "smoothing_half_life_bars": 0},
            "risk": {"no_trade_band": 0.02, "volatility_target": None, "tail": {"max_expected_shortfall": None}},
            "execution": {
                "costs": COSTS,
                "allow_live": True,
                "live": {
                    "timeout_seconds": 2, "absence_seconds": 0.2, "receive_window_seconds": 1, "retry_seconds": 0.05,
                    "retry_limit_seconds": 0.5, "settle_seconds": 0.5, "close_seconds": 3, **live,
                },
            },
            "data": {"exchange": {"endpoint": endpoint, "venue_lag_seconds": 0.0}},
            "credentials": {"api_key": KEYS.api_key, "api_secret": KEYS.secret},
            "monitoring": {"drift": {"enabled": False}},
        }
    )  # fmt: skip


def market() -> Dataset:
    """Prices that wander, and a mood that swings every three bars: something to trade on."""
    random, bars = np.random.default_rng(1), {}
    for name, price in NAMES.items():
        close = np.round(price * np.exp(np.cumsum(random.normal(0.0, 0.002, BARS))), 2)
        opened = np.concatenate([[price], close[:-1]])
        high, low = np.maximum(opened, close), np.minimum(opened, close)
        bars[name] = BarTable(name, HOUR, FIRST + HOUR * np.arange(BARS), opened, high, low, close, np.full(BARS, 1e3))
    rules = {
        name: InstrumentRules(
            happened_at=0, known_at=0, instrument=name, venue="binance", base=name[:3], quote="USDT", lot=Decimal("0.00001"),
            tick=Decimal("0.01"), min_notional=Decimal(5),
        )
        for name in NAMES
    }  # fmt: skip
    swings = BARS // 3
    at = FIRST + 3 * HOUR * np.arange(swings) + HOUR // 2
    mood = ReadingTable(
        "*", "fear_greed", "test", at, at, 50.0 + 40.0 * np.sign(np.sin(2.0 * np.arange(swings))) + random.normal(size=swings)
    )
    return Dataset("made up", bars, rules=rules, readings={("*", "fear_greed"): mood})


class Clock:
    """Stands where it was put."""

    def __init__(self, at: int) -> None:
        self.at = at

    def now(self) -> int:
        return self.at


class World:
    """A store, an exchange whose market moves when told to, and one session at a time."""

    def __init__(self, root: Path, accounts: list[AccountSettings] | None = None) -> None:
        self.data, self.home, self.row = market(), root / "home", KNOWN
        self.exchange = FakeExchange(
            Book.of(self.data), ExecutionConfig.model_validate({"costs": COSTS}), start=KNOWN, run_as="thread", accounts=accounts
        )
        self.clock = Clock(FIRST + KNOWN * HOUR)
        self.journal = self.home / "runs" / "live" / "journal.sqlite"
        self.journal.parent.mkdir(parents=True)
        self.said: list[str] = []
        self.report: TradeReport | None = None
        self.error: BaseException | None = None
        with History(Home(self.home)) as history:
            for bars in self.data.bars.values():
                history.write_bars("binance", bars.take(slice(0, KNOWN)), origin="test")
            for readings in self.data.readings.values():
                history.write_readings(readings, origin="test")
            history.write_rules(self.data.rules.values())

    def start(self, keys: Keys = KEYS, **live: object) -> None:
        """Begin a session in a thread of its own."""
        self.batches: queue.SimpleQueue[LiveBatch] = queue.SimpleQueue()
        self.stop, self.error = threading.Event(), None
        chosen = settings(self.exchange.url, **live)
        self.thread = threading.Thread(target=self._trade, args=(chosen, keys))
        self.thread.start()

    def _trade(self, chosen: Settings, keys: Keys) -> None:
        dataset = open_store(self.home, interval="1h", instruments=None)
        alarms = Alarms(chosen, self.said.append, lambda found: None)

        def feed(wait: Wait) -> Iterator[LiveBatch]:
            while True:
                wait(0.01)
                if not self.batches.empty():
                    yield self.batches.get()

        run = LiveRun(
            "live", "binance", fingerprint(keys), self.journal,
            lambda rules, journal: self._made(live_broker(chosen, rules, journal, self.journal, keys, alert=alarms, clock=self.clock)),
            feed, alarms,
        )  # fmt: skip
        try:
            with History(Home(self.home)) as history:
                self.report = trade_live(chosen, history, dataset, run, stop=self.stop, say=self.said.append, wall=self.clock)
        except (ConfigError, StoreError, VenueError) as error:
            self.error = error

    def _made(self, broker: LiveBroker) -> LiveBroker:
        self.broker = broker
        return broker

    def bar(self, *, late: int = 0) -> None:
        """The market goes on by a bar, and the session takes it."""
        rows = self.rows
        self.exchange.advance(1)
        opened = FIRST + self.row * HOUR
        self.row += 1
        self.clock.at = opened + HOUR + late
        bars = {name: table.take(table.open_time == opened) for name, table in self.data.bars.items()}
        self.batches.put(LiveBatch(opened, opened + HOUR, bars, ()))
        self.until(lambda: self.rows > rows)

    @property
    def requests(self) -> int:
        """How many have reached the venue."""
        return sum(self.exchange.state(brief=True)["requests"].values())

    def until(self, what: Callable[[], bool], seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "\n".join(self.said[-20:])
            assert self.thread.is_alive(), (self.error, self.said[-20:])
            time.sleep(0.01)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()

    @property
    def rows(self) -> int:
        if not self.journal.with_name(f"{self.journal.name}.begun").is_file():
            return 0
        with JournalReader(self.journal) as journal:
            return len(journal)

    def values(self, kind: type) -> list[Any]:
        with JournalReader(self.journal) as journal:
            return [value for _, _, row in journal.rows() for value in row if isinstance(value, kind)]

    @property
    def account(self) -> dict[str, Any]:
        found: dict[str, Any] = self.exchange.state()["accounts"]["key"]
        return found

    def trade(self, trades: int = 2) -> None:
        """Bars until so many trades have been made."""
        for _ in range(40):
            if len(self.account["trades"]) >= trades:
                return
            self.bar()
        raise AssertionError("\n".join(self.said[-20:]))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    with found.exchange:
        yield found
        found.end()


def read(world: World) -> list[tuple[int, int, list[Travelling]]]:
    with JournalReader(world.journal) as journal:
        return list(journal.rows())


def test_a_kill_reaches_the_venue_without_waiting_for_a_bar_and_is_replayed(world: World):
    world.start()
    world.trade()
    sent, rows = len(world.account["orders"]), world.rows
    world.clock.at += 7 * MINUTE
    request_control(world.journal, "kill", by="ann", reason="odd", at=1, flatten=True)
    world.until(lambda: len(world.account["orders"]) > sent)
    moment, closing = read(world)[rows][1:]
    assert moment == world.clock.at, "in a row of that very moment"
    orders = [value for value in closing if isinstance(value, Order)]
    assert orders
    assert all(order.reduce_only and order.known_at == moment for order in orders)
    closing_ids = {order.client_id for order in orders}
    world.until(lambda: closing_ids <= {order["client_id"] for order in world.account["orders"]})
    world.bar()
    world.bar()
    world.until(lambda: control_state(world.journal).mode == "tripped")
    assert not any(Decimal(world.account["balances"].get(name[:3], "0")) for name in NAMES)
    world.end()
    stored = read(world)

    world.start()
    world.bar()
    world.end()
    assert read(world)[: len(stored)] == stored, "interim rows, and what the venue told between bars, are taken again as they were"
    assert world.report is not None
    assert world.report.recovered == len(stored)


def test_a_kill_comes_to_its_end_although_the_feed_never_speaks_again(world: World):
    world.start()
    world.trade()
    sent = len(world.account["orders"])
    world.clock.at += 20 * HOUR
    request_control(world.journal, "kill", by="ann", reason="blind", at=1, flatten=True)
    world.until(lambda: len(world.account["orders"]) >= sent + len(NAMES))  # both ways out wait for the next open
    for _ in range(2):
        world.exchange.advance(1)  # the market goes on, unseen
    world.until(lambda: control_state(world.journal).mode == "tripped")
    assert not any(Decimal(world.account["balances"].get(name[:3], "0")) for name in NAMES)


def test_a_session_does_not_wait_for_a_bar_to_see_that_nobody_looks_after_its_orders(world: World):
    async def broken() -> None:
        raise StoreError("the disk is gone")

    world.start()
    world.trade()
    world.broker._hand(lambda courier: broken())
    world.thread.join(10)
    assert not world.thread.is_alive()
    assert isinstance(world.error, StoreError)


def test_what_is_decided_on_a_bar_that_was_missed_is_not_sent(world: World):
    world.start()
    world.trade()
    world.end()
    sent = {order["client_id"] for order in world.account["orders"]}
    fresh = len(world.values(Order))
    for _ in range(8):  # nothing runs meanwhile
        world.exchange.advance(1)
    world.start()
    missed = world.row
    world.clock.at = FIRST + (missed + 9) * HOUR
    for opened in range(missed, missed + 8):
        at = FIRST + opened * HOUR
        world.batches.put(LiveBatch(at, at + HOUR, {name: t.take(t.open_time == at) for name, t in world.data.bars.items()}, ()))
    world.row += 8
    rows = world.rows
    world.until(lambda: world.rows >= rows + 8)
    decided = [order for order in world.values(Order)[fresh:] if order.known_at < world.clock.at - 2 * HOUR]
    assert decided, "it would have traded on them"
    assert {order["client_id"] for order in world.account["orders"]} == sent
    world.bar()
    stale = {refusal.client_id for refusal in world.values(Refusal) if refusal.rule == "stale_order"}
    assert {order.client_id for order in decided} <= stale


def test_a_silent_feed_is_told_once_takes_no_entries_and_ends_nothing(world: World):
    world.start()
    world.trade()
    world.clock.at += 3 * HOUR + 1
    world.until(lambda: sum("ALERT stale_feed" in text for text in world.said) == 2)
    world.bar(late=0)
    assert sum("ALERT stale_feed" in text for text in world.said) == 2, "once for each instrument"
    assert any("BTC/USDT is heard of again" in text for text in world.said)
    assert world.thread.is_alive()


def test_how_the_run_stands_is_told_from_the_store_and_by_the_venue(world: World):
    world.start()
    world.trade()
    world.exchange.control("order", instrument="BTC/USDT", side="buy", quantity="0.1", type="limit", price="10000")
    now = world.clock.now()
    (status,) = live_statuses(world.home, now=now)
    assert (status.run, status.venue, status.account) == ("live", "binance", fingerprint(KEYS))
    assert status.ledger is not None
    assert sum(status.ledger.states.values()) == len(world.values(Order))
    assert status.oldest_unknown_seconds is None
    look = look_for(world.home, settings(world.exchange.url), lambda found: None, now=now)
    assert (look.may_trade, look.may_withdraw) == (True, False)
    assert abs(look.offset_seconds) < 1.0
    assert {each.asset: each.total for each in look.balances} == {
        asset: Decimal(total) for asset, total in world.account["balances"].items() if Decimal(total)
    }
    assert [(each.report.instrument, each.is_ours) for each in look.orders] == [("BTC/USDT", False)]
    is_ours = known_orders(world.home)
    assert is_ours(world.values(Order)[0].client_id)
    assert not is_ours("somebody-else")
    checks = {each.name: each.state for each in check_venue(world.home, lambda: settings(world.exchange.url), lambda found: None, now=now)}
    assert checks == {"venue": "ok", "venue clock": "ok", "key": "ok", "money": "note", "open orders": "ok"}
    fill = world.values(Fill)[0]
    story = order_story(world.journal, [fill])
    assert story is not None
    assert "filled since" in story.lines()[0]
    assert f"traded {fill.quantity} at {fill.price}" in story.lines()[1]
    world.end()
    beat = read_heartbeat(world.journal.parent)
    assert beat is not None
    assert beat["ended"] is True
    for text in [*world.said, *look.lines(), str(look.as_dict()), *story.lines(), *status.lines()]:
        assert KEYS.secret not in text.split()


def test_a_venue_that_hangs_holds_the_end_of_a_session_no_longer_than_it_may(world: World):
    """And what it was not asked then it is asked at the next start."""
    world.start(timeout_seconds=1.0)
    world.trade()
    world.exchange.faults(script=[{"action": "timeout_before", "route": "* *", "times": 0, "seconds": 60}])
    before = world.requests
    for _ in range(12):  # until something is traded again
        world.bar()
        if world.requests > before:
            break
    assert world.requests > before
    begun = time.monotonic()
    world.end()
    assert time.monotonic() - begun < 12.0
    world.exchange.faults(clear=True)
    world.start()
    world.until(lambda: all(each.oldest_unknown_seconds is None for each in live_statuses(world.home, now=world.clock.now())))
    world.bar()
    assert not any("UNKNOWN" in line for each in live_statuses(world.home, now=world.clock.now()) for line in each.lines())


def test_an_order_of_unknown_fate_is_told_and_proved_absent(world: World):
    world.start(alert_after_seconds=0.0, timeout_seconds=0.5, longest_flight_seconds=0.5)
    world.trade()
    world.exchange.faults(script=[{"action": "timeout_before", "route": "POST */order", "times": 1, "seconds": 3}])
    for _ in range(12):
        world.bar()
        if any("unknown_order" in text for text in world.said):
            break
    assert any("ALERT unknown_order" in text for text in world.said), world.said[-10:]
    world.until(lambda: all(each.oldest_unknown_seconds is None for each in live_statuses(world.home, now=world.clock.now())))
    sent = [order["client_id"] for order in world.account["orders"]]
    assert len(sent) == len(set(sent)), "nothing is sent twice"
    world.bar()
    found = [refusal for refusal in world.values(Refusal) if refusal.rule == "absent"]
    assert len(found) == 1, (world.said[-12:], [each.lines() for each in live_statuses(world.home, now=world.clock.now())])
    assert found[0].client_id not in sent


def test_a_key_that_may_withdraw_sends_nothing(tmp_path: Path):
    found = World(tmp_path, [AccountSettings(may_withdraw=True)])
    with found.exchange:
        found.start()
        found.thread.join(20)
        assert isinstance(found.error, ConfigError)
        assert "may withdraw" in str(found.error)
        assert not found.account["orders"]


def test_a_run_belongs_to_its_account(world: World):
    world.start()
    world.trade()
    world.end()
    world.exchange.control("account", key="other", secret="secret", balances={"USDT": "200000"})
    world.start(Keys("other", "secret"))
    world.thread.join(20)
    assert isinstance(world.error, StoreError)
    assert "account was" in str(world.error)
