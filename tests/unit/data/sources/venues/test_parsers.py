"""Every kind of message of every venue: worked-out values, agreement with ccxt, and nothing but DataError out of broken ones."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.streamed import Book, Liquidation, Trade
from cryptoalpha.core.values import Bar, ChainReading
from cryptoalpha.data.bus.envelope import from_bytes, to_bytes
from cryptoalpha.data.sources.market_reader import MarketReader, answered
from cryptoalpha.data.sources.venues import names
from cryptoalpha.data.sources.venues.catalogue import VENUES
from cryptoalpha.data.sources.venues.reading import iso_time, seconds
from cryptoalpha.data.sources.venues.tape import Tape

NOW = 1_700_000_100_000_000_000
PERPETUAL = {"binanceusdm": "BTC/USDT:USDT", "bybitlinear": "BTC/USDT:USDT", "krakenfutures": "BTC/USD:USD"}
SPOT = {"binance": "BTC/USDT", "bybit": "BTC/USDT", "okx": "BTC/USDT", "kraken": "BTC/USD", "coinbase": "BTC/USD", "bitstamp": "BTC/USD"}


def _values(venue: str, samples: dict[str, list[bytes]]) -> list[Any]:
    found = []
    for raw in samples[venue]:
        reader = MarketReader(venue, subject="BTCUSDT")
        found += [envelope.value() for envelope in reader.read(raw, NOW)]
    return found


@pytest.mark.parametrize("venue", VENUES)
def test_every_kind_of_message_says_what_it_says(samples, venue):
    """The samples all tell the same story: 0.25 sold or bought at 100.5, 2.5 bid at 99.5, a candle 100 102 99 101."""
    values = _values(venue, samples)
    trades = [v for v in values if isinstance(v, Trade)]
    instrument = PERPETUAL.get(venue) or SPOT[venue]
    assert trades
    assert {t.instrument for t in trades} == {instrument}
    assert {(t.price, t.amount) for t in trades} == {(100.5, 0.25)}
    assert {t.venue for t in values if isinstance(t, Trade | Book)} == {venue}
    books = [v for v in values if isinstance(v, Book)]
    assert books or venue == "bitstamp"
    assert all(book.bids[:1] in ((), ((99.5, 2.5),)) for book in books if book.instrument == instrument)
    bars = [v for v in values if isinstance(v, Bar)]
    for bar in bars:
        assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (100.0, 102.0, 99.0, 101.0, 7.0)
        assert bar.known_at >= bar.happened_at + bar.interval
    assert bool(bars) == (venue not in ("bitstamp", "krakenfutures"))
    closed = [v for v in values if isinstance(v, Liquidation)]
    assert bool(closed) == (venue in ("binanceusdm", "bybitlinear", "okx", "krakenfutures"))
    assert all(one.side == "sell" for one in closed)
    rates = {v.metric: v.value for v in values if isinstance(v, ChainReading)}
    assert rates.get("funding_rate_expected") == (0.0001 if venue in (*PERPETUAL, "okx") else None)


def test_the_taker_sells_where_the_buyer_was_there_first(samples):
    sides = {venue: [v.side for v in _values(venue, samples) if isinstance(v, Trade)] for venue in VENUES}
    assert sides["binance"] == ["sell", "sell", "buy", "buy"]  # m: the buyer is the maker
    assert sides["coinbase"] == ["buy", "buy", "buy"]  # a maker that sells is bought from
    assert sides["bitstamp"] == ["sell", "buy"]
    assert sides["kraken"] == ["sell", "sell", "buy"]


@pytest.mark.parametrize("venue", ["binanceusdm", "bybitlinear", "okx"])
def test_a_settlement_is_told_of_its_minute_however_late_its_stamp(samples, venue):
    """As the fetched history stores it: a settlement under two times would be paid twice."""
    (said,) = [raw for raw in samples[venue] if b'"answer":"settled"' in raw.replace(b" ", b"")]
    told = set()
    minute = 1_700_000_040_000  # 22:14:00, after the samples' 22:13:20
    for late in (0, 3, 999, 59_999):
        moved = said.replace(b"1700000000000", str(minute + late).encode())
        (envelope,) = MarketReader(venue).read(moved, NOW)
        told.add((envelope.id, envelope.value().happened_at))
    assert [happened_at for _, happened_at in told] == [minute * 1_000_000]


def test_contracts_of_okx_are_counted_in_base_units_once_their_size_is_known(samples):
    reader = MarketReader("okx")
    forced = next(raw for raw in samples["okx"] if b"liquidation-orders" in raw)
    sizes = next(raw for raw in samples["okx"] if b'"contracts"' in raw)
    (before,) = reader.read(forced, NOW)
    reader.read(sizes, NOW)
    (after,) = reader.read(forced, NOW)
    assert before.value().amount == 3.0  # type: ignore[union-attr]
    assert after.value().amount == pytest.approx(0.03)  # type: ignore[union-attr]


def test_refusals_are_kept_for_people(samples):
    told = {}
    for venue in VENUES:
        reader = MarketReader(venue, subject="BTCUSDT")
        for raw in samples[venue]:
            reader.read(raw, NOW, connection="trades")
        told[venue] = reader.refusals.get("trades", "")
    assert all(told.values()), told
    assert "not supported" in told["kraken"]


def test_a_connection_that_numbers_its_messages_shows_a_loss():
    reader = MarketReader("coinbase")
    level = {"side": "bid", "event_time": "2023-11-14T22:13:20Z", "price_level": "99.5", "new_quantity": "2.5"}

    def message(number: int, kind: str) -> bytes:
        event = {"type": kind, "product_id": "BTC-USD", "updates": [level]}
        return json.dumps({"channel": "l2_data", "sequence_num": number, "events": [event]}).encode()

    assert reader.read(message(0, "snapshot"), NOW, connection="books")
    assert reader.read(message(1, "update"), NOW, connection="books")
    assert reader.read(message(7, "update"), NOW, connection="trades")  # another connection counts for itself
    assert not reader.read(message(3, "update"), NOW, connection="books")
    assert reader.lost_messages == 1
    assert reader.broken == {"BTC/USD"}
    reader.opened("books", ("BTC/USD",))
    assert not reader.broken
    assert reader.read(message(0, "snapshot"), NOW, connection="books")


WEIRD: list[Any] = [
    *(None, True, -1, 0, 1e308, -0.0, 10**30, "", "nan", "inf", "-1", "1e400", "x" * 70, "\x00", "9" * 25, [], {}, [[]], {"a": {}}),
    *(
        2**63,
        -(2**63) - 1,
        9_000_000_000_001,
        "2023-13-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        [1, 2, 3],
        "USDT",
        "/",
        "-",
        "_",
        "1.5.5",
        "１",
    ),
]


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return ([path] if path else []) + [leaf for key, one in inner for leaf in _leaves(one, (*path, key))]


def _broken(raw: bytes, draw: random.Random) -> bytes:
    """A message with something wrong with it, or with nothing."""
    if draw.random() < 0.25:
        cut = bytearray(raw)
        for _ in range(draw.randint(0, 4)):
            cut[draw.randrange(len(cut))] = draw.randrange(256)
        return bytes(cut[: draw.randint(0, len(cut))] if draw.random() < 0.5 else cut)
    message = json.loads(raw)
    for _ in range(draw.randint(1, 3)):
        paths = _leaves(message)
        if not paths:
            break
        *way, last = draw.choice(paths)
        inner = message
        for step in way:
            inner = inner[step]
        choice = draw.random()
        if choice < 0.2:
            del inner[last]
        elif choice < 0.3 and isinstance(inner, list):
            inner.append(copy.deepcopy(inner[last]))
        else:
            inner[last] = copy.deepcopy(draw.choice(WEIRD))
    return json.dumps(message, separators=(",", ":")).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("venue", VENUES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_whatever_comes_only_a_data_error_escapes(samples, venue, seed):
    draw = random.Random(seed)
    reader = MarketReader(venue, subject="BTCUSDT")
    for raw in draw.sample(samples[venue], k=min(6, len(samples[venue]))):
        try:
            envelopes = reader.read(_broken(raw, draw), NOW)
        except DataError:
            continue
        for envelope in envelopes:
            assert from_bytes(to_bytes(envelope)).value() == envelope.value()
            assert envelope.event_time <= envelope.observed_time
    assert MarketReader(venue, position=reader.position).position == reader.position


@pytest.mark.parametrize("venue", VENUES)
@settings(max_examples=25, deadline=None)
@given(raw=st.binary(max_size=80) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_bytes_of_no_kind_are_malformed(venue, raw):
    try:
        MarketReader(venue).read(raw, NOW)
    except DataError:
        return
    assert venue in ("okx", "kraken")  # `pong`, and arrays that happen to be of the older socket
    assert raw == b"pong" or raw.lstrip().startswith(b"[")


def test_deep_json_is_malformed_not_a_crash():
    for venue in VENUES:
        for raw in (b"[" * 100_000, b'{"a":' * 100_000, b'{"stream":"a@trade","data":' + b"[" * 100_000):
            with pytest.raises(DataError):
                MarketReader(venue).read(raw, NOW)


@given(st.sampled_from(["BTC/USDT", "ETH/BTC", "DOGE/USDT", "1000PEPE/USDC", "EUR/USDT", "BTC/FDUSD", "SOL/EUR", "DOT/TUSD"]))
def test_names_come_back_as_they_went(instrument):
    base, quote, _ = names.split(instrument)
    assert names.spot(base + quote) == instrument
    assert names.spot((base + quote).lower()) == instrument
    assert names.perpetual(base + quote) == f"{instrument}:{quote}"
    assert names.dashed(f"{base}-{quote}") == instrument
    assert names.slashed(instrument.replace("BTC", "XBT").replace("DOGE", "XDG")) == instrument


def test_odd_names_are_refused():
    for name in ("", "USDT", "BTCXXX", "nothing"):
        with pytest.raises(DataError):
            names.glued(name)
    for name in ("BTCUSDT", "/USDT", "BTC/", "A/B/C"):
        with pytest.raises(ConfigError):
            names.split(name)
    for name, pair in (("dotusd", "DOT/USD"), ("usdtusd", "USDT/USD"), ("usdcusdt", "USDC/USDT"), ("xbtusd", "XBT/USD")):
        assert names.spot(name, names.DOLLARS) == pair
    with pytest.raises(DataError):
        names.spot("DOTUSD_X")
    assert names.perpetual("BTCUSDT_240329") == "BTC/USDT:USDT-240329"
    assert names.kraken_future("PI_XBTUSD") == "BTC/USD:BTC"
    assert names.kraken_future("FF_ETHUSD_240329") == "ETH/USD:USD-240329"
    assert names.kraken_pair("BTC/USD") == "XBTUSD"


@given(st.integers(0, 8_999_999_999), st.integers(0, 999_999_999))
def test_decimal_seconds_keep_every_digit(whole, part):
    assert seconds(f"{whole}.{part:09d}", "x") == whole * 1_000_000_000 + part


def test_times_of_day_keep_every_digit():
    assert iso_time("2023-11-14T22:13:20.123456789Z", "x") == 1_700_000_000_123_456_789
    assert iso_time("2023-11-14T22:13:20Z", "x") == 1_700_000_000_000_000_000
    for text in ("", "2023-11-14", "2023-11-14T22:13:20.12x", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z"):
        with pytest.raises(DataError):
            iso_time(text, "x")


def test_an_answer_that_is_cut_is_none():
    assert answered("book", "BTCUSDT", b'{"a": 1}') == b'{"answer":"book","subject":"BTCUSDT","data":{"a": 1}}'
    for data in (b"", b'{"a": 1', b"<html>"):
        with pytest.raises(DataError):
            answered("book", "BTCUSDT", data)


def test_a_candle_that_nobody_calls_closed_is_closed_by_the_next():
    reader, begin = MarketReader("kraken"), 1_700_000_040

    def message(*candles: tuple[int, float]) -> bytes:
        row = {"symbol": "BTC/USD", "open": 100, "low": 1, "high": 200, "volume": 1, "interval": 1}
        opens = [{**row, "close": close, "interval_begin": f"2023-11-14T22:{14 + minute:02d}:00.000000000Z"} for minute, close in candles]
        return json.dumps({"channel": "ohlc", "type": "update", "data": opens}).encode()

    def heard(at: int, *candles: tuple[int, float]) -> list[tuple[int, float, int]]:
        bars = [e.value() for e in reader.read(message(*candles), (begin + at) * 10**9)]
        return [(bar.happened_at // 10**9 - begin, bar.close, bar.known_at // 10**9 - begin) for bar in bars if isinstance(bar, Bar)]

    assert heard(1845, *((minute, 90.0) for minute in range(30)), (30, 101.0)) == [(1740, 90.0, 1845)]  # history is no news
    assert heard(1850, (30, 102.0)) == []
    assert heard(1859, (30, 103.0)) == []
    assert heard(1861, (31, 104.0)) == [(1800, 103.0, 1861)]
    assert heard(1862, (30, 99.0)) == []  # late, and never again
    assert heard(1863, (31, 105.0)) == []
    reader = MarketReader("kraken", position=reader.position)
    assert heard(2050, *((minute, 106.0) for minute in range(28, 35))) == [(60 * k, 106.0, 2050) for k in (31, 32, 33)]


def test_a_position_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="position"):
        MarketReader("binance", position="12345")
    with pytest.raises(ConfigError, match="no venue"):
        MarketReader("nowhere")


def test_a_tape_knows_what_is_missing():
    tape = Tape(is_counted=True)
    assert all(tape.take("", str(number), number) for number in (10, 11, 15))
    assert tape.holes == [(12, 14, 11)]
    assert not tape.take("", "11", 16)
    assert tape.take("", "13", 13)
    assert tape.holes == [(12, 12, 11), (14, 14, 13)]
    assert tape.take("", "9", 9)  # the first to come had overtaken it
    assert tape.take("", "7", 7)
    assert tape.holes[-1] == (8, 8, 7)
    tape.give_up(tape.holes[0])
    assert (tape.lost, tape.last) == (1, 15)
    assert not Tape(is_counted=True, last=15).take("", "9", 9)  # before a restart everything older had come
    short = Tape(is_counted=True, last=100, longest=10)
    assert short.take("", "200", 1)
    assert short.holes == [(190, 199, 0)]
    assert short.lost == 89


@given(st.lists(st.integers(0, 40), min_size=1, max_size=80))
def test_a_tape_takes_every_number_once_and_its_holes_are_the_rest(numbers):
    tape = Tape(is_counted=True)
    taken = [number for number in numbers if tape.take("", str(1000 + number), number)]
    assert sorted(taken) == sorted(set(numbers))
    missing = {number for hole in tape.holes for number in range(hole.first, hole.last + 1)}
    assert missing == {1000 + number for number in range(min(numbers), max(numbers))} - {1000 + number for number in taken}
