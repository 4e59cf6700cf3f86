"""Fetching candles by real ccxt clients from a loopback exchange: pages, resuming, refusals, and the second venue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptoalpha.app.venues import Venues
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.core.time import HOUR, MINUTE, iso, parse_time
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.data.exchange import FetchReport, fetch
from cryptoalpha.data.funding_history import fetch_funding
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.tables import ReadingTable

SINCE = parse_time("2022-01-01")


class Bench:
    """A store, loopback venues and everything needed to fetch from one into the other."""

    def __init__(self, history: History, config: ExchangeConfig, venues: Venues, now: int) -> None:
        self.history, self.config, self.venues, self.now = history, config, venues, now
        self.waits: list[float] = []
        self.told: list[tuple[int, int, str]] = []

    def fetch(self, instruments: tuple[str, ...] = ("BTC/USDT",), **changes: Any) -> FetchReport:
        arguments: dict[str, Any] = {
            "instruments": instruments,
            "since": SINCE,
            "gate": BarGate(),
            "config": self.config,
            "clock": VirtualClock(self.now),
            "wait": self.waits.append,
            "progress": lambda done, total, text: self.told.append((done, total, text)),
        }
        return fetch(self.history, self.venues.candle_clients(), **{**arguments, **changes})

    def opens(self, instrument: str = "BTC/USDT", venue: str = "binance") -> list[int]:
        return self.history.load(interval=HOUR, venue=venue, instruments=[instrument]).bars[instrument].open_time.tolist()


@pytest.fixture
def bench(tmp_path: Path, venue: Any, ccxt_at: Any) -> Bench:
    config = ExchangeConfig(venues=("binance",), page_bars=300)
    venues = Venues(config, factory=ccxt_at({"binance": venue.url, "binanceus": venue.url, "binanceusdm": venue.url}))
    return Bench(History(Home(tmp_path)), config, venues, venue.now)


def hours(begin: int, end: int) -> list[int]:
    return list(range(begin, end, HOUR))


LAST_CLOSED = parse_time("2022-03-15T10:00")  # the bar that opens at 10:00 is still forming at 10:20


def test_pages_and_months_arrive_whole_without_the_forming_bar(bench: Bench, venue: Any) -> None:
    report = bench.fetch()
    assert bench.opens() == hours(SINCE, LAST_CLOSED)
    assert (report.venue, report.instruments[0].added) == ("binance", len(hours(SINCE, LAST_CLOSED)))
    assert len(venue.requests) == 3 + 3 + 2  # January 744 bars in pages of 300, February 672, March 346
    assert report.instruments[0].faults == {}
    table = bench.history.load(interval=HOUR).bars["BTC/USDT"]
    assert set(table.taker_buy_volume.tolist()) == {6.0}
    assert bool(np.all(table.known_at == table.open_time + HOUR))


def test_a_forming_bar_that_is_served_is_not_stored(bench: Bench, venue: Any) -> None:
    bench.fetch(since=LAST_CLOSED - HOUR)
    assert venue.requests[0]["limit"] == "2"  # so the venue sends the bar that is still forming, too
    assert bench.opens() == [LAST_CLOSED - HOUR]


def test_progress_is_told_month_by_month(bench: Bench) -> None:
    bench.fetch(("BTC/USDT", "ETH/USDT"))
    done = [d for d, _, _ in bench.told]
    assert done == sorted(done)
    assert len(done) == 6
    assert bench.told[-1][0] == bench.told[-1][1]
    assert bench.told[0][2] == "binance BTC/USDT 1h"


def test_the_rules_of_the_venue_are_kept(bench: Bench) -> None:
    bench.fetch()
    rules = bench.history.load(interval=HOUR).rules["BTC/USDT"]
    assert [str(value) for value in (rules.lot, rules.tick, rules.min_notional)] == ["0.00001", "0.01", "5.0"]
    assert (rules.venue, rules.base, rules.quote) == ("binance", "BTC", "USDT")


def test_an_interrupted_fetch_loses_at_most_a_month_and_goes_on_where_it_stopped(bench: Bench, venue: Any) -> None:
    venue.fail_after = 4  # January needs 3 pages; February breaks off after its first
    with pytest.raises(VenueError, match="failed 4 times"):
        bench.fetch()
    assert bench.opens() == hours(SINCE, parse_time("2022-02-01"))
    venue.fail_after = None
    venue.requests.clear()
    bench.fetch()
    assert bench.opens() == hours(SINCE, LAST_CLOSED)
    assert int(venue.requests[0]["startTime"]) * 1_000_000 == parse_time("2022-02-01")


def test_a_repetition_asks_only_for_what_is_new(bench: Bench, venue: Any) -> None:
    bench.fetch(until=parse_time("2022-02-10"))
    venue.requests.clear()
    report = bench.fetch(until=parse_time("2022-02-12"))
    assert [iso(int(query["startTime"]) * 1_000_000) for query in venue.requests] == ["2022-02-10T00:00:00Z"]
    assert report.instruments[0].added == 48
    venue.requests.clear()
    bench.fetch(until=parse_time("2022-02-12"))
    assert venue.requests == []


def test_earlier_history_is_fetched_backwards_so_that_no_hole_stays(bench: Bench, venue: Any) -> None:
    bench.fetch(since=parse_time("2022-03-01"))
    venue.fail_after = len(venue.requests) + 4
    with pytest.raises(VenueError):
        bench.fetch(since=parse_time("2021-12-01"))
    assert bench.opens() == hours(parse_time("2022-02-01"), LAST_CLOSED)  # whole months, next to what was there
    venue.fail_after = None
    bench.fetch(since=parse_time("2021-12-01"))
    assert bench.opens() == hours(parse_time("2021-12-01"), LAST_CLOSED)


def test_months_before_an_asset_was_listed_cost_one_request(bench: Bench, venue: Any) -> None:
    venue.listed = parse_time("2022-03-01T05:00")
    bench.fetch(since=parse_time("2019-01-01"))
    assert bench.opens() == hours(venue.listed, LAST_CLOSED)
    assert len(venue.requests) == 1 + 2


@pytest.mark.parametrize(
    "body",
    [b"<html>gone</html>", b"", b"null", b"{}", b"[[1,2", b'[[1, "2"]]', b'[["a","b","c","d","e","f",1,"1",1,"1","1","0"]]', b"[null]"],
)
def test_a_garbled_reply_is_asked_again_and_never_stored(bench: Bench, venue: Any, body: bytes) -> None:
    venue.faults = [(200, body, {})]
    bench.fetch()
    assert bench.opens() == hours(SINCE, LAST_CLOSED)
    assert bench.waits == [1.0]
    venue.faults = [(200, body, {})] * 4
    with pytest.raises(VenueError, match="failed 4 times") as caught:
        bench.fetch(since=parse_time("2021-12-01"))
    assert (caught.value.exit_code, bool(caught.value.hint)) == (5, True)


def test_candles_from_the_wrong_time_are_no_answer(bench: Bench, venue: Any) -> None:
    row = b'[[1, "1","1","1","1","1",1,"1",1,"1","1","0"]]'
    venue.faults = [(200, row, {})] * 4
    with pytest.raises(VenueError, match="order of time"):
        bench.fetch()


def test_a_rate_limit_is_honoured(bench: Bench, venue: Any) -> None:
    venue.faults = [(429, b'{"code":-1003,"msg":"Too many requests"}', {"Retry-After": "7"}), (418, b"{}", {"Retry-After": "2"})]
    bench.fetch()
    assert bench.waits == [7.0, 14.0]  # what the venue asked for, then twice that: longer than its 2 seconds
    assert bench.opens() == hours(SINCE, LAST_CLOSED)


def test_a_refused_connection_is_a_venue_error_with_a_hint(tmp_path: Path, ccxt_at: Any) -> None:
    config = ExchangeConfig(venues=("binance",), attempts=2)
    venues = Venues(config, factory=ccxt_at({"binance": "http://127.0.0.1:9"}))
    bench = Bench(History(Home(tmp_path)), config, venues, LAST_CLOSED)
    with pytest.raises(VenueError, match="binance failed 2 times to answer for its markets") as caught:
        bench.fetch()
    assert "network" in caught.value.hint
    assert "http" not in str(caught.value)
    assert bench.history.coverage() == []


def test_the_second_venue_serves_when_the_first_fails(tmp_path: Path, open_venue: Callable[[], Any], ccxt_at: Any) -> None:
    first, second = open_venue(), open_venue()
    config = ExchangeConfig(venues=("binance", "binanceus"), attempts=2)
    venues = Venues(config, factory=ccxt_at({"binance": first.url, "binanceus": second.url}))
    bench = Bench(History(Home(tmp_path)), config, venues, first.now)
    first.fail_after = 1
    report = bench.fetch(("BTC/USDT", "ETH/USDT"))
    assert report.venue == "binanceus"
    assert "binance failed 2 times" in report.passed_over[0]
    assert bench.opens("ETH/USDT", "binanceus") == hours(SINCE, LAST_CLOSED)
    first.fail_after = None  # next time the venue that holds the answer is asked first
    second.requests.clear()
    asked = len(first.requests)
    assert bench.fetch(("BTC/USDT", "ETH/USDT"), clock=VirtualClock(first.now + HOUR)).venue == "binanceus"
    assert len(first.requests) == asked


def test_an_unlisted_instrument_moves_on_to_the_next_venue(tmp_path: Path, open_venue: Callable[[], Any], ccxt_at: Any) -> None:
    first, second = open_venue(), open_venue()
    first.symbols = ["BTCUSDT"]
    config = ExchangeConfig(venues=("binance", "binanceus"))
    venues = Venues(config, factory=ccxt_at({"binance": first.url, "binanceus": second.url}))
    bench = Bench(History(Home(tmp_path)), config, venues, first.now)
    report = bench.fetch(("BTC/USDT", "ETH/USDT"))
    assert report.venue == "binanceus"
    assert "binance does not list ETH/USDT" in report.passed_over[0]
    with pytest.raises(VenueError, match="does not list XYZ/USDT"):
        bench.fetch(("XYZ/USDT",))


def test_bars_pass_the_gate_and_faults_are_counted(bench: Bench, venue: Any) -> None:
    good = venue.candles({"symbol": "BTCUSDT", "startTime": str(SINCE // 1_000_000), "limit": "300"})
    good[5][2] = "1"  # a high below the low
    import json

    venue.faults = [(200, json.dumps(good).encode(), {})]
    report = bench.fetch(until=parse_time("2022-01-20"))
    assert report.instruments[0].faults == {"impossible_range": 1, "gap": 1}
    assert SINCE + 5 * HOUR not in bench.opens()


def test_nothing_to_fetch_is_a_usage_error(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="nothing to fetch"):
        bench.fetch(since=bench.now + HOUR)
    with pytest.raises(ConfigError, match="nothing to fetch"):
        bench.fetch(())


def test_an_interval_the_venue_lacks_names_those_it_has(bench: Bench) -> None:
    with pytest.raises(VenueError, match="binance has no 7m candles"):
        bench.fetch(interval="7m")


def test_one_client_per_venue_and_unknown_venues_are_refused() -> None:
    venues = Venues(ExchangeConfig(venues=("binance",)))
    assert venues.client("binance") is venues.candle_clients()[0]
    assert not venues.client("binance").apiKey  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="no exchange that ccxt knows"):
        venues.client("nosuchvenue")
    assert Venues(ExchangeConfig(funding_venue="")).funding_client() is None


def test_funding_is_fetched_and_resumed(bench: Bench, venue: Any) -> None:
    client = bench.venues.client("binanceusdm")
    clock = VirtualClock(bench.now)
    added = fetch_funding(bench.history, client, instruments=["BTC/USDT", "XYZ/USDT"], since=SINCE, clock=clock, wait=bench.waits.append)
    expected = (bench.now - SINCE) // (8 * HOUR) + 1
    assert added == {"BTC": expected}
    bench.fetch()
    table = bench.history.load(interval=HOUR).readings["BTC", "funding_rate"]
    assert len(table) == expected
    assert int(table.known_at[0]) == int(table.happened_at[0]) == SINCE  # the venue's stamp is 7 ms later
    assert table.source == "binance"
    again = fetch_funding(bench.history, client, instruments=["BTC/USDT"], since=SINCE, clock=clock, wait=bench.waits.append)
    assert again == {"BTC": 0}
    venue.faults = [(200, b"<html>", {})] * 4
    with pytest.raises(VenueError, match="failed 4 times to answer for funding"):
        fetch_funding(bench.history, client, instruments=["ETH/USDT"], since=SINCE, clock=clock, wait=bench.waits.append)


@pytest.mark.parametrize(("heard_from", "fetched_as"), [("binance", "funding_rate"), ("okx", "funding_rate.binance")])
def test_funding_that_was_heard_live_is_not_stored_twice_and_hides_nothing_before_it(
    bench: Bench, heard_from: str, fetched_as: str
) -> None:
    """The venue stamps a settlement 7 ms late: asked for what came after the one that was heard, it tells that one again."""
    settled = SINCE + (bench.now - SINCE) // (8 * HOUR) * 8 * HOUR
    heard = ReadingTable("BTC", "funding_rate", heard_from, np.array([settled]), np.array([settled + MINUTE]), np.array([0.25]))
    bench.history.write_readings(heard, origin="live stream")
    clock, client = VirtualClock(bench.now), bench.venues.client("binanceusdm")
    fetch_funding(bench.history, client, instruments=["BTC/USDT"], since=SINCE, clock=clock, wait=bench.waits.append)
    bench.fetch()
    readings = bench.history.load(interval=HOUR).readings
    moments = readings["BTC", fetched_as].happened_at.tolist()
    assert moments == list(range(SINCE, settled + 1, 8 * HOUR))
    assert readings["BTC", "funding_rate"].source == heard_from
    assert (readings["BTC", "funding_rate"].known_at[-1], readings["BTC", "funding_rate"].value[-1]) == (settled + MINUTE, 0.25)
