"""What every feature promises, whatever the market: no look ahead, bounded memory, no unit of price or volume, nothing infinite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.signals.price_features import PRICE_FEATURES, WARMUP_BARS, ewma_volatility, price_features
from cryptoalpha.store.panel import FIELDS, Panel

NAMES = tuple(spec.name for spec in PRICE_FEATURES)
PRICES = ("open", "high", "low", "close")
BAR_FIELDS = (*PRICES, "volume", "taker_buy_volume")
ROWS = 700


def market(seed: int, rows: int = ROWS, assets: int = 3) -> Panel:
    """A walk with scattered gaps and one outage."""
    g = stream(seed, "features", "market")
    close = 50.0 * np.exp(np.cumsum(0.01 * g.standard_t(4, (rows, assets)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(0.001 * g.normal(size=(rows, assets)))
    high = np.maximum(open_, close) * np.exp(np.abs(0.005 * g.normal(size=(rows, assets))))
    low = np.minimum(open_, close) * np.exp(-np.abs(0.005 * g.normal(size=(rows, assets))))
    volume = np.exp(g.normal(3, 1, (rows, assets)))
    present = g.random((rows, assets)) > 0.02
    present[rows // 2 : rows // 2 + 9] = False
    columns = [np.where(present, c, np.nan) for c in (open_, high, low, close, volume, volume * g.random((rows, assets)))]
    open_time = HOUR * (np.arange(rows, dtype=np.int64) + 420_000)
    names = tuple(f"{letter}/USDT" for letter in "ABCDEFGH"[:assets])
    return Panel(names, HOUR, open_time, open_time + HOUR, *columns, present, np.where(present, 0, -1))


MARKET = market(7)
FEATURES = price_features(MARKET)


def bits(values: npt.NDArray[np.float64]) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def poisoned(panel: Panel, after: int, poison: float) -> Panel:
    columns = {}
    for name in BAR_FIELDS:
        column = getattr(panel, name).copy()
        column[after:] = poison
        columns[name] = column
    return replace(panel, **columns)


@given(cut=st.integers(1, ROWS))
@settings(max_examples=25, deadline=None)
def test_removing_the_future_changes_no_bit(cut: int) -> None:
    assert bits(price_features(MARKET.rows(0, cut))) == bits(FEATURES[:cut])


@given(cut=st.integers(1, ROWS - 1), poison=st.sampled_from([np.nan, np.inf, 0.0, -5.0, 1e6, 1e300]))
@settings(max_examples=25, deadline=None)
def test_poisoning_the_future_changes_no_bit_and_makes_nothing_infinite(cut: int, poison: float) -> None:
    values = price_features(poisoned(MARKET, cut, poison))
    assert bits(values[:cut]) == bits(FEATURES[:cut])
    assert not np.isinf(values).any()


def test_a_bar_changes_its_own_row() -> None:
    """The other side of the promise: features are not late either. One bar up 5 % moves nearly all of them at that bar."""
    t = 600
    moved = {name: getattr(MARKET, name).copy() for name in BAR_FIELDS}
    for name in ("high", "close", "volume", "taker_buy_volume"):
        moved[name][t, 0] *= 1.05
    changed = price_features(replace(MARKET, **moved))[t, 0] != FEATURES[t, 0]
    still = {name for name, change in zip(NAMES, changed, strict=True) if not change}
    # the calendar, and what only sees a rank, a low or a move of the open
    assert still <= {"hour_of_week_sin", "hour_of_week_cos", "return_rank_32", "low_distance_64", "low_distance_512", "downside_share_64"}


@pytest.mark.parametrize("start", [1, 13, 512, 1000])
def test_rows_past_the_warm_up_do_not_depend_on_where_history_starts(start: int) -> None:
    panel = market(11, rows=WARMUP_BARS + 1_100, assets=2)
    whole, late = price_features(panel), price_features(panel.rows(start, len(panel)))
    assert bits(late[WARMUP_BARS:]) == bits(whole[start + WARMUP_BARS :])
    assert bits(ewma_volatility(panel.rows(start, len(panel)))[WARMUP_BARS:]) == bits(ewma_volatility(panel)[start + WARMUP_BARS :])


@given(price=st.floats(1e-6, 1e6), volume=st.floats(1e-3, 1e6))
@settings(max_examples=20, deadline=None)
def test_features_have_no_unit_of_price_or_volume(price: float, volume: float) -> None:
    scale = {name: price if name in PRICES else volume for name in BAR_FIELDS}
    scaled = price_features(replace(MARKET, **{name: getattr(MARKET, name) * c for name, c in scale.items()}))
    np.testing.assert_array_equal(np.isnan(scaled), np.isnan(FEATURES))
    np.testing.assert_allclose(scaled, FEATURES, rtol=1e-9, atol=1e-9)


def test_the_order_of_assets_does_not_matter() -> None:
    order = [2, 0, 1]
    swapped = replace(
        MARKET,
        instruments=tuple(MARKET.instruments[a] for a in order),
        **{name: getattr(MARKET, name)[:, order] for name in (*FIELDS, "present", "source_row")},
    )
    np.testing.assert_allclose(price_features(swapped), FEATURES[:, order], rtol=1e-9, atol=1e-12)


def test_everything_is_live_on_a_nearly_complete_market_and_masked_at_absent_bars() -> None:
    live = np.isfinite(FEATURES[600:])[MARKET.present[600:]].mean(axis=0)
    assert dict(zip(NAMES, live >= 0.9, strict=True)) == dict.fromkeys(NAMES, True)
    assert np.isnan(FEATURES[~MARKET.present]).all()


def test_an_asset_alone_differs_only_in_its_cross_features() -> None:
    alone = replace(
        MARKET,
        instruments=MARKET.instruments[:1],
        **{name: getattr(MARKET, name)[:, :1] for name in (*FIELDS, "present", "source_row")},
    )
    values = price_features(alone)
    cross = np.array([spec.group == "cross" for spec in PRICE_FEATURES])
    assert bits(values[:, 0, ~cross]) == bits(FEATURES[:, 0, ~cross])
    assert np.isnan(values[:, 0, cross]).all()
