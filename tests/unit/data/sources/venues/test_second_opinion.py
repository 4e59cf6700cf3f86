"""What ccxt makes of the same messages. It knows only what venues send today, and is asked here one message at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ccxt.pro
import pytest

from cryptoalpha.core.streamed import Trade
from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.data.sources.market_reader import MarketReader
from cryptoalpha.data.sources.venues.recorded_files import recorded
from cryptoalpha.data.sources.venues.wiring import WIRED, wiring_of

NOW = 1_900_000_000_000_000_000


def _market(exchange: Any, native: str, symbol: str) -> Any:
    base, _, rest = symbol.partition("/")
    quote, _, settle = rest.partition(":")
    kind = "swap" if settle else "spot"
    exchange.set_markets([
        {
            "id": native, "symbol": symbol, "base": base, "quote": quote, "settle": settle or None, "baseId": base, "quoteId": quote,
            "type": kind, "spot": not settle, "swap": bool(settle), "future": False, "option": False, "margin": False, "active": True,
            "contract": bool(settle), "linear": bool(settle) or None, "inverse": False if settle else None,
            "contractSize": 1.0 if settle else None,
            "precision": {"amount": 1e-8, "price": 1e-8}, "limits": {}, "info": {},
        }
    ])  # fmt: skip
    return exchange.market(symbol)


def _same(trade: Trade, theirs: Any) -> None:
    assert (trade.trade_id, trade.instrument, trade.side, trade.price, trade.amount, trade.happened_at // MILLISECOND) == (
        theirs["id"],
        theirs["symbol"],
        theirs["side"],
        theirs["price"],
        theirs["amount"],
        theirs["timestamp"],
    )


@pytest.mark.parametrize(
    ("venue", "file", "native", "symbol"),
    [
        ("binance", "hft/binance_spot_btcusdt.gz", "BTCUSDT", "BTC/USDT"),
        ("binanceusdm", "hft/binance_usdm_btcusdt.gz", "BTCUSDT", "BTC/USDT:USDT"),
        ("binanceusdm", "cryptofeed/BINANCE_FUTURES.ws.1.0", "CTKUSDT", "CTK/USDT:USDT"),
        ("bitstamp", "cryptofeed/BITSTAMP.ws.1.0", "ethusd", "ETH/USD"),
    ],
)
def test_recorded_trades_are_what_ccxt_takes_them_for(payloads: Path, venue: str, file: str, native: str, symbol: str):
    theirs = getattr(ccxt.pro, venue)()
    market, reader, compared = _market(theirs, native, symbol), MarketReader(venue, subject=native), 0
    for line in recorded(payloads / file):
        if line.way != "came" or compared == 300 or not (b'"p"' in line.raw or b"live_trades" in line.raw):
            continue
        found = [trade for e in reader.read(line.raw, NOW) if isinstance(trade := e.value(), Trade) and trade.instrument == symbol]
        if found:
            _same(found[0], theirs.parse_ws_trade(json.loads(line.raw)["data"], market))
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize(
    ("venue", "name", "rows", "symbol"),
    [
        ("bybitlinear", "bybit/test_data/ws_public_trade.json", lambda m: m["data"], "BTC/USDT:USDT"),
        ("okx", "okx/test_data/ws_trades.json", lambda m: m["data"], "BTC/USD"),
    ],
)
def test_documented_trades_are_what_ccxt_takes_them_for(payloads: Path, venue: str, name: str, rows: Callable[[Any], Any], symbol: str):
    raw = (payloads / "nautilus" / "crates" / "adapters" / name).read_bytes()
    theirs = getattr(ccxt.pro, venue.removesuffix("linear"))()
    market = _market(theirs, "BTCUSDT" if venue == "bybitlinear" else "BTC-USD", symbol)
    parse = theirs.parse_ws_trade if venue == "bybitlinear" else theirs.parse_trade
    (ours,) = [e.value() for e in MarketReader(venue).read(raw, NOW)]
    (row,) = rows(json.loads(raw))
    assert isinstance(ours, Trade)
    _same(ours, parse(row, market))


def _strings(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {found for inner in value.values() for found in _strings(inner)}
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize("venue", WIRED)
def test_addresses_are_those_that_ccxt_knows(venue: str):
    theirs = getattr(ccxt.pro, venue.removesuffix("linear"))()
    known = {theirs.implode_hostname(address) for address in _strings(theirs.urls["api"])}
    hosts = {address.split("/")[2].partition(":")[0] for address in known}
    wiring = wiring_of(venue)
    instrument = wiring.instrument("BTC/USDT")
    plans = wiring.plans(wiring.families, [instrument], "1m")
    assert {plan.family for plan in plans} <= set(wiring.families)
    assert {plan.address.split("/")[2].partition(":")[0] for plan in plans} <= hosts
    assert len({plan.family for plan in plans}) == len(plans)  # one connection each: one that dies takes no other along
    question = wiring.book(instrument)
    if question is not None:
        assert question.address.split("/")[2] in hosts


def test_perpetuals_are_found_for_pairs_and_left_out_where_there_are_none():
    assert wiring_of("binanceusdm").instrument("BTC/USDT") == "BTC/USDT:USDT"
    assert wiring_of("bybitlinear").instrument("BTC/USDT:USDT") == "BTC/USDT:USDT"
    assert wiring_of("okx").instrument("BTC/USDT:USDT") == "BTC/USDT:USDT"
    assert wiring_of("kraken").instrument("BTC/USD:USD") == ""
