"""What a market shows of its bars, and when; how it is stored, read back and stamped anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.execution.fake_exchange.candles import candles
from cryptoalpha.execution.fake_exchange.market import Book, Market
from cryptoalpha.store.tables import Dataset

MS = 1_000_000


@pytest.fixture
def book(fake_book) -> Book:
    made = fake_book(perpetual=False)
    present = made.panel.present.copy()
    present[[5, 6, 7, 20], 0] = False
    prices = {name: np.where(present, getattr(made.panel, name), np.nan) for name in ("open", "high", "low", "close", "volume")}
    return replace(made, panel=replace(made.panel, present=present, **prices))


def test_a_stored_market_comes_back_the_same(book, tmp_path):
    book.funding_at_open[3, 1] = 0.5
    book.save(tmp_path / "market.npz")
    again = Book.load(tmp_path / "market.npz")
    assert dict(again.rules) == dict(book.rules)
    assert (again.panel.instruments, again.panel.interval) == (book.panel.instruments, book.panel.interval)
    for name in ("open_time", "known_at", "open", "high", "low", "close", "volume", "taker_buy_volume", "present"):
        assert_array_equal(getattr(again.panel, name), getattr(book.panel, name))
    assert_array_equal(again.funding_at_open, book.funding_at_open)
    assert_array_equal(again.funding_inside, book.funding_inside)


def test_what_is_no_market_is_said_so(tmp_path):
    (tmp_path / "text.npz").write_text("nothing")
    np.savez(tmp_path / "other.npz", x=np.ones(2))
    for name in ("text.npz", "other.npz", "missing.npz"):
        with pytest.raises(DataError, match="holds no market"):
            Book.load(tmp_path / name)


def test_rules_are_needed(fake_book):
    made = fake_book(perpetual=False)
    market = Market(made)
    assert market.named("BTC/USDT").symbol == "BTCUSDT"
    with pytest.raises(ConfigError, match="not listed"):
        market.named("XRP/USDT")
    with pytest.raises(ConfigError, match="cannot begin"):
        Market(made, start=len(made.panel) + 1)
    from cryptoalpha.store.tables import BarTable

    bars = BarTable(
        instrument="X/USDT", interval=made.panel.interval, open_time=made.panel.open_time, open=np.ones(400), high=np.ones(400),
        low=np.ones(400), close=np.ones(400), volume=np.ones(400),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="no rules for X/USDT"):
        Book.of(Dataset("x", {"X/USDT": bars}))


def slow_rows(market: Market, place: int, since: int | None, until: int | None, limit: int) -> list[int]:
    """The same by looking at every bar."""
    rows = [
        row
        for row in range(market.row + 1)
        if market.panel.present[row, place]
        and (since is None or market.panel.open_time[row] // MS >= since)
        and (until is None or market.panel.open_time[row] // MS <= until)
    ]
    return rows[:limit] if since is not None else rows[-limit:]


def test_bars_are_paged_like_a_slow_search_and_never_show_the_future(book):
    market = Market(book, start=30)
    stamps = [None, *(int(t) // MS + d for t in market.panel.open_time[[0, 3, 6, 18, 29, 35]] for d in (-1, 0, 1))]
    for listing in market.listings[:2]:
        for since in stamps:
            for until in stamps:
                for limit in (1, 3, 12, 500):
                    rows = market.bars(listing, since_ms=since, until_ms=until, limit=limit)
                    assert rows.tolist() == slow_rows(market, listing.place, since, until, limit)
    assert market.bars(market.listings[0], since_ms=None, until_ms=None, limit=1000)[-1] == 29


def test_time_goes_on_bar_by_bar_to_the_end(book):
    market = Market(book, start=398)
    coming = market.coming
    assert coming is not None
    assert market.coming is coming
    assert market.now == book.panel.known_at[397]
    assert market.advance() is coming
    assert (market.row, market.left, market.now) == (398, 1, book.panel.known_at[398])
    market.advance()
    assert (market.left, market.coming) == (0, None)
    with pytest.raises(DataError, match="ends at"):
        market.advance()
    assert "400 bars" in market.describe()


def test_a_missing_bar_leaves_the_last_price(book):
    market = Market(book, start=8)
    assert market.last_price(market.listings[0]) == book.panel.close[4, 0]
    assert market.asset_price("USDT", "USDT") == 1.0
    assert market.asset_price("BTC", "USDT") == market.last_price(market.named("BTC/USDT"))
    assert np.isnan(market.asset_price("XRP", "USDT"))


def test_bars_stamped_anew_close_now_and_last_as_long_as_wanted(book):
    second = 1_000_000_000
    now = 1_800_000_000 * second + 700_000_000
    fresh = book.restamped(row=299, now=now, length=second)
    assert fresh.panel.known_at[299] == 1_800_000_000 * second
    assert_array_equal(np.diff(fresh.panel.open_time), np.full(399, second))
    assert_array_equal(fresh.panel.known_at - fresh.panel.open_time, np.full(400, second))
    assert_array_equal(fresh.panel.close, book.panel.close)


def slow_candles(market: Market, place: int, times: int) -> dict[int, list[float]]:
    """Candles of several bars by looking at every bar: by open time (ms), what has closed."""
    panel = market.panel
    length = panel.interval * times
    found: dict[int, list[float]] = {}
    for row in range(market.row + 1):
        opened = int(panel.open_time[row] // length * length)
        if opened + length > market.now or not panel.present[row, place]:
            continue
        bar = [float(getattr(panel, name)[row, place]) for name in ("open", "high", "low", "close", "volume")]
        if opened // MS in found:
            before = found[opened // MS]
            bar = [before[0], max(before[1], bar[1]), min(before[2], bar[2]), bar[3], before[4] + bar[4]]
        found[opened // MS] = bar
    return found


@pytest.mark.parametrize("times", [1, 2, 3, 24])
def test_longer_candles_are_made_of_the_bars_in_them(book, times):
    for start in (47, 48):
        market = Market(book, start=start)
        for listing in market.listings[:2]:
            every = slow_candles(market, listing.place, times)
            opened = sorted(every)
            for since in (None, *(moment + d for moment in opened[::3] for d in (-1, 0, 1))):
                for until in (None, *(moment + d for moment in opened[1::4] for d in (-1, 0, 1))):
                    for limit in (1, 2, 100):
                        inside = [t for t in opened if (since is None or t >= since) and (until is None or t <= until)]
                        wanted = inside[-limit:] if since is None else inside[:limit]
                        lines = candles(market, listing, times * book.panel.interval, since_ms=since, until_ms=until, limit=limit)
                        assert [line[0] for line in lines] == wanted
                        assert [[float(text) for text in line[1:6]] for line in lines] == [every[t] for t in wanted]
                        assert all(line[6] == line[0] + times * 3_600_000 - 1 for line in lines)


def test_weeks_begin_on_mondays(fake_book):
    market = Market(fake_book(perpetual=False), start=400)
    week = 7 * 24 * 3_600_000_000_000
    lines = candles(market, market.listings[0], week, since_ms=None, until_ms=None, limit=5)
    assert [datetime.fromtimestamp(line[0] / 1000, UTC).isoweekday() for line in lines] == [1] * len(lines)
    assert len(lines) >= 1
