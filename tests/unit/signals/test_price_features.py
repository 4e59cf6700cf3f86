"""Price features with values worked out by hand, the gap rule, bad prints, and the printed list."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, HOUR, MINUTE, parse_time
from cryptoalpha.signals.chain_features import CHAIN_FEATURES
from cryptoalpha.signals.features import live_count, markdown_table
from cryptoalpha.signals.price_features import PRICE_FEATURES, ewma_volatility, price_features
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import BarTable, Dataset

NAMES = tuple(spec.name for spec in PRICE_FEATURES)
DOCS = Path(__file__).resolve().parents[3] / "docs" / "features.md"
Floats = npt.NDArray[np.float64]
NAN = math.nan


def panel_of(
    close: list[Floats] | Floats,
    *,
    open_: Floats | None = None,
    high: Floats | None = None,
    low: Floats | None = None,
    volume: Floats | None = None,
    taker: Floats | None = None,
    interval: int = HOUR,
    start: int = 0,
) -> Panel:
    """A panel from closes (NaN = absent), one column per asset; other columns default to bars without wicks of volume 1."""
    prices = np.column_stack(close) if isinstance(close, list) else close.reshape(len(close), -1)
    present = np.isfinite(prices)

    def column(values: Floats | None, otherwise: Floats) -> Floats:
        return np.where(present, otherwise if values is None else values.reshape(len(values), -1), np.nan)

    opens = column(open_, np.vstack([prices[:1], prices[:-1]]))
    opens = np.where(np.isnan(opens) & present, prices, opens)
    highs, lows = column(high, np.maximum(opens, prices)), column(low, np.minimum(opens, prices))
    time = start + interval * np.arange(len(prices), dtype=np.int64)
    names = tuple(f"{letter}/USDT" for letter in "ABCDEFGH"[: prices.shape[1]])
    volumes, takers = column(volume, np.ones_like(prices)), column(taker, np.full_like(prices, np.nan))
    return Panel(names, interval, time, time + interval, opens, highs, lows, prices, volumes, takers, present, np.where(present, 0, -1))


def feature(name: str, panel: Panel, asset: int = 0) -> Floats:
    return np.asarray(price_features(panel)[:, asset, NAMES.index(name)])


def compounding(rate: float, rows: int) -> Floats:
    return np.asarray(100.0 * np.exp(rate * np.arange(rows)))


def alternating(rows: int, move: float = 0.01) -> Floats:
    """ln price 0, m, 0, m, …: every return is ±m, so σ = m exactly."""
    return np.asarray(100.0 * np.exp(move * (np.arange(rows) % 2)))


# ── the list ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_fifty_price_and_thirty_chain_features_with_names_of_their_own() -> None:
    assert (len(PRICE_FEATURES), len(CHAIN_FEATURES)) == (50, 30)
    assert len({spec.name for spec in (*PRICE_FEATURES, *CHAIN_FEATURES)}) == 80
    assert all(spec.formula and spec.unit and spec.needs for spec in (*PRICE_FEATURES, *CHAIN_FEATURES))


def test_groups_come_in_the_order_and_size_of_the_design() -> None:
    sizes: dict[str, int] = {}
    for spec in (*PRICE_FEATURES, *CHAIN_FEATURES):
        sizes[spec.group] = sizes.get(spec.group, 0) + 1
    price = {"returns": 8, "volatility": 7, "trend": 8, "oscillators": 5, "candle": 6, "levels": 4, "volume": 6, "cross": 4, "calendar": 2}
    chain = {"activity": 12, "exchange": 6, "holders": 5, "valuation": 4, "supply": 3}
    assert list(sizes.items()) == list((price | chain).items())


def test_the_printed_list_is_the_list() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert markdown_table(PRICE_FEATURES) in text
    assert markdown_table(CHAIN_FEATURES) in text


# ── values by hand ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sigma_of_returns_of_one_size_is_that_size() -> None:
    sigma = ewma_volatility(panel_of(alternating(200)))
    assert sigma[-1, 0] == pytest.approx(0.01)
    assert np.isnan(sigma[:74]).all()  # 80 % of the weight, that is 74 returns, must be there
    assert np.isfinite(sigma[74:]).all()


@pytest.mark.parametrize("lag", [1, 2, 4, 8, 16, 32, 64, 128])
def test_returns_of_a_steady_climb_grow_with_the_root_of_the_horizon(lag: int) -> None:
    # every return is σ, so k bars make k σ / (σ √k) = √k
    assert feature(f"return_{lag}", panel_of(compounding(0.01, 300)))[-1] == pytest.approx(math.sqrt(lag))


@pytest.mark.parametrize("half_life", [8, 32, 128])
def test_log_volatility_of_returns_of_one_size(half_life: int) -> None:
    assert feature(f"log_volatility_{half_life}", panel_of(alternating(400)))[-1] == pytest.approx(math.log(0.01))


def test_parkinson_and_garman_klass_of_bars_of_one_shape() -> None:
    close = np.full(60, 100.0)
    panel = panel_of(close, open_=close, high=close * math.exp(0.01), low=close * math.exp(-0.01))
    # ln(high/low) = 0.02; Parkinson 0.02 / √(4 ln 2); Garman–Klass, close = open: 0.02 / √2
    assert feature("log_parkinson_32", panel)[-1] == pytest.approx(math.log(0.02 / math.sqrt(4 * math.log(2))))
    assert feature("log_garman_klass_32", panel)[-1] == pytest.approx(math.log(0.02 / math.sqrt(2)))


def test_downside_share_is_half_when_falls_equal_rises_and_nothing_in_a_climb() -> None:
    assert feature("downside_share_64", panel_of(alternating(200)))[-1] == pytest.approx(0.5)
    assert feature("downside_share_64", panel_of(compounding(0.01, 200)))[-1] == 0.0


def test_volatility_of_constant_volatility_is_nought() -> None:
    assert feature("volatility_of_volatility_64", panel_of(alternating(300)))[-1] == pytest.approx(0.0, abs=1e-9)


def test_trend_of_a_steady_climb() -> None:
    panel = panel_of(compounding(0.01, 600))
    assert feature("adx_14", panel)[-1] == pytest.approx(100.0)
    assert feature("efficiency_32", panel)[-1] == pytest.approx(1.0)
    assert feature("macd_histogram", panel)[-1] == pytest.approx(0.0, abs=1e-9)
    assert feature("slope_t_32", panel)[-1] > 1e5
    # ln close less its average is the mean age (k − 1) / 2 times the rate, in σ √k; the cut-off shortens the mean age by 3 % of it or less
    for k in (8, 32, 128):
        assert feature(f"ema_distance_{k}", panel)[-1] == pytest.approx((k - 1) / 2 / math.sqrt(k), rel=0.04)


def test_direction_is_nought_where_price_goes_nowhere() -> None:
    panel = panel_of(alternating(401))
    assert feature("efficiency_32", panel)[-1] == pytest.approx(0.0, abs=1e-12)
    assert abs(feature("slope_t_128", panel)[-1]) < 0.2


def test_relative_strength_of_a_climb_a_fall_and_a_standstill() -> None:
    assert feature("rsi_14", panel_of(compounding(0.01, 90)))[-1] == pytest.approx(100.0)
    assert feature("rsi_14", panel_of(compounding(-0.01, 90)))[-1] == pytest.approx(0.0)
    assert feature("rsi_14", panel_of(np.full(90, 7.0)))[-1] == 50.0


def test_relative_strength_after_one_fall_among_equal_rises() -> None:
    close = np.concatenate([100.0 + np.arange(100.0), [198.0]])  # +1 each bar, then −1
    # the fall has Wilder weight 1/14 (over 1 − (13/14)⁷⁵), the rises all the rest
    dropped = (13 / 14) ** 75
    fall = (1 / 14) / (1 - dropped)
    assert feature("rsi_14", panel_of(close))[-1] == pytest.approx(100 * (1 - fall))


def test_oscillators_in_a_window_worked_by_hand() -> None:
    close = np.concatenate([np.full(25, 10.0), [12.0]])
    panel = panel_of(close, open_=close)
    # 14 bars: low 10, high 12, close at the high
    assert feature("stochastic_k_14", panel)[-1] == pytest.approx(100.0)
    # 20 bars: mean 10.1, distance 1.9, mean |distance| (19 · 0.1 + 1.9) / 20 = 0.19 → 1.9 / (0.015 · 0.19)
    assert feature("cci_20", panel)[-1] == pytest.approx(1.9 / (0.015 * 0.19))
    # deviation √((19 · 0.1² + 1.9²) / 19) = √0.2
    assert feature("percent_b_20", panel)[-1] == pytest.approx(0.5 + 1.9 / (4 * math.sqrt(0.2)))
    # money flows in at the last bar only: all of it rising
    assert feature("money_flow_14", panel)[-1] == pytest.approx(100.0)


def test_money_flow_weighs_turns_by_turnover() -> None:
    close = np.concatenate([np.full(25, 10.0), [12.0, 11.0]])
    volume = np.concatenate([np.ones(25), [5.0, 10.0]])
    # up on 12 · 5 = 60, down on 11 · 10 = 110
    assert feature("money_flow_14", panel_of(close, open_=close, volume=volume))[-1] == pytest.approx(100 * 60 / 170)


def test_the_shape_of_a_candle() -> None:
    rows = 200
    close, open_ = np.full(rows, 101.0), np.full(rows, 100.0)
    panel = panel_of(close, open_=open_, high=np.full(rows, 104.0), low=np.full(rows, 99.0))
    # range 5 every bar, and the close before lies inside: ATR 5
    assert feature("log_atr_14", panel)[-1] == pytest.approx(math.log(5 / 101))
    for name, value in (("range_to_atr", 1.0), ("body", 0.2), ("upper_wick", 0.6), ("lower_wick", 0.2)):
        assert feature(name, panel)[-1] == pytest.approx(value), name
    assert feature("high_distance_64", panel)[-1] == pytest.approx(3 / 5)
    assert feature("low_distance_64", panel)[-1] == pytest.approx(2 / 5)


def test_the_gap_is_measured_from_the_last_close() -> None:
    close = alternating(200)
    open_ = np.concatenate([close[:1], close[:-1]])
    open_[-1] *= math.exp(0.005)
    assert feature("gap", panel_of(close, open_=open_, high=close * 1.1, low=close * 0.9))[-1] == pytest.approx(0.5)


def test_levels_reach_back_512_bars() -> None:
    close = alternating(900)
    close[387] = 120.0  # in the window that ends at row 898, not in the next
    panel = panel_of(close, open_=close)
    near, far = feature("high_distance_64", panel), feature("high_distance_512", panel)
    assert far[898] / near[898] == pytest.approx((120.0 - 100.0) / (100.0 * math.exp(0.01) - 100.0))
    assert far[899] == near[899] == 0.0


def test_volume_is_scored_against_the_last_64_logarithms() -> None:
    volume = np.concatenate([np.tile([1.0, math.e], 40), [math.e**2]])
    panel = panel_of(alternating(81), volume=volume)
    logs = np.log(volume[-64:])
    assert feature("log_volume_z_64", panel)[-1] == pytest.approx((2 - logs.mean()) / logs.std(ddof=1))


def test_on_balance_volume_of_a_climb_rises_by_a_mean_volume_per_bar() -> None:
    assert feature("obv_slope_32", panel_of(compounding(0.01, 80), volume=np.full(80, 3.0)))[-1] == pytest.approx(1.0)
    assert feature("obv_slope_32", panel_of(compounding(-0.01, 80)))[-1] == pytest.approx(-1.0)


def test_distance_to_the_volume_weighted_price() -> None:
    rows = 200
    close = np.full(rows, 100.0)
    panel = panel_of(close, open_=close, high=np.full(rows, 102.0), low=np.full(rows, 101.0 - 2.0))
    # TP = (102 + 99 + 100) / 3 = 100 1/3, ATR = 3
    assert feature("vwap_distance_64", panel)[-1] == pytest.approx(-1 / 9)


def test_taker_imbalance_of_three_quarters_bought_is_a_half_and_masked_without_taker_volume() -> None:
    volume = np.full(60, 8.0)
    assert feature("taker_imbalance_32", panel_of(alternating(60), volume=volume, taker=0.75 * volume))[-1] == pytest.approx(0.5)
    assert np.isnan(feature("taker_imbalance_32", panel_of(alternating(60)))).all()


def test_illiquidity_is_the_return_moved_by_typical_turnover() -> None:
    rows = 700
    close = alternating(rows, 1e-6)
    # turnover constant up to 1e-6: |r| / turnover · turnover = 1e-6
    assert feature("log_amihud_64", panel_of(close))[-1] == pytest.approx(math.log(1e-6), abs=1e-4)


def test_an_asset_that_moves_twice_the_other() -> None:
    g = np.random.default_rng(5)
    market = np.cumsum(0.01 * g.normal(size=400))
    panel = panel_of([100 * np.exp(2 * market), 50 * np.exp(market)])
    assert feature("market_beta_128", panel, 0)[-1] == pytest.approx(2.0)
    assert feature("market_beta_128", panel, 1)[-1] == pytest.approx(0.5)
    assert feature("market_correlation_128", panel, 0)[-1] == pytest.approx(1.0)
    assert feature("idiosyncratic_return_8", panel, 0)[-1] == pytest.approx(0.0, abs=1e-9)


def test_ranks_share_ties_and_run_from_minus_one_to_one() -> None:
    paths = [compounding(rate, 200) for rate in (0.01, -0.01, 0.03, -0.01)]
    values = price_features(panel_of(paths))[-1, :, NAMES.index("return_rank_32")]
    np.testing.assert_allclose(values, [1 / 3, -2 / 3, 1.0, -2 / 3])


@pytest.mark.parametrize(
    ("moment", "sine", "cosine"),
    [("2023-01-02T00:00", 0.0, 1.0), ("2023-01-03T18:00", 1.0, 0.0), ("2023-01-05T12:00", 0.0, -1.0), ("2023-01-07T06:00", -1.0, 0.0)],
)
def test_the_week_begins_on_monday(moment: str, sine: float, cosine: float) -> None:
    panel = panel_of(np.array([1.0]), start=parse_time(moment))
    assert feature("hour_of_week_sin", panel)[0] == pytest.approx(sine, abs=1e-12)
    assert feature("hour_of_week_cos", panel)[0] == pytest.approx(cosine, abs=1e-12)


# ── faults of real data ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_return_across_an_outage_counts_as_one_bar_of_its_variance() -> None:
    close = alternating(301)
    close[250:254] = NAN  # rows 249 → 254 span five
    close[254:] = close[249] * math.exp(0.05)
    panel = panel_of(close)
    sigma = ewma_volatility(panel)[254, 0]
    assert feature("return_1", panel)[254] == pytest.approx(0.05 / math.sqrt(5) / sigma)
    assert np.isnan(price_features(panel)[250:254]).all()


def test_a_long_outage_masks_windows_until_four_fifths_are_there_again() -> None:
    close = alternating(400)
    close[300:340] = NAN
    live = np.isfinite(feature("stochastic_k_14", panel_of(close)))
    assert live[299]
    # 12 of 14 rows must be there: the first window that reaches them ends at row 351
    assert not live[300:351].any()
    assert live[351:].all()


def test_no_return_reaches_across_more_than_two_days() -> None:
    close = alternating(400)
    close[300:350] = NAN
    returns = feature("return_1", panel_of(close))
    assert np.isnan(returns[350])


def test_range_features_survive_a_print_of_almost_nothing() -> None:
    rows = 400
    close = alternating(rows)
    low = np.minimum(close, np.concatenate([close[:1], close[:-1]]))
    printed = low.copy()
    printed[350] = 1e-4
    honest, bad = price_features(panel_of(close, low=low))[:, 0], price_features(panel_of(close, low=printed))[:, 0]
    assert np.isfinite(bad[350][np.isfinite(honest[350])]).all()
    # the wick is set back to ten volatilities, 10 %: the range of that bar is about eleven bars' instead of a hundred
    assert bad[350, NAMES.index("range_to_atr")] < 8.0
    assert bad[350, NAMES.index("log_atr_14")] < honest[350, NAMES.index("log_atr_14")] + 0.7
    assert bad[355, NAMES.index("low_distance_64")] < 12.0


def test_bars_without_volume_mask_only_what_needs_the_logarithm_of_volume() -> None:
    volume = np.ones(700) + np.arange(700) % 3
    volume[690] = 0.0
    values = price_features(panel_of([alternating(700), compounding(0.01, 700)], volume=np.column_stack([volume, volume])))
    masked = {name for name, value in zip(NAMES, values[690, 0], strict=True) if np.isnan(value)}
    assert masked == {"log_volume_z_64", "log_volume_z_512", "log_amihud_64", "taker_imbalance_32"}
    assert np.isfinite(values[691, 0, NAMES.index("log_amihud_64")])


def test_a_market_that_stands_still_reads_neutral_or_masked_and_never_infinite() -> None:
    values = price_features(panel_of([np.full(700, 5.0), np.full(700, 6.0)]))[-1, 0]
    neutral = {name: float(value) for name, value in zip(NAMES, values, strict=True) if np.isfinite(value)}
    assert neutral.pop("rsi_14") == neutral.pop("stochastic_k_14") == neutral.pop("money_flow_14") == 50.0
    assert neutral.pop("percent_b_20") == 0.5
    neutral.pop("hour_of_week_sin"), neutral.pop("hour_of_week_cos")
    assert set(neutral.values()) == {0.0}


def test_a_book_of_one_bar_and_of_minutes_is_computed() -> None:
    assert price_features(panel_of(np.array([100.0]))).shape == (1, 1, 50)
    assert np.isfinite(price_features(panel_of(alternating(300), interval=MINUTE))[-1, 0, :8]).all()


# ── how many are live ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_live_features_are_counted_per_asset_and_year() -> None:
    late = compounding(0.001, 60)
    late[:40] = NAN
    panel = panel_of([alternating(60), late], interval=DAY, start=parse_time("2022-12-02"))
    price, chain = np.zeros((60, 2, 2)), np.full((60, 2, 1), NAN)
    price[:50, :, 1] = NAN  # known from 21 January on
    chain[:, 0] = 1.0
    first, second, third = live_count(panel, price, chain, ("one", "two", "three"))
    assert (first.instrument, first.bars, first.price, first.chain, first.masked) == ("A/USDT", 30, 1, 1, ("two",))
    assert (second.instrument, second.bars, second.price, second.chain) == ("A/USDT", 30, 1, 1)
    assert (third.instrument, third.bars, third.price, third.chain, third.masked) == ("B/USDT", 20, 2, 0, ("three",))
    assert first.until == second.since == parse_time("2023-01-01")


def test_counting_refuses_arrays_of_another_panel() -> None:
    panel = panel_of(alternating(10))
    with pytest.raises(ConfigError, match="do not fit"):
        live_count(panel, np.zeros((9, 1, 1)), np.zeros((10, 1, 1)), ("one", "two"))


# ── the grid beneath ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_grid_keeps_its_last_bar_over_many_years() -> None:
    """Counting rows in floating point lost the last one of 55,868 hourly bars."""
    time = parse_time("2017-08-17T04:00") + HOUR * np.arange(55_868, dtype=np.int64)
    price = np.ones(len(time))
    panel = build_panel(Dataset("test", {"A/USDT": BarTable("A/USDT", HOUR, time, *[price] * 5)}), since=0, until=2**62)
    assert len(panel) == 55_868
